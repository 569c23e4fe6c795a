"""Adaptive leaky neurons: one population of a Network in float64, and as the chip's integers.

With synaptic input x, one step is

    v     = (1 - voltage_decay) v + x
    z     = v > theta ;   v = v - reset_size theta z
    theta = threshold + (1 - adaptation_decay) (theta - threshold) + adaptation_step z

Source: Yin et al. 2021; Higuchi et al. 2024.
"""

from __future__ import annotations

import numpy as np

from snn_compile.compiler.network import Float, Population
from snn_compile.compiler.reference import SpikingGroup
from snn_compile.targets.chips.chip import Chip
from snn_compile.targets.chips.rounding import TensorError, round_decay, tensor_error
from snn_compile.targets.errors import CompileError
from snn_compile.targets.integer import DECAY_ONE, STATE_SHIFT
from snn_compile.targets.program.population import Population as IntegerPopulation


class AdaptiveGroup(SpikingGroup):
    """The float state of a population over a batch; `u` is what arrived, `theta` the next threshold."""

    def begin(self) -> None:
        """See `SpikingGroup`."""
        self.theta = self.v + self.parameters["threshold"]

    def step(self, x: Float) -> Float:
        """Advance by one logical step with synaptic input x; return the spikes."""
        p = self.parameters
        self.arrive(x)
        raw = (1 - p["voltage_decay"]) * self.v + x
        fires: Float = (raw > self.theta).astype(np.float64)
        self.v = raw - p["reset_size"] * self.theta * fires
        above = (1 - p["adaptation_decay"]) * (self.theta - p["threshold"])
        self.theta = p["threshold"] + above + p["adaptation_step"] * fires
        high = max(float(raw.max()), float(self.theta.max()))
        state = max(float(np.abs(raw).max()), float(np.abs(self.v).max()), high)
        self.note(state, high)
        return fires


def adaptive_integers(
    p: Population, scale: float, latency: int, chip: Chip
) -> tuple[IntegerPopulation, list[TensorError], list[str]]:
    """Return a population's integers at a scale and start step, the error of each register, and warnings."""
    values, unit = p.parameters, scale * (1 << STATE_SHIFT)
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
        errors.append(tensor_error(f"{p.name}.{key}", "24 bits", exact, kept, 1.0))
    made = IntegerPopulation(p.name, p.shape, "alif", parameters, start_step=latency, scale=unit)
    return made, errors, []


def adaptive_bound(p: Population, drive: Float) -> Float:
    """Return the largest membrane, threshold included, under an input of at most `drive` a step, (size,)."""
    lost = np.minimum(
        p.parameters["voltage_decay"], np.rint(p.parameters["voltage_decay"] * DECAY_ONE) / DECAY_ONE
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        # A spike takes off up to twice a threshold that lay below the membrane.
        return np.where(drive > 0, p.parameters["reset_size"] * drive / lost, 0.0) + np.where(
            drive > 0, p.parameters["threshold"] + p.parameters["adaptation_step"], 0.0
        )


def adaptive_poles(p: Population) -> list[complex]:
    """Return the pole of the mean leak."""
    return [complex(1 - float(p.parameters["voltage_decay"].mean()))]
