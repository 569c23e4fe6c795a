"""The base of every model's class in plain integers, and the registry of these classes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from snn_compile.targets.chips.formats import LOIHI, Formats
from snn_compile.targets.devices.record import Overflow
from snn_compile.targets.discovery import import_modules
from snn_compile.targets.errors import DeviceError
from snn_compile.targets.integer import Int, saturate
from snn_compile.targets.program.population import Population

_CLASSES: dict[str, type[Neurons]] = {}
Kind = TypeVar("Kind", bound="type[Neurons]")


class Neurons(ABC):
    """The state of one population over a batch: an attribute (batch, size) for each of the model's states.

    A class reads its registers from `parameters` (int64) and widths from `formats`, makes its states with
    `zeros()` and counts what leaves its range in `overflow`. Its states are those of the model's
    description and whatever else it keeps. It knows no time: it is asked to step only in the population's
    logical steps.
    """

    def __init__(self, population: Population, batch: int, formats: Formats = LOIHI) -> None:
        self.population, self.formats = population, formats
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
        """Add to the overflows: wraps of a state, and values above or below the range of a state."""
        top = self.formats.state_max
        high = sum(int((raw > top).sum()) for raw in clipped)
        low = sum(int((raw < -top).sum()) for raw in clipped)
        self.overflow += Overflow(int(np.sum(wraps)), high, low)

    def saturated(self, raw: Int) -> Int:
        """Return a state clipped to its range, and count where it was."""
        self.count(0, raw)
        return saturate(raw, self.formats.state_max)

    def outside(self, x: Int) -> Int:
        """Return 1 where x is beyond the range of a state."""
        beyond: Int = (np.abs(x) > self.formats.state_max).astype(np.int64)
        return beyond


def implements(model: str) -> Callable[[Kind], Kind]:
    """Return a decorator that registers a class as the definition of a model."""

    def add(kind: Kind) -> Kind:
        _CLASSES[model] = kind
        return kind

    return add


def make_neurons(population: Population, batch: int, formats: Formats) -> Neurons:
    """Return the neurons of a population in their initial state, for `batch` samples side by side.

    Raises DeviceError if no class is registered for the population's model.
    """
    if population.model not in _CLASSES:
        import_modules("snn_compile.targets.oracle")
    if population.model not in _CLASSES:
        raise DeviceError(f"population {population.name!r}: no oracle class for model {population.model!r}")
    return _CLASSES[population.model](population, batch, formats)
