"""Neurons that send numbers: Lava's SigmaDelta, Delta and Sigma, GradedVec and GradedReluVec.

    sigma       sigma = sigma + a ; sent = sigma
    delta       A = a << e                                              e = spike_exp + state_exp
    both        sigma = sigma + a ; A = sigma + (bias << e) ; A = max(A, 0) if relu
    then        d = A - act + residue
                s = d if |d| >= (vth << e) else 0
                or, with cum_error:  error = error + d
                                     s = d if |error| >= (vth << e) else 0 ; error = 0 where s != 0
                residue = d - s ; act = A ; sent = s >> state_exp (flooring)
    graded      sent = a if |a| > vth else 0
    graded_relu sent = a if a > vth else 0

Lava holds these states in 32 bits, and so do all devices; the chip has 24. Every step in which sigma (or
the shifted input of `delta`) left 24 bits counts as a wrap, an activation beyond them as high or low.
Source: Lava 0.10.0; sigma-delta networks: O'Connor and Welling, arXiv:1611.02024.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from snn_compile.targets.integer import Int, M, wrap32
from snn_compile.targets.oracle.neurons import Neurons
from snn_compile.targets.program.population import Population


def magnitude(x: Int) -> Int:
    """Return |x| in 32 bits, where that of -2**31 is itself."""
    return wrap32(np.abs(x))


def outside(x: Int) -> Int:
    """Return 1 where x is beyond 24 bits."""
    beyond: Int = (np.abs(x) > M - 1).astype(np.int64)
    return beyond


class SigmaNeurons(Neurons):
    """The sum of all input so far, sent at every step."""

    def __init__(self, population: Population, batch: int) -> None:
        super().__init__(population, batch)
        self.sigma = self.zeros()

    def step(self, inputs: Sequence[Int]) -> Int:
        """See `Neurons.step`."""
        self.sigma = wrap32(self.sigma + inputs[0])
        self.count(outside(self.sigma))
        return self.sigma


class DeltaNeurons(Neurons):
    """Changes of the input, sent once they are large enough; what was not sent remains."""

    def __init__(self, population: Population, batch: int) -> None:
        super().__init__(population, batch)
        self.exponent = self.parameters["spike_exp"] + self.parameters["state_exp"]
        self.threshold = self.parameters["vth"] << self.exponent
        self.act, self.residue, self.error = self.zeros(), self.zeros(), self.zeros()

    def step(self, inputs: Sequence[Int]) -> Int:
        """See `Neurons.step`."""
        activation = wrap32(inputs[0] << self.exponent)
        self.count(outside(inputs[0] << self.exponent))
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


class SigmaDeltaNeurons(DeltaNeurons):
    """The input summed, passed through the activation, and sent as changes."""

    def __init__(self, population: Population, batch: int) -> None:
        super().__init__(population, batch)
        self.sigma = self.zeros()

    def step(self, inputs: Sequence[Int]) -> Int:
        """See `Neurons.step`."""
        self.sigma = wrap32(self.sigma + inputs[0])
        self.count(outside(self.sigma))
        activation = wrap32(self.sigma + (self.parameters["bias"] << self.exponent))
        return self._send(np.maximum(activation, 0) if self.parameters["relu"].any() else activation)


class Relays(Neurons):
    """The input, sent on where it is large enough; nothing is kept."""

    def __init__(self, population: Population, batch: int) -> None:
        super().__init__(population, batch)
        self.v = self.zeros()

    def step(self, inputs: Sequence[Int]) -> Int:
        """See `Neurons.step`."""
        self.count(0, inputs[0])
        return np.where(self._measure(inputs[0]) > self.parameters["vth"], inputs[0], 0)

    def _measure(self, a: Int) -> Int:
        return magnitude(a)


class RectifiedRelays(Relays):
    """The input, sent on where it is above the threshold."""

    def _measure(self, a: Int) -> Int:
        return a
