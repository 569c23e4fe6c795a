"""Feedback networks as NIR graphs: the float reference, and chips, step for step."""

import numpy as np
import pytest
import torch
from support import feedback_networks
from torch import nn

from snn_compile import compiler, runtime
from snn_compile.compiler.contract.contract import graph_digest
from snn_compile.compiler.contract.resolve import resolve
from snn_compile.targets.errors import ExportError
from snn_compile.train import load_checkpoint, save_checkpoint, to_nir

KINDS = ("dense", "two dense", "convolution", "three, transposed feedback", "convolution and dense")


def spikes(network, inputs):
    steps = inputs.shape[1]
    rates = network.simulate(network.currents(inputs), steps, record=True)
    return dict(zip(network.layer_names, (z.numpy() for z in rates.spikes), strict=True))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("decay", [0.95, 1.0])
@pytest.mark.parametrize("dt", [None, 1e-3])
def test_the_float_reference_spikes_as_torch_does(kind, decay, dt):
    net = feedback_networks.network(kind, 11, decay=decay)
    inputs = torch.rand(6, 15, *net.config.input_shape, dtype=torch.float64)
    graph = to_nir(net, inputs, dt)
    contract, decided = resolve(graph)
    assert (contract.reset, contract.comparison, contract.reset_timing) == ("subtract", ">=", "same_step")
    assert {item for item, how in decided.items() if how != "metadata"} == set()
    assert list(contract.delays.values()) == [1]
    record = runtime.reference(compiler.lower(graph), inputs.numpy(), record=net.layer_names)
    for name, wanted in spikes(net, inputs).items():
        assert 0 < wanted.mean() < 1
        found = record.spikes(name)
        np.testing.assert_array_equal(found.reshape(wanted.shape), wanted)
    with torch.no_grad():
        wanted = net(inputs)
    np.testing.assert_allclose(record.outputs, wanted.numpy(), atol=1e-9)
    np.testing.assert_array_equal(record.predictions, wanted[:, -1].argmax(dim=1).numpy())


@pytest.mark.parametrize("kind", KINDS)
def test_folded_normalisation_is_in_the_graph(kind):
    net = feedback_networks.network(kind, 12).float()
    graph = to_nir(net, torch.zeros(1, 5, *net.config.input_shape))
    for number, layer in enumerate(net.forwards, start=1):
        node = graph.nodes[f"{'conv' if layer.kernel else 'fc'}{number}"]
        x = torch.rand(5, *layer.source)
        weight, bias = torch.from_numpy(node.weight), torch.from_numpy(node.bias)
        with torch.no_grad():
            wanted = layer.normalised(layer(x), learning=False)
            flat = weight.ndim == 2
            found = (
                nn.functional.linear(x.flatten(1), weight, bias) if flat else layer.mapped(x, weight, bias)
            )
            torch.testing.assert_close(found.reshape(wanted.shape), wanted, rtol=1e-6, atol=1e-6)


def test_a_checkpoint_holds_the_network_and_its_graph(tmp_path):
    net = feedback_networks.network("two dense", 13).float()
    sample = torch.zeros(1, 5, *net.config.input_shape)
    save_checkpoint(tmp_path / "model.pt", net, sample)
    held = load_checkpoint(tmp_path / "model.pt")
    other = feedback_networks.network("two dense", 14).float()
    other.load_state_dict(dict(held.state_dict))
    assert held.graph is not None and held.unexported == ""
    assert held.digest() == graph_digest(to_nir(other, sample))
    x = torch.rand(3, 5, *net.config.input_shape)
    with torch.no_grad():
        assert torch.equal(net(x), other(x))


def test_what_cannot_be_written_is_refused(monkeypatch):
    net = feedback_networks.network("three, transposed feedback", 15)
    with pytest.raises(ExportError, match="sample input"):
        to_nir(net, torch.zeros(1, 5, 3))
    sample = torch.zeros(1, 5, *net.config.input_shape)
    monkeypatch.setattr("snn_compile.train.export.feedback.MATRIX_MAX", 100)
    with pytest.raises(ExportError, match="no transposed convolution"):
        to_nir(net, sample)
    monkeypatch.undo()
    with torch.no_grad():
        net.feedback.raw[0] = float("nan")
    with pytest.raises(ExportError, match="finite"):
        to_nir(net, sample)
