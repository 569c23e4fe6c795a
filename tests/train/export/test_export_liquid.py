"""Liquid spiking neurons through NIR's extension node: files, refusals, spikes of torch, approximation."""

from dataclasses import replace

import nir
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from snn_compile import compiler, runtime, train
from snn_compile.compiler.frontends.nir import read_nir
from snn_compile.compiler.frontends.nir_extensions import LSN
from snn_compile.compiler.lowering.freeze_rates import freeze_rates
from snn_compile.compiler.pipeline import Options, compile_stages
from snn_compile.compiler.reference import as_inputs, run_float
from snn_compile.targets.devices.device import execute
from snn_compile.targets.errors import CompileError, ExportError, UnsupportedNode
from snn_compile.train.algorithms import fptt
from snn_compile.train.configs.fptt import FpttConfig
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


def test_a_chip_refuses_and_names_node_and_approximation():
    net, inputs = network(2), inputs_of(2)
    graph = train.to_nir(net, inputs)
    with pytest.raises(UnsupportedNode, match=r"node 'hidden': .*LSN.*--approximate"):
        compiler.compile_graph(graph, calibration=inputs.numpy())
    with pytest.raises(CompileError, match="takes data; use --calibrate"):
        compiler.compile_graph(graph, options=Options(approximate=True))


@settings(max_examples=15)
@given(st.integers(0, 10**6), st.booleans())
def test_frozen_rates_are_means_and_the_neurons_those_of_the_formula(seed, adaptive):
    net, inputs = network(seed, adaptive=adaptive), inputs_of(seed)
    before = lowered(net, inputs)
    after, told = freeze_rates(before, as_inputs(before, inputs.numpy()), True)
    assert len(told) == 1 and "hidden: liquid rates held" in told[0]
    run = run_float(before, as_inputs(before, inputs.numpy()), probes=("hidden.m", "hidden.rho"))
    m, rho = (run.states[f"hidden.{key}"].mean((0, 1)) for key in ("m", "rho"))
    with torch.no_grad():
        layer = net.dense[0]
        drive, back = layer.input(inputs).numpy(), layer.recurrent.weight.numpy()
    u, b, s = (np.zeros((3, 12)) for _ in range(3))
    spikes = []
    for x in drive.transpose(1, 0, 2):
        b = rho * b + (1 - rho) * s
        theta = 0.1 + 1.8 * b if adaptive else 0.5
        u = u + (x + s @ back.T - u) * m
        s = (u > theta).astype(float)
        u = u - theta * s
        spikes.append(s)
    record = runtime.reference(after, inputs.numpy(), record=("hidden",))
    assert (record.spikes("hidden") == np.stack(spikes, 1)).mean() > 0.999  # ties of rounding


def test_a_network_without_liquid_neurons_is_left_alone():
    other = RecurrentNetwork(RecurrentConfig(3, 5, 4, neuron="alif")).double()
    before = lowered(other, inputs_of(3))
    assert freeze_rates(before, None, False) == (before, ())


def test_the_approximation_runs_on_the_chip_and_is_told(tmp_path):
    config = FpttConfig(
        layout="rows", hidden=(32,), readout="leaky", tau_readout=(5.0, 1.0), parts=2, alpha=0.1, epochs=6,
        batch_size=64,
    )  # fmt: skip
    training = fptt.fit(config, tmp_path / "net.pt")
    held = train.load_checkpoint(tmp_path / "net.pt")
    data = runtime.load_data("digits", "test", **held.data["options"])
    some = runtime.load_data("digits", "calibration", **held.data["options"])
    exact = runtime.reference(compiler.lower(held.graph), data.inputs).predictions
    right = float((np.asarray(exact) == data.labels).mean())
    assert right == pytest.approx(training.metrics["test_accuracy"], abs=0.005)
    done = compile_stages(held.graph, options=Options(approximate=True), calibration=some.inputs)
    assert any("liquid rates held at their means" in told for told in done.quantized.warnings)
    assert done.network.population("hidden").model == "lsn"
    record = execute(done.program, data.inputs)
    assert float((record.predictions == data.labels).mean()) > 0.2


@pytest.mark.parametrize(
    "values, says",
    [
        ({"readout": "membrane"}, "readout=leaky has one"),
        ({"readout": "liquid"}, "readout=leaky has one"),
        ({"start": "random"}, "random"),
        ({"neuron": "lstm", "readout": "membrane"}, "kind lstm"),
        ({"input_shape": (1, 4, 4), "channels": (2,)}, "gates are convolutions"),
    ],
)
def test_what_has_no_node_is_told(values, says):
    with pytest.raises(ExportError, match=says):
        train.to_nir(network(0, **values), inputs_of(0))
