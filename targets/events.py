"""Spikes as events: for every sample and step the neurons that fired, in compressed rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, eq=False)
class SpikeEvents:
    """Spikes of one population: row `sample * steps + step` of `neurons` lists who fired, ascending."""

    batch: int
    steps: int
    size: int
    row_starts: npt.NDArray[np.int64]
    neurons: npt.NDArray[np.int32]

    @classmethod
    def from_dense(cls, spikes: npt.NDArray[np.generic]) -> SpikeEvents:
        """Make events from spikes (batch, steps, size); every non-zero counts as one spike."""
        batch, steps, size = spikes.shape
        flat = spikes.reshape(batch * steps, size) != 0
        starts = np.concatenate([[0], np.cumsum(flat.sum(axis=1))]).astype(np.int64)
        return cls(batch, steps, size, starts, np.nonzero(flat)[1].astype(np.int32))

    @property
    def count(self) -> int:
        """Number of spikes."""
        return int(self.neurons.size)

    @property
    def rows(self) -> npt.NDArray[np.int64]:
        """The row of each event."""
        return np.repeat(np.arange(self.batch * self.steps), np.diff(self.row_starts))

    def dense(self) -> npt.NDArray[np.uint8]:
        """Return spikes as (batch, steps, size) of 0 and 1."""
        out = np.zeros((self.batch * self.steps, self.size), np.uint8)
        out[self.rows, self.neurons] = 1
        return out.reshape(self.batch, self.steps, self.size)

    def window(self, start: int, stop: int) -> SpikeEvents:
        """Return the events of steps start..stop-1 of every sample."""
        if start == 0 and stop == self.steps:
            return self
        counts = np.diff(self.row_starts).reshape(self.batch, self.steps)
        keep = np.zeros((self.batch, self.steps), bool)
        keep[:, start:stop] = True
        mask = np.repeat(keep.reshape(-1), counts.reshape(-1))
        starts = np.concatenate([[0], np.cumsum(counts[:, start:stop].reshape(-1))])
        return SpikeEvents(self.batch, stop - start, self.size, starts.astype(np.int64), self.neurons[mask])
