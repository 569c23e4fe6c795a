"""Balanced resonators and adaptive neurons through extension nodes of NIR: files, refusals, spikes."""

import re

import h5py
import nir
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from snn_compile import compiler, runtime, train
from snn_compile.compiler.frontends.nir import node_formats, read_nir
from snn_compile.compiler.frontends.nir_extensions import ALIF, EXTENSIONS
from snn_compile.targets.errors import CompileError, UnsupportedNode
from snn_compile.train.networks.recurrent import RecurrentConfig, RecurrentNetwork

FLAGS = ("refractory", "smooth_reset", "boundary")


def network(seed, neuron="brf", delta=0.02, **words):
    torch.manual_seed(seed)
    config = {"inputs": 3, "hidden": 12, "classes": 4, "omega": (2.0, 16.0), **words}
    return RecurrentNetwork(RecurrentConfig(neuron=neuron, delta=delta, **config))


def inputs_of(net, samples=3, steps=60):
    size = 2.0 if net.config.neuron == "alif" else 4 / net.config.delta
    return torch.rand(samples, steps, net.config.inputs, dtype=torch.float64) * size


def graph_of(neuron="brf"):
    net = network(0, neuron)
    return train.to_nir(net, inputs_of(net))


def assert_spikes_of_torch(net):
    """Compare spikes and read-out of a network in float64 with the float reference of its graph."""
    net, inputs = net.double(), inputs_of(net)
    with torch.no_grad():
        run = net.run(inputs)
    record = runtime.reference(compiler.lower(train.to_nir(net, inputs)), inputs.numpy(), record=("hidden",))
    assert run.spikes["hidden"].any()
    np.testing.assert_array_equal(record.spikes("hidden"), run.spikes["hidden"].numpy())
    np.testing.assert_allclose(record.outputs, run.outputs.numpy(), rtol=1e-10, atol=1e-12)


@settings(max_examples=16)
@given(st.integers(0, 10**6), st.sampled_from([0.01, 0.02]), st.tuples(*[st.booleans()] * 3))
def test_balanced_resonators_and_their_ablations_spike_as_in_torch(seed, delta, flags):
    assert_spikes_of_torch(network(seed, "brf", delta, **dict(zip(FLAGS, flags, strict=True))))


@settings(max_examples=8)
@given(st.integers(0, 10**6), st.sampled_from(["theta", "2theta"]))
def test_adaptive_neurons_spike_as_in_torch(seed, reset):
    assert_spikes_of_torch(network(seed, "alif", adaptive_reset=reset))


@settings(max_examples=8)
@given(st.integers(0, 10**6), st.sampled_from([0.01, 0.02]))
def test_reset_resonators_spike_as_in_torch(seed, delta):
    assert_spikes_of_torch(network(seed, "rf_iz", delta))


@pytest.mark.parametrize("neuron", ["brf", "alif"])
def test_spikes_in_float32_differ_near_the_threshold_only(neuron):
    """The first spike that differs from float32's is of a membrane within 1e-5 of its threshold."""
    net = network(3, neuron)
    inputs = inputs_of(net, steps=80)
    with torch.no_grad():
        spikes = net.run(inputs.float()).spikes["hidden"].numpy()
    lowered = compiler.lower(train.to_nir(net, inputs))
    probes = ("hidden.v", "hidden.r") if neuron == "brf" else ("hidden.v", "hidden.theta")
    record = runtime.reference(lowered, inputs.float().double().numpy(), record=("hidden",), probes=probes)
    differs = record.spikes("hidden") != spikes
    for sample in np.flatnonzero(differs.any(axis=(1, 2))):
        first = int(np.flatnonzero(differs[sample].any(axis=1))[0])
        v, other = (record.states(probe)[sample] for probe in probes)
        before = other[first - 1] if first else 0 * other[0] + (0.0 if neuron == "brf" else 0.01)
        theta = 1 + before if neuron == "brf" else before
        # What fired was reset already, which a resonator is not.
        reached = v[first] + (0 if neuron == "brf" else theta * record.spikes("hidden")[sample, first])
        assert (np.abs(reached / theta - 1)[differs[sample, first]] < 1e-5).all()
    assert (record.spikes("hidden") == spikes).mean() > 0.99


@pytest.mark.parametrize("neuron", ["brf", "rf_iz", "alif"])
def test_a_graph_survives_a_file_and_a_checkpoint(tmp_path, neuron):
    net = network(1, neuron)
    inputs = inputs_of(net)
    graph = train.to_nir(net, inputs)
    nir.write(tmp_path / "net.nir", graph)
    again = read_nir(tmp_path / "net.nir")
    node, read = graph.nodes["hidden"], again.nodes["hidden"]
    assert type(read) is EXTENSIONS[neuron.upper()] and again.metadata == graph.metadata
    for key in node_formats()[neuron.upper()].needed:
        np.testing.assert_array_equal(getattr(read, key), getattr(node, key))
    nir.write(tmp_path / "again.nir", again)
    compiler.lower(tmp_path / "again.nir")  # its contract is bound to the parameters: none changed
    train.save_checkpoint(tmp_path / "net.pt", net, inputs)
    held = train.load_checkpoint(tmp_path / "net.pt")
    assert not held.unexported
    wanted = runtime.reference(compiler.lower(graph), inputs.numpy()).outputs
    for found in (tmp_path / "net.nir", held.graph):
        np.testing.assert_array_equal(
            runtime.reference(compiler.lower(found), inputs.numpy()).outputs, wanted
        )


@pytest.mark.parametrize("neuron", ["brf", "rf_iz", "alif"])
def test_a_plain_reader_refuses_what_it_has_no_node_for(tmp_path, neuron):
    """nir 1.0.8 says by an assertion, without words, that a type is not among its own."""
    nir.write(tmp_path / "net.nir", graph_of(neuron))
    with pytest.raises(AssertionError) as caught:
        nir.read(tmp_path / "net.nir")
    assert str(caught.traceback[-1].statement).strip() == "assert type in __all_ir"


BROKEN = {
    "an entry missing": ("omega", None, "a BRF without 'omega'"),
    "another shape": ("gamma", np.full(5, 0.9), "and gamma (5,); parameters of a BRF share one shape"),
    "not finite": ("theta", np.full(12, np.nan), "'theta' holds nan at (0,)"),
    "an entry too many": ("phase", np.zeros(12), "a BRF with 'phase' is not supported"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_node_is_told_by_file_and_node(tmp_path, what):
    key, value, said = BROKEN[what]
    nir.write(tmp_path / "net.nir", graph_of())
    with h5py.File(tmp_path / "net.nir", "r+") as file:
        group = file["node/nodes/hidden"]
        if key in group:
            del group[key]
        if value is not None:
            group[key] = value
    with pytest.raises(CompileError, match=re.escape(said)) as caught:
        read_nir(tmp_path / "net.nir")
    assert "net.nir" in str(caught.value) and "'hidden'" in str(caught.value)


MEANINGLESS = {
    "faster than the step": ("brf", {"omega": np.full(12, 60.0)}, "no divergence boundary"),
    "no threshold": ("rf_iz", {"theta": np.zeros(12)}, "delta and theta must be positive"),
    "a share above 1": ("brf", {"gamma": np.full(12, 1.5)}, "gamma from 0 to 1"),
    "half a reset": ("brf", {"smooth_reset": np.full(12, 0.5)}, "0 or 1"),
    "another step": ("brf", {"delta": np.full(12, 0.01)}, "defined for steps of 0.01 s, and dt is 0.02"),
    "three thresholds": ("alif", {"reset": np.full(12, 3.0)}, "1 or 2 thresholds"),
    "no time constant": ("alif", {"tau": np.zeros(12)}, "a time constant of 0"),
}


@pytest.mark.parametrize("what", MEANINGLESS)
def test_parameters_without_a_meaning_are_told(what):
    neuron, changed, said = MEANINGLESS[what]
    graph = graph_of(neuron)
    for key, value in changed.items():
        setattr(graph.nodes["hidden"], key, value)
    del graph.metadata["snn_compile"]
    dt = 1.0 if neuron == "alif" else 0.02
    delays = {("hidden", "hidden_recurrent"): 1}
    with pytest.raises(CompileError, match=re.escape(said)):
        compiler.lower(graph, {"dt": dt, "rule": "euler", "delays": delays})


def test_parameters_share_a_shape_and_unknown_types_are_refused(tmp_path):
    size = np.ones(3)
    with pytest.raises(ValueError, match="all share that of the neurons"):
        ALIF(tau=size, r=size, theta=size, tau_adaptation=size, adaptation=np.ones(2), reset=size)
    assert {name: set(vars(kind)["__annotations__"]) for name, kind in EXTENSIONS.items()} == {
        name: node_formats()[name].needed for name in EXTENSIONS
    }
    nir.write(tmp_path / "net.nir", graph_of())
    with h5py.File(tmp_path / "net.nir", "r+") as file:
        del file["node/nodes/hidden/type"]
        file["node/nodes/hidden/type"] = "os.system"
    with pytest.raises(UnsupportedNode, match="'os.system' is neither one of NIR 1.0.8 nor an extension"):
        read_nir(tmp_path / "net.nir")
