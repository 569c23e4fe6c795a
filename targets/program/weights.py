"""Weight tables of a program: dense or sparse integers as synapse memory holds them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array, issparse

from snn_compile.targets.errors import WrongProgram
from snn_compile.targets.integer import SIGN_MODES, Int, truncate_weights
from snn_compile.targets.program.population import frozen_integers


@dataclass(frozen=True, eq=False)
class WeightTable:
    """One table of synapse memory: (target, source) integers, one exponent, one sign mode.

    `weights` is an array or a scipy.sparse.csr_array; a sparse table is stored canonically (sorted,
    without explicit zeros). What arrives at the target is shift(weights @ messages, exponent).
    `message_bits` 0 means that sources send spikes (any non-zero message counts as 1); otherwise messages
    are taken as numbers. Weights must be exactly what `bits` bits hold.
    """

    weights: Any
    exponent: int = 0
    bits: int = 8
    sign_mode: str = "mixed"
    message_bits: int = 0

    def __post_init__(self) -> None:
        if self.sign_mode not in SIGN_MODES:
            raise WrongProgram(f"sign mode {self.sign_mode!r}; use one of {SIGN_MODES}")
        if not 1 <= self.bits <= 8:
            raise WrongProgram(f"a weight table of {self.bits} bits; 1 to 8 are possible")
        if self.message_bits < 0:
            raise WrongProgram(f"messages of {self.message_bits} bits; 0 means spikes")
        if np.ndim(self.weights) != 2:
            shape = np.shape(self.weights)
            raise WrongProgram(f"a weight table has shape {shape}; expected (target, source)")
        weights: Any = _canonical(self.weights) if self.sparse else frozen_integers(self.weights, np.int16)
        values = weights.data if self.sparse else weights
        if not np.array_equal(truncate_weights(values.astype(np.int64), self.bits, self.sign_mode), values):
            raise WrongProgram(f"weights are not {self.bits}-bit {self.sign_mode} integers")
        object.__setattr__(self, "weights", weights)

    @property
    def sparse(self) -> bool:
        """Whether the table is stored sparsely."""
        return bool(issparse(self.weights))

    @property
    def shape(self) -> tuple[int, int]:
        """(target, source)."""
        rows, columns = self.weights.shape
        return int(rows), int(columns)

    @cached_property
    def nonzero(self) -> csr_array:
        """Which weights are not zero, as a sparse bool array."""
        return csr_array(self.weights != 0)

    @cached_property
    def synapses(self) -> int:
        """Number of weights that are not zero."""
        return int(self.nonzero.nnz)

    @cached_property
    def fan_out(self) -> npt.NDArray[np.int64]:
        """Non-zero weights of each source, (source,)."""
        counted: npt.NDArray[np.int64] = np.bincount(self.nonzero.indices, minlength=self.shape[1])
        return counted

    @cached_property
    def fan_in(self) -> npt.NDArray[np.int64]:
        """Non-zero weights of each target, (target,)."""
        counted: npt.NDArray[np.int64] = np.diff(self.nonzero.indptr).astype(np.int64)
        return counted

    @cached_property
    def largest_sum(self) -> int:
        """The largest sum of magnitudes of one target's weights."""
        return int(np.max(np.abs(self.weights).astype(np.int64).sum(axis=1), initial=0))

    def apply(self, messages: Int) -> Int:
        """Return weights @ messages for messages (batch, source): (batch, target), not wrapped."""
        wide = self.weights.astype(np.int64)
        total: Int = (wide @ messages.T).T if self.sparse else messages @ wide.T
        return total

    def dense(self) -> npt.NDArray[np.int16]:
        """Return the weights as an array."""
        array: npt.NDArray[np.int16] = self.weights.toarray() if self.sparse else np.asarray(self.weights)
        return array


def _canonical(weights: Any) -> csr_array:
    table = csr_array(weights)
    table = csr_array(
        (frozen_integers(table.data, np.int64).copy(), table.indices.copy(), table.indptr.copy()),
        shape=table.shape,
    )
    table.sum_duplicates()
    table.eliminate_zeros()
    table.sort_indices()
    table.data = frozen_integers(table.data, np.int16)
    table.indices, table.indptr = table.indices.astype(np.int32), table.indptr.astype(np.int64)
    for array in (table.indices, table.indptr):
        array.flags.writeable = False
    return table
