"""What the frameworks' modules share: layer plans at random, weights that make layers spike, what was drawn.

Imported in an environment that has the framework and torch, and nothing of this project.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

BATCH, STEPS = 2, 40
LOW, HIGH, ROUNDS = 0.02, 0.6, 60
"""Share of active entries that a layer needs, the most it may have, and how often weights are changed."""

SPIKES_MAX = 12
"""Most spikes that a neuron sends in a step, where it sends several."""

Shape = tuple[int, ...]


class Redraw(Exception):
    """The exporter does not write this network, or no weights make every layer spike."""


@dataclass
class Drawn:
    """A network drawn at random.

    `data`: inputs (batch, steps, *shape). `weights` and `neurons` are modules by node name, in order, one of
    `weights` before each of `neurons`. `truth`: what the file does not hold, item by item, in the words of
    the contract: a value, or values by node. `order`: how layers return time, see `arranged`.
    """

    data: Any
    weights: list[Any]
    neurons: dict[str, Any]
    run: Callable[[Any], Any]
    export: Callable[[], Any]
    truth: Mapping[str, Any]
    layers: list[str]
    readouts: tuple[str, ...] = ()
    order: str = "steps"
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Kinds:
    """What an exporter can write: "conv1d", "conv2d", "pool", and the most neuron layers."""

    layers: frozenset[str]
    most: int = 5


def plan(rng: np.random.Generator, kinds: Kinds) -> tuple[Shape, list[tuple[str, dict[str, Any]]]]:
    """Draw an input shape and layers; every weight layer is followed by ("neuron", {"shape": ...})."""
    found: list[tuple[str, dict[str, Any]]] = []
    spatial = [kind for kind in ("conv1d", "conv2d") if kind in kinds.layers]
    count = int(rng.integers(1, kinds.most + 1))
    shape: Shape = (int(rng.integers(3, 12)),)
    start = shape
    if spatial and rng.random() < 0.5:
        kind = str(rng.choice(spatial))
        axes = 1 if kind == "conv1d" else 2
        start = shape = (int(rng.integers(1, 4)), *_plane(rng, axes))
        for _ in range(int(rng.integers(1, min(count, 3) + 1))):
            if min(shape[1:]) < 3:
                break
            shape = _convolution(rng, kind, shape, found)
            count -= 1
            if axes == 2 and "pool" in kinds.layers and min(shape[1:]) >= 2 and rng.random() < 0.4:
                shape = (shape[0], *(n // 2 for n in shape[1:]))
                found.append(("pool", {"size": 2, "shape": shape}))
        if count > 0 and "flatten" in kinds.layers:
            found.append(("flatten", {}))
            shape = (int(np.prod(shape)),)
        else:
            return start, found
    elif "flatten" in kinds.layers and rng.random() < 0.1:
        start = (2, 3)
        found.append(("flatten", {}))
        shape = (6,)
    for _ in range(max(count, 1)):
        out = int(rng.integers(3, 12))
        found.append(("linear", {"size": (shape[0], out), "bias": bool(rng.random() < 0.6)}))
        shape = (out,)
        found.append(("neuron", {"shape": shape}))
    return start, found


def _plane(rng: np.random.Generator, axes: int) -> list[int]:
    side = int(rng.integers(7, 12))
    return [side] * axes if rng.random() < 0.6 else [int(n) for n in rng.integers(7, 12, axes)]


def _convolution(rng: np.random.Generator, kind: str, shape: Shape, found: list[Any]) -> Shape:
    axes = len(shape) - 1
    # Square ones more often: nir 1.0.8 takes a kernel's height for its width, and most exporters call it.
    square = rng.random() < 0.7
    kernel = [int(rng.integers(1, 4))] * axes if square else [int(n) for n in rng.integers(1, 4, axes)]
    stride = [int(rng.choice([1, 1, 2]))] * axes if square else [int(n) for n in rng.integers(1, 3, axes)]
    padding = (
        [int(rng.integers(0, kernel[0]))] * axes if square else [int(rng.integers(0, k)) for k in kernel]
    )
    channels = shape[0] * int(rng.integers(1, 3)) if rng.random() < 0.2 else int(rng.integers(1, 5))
    groups = shape[0] if channels % shape[0] == 0 and rng.random() < 0.3 else 1
    sizes = [(n + 2 * p - k) // s + 1 for n, k, s, p in zip(shape[1:], kernel, stride, padding, strict=True)]
    made = {"size": (shape[0], channels), "kernel": kernel, "stride": stride, "padding": padding}
    found.append((kind, {**made, "groups": groups, "bias": bool(rng.random() < 0.6)}))
    after = (channels, *sizes)
    found.append(("neuron", {"shape": after}))
    return after


def weight_layer(kind: str, given: Mapping[str, Any], library: Any = nn) -> Any:
    """Return a linear or convolution module."""
    if kind == "linear":
        return library.Linear(*given["size"], bias=given["bias"])
    made = library.Conv1d if kind == "conv1d" else library.Conv2d
    own = {key: tuple(given[key]) if kind == "conv2d" else given[key][0] for key in ("stride", "padding")}
    kernel = tuple(given["kernel"]) if kind == "conv2d" else given["kernel"][0]
    return made(*given["size"], kernel, groups=given["groups"], bias=given["bias"], **own)


def told(kind: str, given: Mapping[str, Any]) -> str:
    """Return a layer in a few words."""
    if kind == "linear":
        return "Linear" + ("" if given["bias"] else " no bias")
    if kind.startswith("conv"):
        more = [" grouped"] if given["groups"] > 1 else []
        return kind.capitalize() + "".join(more) + ("" if given["bias"] else " no bias")
    return kind.capitalize()


def values(rng: np.random.Generator, low: float, high: float, shape: Shape) -> Any:
    """Random parameters as a float64 tensor."""
    return torch.as_tensor(rng.uniform(low, high, shape), dtype=torch.float64)


def data(rng: np.random.Generator, shape: Shape) -> Any:
    """Random spikes, or now and then real values with few bits, (batch, steps, *shape)."""
    size = (BATCH, STEPS, *shape)
    if rng.random() < 0.75:
        return (rng.random(size) < rng.uniform(0.2, 0.6)).astype(np.float64)
    return np.round(rng.uniform(-0.3, 1, size) * 64) / 64


def start_weights(rng: np.random.Generator, modules: Sequence[Any], spread: float = 1.0) -> None:
    """Draw weights of positive mean and some spread; frameworks may send float32 spikes, which are exact."""
    for module in modules:
        module.register_forward_pre_hook(
            lambda module, given: tuple(x.to(module.weight.dtype) if torch.is_tensor(x) else x for x in given)
        )
        fan_in = module.weight[0].numel()
        drawn = rng.normal(0.4, spread, tuple(module.weight.shape)) / fan_in**0.5
        module.weight.data = torch.as_tensor(drawn, dtype=module.weight.dtype)
        if getattr(module, "bias", None) is not None:
            bias = rng.normal(0, 0.05, tuple(module.bias.shape))
            module.bias.data = torch.as_tensor(bias, dtype=module.bias.dtype)


def recorded(drawn: Drawn) -> dict[str, Any]:
    """Run a network; return the output of every neuron layer, (batch, steps, *shape)."""
    calls: dict[str, list[Any]] = {name: [] for name in drawn.neurons}

    def hook(name: str) -> Callable[..., None]:
        def listen(module: Any, given: Any, output: Any) -> None:
            value = output[0] if isinstance(output, tuple) else output
            calls[name].append(value.detach().clone().numpy())

        return listen

    handles = [module.register_forward_hook(hook(name)) for name, module in drawn.neurons.items()]
    try:
        with torch.no_grad():
            drawn.run(torch.as_tensor(drawn.data, dtype=torch.get_default_dtype()))
    finally:
        for handle in handles:
            handle.remove()
    return {name: arranged(found, drawn.order) for name, found in calls.items()}


def arranged(calls: list[Any], order: str) -> Any:
    """Return a layer's output as (batch, steps, *shape)."""
    if order == "steps":
        return np.stack(calls, 1)
    (whole,) = calls
    if order == "time_batch":
        return np.swapaxes(whole, 0, 1)
    return whole.reshape(BATCH, -1, *whole.shape[1:]) if order == "squeezed" else whole


def settled(drawn: Drawn) -> dict[str, Any]:
    """Scale the weights, layer by layer, until every spiking layer is active, but not all the time."""
    for _ in range(ROUNDS):
        sent = recorded(drawn)
        for module, name in zip(drawn.weights, drawn.neurons, strict=True):
            if name in drawn.readouts:
                continue
            rate, most = float(np.mean(sent[name] != 0)), float(np.abs(sent[name]).max())
            if not LOW <= rate <= HIGH or most > SPIKES_MAX:
                factor = 1.35 if rate < LOW and most <= SPIKES_MAX else 0.75
                module.weight.data *= factor
                if getattr(module, "bias", None) is not None and factor < 1:
                    module.bias.data *= factor
                break
        else:
            return sent
    raise Redraw("no weights make every layer spike")
