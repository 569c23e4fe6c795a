"""Liquid spiking neurons (`lsn`) in float64, and the two populations that send their states.

With synaptic input x, sigma the logistic function and s the spikes of the step before, one step is

    m   = sigma(gate_membrane + membrane_bias)
    rho = sigma(gate_adaptation + adaptation_bias)
    b   = rho b + (1 - rho) s
    v   = v + (x + bias - v) m
    s   = v > threshold + rise b ;   v = (1 - s) v

The gates are linear in the input and the states of the whole layer, so they are ports that projections
reach (`lowering/liquid.py` makes these). `lsn_membrane` is the same neurons once more, which send v;
`lsn_adaptation` follows their spikes and sends b. Source: Yin, Corradi and Bohte 2023.
"""

from __future__ import annotations

from math import log2
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from snn_compile.compiler.neurons.arithmetic import Float
from snn_compile.compiler.neurons.base import Group, Integers, NeuronModel, Neurons, Peak
from snn_compile.targets.chips.chip import Chip
from snn_compile.targets.chips.formats import Formats
from snn_compile.targets.chips.rounding import TensorError, tensor_error
from snn_compile.targets.program.models.lsn import adaptation_bits
from snn_compile.targets.program.population import Population as IntegerPopulation

MEMBRANE, ADAPTATION = 1, 2
"""The ports of the gates of `lsn` and `lsn_membrane`; port 0 takes the input."""

RATES = 1024
"""Values of a table of rates."""

SPAN = 16.0
"""Width of the gate inputs that a table covers, around 0: beyond, a rate is within 1/2980 of 0 or 1."""


class AdaptationGroup(Group):
    """The adaptations of neurons whose spikes arrive at port 0; the gate is port 1, `v` is b."""

    ports = 2

    def begin(self) -> None:
        """States start at 0."""
        self.b = self.rho = self.v

    def step(self, x: Float) -> Float:
        """Advance by one logical step with spikes and gate (2, batch, size); return the messages."""
        self.adapt((x[0] != 0).astype(np.float64), x[1])
        self.v = self.reached = self.b
        self.watch(x[0], (self.b,))
        return self.arithmetic.message(self.b)

    def adapt(self, spikes: Float, gate: Float) -> None:
        """Advance b toward 1 where the neuron spiked, else toward 0."""
        a = self.arithmetic
        self.rho = a.rate(a.gate(gate) + self.values["adaptation_bias"])
        self.b = self.b + a.decayed(spikes * a.whole - self.b, a.kept(self.rho))


class LiquidGroup(AdaptationGroup):
    """The state of liquid neurons over a batch; `m` and `rho` are the rates of the step."""

    ports = 3

    def begin(self) -> None:
        """States start at 0."""
        self.b = self.m = self.rho = self._last = self.v
        self.limit = self.v + self.values["threshold"]

    def step(self, x: Float) -> Float:
        """Advance by one logical step with input and gates (3, batch, size); return the spikes."""
        a, p = self.arithmetic, self.values
        self.u = a.wrapped_sum(a.current(x[0]) + p["bias"])
        self.m = a.rate(a.gate(x[MEMBRANE]) + p["membrane_bias"])
        self.adapt(self._last, x[ADAPTATION])
        self.reached = a.saturated(self.v + a.decayed(self.u - self.v, self.m))
        self.limit = p["threshold"] + a.floored(p["rise"] * self.b / a.whole)
        fires: Float = (self.reached > self.limit).astype(np.float64)
        self.v, self._last = (1 - fires) * self.reached, fires
        self.watch(self.u, (self.reached,), (self.reached, self.limit))
        return fires


class LiquidMembraneGroup(LiquidGroup):
    """Liquid neurons that send their membranes."""

    def step(self, x: Float) -> Float:
        """Advance as the neurons do; return the messages."""
        super().step(x)
        return self.arithmetic.message(self.v)


def adaptation_scale(formats: Formats) -> float:
    """Return the scale of adaptations, in threshold units: an adaptation has a fixed format."""
    return (1 << adaptation_bits(formats)) / formats.threshold_unit


def _rates(p: Neurons, scale: float, chip: Chip) -> tuple[dict[str, npt.NDArray[Any]], TensorError]:
    """Return the table of the logistic function and its shift, for gate inputs of `scale` units per 1."""
    shift = max(0, round(log2(SPAN * scale / RATES)))
    centers = (np.arange(RATES) - RATES // 2 + 0.5) * 2.0**shift / scale
    exact: Float = expit(centers) * chip.formats.decay_one
    kept = np.rint(exact)
    text = f"{RATES} values of {chip.formats.decay_bits} bits"
    error = tensor_error(f"{p.name}.rates", text, exact, kept, 1.0)
    return {"rates": kept.astype(np.int64), "rate_shift": np.array([shift])}, error


REGISTERS = {
    "threshold": ("theta_0", True),
    "rise": ("theta_step", True),
    "bias": ("bias", True),
    "membrane_bias": ("membrane_bias", False),
    "adaptation_bias": ("adaptation_bias", False),
}
"""The register of each parameter, and whether it counts membrane units; the others count gate inputs."""


def liquid_integers(p: Neurons, scale: float, latency: int, chip: Chip) -> Integers:
    """Round a population to registers, at a scale and with start step `latency`."""
    unit = scale * chip.formats.threshold_unit
    registers, error = _rates(p, scale, chip)
    errors = [error]
    for key, (register, fine) in REGISTERS.items():
        if key in p.parameters:
            exact = p.parameters[key] * (unit if fine else scale)
            registers[register] = np.rint(exact).astype(np.int64)
            kept, text = registers[register].astype(np.float64), f"{chip.formats.state_bits} bits"
            errors.append(tensor_error(f"{p.name}.{key}", text, exact, kept, 1.0))
    return IntegerPopulation(p.name, p.shape, p.model, registers, start_step=latency, scale=unit), errors, []


def liquid_bound(p: Neurons, drive: Float, formats: Formats) -> Peak:
    """Return the largest states: the membrane moves toward its input, and never beyond it."""
    top = float((drive + np.abs(p.parameters["bias"])).max())
    lifted = float((p.parameters["threshold"] + p.parameters["rise"]).max())
    return Peak(top, top, max(top, lifted))


def adaptation_bound(p: Neurons, drive: Float, formats: Formats) -> Peak:
    """Return the largest adaptation, 1."""
    return Peak(1.0, 1.0, 1.0)


_OWN = ("threshold", "rise", "bias", "membrane_bias", "adaptation_bias", "input_bias", "offset")

MODELS = (
    NeuronModel("lsn", _OWN, LiquidGroup, liquid_integers, liquid_bound),
    NeuronModel("lsn_membrane", _OWN, LiquidMembraneGroup, liquid_integers, liquid_bound, sends_state=True),
    NeuronModel(
        "lsn_adaptation",
        ("adaptation_bias", "input_bias", "offset"),
        AdaptationGroup,
        liquid_integers,
        adaptation_bound,
        sends_state=True,
    ),
)
