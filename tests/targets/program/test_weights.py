"""Weight tables: canonical sparse form, what they count, and dense against sparse."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.sparse import coo_array, csc_array, csr_array, csr_matrix

from snn_compile.targets.errors import WrongProgram
from snn_compile.targets.integer import truncate_weights
from snn_compile.targets.program.weights import WeightTable


def random_weights(seed: int) -> Any:
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(1, 12, 2))
    return truncate_weights(rng.integers(-256, 256, shape), 8, "mixed") * (rng.random(shape) < 0.4)


def parts(table: WeightTable) -> list[list[int]]:
    return [getattr(table.weights, key).tolist() for key in ("data", "indices", "indptr")]


@pytest.mark.parametrize("seed", range(20))
def test_every_way_to_write_a_sparse_table_is_the_same_table(seed: int) -> None:
    weights = random_weights(seed)
    wanted = WeightTable(csr_array(weights))
    rng = np.random.default_rng(seed)
    row, column = np.nonzero(np.ones_like(weights))  # zeros are written out
    order = rng.permutation(len(row))
    row, column = row[order], column[order]
    # Every weight in two halves, anywhere in its row.
    halves = weights[row, column] // 2
    written = coo_array(
        (np.concatenate([halves, weights[row, column] - halves]), (np.tile(row, 2), np.tile(column, 2))),
        shape=weights.shape,
    )
    for form in (written, csr_matrix(weights), csc_array(weights), csr_array(weights.astype(np.int16))):
        table = WeightTable(form)
        assert parts(table) == parts(wanted)
        assert np.array_equal(table.dense(), weights) and table.dense().dtype == np.int16
        kinds = [getattr(table.weights, key).dtype for key in ("data", "indices", "indptr")]
        assert kinds == [np.int16, np.int32, np.int64]
    data, indices, starts = parts(wanted)
    assert 0 not in data and len(data) == np.count_nonzero(weights)
    for first, end in zip(starts, starts[1:], strict=False):
        assert indices[first:end] == sorted(set(indices[first:end]))


def test_a_sparse_table_is_a_read_only_copy() -> None:
    given = csr_array(np.array([[2, 0], [0, 4]]))
    table = WeightTable(given)
    given.data[:] = 6
    assert table.dense().tolist() == [[2, 0], [0, 4]]
    for key in ("data", "indices", "indptr"):
        with pytest.raises(ValueError, match="read-only"):
            getattr(table.weights, key)[0] = 1


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("seed", range(20))
def test_what_a_table_counts(seed: int, sparse: bool) -> None:
    weights = random_weights(seed)
    table = WeightTable(csr_array(weights) if sparse else weights)
    rows, columns = weights.shape
    cells = {(i, j): int(weights[i, j]) for i in range(rows) for j in range(columns)}
    assert table.sparse == sparse and table.shape == weights.shape
    assert table.synapses == sum(w != 0 for w in cells.values())
    assert table.fan_out.tolist() == [sum(cells[i, j] != 0 for i in range(rows)) for j in range(columns)]
    assert table.fan_in.tolist() == [sum(cells[i, j] != 0 for j in range(columns)) for i in range(rows)]
    assert table.largest_sum == max(sum(abs(cells[i, j]) for j in range(columns)) for i in range(rows))
    assert np.array_equal(table.nonzero.toarray(), weights != 0)
    messages = np.random.default_rng(seed).integers(-(2**23), 2**23, (3, columns))
    assert table.apply(messages).tolist() == [
        [sum(cells[i, j] * int(line[j]) for j in range(columns)) for i in range(rows)] for line in messages
    ]


def test_a_table_of_zeros() -> None:
    for weights in (np.zeros((3, 2), int), csr_array((3, 2), dtype=np.int64)):
        table = WeightTable(weights)
        assert (table.synapses, table.largest_sum) == (0, 0)
        assert table.apply(np.ones((1, 2), np.int64)).tolist() == [[0, 0, 0]]


def test_the_largest_sum_is_not_taken_in_16_bits() -> None:
    assert WeightTable(np.full((1, 1000), -256)).largest_sum == 256_000
    assert WeightTable(csr_array(np.full((1, 1000), -256))).largest_sum == 256_000


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (csr_array(np.array([[0.5]])), "float64 does not hold int64"),
        (csr_array(np.array([[3]])), "not 8-bit mixed integers"),
        (csr_array(np.array([[70000]])), "int64 does not hold int16"),
        # Two halves that would meet at 0 in 16 bits.
        (coo_array(([2**15, 2**15], ([0, 0], [0, 0])), shape=(1, 1)), "int64 does not hold int16"),
        (coo_array(np.array([2, 0, 4])), r"a weight table has shape \(3,\)"),
    ],
)
def test_wrong_sparse_weights(weights: Any, message: str) -> None:
    with pytest.raises(WrongProgram, match=message):
        WeightTable(weights)


def test_negative_message_bits() -> None:
    with pytest.raises(WrongProgram, match="messages of -1 bits"):
        WeightTable(np.zeros((1, 1), int), message_bits=-1)
