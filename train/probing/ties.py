"""Whether a membrane that meets its threshold exactly spikes: the module's comparison, > or >=."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import nn

from snn_compile.train.probing.calling import Float, Runner
from snn_compile.train.probing.measuring import Meter, meter_start
from snn_compile.train.probing.scaling import own_numbers
from snn_compile.train.probing.stepping import NeuronModel


def fires_at_threshold(
    neuron: NeuronModel, module: nn.Module, runner: Runner, critical: Float, states: Sequence[str]
) -> bool:
    """Return whether the comparison is >=, by the inputs on both sides of the critical one.

    A round input, or one of the module's own numbers, meets the threshold exactly; else the membrane is
    looked at, if the module keeps it. Where neither shows it, no input tells, and > is as right.
    """
    meter = Meter(runner, neuron.latency, meter_start(critical))
    low, high = (end[0] for end in meter.bracket())
    gap = 4 * np.spacing(high.astype(meter.type)).astype(np.float64)
    tried = [np.array([float(f"{v:.{digits}g}") for v in high]) for digits in (2, 4, 6)]
    tried += list(own_numbers(module, runner.shape))
    for exact in (meter.rounded(numbers) for numbers in tried):
        met = np.abs(exact - high) <= gap
        if met.any():
            nothing = np.zeros((0, 1, runner.size))
            fires = meter.fires(nothing, np.where(met, exact, low)[None])[0] != 0
            return int((fires & met).sum()) > int((~fires & met).sum())
    return bool(states) and _below(neuron, meter, low, states[0])


def _below(neuron: NeuronModel, meter: Meter, low: Float, state: str) -> bool:
    """Return whether the largest membrane without a spike is the number before the threshold."""
    x = np.concatenate([low[None, None], np.zeros((neuron.latency, 1, low.size))])
    _, kept = meter.runner.observe(x)
    if state not in kept:
        return False
    threshold = neuron["threshold"].astype(meter.type)
    before = np.nextafter(threshold, meter.type(-np.inf)).astype(np.float64)
    return int((kept[state][0] == before).sum()) > int((kept[state][0] == threshold).sum())
