"""Parameters of a recurrent layer with its own read-out, besides its sizes. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass

from snn_compile.train.configs.config import LARGEST

RECURRENT = ("rf", "brf", "rf_iz", "alif", "lstm")
"""Kinds of neurons of a recurrent layer with its own read-out."""


@dataclass(frozen=True, kw_only=True)
class Recurrence:
    """The kind of neuron, and the ranges that its parameters are drawn from.

    `omega` (rad/s) and `offset` (1/s) are uniform between two bounds, the time constants (steps) normal with
    mean and deviation. The three flags are of the balanced neuron `brf`; `rf` has none of them.
    """

    neuron: str = "brf"
    delta: float = 0.01
    omega: tuple[float, ...] = (15.0, 50.0)
    offset: tuple[float, ...] = (0.1, 1.0)
    refractory: bool = True
    smooth_reset: bool = True
    boundary: bool = True
    tau_membrane: tuple[float, ...] = (20.0, 5.0)
    tau_adaptation: tuple[float, ...] = (200.0, 50.0)
    tau_readout: tuple[float, ...] = (20.0, 5.0)
    adaptive_reset: str = "theta"
    surrogate: str = "double-gaussian"


RANGES = ("omega", "offset", "tau_membrane", "tau_adaptation", "tau_readout")
"""The fields that are two numbers."""

SHORTEST, LONGEST = 0.01, 1e9
"""Steps of time constants that are computed with: exp(-1 / tau) and its gradient stay within float32."""


def range_fault(key: str, pair: tuple[float, ...]) -> str:
    """Return what one of RANGES must be and is not, or ""."""
    if len(pair) != 2 or not all(abs(value) <= LARGEST for value in pair):
        return f"two numbers of at most {LARGEST:g}"
    mean, deviation = pair
    if key.startswith("tau") and (deviation < 0 or not SHORTEST <= max(abs(mean), deviation) <= LONGEST):
        return (
            "a mean and a deviation in steps, the latter at least 0, the larger of both from "
            f"{SHORTEST:g} to {LONGEST:g}"
        )
    return ""
