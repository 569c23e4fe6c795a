"""Decays and gains that are binary fractions in a framework survive its float32 file, and ties with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest

from snn_compile import runtime
from snn_compile.compiler import lower
from snn_compile.compiler.cli.main import main
from snn_compile.compiler.lowering.binary_fractions import Fractions
from snn_compile.compiler.network import Network
from snn_compile.compiler.pipeline import compile_graph

BETAS = (0.5, 0.75, 0.875, 0.25, 0.9375, 0.96875, 0.984375)
STEPS = 12


def parameters(beta: np.ndarray, dt: float) -> tuple[np.ndarray, np.ndarray]:
    """Return tau and the gain that undoes dt / tau, in float32 as an exporter computes them."""
    tau = np.float32(dt) / (np.float32(1) - beta.astype(np.float32))
    return tau, (tau / np.float32(dt)).astype(np.float32)


def graph(layers: list[tuple[np.ndarray, Any]]) -> nir.NIRGraph:
    """Return weights and neurons in a row."""
    nodes: dict[str, Any] = {"input": nir.Input(np.array([layers[0][0].shape[1]]))}
    for index, (weight, neuron) in enumerate(layers):
        nodes |= {f"w{index}": nir.Linear(weight), f"n{index}": neuron}
    nodes["output"] = nir.Output(np.array([layers[-1][0].shape[0]]))
    names = list(nodes)
    return nir.NIRGraph(nodes, list(zip(names[:-1], names[1:], strict=True)))


def conventions(dt: float, reset: str) -> dict[str, Any]:
    return {"dt": dt, "rule": "euler", "comparison": ">", "reset": reset, "reset_timing": "same_step"}


def drawn(rng: np.random.Generator, dt: float) -> tuple[nir.NIRGraph, list[tuple[np.ndarray, ...]]]:
    """Return two layers as a graph, and their float32 weights, alphas and betas; alpha 0 is no current."""
    sizes, layers, kept = rng.integers(3, 9, 3), [], []
    for before, size in zip(sizes[:-1], sizes[1:], strict=True):
        step = int(rng.choice([1, 16, 32]))  # of 1/64; coarse weights meet the threshold more often
        weight = (rng.integers(-32 // step, 64 // step + 1, (size, before)) * step / 64).astype(np.float32)
        beta, zero, one = rng.choice(BETAS[:4], size), np.zeros(size, np.float32), np.ones(size, np.float32)
        tau, r = parameters(beta, dt)
        alpha = rng.choice(BETAS[:2], size) if rng.random() < 0.4 else np.zeros(size)
        if alpha.any():
            tau_syn, w_in = parameters(alpha, dt)
            node = nir.CubaLIF(
                tau_syn=tau_syn, tau_mem=tau, r=r, v_leak=zero, v_threshold=one, w_in=w_in, v_reset=zero
            )
        else:
            node = nir.LIF(tau=tau, r=r, v_leak=zero, v_threshold=one, v_reset=zero)
        layers.append((weight, node))
        kept.append((weight, alpha.astype(np.float32), beta.astype(np.float32)))
    return graph(layers), kept


def framework(
    layers: list[tuple[np.ndarray, ...]], x: np.ndarray, reset: str
) -> tuple[list[np.ndarray], int]:
    """Return each layer's spikes in float32 arithmetic, and how often a membrane met its threshold."""
    found, ties = [], 0
    for weight, alpha, beta in layers:
        current = membrane = np.zeros((len(x), len(weight)), np.float32)
        spikes = np.zeros((len(x), STEPS, len(weight)), np.float32)
        for t in range(STEPS):
            current = alpha * current + x[:, t] @ weight.T
            membrane = beta * membrane + current
            ties += int((membrane == 1).sum())
            spikes[:, t] = membrane > 1
            kept = membrane - spikes[:, t] if reset == "subtract" else membrane * (1 - spikes[:, t])
            membrane = kept.astype(np.float32)
        found.append(spikes)
        x = spikes
    return found, ties


def differing(seed: int) -> tuple[int, int]:
    """Return how many spikes of the float reference differ from the framework's, and the ties."""
    rng = np.random.default_rng(seed)
    dt, reset = float(rng.choice([1e-4, 1e-3, 1e-2])), str(rng.choice(["subtract", "value"]))
    made, layers = drawn(rng, dt)
    x = (rng.random((4, STEPS, layers[0][0].shape[1])) < 0.4).astype(np.float32)
    wanted, ties = framework(layers, x, reset)
    record = runtime.reference(lower(made, conventions(dt, reset)), x, record=["n0", "n1"])
    wrong = [(np.asarray(record.spikes(f"n{i}")) != wanted[i]).sum() for i in range(2)]
    return int(sum(wrong)), ties


def test_the_reference_gives_the_frameworks_spikes_at_ties_too(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [differing(seed) for seed in range(120)]
    assert [seed for seed, (wrong, _) in enumerate(found) if wrong] == []
    assert sum(ties for _, ties in found) > 500
    monkeypatch.setattr(Fractions, "restored", lambda self, what, value, *stored: value)
    assert sum(differing(seed)[0] for seed in range(40)) > 10


@pytest.mark.parametrize("dt", [1e-4, 1e-3, 1e-2, 1.0])
@pytest.mark.parametrize("beta", BETAS)
def test_decays_and_gains_are_exact_and_the_contract_says_so(beta: float, dt: float) -> None:
    tau, r = parameters(np.array([beta, beta]), dt)
    one, zero = np.ones(2, np.float32), np.zeros(2, np.float32)
    node = nir.LIF(tau=tau, r=r, v_leak=zero, v_threshold=one, v_reset=zero)
    made = graph([(np.eye(2, dtype=np.float32), node)])
    network = lower(made, conventions(dt, "value"))
    assert (network.population("n0").parameters["voltage_decay"] == 1 - beta).all()
    assert (network.projections[0].weight == np.eye(2)).all()
    if (dt / tau.astype(float) != 1 - beta).any():
        assert f"decay {1 - beta:g} of 'n0': an exact binary fraction" in network.decided["rule"]
        assert f"decay {1 - beta:g} of 'n0'" in compile_graph(network).provenance["decided"]
    else:
        assert "fraction" not in network.decided["rule"] or "gain 1 of" in network.decided["rule"]


def test_inspect_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tau, r = parameters(np.array([0.75, 0.75]), 1e-4)
    one, zero = np.ones(2, np.float32), np.zeros(2, np.float32)
    node = nir.LIF(tau=tau, r=r, v_leak=zero, v_threshold=one, v_reset=zero)
    nir.write(tmp_path / "a.nir", graph([(np.eye(2, dtype=np.float32), node)]))
    stated = conventions(1e-4, "value").items()
    words = [word for key, value in stated for word in ("--convention", f"{key}={value}")]
    assert main(["inspect", str(tmp_path / "a.nir"), *words]) == 0
    assert "decay 0.25 of 'n0': an exact binary fraction" in capsys.readouterr().out


def decay_of(tau: np.ndarray, dt: float = 1e-4) -> np.ndarray:
    one, zero = np.ones(tau.shape, tau.dtype), np.zeros(tau.shape, tau.dtype)
    node = nir.LIF(tau=tau, r=one, v_leak=zero, v_threshold=one, v_reset=zero)
    made: Network = lower(graph([(np.eye(tau.size), node)]), conventions(dt, "value"))
    return np.broadcast_to(made.population("n0").parameters["voltage_decay"], tau.shape)


def test_other_numbers_stay_as_they_are() -> None:
    near = 2e-4 * (1 + np.array([1e-9, -1e-9, 3e-8]))  # float64 numbers that float32 does not hold
    assert np.array_equal(decay_of(near), 1e-4 / near)
    rng = np.random.default_rng(0)
    single = rng.uniform(1.1e-4, 1e-2, 1000).astype(np.float32)
    raw = 1e-4 / single.astype(float)
    off = np.abs(raw * 256 - np.rint(raw * 256)) / 256 > np.spacing(raw.astype(np.float32))
    assert np.array_equal(decay_of(single)[off], raw[off]) and off.sum() > 990
    far = np.nextafter(np.nextafter(np.float32(2e-4), np.float32(1)), np.float32(1))  # two ulps off 0.5
    beyond = np.array([np.nextafter(far, np.float32(1))], np.float32)
    assert decay_of(beyond)[0] == 1e-4 / float(beyond[0])
