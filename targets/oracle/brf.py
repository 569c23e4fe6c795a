"""Balanced resonators, `brf`: a custom model.

    d      = min( dz(r damping, damping_exp), max(32 cos, 0) )                       in 2**-16
    real'  = saturate( dz(16 (cos real - sin imag) - d real, 16) + (a << 6) )
    imag'  = saturate( dz(16 (sin real + cos imag) - d imag, 16) )
    s      = real' > 64 vth + refractory r
    r'     = saturate( dz(r (4096 - delta_r), 12) + r_step s )

dz shifts right toward zero; a shifted input is wrapped to 32 bits. cos and sin are in 1/4096. d takes no more
off the cosine than makes it its negative, and each part is rounded toward zero once, after all products: with
cos**2 + sin**2 <= 4096**2 no state grows by itself, whatever r is. Source: Higuchi et al. 2024 and 2025, in
integers of this project's own definition.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from snn_compile.targets.chips.formats import LOIHI, Formats
from snn_compile.targets.integer import Int, shift_toward_zero, wrap32
from snn_compile.targets.oracle.neurons import Neurons, implements
from snn_compile.targets.program.models.brf import DAMPING_BITS
from snn_compile.targets.program.population import Population


@implements("brf")
class BalancedResonators(Neurons):
    """Each spike lifts the threshold and damps the state, both for a while; nothing is reset."""

    def __init__(self, population: Population, batch: int, formats: Formats = LOIHI) -> None:
        super().__init__(population, batch, formats)
        self.real, self.imag, self.r = self.zeros(), self.zeros(), self.zeros()

    def step(self, inputs: Sequence[Int]) -> Int:
        """Rotate and damp the state, add the input, fire above the lifted threshold; return the spikes."""
        p = self.parameters
        cos, sin = p["cos_decay"], p["sin_decay"]
        d = self.r * p["damping"] >> p["damping_exp"]
        unit = 1 << (DAMPING_BITS - self.formats.decay_bits)
        d = np.minimum(d, np.maximum(2 * unit * cos, 0))
        shifted = wrap32(inputs[0] << self.formats.synaptic_shift)
        self.count(shifted != inputs[0] << self.formats.synaptic_shift)
        real = unit * (cos * self.real - sin * self.imag) - d * self.real
        imag = unit * (sin * self.real + cos * self.imag) - d * self.imag
        self.real = self.saturated(shift_toward_zero(real, DAMPING_BITS) + shifted)
        self.imag = self.saturated(shift_toward_zero(imag, DAMPING_BITS))
        fires = self.real > (p["vth"] << self.formats.synaptic_shift) + p["refractory"] * self.r
        kept = shift_toward_zero(self.r * (self.formats.decay_one - p["delta_r"]), self.formats.decay_bits)
        self.r = self.saturated(kept + np.where(fires, p["r_step"], 0))
        return fires.astype(np.int64)
