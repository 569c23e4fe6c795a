"""Neurons that send changes or sums: Lava's SigmaDelta, Delta and Sigma.

    sigma       sigma = sigma + a ; sent = sigma
    delta       A = a << e                                              e = spike_exp + state_exp
    both        sigma = sigma + a ; A = sigma + (bias << e) ; A = max(A, 0) if relu
    then        d = A - act + residue
                s = d if |d| >= (vth << e) else 0
                or, with cum_error:  error = error + d
                                     s = d if |error| >= (vth << e) else 0 ; error = 0 where s != 0
                residue = d - s ; act = A ; sent = s >> state_exp (flooring)

Lava holds these states in 32 bits, and so do all devices; the chip has 24. Every step in which sigma (or
the shifted input of `delta`) left 24 bits counts as a wrap, an activation beyond them as high or low.
Source: Lava 0.10.0; sigma-delta networks: O'Connor and Welling, arXiv:1611.02024.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from snn_compile.targets.chips.formats import LOIHI, Formats
from snn_compile.targets.integer import Int, magnitude, wrap32
from snn_compile.targets.oracle.neurons import Neurons, implements
from snn_compile.targets.program.population import Population


@implements("sigma")
class SigmaNeurons(Neurons):
    """The sum of all input so far, sent at every step."""

    def __init__(self, population: Population, batch: int, formats: Formats = LOIHI) -> None:
        super().__init__(population, batch, formats)
        self.sigma = self.zeros()

    def step(self, inputs: Sequence[Int]) -> Int:
        """Add the input; return the sum."""
        self.sigma = wrap32(self.sigma + inputs[0])
        self.count(self.outside(self.sigma))
        return self.sigma


@implements("delta")
class DeltaNeurons(Neurons):
    """Changes of the input, sent once they are large enough; what was not sent remains."""

    def __init__(self, population: Population, batch: int, formats: Formats = LOIHI) -> None:
        super().__init__(population, batch, formats)
        self.exponent = self.parameters["spike_exp"] + self.parameters["state_exp"]
        self.threshold = self.parameters["vth"] << self.exponent
        self.act, self.residue, self.error = self.zeros(), self.zeros(), self.zeros()

    def step(self, inputs: Sequence[Int]) -> Int:
        """Return the change of the shifted input where it is large enough, else 0."""
        activation = wrap32(inputs[0] << self.exponent)
        self.count(self.outside(inputs[0] << self.exponent))
        return self._send(activation)

    def _send(self, activation: Int) -> Int:
        self.count(0, activation)
        d = wrap32(activation - self.act + self.residue)
        measured = wrap32(self.error + d) if self.parameters["cum_error"].any() else d
        s = np.where(magnitude(measured) >= self.threshold, d, 0)
        if self.parameters["cum_error"].any():
            self.error = np.where(magnitude(s) > 0, 0, measured)
        self.residue = wrap32(d - s)
        self.act = activation
        return s >> self.parameters["state_exp"]


@implements("sigma_delta")
class SigmaDeltaNeurons(DeltaNeurons):
    """The input summed, passed through the activation, and sent as changes."""

    def __init__(self, population: Population, batch: int, formats: Formats = LOIHI) -> None:
        super().__init__(population, batch, formats)
        self.sigma = self.zeros()

    def step(self, inputs: Sequence[Int]) -> Int:
        """Add the input, apply bias and rectifier; return the change where it is large enough, else 0."""
        self.sigma = wrap32(self.sigma + inputs[0])
        self.count(self.outside(self.sigma))
        activation = wrap32(self.sigma + (self.parameters["bias"] << self.exponent))
        return self._send(np.maximum(activation, 0) if self.parameters["relu"].any() else activation)
