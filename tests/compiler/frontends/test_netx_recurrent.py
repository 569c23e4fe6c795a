"""Recurrent layers, delays per synapse and neurons that never spike in `.net` files, stepped by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.netx_files import write

from snn_compile import runtime
from snn_compile.compiler import lower
from snn_compile.compiler.cli.main import main
from snn_compile.compiler.pipeline import compile_graph
from snn_compile.runtime.cli.main import main as run
from snn_compile.targets.devices.device import execute
from snn_compile.targets.errors import AmbiguousConvention, CompileError, UnsupportedNode

STEPS = 40

Layer = dict[str, Any]


def drawn(rng: np.random.Generator) -> list[Layer]:
    """Return two or three layers, recurrent or not, with delays per axon, per synapse or none."""
    sizes = rng.integers(2, 8, int(rng.integers(3, 5)))
    layers = []
    for before, size in zip(sizes[:-1], sizes[1:], strict=True):
        recurrent = bool(rng.random() < 0.7)
        cell: Layer = {"type": "CUBA", "iDecay": int(rng.integers(1, 4097)), "refDelay": 1}
        cell |= {"vDecay": int(rng.integers(0, 4097)), "vThMant": rng.integers(10, 60, size)}
        if rng.random() < 0.3:
            cell["vThMant"][: size // 2] = -1
        layer: Layer = {"type": "dense_rec" if recurrent else "dense", "shape": [size, 1, 1], "neuron": cell}
        layer |= {"weight": 2 * rng.integers(-25, 50, (size, before)), "bias": rng.integers(-3, 9, size)}
        if recurrent:
            layer["weight_rec"] = 2 * rng.integers(-40, 40, (size, size))
        kind = rng.integers(0, 3)
        if kind == 1:
            layer["delay"] = rng.integers(0, 7, size)
        if kind == 2 and before > 1 and (not recurrent or size == before):
            layer["delay"] = rng.integers(0, 7, (size, before))
        layers.append(layer)
    layers[-1]["neuron"]["vThMant"] = np.abs(layers[-1]["neuron"]["vThMant"])
    return layers


def arrived(spikes: np.ndarray, weight: np.ndarray, delays: np.ndarray, t: int) -> np.ndarray:
    """Return the weighted spikes (steps, sources) that arrive at step t, `delays` per synapse."""
    total = np.zeros(len(weight), np.int64)
    for (target, source), w in np.ndenumerate(weight):
        if t >= delays[target, source]:
            total[target] += w * spikes[t - delays[target, source], source]
    return total


def by_hand(layers: list[Layer], x: np.ndarray, shift: int = 0) -> list[np.ndarray]:
    """Return the spikes of each layer before their axonal delays and before `shift`, (steps, size)."""
    found, axonal = [], np.zeros(x.shape[1], np.int64)
    for layer in layers:
        weight, cell = layer["weight"], layer["neuron"]
        own = np.asarray(layer.get("delay", 0))
        per_synapse = own if own.ndim == 2 else np.zeros_like(weight)
        spikes = np.zeros((len(x), len(weight)), np.int64)
        u = v = np.zeros(len(weight), np.int64)
        for t in range(len(x)):
            total = arrived(x, weight, per_synapse + axonal, t)
            if "weight_rec" in layer:
                back = per_synapse if own.ndim == 2 else np.zeros_like(layer["weight_rec"])
                total = total + arrived(spikes, layer["weight_rec"], back + 1, t)
            u = np.trunc(u * (4096 - cell["iDecay"]) / 4096).astype(np.int64) + 64 * total
            v = np.trunc(v * (4096 - cell["vDecay"]) / 4096).astype(np.int64) + u + 64 * layer["bias"]
            spikes[t] = (v > 64 * cell["vThMant"]) & (np.asarray(cell["vThMant"]) >= 0)
            v = np.where(spikes[t], 0, v)
        found.append(spikes)
        x, axonal = spikes, shift + (own if own.ndim == 1 else np.zeros(len(weight), np.int64))
    return found


@pytest.mark.parametrize("device", ["oracle", "loihi2-sim"])
def test_layers_step_as_by_hand(tmp_path: Path, device: str) -> None:
    kinds = {"recurrent": 0, "per synapse": 0, "silent": 0}
    for seed in range(12 if device == "oracle" else 40):
        rng = np.random.default_rng(seed)
        layers = drawn(rng)
        data = (rng.random((2, STEPS, layers[0]["weight"].shape[1])) < 0.3).astype(np.int64)
        network = lower(write(tmp_path / "a.net", layers))
        names = [f"{layer['type']}{i}" for i, layer in enumerate(layers)]
        ideal = runtime.reference(network, data, record=names)
        record = execute(compile_graph(network), data, device, record=names)
        for sample, x in enumerate(data):
            for name, wanted in zip(names, by_hand(layers, x), strict=True):
                assert np.array_equal(ideal.spikes(name)[sample], wanted), (seed, name)
                assert np.array_equal(record.spikes(name)[sample], wanted), (seed, name)
        kinds["recurrent"] += any("weight_rec" in layer for layer in layers)
        kinds["per synapse"] += any(np.ndim(layer.get("delay", 0)) == 2 for layer in layers)
        kinds["silent"] += any((layer["neuron"]["vThMant"] < 0).any() for layer in layers)
        assert record.spikes(names[0]).any() or (layers[0]["neuron"]["vThMant"] < 0).all(), seed
    assert min(kinds.values()) >= 3, kinds


def test_delay_shift_lets_biases_act_from_the_first_step(tmp_path: Path) -> None:
    apart = 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        layers = drawn(rng)
        for layer in layers:
            layer["bias"] = layer["bias"] + 5
        data = (rng.random((2, STEPS, layers[0]["weight"].shape[1])) < 0.3).astype(np.int64)
        path = write(tmp_path / "a.net", layers)
        names = [f"{layer['type']}{i}" for i, layer in enumerate(layers)]
        assumed, stated = lower(path), lower(path, {"delay_shift": 1})
        assert assumed.assumed == {"delay_shift": 0} and not stated.assumed
        assert "--convention delay_shift=1" in assumed.assumptions[0].text
        assert lower(path, {"delay_shift": 0}).digest() != stated.digest()
        record = execute(compile_graph(stated), data, record=names)
        for sample, x in enumerate(data):
            for name, wanted in zip(names, by_hand(layers, x, 1), strict=True):
                assert np.array_equal(record.spikes(name)[sample], wanted), (seed, name)
            apart += not np.array_equal(by_hand(layers, x)[-1][:-2], by_hand(layers, x, 1)[-1][2:])
    assert apart > 3
    with pytest.raises(AmbiguousConvention, match="delay_shift"):
        lower(path, strict=True)
    with pytest.raises(CompileError, match="delay_shift is 2; it is 0 or 1"):
        lower(path, {"delay_shift": 2})
    with pytest.raises(CompileError, match="conventions dt"):
        lower(path, {"delay_shift": 1, "dt": 1.0})


def test_the_commands_state_delay_shift_and_say_what_is_assumed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(1)
    layers = drawn(rng)
    for layer in layers:
        layer["bias"] = layer["bias"] + 5
    path, out, data = write(tmp_path / "a.net", layers), tmp_path / "a.snn", tmp_path / "a.npz"
    np.savez(data, inputs=(rng.random((2, STEPS, layers[0]["weight"].shape[1])) < 0.3).astype(float))
    assert main([str(path), "-o", str(out)]) == 0 and "assumed delay_shift=0" in capsys.readouterr().err
    assert main(["inspect", str(path)]) == 0 and "assumed delay_shift=0" in capsys.readouterr().out
    assert main([str(path), "--strict"]) == 1 and "delay_shift" in capsys.readouterr().err
    stated = ["--convention", "delay_shift=1"]
    assert main([str(path), *stated, "--strict", "-o", str(out)]) == 0
    assert main(["inspect", str(path), *stated]) == 0
    assert "assumed" not in "".join(capsys.readouterr())
    assert run([str(out), "--data", str(data), "--against", str(path), *stated]) == 0
    assert "is not the network" not in capsys.readouterr().err
    assert run([str(out), "--data", str(data), "--against", str(path)]) == 0
    assert "is not the network" in capsys.readouterr().err


def test_a_delay_of_one_column_is_axonal(tmp_path: Path) -> None:
    cell = {"type": "CUBA", "iDecay": 4096, "vDecay": 4096, "vThMant": 9, "refDelay": 1}
    first = {"type": "dense", "shape": [3], "weight": np.full((3, 1), 20), "neuron": cell}
    last = {"type": "dense", "shape": [2], "weight": np.full((2, 3), 20), "neuron": cell}
    network = lower(write(tmp_path / "a.net", [first | {"delay": np.array([[1], [0], [2]])}, last]))
    assert sorted(e.delay_steps for e in network.projections) == [0, 0, 1, 2]


def test_recurrent_layers_without_a_certain_meaning_are_refused(tmp_path: Path) -> None:
    cell = {"type": "CUBA", "iDecay": 4096, "vDecay": 4096, "vThMant": 9, "refDelay": 1}
    layer = {"type": "dense_rec", "shape": [3], "weight": np.ones((3, 2)), "weight_rec": np.ones((3, 3))}
    change = {"type": "SDNN", "activation": "relu", "vThMant": 3}
    with pytest.raises(UnsupportedNode, match="layer/0: sigma-delta neurons that connect to themselves"):
        lower(write(tmp_path / "a.net", [layer | {"neuron": change}]))
    with pytest.raises(CompileError, match="'delay' has shape"):
        lower(write(tmp_path / "a.net", [layer | {"neuron": cell, "delay": np.ones((3, 2))}]))


BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "delays of fewer sources": ({"delay": np.ones((3, 1, 2))}, "layer/1: 'delay' has shape .3, 1, 2."),
    "delays of other synapses": ({"delay": np.ones((3, 3))}, "layer/1: 'delay' has shape .3, 3."),
    "transposed delays": ({"delay": np.ones((2, 3))}, "layer/1: 'delay' has shape .2, 3."),
    "a negative delay of a synapse": ({"delay": [[0, 1], [2, -1], [0, 0]]}, "layer/1: 'delay' spans -1"),
    "half a step": ({"delay": [[0, 1], [2, 0.5], [0, 0]]}, r"layer/1: 'delay' holds 0.5 at .1, 1."),
    "no number of steps": ({"delay": [[0, 1], [2, np.nan], [0, 0]]}, r"layer/1: 'delay' holds nan"),
    "a delay without end": ({"delay": [[0, 1], [2, 1e6], [0, 0]]}, r"layer/1: 'delay' spans .*1023"),
    "no feedback": ({"weight_rec": None}, "layer/1: 'weight_rec' is missing"),
    "feedback that is not square": ({"weight_rec": np.ones((3, 2))}, r"of shape .3, 2.; 3 neurons"),
    "feedback of other neurons": ({"weight_rec": np.ones((4, 4))}, r"of shape .4, 4.; 3"),
    "feedback of rank 3": ({"weight_rec": np.ones((3, 3, 2))}, r"layer/1: .*'weight_rec' of shape .3, 3, 2."),
    "feedback of a fraction": ({"weight_rec": np.full((3, 3), 0.5)}, "layer/1: 'weight_rec' holds 0.5"),
    "feedback of nine bits": ({"weight_rec": np.full((3, 3), 300)}, "layer/1: 'weight_rec' spans 300"),
    "feedback of NaN": ({"weight_rec": np.full((3, 3), np.nan)}, "layer/1: 'weight_rec' holds nan"),
    "feedback that is text": ({"weight_rec": "much"}, "layer/1: 'weight_rec' is object"),
    "a recurrent layer without neurons": ({"neuron": None}, "layer/1: 'neuron' is missing"),
    "a recurrent refractory time": ({"neuron": {"refDelay": 2}}, "layer/1/neuron: refDelay 2 is not"),
    "a threshold of -2": ({"neuron": {"vThMant": -2}}, "layer/1/neuron: 'vThMant' spans -2"),
    "another number of inputs": ({"inFeatures": 4}, "layer/1: 'inFeatures' is 4"),
    "a recurrent kernel": ({"kernelSize": [1, 1]}, "layer/1: .*'kernelSize'"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_recurrent_layer_is_one_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    change, text = BROKEN[case]
    cell = {"type": "CUBA", "iDecay": 4096, "vDecay": 4096, "vThMant": 9, "refDelay": 1}
    layer: Layer = {
        "type": "dense_rec",
        "shape": [3],
        "weight": np.ones((3, 2)),
        "weight_rec": np.ones((3, 3)),
    }
    changed = layer | {"neuron": cell} | change
    if change.get("neuron"):
        changed["neuron"] = cell | change["neuron"]
    kept = {key: value for key, value in changed.items() if value is not None}
    path = write(tmp_path / "a.net", [{"type": "input", "shape": [2]}, kept])
    with pytest.raises(CompileError, match=text) as caught:
        lower(path)
    assert str(caught.value).startswith(str(path)) and len(str(caught.value)) < 400
    assert main([str(path)]) == 1
    assert capsys.readouterr().err.count("\n") == 1
