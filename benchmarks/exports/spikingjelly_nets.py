"""spikingjelly: multi-step IF, LIF and current-based nodes between dense layers, convolutions and pools."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np
import torch
from spikingjelly.activation_based import functional, layer, neuron
from spikingjelly.activation_based.nir_exchange import export_to_nir
from torch import nn

from exports.drawing import Drawn, Kinds, data, plan, start_weights, told, weight_layer

KINDS = Kinds(frozenset({"conv2d", "conv1d", "pool", "flatten"}))


def _node(rng: np.random.Generator, options: dict[str, Any]) -> tuple[str, Any]:
    kind = str(rng.choice(["IFNode", "LIFNode", "LIFNode", "CUBALIFNode", "ParametricLIFNode"]))
    given = {"v_threshold": float(np.round(rng.uniform(0.5, 1.2), 3)), "v_reset": options["v_reset"]}
    if kind == "IFNode":
        return kind, neuron.IFNode(**given)
    if kind == "CUBALIFNode":
        decays = {"c_decay": float(rng.uniform(0.2, 0.8)), "v_decay": float(rng.uniform(0.3, 0.9))}
        return kind, neuron.CUBALIFNode(**decays, **given)
    tau = float(np.round(rng.uniform(1.5, 9), 2))
    if kind == "ParametricLIFNode":
        return kind, neuron.ParametricLIFNode(init_tau=tau, decay_input=options["decay_input"], **given)
    return kind, neuron.LIFNode(tau=tau, decay_input=options["decay_input"], **given)


def draw(rng: np.random.Generator) -> Drawn:
    """Return a random network."""
    shape, layers = plan(rng, KINDS)
    usual = rng.random() < 0.6
    options: dict[str, Any] = {"dt": 1e-4 if usual else float(rng.choice([1e-4, 1e-3, 1.0]))}
    options["decay_input"] = bool(rng.random() < 0.5)
    options["v_reset"] = 0.0 if rng.random() < 0.75 else float(np.round(rng.uniform(-0.3, 0.3), 2))
    modules: OrderedDict[str, Any] = OrderedDict()
    named = rng.random() < 0.3
    weights, neurons, words = [], OrderedDict(), []
    for index, (kind, given) in enumerate(layers):
        name = f"{kind}{index}" if named else str(index)
        if kind == "neuron":
            word, modules[name] = _node(rng, options)
            neurons[name] = modules[name]
        elif kind == "pool":
            word, modules[name] = "AvgPool2d", layer.AvgPool2d(given["size"])
        elif kind == "flatten":
            word, modules[name] = "Flatten", layer.Flatten()
        else:
            word, modules[name] = told(kind, given), weight_layer(kind, given, layer)
            weights.append(modules[name])
        words.append(word)
    whole = nn.Sequential(modules).double()
    functional.set_step_mode(whole, "m")
    start_weights(rng, weights)
    inputs = data(rng, shape)

    def run(x: Any) -> None:
        functional.reset_net(whole)
        whole(x.swapaxes(0, 1))

    def export() -> Any:
        functional.reset_net(whole)
        more = {} if options["dt"] == 1e-4 else {"dt": options["dt"]}
        return export_to_nir(whole, torch.as_tensor(inputs).swapaxes(0, 1), **more)

    shown = {**options, "named": named}
    truth = {"dt": options["dt"]}
    return Drawn(inputs, weights, neurons, run, export, truth, words, order="time_batch", options=shown)
