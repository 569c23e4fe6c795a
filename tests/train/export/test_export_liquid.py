"""Liquid spiking neurons through NIR's extension node: files, refusals, spikes of torch, approximation."""

from dataclasses import replace

import nir
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from snn_compile import compiler, runtime, train
from snn_compile.compiler.contract.contract import attach
from snn_compile.compiler.contract.resolve import resolve
from snn_compile.compiler.frontends.nir import read_nir
from snn_compile.compiler.frontends.nir_extensions import LSN
from snn_compile.compiler.pipeline import Options
from snn_compile.targets.errors import CompileError, ExportError
from snn_compile.train.networks.blockwise import OnlineConfig, OnlineNetwork
from snn_compile.train.networks.recurrent import RecurrentConfig, RecurrentNetwork

CONFIG = OnlineConfig((3,), 4, hidden=(12,), readout="leaky", tau_readout=(5.0, 1.0))


def network(seed, **values):
    torch.manual_seed(seed)
    made = OnlineNetwork(replace(CONFIG, **values)).double()
    for layer in made.dense if made.config.neuron == "lsn" else ():
        layer.input.weight.data *= 2
        layer.input.bias.data += 0.3
    return made


def inputs_of(seed, samples=3, steps=40):
    torch.manual_seed(seed)
    return torch.rand(samples, steps, 3, dtype=torch.float64) * 2


def lowered(net, inputs):
    return compiler.lower(train.to_nir(net, inputs))


@settings(max_examples=20)
@given(st.integers(0, 10**6), st.booleans(), st.booleans(), st.sampled_from([(12,), (7, 5)]))
def test_the_graph_spikes_as_torch_does(seed, adaptive, recurrent, hidden):
    net, inputs = network(seed, adaptive=adaptive, recurrent=recurrent, hidden=hidden), inputs_of(seed)
    with torch.no_grad():
        run = net.run(inputs)
    names = list(run.spikes)
    record = runtime.reference(lowered(net, inputs), inputs.numpy(), record=names)
    for name in names:
        np.testing.assert_array_equal(record.spikes(name), run.spikes[name].numpy())
    assert run.spikes[names[0]].any()
    np.testing.assert_allclose(record.outputs, run.outputs.numpy(), rtol=1e-9, atol=1e-12)


@settings(max_examples=10, deadline=None)
@given(
    st.integers(0, 10**6), st.booleans(), st.sampled_from([1, 3, 5]), st.sampled_from([1, 2]),
    st.sampled_from([(5, 6), (4, 4), (7, 3)]),
)  # fmt: skip
def test_layers_of_convolutions_spike_as_torch_does(seed, adaptive, gate, stride, plane):
    values = {"input_shape": (2, *plane), "channels": (3, 2), "hidden": (6,), "stride": stride, "gate": gate}
    net = network(seed, adaptive=adaptive, **values)
    for layer in net.convolutions:
        layer.input.weight.data *= 2
        layer.input.bias.data.uniform_(0, 0.6)
        layer.membrane.bias.data.uniform_(-2, 2)
    torch.manual_seed(seed)
    inputs = torch.rand(2, 15, 2, *plane, dtype=torch.float64) * 2
    with torch.no_grad():
        run = net.run(inputs)
    record = runtime.reference(lowered(net, inputs), inputs.numpy(), record=list(run.spikes))
    for name, spikes in run.spikes.items():
        np.testing.assert_array_equal(record.spikes(name), spikes.numpy())
    assert run.spikes["hidden1"].any()
    np.testing.assert_allclose(record.outputs, run.outputs.numpy(), rtol=1e-9, atol=1e-12)


def test_a_file_holds_the_node_and_a_plain_reader_names_it(tmp_path):
    net, inputs = network(1), inputs_of(1)
    graph, path = train.to_nir(net, inputs), tmp_path / "net.nir"
    nir.write(path, graph)
    again = read_nir(path)
    for key in ("w_membrane", "b_membrane", "w_adaptation", "b_adaptation", "theta", "rise"):
        np.testing.assert_array_equal(
            getattr(again.nodes["hidden"], key), getattr(graph.nodes["hidden"], key)
        )
    a, b = (runtime.reference(compiler.lower(g), inputs.numpy()).outputs for g in (graph, again))
    np.testing.assert_array_equal(a, b)
    with pytest.raises(AssertionError):
        nir.read(path)


def test_parameters_that_do_not_fit_are_refused(tmp_path):
    good = train.to_nir(network(1), inputs_of(1)).nodes["hidden"]
    with pytest.raises(ValueError, match="'w_membrane' has shape"):
        LSN(
            good.w_membrane[:, :5],
            good.b_membrane,
            good.w_adaptation,
            good.b_adaptation,
            good.theta,
            good.rise,
        )
    graph, path = train.to_nir(network(1), inputs_of(1)), tmp_path / "net.nir"
    graph.nodes["hidden"].w_adaptation = good.w_adaptation[:, :5]
    nir.write(path, graph)
    with pytest.raises(CompileError, match="'w_adaptation' has shape"):
        read_nir(path)


@pytest.mark.parametrize("adaptive", [True, False])
def test_a_slow_program_and_delayed_layers_are_the_same_network(adaptive):
    """Two layers, a delay of 2 steps before the second: at a half of the speed nothing else changes."""
    net, inputs = network(5, adaptive=adaptive, hidden=(7, 5)), inputs_of(5, 2, 15)
    graph, data = train.to_nir(net, inputs), inputs.numpy()
    contract, _ = resolve(graph, None)
    attach(graph, replace(contract, delays={**contract.delays, ("hidden1", "fc2"): 2}))
    calibrated = {"calibration": data, "target": "loihi2-sim"}
    programs = [compiler.compile_graph(graph, options=Options(c_slow=c), **calibrated) for c in (1, 2)]
    assert [p.period for p in programs] == [1, 2]
    assert programs[0].start_step("hidden1") != programs[0].start_step("hidden2")
    records = [
        runtime.simulate(p, data, device=device, record=("hidden1", "hidden2"))
        for p in programs
        for device in ("oracle", "loihi2-sim")
    ]
    ideal = runtime.reference(compiler.lower(graph), data, record=("hidden1", "hidden2"))
    for name in ("hidden1", "hidden2"):
        for other in records[1:]:
            np.testing.assert_array_equal(other.spikes(name), records[0].spikes(name))
        assert (records[0].spikes(name) == ideal.spikes(name)).mean() > 0.8
    assert records[0].spikes("hidden2").any()


def test_neurons_that_feed_themselves_without_a_node_between_compile():
    """The names of a layer's projections stay apart."""
    net, inputs = network(6), inputs_of(6, 2, 10)
    graph = train.to_nir(net, inputs)
    graph.edges.append(("hidden", "hidden"))
    contract, _ = resolve(train.to_nir(net, inputs), None)
    attach(graph, contract)
    program = compiler.compile_graph(graph, calibration=inputs.numpy())
    names = {e.name for e in program.projections}
    assert {"hidden/hidden", "hidden/hidden.adaptation", "hidden|hidden.adaptation"} <= names


CONVOLUTIONS = {"input_shape": (2, 5, 5), "channels": (3,), "hidden": (4,)}
DAMAGE = {
    "square gate": ("hidden2", "w_membrane", lambda w: w[:, : len(w)], "'w_membrane' has shape"),
    "gate of one neuron less": ("hidden2", "w_adaptation", lambda w: w[:-1], "'w_adaptation' has shape"),
    "gate with three axes": ("hidden2", "w_membrane", lambda w: w[None], "'w_membrane' has shape"),
    "one bias": ("hidden2", "b_membrane", lambda b: b[:1], "and b_membrane \\(1,\\)"),
    "bias not finite": ("hidden2", "b_adaptation", lambda b: b * np.nan, "b_adaptation"),
    "gate not finite": ("hidden2", "w_membrane", lambda w: w / 0.0, "w_membrane"),
    "threshold not finite": ("hidden2", "theta", lambda x: x * np.inf, "theta"),
    "rise below 0": ("hidden2", "rise", lambda x: x - 9, "'hidden2': rise must be 0 or more"),
    "threshold below 0": ("hidden2", "theta", lambda x: x - 9, "'hidden2': a threshold of -8.9"),
    "no neurons": ("hidden2", "theta", lambda x: x[:0], "theta"),
    "text": ("hidden2", "rise", lambda x: np.array(["a"] * len(x), "S1"), "rise"),
    "even kernel": ("hidden1", "w_membrane", lambda w: w[..., :2, :2], "odd height and width is possible"),
    "kernel of other channels": ("hidden1", "w_membrane", lambda w: w[:, :2], "'w_membrane' has shape"),
    "kernel without channels": ("hidden1", "w_adaptation", lambda w: w[0, 0], "'w_adaptation' has shape"),
    "kernel bias per neuron": ("hidden1", "b_membrane", lambda b: np.tile(b, 9), "'b_membrane' has shape"),
    "kernel not finite": ("hidden1", "w_adaptation", lambda w: w * np.nan, "w_adaptation"),
    "flat layer": ("hidden1", "theta", lambda x: x.reshape(-1), "theta"),
    "rise of another shape": ("hidden1", "rise", lambda x: x[:2], "rise"),
    "convolution's rise below 0": ("hidden1", "rise", lambda x: x - 9, "'hidden1': rise must be 0 or more"),
}


@pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_node_is_one_clear_line(tmp_path, name):
    node, key, change, says = DAMAGE[name]
    net = network(1, **CONVOLUTIONS)
    inputs = torch.rand(2, 6, 2, 5, 5, dtype=torch.float64)
    graph, path = train.to_nir(net, inputs), tmp_path / "net.nir"
    contract, _ = resolve(graph, None)
    setattr(graph.nodes[node], key, change(getattr(graph.nodes[node], key)))
    attach(graph, contract)
    nir.write(path, graph)
    with pytest.raises(CompileError, match=says) as caught:
        compiler.compile_graph(path, calibration=inputs.numpy())
    assert "\n" not in str(caught.value) and node in str(caught.value)


def test_the_approximation_is_refused_and_names_the_neurons():
    net, inputs = network(2), inputs_of(2)
    graph = train.to_nir(net, inputs)
    with pytest.raises(CompileError, match=r"node 'hidden': liquid spiking neurons \(lsn\).*--approximate"):
        compiler.compile_graph(graph, options=Options(approximate=True), calibration=inputs.numpy())
    other = RecurrentNetwork(RecurrentConfig(3, 5, 4, neuron="alif")).double()
    done = compiler.compile_graph(train.to_nir(other, inputs), options=Options(approximate=True))
    assert done.population("hidden").model == "alif"


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.booleans(), st.booleans())
def test_what_sends_the_states_of_a_layer_has_them(seed, adaptive, recurrent):
    """On every device the copies fire with the neurons, and the gates read what the neurons have."""
    net, inputs = network(seed, adaptive=adaptive, recurrent=recurrent), inputs_of(seed, 2, 15).numpy()
    program = compiler.compile_graph(train.to_nir(net, torch.from_numpy(inputs)), calibration=inputs)
    a, b = program.population("hidden"), program.population("hidden.membrane")
    for key, values in a.parameters.items():
        np.testing.assert_array_equal(values, b.parameters[key])
    probes = ["hidden.v", "hidden.membrane.v", "hidden.b", "hidden.membrane.b"]
    probes += ["hidden.adaptation.b"] if adaptive else []
    record = runtime.simulate(program, inputs, device="oracle", probes=probes)
    for state in "vb":
        np.testing.assert_array_equal(
            record.states(f"hidden.{state}"), record.states(f"hidden.membrane.{state}")
        )
    if adaptive:
        # A gate's input is summed in other units there, and its rates differ by a place of the table at most.
        apart = record.states("hidden.adaptation.b") - record.states("hidden.b")
        assert np.abs(apart).max() < 1 << 10
    assert adaptive or "hidden.adaptation" not in {p.name for p in program.populations}


@pytest.mark.parametrize(
    "values, says",
    [
        ({"readout": "membrane"}, "readout=leaky has one"),
        ({"readout": "liquid"}, "readout=leaky has one"),
        ({"start": "random"}, "random"),
        ({"neuron": "lstm", "readout": "membrane"}, "kind lstm"),
        ({"input_shape": (1, 4, 4), "channels": (2,)} | {"readout": "liquid"}, "readout=leaky has one"),
    ],
)
def test_what_has_no_node_is_told(values, says):
    with pytest.raises(ExportError, match=says):
        train.to_nir(network(0, **values), inputs_of(0))
