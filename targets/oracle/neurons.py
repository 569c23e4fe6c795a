"""The step of neurons in plain integers: what the classes of all models (`oracle/*.py`) share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from snn_compile.targets.devices.record import Overflow
from snn_compile.targets.integer import Int, M, saturate
from snn_compile.targets.program.population import Population


class Neurons(ABC):
    """The state of one population over a batch: an attribute (batch, size) for each of the model's states.

    A class reads its registers from `parameters` (int64), makes its states with `zeros()` and counts what
    leaves its range in `overflow`. It knows no time: it is asked to step only while it is active.
    """

    def __init__(self, population: Population, batch: int) -> None:
        self.population = population
        self.parameters = {key: array.astype(np.int64) for key, array in population.parameters.items()}
        self.batch = batch
        self.overflow = Overflow()

    @abstractmethod
    def step(self, inputs: Sequence[Int]) -> Int:
        """Advance by one step with the synaptic input of each port (batch, size); return what is sent."""

    def zeros(self) -> Int:
        """Return a state of zeros."""
        return np.zeros((self.batch, self.population.size), np.int64)

    def count(self, wraps: Int | int = 0, *clipped: Int) -> None:
        """Add to the overflows: turns of a state, and values above or below 24 bits."""
        high = sum(int((raw > M - 1).sum()) for raw in clipped)
        low = sum(int((raw < -(M - 1)).sum()) for raw in clipped)
        self.overflow += Overflow(int(np.sum(wraps)), high, low)

    def saturated(self, raw: Int) -> Int:
        """Return a state clipped to 24 bits, and count where it was."""
        self.count(0, raw)
        return saturate(raw)
