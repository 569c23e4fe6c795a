"""What lowering makes of a graph, and the one line it says about graphs that it refuses."""

from __future__ import annotations

import nir
import numpy as np
import pytest

from snn_compile.compiler import lower
from snn_compile.compiler.contract.contract import Contract, Readout
from snn_compile.compiler.frontends.nir_extensions import EXTENSIONS, MaxPool
from snn_compile.compiler.frontends.read import read_graph
from snn_compile.compiler.lowering.max_pool import Choice, Relay
from snn_compile.compiler.lowering.nodes import lower_node
from snn_compile.targets.errors import AmbiguousConvention, CompileError, UnsupportedNode


def refused(kind: type, graph, *words: str, **stated):
    """Assert that lowering raises `kind` with one line that has all words; return the error."""
    with pytest.raises(CompileError) as error:
        lower(graph, stated)
    text = str(error.value)
    assert isinstance(error.value, kind), text
    assert "\n" not in text
    for word in words:
        assert word in text
    return error.value


def test_every_node_of_nir_has_a_rule():
    kinds = {
        getattr(nir, name)
        for name in dir(nir)
        if isinstance(getattr(nir, name), type) and issubclass(getattr(nir, name), nir.NIRNode)
    }
    walked = {nir.NIRNode, nir.NIRGraph, nir.Input, nir.Output}
    # Max pooling becomes other nodes before the walk.
    extensions = set(EXTENSIONS.values()) - {MaxPool} | {Relay, Choice}
    assert kinds - walked | extensions == lower_node.registry.keys() - {object}


def test_a_node_without_a_rule_is_refused_by_name(build):

    class Unknown(nir.NIRNode):
        def __init__(self):
            self.input_type = self.output_type = {"input": np.array([3]), "output": np.array([3])}

        def to_dict(self):
            return {"type": "Unknown"}

    error = refused(UnsupportedNode, build.chain(3, Unknown(), build.lif(3)), "'n0'", "Unknown")
    assert (error.node, error.type) == ("n0", "Unknown")


def test_the_parameters_of_each_neuron(build):
    contract = Contract(dt=0.5)
    cell = build.cuba(2, tau_syn=2.0, tau_mem=4.0, r=3.0, w_in=5.0, v_leak=0.2, v_threshold=0.9, v_reset=0.1)
    network = lower(build.chain(2, cell, contract=contract))
    p = network.population("n0").parameters
    assert (p["current_decay"], p["voltage_decay"]) == (0.25, 0.125)
    np.testing.assert_allclose([p["threshold"][0], p["bias"][0], p["v_init"][0]], [0.8, 0.0125, -0.1])
    np.testing.assert_allclose(network.projections[0].weight, np.eye(2) * 5 * 0.25 * 3 * 0.125)
    assert network.digest() == lower(build.chain(2, cell, contract=contract)).digest()


def test_projections_are_named_by_their_path(build, rng):
    nodes = {
        "input": build.port(nir.Input, 2, 3),
        "flat": nir.Flatten({"input": np.array([2, 3])}, start_dim=0),
        "fc": build.linear(rng, 4, 6),
        "cell": build.lif(4),
        "output": build.port(nir.Output, 4),
    }
    edges = [("input", "flat"), ("flat", "fc"), ("input", "fc"), ("fc", "cell"), ("cell", "output")]
    network = lower(build.graph(nodes, edges, delays={("input", "flat"): 2}))
    assert {e.name: e.delay_steps for e in network.projections} == {
        "input/flat/fc/cell": 2,
        "input/fc/cell": 0,
    }
    assert network.inputs[0].shape == (2, 3) and network.order == ("cell",)


def conv(shape=(2, 2, 3, 3), biases=2, **items):
    layer = nir.Conv2d((9, 9), np.ones((2, 2, 3, 3)), 1, 0, 1, 1, np.ones(biases))
    layer.weight = np.ones(shape)
    for key, value in items.items():  # nir itself stumbles over some when the node is made
        setattr(layer, key, value)
    return layer


@pytest.mark.parametrize(
    "layer",
    [
        conv((2, 3, 3, 3)),
        conv((2, 2, 5, 3)),
        conv((2, 2, 3)),
        conv(biases=3),
        conv(groups=2),
        conv((3, 1, 3, 3), groups=2, biases=3),
        conv(stride=0),
        conv(stride=1.5),
        conv(dilation=0),
        conv(dilation=3),
        conv(padding=-1),
        conv(padding="mirror"),
        conv(padding="same", stride=2),
        nir.SumPool2d(np.array([5, 1]), np.ones(2, int), np.zeros(2, int)),
        nir.AvgPool2d(np.array([0, 1]), np.ones(2, int), np.zeros(2, int)),
        nir.AvgPool2d(np.array([2, 2]), np.zeros(2, int), np.zeros(2, int)),
        nir.Scale(np.ones((2, 4))),
        nir.Delay(np.full((2, 4, 5), -1.0)),
        nir.Delay(np.full((2, 4, 5), 1.25)),
        nir.Delay(np.full((2, 4, 5), np.nan)),
    ],
)
def test_linear_nodes_that_cannot_be(build, layer):
    nodes = {"input": build.port(nir.Input, 2, 4, 5), "odd": layer, "out": build.port(nir.Output, 1)}
    refused(CompileError, build.graph(nodes, [("input", "odd"), ("odd", "out")]), "'odd'")


def test_nested_graphs_with_several_ends(build):
    def nested(inner_nodes, inner_edges):
        inner = build.graph(inner_nodes, inner_edges, no_contract=True)
        nodes = {"input": build.port(nir.Input, 3), "block": inner, "output": build.port(nir.Output, 3)}
        return build.graph(nodes, [("input", "block"), ("block", "output")])

    ends = {"a": build.port(nir.Input, 3), "n": build.lif(3), "o": build.port(nir.Output, 3)}
    assert lower(nested(ends, [("a", "n"), ("n", "o")])).population("block.n").size == 3
    two = {**ends, "b": build.port(nir.Input, 3)}
    refused(UnsupportedNode, nested(two, [("a", "n"), ("b", "n"), ("n", "o")]), "'block'", "2 Input")
    refused(UnsupportedNode, nested({"n": build.lif(3)}, []), "'block'", "0 Input")


def test_arrays_cannot_be_changed(build, rng):
    network = lower(build.chain(3, build.linear(rng, 2, 3), build.lif(2)))
    for array in (network.projections[0].values, network.populations[0].parameters["threshold"]):
        with pytest.raises(ValueError):
            array[...] = 0


def test_a_network_is_taken_as_it_is(build):
    network = lower(build.chain(3, build.lif(3)))
    assert lower(network) is network


def test_edges_that_lead_nowhere(build):
    for edge in (("n0", "nowhere"), ("nowhere", "n0")):
        graph = build.chain(3, build.lif(3))
        graph.edges.append(edge)
        refused(CompileError, build.graph(graph.nodes, graph.edges), edge[0], edge[1])


@pytest.mark.parametrize(
    "layers, node",
    [
        (lambda b, rng: [b.linear(rng, 4, 2), b.lif(4)], "n0"),
        (lambda b, rng: [b.linear(rng, 5, 3), b.lif(4)], "n1"),
        (lambda b, rng: [b.affine(rng, 5, 3), b.lif(4)], "n1"),
        (lambda b, rng: [b.linear(rng, 5, 3), b.linear(rng, 4, 4), b.lif(4)], "n1"),
        (lambda b, rng: [b.affine(rng, 5, 3), b.linear(rng, 4, 4), b.lif(4)], "n1"),
        (lambda b, rng: [nir.Affine(np.ones((4, 3)), np.ones(2)), b.lif(4)], "n0"),
        (lambda b, rng: [nir.Affine(np.ones((4, 3)), np.ones(1)), b.lif(4)], "n0"),
        (lambda b, rng: [nir.Linear(np.ones((2, 2, 3))), b.lif(4)], "n0"),
        (lambda b, rng: [b.lif(4)], "n0"),
        (lambda b, rng: [b.lif(3), b.li(2)], "n1"),
        (lambda b, rng: [nir.Scale(np.ones(2)), b.lif(3)], "n0"),
        (lambda b, rng: [nir.Delay(np.ones(2)), b.lif(3)], "n0"),
        (lambda b, rng: [nir.Threshold(np.ones(2))], "n0"),
        (lambda b, rng: [nir.Conv1d(3, np.ones((1, 1, 1)), 1, 0, 1, 1, np.ones(1)), b.lif(3)], "n0"),
        (lambda b, rng: [conv(), b.lif(3)], "n0"),
        (lambda b, rng: [nir.SumPool2d(np.ones(2, int), np.ones(2, int), np.zeros(2, int)), b.lif(3)], "n0"),
    ],
)
def test_shapes_that_do_not_fit_name_the_node(build, rng, layers, node):
    refused(CompileError, build.chain(3, *layers(build, rng)), f"'{node}'")


@pytest.mark.parametrize("first, second", [(4, 5), (5, 4), (1, 4)])
def test_parallel_paths_that_do_not_fit(build, rng, first, second):
    nodes = {
        "input": build.port(nir.Input, 3),
        "a": build.affine(rng, first, 3),
        "b": build.affine(rng, second, 3),
        "n": build.lif(4),
        "output": build.port(nir.Output, 4),
    }
    edges = [("input", "a"), ("input", "b"), ("a", "n"), ("b", "n"), ("n", "output")]
    refused(CompileError, build.graph(nodes, edges), "'n'")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["weight", "bias", "before"])
def test_values_that_are_not_finite_name_node_and_index(build, rng, where, bad):
    layer, behind = build.affine(rng, 4, 3), build.linear(rng, 4, 4)
    (layer.bias if where == "bias" else layer.weight)[1] = bad
    layers = [layer, behind, build.lif(4)] if where == "before" else [layer, build.lif(4)]
    refused(CompileError, build.chain(3, *layers), "'n0'", str(bad), "(1", "finite")


@pytest.mark.parametrize("key", ["v_threshold", "v_leak", "v_reset", "r", "tau"])
def test_neuron_parameters_that_are_not_finite(build, key):
    refused(CompileError, build.chain(3, build.lif(3, **{key: np.nan})), "n0", "nan")


@pytest.mark.parametrize("rule", ["euler", "exponential"])
@pytest.mark.parametrize("tau", [0.0, -2.0])
@pytest.mark.parametrize("key", ["tau_syn", "tau_mem"])
def test_time_constants_must_be_positive(build, key, tau, rule):
    refused(CompileError, build.chain(3, build.cuba(3, **{key: tau}), rule=rule), "'n0'", "positive")


def test_a_step_longer_than_the_time_constant(build):
    graph = build.chain(3, build.lif(3, tau=0.5))
    refused(CompileError, graph, "'n0'", "dt must not exceed")
    assert lower(graph, {"rule": "exponential"}).populations[0].parameters["voltage_decay"] < 1


def test_linear_nodes_in_a_loop(build, rng):
    nodes = {
        "input": build.port(nir.Input, 3),
        "a": build.linear(rng, 3, 3),
        "b": build.linear(rng, 3, 3),
        "n": build.lif(3),
        "output": build.port(nir.Output, 3),
    }
    edges = [("input", "a"), ("a", "b"), ("b", "a"), ("b", "n"), ("n", "output")]
    refused(CompileError, build.graph(nodes, edges), "b -> a -> b", "without a neuron")


def test_a_cycle_of_populations_needs_a_delay(build, rng):
    nodes = {
        "input": build.port(nir.Input, 3),
        "a": build.lif(3),
        "b": build.lif(3),
        "output": build.port(nir.Output, 3),
    }
    edges = [("input", "a"), ("a", "b"), ("b", "a"), ("b", "output")]
    graph = build.graph(nodes, edges)
    advice = "--convention delays=SOURCE:TARGET:STEPS, for example delays=b:a:1"
    error = refused(AmbiguousConvention, graph, "a -> b -> a", advice)
    assert set(error.cycle) == {"a", "b"}
    assert lower(graph, {"delays": {("b", "a"): 1}}).order == ("a", "b")


def test_an_output_reads_neurons_or_linear_nodes(build, rng):
    direct = lower(build.chain(3, build.lif(3)))
    assert (direct.outputs[0].population, direct.outputs[0].readout.signal) == ("n0", "spikes")
    behind = lower(build.chain(3, build.lif(3), build.linear(rng, 2, 3)))
    assert (behind.outputs[0].population, behind.outputs[0].readout.signal) == ("output", "membrane")
    assert [p.name for p in behind.populations] == ["n0", "output"]


def test_nothing_reads_an_output_and_an_output_reads_something(build):
    nodes = {"input": build.port(nir.Input, 3), "a": build.lif(3), "output": build.port(nir.Output, 3)}
    edges = [("input", "a"), ("a", "output")]
    refused(CompileError, build.graph(nodes, [*edges, ("output", "a")]), "'output'", "outgoing")
    refused(CompileError, build.graph(nodes, edges[:1]), "'output'", "has no input")
    alone = {**nodes, "fc": nir.Linear(np.ones((3, 3)))}
    refused(CompileError, build.graph(alone, [*edges, ("fc", "a")]), "'fc'", "has no input")


def test_a_leaky_integrator_has_no_spikes(build, rng):
    graph = build.chain(3, build.li(3), readouts={"output": Readout("spikes", "count", "classify")})
    refused(CompileError, graph, "'output'", "never spikes")
    assert lower(build.chain(3, build.li(3))).outputs[0].readout.signal == "membrane"


def test_a_graph_needs_ends(build):
    nodes = {"n": build.lif(3), "output": build.port(nir.Output, 3)}
    refused(CompileError, build.graph(nodes, [("n", "output")]), "Input")
    refused(CompileError, build.graph({}, []), "Input")


def test_files(build, rng, tmp_path):
    graph = build.chain(3, build.linear(rng, 2, 3), build.lif(2))
    nir.write(tmp_path / "a.nir", graph)
    assert lower(tmp_path / "a.nir").digest() == lower(str(tmp_path / "a.nir")).digest()
    (tmp_path / "b.nir").write_bytes((tmp_path / "a.nir").read_bytes()[:900])
    (tmp_path / "c.nir").write_text("not a graph")
    nir.write(tmp_path / "d.nir", build.lif(2))
    for name in ("b.nir", "c.nir", "d.nir", "missing.nir", "model.onnx", "folder"):
        refused(CompileError, tmp_path / name, name)
    refused(CompileError, tmp_path / "model.pt", "train.load_checkpoint")
    assert read_graph(tmp_path / "a.nir").nodes.keys() == graph.nodes.keys()
