"""Sigma-delta neurons, as lava-dl's SDNN files hold them: float step, and rounding to registers.

With synaptic input x, one step in units of the threshold register is

    delta        a = x + input_bias
    sigma_delta  sigma = sigma + x + input_bias ; a = max(sigma + bias, 0)
    both         d = a - act + residue ; m = d if |d| >= threshold else 0 ; residue = d - m ; act = a
    sigma        sigma = sigma + x + input_bias ; m = sigma

and m is sent. On the chip a unit is 2**12 units of the state and 2**6 of a message (netx builds Lava's
processes with spike_exp = state_exp = 6), so a weight w becomes 2**12 w / 2**6, and a message loses six
bits, flooring: what the float network sends is not cut. A `delta` shifts its input by itself. Source:
lava-dl's slayer (sigma_delta) and netx; O'Connor and Welling, arXiv:1611.02024.
"""

from __future__ import annotations

import numpy as np

from snn_compile.compiler.neurons.arithmetic import Float
from snn_compile.compiler.neurons.base import Group, Integers, NeuronModel, Neurons
from snn_compile.targets.chips.chip import Chip
from snn_compile.targets.chips.rounding import tensor_error
from snn_compile.targets.program.population import Population as IntegerPopulation

EXPONENT = 6
"""spike_exp and state_exp."""

MESSAGE_UNITS = float(1 << EXPONENT)
"""Units of a message per unit of the threshold register."""

STATE_UNITS = float(1 << 2 * EXPONENT)
"""Units of a state per unit of the threshold register."""

MESSAGE_BITS = 24
"""Bits of a message, as many as a chip has: Lava cuts none, and neither does any device."""


def input_units(population: Neurons) -> float:
    """Return the units in which a population's synaptic input is summed, per unit of its threshold."""
    return 1.0 if population.model == "delta" else STATE_UNITS


def sigma_delta_integers(p: Neurons, scale: float, latency: int, chip: Chip) -> Integers:
    """Round a population to registers; its scale is fixed."""
    parameters, errors = {}, []
    for key, register in (("threshold", "vth"), ("bias", "bias")):
        if key in p.parameters:
            exact = p.parameters[key]
            parameters[register] = np.rint(exact).astype(np.int64)
            kept, text = parameters[register].astype(np.float64), f"{chip.formats.state_bits} bits"
            errors.append(tensor_error(f"{p.name}.{key}", text, exact, kept, 1.0))
    if p.model != "sigma":
        parameters |= dict.fromkeys(("spike_exp", "state_exp"), np.array([EXPONENT]))
    made = IntegerPopulation(p.name, p.shape, p.model, parameters, start_step=latency, scale=STATE_UNITS)
    return made, errors, []


class SigmaDeltaGroup(Group):
    """The state of such neurons over a batch; `v` is the activation, or the sum of a `sigma` neuron."""

    def begin(self) -> None:
        """States start at 0."""
        self.residue = self.v

    def step(self, x: Float) -> Float:
        """Advance by one logical step with synaptic input x; return the messages."""
        self.u = np.zeros_like(self.u) + x if self.model == "delta" else self.u + x
        before, sent = self.v, self.u
        self.v = self.u
        if self.model != "sigma":
            if self.model == "sigma_delta":
                self.v = np.maximum(self.u + self.values["bias"], 0.0)
            d = self.v - before + self.residue
            sent = np.where(np.abs(d) >= self.values["threshold"], d, 0.0)
            self.residue = d - sent
        self.watch(self.u, (self.v,), (np.abs(self.v),))
        return sent


def _model(name: str, parameters: tuple[str, ...]) -> NeuronModel:
    return NeuronModel(
        name,
        (*parameters, "input_bias", "offset"),
        SigmaDeltaGroup,
        sigma_delta_integers,
        message_units=MESSAGE_UNITS,
        message_bits=MESSAGE_BITS,
        input_units=input_units,
    )


MODELS = (_model("delta", ("threshold",)), _model("sigma_delta", ("threshold", "bias")), _model("sigma", ()))
