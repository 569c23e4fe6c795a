"""What a recurrent layer with a read-out of its own is made of, besides its sizes. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass


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
