"""lava-dl's `.net` files, self-made, against their integers stepped by hand.

The simulation here is written from lava-dl's equations and knows nothing of the compiler.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.netx_files import write as write_net

from snn_compile.compiler import lower
from snn_compile.compiler.cli.main import main
from snn_compile.compiler.pipeline import Options, compile_graph, compile_stages
from snn_compile.targets.devices.device import execute
from snn_compile.targets.errors import CompileError, PrecisionLost, UnsupportedNode

needs_lava = pytest.mark.skipif(
    importlib.util.find_spec("lava.magma") is None, reason="lava-nc is not installed"
)
DEVICES = ["oracle", "loihi2-sim", pytest.param("lava-stepped", marks=needs_lava)]
STEPS = 30

Layer = dict[str, Any]
Writer = Callable[[Path, list[Layer]], Path]


def neuron(i: Any = 4096, v: Any = 1024, threshold: int = 25, kind: str = "CUBA", **more: Any) -> Layer:
    return {"type": kind, "iDecay": i, "vDecay": v, "vThMant": threshold, "refDelay": 1, **more}


def dense(rng: np.random.Generator, inputs: int, outputs: int, odd: bool = False, **more: Any) -> Layer:
    weight = rng.integers(-40, 60, (outputs, inputs)) * (1 if odd else 2)
    layer = {"type": "dense", "shape": [outputs, 1, 1], "inFeatures": inputs, "outFeatures": outputs}
    return layer | {"weight": weight.astype(np.float32), "neuron": neuron()} | more


def conv(rng: np.random.Generator, shape: tuple[int, ...], kernel: tuple[int, ...], **more: Any) -> Layer:
    layer: Layer = {"type": "conv", "shape": shape, "stride": [1, 1], "padding": [0, 0], "dilation": [1, 1]}
    weight = rng.integers(-20, 30, kernel)
    sizes = {"groups": 1, "outChannels": kernel[0], "kernelSize": kernel[2:]}
    return layer | sizes | {"weight": weight.astype(np.float32), "neuron": neuron()} | more


def correlate(layer: Layer, x: np.ndarray) -> np.ndarray:
    """Return the weighted input of a convolution, (steps, channels, height, width)."""
    weight, out = np.asarray(layer["weight"], np.int64), tuple(layer["shape"])
    (sy, sx), (py, px), (dy, dx) = layer["stride"], layer["padding"], layer["dilation"]
    wide = np.pad(x, ((0, 0), (0, 0), (py, py), (px, px)))
    total = np.zeros((len(x), *out), np.int64)
    for o, c, ky, kx in np.ndindex(weight.shape):
        source = o // (weight.shape[0] // layer["groups"]) * weight.shape[1] + c
        rows, columns = ky * dy + sy * np.arange(out[1]), kx * dx + sx * np.arange(out[2])
        total[:, o] += weight[o, c, ky, kx] * wide[:, source][:, rows][:, :, columns]
    return total


def pooled(layer: Layer, x: np.ndarray) -> np.ndarray:
    channels, height, width = layer["shape"]
    kernel = np.asarray(layer["weight"], np.int64)[0, 0]
    k, out = kernel.shape[0], np.zeros((len(x), channels, height, width), np.int64)
    wide = np.pad(x, ((0, 0), (0, 0), (0, x.shape[2] % k), (0, x.shape[3] % k)))
    for y, z in np.ndindex(height, width):
        out[:, :, y, z] = (wide[:, :, k * y : k * y + k, k * z : k * z + k] * kernel).sum(axis=(2, 3))
    return out


def stepped(layer: Layer, total: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Step a layer's neurons; return spikes and membranes, (steps, *shape)."""
    cell, bias = layer["neuron"], np.asarray(layer.get("bias", 0), np.int64)

    def column(value: Any) -> np.ndarray:
        array = np.asarray(value, np.int64)
        return array.reshape(-1, *([1] * (total.ndim - 2))) if array.size > 1 else array

    u = v = np.zeros(total.shape[1:], np.int64)
    spikes, states = np.zeros_like(total), np.zeros_like(total)
    for t, x in enumerate(total):
        u = np.trunc(u * (4096 - column(cell["iDecay"])) / 4096).astype(np.int64) + 64 * x
        v = np.trunc(v * (4096 - column(cell["vDecay"])) / 4096).astype(np.int64) + u + 64 * column(bias)
        spikes[t] = v > 64 * cell["vThMant"]
        v = np.where(spikes[t], 0, v)
        states[t] = v
    return spikes, states


def late(layer: Layer, spikes: np.ndarray) -> np.ndarray:
    """Return spikes after the axonal delays of their neurons, or of their channels."""
    out = np.zeros_like(spikes)
    delays = np.broadcast_to(np.asarray(layer.get("delay", 0), np.int64), spikes.shape[1:2])
    for channel, delay in enumerate(delays):
        out[delay:, channel] = spikes[: len(spikes) - delay, channel]
    return out


def by_hand(layers: list[Layer], x: np.ndarray) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return spikes and membranes of each layer with neurons."""
    spikes, states = {}, {}
    for index, layer in enumerate(layers):
        kind = layer["type"]
        if kind == "flatten":
            x = x.reshape(len(x), -1)
        if kind == "flatten" or (kind == "input" and "neuron" not in layer):
            continue
        if kind == "input":
            total = x * int(layer.get("weight", 64))
        elif kind == "dense":
            total = x.reshape(len(x), -1) @ np.asarray(layer["weight"], np.int64).T
        else:
            total = {"conv": correlate, "pool": pooled}[kind](layer, x)
        name = f"{kind}{index}"
        spikes[name], states[name] = stepped(layer, total)
        x = late(layer, spikes[name])
    return spikes, states


def networks() -> dict[str, list[Layer]]:
    rng = np.random.default_rng(5)
    image = {"type": "input", "shape": [2, 7, 9]}
    quick, slow = neuron(1024, 300, 30, "LOIHI"), neuron(4096, 0, 90)
    return {
        "dense": [
            {"type": "input", "shape": [8]},
            dense(rng, 8, 6, bias=rng.integers(-9, 20, 6), neuron=quick),
            dense(rng, 6, 5, odd=True, bias=np.float32([0, 3, -64, 64, 1]), neuron=slow),
        ],
        "without an input layer": [dense(rng, 8, 3, odd=True), dense(rng, 3, 2, neuron=neuron(1, 4096, 0))],
        "large odd weights of both signs": [
            {"type": "input", "shape": [4]},
            {**dense(rng, 4, 2), "weight": [[255, -255, 1, 9], [-7, 3, 129, 0]]},
        ],
        "encoder": [
            {
                "type": "input",
                "shape": [2, 7, 9],
                "weight": 40.0,
                "bias": 36.0,
                "neuron": neuron(threshold=90),
            },
            conv(rng, (3, 5, 8), (3, 2, 3, 2), bias=np.array([-60, 64, 5])),
        ],
        "convolutions": [
            image,
            conv(rng, (4, 4, 7), (4, 1, 3, 2), stride=[2, 1], padding=[1, 0], dilation=[1, 2], groups=2),
            conv(rng, (6, 2, 9), (6, 4, 2, 3), stride=[2, 1], padding=[0, 2], neuron=quick, bias=[1] * 6),
            {"type": "flatten", "shape": [108, 1, 1]},
            dense(
                rng, 108, 7, neuron=neuron([512, 700, 4096, 1, 9, 2048, 77], [0, 1, 2, 3, 4096, 5, 6], 2500)
            ),
        ],
        "pools": [
            image,
            {"type": "pool", "shape": [2, 4, 5], "kernelSize": [2, 2], "stride": [2, 2], "padding": [0, 0]}
            | {"dilation": [1, 1], "weight": np.full((1, 1, 2, 2), 64.0), "neuron": neuron(threshold=70)},
            {"type": "flatten", "shape": [40, 1, 1]},
            dense(rng, 40, 4),
        ],
        "delays": [
            image,
            conv(rng, (3, 4, 7), (3, 2, 4, 3), delay=[0.0, 5.0, 2.0]),
            {"type": "flatten", "shape": [84, 1, 1]},
            dense(rng, 84, 5, delay=[3, 0, 0, 11, 3], neuron=neuron(threshold=400)),
            dense(rng, 5, 4, bias=[9, 0, 1, 0]),
        ],
        "delays longer than the chip has": [
            {"type": "input", "shape": [8]},
            dense(rng, 8, 3, delay=[0, 63, 150]),
            dense(rng, 3, 2, neuron=neuron(threshold=9)),
        ],
    }


def inputs_for(layers: list[Layer], steps: int = STEPS) -> np.ndarray:
    shape = layers[0]["shape"] if layers[0]["type"] == "input" else (layers[0]["inFeatures"],)
    return (np.random.default_rng(1).random((2, steps, *shape)) < 0.4).astype(np.int64)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("case", networks())
def test_every_layer_steps_as_its_integers_do(tmp_path: Path, case: str, device: str) -> None:
    layers = networks()[case]
    program = compile_graph(write_net(tmp_path / "a.net", layers))
    data = inputs_for(layers, 200 if "longer" in case else STEPS)
    names = [p.name for p in program.populations if "relay" not in p.name]
    record = execute(program, data, device, record=names, probes=[f"{n}.v" for n in names])
    for sample, x in enumerate(data):
        spikes, states = by_hand(layers, x)
        assert set(spikes) == set(names)
        for name in names:
            shape = spikes[name].shape
            assert np.array_equal(record.spikes(name)[sample].reshape(shape), spikes[name]), name
            assert np.array_equal(record.states(f"{name}.v")[sample].reshape(shape), states[name]), name
    assert all(record.spikes(name).any() and not record.spikes(name).all() for name in names)


@pytest.mark.parametrize("device", DEVICES)
def test_axonal_delays_of_the_last_layer(tmp_path: Path, rng: np.random.Generator, device: str) -> None:
    layers = [dense(rng, 6, 3, delay=[0, 7, 2])]
    program = compile_graph(write_net(tmp_path / "a.net", layers))
    data = inputs_for(layers)
    wanted = [late(layers[0], by_hand(layers, x)[0]["dense0"]) for x in data]
    assert np.array_equal(execute(program, data, device).outputs, np.array(wanted))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("last", ["threshold 2**17", "threshold 2**17 - 1", "no neuron"])
def test_last_layers_that_never_spike_are_read_at_the_membrane(
    tmp_path: Path, rng: np.random.Generator, last: str, device: str, caplog: pytest.LogCaptureFixture
) -> None:
    final = dense(rng, 5, 3, odd=True, bias=[4, 0, -9], neuron=neuron(4096, 0, (1 << 17) - ("-" in last)))
    layers = [dense(rng, 6, 5), final]
    if last == "no neuron":
        del final["neuron"]
    program = compile_graph(write_net(tmp_path / "a.net", layers))
    assert ("layer/1: no neuron in the file" in caplog.text) == (last == "no neuron")
    data = inputs_for(layers)
    found = execute(program, data, device).outputs
    port = program.outputs[0]
    assert (port.signal, port.readout, port.task) == ("membrane", "last", "classify")
    hidden = np.array([by_hand(layers[:1], x)[0]["dense0"] for x in data])
    total = np.cumsum(hidden @ final["weight"].astype(np.int64).T, axis=1)
    # What lava-dl's reader makes of a layer without a neuron adds the bias once.
    times = np.arange(1, STEPS + 1)[:, None] if "neuron" in final else 1
    assert np.array_equal(found, 64 * (total + times * np.array(final["bias"])))


@pytest.mark.parametrize("device", DEVICES)
def test_an_average_is_the_mean_of_groups(tmp_path: Path, rng: np.random.Generator, device: str) -> None:
    layers = [dense(rng, 6, 12), {"type": "average", "shape": [4, 1, 1]}]
    program = compile_graph(write_net(tmp_path / "a.net", layers))
    data = inputs_for(layers)
    hidden = np.array([by_hand(layers[:1], x)[0]["dense0"] for x in data])
    outputs = execute(program, data, device).outputs / program.populations[-1].scale
    assert np.allclose(outputs, hidden.reshape(2, STEPS, 4, 3).mean(axis=3))


@pytest.mark.parametrize("device", DEVICES)
def test_concat_joins_layers_and_every_connection_takes_a_step(
    tmp_path: Path, rng: np.random.Generator, device: str
) -> None:
    """Layer 2 receives layers 1, 0 and, backwards, 3; a connection takes a step, plus its delay."""
    first, last = dense(rng, 6, 4, bias=[3, 9, 1, 0], delay=[0, 2, 1, 0]), dense(rng, 5, 3)
    second, third = dense(rng, 4, 2, odd=True), dense(rng, 9, 5, odd=True)
    layers = [first, second, {"type": "concat", "shape": [9, 1, 1], "layers": [0, 4]}, third, last]
    program = compile_graph(write_net(tmp_path / "a.net", layers))
    data = inputs_for(layers)
    names = ["dense0", "dense1", "dense3", "dense4"]
    record = execute(program, data, device, record=names)
    x = {"input": data, **{name: record.spikes(name).astype(np.int64) for name in names}}
    x["dense0"] = np.array([late(first, s) for s in x["dense0"]])
    sources = {"dense0": ["input"], "dense1": ["dense0"], "dense4": ["dense3"]}
    sources["dense3"] = ["dense1", "dense0", "dense4"]
    assert program.latency_steps == 0
    for name, layer in zip(names, (first, second, third, last), strict=True):
        arrived = np.concatenate([np.roll(x[source], 1, axis=1) for source in sources[name]], axis=2)
        arrived[:, 0] = 0
        wanted = [stepped(layer, a @ layer["weight"].astype(np.int64).T)[0] for a in arrived]
        assert np.array_equal(record.spikes(name), wanted), name


def test_real_inputs_of_an_encoder_are_messages_and_weights_stay_exact(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    layers = networks()["encoder"]
    path = write_net(tmp_path / "a.net", layers)
    data = rng.integers(0, 256, (2, STEPS, 2, 7, 9)) / 256
    program = compile_graph(path, calibration=data)
    assert program.inputs[0].kind == "graded" and program.inputs[0].scale == 40 * 256
    record = execute(program, data, record=["input0"], probes=["conv1.v"])
    layers[0]["weight"] = 1  # the weighted message is cut to a whole number, as lava-dl's encoder does
    for sample, x in enumerate(data):
        spikes, states = by_hand(layers, np.floor(40 * x).astype(np.int64))
        assert np.array_equal(record.spikes("input0")[sample], spikes["input0"])
        assert np.array_equal(record.states("conv1.v")[sample], states["conv1"])


def test_nothing_is_rounded_and_weights_that_fewer_bits_cut_are_refused(tmp_path: Path) -> None:
    path = write_net(tmp_path / "a.net", networks()["convolutions"])
    done = compile_stages(path, stop_after="quantize")
    assert done.quantized is not None and not any(error.max_lsb for error in done.quantized.errors)
    assert not done.quantized.warnings
    with pytest.raises(PrecisionLost, match="input/conv1"):
        compile_graph(path, options=Options(weight_bits=4))
    with pytest.raises(CompileError, match="dt"):
        lower(path, {"dt": 1.0})


def test_the_command_compiles_and_inspects_a_net(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_net(tmp_path / "a.net", networks()["delays"])
    assert main([str(path), "--target", "loihi2-sim", "-o", str(tmp_path / "a.snn"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["fits"] is True
    assert main(["inspect", str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {"name": "conv1", "type": "lif", "shape": [3, 4, 7]} in found["nodes"] and not found["open"]
    assert main(["inspect", str(path)]) == 0
    assert "conv1" in capsys.readouterr().out
    assert main(["export", str(path), "-o", str(tmp_path / "a.nir")]) == 1
    assert "a.net" in capsys.readouterr().err


def test_layers_that_are_not_supported_are_refused_by_name(tmp_path: Path, rng: np.random.Generator) -> None:
    pool = networks()["pools"][1] | {"stride": [3, 2], "shape": [2, 3, 5]}
    with pytest.raises(UnsupportedNode, match="layer/1: its windows"):
        lower(write_net(tmp_path / "a.net", [{"type": "input", "shape": [2, 7, 9]}, pool]))
    average = {"type": "average", "shape": [2, 1, 1]}
    with pytest.raises(UnsupportedNode, match="layer/1: .*only be the last"):
        lower(write_net(tmp_path / "a.net", [dense(rng, 3, 4), average, dense(rng, 2, 2)]))
    encoder = {"type": "input", "shape": [3], "neuron": neuron(1000)}
    with pytest.raises(UnsupportedNode, match="layer/0: iDecay of an input neuron"):
        lower(write_net(tmp_path / "a.net", [encoder, dense(rng, 3, 2)]))
    with pytest.raises(CompileError, match="layer/0: there is no input layer"):
        lower(write_net(tmp_path / "a.net", [conv(rng, (3, 4, 7), (3, 2, 4, 3))]))
    assert prod(lower(write_net(tmp_path / "a.net", networks()["pools"])).inputs[0].shape) == 126
