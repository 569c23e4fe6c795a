"""Adaptive leaky neurons (`alif`): float step, and rounding to the registers of a chip.

With synaptic input x, one step is

    v     = (1 - voltage_decay) v + x
    z     = v > theta ;   v = v - reset_size theta z
    theta = threshold + (1 - adaptation_decay) (theta - threshold) + adaptation_step z

Source: Yin et al. 2021; Higuchi et al. 2024.
"""

from __future__ import annotations

import numpy as np

from snn_compile.compiler.neurons.arithmetic import Float
from snn_compile.compiler.neurons.base import Group, Integers, NeuronModel, Neurons, Peak, Poles
from snn_compile.targets.chips.chip import Chip
from snn_compile.targets.chips.formats import Formats
from snn_compile.targets.chips.rounding import round_decay, tensor_error
from snn_compile.targets.errors import CompileError
from snn_compile.targets.program.population import Population as IntegerPopulation


class AdaptiveGroup(Group):
    """The state of adaptive neurons over a batch: `limit` is the step's threshold, `theta` the next one."""

    def begin(self) -> None:
        """Thresholds start at their base value."""
        a, values = self.arithmetic, self.values
        self.keep_v, self.keep_theta = a.kept(values["voltage_decay"]), a.kept(values["adaptation_decay"])
        self.theta = self.limit = self.v + values["threshold"]

    def step(self, x: Float) -> Float:
        """Advance by one logical step with synaptic input x; return the spikes."""
        a, values = self.arithmetic, self.values
        self.reached = a.saturated(a.decayed(self.v, self.keep_v) + self.receive(x))
        self.limit = self.theta
        fires: Float = (self.reached > self.limit).astype(np.float64)
        self.v = self.reached - values["reset_size"] * self.limit * fires
        above = a.decayed(self.limit - values["threshold"], self.keep_theta)
        self.theta = a.saturated(above + values["threshold"] + values["adaptation_step"] * fires)
        self.watch(self.u, (self.reached, self.v), (self.reached, self.theta))
        return fires


def adaptive_integers(p: Neurons, scale: float, latency: int, chip: Chip) -> Integers:
    """Round a population to registers, at a scale and with start step `latency`.

    Raises CompileError for neurons of both reset sizes, of which a population of the chip has one.
    """
    values, unit = p.parameters, scale * chip.formats.threshold_unit
    delta_v, v_error = round_decay(values["voltage_decay"], 0, chip, f"{p.name}.voltage_decay")
    delta_theta, theta_error = round_decay(values["adaptation_decay"], 0, chip, f"{p.name}.adaptation_decay")
    sizes = np.unique(values["reset_size"])
    if len(sizes) > 1:
        raise CompileError(f"population {p.name!r}: resets of 1 and of 2 thresholds; one is possible")
    parameters = {
        "delta_v": delta_v,
        "delta_theta": delta_theta,
        "theta_0": np.rint(values["threshold"] * unit).astype(np.int64),
        "theta_step": np.rint(values["adaptation_step"] * unit).astype(np.int64),
        "reset_exp": np.array([int(sizes[0]) - 1]),
    }
    errors = [v_error, theta_error]
    for key, register in (("threshold", "theta_0"), ("adaptation_step", "theta_step")):
        exact, kept = values[key] * unit, parameters[register].astype(np.float64)
        errors.append(tensor_error(f"{p.name}.{key}", f"{chip.formats.state_bits} bits", exact, kept, 1.0))
    made = IntegerPopulation(p.name, p.shape, "alif", parameters, start_step=latency, scale=unit)
    return made, errors, []


def adaptive_bound(p: Neurons, drive: Float, formats: Formats) -> Peak:
    """Return the largest states, threshold included, under an input of at most `drive` (size,) per step."""
    decay, one = p.parameters["voltage_decay"], formats.decay_one
    lost = np.minimum(decay, np.rint(decay * one) / one)
    with np.errstate(divide="ignore", invalid="ignore"):
        # A spike takes off up to twice a threshold that lay below the membrane.
        top = np.where(drive > 0, p.parameters["reset_size"] * drive / lost, 0.0) + np.where(
            drive > 0, p.parameters["threshold"] + p.parameters["adaptation_step"], 0.0
        )
    return Peak(float(drive.max()), float(top.max()), float(top.max()))


def adaptive_poles(p: Neurons) -> list[Poles]:
    """Return the pole of the mean leak."""
    return [(complex(1 - float(p.parameters["voltage_decay"].mean())),)]


MODELS = (
    NeuronModel(
        "alif",
        (
            "voltage_decay",
            "threshold",
            "adaptation_decay",
            "adaptation_step",
            "reset_size",
            "input_bias",
            "offset",
        ),
        AdaptiveGroup,
        adaptive_integers,
        adaptive_bound,
        adaptive_poles,
        decays=("voltage_decay", "adaptation_decay"),
    ),
)
