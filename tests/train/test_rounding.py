import numpy as np
import pytest
import torch

from snn_compile.train import LayerConfig, NetworkConfig, SpikingNetwork, fit, read_config
from snn_compile.train.rounding import rounded


@pytest.fixture
def network():
    torch.manual_seed(4)
    layers = (
        LayerConfig(9, recurrent=True, learn_decay=True, per_neuron=True, beta=0.7),
        LayerConfig(4, "li", learn_decay=True),
    )
    return SpikingNetwork(NetworkConfig((6,), layers))


def steps(weight, bits):
    """Return the table step that the compiler would see, the largest weight being its top."""
    return float(weight.detach().double().abs().max()) / (2 ** (bits - 1) - 1)


@pytest.mark.parametrize("bits", [3, 8])
def test_weights_lie_on_a_grid_and_come_back(network, bits):
    with torch.no_grad():
        network.layers.hidden.recurrent.weight.mul_(2.7)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    step = steps(network.layers.fc1.weight, bits)
    with rounded(network, bits):
        for weight in (network.layers.fc1.weight, network.layers.hidden.recurrent.weight):
            values = weight.detach().double().numpy() / step
            power = 2.0 ** np.ceil(np.log2(np.abs(values).max() / (2 ** (bits - 1) - 1) - 1e-6))
            np.testing.assert_allclose(values / power, np.rint(values / power), atol=1e-4)
            assert np.abs(np.rint(values / power)).max() <= 2 ** (bits - 1) - 1
        assert np.abs(np.rint(network.layers.fc1.weight.detach().numpy() / step)).max() == 2 ** (bits - 1) - 1
        for decay in (network.layers.hidden.beta, network.layers.readout.decay):
            shares = decay().detach().double().numpy() * 4096
            np.testing.assert_allclose(shares, np.rint(shares), atol=1e-3)
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_no_bits_round_nothing(network):
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with rounded(network, 0):
        for name, value in network.state_dict().items():
            assert torch.equal(value, before[name])


def test_weights_come_back_after_an_error_and_zeros_stay_zeros(network):
    with torch.no_grad():
        network.layers.fc1.weight.zero_()
    recurrent = network.layers.hidden.recurrent.weight.detach().clone()
    with pytest.raises(KeyboardInterrupt), rounded(network, 2):
        assert not network.layers.fc1.weight.any()
        assert not torch.equal(network.layers.hidden.recurrent.weight, recurrent)
        raise KeyboardInterrupt
    assert torch.equal(network.layers.hidden.recurrent.weight, recurrent)


def test_a_trained_network_is_kept_on_its_grid():
    quick = ["copies=0", "steps=4", "hidden=16", "epochs=2", "learning_rate=0.02", "weight_bits=4"]
    weight = fit(read_config("digits", quick)).network.layers.fc1.weight
    values = weight.detach().numpy() / steps(weight, 4)
    np.testing.assert_allclose(values, np.rint(values), atol=1e-4)
    assert len(np.unique(np.rint(values))) > 5
