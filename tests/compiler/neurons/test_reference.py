"""The float reference against NIR's equations, written out by hand (by_hand.py)."""

from __future__ import annotations

import nir
import numpy as np
import pytest
from support import by_hand

from snn_compile.compiler import lower
from snn_compile.compiler.contract.contract import Contract, Readout
from snn_compile.compiler.reference import run_reference
from snn_compile.targets.errors import WrongInput


@pytest.mark.parametrize("rule", ["euler", "exponential"])
@pytest.mark.parametrize("reset", ["value", "subtract", "none"])
@pytest.mark.parametrize("kind", [nir.LIF, nir.CubaLIF, nir.LI, nir.CubaLI, nir.IF, nir.I])
def test_one_layer(build, rng, kind, reset, rule):
    contract = Contract(dt=0.7, rule=rule, reset=reset, v_init=0.15)
    graph = build.chain(3, build.affine(rng, 5, 3, 1.5), by_hand.per_neuron(rng, kind, 5), contract=contract)
    by_hand.agrees(
        graph,
        contract,
        {"input": rng.normal(size=(2, 30, 3))},
        5 if kind in (nir.LIF, nir.CubaLIF, nir.IF) else 0,
    )


@pytest.mark.parametrize("v_init", ["v_leak", "v_reset", -0.3])
def test_the_initial_membrane(build, rng, v_init):
    contract = Contract(dt=0.7, v_init=v_init)
    graph = build.chain(3, by_hand.per_neuron(rng, nir.LIF, 3), contract=contract)
    by_hand.agrees(graph, contract, {"input": rng.normal(size=(1, 12, 3)) + 0.4})


@pytest.mark.parametrize("comparison", [">", ">="])
def test_a_membrane_exactly_at_threshold(build, comparison):
    # tau 2, r 2: v gains half of what is missing to twice the input, 0.5 after the first step.
    contract = Contract(dt=1.0, comparison=comparison)
    graph = build.chain(1, build.lif(1, tau=2.0, r=2.0, v_threshold=0.5), contract=contract)
    record = by_hand.agrees(graph, contract, {"input": np.full((1, 1, 1), 0.5)}, 0)
    assert record.outputs.sum() == (comparison == ">=")


def test_linear_nodes_in_a_row(build, rng):
    contract = Contract(dt=0.6)
    layers = [build.affine(rng, 6, 3), build.linear(rng, 4, 6), build.affine(rng, 5, 4), build.cuba(5)]
    graph = build.chain(3, *layers, contract=contract)
    by_hand.agrees(graph, contract, {"input": rng.normal(size=(2, 25, 3))})


def test_parallel_paths_skips_branches_and_several_ports(build, rng):
    contract = Contract(
        dt=0.8,
        reset="subtract",
        delays={("in1", "fc1"): 2, ("hidden", "fc3"): 1, ("in2", "hidden"): 4},
        readouts={"out2": Readout("spikes", "last", "regress")},
    )
    nodes = {
        "in1": build.port(nir.Input, 3),
        "in2": build.port(nir.Input, 4),
        "fc1": build.affine(rng, 4, 3),
        "fc2": build.affine(rng, 4, 3),
        "shared": build.affine(rng, 4, 4),
        "hidden": by_hand.per_neuron(rng, nir.CubaLIF, 4),
        "fc3": build.affine(rng, 2, 4),
        "skip": build.linear(rng, 2, 3),
        "top": by_hand.per_neuron(rng, nir.LIF, 2),
        "leak": by_hand.per_neuron(rng, nir.LI, 2),
        "out1": build.port(nir.Output, 2),
        "out2": build.port(nir.Output, 2),
    }
    edges = [("in1", "fc1"), ("in1", "fc2"), ("fc1", "shared"), ("fc2", "shared"), ("shared", "hidden")]
    edges += [("in2", "hidden"), ("fc1", "hidden"), ("hidden", "fc3"), ("fc3", "top"), ("skip", "top")]
    edges += [("in1", "skip"), ("fc3", "leak"), ("top", "leak"), ("leak", "out1"), ("top", "out2")]
    graph = build.graph(nodes, edges, contract)
    data = {"in1": rng.normal(size=(2, 30, 3)), "in2": rng.normal(size=(2, 30, 4))}
    record = by_hand.agrees(graph, contract, data, 20)
    np.testing.assert_allclose(record.outputs, record.states("leak.v"), rtol=0)


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("declared", [None, 1, 3])
def test_a_recurrent_layer(build, rng, biased, declared):
    back = build.affine(rng, 4, 4) if biased else build.linear(rng, 4, 4)
    nodes = {
        "input": build.port(nir.Input, 3),
        "fc": build.affine(rng, 4, 3),
        "cell": by_hand.per_neuron(rng, nir.CubaLIF, 4),
        "back": back,
        "output": build.port(nir.Output, 4),
    }
    edges = [("input", "fc"), ("fc", "cell"), ("cell", "back"), ("back", "cell"), ("cell", "output")]
    data = {"input": rng.normal(size=(2, 40, 3)) * 2}
    contract = Contract(dt=0.7, delays={("cell", "back"): declared or 1})
    graph = build.graph(nodes, edges, contract)
    wanted = by_hand.agrees(graph, contract, data, 10)
    if declared is None:  # an undeclared self-connection takes one step
        network = lower(build.graph(nodes, edges, dt=0.7))
        np.testing.assert_array_equal(run_reference(network, data).outputs, wanted.outputs)


def test_a_recurrent_bias_acts_from_the_first_step_wherever_the_delay_stands(build, rng):
    nodes = {
        "input": build.port(nir.Input, 2),
        "cell": build.lif(2),
        "back": nir.Affine(rng.normal(size=(2, 2)), np.array([0.9, 1.1])),
        "output": build.port(nir.Output, 2),
    }
    edges = [("input", "cell"), ("cell", "back"), ("back", "cell"), ("cell", "output")]
    data = rng.normal(size=(1, 20, 2))
    before, after = (
        run_reference(lower(build.graph(nodes, edges, delays={edge: 2})), data, probes=["cell.v"])
        for edge in (("cell", "back"), ("back", "cell"))
    )
    np.testing.assert_array_equal(before.states("cell.v"), after.states("cell.v"))
    np.testing.assert_allclose(after.states("cell.v")[0, 0], 0.25 * 1.5 * (data[0, 0] + [0.9, 1.1]))


def test_a_cycle_of_three_populations(build, rng):
    contract = Contract(dt=0.5, delays={("c", "ca"): 3, ("a", "ab"): 1}, spike_amplitude=1.7)
    nodes = {
        "input": build.port(nir.Input, 3),
        "c": by_hand.per_neuron(rng, nir.LIF, 3),
        "b": by_hand.per_neuron(rng, nir.CubaLIF, 4),
        "a": by_hand.per_neuron(rng, nir.LIF, 3),
        "ab": build.affine(rng, 4, 3, 2.0),
        "bc": build.affine(rng, 3, 4, 2.0),
        "ca": build.affine(rng, 3, 3, 2.0),
        "output": build.port(nir.Output, 4),
    }
    edges = [("input", "a"), ("a", "ab"), ("ab", "b"), ("b", "bc"), ("bc", "c"), ("c", "ca"), ("ca", "a")]
    graph = build.graph(nodes, [*edges, ("b", "output")], contract)
    by_hand.agrees(graph, contract, {"input": rng.normal(size=(2, 40, 3)) * 3}, 40)


def test_shapes_are_flattened_in_c_order(build, rng):
    contract = Contract(dt=0.5)
    nodes = {
        "input": build.port(nir.Input, 2, 3),
        "flat": nir.Flatten({"input": np.array([2, 3])}, start_dim=0),
        "fc": build.affine(rng, 4, 6),
        "cell": by_hand.per_neuron(rng, nir.LIF, 4),
        "grid": nir.LIF(*[np.full((2, 3), x) for x in (3.0, 1.5, 0.1, 0.6, 0.2)]),
        "leak": by_hand.per_neuron(rng, nir.LI, 4),
        "output": build.port(nir.Output, 4),
        "out2": build.port(nir.Output, 2, 3),
    }
    edges = [("input", "flat"), ("flat", "fc"), ("fc", "cell"), ("cell", "leak"), ("leak", "output")]
    graph = build.graph(nodes, [*edges, ("input", "grid"), ("grid", "out2")], contract)
    data = {"input": rng.normal(size=(2, 20, 2, 3)) * 2}
    by_hand.agrees(graph, contract, data)
    record = run_reference(lower(graph), data, record=["grid"])
    assert record.spikes("grid").shape == (2, 20, 2, 3)


@pytest.mark.parametrize(
    "readout, task, shape",
    [
        ("count", "classify", (2,)),
        ("mean", "classify", (2,)),
        ("last", "classify", (2,)),
        ("max", "classify", (2,)),
        ("per_step", "classify", (2, 9)),
        ("mean", "regress", (2, 4)),
        ("max", "regress", (2, 4)),
        ("per_step", "regress", (2, 9, 4)),
    ],
)
@pytest.mark.parametrize("signal", ["spikes", "membrane"])
def test_readouts(build, rng, signal, readout, task, shape):
    contract = Contract(dt=1.0, readouts={"output": Readout(signal, readout, task)})
    graph = build.chain(3, build.affine(rng, 4, 3), build.lif(4), contract=contract)
    record = run_reference(lower(graph), rng.normal(size=(2, 9, 3)), record=["n1"], probes=["n1.v"])
    trace = np.asarray(record.spikes("n1") if signal == "spikes" else record.states("n1.v"), float)
    np.testing.assert_array_equal(record.outputs, trace)
    value = {
        "count": trace.sum(1),
        "mean": trace.mean(1),
        "last": trace[:, -1],
        "max": trace.max(1),
        "per_step": trace,
    }[readout]
    assert record.predictions.shape == shape
    wanted = value if task == "regress" else value.argmax(-1)
    np.testing.assert_allclose(record.predictions, wanted, rtol=1e-12)


def test_inputs_are_checked(build, rng):
    one = lower(build.chain(3, build.lif(3)))
    nodes = {
        "a": build.port(nir.Input, 3),
        "b": build.port(nir.Input, 3),
        "n": build.lif(3),
        "o": build.port(nir.Output, 3),
    }
    two = lower(build.graph(nodes, [("a", "n"), ("b", "n"), ("n", "o")]))
    ok = np.ones((2, 5, 3))
    for network, inputs, words in [
        (one, np.ones((2, 5, 4)), "(2, 5, 4)"),
        (one, np.ones(5), "(5,)"),
        (one, np.ones((0, 5, 3)), "empty"),
        (one, np.full((2, 5, 3), np.nan), "not finite"),
        (one, {"other": ok}, "other"),
        (two, ok, "several inputs"),
        (two, {"a": ok}, "'b'"),
        (two, {"a": ok, "b": ok, "c": ok}, "'c'"),
        (two, {"a": ok, "b": ok[:, :3]}, "differ"),
        (two, {"a": ok, "b": ok[:1]}, "differ"),
    ]:
        with pytest.raises(WrongInput) as error:
            run_reference(network, inputs)
        assert words in str(error.value) and "\n" not in str(error.value)
