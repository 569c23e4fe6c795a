"""Exports that leave shapes open mean what their layers compute: random ones against plain numpy."""

from __future__ import annotations

from typing import Any

import h5py
import nir
import numpy as np
import pytest

from snn_compile import runtime
from snn_compile.compiler import compile_graph, lower
from snn_compile.compiler.cli.main import main
from snn_compile.targets.errors import CompileError

STEPS, SAMPLES = 12, 2
RULE = {"dt": 1.0, "rule": "euler", "reset": "subtract", "reset_timing": "same_step", "comparison": ">"}
PARAMETERS = ("tau", "tau_syn", "tau_mem", "r", "v_leak", "v_threshold", "v_reset", "w_in")


def neuron(rng: np.random.Generator, kind: type, shape: tuple[int, ...]) -> Any:
    """Return a neuron node with the same random parameters everywhere."""
    value = {"tau": rng.uniform(2, 6), "tau_syn": rng.uniform(2, 6), "tau_mem": rng.uniform(2, 6)}
    value |= {"r": rng.uniform(0.5, 2), "v_leak": 0.1, "v_threshold": rng.uniform(0.3, 1), "w_in": 1.5}
    if kind is nir.IF:
        value["r"] *= 0.3
    names = [key for key in value if key in kind.__dataclass_fields__]
    return kind(**{key: np.full(shape, value[key]) for key in names})


def step(node: Any, state: dict[str, Any], x: Any) -> Any:
    """Advance a node by one step of dt 1; return what it sends."""
    name = type(node).__name__
    if name.startswith("Cuba"):
        state["i"] = state["i"] + (node.w_in * x - state["i"]) / node.tau_syn
        x = state["i"]
    if name == "IF":
        state["v"] = state["v"] + node.r * x
    else:
        tau = node.tau_mem if name.startswith("Cuba") else node.tau
        state["v"] = state["v"] + (node.v_leak - state["v"] + node.r * x) / tau
    if name.endswith("LI"):
        return state["v"]
    spikes = (state["v"] > node.v_threshold).astype(float)
    state["v"] = state["v"] - spikes * node.v_threshold
    return spikes


def correlate(image: Any, node: Any) -> Any:
    """Return the valid correlation of (batch, channels, height, width) with a kernel, loop by loop."""
    kernel, stride = node.weight, np.broadcast_to(node.stride, 2)
    rows = (image.shape[2] - kernel.shape[2]) // stride[0] + 1
    columns = (image.shape[3] - kernel.shape[3]) // stride[1] + 1
    out = np.zeros((len(image), len(kernel), rows, columns))
    for y in range(rows):
        for x in range(columns):
            top, left = y * stride[0], x * stride[1]
            patch = image[:, :, top : top + kernel.shape[2], left : left + kernel.shape[3]]
            out[:, :, y, x] = np.einsum("bchw,ochw->bo", patch, kernel) + node.bias
    return out


def simulate(layers: list[Any], back: Any, inputs: Any) -> Any:
    """Run layers in sequence; `back` is a weight from the first neuron to itself, one step late."""
    states: list[dict[str, Any]] = [{"v": 0.0, "i": 0.0} for _ in layers]
    first, sent, outputs = True, 0.0, []
    for t in range(inputs.shape[1]):
        x, first = inputs[:, t], True
        for node, state in zip(layers, states, strict=True):
            if isinstance(node, nir.Affine):
                x = x @ node.weight.T + node.bias
            elif isinstance(node, nir.Conv2d):
                x = correlate(x, node)
            elif isinstance(node, nir.Flatten):
                x = x.reshape(len(x), -1)
            else:
                late = sent @ back.T if first and back is not None and t else 0.0
                x = step(node, state, x + late)
                sent, first = (x, False) if first else (sent, False)
        outputs.append(x)
    return np.stack(outputs, 1)


def draw(rng: np.random.Generator) -> tuple[list[Any], Any, tuple[int, ...], tuple[int, ...]]:
    """Return random layers, recurrent weights or None, the input's shape and leading dimensions."""
    layers: list[Any] = []
    kinds = [nir.LIF, nir.IF, nir.CubaLIF]
    shape: tuple[int, ...]
    if image := rng.random() < 0.5:
        shape = (int(rng.integers(1, 3)), int(rng.integers(5, 8)), int(rng.integers(5, 8)))
        window = [(3, 1), (1, 3), (3, 5), (2, 2)][rng.integers(4)]
        weight = rng.normal(size=(int(rng.integers(1, 4)), shape[0], *window))
        stride = (int(rng.integers(1, 3)), int(rng.integers(1, 3)))
        layers.append(nir.Conv2d(None, weight, stride, 0, 1, 1, rng.normal(size=len(weight)) * 0.2))
        width = correlate(np.zeros((1, *shape)), layers[0]).shape[1:]
        layers.append(neuron(rng, kinds[rng.integers(3)], (1,) * int(rng.integers(0, 2))))
        layers.append(nir.Flatten(None, int(rng.integers(0, 2)), -1))
        size = int(np.prod(width))
    else:
        shape = (int(rng.integers(2, 6)),)
        size = shape[0]
    rows = int(rng.integers(2, 5))
    layers.append(nir.Affine(rng.normal(size=(rows, size)), rng.normal(size=rows) * 0.2))
    for _ in range(rng.integers(1, 3)):
        layers.append(neuron(rng, kinds[rng.integers(3)], (1,) * int(rng.integers(0, 2))))
    if rng.random() < 0.3:
        layers.append(neuron(rng, [nir.LI, nir.CubaLI][rng.integers(2)], ()))
    back = None if image or rng.random() < 0.5 else rng.normal(size=(rows, rows)) * 0.5
    leading = [(), (), (1,), (7,), (1, 1), (7, 3)][rng.integers(6)]
    return layers, back, shape, leading


def write(path: Any, layers: list[Any], back: Any, shape: tuple[int, ...]) -> None:
    names = [f"n{index}" for index in range(len(layers))]
    nodes = {"input": nir.Input(np.array(shape)), **dict(zip(names, layers, strict=True))}
    nodes["output"] = nir.Output(np.array([1]))
    row = ["input", *names, "output"]
    edges = list(zip(row[:-1], row[1:], strict=True))
    if back is not None:
        nodes["back"] = nir.Linear(back)
        edges += [("n1", "back"), ("back", "n1")]
    graph = nir.NIRGraph(nodes, edges, type_check=False)
    scalars = [(n, key) for n in layers for key in PARAMETERS if np.shape(getattr(n, key, [0])) == ()]
    for node, key in scalars:  # nir writes arrays only
        setattr(node, key, np.array([getattr(node, key)]))
    for node in layers:
        if isinstance(node, nir.Conv2d):
            node.input_shape = 0
        if isinstance(node, nir.Flatten):
            node.input_type = {"input": np.array([1])}
    nir.write(path, graph)
    with h5py.File(path, "a") as file:
        for name, node in zip(names, layers, strict=True):
            group = file["node/nodes"][name]
            if isinstance(node, nir.Conv2d):
                del group["input_shape"]
            if isinstance(node, nir.Flatten):
                del group["input_type"]
            for key in [key for other, key in scalars if other is node]:
                value = float(group[key][0])
                del group[key]
                group[key] = value


@pytest.mark.parametrize("seed", range(120))
def test_random_exports_are_the_numpy_simulation(tmp_path, seed):
    rng = np.random.default_rng(seed)
    layers, back, shape, leading = draw(rng)
    if leading and len(shape) == 1 and leading[-1] == shape[0]:
        leading = (1,)
    path = tmp_path / "net.nir"
    write(path, layers, back, (*leading, *shape))
    inputs = (rng.random((SAMPLES, STEPS, *shape)) < 0.5).astype(float)
    want = simulate(layers, back, inputs)
    stated = {**RULE, "delays": {("back", "n1"): 1}} if back is not None else RULE
    network = lower(path, {**stated, "maker": "none"})
    assert network.inputs[0].shape == shape
    got = np.asarray(runtime.reference(network, inputs).outputs)
    if layers[-1].__class__.__name__.endswith("LI"):
        np.testing.assert_allclose(got, want.reshape(got.shape), atol=1e-9)
    else:
        assert (got == want.reshape(got.shape)).all()


def test_dropped_dimensions_are_warned_of(build, rng, caplog):
    network = lower(build.chain((1, 20, 3), build.affine(rng, 2, 3), build.lif(2)))
    assert network.inputs[0].shape == (3,)
    assert "'input'" in caplog.text and "(batch or time)" in caplog.text


def test_shapes_that_are_taken_stay(build, rng, caplog):
    flat = nir.Flatten({"input": np.array([1, 2, 3])}, 0, -1)
    network = lower(build.chain((1, 2, 3), flat, build.affine(rng, 2, 6), build.lif(2)))
    assert network.inputs[0].shape == (1, 2, 3) and not caplog.text


def test_neurons_per_channel_are_repeated_over_the_plane(build, rng):
    kernel = nir.Conv2d((4, 5), rng.normal(size=(2, 1, 1, 1)), 1, 0, 1, 1, np.zeros(2))
    cell = build.lif((2, 1, 1), v_threshold=np.array([[[0.3]], [[0.9]]]))
    network = lower(build.chain((1, 4, 5), kernel, cell))
    assert network.populations[0].shape == (2, 4, 5)
    assert (network.populations[0].parameters["threshold"].reshape(2, 20) == [[0.3], [0.9]]).all()


def test_single_values_beside_full_ones(build, rng, tmp_path):
    path = tmp_path / "net.nir"
    nir.write(path, build.chain(3, build.affine(rng, 4, 3), build.lif(4)))
    whole = lower(path)
    with h5py.File(path, "a") as file:
        group = file["node/nodes/n1"]
        for key in ("tau", "r"):
            value = float(group[key][0])
            del group[key]
            group[key] = value if key == "tau" else np.array([value])
    again = lower(path)
    assert again.digest() == whole.digest()


def test_data_has_the_shape_with_or_without_leading_ones(build, rng):
    network = lower(build.chain((2, 3), nir.Flatten({"input": np.array([2, 3])}, 0, -1), build.lif(6)))
    inputs = rng.random((2, 5, 2, 3))
    want = np.asarray(runtime.reference(network, inputs).outputs)
    for shape in ((1, 2, 3), (6,), (1, 6)):
        got = np.asarray(runtime.reference(network, inputs.reshape(2, 5, *shape)).outputs)
        assert (got == want).all()
    spikes = (inputs < 0.5).astype(float)
    program = compile_graph(network, calibration=spikes)
    messages = program.inputs[0].encode(spikes)[0]
    assert (program.inputs[0].encode(spikes.reshape(2, 5, 1, 6))[0] == messages).all()


@pytest.mark.parametrize("window", [(4, 1), (1, 4), (3, 5)])
def test_rectangular_kernels_pass_without_a_warning(build, rng, tmp_path, caplog, window):
    path = tmp_path / "net.nir"
    kernel = nir.Conv2d((6, 7), rng.normal(size=(2, 1, *window)), 1, 0, 1, 1, np.zeros(2))
    sides = (7 - window[0], 8 - window[1])
    graph = build.chain((1, 6, 7), kernel, build.lif((2, *sides)))
    graph.nodes["output"] = build.port(nir.Output, 2, *sides)
    graph.metadata = {}
    nir.write(path, graph)
    assert lower(path, RULE).populations[0].shape == (2, *sides) and not caplog.text


def test_the_command_reads_single_values(tmp_path, capsys, rng):
    path = tmp_path / "net.nir"
    write(path, [nir.Affine(rng.normal(size=(4, 3)), np.zeros(4)), neuron(rng, nir.LIF, ())], None, (1, 3))
    flags = [word for key, value in RULE.items() for word in ("--convention", f"{key}={value}")]
    assert main([str(path), *flags]) == 0
    assert "type check" not in capsys.readouterr().err


def test_values_that_fit_nowhere_are_still_refused(build, rng):
    with pytest.raises(CompileError, match="'n0'"):
        lower(build.chain((2, 5), build.affine(rng, 2, 3), build.lif(2)))


def test_nodes_with_slashes_in_their_names(build, rng, tmp_path):
    path, plain = tmp_path / "net.nir", tmp_path / "plain.nir"
    layers = {"enc/fc": build.affine(rng, 4, 3), "enc/deep/lif": build.lif(4), "enc2": build.li(4)}
    for file, mark in ((path, "/"), (plain, "_")):
        row = ["input", *(name.replace("/", mark) for name in layers), "output"]
        ends = build.port(nir.Input, 3), build.port(nir.Output, 4)
        nodes = dict(zip(row, [ends[0], *layers.values(), ends[1]], strict=True))
        nir.write(file, build.graph(nodes, list(zip(row[:-1], row[1:], strict=True))))
    data = (rng.random((2, 20, 3)) < 0.5).astype(float)
    found = lower(path)
    assert [p.name for p in found.populations] == ["enc/deep/lif", "enc2"]
    want = np.asarray(runtime.reference(lower(plain), data).outputs)
    assert want.any() and (np.asarray(runtime.reference(found, data).outputs) == want).all()
    program = compile_graph(found, calibration=data)
    assert len(program.populations) == 2
