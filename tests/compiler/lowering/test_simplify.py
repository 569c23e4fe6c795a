"""Rewrites leave spikes and membranes as they are, and leave nothing that a chip has not."""

from __future__ import annotations

import nir
import numpy as np
import pytest

from snn_compile.compiler import Options, compile_graph, compile_stages, lower
from snn_compile.compiler.lowering.simplify import simplify
from snn_compile.compiler.reference import run_reference
from snn_compile.targets.devices.device import execute


@pytest.fixture
def biased(build, rng):
    """A current-based layer behind a biased Affine, recurrent through another, and a biased read-out."""
    nodes = {
        "input": build.port(nir.Input, 3),
        "fc": build.affine(rng, 6, 3, 1.5),
        "cell": build.cuba(6, v_leak=0.1, v_reset=-0.2),
        "back": build.affine(rng, 6, 6, 0.7),
        "out_fc": build.affine(rng, 2, 6),
        "leak": build.li(2),
        "output": build.port(nir.Output, 2),
    }
    edges = [("input", "fc"), ("fc", "cell"), ("cell", "back"), ("back", "cell")]
    edges += [("cell", "out_fc"), ("out_fc", "leak"), ("leak", "output")]
    return build.graph(nodes, edges, delays={("cell", "back"): 1})


def same_run(first, second, data, names):
    probes = [f"{name}.v" for name in names]
    spiking = [p.name for p in first.populations if p.spiking]
    a, b = (run_reference(network, data, record=spiking, probes=probes) for network in (first, second))
    for name in spiking:
        np.testing.assert_array_equal(a.spikes(name), b.spikes(name))
    for probe in probes:
        np.testing.assert_allclose(a.states(probe), b.states(probe), rtol=1e-12, atol=1e-13)
    return a


def test_biases_are_settled_and_spikes_stay(biased, spikes):
    network = lower(biased)
    simple = simplify(network)
    assert any(p.parameters["input_bias"].any() for p in network.populations)
    assert not any(p.parameters["input_bias"].any() for p in simple.populations)
    assert {p.name for p in simple.populations} == {"cell", "leak", "cell.bias"}
    record = same_run(network, simple, spikes, ["cell", "leak"])
    assert record.spikes("cell").any()
    assert run_reference(simple, spikes, record=["cell.bias"]).spikes("cell.bias").all()


def test_a_layer_without_a_current_takes_the_bias_itself(build, rng, spikes):
    network = lower(build.chain(3, build.affine(rng, 4, 3), build.lif(4, v_leak=0.3)))
    simple = simplify(network)
    assert [p.name for p in simple.populations] == ["n1"]
    same_run(network, simple, spikes, ["n1"])
    assert simplify(simple).digest() == simple.digest()


def test_nothing_to_do_changes_nothing(build, rng):
    network = lower(build.chain(3, build.linear(rng, 4, 3), build.cuba(4)))
    assert simplify(network).digest() == network.digest()


@pytest.mark.parametrize("calibrated", [True, False])
def test_programs_with_an_always_on_neuron(biased, spikes, calibrated):
    program = compile_graph(biased, options=Options(), calibration=spikes if calibrated else None)
    record = execute(program, spikes, "oracle", record=["cell", "cell.bias"], probes=["cell.v"], strict=True)
    assert record.spikes("cell.bias").all()
    ideal = run_reference(lower(biased), spikes, record=["cell"], probes=["cell.v"])
    same = (record.spikes("cell") == ideal.spikes("cell")).mean()
    assert same > 0.9
    assert record.outputs.shape == ideal.outputs.shape


def test_the_bias_arrives_from_the_first_step(build):
    """No data, a bias alone: the integer membrane follows the float one from step 0."""
    layer = nir.Affine(np.zeros((2, 1)), np.array([0.3, -0.2]))
    graph = build.chain(
        1, layer, build.cuba(2, v_threshold=5.0), build.linear(np.random.default_rng(0), 1, 2)
    )
    nodes = {**graph.nodes, "leak": build.li(1)}
    edges = [("input", "n0"), ("n0", "n1"), ("n1", "n2"), ("n2", "leak"), ("leak", "output")]
    done = compile_stages(build.graph(nodes, edges), calibration=np.zeros((1, 20, 1)))
    v = execute(done.program, np.zeros((1, 20, 1)), "oracle", probes=["n1.v"]).states("n1.v")[0]
    ideal = run_reference(done.network, np.zeros((1, 20, 1)), probes=["n1.v"]).states("n1.v")[0]
    scale = done.program.population("n1").scale
    np.testing.assert_allclose(v / scale, ideal, atol=0.005 * np.abs(ideal).max())


@pytest.mark.parametrize("read", ["spikes", "membrane"])
def test_a_threshold_behind_an_integrator_is_one_neuron(build, rng, spikes, read):
    nodes = {
        "input": build.port(nir.Input, 3),
        "fc": build.affine(rng, 4, 3, 2.0),
        "leak": nir.CubaLI(*[np.full(4, x) for x in (2.0, 3.0, 1.5, 0.1)]),
        "over": nir.Threshold(np.array([0.1, 0.3, 0.5, 0.7])),
        "output": build.port(nir.Output, 4),
    }
    edges = [("input", "fc"), ("fc", "leak"), ("leak", "over")]
    edges.append(("over" if read == "spikes" else "leak", "output"))
    network = lower(build.graph(nodes, edges))
    simple = simplify(network)
    assert {p.name for p in network.populations} == {"leak", "over"}
    assert {p.name for p in simple.populations} == {"over", "over.bias"}
    a, b = (run_reference(each, spikes, record=["over"]) for each in (network, simple))
    np.testing.assert_array_equal(a.spikes("over"), b.spikes("over"))
    np.testing.assert_allclose(a.outputs, b.outputs, rtol=1e-12, atol=1e-12)
    assert a.spikes("over").any()
    ran = execute(compile_graph(network, calibration=spikes), spikes, "oracle", record=["over"], strict=True)
    assert (ran.spikes("over") == a.spikes("over")).mean() > 0.97


def test_an_integrator_that_others_hear_too_stays(build, rng, spikes):
    nodes = {
        "input": build.port(nir.Input, 3),
        "leak": build.li(3),
        "over": nir.Threshold(np.full(3, 0.4)),
        "top": build.lif(3),
        "output": build.port(nir.Output, 3),
    }
    edges = [("input", "leak"), ("leak", "over"), ("leak", "top"), ("over", "top"), ("top", "output")]
    network = lower(build.graph(nodes, edges))
    assert {p.name for p in simplify(network).populations} == {"leak", "over", "top"}
    same_run(network, simplify(network), spikes, ["leak", "over", "top"])


def test_a_threshold_that_hears_late_stays_apart(build, spikes):
    nodes = {
        "input": build.port(nir.Input, 3),
        "leak": build.li(3),
        "over": nir.Threshold(np.full(3, 0.4)),
        "output": build.port(nir.Output, 3),
    }
    edges = [("input", "leak"), ("leak", "over"), ("over", "output")]
    network = lower(build.graph(nodes, edges, delays={("leak", "over"): 2}))
    assert {p.name for p in simplify(network).populations} == {"leak", "over"}
    same_run(network, simplify(network), spikes, ["leak", "over"])
