"""Adaptive leaky neurons, `alif`: a custom model.

    v      = saturate( dz(v (4096 - delta_v), 12) + (a << 6) )
    s      = v > theta
    v'     = v - (theta << reset_exp) s
    theta' = saturate( dz((theta - theta_0) (4096 - delta_theta), 12) + theta_0 + theta_step s )

dz shifts right toward zero; a shifted input is wrapped to 32 bits. Source: Yin et al., Nature Machine
Intelligence 3 (2021), in integers of this project's own definition.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from snn_compile.targets.chips.formats import LOIHI, Formats
from snn_compile.targets.integer import Int, shift_toward_zero, wrap32
from snn_compile.targets.oracle.neurons import Neurons, implements
from snn_compile.targets.program.population import Population


@implements("alif")
class AdaptiveLeakyNeurons(Neurons):
    """Each spike takes the threshold, or twice that, off the membrane and lifts it for a while."""

    def __init__(self, population: Population, batch: int, formats: Formats = LOIHI) -> None:
        super().__init__(population, batch, formats)
        self.v = self.zeros()
        self.theta = self.zeros() + self.parameters["theta_0"]

    def step(self, inputs: Sequence[Int]) -> Int:
        """Decay, add the input, fire above the threshold, reset and raise it; return the spikes."""
        p = self.parameters
        shifted = wrap32(inputs[0] << self.formats.synaptic_shift)
        self.count(shifted != inputs[0] << self.formats.synaptic_shift)
        kept = shift_toward_zero(self.v * (self.formats.decay_one - p["delta_v"]), self.formats.decay_bits)
        self.v = self.saturated(kept + shifted)
        fires = self.v > self.theta
        self.v = self.v - np.where(fires, self.theta << p["reset_exp"], 0)
        above = (self.theta - p["theta_0"]) * (self.formats.decay_one - p["delta_theta"])
        risen = np.where(fires, p["theta_step"], 0)
        self.theta = self.saturated(shift_toward_zero(above, self.formats.decay_bits) + p["theta_0"] + risen)
        return fires.astype(np.int64)
