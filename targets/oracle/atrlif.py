"""Neurons with adaptive threshold and refractoriness: Lava's ATRLIF.

    i      = wrap( dz(i * (4096 - (delta_i + 1)), 12) + (a << 6) )
    v      = saturate( dz(v * (4096 - delta_v), 12) + i + bias )
    theta  = dz((theta - theta_0) * (4096 - delta_theta), 12) + theta_0
    r      = dz(r * (4096 - delta_r), 12)
    s      = v - r >= theta
    r      = r + 2 theta,  theta = theta + theta_step   where s; v is not reset

dz shifts toward zero. Lava's parameters are fractions: its delta is delta_* / 4096, its theta is
theta_* / 64, and with these its arithmetic, which passes through float64, is exactly this. Threshold and
refractoriness need no clip: a spike needs theta + r <= v < 2**23.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from snn_compile.targets.chips.formats import LOIHI, Formats
from snn_compile.targets.integer import Int, shift_toward_zero, wrap32, wrap_state
from snn_compile.targets.oracle.neurons import Neurons, implements
from snn_compile.targets.program.population import Population


@implements("atrlif")
class AdaptiveNeurons(Neurons):
    """Each spike lifts the threshold and pulls the membrane down, both for a while."""

    def __init__(self, population: Population, batch: int, formats: Formats = LOIHI) -> None:
        super().__init__(population, batch, formats)
        self.keep = {
            key: self.formats.decay_one - self.parameters[f"delta_{key}"] for key in ("i", "v", "theta", "r")
        }
        self.base = self.parameters["theta_0"]
        self.i, self.r = self.zeros(), self.zeros()
        self.v = self.zeros() + self.parameters["v_init"]
        self.theta = self.zeros() + self.base

    def step(self, inputs: Sequence[Int]) -> Int:
        """Advance current, membrane, threshold and refractoriness; return the spikes."""
        exact = shift_toward_zero(self.i * (self.keep["i"] - 1), self.formats.decay_bits) + (
            inputs[0] << self.formats.synaptic_shift
        )
        self.i = wrap_state(wrap32(exact), self.formats.state_half)
        self.count(self.i != exact)
        self.v = self.saturated(wrap32(self._kept(self.v, "v") + self.i + self.population.bias))
        self.theta = self._kept(self.theta - self.base, "theta") + self.base
        self.r = self._kept(self.r, "r")
        fires = self.v - self.r >= self.theta
        self.r = self.r + np.where(fires, 2 * self.theta, 0)
        self.theta = self.theta + np.where(fires, self.parameters["theta_step"], 0)
        return fires.astype(np.int64)

    def _kept(self, state: Int, key: str) -> Int:
        return shift_toward_zero(state * self.keep[key], self.formats.decay_bits)
