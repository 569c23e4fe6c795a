"""Resonate-and-fire neurons: Lava's RF and RF_IZ. The state rotates and shrinks in the complex plane.

    real'  = saturate( dz(cos real, n) - dz(sin imag, n) + (a_real << state_exp) )
    imag'  = saturate( dz(sin real, n) + dz(cos imag, n) + (a_imag << state_exp) )
    s      = real' >= V  and  imag' >= 0  and  imag < 0                            rf
    s      = imag' >= V ;  real' = 0, imag' = V - 1 where s                        rf_iz

dz shifts right by n = decay_bits toward zero, each product by itself; V = vth << state_exp; a shifted
input is wrapped to 32 bits. Source: Izhikevich, Neural Networks 14 (2001), in the form of Lava 0.10.0's
fixed-point models.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from snn_compile.targets.chips.formats import LOIHI, Formats
from snn_compile.targets.integer import Int, shift_toward_zero, wrap32
from snn_compile.targets.oracle.neurons import Neurons, implements
from snn_compile.targets.program.population import Population


@implements("rf")
class Resonators(Neurons):
    """A spike when the phase passes zero with the real part at the threshold; nothing is reset."""

    def __init__(self, population: Population, batch: int, formats: Formats = LOIHI) -> None:
        super().__init__(population, batch, formats)
        self.exponent, self.bits = self.parameters["state_exp"], self.parameters["decay_bits"]
        self.threshold = self.parameters["vth"] << self.exponent
        self.real, self.imag = self.zeros(), self.zeros()

    def step(self, inputs: Sequence[Int]) -> Int:
        """Rotate the state, add both inputs; return the spikes, which reset nothing."""
        before = self.imag
        self._rotate(*inputs)
        fires = (self.real >= self.threshold) & (self.imag >= 0) & (before < 0)
        return fires.astype(np.int64)

    def _rotate(self, a_real: Int, a_imag: Int) -> None:
        cos, sin = self.parameters["cos_decay"], self.parameters["sin_decay"]
        real = self._scaled(cos * self.real) - self._scaled(sin * self.imag) + self._shifted(a_real)
        imag = self._scaled(sin * self.real) + self._scaled(cos * self.imag) + self._shifted(a_imag)
        self.real, self.imag = self.saturated(real), self.saturated(imag)

    def _scaled(self, product: Int) -> Int:
        return shift_toward_zero(product, int(self.bits[0]))

    def _shifted(self, a: Int) -> Int:
        shifted = wrap32(a << self.exponent)
        self.count(shifted != a << self.exponent)
        return shifted


@implements("rf_iz")
class IzhikevichResonators(Resonators):
    """A spike when the imaginary part reaches the threshold, which then resets the state."""

    def step(self, inputs: Sequence[Int]) -> Int:
        """Rotate the state, add both inputs; return the spikes after resetting the state where they are."""
        self._rotate(*inputs)
        fires = self.imag >= self.threshold
        self.real = np.where(fires, 0, self.real)
        self.imag = np.where(fires, self.threshold - 1, self.imag)
        return fires.astype(np.int64)
