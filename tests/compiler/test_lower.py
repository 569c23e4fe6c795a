"""What lowering makes of a graph, and the one line it says about graphs that it refuses."""

from __future__ import annotations

import nir
import numpy as np
import pytest

from snn_compile.compiler import lower
from snn_compile.compiler.conventions import Contract, Readout
from snn_compile.compiler.frontends import read_graph
from snn_compile.targets.errors import AmbiguousConvention, CompileError, UnsupportedNode

ONES = np.ones(3)

UNSUPPORTED = {
    "IF": lambda: nir.IF(ONES, ONES),
    "I": lambda: nir.I(ONES),
    "CubaLI": lambda: nir.CubaLI(ONES * 3, ONES * 4, ONES, ONES),
    "Delay": lambda: nir.Delay(ONES),
    "Scale": lambda: nir.Scale(ONES),
    "Threshold": lambda: nir.Threshold(ONES),
    "Conv1d": lambda: nir.Conv1d(3, np.ones((1, 1, 1)), 1, 0, 1, 1, np.ones(1)),
    "Conv2d": lambda: nir.Conv2d((3, 3), np.ones((1, 1, 1, 1)), 1, 0, 1, 1, np.ones(1)),
    "SumPool2d": lambda: nir.SumPool2d(np.ones(2, int), np.ones(2, int), np.zeros(2, int)),
    "AvgPool2d": lambda: nir.AvgPool2d(np.ones(2, int), np.ones(2, int), np.zeros(2, int)),
    "NIRGraph": lambda: nir.NIRGraph(
        {"i": nir.Input({"input": np.array([3])}), "o": nir.Output({"output": np.array([3])})}, [("i", "o")]
    ),
}


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


@pytest.mark.parametrize("kind", UNSUPPORTED)
def test_every_other_node_of_nir_is_refused_by_name(build, kind):
    error = refused(UnsupportedNode, build.chain(3, UNSUPPORTED[kind](), build.lif(3)), "'n0'", kind)
    assert (error.node, error.type) == ("n0", kind)


def test_the_list_of_unsupported_nodes_is_complete():
    kinds = {
        name
        for name in dir(nir)
        if isinstance(getattr(nir, name), type) and issubclass(getattr(nir, name), nir.NIRNode)
    }
    supported = {"Input", "Output", "Affine", "Linear", "Flatten", "LIF", "CubaLIF", "LI"}
    assert kinds - {"NIRNode"} == supported | set(UNSUPPORTED)


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


def test_arrays_cannot_be_changed(build, rng):
    network = lower(build.chain(3, build.linear(rng, 2, 3), build.lif(2)))
    for array in (network.projections[0].weight, network.populations[0].parameters["threshold"]):
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
        (lambda b, rng: [b.lif(3), b.li(1)], "n1"),
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
@pytest.mark.parametrize("tau", [0.0, -2.0, np.nan])
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
    error = refused(AmbiguousConvention, graph, "a -> b -> a", "--convention delays=SOURCE:TARGET:STEPS")
    assert set(error.cycle) == {"a", "b"}
    assert lower(graph, {"delays": {("b", "a"): 1}}).order == ("a", "b")


@pytest.mark.parametrize(
    "layers", [lambda b, r: [b.lif(3), b.linear(r, 2, 3)], lambda b, r: [b.linear(r, 2, 3)]]
)
def test_outputs_read_neurons(build, rng, layers):
    graph = build.chain(3, *layers(build, rng))
    refused(UnsupportedNode, graph, "'output'", "LIF, CubaLIF, LI")


def test_an_output_reads_one_node_and_nothing_reads_an_output(build):
    nodes = {
        "input": build.port(nir.Input, 3),
        "a": build.lif(3),
        "b": build.lif(3),
        "output": build.port(nir.Output, 3),
    }
    edges = [("input", "a"), ("input", "b"), ("a", "output")]
    refused(UnsupportedNode, build.graph(nodes, [*edges, ("b", "output")]), "'output'", "'a'", "'b'")
    refused(CompileError, build.graph(nodes, [*edges, ("output", "b")]), "'output'", "outgoing")


def test_a_leaky_integrator_has_no_spikes(build, rng):
    graph = build.chain(3, build.li(3), readouts={"output": Readout("spikes", "count", "classify")})
    refused(CompileError, graph, "'output'", "never spikes")
    refused(UnsupportedNode, build.chain(3, build.li(3), build.lif(3)), "'n0'", "never spikes", "'n1'")
    assert lower(build.chain(3, build.li(3))).outputs[0].readout.signal == "membrane"


def test_a_graph_needs_ends(build):
    nodes = {"n": build.lif(3), "output": build.port(nir.Output, 3)}
    refused(CompileError, build.graph(nodes, [("n", "output")]), "Input")
    refused(CompileError, build.graph({}, []), "Input")


@pytest.mark.parametrize(
    "item, value",
    [
        ("reset_timing", "next_before"),
        ("reset_timing", "next_after"),
        ("update_order", "membrane_first"),
        ("current_decay", "after"),
        ("spikes_per_step", "floor"),
        ("v_min", -1.0),
    ],
)
def test_conventions_that_no_device_runs_are_refused_by_name(build, item, value):
    refused(UnsupportedNode, build.chain(3, build.lif(3)), "'n0'", item, str(value), **{item: value})


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
