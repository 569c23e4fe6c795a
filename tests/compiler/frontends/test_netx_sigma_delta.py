"""lava-dl's `.net` files of sigma-delta neurons, self-made, against their integers stepped by hand.

The simulation here is written from lava-dl's equations and knows nothing of the compiler.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.netx_files import write as write_net

from snn_compile.compiler import lower
from snn_compile.compiler.pipeline import compile_graph, compile_stages
from snn_compile.compiler.reference import run_reference
from snn_compile.targets.devices.device import execute
from snn_compile.targets.errors import CompileError, DoesNotFit, UnsupportedNode

needs_lava = pytest.mark.skipif(
    importlib.util.find_spec("lava.magma") is None, reason="lava-nc is not installed"
)
LAVA = [pytest.param(name, marks=needs_lava) for name in ("lava-stepped", "lava")]
STEPS = 25

Layer = dict[str, Any]
Writer = Callable[[Path, list[Layer]], Path]


def sdnn(threshold: int = 20, **more: Any) -> Layer:
    return {"type": "SDNN", "activation": "relu", "vThMant": threshold, **more}


def encoder(shape: list[int], threshold: int = 9, **more: Any) -> Layer:
    return {"type": "input", "shape": shape, "neuron": sdnn(threshold)} | more


def dense(rng: np.random.Generator, inputs: int, outputs: int, **more: Any) -> Layer:
    weight = 2 * rng.integers(-20, 30, (outputs, inputs))
    layer = {"type": "dense", "shape": [outputs, 1, 1], "inFeatures": inputs, "outFeatures": outputs}
    return layer | {"weight": weight.astype(np.float32), "neuron": sdnn()} | more


def conv(rng: np.random.Generator, shape: list[int], kernel: tuple[int, ...], **more: Any) -> Layer:
    layer = {"type": "conv", "shape": shape, "stride": [1, 1], "padding": [0, 0], "dilation": [1, 1]}
    weight = 2 * rng.integers(-20, 30, kernel)
    return layer | {"groups": 1, "weight": weight.astype(np.float32), "neuron": sdnn()} | more


def correlate(layer: Layer, x: np.ndarray) -> np.ndarray:
    """Return the weighted input of a plain convolution, (steps, channels, height, width)."""
    weight = np.asarray(layer["weight"], np.int64)
    total = np.zeros((len(x), *layer["shape"]), np.int64)
    for y, z in np.ndindex(*layer["shape"][1:]):
        window = x[:, :, y : y + weight.shape[2], z : z + weight.shape[3]]
        total[:, :, y, z] = np.einsum("tchw,ochw->to", window, weight)
    return total


def changes(activation: np.ndarray, threshold: int, whole: bool) -> np.ndarray:
    """Return the messages of a delta unit: what has changed by the threshold, as a multiple of 64.

    `whole`: the chip's messages, floored to whole numbers.
    """
    act = residue = np.zeros(activation.shape[1:])
    sent = np.zeros_like(activation)
    for t, now in enumerate(activation):
        d = now - act + residue
        sent[t] = np.where(abs(d) >= threshold << 12, d, 0)
        residue, act = d - sent[t], now
    return np.floor(sent / 64).astype(np.int64) if whole else sent / 64


def by_hand(
    layers: list[Layer], x: np.ndarray, whole: bool = True
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return messages and activations of each layer, (steps, *shape)."""
    messages, states = {}, {}
    for index, layer in enumerate(layers):
        name = f"{layer['type']}{index}"
        if layer["type"] == "flatten":
            x = x.reshape(len(x), -1)
            continue
        if layer["type"] == "input":
            if "neuron" not in layer:
                continue
            states[name] = (int(layer.get("weight", 64)) * x + int(layer.get("bias", 0))) * 4096
        else:
            if layer["type"] == "conv":
                total = correlate(layer, x)
            else:
                total = x.reshape(len(x), -1) @ np.asarray(layer["weight"], np.int64).T
            total = np.cumsum(total, axis=0)
            bias = np.asarray(layer.get("bias", 0), np.int64)
            bias = bias.reshape(-1, *[1] * (total.ndim - 2)) if bias.size > 1 else bias
            summed = "sigma_output" in layer["neuron"]
            states[name] = total if summed else np.maximum(total + bias * 4096, 0)
        threshold = layer["neuron"]["vThMant"]
        messages[name] = (
            states[name] if "sigma_output" in layer["neuron"] else changes(states[name], threshold, whole)
        )
        x = messages[name]
        for channel, late in enumerate(layer.get("delay", ())):
            x = x.copy()
            x[:, channel] = np.concatenate([np.zeros_like(x[:late, channel]), x[: len(x) - late, channel]])
    return messages, states


def networks() -> dict[str, list[Layer]]:
    rng = np.random.default_rng(11)
    image = encoder([2, 6, 7])
    return {
        "dense": [
            encoder([8], weight=37.0),
            dense(rng, 8, 6, bias=rng.integers(-30, 60, 6)),
            dense(rng, 6, 5, neuron=sdnn(3), bias=[5, 0, -9, 64, 1]),
            dense(rng, 5, 3, neuron=sdnn(sigma_output=True)),
        ],
        "a convolution and a biased encoder": [
            image | {"weight": 40.0, "bias": 36.0},
            conv(rng, [3, 4, 5], (3, 2, 3, 3), bias=np.array([-60, 64, 5])),
            {"type": "flatten", "shape": [60, 1, 1]},
            dense(rng, 60, 4, neuron=sdnn(200)),
        ],
        "delays": [
            encoder([5], weight=37.0),
            dense(rng, 5, 4, delay=[0, 3, 1, 7], bias=[9, 9, 0, 30]),
            dense(rng, 4, 2, neuron=sdnn(0)),
        ],
        "without an encoder": [
            {"type": "input", "shape": [6]},
            dense(rng, 6, 4, weight=2 * rng.integers(0, 90, (4, 6)), neuron=sdnn(0), bias=[1, -1, 0, 2]),
            dense(rng, 4, 3, neuron=sdnn(0, sigma_output=True)),
        ],
    }


def inputs_for(layers: list[Layer]) -> np.ndarray:
    """Return inputs that change here and there, 0 or 1."""
    rng = np.random.default_rng(1)
    flips = rng.random((2, STEPS, *layers[0]["shape"])) < 0.15
    return np.asarray(np.cumsum(flips, axis=1) % 2)


@pytest.mark.parametrize("device", ["oracle", "loihi2-sim", *LAVA])
@pytest.mark.parametrize("case", networks())
def test_every_layer_steps_as_its_integers_do(tmp_path: Path, case: str, device: str) -> None:
    layers = networks()[case]
    program = compile_graph(write_net(tmp_path / "a.net", layers))
    data = inputs_for(layers)
    names = [p.name for p in program.populations if not p.name.endswith(".bias")]
    probes = [f"{n}.{program.population(n).kind.membrane}" for n in names]
    record = execute(program, data, device, record=names, probes=probes)
    for sample, x in enumerate(data):
        messages, states = by_hand(layers, x)
        assert set(messages) == set(names)
        for name, probe in zip(names, probes, strict=True):
            shape = messages[name].shape
            assert np.array_equal(record.states(probe)[sample].reshape(shape), states[name]), name
            assert np.array_equal(record.spikes(name)[sample].reshape(shape), messages[name]), name
            assert record.spikes(name)[sample].any() and not (name != names[-1] and messages[name].all())
    last = np.array([by_hand(layers, x)[1][names[-1]] for x in data])
    assert np.array_equal(record.outputs.reshape(last.shape), last)
    assert record.counts is not None and record.counts.graded_synops > 0
    assert not any(record.overflows.values())


def test_real_inputs_are_encoded_as_whole_numbers(tmp_path: Path, rng: np.random.Generator) -> None:
    layers = networks()["dense"]
    data = rng.integers(0, 256, (2, STEPS, 8)) / 256
    program = compile_graph(write_net(tmp_path / "a.net", layers), calibration=data)
    record = execute(program, data, record=["input0"], probes=["dense3.sigma"])
    layers[0]["weight"] = 1
    for sample, x in enumerate(data):
        messages, states = by_hand(layers, np.floor(37 * x).astype(np.int64))
        assert np.array_equal(record.spikes("input0")[sample], messages["input0"])
        assert np.array_equal(record.states("dense3.sigma")[sample], states["dense3"])


@pytest.mark.parametrize("case", networks())
def test_the_float_reference_steps_the_same_without_cutting_messages(tmp_path: Path, case: str) -> None:
    """All numbers are small multiples of powers of two, so that float64 holds them."""
    layers = networks()[case]
    network, data = lower(write_net(tmp_path / "a.net", layers)), inputs_for(layers)
    names = [p.name for p in network.populations]
    record = run_reference(network, data, record=names, probes=[f"{name}.v" for name in names])
    cut = 0
    for sample, x in enumerate(data):
        messages, states = by_hand(layers, x, whole=False)
        for name in names:
            shape = messages[name].shape
            assert np.array_equal(record.states(f"{name}.v")[sample].reshape(shape) * 4096, states[name])
            # What sums send is their state.
            units = 4096 if name == names[-1] and "sigma_output" in layers[-1]["neuron"] else 64
            assert np.array_equal(record.spikes(name)[sample].reshape(shape) * units, messages[name])
            cut += not np.array_equal(messages[name], by_hand(layers, x)[0][name])
    assert cut > 0


def test_nothing_is_rounded(tmp_path: Path) -> None:
    done = compile_stages(write_net(tmp_path / "a.net", networks()["dense"]), stop_after="quantize")
    assert done.quantized is not None and not any(error.max_lsb for error in done.quantized.errors)
    assert not done.quantized.warnings


def test_what_has_no_certain_meaning_is_refused_by_name(tmp_path: Path, rng: np.random.Generator) -> None:
    path = tmp_path / "a.net"
    cuba = {"type": "CUBA", "iDecay": 4096, "vDecay": 1024, "vThMant": 25, "refDelay": 1}
    sums, mean = sdnn(sigma_output=True), {"type": "average", "shape": [1, 1, 1]}
    for layers, text in (
        ([encoder([3]), dense(rng, 3, 2, neuron=sdnn(activation="tanh"))], "layer/1/neuron: .*'tanh'"),
        ([encoder([3]), dense(rng, 3, 2, neuron=sdnn(refDelay=1))], "layer/1/neuron: .*'refDelay'"),
        ([encoder([3]), dense(rng, 3, 2, neuron=sdnn(gradedSpike=0))], "layer/1/neuron: gradedSpike 0"),
        ([encoder([3]), dense(rng, 3, 2, neuron=sdnn([3, 4]))], "layer/1/neuron: 'vThMant' differs"),
        ([encoder([3]), dense(rng, 3, 2, neuron=cuba)], "layer/1: sigma-delta neurons before others"),
        (
            [dense(rng, 3, 2, neuron=cuba), dense(rng, 2, 2)],
            "layer/1: other neurons before sigma-delta neurons",
        ),
        ([encoder([3]), dense(rng, 3, 2, neuron=sums), dense(rng, 2, 2)], "layer/1: .*can only be the last"),
        ([encoder([3]), dense(rng, 3, 2, neuron=sums, bias=[1, 2])], "layer/1: a bias of neurons"),
        ([encoder([3]), dense(rng, 3, 2, delay=[0, 2])], "layer/1: axonal delays of a last"),
        ([encoder([3]), dense(rng, 3, 2), mean], "layer/2: .*before others"),
    ):
        with pytest.raises(UnsupportedNode, match=text):
            lower(write_net(path, layers))
    with pytest.raises(DoesNotFit, match=r"'dense1': bias \* 2\*\*12 spans"):
        compile_graph(write_net(path, [encoder([3]), dense(rng, 3, 2, bias=[2048, 0])]))
    with pytest.raises(CompileError, match="relays cannot repeat"):
        compile_graph(write_net(path, [encoder([3]), dense(rng, 3, 2, delay=[0, 90]), dense(rng, 2, 2)]))
