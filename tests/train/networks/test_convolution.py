"""Convolutional networks: steps folded into the batch, export to NIR, and the float reference of that."""

import nir
import numpy as np
import pytest
import torch
from torch import nn

from snn_compile import compiler, runtime
from snn_compile.targets.errors import ExportError, SnnCompileError
from snn_compile.train import LIF, LayerConfig, NetworkConfig, SpikingNetwork, to_nir
from snn_compile.train.networks.convolution import AvgPool2d, Conv2d, as_sequence, as_shape


def random_network(seed):
    """Return a network of two convolutions, pools and dense layers, and inputs that make it spike."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    kinds = rng.permutation(["lif", "cuba_lif"])
    shared = {
        "bias": bool(seed % 2),
        "learn_decay": True,
        "per_neuron": seed % 3 == 0,
        "reset": ["value", "subtract"][seed % 2],
        "beta": rng.uniform(0.3, 0.9),
    }
    layers = (
        LayerConfig(4, str(kinds[0]), kernel=3, stride=1 + seed % 2, padding=1, **shared),
        LayerConfig(5, str(kinds[1]), kernel=2, pool=2, **shared),
        LayerConfig(6, str(kinds[0]), pool=2 - seed % 2, **shared),
        LayerConfig(3, "li"),
    )
    network = SpikingNetwork(NetworkConfig((2, 9, 8), layers))
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("logit"):
                parameter += 0.3 * torch.randn_like(parameter)
            elif parameter.ndim == 1:
                parameter += 0.2 * torch.randn_like(parameter)
            else:
                parameter.mul_(3).add_(0.06)
    return network, torch.from_numpy(rng.normal(0.5, 1.2, (3, 12, 2, 9, 8))).float()


@pytest.mark.parametrize("seed", range(6))
def test_the_reference_of_the_exported_graph_spikes_as_the_network(seed):
    network, inputs = random_network(seed)
    with torch.no_grad():
        run = network.run(inputs)
    graph = to_nir(network, inputs)
    assert sum(isinstance(node, nir.Conv2d) for node in graph.nodes.values()) == 2
    lowered = compiler.lower(graph)
    record = runtime.reference(lowered, inputs.numpy().astype(np.float64), record=tuple(run.spikes))
    for name, spikes in run.spikes.items():
        assert 0.002 < spikes.mean() < 0.98
        np.testing.assert_array_equal(record.spikes(name).reshape(spikes.shape), spikes.numpy())
    np.testing.assert_allclose(record.outputs, run.outputs.numpy(), rtol=1e-4, atol=1e-5)


def test_a_step_shown_at_every_step_gives_what_its_copies_give():
    network, inputs = random_network(1)
    once = inputs[:, :1].expand(-1, 12, *inputs.shape[2:])
    grown = {}
    for name, given in (("once", once), ("copies", once.contiguous())):
        network.zero_grad()
        run = network.run(given)
        run.outputs.sum().backward()
        grown[name] = run, [p.grad.clone() for p in network.parameters()]
    torch.testing.assert_close(grown["once"][0].outputs, grown["copies"][0].outputs, rtol=0, atol=0)
    for a, b in zip(grown["once"][1], grown["copies"][1], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_every_step_is_convolved_by_itself():
    torch.manual_seed(2)
    convolution, pool = Conv2d(2, 3, 3, 2, 1), AvgPool2d(2)
    x = torch.randn(4, 5, 2, 6, 8)
    made = pool(convolution(x))
    for t in range(5):
        wanted = nn.functional.avg_pool2d(
            nn.functional.conv2d(x[:, t], convolution.weight, convolution.bias, 2, 1), 2
        )
        torch.testing.assert_close(made[:, t], wanted)


def test_sequences_and_shapes_are_each_other_s_inverse():
    x = torch.randn(2, 3, 4, 5, 6)
    sequence = as_sequence(x)
    assert sequence.shape == (2, 3, 120) and torch.equal(as_shape(sequence, (4, 5, 6)), x)
    assert as_sequence(x[:, :1].expand(-1, 3, 4, 5, 6)).shape == (2, 1, 120)
    layer = LIF((4, 5, 6))
    values = torch.randn(120)
    moved = as_shape(layer.ordered(values).expand(1, 1, 120), (4, 5, 6))
    assert torch.equal(moved[0, 0], values.view(4, 5, 6))


@pytest.mark.parametrize(
    "layers, says",
    [
        ([LayerConfig(4, kernel=9)], "nothing is left"),
        ([LayerConfig(4), LayerConfig(4, kernel=3)], r"input of shape \(4,\)"),
        ([LayerConfig(4, kernel=3), LayerConfig(4), LayerConfig(2, pool=2)], r"input of shape \(4,\)"),
    ],
)
def test_impossible_layers_are_refused(layers, says):
    with pytest.raises(SnnCompileError, match=says):
        SpikingNetwork(NetworkConfig((1, 8, 8), tuple(layers)))


@pytest.mark.parametrize(
    "values, says",
    [
        ({"kernel": 3, "neuron": "li"}, "without recurrence"),
        ({"kernel": 3, "recurrent": True}, "without recurrence"),
        ({"kernel": -1}, "at least 0"),
        ({"kernel": 3, "stride": 0}, "at least 1"),
    ],
)
def test_impossible_windows_are_refused(values, says):
    with pytest.raises(SnnCompileError, match=says):
        LayerConfig(4, **values)


@pytest.mark.parametrize(
    "module, says",
    [
        (nn.Sequential(Conv2d(2, 3, 3), LIF((3, 6, 6))), "conv2d_0: takes .* with 2 channels"),
        (nn.Sequential(Conv2d(1, 3, 3, padding=1, padding_mode="circular"), LIF((3, 8, 8))), "circular"),
        (nn.Sequential(AvgPool2d(3, ceil_mode=True), LIF((1, 3, 3))), "ceil_mode"),
        (nn.Sequential(Conv2d(1, 3, 3), LIF((3, 6, 7))), "has 126 neurons and gets"),
        (nn.Sequential(nn.Conv2d(1, 3, 3), LIF((3, 6, 6))), "no NIR counterpart"),
    ],
)
def test_what_has_no_counterpart_is_refused(module, says):
    with pytest.raises(ExportError, match=says):
        to_nir(module, torch.zeros(1, 2, 1, 8, 8))


def test_a_convolution_of_ours_groups_and_dilates():
    torch.manual_seed(1)
    module = nn.Sequential(Conv2d(4, 6, 3, padding=(2, 1), dilation=2, groups=2), LIF((6, 8, 6), beta=0.6))
    inputs = torch.randn(2, 5, 4, 8, 8) + 0.3
    graph = to_nir(module, inputs)
    with torch.no_grad():
        spikes = module(inputs)
    record = runtime.reference(compiler.lower(graph), inputs.numpy().astype(np.float64), record=("lif_1",))
    assert 0.02 < spikes.mean() < 0.9
    np.testing.assert_array_equal(record.spikes("lif_1").reshape(spikes.shape), spikes.numpy())
