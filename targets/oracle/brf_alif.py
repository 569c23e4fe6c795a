"""Neurons of ours: balanced resonators (`brf`) and adaptive leaky neurons (`alif`).

    d      = min( dz(r damping, damping_exp), max(32 cos, 0) )                       in 2**-16       brf
    real'  = saturate( dz(16 (cos real - sin imag) - d real, 16) + (a << 6) )
    imag'  = saturate( dz(16 (sin real + cos imag) - d imag, 16) )
    s      = real' > 64 vth + refractory r
    r'     = saturate( dz(r (4096 - delta_r), 12) + r_step s )

    v      = saturate( dz(v (4096 - delta_v), 12) + (a << 6) )                                       alif
    s      = v > theta
    v'     = v - (theta << reset_exp) s
    theta' = saturate( dz((theta - theta_0) (4096 - delta_theta), 12) + theta_0 + theta_step s )

dz shifts right toward zero; a shifted input is wrapped to 32 bits. cos and sin are in 1/4096. d takes no more
off the cosine than makes it its negative, and each part is rounded toward zero once, after all products: with
cos**2 + sin**2 <= 4096**2 no state grows by itself, whatever r is. Source: Higuchi et al. 2024, 2025; Yin et
al. 2021, in a form of ours.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from snn_compile.targets.integer import DECAY_BITS, DECAY_ONE, STATE_SHIFT, Int, shift_toward_zero, wrap32
from snn_compile.targets.oracle.neurons import Neurons
from snn_compile.targets.program.models import DAMPING_BITS
from snn_compile.targets.program.population import Population


class BalancedResonators(Neurons):
    """Each spike lifts the threshold and damps the state, both for a while; nothing is reset."""

    def __init__(self, population: Population, batch: int) -> None:
        super().__init__(population, batch)
        self.real, self.imag, self.r = self.zeros(), self.zeros(), self.zeros()

    def step(self, inputs: Sequence[Int]) -> Int:
        """See `Neurons.step`."""
        p = self.parameters
        cos, sin = p["cos_decay"], p["sin_decay"]
        d = self.r * p["damping"] >> p["damping_exp"]
        d = np.minimum(d, np.maximum(32 * cos, 0))
        shifted = wrap32(inputs[0] << STATE_SHIFT)
        self.count(shifted != inputs[0] << STATE_SHIFT)
        real = 16 * (cos * self.real - sin * self.imag) - d * self.real
        imag = 16 * (sin * self.real + cos * self.imag) - d * self.imag
        self.real = self.saturated(shift_toward_zero(real, DAMPING_BITS) + shifted)
        self.imag = self.saturated(shift_toward_zero(imag, DAMPING_BITS))
        fires = self.real > (p["vth"] << STATE_SHIFT) + p["refractory"] * self.r
        kept = shift_toward_zero(self.r * (DECAY_ONE - p["delta_r"]), DECAY_BITS)
        self.r = self.saturated(kept + np.where(fires, p["r_step"], 0))
        return fires.astype(np.int64)


class AdaptiveLeakyNeurons(Neurons):
    """Each spike takes the threshold, or twice that, off the membrane and lifts it for a while."""

    def __init__(self, population: Population, batch: int) -> None:
        super().__init__(population, batch)
        self.v = self.zeros()
        self.theta = self.zeros() + self.parameters["theta_0"]

    def step(self, inputs: Sequence[Int]) -> Int:
        """See `Neurons.step`."""
        p = self.parameters
        shifted = wrap32(inputs[0] << STATE_SHIFT)
        self.count(shifted != inputs[0] << STATE_SHIFT)
        kept = shift_toward_zero(self.v * (DECAY_ONE - p["delta_v"]), DECAY_BITS)
        self.v = self.saturated(kept + shifted)
        fires = self.v > self.theta
        self.v = self.v - np.where(fires, self.theta << p["reset_exp"], 0)
        above = (self.theta - p["theta_0"]) * (DECAY_ONE - p["delta_theta"])
        risen = np.where(fires, p["theta_step"], 0)
        self.theta = self.saturated(shift_toward_zero(above, DECAY_BITS) + p["theta_0"] + risen)
        return fires.astype(np.int64)
