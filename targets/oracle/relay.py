"""Graded relays: Lava's GradedVec and GradedReluVec.

    graded      sent = a if |a| > vth else 0
    graded_relu sent = a if a > vth else 0

Messages hold 32 bits; an input beyond the range of a state counts as high or low.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from snn_compile.targets.chips.formats import LOIHI, Formats
from snn_compile.targets.integer import Int, magnitude
from snn_compile.targets.oracle.neurons import Neurons, implements
from snn_compile.targets.program.population import Population


@implements("graded")
class Relays(Neurons):
    """The input, sent on where it is large enough; nothing is kept."""

    def __init__(self, population: Population, batch: int, formats: Formats = LOIHI) -> None:
        super().__init__(population, batch, formats)
        self.v = self.zeros()

    def step(self, inputs: Sequence[Int]) -> Int:
        """Return the input where it is larger than the threshold, else 0."""
        self.count(0, inputs[0])
        return np.where(self._measure(inputs[0]) > self.parameters["vth"], inputs[0], 0)

    def _measure(self, a: Int) -> Int:
        return magnitude(a)


@implements("graded_relu")
class RectifiedRelays(Relays):
    """The input, sent on where it is above the threshold."""

    def _measure(self, a: Int) -> Int:
        return a
