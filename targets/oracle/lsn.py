"""Liquid spiking neurons, `lsn`, and the populations that send their states: custom models.

    x      = wrap32( (a << 6) + bias )
    m      = rates[a_membrane + membrane_bias],  rho = rates[a_adaptation + adaptation_bias]    in 1/4096
    b'     = b + dz((s 2**16 - b) (4096 - rho), 12)               b in 2**-16, s the spike of the step before
    r      = saturate( v + dz((x - v) m, 12) )
    s'     = r > theta_0 + (theta_step b' >> 16) ;   v' = 0 if s' else r

rates[g] is the value at place (g >> rate_shift) + size / 2, or at the end of the table that g lies beyond. dz
shifts right toward zero, other shifts floor. `lsn` sends s', `lsn_membrane` v' >> message_shift;
`lsn_adaptation` has b alone, s is whether a spike arrived, and sends b' >> message_shift. On chips whose
states are narrower than 18 bits, b has state_bits - 2 fraction bits instead of 16. Source: Yin, Corradi and
Bohte, Nature Machine Intelligence 5 (2023), in integers of this project's own definition.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from snn_compile.targets.chips.formats import LOIHI, Formats
from snn_compile.targets.integer import Int, shift_toward_zero, wrap32
from snn_compile.targets.oracle.neurons import Neurons, implements
from snn_compile.targets.program.models.lsn import adaptation_bits
from snn_compile.targets.program.population import Population


class _Rated(Neurons):
    """Neurons whose rates are looked up, with an adaptation b."""

    def __init__(self, population: Population, batch: int, formats: Formats = LOIHI) -> None:
        super().__init__(population, batch, formats)
        self.b = self.zeros()
        self.bits = adaptation_bits(formats)

    def rate(self, gate: Int) -> Int:
        """Return the rates at a gate's input."""
        rates = self.parameters["rates"]
        place = (gate >> self.parameters["rate_shift"]) + len(rates) // 2
        found: Int = rates[np.clip(place, 0, len(rates) - 1)]
        return found

    def adapt(self, spikes: Int, gate: Int) -> None:
        """Advance the adaptation by one step, toward 1 after a spike and toward 0 else."""
        rho = self.rate(gate + self.parameters["adaptation_bias"])
        apart = (spikes << self.bits) - self.b
        self.b = self.b + shift_toward_zero(apart * (self.formats.decay_one - rho), self.formats.decay_bits)


@implements("lsn")
class LiquidNeurons(_Rated):
    """The input decides how fast the membrane follows it, and how fast the threshold forgets a spike."""

    def __init__(self, population: Population, batch: int, formats: Formats = LOIHI) -> None:
        super().__init__(population, batch, formats)
        self.v, self.fired = self.zeros(), self.zeros()

    def step(self, inputs: Sequence[Int]) -> Int:
        """Look up the rates, move adaptation and membrane, fire above the threshold; return the spikes."""
        p = self.parameters
        total = (inputs[0] << self.formats.synaptic_shift) + p["bias"]
        x = wrap32(total)
        self.count(x != total)
        m = self.rate(inputs[1] + p["membrane_bias"])
        self.adapt(self.fired, inputs[2])
        moved = shift_toward_zero((x - self.v) * m, self.formats.decay_bits)
        reached = self.saturated(self.v + moved)
        fires = reached > p["theta_0"] + (p["theta_step"] * self.b >> self.bits)
        self.v, self.fired = np.where(fires, 0, reached), fires.astype(np.int64)
        return self.fired


@implements("lsn_membrane")
class LiquidMembranes(LiquidNeurons):
    """The same neurons, which send their membranes."""

    def step(self, inputs: Sequence[Int]) -> Int:
        """Step as the neurons do; return the membranes, shifted right."""
        super().step(inputs)
        return self.v >> self.parameters["message_shift"]


@implements("lsn_adaptation")
class LiquidAdaptations(_Rated):
    """The adaptations of neurons whose spikes arrive."""

    def step(self, inputs: Sequence[Int]) -> Int:
        """Move the adaptation; return it, shifted right."""
        self.adapt((inputs[0] != 0).astype(np.int64), inputs[1])
        return self.b >> self.parameters["message_shift"]
