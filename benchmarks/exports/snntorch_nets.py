"""snnTorch: Leaky, Synaptic, RLeaky and RSynaptic between dense layers, convolutions and pools."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np
import snntorch as snn
import torch
from snntorch import utils
from snntorch.export_nir import export_to_nir
from torch import nn

from exports.drawing import Drawn, Kinds, data, plan, start_weights, told, values, weight_layer

KINDS = Kinds(frozenset({"conv2d", "pool", "flatten"}))
RESETS = {"subtract": "subtract", "zero": "value", "none": "none"}


def _neuron(rng: np.random.Generator, shape: tuple[int, ...], options: dict[str, Any], scalar: bool) -> Any:
    names = ["Leaky", "Leaky", "Synaptic"] + (["RLeaky"] if len(shape) == 1 else [])
    # With reset_delay=False, RSynaptic raises in its first step.
    names += ["RSynaptic"] if len(shape) == 1 and options["reset_delay"] else []
    kind = str(rng.choice(names))
    given = {"init_hidden": True, **options}
    if kind.startswith("R"):
        given["linear_features"] = shape[0]
    size = () if scalar else shape
    threshold = values(rng, 0.5, 1.0, size)
    threshold = float(threshold) if scalar and rng.random() < 0.5 else threshold
    beta = values(rng, 0.5, 0.95, size)
    if kind in ("Leaky", "RLeaky"):
        made = getattr(snn, kind)(beta, threshold=threshold, **given)
    else:
        alpha = values(rng, 0.2, 0.8, size)
        made = getattr(snn, kind)(alpha, beta, threshold=threshold, **given)
    if kind.startswith("R"):
        made.double()
        start_weights(rng, [made.recurrent])
        made.recurrent.weight.data *= 0.3
    return kind, made


def draw(rng: np.random.Generator) -> Drawn:
    """Return a random network."""
    shape, layers = plan(rng, KINDS)
    usual = rng.random() < 0.6
    mechanism = "subtract" if usual else str(rng.choice(["subtract", "zero", "none"], p=[0.2, 0.6, 0.2]))
    delay = True if usual else bool(rng.random() < 0.7)
    options = {"reset_mechanism": mechanism, "reset_delay": delay}
    scalar = rng.random() < 0.2
    named = rng.random() < 0.3
    modules: OrderedDict[str, Any] = OrderedDict()
    weights, neurons, words = [], OrderedDict(), []
    for index, (kind, given) in enumerate(layers):
        name = f"{kind}{index}" if named else str(index)
        if kind == "neuron":
            word, modules[name] = _neuron(rng, given["shape"], options, scalar)
            neurons[name] = modules[name]
        elif kind == "pool":
            word, modules[name] = "AvgPool2d", nn.AvgPool2d(given["size"])
        elif kind == "flatten":
            word, modules[name] = "Flatten", nn.Flatten()
        else:
            word, modules[name] = told(kind, given), weight_layer(kind, given)
            weights.append(modules[name])
        words.append(word)
    whole = nn.Sequential(modules).double()
    start_weights(rng, weights)
    inputs = data(rng, shape)

    def reset() -> None:
        utils.reset(whole)
        for neuron in neurons.values():
            if isinstance(neuron, snn.RSynaptic):
                neuron.spk = torch.zeros(0)  # utils.reset leaves the last spikes of RSynaptic

    def run(x: Any) -> None:
        reset()
        for t in range(x.shape[1]):
            whole(x[:, t])

    def export() -> Any:
        reset()
        return export_to_nir(whole, torch.as_tensor(inputs[:1, 0]), ignore_dims=[0])

    truth: dict[str, Any] = {"reset": RESETS[mechanism]}
    if not delay:
        truth["reset_timing"] = "pending" if mechanism == "subtract" else "same_step"
    shown = {**options, "scalar parameters": scalar, "named": named}
    return Drawn(inputs, weights, neurons, run, export, truth, words, options=shown)
