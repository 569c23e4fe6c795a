"""sinabs: IAF, LIF and ExpLeak, squeezed or not, between dense layers, convolutions and sum pools."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np
import sinabs.activation as act
import sinabs.layers as sl
import torch
from sinabs.nir import to_nir
from torch import nn

from exports.drawing import BATCH, Drawn, Kinds, Redraw, data, plan, start_weights, told, values, weight_layer

KINDS = Kinds(frozenset({"conv2d", "conv1d", "pool", "flatten"}))


def _options(rng: np.random.Generator) -> dict[str, Any]:
    found: dict[str, Any] = {"one": False, "zero": False, "clip": None, "norm": True}
    if rng.random() > 0.6:
        found["one"], found["zero"] = bool(rng.random() < 0.5), bool(rng.random() < 0.4)
        found["clip"] = float(rng.choice([-0.5, -1.0])) if rng.random() < 0.5 else None
        found["norm"] = bool(rng.random() < 0.5)
    found["parameters"] = str(rng.choice(["by neuron", "scalar"]))
    return found


def _neuron(
    rng: np.random.Generator, shape: tuple[int, ...], options: dict[str, Any], squeezed: bool, last: bool
) -> tuple[str, Any]:
    more: dict[str, Any] = {"batch_size": BATCH} if squeezed else {}
    size = shape if options["parameters"] == "by neuron" and len(shape) == 1 else ()
    kind = "ExpLeak" if last and rng.random() < 0.15 else str(rng.choice(["IAF", "LIF"]))
    tau = values(rng, 2, 20, size) if size else float(rng.uniform(2, 20))
    name = kind + ("Squeeze" if squeezed else "")
    if kind == "ExpLeak":
        return kind, getattr(sl, name)(tau_mem=tau, **more)
    more["spike_threshold"] = values(rng, 0.5, 1.0, size)
    more |= {"spike_fn": act.SingleSpike} if options["one"] else {}
    more |= {"reset_fn": act.MembraneReset()} if options["zero"] else {}
    more |= {} if options["clip"] is None else {"min_v_mem": options["clip"]}
    if kind == "IAF":
        more["spike_threshold"] = torch.tensor(float(rng.uniform(0.5, 1.0)))
        return kind, getattr(sl, name)(**more)
    return kind, getattr(sl, name)(tau_mem=tau, norm_input=options["norm"], **more)


def draw(rng: np.random.Generator) -> Drawn:
    """Return a random network."""
    shape, layers = plan(rng, KINDS)
    options = _options(rng)
    squeezed = len(shape) > 1 or bool(rng.random() < 0.2)
    modules: list[Any] = []
    weights, neurons, words, readouts = [], OrderedDict(), [], []
    lif: dict[str, Any] = {}
    for index, (kind, given) in enumerate(layers):
        if kind == "neuron":
            word, module = _neuron(rng, given["shape"], options, squeezed, index == len(layers) - 1)
            neurons[str(index)] = module.double()
            readouts += [str(index)] if word == "ExpLeak" else []
            lif |= {str(index): "unit"} if word == "LIF" and not options["norm"] else {}
        elif kind == "pool":
            word, module = "SumPool2d", sl.SumPool2d((given["size"], given["size"]))
        elif kind == "flatten":
            word, module = "Flatten", nn.Flatten()
        else:
            word, module = told(kind, given), weight_layer(kind, given).double()
            weights.append(module)
        modules.append(module)
        words.append(word)
    whole = nn.Sequential(*modules)
    start_weights(rng, weights)
    inputs = data(rng, shape)

    def run(x: Any) -> None:
        for layer in neurons.values():
            layer.reset_states()
        whole(x.reshape(-1, *x.shape[2:]) if squeezed else x)

    def export() -> Any:
        x = torch.as_tensor(inputs)
        run(x)
        return to_nir(whole, x[0] if squeezed else x[:1, :1])

    spiking = [name for name in neurons if name not in readouts]
    if not spiking:
        raise Redraw("nothing spikes")
    truth: dict[str, Any] = {"spikes_per_step": "one"} if options["one"] else {}
    truth |= {"reset": "value"} if options["zero"] else {}
    truth |= {"v_min": options["clip"]} if options["clip"] is not None else {}
    truth |= {"gain": lif} if lif else {}
    order = "squeezed" if squeezed else "batch_time"
    return Drawn(
        inputs,
        weights,
        neurons,
        run,
        export,
        truth,
        words,
        tuple(readouts),
        order,
        {**options, "squeezed": squeezed},
    )
