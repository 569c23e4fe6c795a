"""From measurements to neurons that would have given them: every rule, each with its own numbers.

Membranes are in units of the input here (gain 1) and start at 0. One strong input makes a neuron spike;
the critical input of the next step then tells what the spike left:

    T + rise - bias - k v_left - (current)        with v_left = v_reset, v - T, ... by the rule
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from snn_compile.targets.program.rule import Rule
from snn_compile.train.probing.calling import Float
from snn_compile.train.probing.measuring import Reading, poles
from snn_compile.train.probing.stepping import NeuronModel, parameters


@dataclass(frozen=True, eq=False)
class _Leaks:
    """Shares kept per step, bias and threshold in units of the input, for a membrane that starts at 0."""

    membrane: Float
    current: Float
    bias: Float
    threshold: Float
    idle: Float


def candidates(reading: Reading) -> list[tuple[NeuronModel, ...]]:
    """Return every neuron whose responses are those measured, the plainest rules first.

    Those of one tuple have the same rule, and each neuron of the layer may be any of them: which of two leaks
    is the membrane's can differ from neuron to neuron.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        found = [_of_leaks(reading, *shares) for shares in poles(reading.response, reading.fine)]
        return [*zip(*found, strict=True), *((neuron,) for neuron in _adaptive(reading))]


def _of_leaks(reading: Reading, membrane: Float, current: Float) -> list[NeuronModel]:
    """Return the neurons of every rule with these shares kept per step."""
    leaks = _leaks(reading, membrane, current)
    v_min = _lower_bound(reading, leaks)
    order = "membrane_first" if reading.latency else "synapse_first"
    several = "floor" if reading.several else "one"
    common = {
        "voltage_decay": 1 - membrane,
        "current_decay": 1 - current,
        "bias": leaks.bias,
        "amplitude": reading.amplitude,
    }
    found = []
    for rule, numbers in _resets(reading, leaks):
        # What moves the zero of the membrane moves its start from 0.
        numbers = {**numbers, "v_min": v_min + numbers.get("v_init", 0.0)}
        full = Rule(**rule, spikes_per_step=several, update_order=order, comparison=">")
        found.append(NeuronModel("lif", full, parameters(reading.start.size, **{**common, **numbers})))
    return found


def _leaks(reading: Reading, membrane: Float, current: Float) -> _Leaks:
    drop = reading.rest[0] - reading.rest[1]
    drop = np.where(np.abs(drop) < 10 * reading.noise * reading.start, 0.0, drop)
    kept = membrane ** (1 + reading.latency)
    bias = np.where(kept > 1e-6, drop / np.where(kept > 1e-6, kept, 1.0), 0.0)
    idle = bias * (1 + membrane * reading.latency)
    return _Leaks(membrane, current, bias, reading.start + idle, idle)


def _lower_bound(reading: Reading, leaks: _Leaks) -> Float:
    """Return the lowest membrane a neuron keeps; -inf where a strong negative input is kept whole."""
    deep = reading.deep
    carried = leaks.threshold - leaks.bias - reading.after_deep - leaks.current * deep
    k = np.where(leaks.membrane > 1e-6, leaks.membrane, np.nan)
    left = carried / k
    whole = deep + leaks.idle
    kept = np.abs(left - whole) <= 1e3 * reading.noise * np.abs(whole) / np.where(np.isnan(k), 1.0, k)
    return np.where(np.isnan(left) | kept, -np.inf, left)


def _resets(reading: Reading, leaks: _Leaks) -> Iterator[tuple[dict[str, str], dict[str, Float]]]:
    """Yield rules of the reset and the numbers they imply: the threshold is what "subtract" takes off.

    Moving the zero of the membrane changes the threshold but no difference, so whatever a spike takes off
    can be the threshold.
    """
    strong = reading.strong
    k = np.where(leaks.membrane > 1e-6, leaks.membrane, np.nan)
    v = strong + leaks.idle
    left = leaks.threshold - leaks.bias - reading.after_strong - leaks.current * strong

    def subtracting(taken: Float) -> dict[str, Float]:
        taken = np.where(np.isfinite(taken) & (taken > 0), taken, leaks.threshold)
        by = taken - leaks.threshold
        return _moved(leaks, np.where(np.abs(by) < 100 * reading.noise * taken, 0.0, by))

    def value(v_reset: Float) -> dict[str, Float]:
        near_zero = np.abs(v_reset) < 100 * reading.noise * reading.start
        v_reset = np.where(np.isfinite(v_reset) & ~near_zero, v_reset, 0.0)
        return {"threshold": leaks.threshold, "v_reset": v_reset}

    yield {"reset": "value"}, value(left / k)
    yield {"reset": "subtract"}, subtracting((leaks.membrane * v - left) / k)
    yield {"reset": "none"}, {"threshold": leaks.threshold}
    yield {"reset": "subtract", "reset_timing": "next_after"}, subtracting(leaks.membrane * v - left)
    if not reading.several:
        yield ({"reset": "subtract", "reset_timing": "pending"}, subtracting((leaks.membrane * v - left) / k))
    later = leaks.threshold - leaks.bias - reading.after_two - leaks.current**2 * strong
    yield {"reset": "value", "reset_timing": "next_after"}, value(later / k)


def _moved(leaks: _Leaks, by: Float) -> dict[str, Float]:
    """Return bias, start and threshold with the membrane's zero moved down by `by`."""
    return {"bias": leaks.bias + by * (1 - leaks.membrane), "v_init": by, "threshold": leaks.threshold + by}


def _adaptive(reading: Reading) -> Iterator[NeuronModel]:
    """Yield adaptive neurons, whose threshold a spike raises; `reset_size` thresholds are taken off."""
    (membrane, current), *others = poles(reading.response, reading.fine)
    leaks = _leaks(reading, membrane, current)
    bounded = np.isfinite(_lower_bound(reading, leaks)).any()
    if others or leaks.bias.any() or bounded or reading.several or reading.latency:
        return
    if not (np.isfinite(reading.after_strong) & np.isfinite(reading.after_two)).all():
        return
    for size in (1.0, 2.0):
        left = leaks.membrane * (reading.strong - size * leaks.threshold)
        rise = reading.after_strong + left - leaks.threshold
        if (rise <= 1e3 * reading.noise * leaks.threshold).any():
            continue
        later = reading.after_two + leaks.membrane * (left + reading.quiet) - leaks.threshold
        kept = np.clip(later / rise, 0.0, 1.0)
        numbers = {
            "voltage_decay": 1 - membrane,
            "amplitude": reading.amplitude,
            "threshold": leaks.threshold,
            "reset_size": np.full_like(rise, size),
            "adaptation_step": rise,
            "adaptation_decay": 1 - kept,
        }
        yield NeuronModel("alif", Rule(reset="subtract"), parameters(rise.size, **numbers))
