"""Resonators that a spike resets (`rf_iz`): float step, and rounding to the registers of Lava's RF_IZ.

With synaptic input x, one step is

    u, v = cosine u - sine v + x, sine u + cosine v
    z    = v > threshold
    u, v = 0, threshold                        where z

The chip's neuron spikes where v >= V and goes to V - 1, a last bit beside the threshold as ">" has it. It has
one threshold for a population. Rotation and damping are rounded as those of balanced resonators, within the
divergence boundary. Source: Izhikevich, Neural Networks 14 (2001).
"""

from __future__ import annotations

import numpy as np

from snn_compile.compiler.neurons.arithmetic import Float
from snn_compile.compiler.neurons.base import Group, Integers, NeuronModel, Neurons, Peak
from snn_compile.compiler.neurons.brf import (
    Complex,
    boundary_warnings,
    coefficients,
    polar_errors,
    polar_registers,
    resonator_bound,
    resonator_poles,
    rounded,
)
from snn_compile.targets.chips.chip import Chip
from snn_compile.targets.chips.formats import Formats
from snn_compile.targets.errors import PrecisionLost
from snn_compile.targets.program.population import Population as IntegerPopulation


class IzhikevichGroup(Group):
    """The state of reset resonators over a batch: `v` the real part, `imag` the imaginary one."""

    def begin(self) -> None:
        """States start at 0."""
        self.imag = self.v

    def step(self, x: Float) -> Float:
        """Advance by one logical step with synaptic input x; return the spikes."""
        p = self.values
        real = p["cosine"] * self.v - p["sine"] * self.imag + self.receive(x)
        imag = p["sine"] * self.v + p["cosine"] * self.imag
        fires = imag > p["threshold"]
        self.v, self.imag = np.where(fires, 0.0, real), np.where(fires, p["threshold"], imag)
        self.watch(self.u, (imag, real))
        return fires.astype(np.float64)


def izhikevich_integers(p: Neurons, scale: float, latency: int, chip: Chip) -> Integers:
    """Round a population to registers, at a scale and with start step `latency`.

    Raises PrecisionLost for thresholds that differ, of which the chip has one for a population, and for a
    cosine or sine beyond 1.
    """
    values, formats = p.parameters, chip.formats
    exact = values["threshold"] * scale
    low, high = np.rint([exact.min(), exact.max()])
    if low < high:
        raise PrecisionLost(
            f"population {p.name!r}: thresholds from {values['threshold'].min()!r} to "
            f"{values['threshold'].max()!r}; the chip's RF_IZ has one for a population: scale the weights "
            "instead, or give each threshold its own node",
            population=p.name,
        )
    cosine, sine = coefficients(p, formats)
    cos, sin = polar_registers(cosine, sine, formats.decay_one)
    parameters = {
        "cos_decay": cos,
        "sin_decay": sin,
        "vth": np.array([low], np.int64),
        "decay_bits": np.array([formats.decay_bits]),
        "state_exp": np.array([formats.synaptic_shift]),
    }
    rotation: Complex = cosine + 1j * sine
    kept: Complex = np.asarray((cos + 1j * sin) / formats.decay_one, np.complex128)
    errors = [
        *polar_errors(p.name, rotation, kept, formats),
        rounded(f"{p.name}.threshold", f"{formats.threshold_bits} bits", exact, parameters["vth"]),
    ]
    unit = scale * formats.threshold_unit
    made = IntegerPopulation(p.name, p.shape, "rf_iz", parameters, start_step=latency, scale=unit)
    return made, errors, boundary_warnings(p, rotation, kept, formats)


def izhikevich_bound(p: Neurons, drive: Float, formats: Formats) -> Peak:
    """Return the largest states under an input of at most `drive` (size,) at every step."""
    peak, reset = resonator_bound(p, drive, formats), float(p.parameters["threshold"].max())
    return Peak(peak.u, max(peak.v, reset), max(peak.v_high, reset))


MODELS = (
    NeuronModel(
        "rf_iz",
        ("cosine", "sine", "threshold", "input_bias", "offset"),
        IzhikevichGroup,
        izhikevich_integers,
        izhikevich_bound,
        resonator_poles,
    ),
)
