"""Which of the candidates a module is, by a short test of each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from snn_compile.train.probing.calling import Float, Runner
from snn_compile.train.probing.evidence import REGIMES, Verdict, ask
from snn_compile.train.probing.stepping import NeuronModel

WORK = 2_000_000
"""About how many steps of single neurons a test compares in a large layer."""

FEW = 64
"""Neurons of a large layer on which the rule is chosen."""

STEPS, BATCH = 30, 60


def batch_for(size: int, steps: int, wanted: int) -> int:
    """Return how many samples a test runs: a multiple of its regimes, fewer in a large layer."""
    return max(REGIMES, min(wanted, WORK // (steps * size)) // REGIMES * REGIMES)


def closest(
    found: Sequence[tuple[NeuronModel, ...]], runner: Runner, critical: Float, seed: int
) -> tuple[NeuronModel, Verdict]:
    """Return the neuron that agrees in a short test, else that which agrees longest.

    Of several that agree (two kinds of subtraction can send the same spikes) it is the first whose membrane
    starts at its zero.
    """
    batch, seed = batch_for(runner.size, STEPS, BATCH), seed + 1
    judged: list[tuple[NeuronModel, Verdict]] = []
    for alternatives in found:
        neuron = alternatives[0]
        if len(alternatives) > 1:
            neuron = _of_each(alternatives, runner, critical, batch, seed)
        verdict = ask(neuron, runner, critical, STEPS, batch, seed, most=FEW)
        if verdict.difference is None and not neuron["v_init"].any():
            return neuron, verdict
        judged.append((neuron, verdict))
    agreeing = [pair for pair in judged if pair[1].difference is None]
    return agreeing[0] if agreeing else max(judged, key=lambda pair: pair[1].agreement)


def _of_each(
    alternatives: Sequence[NeuronModel], runner: Runner, critical: Float, batch: int, seed: int
) -> NeuronModel:
    """Return the neurons of a layer, each as the alternative that agrees with it longest."""
    wrong = np.stack([ask(a, runner, critical, STEPS, batch, seed).wrong for a in alternatives])
    best, each = wrong.argmin(0), np.arange(wrong.shape[1])
    parameters = {
        key: np.stack([a[key] for a in alternatives])[best, each] for key in alternatives[0].parameters
    }
    return alternatives[0].with_parameters(**parameters)
