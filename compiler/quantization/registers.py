"""Registers of a population: decays, thresholds, biases and initial membranes as integers."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from snn_compile.compiler.network import Population
from snn_compile.targets.chips.chip import Chip
from snn_compile.targets.chips.formats import LOIHI
from snn_compile.targets.chips.rounding import TensorError, round_bias, round_decay, tensor_error
from snn_compile.targets.program.population import Population as IntegerPopulation
from snn_compile.targets.program.rule import CHOICES as RULE_CHOICES

TAU_CHANGE_REPORTED = 0.02
"""A relative change of a time constant above this is reported."""


def integer_population(
    p: Population, scale: float, latency: int, chip: Chip, shift: int
) -> tuple[IntegerPopulation, list[TensorError]]:
    """Return a population in integers at a scale and start step, and the rounding error of each register.

    `shift`: right shift of the membrane that a leaky integrator sends.
    """
    formats = chip.formats
    unit = scale * formats.threshold_unit
    du, du_error = round_decay(p.parameters["current_decay"], 1, chip, f"{p.name}.current_decay")
    dv, dv_error = round_decay(p.parameters["voltage_decay"], 0, chip, f"{p.name}.voltage_decay")
    mantissa, exponent, bias_error = round_bias(p.parameters["bias"] * unit, chip, f"{p.name}.bias")
    parameters: dict[str, npt.NDArray[Any]] = {
        "du": du,
        "dv": dv,
        "bias_mant": mantissa,
        "bias_exp": np.array([exponent]),
        "v_init": np.rint(p.parameters["v_init"] * unit).astype(np.int64),
    }
    errors = [du_error, dv_error, bias_error]
    if not p.spiking:
        parameters["message_shift"] = np.array([shift])
    else:
        # No clip is the register's default, which lies below every state of any chip.
        lowest = np.maximum(p.parameters["v_min"] * unit, -LOIHI.state_max)
        parameters["v_min"] = np.rint(lowest).astype(np.int64)
        exact = p.parameters["threshold"] * scale
        parameters["vth"] = np.rint(exact).astype(np.int64)
        errors.append(
            tensor_error(
                f"{p.name}.threshold",
                f"{formats.threshold_bits} bits",
                exact,
                parameters["vth"].astype(np.float64),
                1.0,
            )
        )
    rule = {item: getattr(p, item) for item in RULE_CHOICES}
    if not p.spiking:
        rule["reset"] = "none"
    return IntegerPopulation(
        p.name, p.shape, p.model, parameters, start_step=latency, scale=unit, **rule
    ), errors


def register_warnings(p: Population, rounded: IntegerPopulation, chip: Chip) -> list[str]:
    """Return warnings of thresholds and leaks that round to 0, and of time constants that change much."""
    bits, one, found = chip.formats.decay_bits, chip.formats.decay_one, []
    if lost := _thresholds_lost(p, rounded):
        found.append(
            f"population {p.name!r}: {lost} threshold(s) above 0 round to 0, so those "
            "neurons fire at any membrane above 0"
        )
    if lost := _leaks_lost(p, rounded):
        found.append(
            f"population {p.name!r}: {lost} leak(s) of the membrane round to 0 in {bits} bits, so "
            "those neurons do not leak"
        )
    for key, register, offset in (("current_decay", "du", 1), ("voltage_decay", "dv", 0)):
        exact, kept = p.parameters[key], (rounded.parameters[register] + offset) / one
        both = (exact > 0) & (kept > 0)
        change = np.divide(exact, kept, out=np.ones_like(exact), where=both) - 1
        if (large := np.abs(change) > TAU_CHANGE_REPORTED).any():
            worst = change[np.abs(change).argmax()]
            found.append(
                f"population {p.name!r}: {bits} bits change the time constant of the "
                f"{key.split('_')[0]} by up to {worst:+.1%} ({_neurons(large, p)} neuron(s) by more than "
                f"{TAU_CHANGE_REPORTED:.0%}); shorter time constants in steps, or a larger dt, are rounded "
                "less"
            )
        if (endless := (exact == 0) & (kept > 0)).any():
            found.append(
                f"population {p.name!r}: the {key.split('_')[0]} of {_neurons(endless, p)} neuron(s) does "
                f"not leak, and on the chip it does, with a time constant of {1 / kept.min():g} steps"
            )
    return found


def _neurons(which: npt.NDArray[np.bool_], p: Population) -> int:
    return int(np.count_nonzero(np.broadcast_to(which, (p.size,))))


def _thresholds_lost(p: Population, rounded: IntegerPopulation) -> int:
    """Return how many thresholds are 0 only after rounding."""
    if not p.spiking:
        return 0
    return int(np.count_nonzero((rounded.parameters["vth"] == 0) & (p.parameters["threshold"] > 0)))


def _leaks_lost(p: Population, rounded: IntegerPopulation) -> int:
    """Return how many membranes stop leaking only after rounding."""
    return int(np.count_nonzero((rounded.parameters["dv"] == 0) & (p.parameters["voltage_decay"] > 0)))
