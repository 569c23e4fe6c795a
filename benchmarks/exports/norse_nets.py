"""Norse: LIFBox, LIF, IAF and LIBox cells between dense layers and convolutions, in a SequentialState."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import norse.torch as norse
import numpy as np
import torch
from norse.torch.functional.reset import reset_subtract, reset_value
from norse.torch.utils.export_nir import to_nir

from exports.drawing import Drawn, Kinds, data, plan, start_weights, told, values, weight_layer

KINDS = Kinds(frozenset({"conv2d", "flatten"}))


def _cell(rng: np.random.Generator, shape: tuple[int, ...], options: dict[str, Any], last: bool) -> Any:
    size = (
        shape if options["parameters"] == "by neuron" else () if options["parameters"] == "scalar" else (1,)
    )
    kinds = ["LIFBoxCell", "LIFBoxCell", "LIFCell", "IAFCell"]
    kind = "LIBoxCell" if last and rng.random() < 0.15 else str(rng.choice(kinds))
    threshold = values(rng, 0.5, 1.0, size)
    leak = values(rng, -0.1, 0.3, size) if options["leak"] else torch.zeros(size, dtype=torch.float64)
    membrane, reset = values(rng, 60, 300, size), torch.full(size, options["v_reset"], dtype=torch.float64)
    time = {} if options["dt"] == 1e-3 else {"dt": options["dt"]}
    if kind == "IAFCell":
        return kind, norse.IAFCell(norse.IAFParameters(v_th=threshold, v_reset=reset), **time)
    if kind == "LIBoxCell":
        return kind, norse.LIBoxCell(norse.LIBoxParameters(tau_mem_inv=membrane, v_leak=leak), **time)
    given = {"tau_mem_inv": membrane, "v_leak": leak, "v_th": threshold, "v_reset": reset}
    if kind == "LIFCell":
        p = norse.LIFParameters(tau_syn_inv=values(rng, 100, 400, size), **given)
        return kind, norse.LIFCell(p, **time)
    method = {"value": reset_value, "subtract": reset_subtract}[options["reset"]]
    return kind, norse.LIFBoxCell(norse.LIFBoxParameters(reset_method=method, **given), **time)


def draw(rng: np.random.Generator) -> Drawn:
    """Return a random network."""
    shape, layers = plan(rng, KINDS)
    options: dict[str, Any] = {"dt": 1e-3, "reset": "value", "v_reset": 0.0, "leak": bool(rng.random() < 0.3)}
    if rng.random() > 0.6:
        options["dt"] = float(rng.choice([1e-3, 5e-4, 2e-3]))
        options["reset"] = str(rng.choice(["value", "subtract"]))
        options["v_reset"] = float(rng.choice([0.0, 0.0, 0.1]))
    options["parameters"] = str(rng.choice(["by neuron", "scalar", "one"], p=[0.5, 0.4, 0.1]))
    modules: list[Any] = []
    weights, neurons, words, truth, readouts = [], OrderedDict(), [], {}, []
    for index, (kind, given) in enumerate(layers):
        if kind == "neuron":
            word, module = _cell(rng, given["shape"], options, index == len(layers) - 1)
            neurons[str(index)] = module
            readouts += [str(index)] if word == "LIBoxCell" else []
            if word == "LIFBoxCell" and options["reset"] != "value":
                truth.setdefault("reset", {})[str(index)] = "subtract"
            if word != "LIBoxCell" and options["v_reset"]:
                truth.setdefault("v_reset", {})[str(index)] = options["v_reset"]
        elif kind == "flatten":
            word, module = "Flatten", torch.nn.Flatten()
        else:
            word, module = told(kind, given), weight_layer(kind, given)
            weights.append(module)
        modules.append(module)
        words.append(word)
    start_weights(rng, [module.double() for module in weights])
    whole = norse.SequentialState(*modules)
    inputs = data(rng, shape)

    def run(x: Any) -> None:
        state = None
        for t in range(x.shape[1]):
            _, state = whole(x[:, t], state)

    if any(word in ("LIFBoxCell", "LIFCell", "LIBoxCell") for word in words):
        truth["dt"] = options["dt"] * 1e-3
    return Drawn(
        inputs,
        weights,
        neurons,
        run,
        lambda: to_nir(whole, torch.as_tensor(inputs[:1, 0])),
        truth,
        words,
        tuple(readouts),
        options=options,
    )
