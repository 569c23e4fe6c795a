"""Which calling style of a module makes sense, found by trying all.

A style holds if the answer has a value per step, sample and neuron, does not depend on later input, on other
samples, their order or other neurons, and does depend on earlier input.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from torch import nn

from snn_compile.targets.errors import ExportError
from snn_compile.train.probing.calling import STYLES, Float, Runner, Style, dtype_of, numpy_dtype

STEPS = 10


def find_style(module: nn.Module, shape: tuple[int, ...], name: str, call: str | None = None) -> Style:
    """Return the style in which a module is called; `call` admits one kind only.

    Raises ExportError for a module that is random, that couples samples or neurons, that keeps no state, or
    that no style runs.
    """
    x = trial(int(np.prod(shape)), module)
    reasons: dict[str, str] = {}
    for style in STYLES:
        if call is not None and style.call != call:
            continue
        try:
            runner = Runner(module, shape, style)
            found, why = _judge(runner, x)
        except Exception as error:  # whatever a user's forward raises says that this is no way to call it
            reason = " ".join(str(error).split())[:160]
            reasons.setdefault(style.describe(), f"it fails ({type(error).__name__}: {reason})")
            continue
        if why == "":
            return replace(style, output=found)
        if why == RANDOM:
            raise ExportError(f"{name}: {RANDOM}; only deterministic neurons are exported", node=name)
        reasons[style.describe()] = why
    reported = "; ".join(f"{words}, {why}" for words, why in reasons.items())
    stateless = all(why in (STATELESS, SHAPELESS) or why.startswith("it fails") for why in reasons.values())
    raise ExportError(
        f"{name}: is not a layer of spiking neurons: called {reported}", node=name, stateless=stateless
    )


RANDOM = "two runs on the same input differ: it is stochastic"
STATELESS = "it keeps no state from step to step"
SHAPELESS = "it returns no tensor of the shape of its input"


def trial(size: int, module: nn.Module) -> Float:
    """Return inputs from 1/16 to 256, so that thresholds of any usual size are met in some sample."""
    rng = np.random.default_rng(11)
    batch = max(8, min(40, 20_000 // size))
    scale = 2.0 ** rng.uniform(-4, 8, (1, batch, size))
    x = rng.uniform(-0.3, 1.0, (STEPS, batch, size)) * scale
    return x.astype(numpy_dtype(dtype_of(module))).astype(np.float64)


def _judge(runner: Runner, x: Float) -> tuple[int, str]:
    """Return the place of the spikes among the outputs, and why a style does not hold, or ""."""
    base = runner.outputs(x)
    if not base:
        return 0, SHAPELESS
    if not _same(base, runner.outputs(x)):
        return 0, RANDOM
    rng = np.random.default_rng(12)
    other, half = x.copy(), STEPS // 2
    other[:, 0] = x[::-1, 0] + np.abs(x).max()  # large, as a mean over samples hides a small one
    if not _same([o[:, 1:] for o in base], [o[:, 1:] for o in runner.outputs(other)]):
        return 0, "its answer to one sample depends on the others of the batch"
    order = rng.permutation(x.shape[1])
    if not _same([o[:, order] for o in base], runner.outputs(x[:, order])):
        return 0, "its answer to a sample depends on the sample's place in the batch"
    later = x.copy()
    later[half:] = x[half:][::-1] * 2
    if not _same([o[:half] for o in base], [o[:half] for o in runner.outputs(later)]):
        return 0, "its answer depends on later input"
    place = spikes_among(base)
    earlier = x.copy()
    earlier[:half] = rng.uniform(-0.3, 1.0, earlier[:half].shape) * np.abs(x).max(0, keepdims=True)
    against = x.copy()
    against[:half] *= -1
    if all(_same([base[place][half:]], [runner.outputs(e)[place][half:]]) for e in (earlier, against)):
        return 0, STATELESS
    if x.shape[2] > 1:
        apart = x.copy()
        apart[:, :, 0] *= -2
        if not _same([base[place][:, :, 1:]], [runner.outputs(apart)[place][:, :, 1:]]):
            return 0, "a neuron's spikes depend on the input of the others"
    return place, ""


def spikes_among(outputs: Sequence[Float]) -> int:
    """Return the first output made of whole multiples of one number per neuron, else the first."""
    return next((i for i, y in enumerate(outputs) if is_discrete(y)), 0)


def is_discrete(y: Float) -> bool:
    """Whether each neuron's values are 0 and whole multiples of its smallest."""
    size = np.abs(y)
    least = np.where(size > 0, size, np.inf).min((0, 1))
    multiples = size / np.where(np.isfinite(least), least, 1.0)
    whole = bool((np.abs(multiples - np.rint(multiples)) < 1e-6).all())
    return whole and bool((y == 0).any())


def _same(first: Sequence[Float], second: Sequence[Float]) -> bool:
    """Whether outputs agree up to rounding, spikes exactly."""
    return len(first) == len(second) and all(
        np.allclose(a, b, rtol=1e-5, atol=1e-5 * max(1.0, float(np.abs(a).max())), equal_nan=True)
        for a, b in zip(first, second, strict=True)
    )
