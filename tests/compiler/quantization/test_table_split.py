"""Weights to tables: what each kind of split holds, that clipping lessens the error, and rounding chosen
together for all weights of a neuron."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy.sparse import csr_array

from snn_compile.compiler.quantization.rounding import RIDGE, moments, reconstruct, reconstructed
from snn_compile.compiler.quantization.scales import rows
from snn_compile.compiler.quantization.weight_tables import GROUPS, TableFormat, split_weights
from snn_compile.targets.chips.rounding import round_weights
from snn_compile.targets.program.weights import WeightTable

EXPONENTS = (-8, 7)


def drawn(seed: int, shape=(9, 14), heavy: bool = True) -> np.ndarray:
    """Weights in units of synaptic input, with heavy tails, of any size that tables can hold."""
    rng = np.random.default_rng(seed)
    found = rng.standard_t(2, shape) if heavy else rng.normal(size=shape)
    return found / np.abs(found).max() * 10 ** rng.uniform(1, 4)


@pytest.mark.parametrize("kind", ["one", "sign", "group", "residual"])
@pytest.mark.parametrize("bits", [1, 3, 8])
@pytest.mark.parametrize("seed", range(4))
def test_tables_are_tables_and_add_up(kind, bits, seed):
    exact = drawn(seed)
    split = split_weights(exact, TableFormat(bits, kind), EXPONENTS)
    total = np.zeros_like(exact)
    for part in split.parts:
        table = WeightTable(part.weights, part.exponent, part.bits, part.sign_mode, 0)  # refuses what is none
        total += table.weights * 2.0**table.exponent
    np.testing.assert_array_equal(split.values(), total)
    low, high = split.limits()
    inside = (exact >= low) & (exact <= high)
    assert (np.abs(total - exact)[inside] <= split.lsb[inside] * (0.5 + 1e-9)).all()
    np.testing.assert_array_equal(total[~inside], np.clip(exact, low, high)[~inside])
    far = np.abs(total - exact) > split.lsb * (0.5 + 1e-6)
    assert split.clipped(exact) == far.sum()


@pytest.mark.parametrize("seed", range(4))
def test_a_residual_table_adds_the_bits_of_a_second_one(seed):
    exact = drawn(seed) / np.abs(drawn(seed)).max() * 3000.0 * 2**seed
    one, two = (split_weights(exact, TableFormat(8, kind), EXPONENTS) for kind in ("one", "residual"))
    assert len(two.parts) == 2
    # No finer than a whole unit of input, which a right shift would lose.
    step = max(round_weights(exact, 8, EXPONENTS).step / 256, 1.0)
    np.testing.assert_allclose(two.lsb, step)
    assert np.abs(two.values() - exact).max() <= step / 2 < np.abs(one.values() - exact).max()


def test_a_residual_that_would_be_lost_is_left_out():
    exact = drawn(0) / np.abs(drawn(0)).max() * 100
    assert len(split_weights(exact, TableFormat(8, "residual"), EXPONENTS).parts) == 1


def test_steps_below_1_count_where_messages_are_numbers():
    exact = drawn(0) / np.abs(drawn(0)).max() * 100
    split = split_weights(exact, TableFormat(8, "residual"), EXPONENTS, graded=True)
    assert len(split.parts) == 2 and split.lsb.max() < 0.01
    assert np.abs(split.values() - exact).max() <= split.lsb.max() / 2


@pytest.mark.parametrize("sparse", [False, True])
def test_groups_are_of_whole_targets_and_of_the_exponent_each_asks_for(sparse):
    exact = drawn(1, (20, 6), heavy=False) * 4.0 ** -(np.arange(20) % 6)[:, None]
    values, where = exact, None
    if sparse:
        table = csr_array(exact)
        values, where = table.data, rows(table)
    split = split_weights(values, TableFormat(8, "group"), EXPONENTS, rows=where)
    assert 2 <= len(split.parts) <= GROUPS
    row = np.broadcast_to(np.arange(20)[:, None], exact.shape) if where is None else where
    for part, other in product(range(len(split.parts)), repeat=2):
        if part != other:
            assert not set(row[split.holds[part]].flat) & set(row[split.holds[other]].flat)
    one = split_weights(values, TableFormat(8, "one"), EXPONENTS)
    assert np.square(split.values() - values).sum() < np.square(one.values() - values).sum() / 1.2
    assert (split.lsb <= one.lsb).all()


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("seed", range(6))
def test_clipping_never_adds_error_and_often_lessens_it(bits, seed):
    exact = drawn(seed)
    weighs = np.random.default_rng(seed).random(exact.shape[1])[None, :]

    def error(found):
        return float((np.square(found.values() - exact) * weighs).sum())

    split = split_weights(exact, TableFormat(bits, "one"), EXPONENTS, weighs)
    unclipped = round_weights(exact, bits, EXPONENTS)
    assert error(split) <= error(unclipped)
    if split.clipped(exact):
        assert error(split) < error(unclipped)


def test_few_bits_do_clip_outliers():
    exact = drawn(0, (30, 30))
    assert split_weights(exact, TableFormat(3, "one"), EXPONENTS).clipped(exact) > 0
    assert (
        round_weights(exact, 3, EXPONENTS).exponent
        > split_weights(exact, TableFormat(3, "one"), EXPONENTS).parts[0].exponent
    )


@pytest.mark.parametrize("kind", ["one", "sign", "group", "residual"])
@pytest.mark.parametrize("seed", range(3))
def test_reconstruction_stays_in_the_tables_and_lessens_what_neurons_feel(kind, seed):
    rng = np.random.default_rng(seed)
    exact = drawn(seed)
    x = rng.random((200, 14)) @ rng.random((14, 14))
    moment = x.T @ x / 200
    split = split_weights(exact, TableFormat(5, kind), EXPONENTS)

    def felt(values):
        return np.einsum("ij,jk,ik->i", values - exact, moment, values - exact)

    values = reconstruct(exact, split.values(), split.lsb, split.limits(), moment)
    np.testing.assert_allclose(split.moved(values).values(), values)
    low, high = split.limits()
    assert ((values >= low) & (values <= high)).all()
    inside = (exact >= low) & (exact <= high)
    assert (np.abs(values - exact)[inside] < split.lsb[inside] * (1 + 1e-9)).all()
    assert (felt(values) <= felt(split.values()) * (1 + 1e-9)).all()
    assert felt(values).sum() < 0.7 * felt(split.values()).sum()
    # No single weight can be moved to its other neighbour for the better.
    for j in range(14):
        for side in (-1, 1):
            other = values.copy()
            other[:, j] += side * split.lsb[:, j]
            allowed = np.abs(other[:, j] - exact[:, j]) < split.lsb[:, j]
            allowed &= (other[:, j] >= low[:, j]) & (other[:, j] <= high[:, j])
            assert (felt(other)[allowed] >= felt(values)[allowed] * (1 - 1e-9)).all()


@pytest.mark.parametrize("seed", range(3))
def test_sparse_weights_are_reconstructed_as_dense_ones(seed):
    rng = np.random.default_rng(seed)
    x = rng.random((300, 21)) @ rng.random((21, 21))
    moment = x.T @ x / 300
    exact = drawn(seed, (11, 20)) * (rng.random((11, 20)) < 0.4)
    bias = drawn(seed + 9, (11, 1))
    table = csr_array(exact)
    how = TableFormat(4, "one")
    nearest = split_weights(table.data, how, EXPONENTS, rows=rows(table))
    other = split_weights(bias, how, EXPONENTS)
    found = reconstructed([(table, nearest), (bias, other)], moment)
    kept = csr_array((nearest.values(), table.indices, table.indptr), shape=table.shape).toarray()
    step = np.where(exact != 0, nearest.lsb[0], 0.0)
    low, high = (float(limit[0]) for limit in nearest.limits())
    ends = [float(limit[0, 0]) for limit in other.limits()]
    wanted = reconstruct(
        np.concatenate([exact, bias], axis=1),
        np.concatenate([kept, other.values()], axis=1),
        np.concatenate([step, other.lsb], axis=1),
        tuple(
            np.concatenate([np.full_like(exact, a), np.full_like(bias, b)], axis=1)
            for a, b in zip((low, high), ends, strict=True)
        ),
        moment,
    )
    ours = csr_array((found[0].values(), table.indices, table.indptr), shape=table.shape).toarray()
    np.testing.assert_allclose(np.concatenate([ours, found[1].values()], axis=1), wanted)
    assert (ours != kept).any()


def test_sparse_weights_are_worked_off_in_chunks(monkeypatch):
    rng = np.random.default_rng(3)
    exact = csr_array(drawn(3, (30, 12)) * (rng.random((30, 12)) < 0.5) * (np.arange(30)[:, None] % 7 > 0))
    x = rng.random((50, 12))
    split = split_weights(exact.data, TableFormat(3, "one"), EXPONENTS, rows=rows(exact))
    whole = reconstructed([(exact, split)], x.T @ x)[0].values()
    monkeypatch.setattr("snn_compile.compiler.quantization.rounding.CHUNK", 200)
    np.testing.assert_array_equal(reconstructed([(exact, split)], x.T @ x)[0].values(), whole)


def test_reconstruction_comes_close_to_the_best_of_all_roundings():
    rng = np.random.default_rng(5)
    exact = rng.uniform(-3, 3, (40, 6))
    x = rng.random((100, 6))
    moment = x.T @ x / 100
    nearest = np.rint(exact)
    corners = np.array(list(product((0.0, 1.0), repeat=6)))

    def felt(values):
        error = values - exact[:, None]
        return np.einsum("rci,ij,rcj->rc", error, moment, error)

    best = felt(np.floor(exact)[:, None] + corners).min(axis=1).sum()
    limits = (np.full_like(exact, -9.0), np.full_like(exact, 9.0))
    found = reconstruct(exact, nearest, np.ones_like(exact), limits, moment)
    ours, plain = felt(found[:, None]).sum(), felt(nearest[:, None]).sum()
    assert best <= ours < best + 0.25 * (plain - best)


def test_moments_are_those_of_what_the_membrane_sees(build):
    from snn_compile.compiler import lower

    graph = build.chain(
        3, build.linear(np.random.default_rng(0), 4, 3), build.cuba(4, tau_syn=2.0, tau_mem=4.0)
    )
    network = lower(graph)
    data = (np.random.default_rng(1).random((5, 30, 3)) < 0.3).astype(float)
    (edge,) = network.projections
    found = moments(network.population(edge.target), [edge], {edge.source: data}, {edge.source: 2.0})
    u = v = np.zeros((5, 3))
    total = np.zeros((3, 3))
    for t in range(30):
        u = 0.5 * u + 2.0 * data[:, t]
        v = 0.75 * v + u
        total += v.T @ v / 150
    np.testing.assert_allclose(found, total + np.eye(3) * RIDGE * np.diag(total).mean())
