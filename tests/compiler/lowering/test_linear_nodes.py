"""Linear nodes, membranes as messages and nested graphs, against loops written by by_hand."""

from __future__ import annotations

import nir
import numpy as np
import pytest
from support import by_hand

from snn_compile.compiler import lower
from snn_compile.compiler.contract.contract import Contract
from snn_compile.compiler.reference import run_reference


def test_scales_delays_thresholds_and_membranes_as_messages(build, rng):
    contract = Contract(dt=0.5, delays={("in", "scale"): 1})
    nodes = {
        "in": build.port(nir.Input, 4),
        "scale": nir.Scale(rng.normal(size=4)),
        "late": nir.Delay(np.array([0.0, 1.5, 0.5, 1.5])),
        "later": nir.Delay(np.full(4, 1.0)),
        "cell": by_hand.per_neuron(rng, nir.LIF, 4),
        "leak": by_hand.per_neuron(rng, nir.LI, 4),
        "sum": by_hand.per_neuron(rng, nir.I, 4),
        "over": nir.Threshold(rng.uniform(0.2, 0.5, 4)),
        "fc": build.affine(rng, 3, 4),
        "top": by_hand.per_neuron(rng, nir.CubaLI, 3),
        "out": build.port(nir.Output, 3),
    }
    edges = [("in", "scale"), ("scale", "late"), ("late", "cell"), ("late", "later"), ("later", "cell")]
    edges += [("in", "sum"), ("cell", "leak"), ("sum", "leak"), ("leak", "over"), ("over", "fc")]
    edges += [("leak", "fc"), ("fc", "top"), ("top", "out")]
    graph = build.graph(nodes, edges, contract)
    by_hand.agrees(graph, contract, {"in": rng.normal(size=(2, 30, 4)) * 2}, 20)


def test_outputs_may_read_through_linear_nodes(build, rng):
    contract = Contract(dt=0.5)
    nodes = {
        "in": build.port(nir.Input, 3),
        "cell": by_hand.per_neuron(rng, nir.LIF, 3),
        "fc": build.affine(rng, 2, 3),
        "skip": build.linear(rng, 2, 3),
        "out": build.port(nir.Output, 2),
    }
    edges = [("in", "cell"), ("cell", "fc"), ("fc", "out"), ("in", "skip"), ("skip", "out")]
    graph = build.graph(nodes, edges, contract)
    data = rng.normal(size=(2, 20, 3)) * 2
    outputs = run_reference(lower(graph), data).outputs
    wanted = by_hand.run(graph, contract, {"in": data}).v["out"]
    np.testing.assert_allclose(outputs, wanted, rtol=1e-12, atol=1e-12)


def test_a_nested_graph_is_its_content(build, rng):
    inner_nodes = {
        "i": build.port(nir.Input, 3),
        "fc": build.affine(rng, 4, 3),
        "o": build.port(nir.Output, 4),
    }
    inner_nodes["cell"] = by_hand.per_neuron(rng, nir.LIF, 4)
    inner = build.graph(inner_nodes, [("i", "fc"), ("fc", "cell"), ("cell", "o")], no_contract=True)
    nodes = {
        "in": build.port(nir.Input, 3),
        "block": inner,
        "leak": build.li(4),
        "out": build.port(nir.Output, 4),
    }
    nested = build.graph(nodes, [("in", "block"), ("block", "leak"), ("leak", "out")], dt=0.5)
    flat = build.chain(3, inner_nodes["fc"], inner_nodes["cell"], nodes["leak"], dt=0.5)
    data = rng.normal(size=(2, 20, 3)) * 2
    network = lower(nested)
    assert [p.name for p in network.populations] == ["block.cell", "leak"]
    np.testing.assert_array_equal(
        run_reference(network, data).outputs, run_reference(lower(flat), data).outputs
    )


@pytest.mark.parametrize(
    "channels, out, kernel, stride, padding, dilation, groups",
    [
        (2, 3, (3, 2), (1, 1), (0, 0), (1, 1), 1),
        (2, 4, (2, 3), (2, 1), (1, 2), (1, 1), 2),
        (1, 2, (2, 2), (1, 2), (2, 0), (2, 3), 1),
        (4, 4, (3, 3), (1, 1), "same", (1, 1), 4),
        (2, 2, (2, 4), (1, 1), "same", (1, 1), 1),
        (2, 2, (3, 3), (2, 2), "valid", (1, 1), 1),
    ],
)
def test_convolutions(build, rng, channels, out, kernel, stride, padding, dilation, groups):
    height, width = 7, 8
    weight, bias = rng.normal(size=(out, channels // groups, *kernel)), rng.normal(size=out)
    layer = nir.Conv2d((height, width), weight, stride, padding, dilation, groups, bias)
    x = rng.normal(size=(channels, height, width))
    need = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    top, left = {"same": (need[0] // 2, need[1] // 2), "valid": (0, 0)}.get(padding, padding)
    bottom, right = (need[0] - top, need[1] - left) if padding == "same" else (top, left)
    rows = (height + top + bottom - need[0] - 1) // stride[0] + 1
    columns = (width + left + right - need[1] - 1) // stride[1] + 1
    wanted = np.zeros((out, rows, columns))
    for o, r, c in np.ndindex(*wanted.shape):
        wanted[o, r, c] = bias[o]
        for i, a, b in np.ndindex(channels // groups, *kernel):
            row, column = r * stride[0] + a * dilation[0] - top, c * stride[1] + b * dilation[1] - left
            if 0 <= row < height and 0 <= column < width:
                source = o // (out // groups) * (channels // groups) + i
                wanted[o, r, c] += weight[o, i, a, b] * x[source, row, column]
    assert_read(build, (channels, height, width), layer, x, wanted)
    if kernel[0] == 1 or padding != "same":
        line = nir.Conv1d(width, weight[:, :, 0], stride[1], 0, dilation[1], groups, bias)
        found = read(build, (channels, width), line, x[:, 0])
        one = nir.Conv2d((1, width), weight[:, :, :1], (1, stride[1]), 0, (1, dilation[1]), groups, bias)
        np.testing.assert_allclose(
            found, read(build, (channels, 1, width), one, x[:, :1]).reshape(found.shape)
        )


@pytest.mark.parametrize("average", [False, True])
@pytest.mark.parametrize("size, stride, padding", [((2, 2), (2, 2), (0, 0)), ((3, 2), (1, 2), (1, 1))])
def test_pools(build, rng, average, size, stride, padding):
    x = rng.normal(size=(2, 5, 6))
    arrays = (np.array(size), np.array(stride), np.array(padding))
    padded = np.pad(x, ((0, 0), (padding[0],) * 2, (padding[1],) * 2))
    rows, columns = ((padded.shape[1 + i] - size[i]) // stride[i] + 1 for i in range(2))
    wanted = np.zeros((2, rows, columns))
    for ch, r, c in np.ndindex(*wanted.shape):
        window = padded[ch, r * stride[0] : r * stride[0] + size[0], c * stride[1] : c * stride[1] + size[1]]
        wanted[ch, r, c] = window.mean() if average else window.sum()
    assert_read(build, x.shape, (nir.AvgPool2d if average else nir.SumPool2d)(*arrays), x, wanted)


def read(build, shape, layer, x):
    """What an output reads behind one linear node, one step."""
    nodes = {"in": build.port(nir.Input, *shape), "layer": layer, "out": build.port(nir.Output, 1)}
    network = lower(build.graph(nodes, [("in", "layer"), ("layer", "out")]))
    return run_reference(network, x[None, None]).outputs[0, 0]


def assert_read(build, shape, layer, x, wanted):
    found = read(build, shape, layer, x)
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-12)


def test_delays_in_series_add_up_where_their_sums_coincide(build, rng):
    """1 + 2 steps for one element and 2 + 1 for another are one projection of 3 steps with both in it."""
    nodes = {
        "in": build.port(nir.Input, 4),
        "late": nir.Delay(np.array([1.0, 2.0, 0.0, 1.0])),
        "mix": build.linear(rng, 4, 4),
        "later": nir.Delay(np.array([2.0, 1.0, 0.0, 2.0])),
        "cell": by_hand.per_neuron(rng, nir.LIF, 4),
        "out": build.port(nir.Output, 4),
    }
    names, contract = list(nodes), Contract(dt=1.0)
    graph = build.graph(nodes, list(zip(names, names[1:], strict=False)), contract)
    by_hand.agrees(graph, contract, {"in": rng.normal(size=(2, 20, 4)) * 3}, 5)


@pytest.mark.parametrize(
    "start, stop, shape", [(0, -1, (12,)), (1, -1, (2, 6)), (0, 1, (6, 2)), (1, 2, (2, 6))]
)
def test_flatten_keeps_the_dimensions_it_leaves(build, rng, start, stop, shape):
    nodes = {
        "in": build.port(nir.Input, 2, 3, 2),
        "flat": nir.Flatten({"input": np.array([2, 3, 2])}, start, stop),
        "cell": by_hand.per_neuron(rng, nir.LIF, 12),
        "out": build.port(nir.Output, *shape),
    }
    edges = [("in", "flat"), ("flat", "cell"), ("cell", "out")]
    if len(shape) == 2:
        nodes["conv"] = nir.Conv1d(None, rng.normal(size=(4, shape[0], 3)), 1, 1, 1, 1, np.zeros(4))
        nodes["top"] = by_hand.per_neuron(rng, nir.LIF, 4 * shape[1])
        edges += [("flat", "conv"), ("conv", "top"), ("top", "out")]
        edges.remove(("cell", "out"))
    contract = Contract(dt=1.0)
    by_hand.agrees(
        build.graph(nodes, edges, contract), contract, {"in": rng.normal(size=(2, 15, 2, 3, 2)) * 3}
    )
