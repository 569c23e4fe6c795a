"""rockpool: LIFTorch, LIFNeuronTorch and ExpSynTorch between dense layers."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np
import torch
from rockpool.nn.combinators import Sequential
from rockpool.nn.modules.torch import ExpSynTorch, LIFNeuronTorch, LIFTorch, LinearTorch
from rockpool.nn.modules.torch.nir import to_nir

from exports.drawing import Drawn, Kinds, data, plan, values

KINDS = Kinds(frozenset())


def _linear(rng: np.random.Generator, rows: int, columns: int, bias: bool) -> Any:
    layer = LinearTorch((rows, columns), has_bias=bias)
    layer.register_forward_pre_hook(lambda module, given: tuple(x.double() for x in given))
    layer.weight.data = torch.as_tensor(rng.normal(0.4, 1, (rows, columns)) / rows**0.5)
    if bias:
        layer.bias.data = torch.as_tensor(rng.normal(0, 0.05, columns))
    return layer


def _neuron(rng: np.random.Generator, n: int, options: dict[str, Any], last: bool) -> tuple[str, Any]:
    time = {} if options["dt"] == 1e-3 else {"dt": options["dt"]}
    one = options["parameters"] == "one value"
    mem, syn = (float(rng.uniform(4e-3, 2e-2)), float(rng.uniform(2e-3, 1e-2))) if one else (0.0, 0.0)
    tau_mem = mem if one else values(rng, 4e-3, 2e-2, (n,))
    tau_syn = syn if one else values(rng, 2e-3, 1e-2, (n, 1))
    threshold = float(rng.uniform(0.5, 1)) if one else values(rng, 0.5, 1, (n,))
    kind = str(rng.choice(["LIFTorch", "LIFTorch", "LIFNeuronTorch"]))
    if last and rng.random() < 0.15:
        made = ExpSynTorch(n, tau=tau_mem, **time)
        made.tau.requires_grad_(False)  # else the file cannot be written
        return "ExpSynTorch", made
    bias = values(rng, 0.02, 0.1, (n,)) if options["bias"] else torch.zeros(n, dtype=torch.float64)
    more = {"threshold": threshold, "bias": bias, **time}
    more |= {"max_spikes_per_dt": 1} if options["one"] else {}
    if kind == "LIFNeuronTorch":
        return kind, LIFNeuronTorch(n, tau_mem=tau_mem, **more)
    made = LIFTorch(n, tau_mem=tau_mem, tau_syn=tau_syn, has_rec=options["rec"], **more)
    if options["rec"]:
        made.w_rec.data = torch.as_tensor(rng.normal(0, 0.3 / n**0.5, (n, n)))
    return kind, made


def draw(rng: np.random.Generator) -> Drawn:
    """Return a random network."""
    shape, layers = plan(rng, KINDS)
    options: dict[str, Any] = {"dt": 1e-3, "one": False, "bias": False, "rec": False}
    if rng.random() > 0.5:
        options["dt"] = float(rng.choice([1e-3, 5e-4, 2e-3]))
        options["one"] = bool(rng.random() < 0.5)
        options["bias"], options["rec"] = bool(rng.random() < 0.15), bool(rng.random() < 0.15)
    options["parameters"] = str(rng.choice(["by neuron", "one value"], p=[0.7, 0.3]))
    modules, weights, words, spiking, kinds = [], [], [], [], []
    for index, (kind, given) in enumerate(layers):
        if kind == "neuron":
            word, module = _neuron(rng, given["shape"][0], options, index == len(layers) - 1)
            kinds.append(word)
            spiking.append(module)
        else:
            word, module = (
                "Linear" + ("" if given["bias"] else " no bias"),
                _linear(rng, *given["size"], given["bias"]),
            )
            weights.append(module)
        modules.append(module)
        words.append(word)
    for layer in modules:  # rockpool draws in float32 and keeps what it is given
        for name, value in list(layer.named_parameters()):
            # Its spikes are float32, and meet recurrent weights as they are.
            getattr(layer, name).data = value.data.float() if name == "w_rec" else value.data.double()
    whole = Sequential(*modules)
    names = [name for name, _ in whole.named_children()]
    neurons = OrderedDict((n, m) for n, m in zip(names, modules, strict=True) if m in spiking)
    readouts = tuple(n for n, kind in zip(neurons, kinds, strict=True) if kind == "ExpSynTorch")
    inputs = data(rng, shape)

    def run(x: Any) -> None:
        whole.reset_state()
        for layer in modules:
            for state in ("vmem", "isyn"):
                if hasattr(layer, state):
                    setattr(layer, state, getattr(layer, state).double())
        whole(x.double())

    def export() -> Any:
        whole.reset_state()
        return to_nir(whole, torch.as_tensor(inputs[:1, 0]))

    truth: dict[str, Any] = {"spikes_per_step": "one"} if options["one"] else {}
    truth |= {"bias": "there is one"} if options["bias"] else {}
    truth |= {"w_rec": "there are some"} if options["rec"] and "LIFTorch" in kinds else {}
    return Drawn(inputs, weights, neurons, run, export, truth, words, readouts, "batch_time", options)
