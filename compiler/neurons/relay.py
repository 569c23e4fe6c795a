"""Relays in float64: populations without memory that send their input as a number in the same step.

    relay       sent = x + input_bias
    rectifier   sent = max(x + input_bias, 0)

Max pooling is made of them (`lowering/max_pool.py`), as max(a, b) = b + max(a - b, 0). On the chip they send
undivided integer sums: `quantization/relays.py` chooses the unit.
"""

from __future__ import annotations

import numpy as np

from snn_compile.compiler.neurons.arithmetic import Float
from snn_compile.compiler.neurons.base import Group, Integers, NeuronModel, Neurons, Peak
from snn_compile.targets.chips.chip import Chip
from snn_compile.targets.chips.formats import Formats
from snn_compile.targets.program.population import Population as IntegerPopulation

RELAYS = {"relay": "graded", "rectifier": "graded_relu"}
"""The model of a program that each becomes."""

MESSAGE_BITS = 24
"""Bits of a message with its sign."""


class RelayGroup(Group):
    """What arrives, sent on; `v` is what was sent."""

    def step(self, x: Float) -> Float:
        """Advance by one logical step with synaptic input x; return the messages."""
        self.u = np.zeros_like(self.v) + x
        self.v = self.reached = np.maximum(self.u, 0.0) if self.model == "rectifier" else self.u
        self.watch(self.u, (self.u,))
        return self.v


def relay_integers(p: Neurons, scale: float, latency: int, chip: Chip) -> Integers:
    """Return the relays of a program; `scale` is message units per unit of the network."""
    registers = {"vth": np.zeros(1, np.int64)}
    made = IntegerPopulation(p.name, p.shape, RELAYS[p.model], registers, start_step=latency, scale=scale)
    return made, [], []


def relay_bound(p: Neurons, drive: Float, formats: Formats) -> Peak:
    """Return the largest input."""
    top = float(np.max(drive, initial=0.0))
    return Peak(top, top, top)


MODELS = tuple(
    NeuronModel(
        name,
        ("input_bias", "offset"),
        RelayGroup,
        relay_integers,
        relay_bound,
        message_bits=MESSAGE_BITS,
        relays=True,
    )
    for name in RELAYS
)
