"""From units of the input to a module's own: the scale of its membrane, and numbers as they were written."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from snn_compile.train.probing.calling import Float, Runner
from snn_compile.train.probing.stepping import NeuronModel

SCALED = ("gain", "threshold", "bias", "v_reset", "v_init", "v_min", "adaptation_step")
"""Parameters in units of the membrane."""


def membrane_states(
    neuron: NeuronModel, runner: Runner, size: Float, noise: float
) -> dict[str, tuple[Float, Float]]:
    """Return the tensors that a module keeps which are the membrane, times a factor plus an offset.

    The inputs stay below threshold; both numbers are (neurons,).
    """
    rng = np.random.default_rng(13)
    steps, batch = 3, 24
    x = rng.uniform(-0.1, 0.08, (steps, batch, len(size))) * size
    x = x.astype(np.float32).astype(np.float64)
    outputs, kept = runner.observe(x)
    if outputs[runner.style.output].any():
        return {}
    state = neuron.begin(batch)
    for t in range(steps):
        state = neuron.step(state, x[t]).state
    w = state.v
    spread = w - w.mean(0)
    found = {}
    for name, tensor in kept.items():
        if tensor.shape != w.shape:
            continue
        with np.errstate(invalid="ignore", divide="ignore"):
            factor = (spread * (tensor - tensor.mean(0))).sum(0) / (spread**2).sum(0)
            offset = tensor.mean(0) - factor * w.mean(0)
            error = np.abs(factor * w + offset - tensor).max(0) / np.abs(factor * spread).max(0)
        if np.isfinite(factor).all() and (factor > 0).all() and (error < max(1e-6, 50 * noise)).all():
            found[name] = factor, offset
    return found


def scaled(neuron: NeuronModel, factor: Float, offset: Float) -> NeuronModel:
    """Return the same neuron with its membrane times a factor, moved where no subtraction fixes its zero."""
    values = {k: neuron[k] * factor for k in SCALED if k in neuron.parameters}
    if neuron.rule.reset != "subtract":
        kept = 1 - neuron["voltage_decay"]
        for key in ("threshold", "v_reset", "v_init", "v_min"):
            values[key] = values[key] + offset
        values["bias"] = values["bias"] + offset * (1 - kept)
    return neuron.with_parameters(**values)


def snapped(neuron: NeuronModel, module: nn.Module, shape: tuple[int, ...], fine: bool) -> NeuronModel:
    """Return a neuron whose numbers are those they were written as, where that is within their error.

    Tried are decimals of few digits, numbers of float32, and, for measurements in float32, what common
    formulas make of the module's own numbers.
    """
    way = np.abs(neuron["threshold"] - neuron["v_init"])
    way = np.where(np.isfinite(way), way, neuron["gain"])
    known = [] if fine else list(_formulas(module, shape))
    changed = {}
    for key, value in neuron.parameters.items():
        least = 1e-3 * way if key in SCALED else 1e-3
        tolerance = (1e-10 if fine else 4e-6) * np.maximum(np.abs(value), least)
        share = key.endswith("_decay")
        changed[key] = _snap(_even(1 - value if share else value, tolerance), tolerance, known, fine)
        if share:
            changed[key] = 1 - changed[key]
    return neuron.with_parameters(**changed)


def _even(value: Float, tolerance: Float) -> Float:
    """Return one number for all neurons where they differ by no more than their errors."""
    middle = np.full_like(value, np.median(value))
    with np.errstate(invalid="ignore"):
        return middle if (np.abs(value - middle) <= tolerance).all() else value


def _snap(value: Float, tolerance: Float, known: list[Float], fine: bool) -> Float:
    for formula in known:
        if (np.abs(formula - value) <= tolerance).all():
            return np.array(formula)
    result = value.copy()
    for i in np.ndindex(value.shape):
        number = value[i]
        if not np.isfinite(number):
            continue
        for digits in range(8 if fine else 5):
            rounded = float(f"{number:.{digits}e}")
            if abs(rounded - number) <= tolerance[i] or (abs(number) <= tolerance[i]):
                result[i] = rounded if abs(number) > tolerance[i] else 0.0
                break
        else:
            single = float(np.float32(number))
            result[i] = single if abs(single - number) <= tolerance[i] else number
    return result


def _formulas(module: nn.Module, shape: tuple[int, ...]) -> Iterator[Float]:
    """Yield what a module's own numbers may stand for, one per neuron."""
    for number in own_numbers(module, shape):
        with np.errstate(all="ignore"):
            inverse = 1 / number
            found = (
                number,
                1 - number,
                inverse,
                1 - inverse,
                np.exp(-inverse),
                1 - np.exp(-inverse),
                1 / (1 + np.exp(-number)),
                1 - 1 / (1 + np.exp(-number)),
                np.exp(-number),
                1 / (1 + number),
                number / (1 + number),
                np.exp(-np.exp(-number)),
                np.exp(number),
            )
        yield from (f for f in found if np.isfinite(f).all())


def own_numbers(module: nn.Module, shape: tuple[int, ...]) -> Iterator[Float]:
    """Yield the numbers that a module keeps as parameters, buffers or attributes, one per neuron."""
    for part in module.modules():
        for value in (*vars(part).values(), *part._buffers.values(), *part._parameters.values()):
            if isinstance(value, bool) or not isinstance(value, (int, float, torch.Tensor)):
                continue
            array = torch.as_tensor(value).detach().cpu().double().numpy()
            try:
                spread = np.broadcast_to(array, shape).reshape(-1)
            except ValueError:
                continue
            if np.isfinite(spread).all():
                yield spread
