"""Messages as events: for every sample and step the neurons that sent one, in compressed rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, eq=False)
class SpikeEvents:
    """Messages of one population: row `sample * steps + step` of `neurons` lists who sent, ascending.

    `values` holds what graded messages carry, int32 unless those of a float network are not whole; None
    where every message is a spike, 1.
    """

    batch: int
    steps: int
    size: int
    row_starts: npt.NDArray[np.int64]
    neurons: npt.NDArray[np.int32]
    values: npt.NDArray[Any] | None = None

    @classmethod
    def from_dense(cls, messages: npt.NDArray[np.generic], graded: bool = False) -> SpikeEvents:
        """Make events from messages (batch, steps, size); every non-zero is one.

        With `graded` their values are kept.
        """
        batch, steps, size = messages.shape
        flat = messages.reshape(-1)
        sent = np.flatnonzero(flat != 0)  # several times faster on booleans
        starts = np.searchsorted(sent, np.arange(batch * steps + 1) * size).astype(np.int64)
        values: npt.NDArray[Any] | None = None
        if graded:
            whole = flat[sent].astype(np.int32)
            values = whole if np.array_equal(whole, flat[sent]) else flat[sent]
        return cls(batch, steps, size, starts, (sent % size).astype(np.int32), values)

    @property
    def count(self) -> int:
        """Number of messages."""
        return int(self.neurons.size)

    @property
    def rows(self) -> npt.NDArray[np.int64]:
        """The row of each event."""
        return np.repeat(np.arange(self.batch * self.steps), np.diff(self.row_starts))

    def dense(self) -> npt.NDArray[Any]:
        """Return messages as (batch, steps, size): uint8 0 and 1, or the values if graded."""
        kind = np.uint8 if self.values is None else self.values.dtype
        out = np.zeros((self.batch * self.steps, self.size), kind)
        out[self.rows, self.neurons] = 1 if self.values is None else self.values
        return out.reshape(self.batch, self.steps, self.size)

    def window(self, start: int, stop: int, stride: int = 1) -> SpikeEvents:
        """Return the events of steps start, start + stride, ... below stop of every sample."""
        if start == 0 and stop == self.steps and stride == 1:
            return self
        if self.batch == 1 and stride == 1:
            rows = self.row_starts[start : stop + 1]
            own = slice(int(rows[0]), int(rows[-1]))
            values = None if self.values is None else self.values[own]
            return SpikeEvents(1, stop - start, self.size, rows - rows[0], self.neurons[own], values)
        counts = np.diff(self.row_starts).reshape(self.batch, self.steps)
        keep = np.zeros((self.batch, self.steps), bool)
        keep[:, start:stop:stride] = True
        mask = np.repeat(keep.reshape(-1), counts.reshape(-1))
        kept = counts[:, start:stop:stride]
        starts = np.concatenate([[0], np.cumsum(kept.reshape(-1))])
        return SpikeEvents(
            self.batch,
            kept.shape[1],
            self.size,
            starts.astype(np.int64),
            self.neurons[mask],
            None if self.values is None else self.values[mask],
        )
