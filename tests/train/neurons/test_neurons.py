import numpy as np
import pytest
import torch

from snn_compile.targets.errors import SnnCompileError
from snn_compile.train.networks.feedforward import LayerConfig, NetworkConfig, SpikingNetwork
from snn_compile.train.networks.layers import LI, LIF, CubaLIF
from snn_compile.train.neurons.lif import (
    CubaLIFParameters,
    Firing,
    LIFParameters,
    cuba_lif_step,
    li_step,
    lif_step,
)

STEPS, BATCH, SIZE = 12, 3, 5
RNG = np.random.default_rng(11)
X = RNG.normal(0.3, 0.8, (BATCH, STEPS, SIZE))
ALPHA, BETA = RNG.uniform(0.3, 0.8, SIZE), RNG.uniform(0.6, 0.95, SIZE)


def reset(v, z, how, threshold):
    return np.where(z, 0.0, v) if how == "value" else v - threshold * z


@pytest.mark.parametrize("how", ["value", "subtract"])
def test_the_lif_step_is_its_equation(how):
    firing = Firing(threshold=0.7, reset=how)
    parameters = LIFParameters(torch.tensor(BETA), 1.3, firing)
    v, hand, fired = torch.zeros(BATCH, SIZE, dtype=torch.float64), np.zeros((BATCH, SIZE)), 0
    for t in range(STEPS):
        z, v = lif_step(torch.tensor(X[:, t]), v, parameters)
        hand = BETA * hand + 1.3 * X[:, t]
        expected = hand > 0.7
        hand = reset(hand, expected, how, 0.7)
        np.testing.assert_array_equal(z.numpy(), expected)
        np.testing.assert_allclose(v.numpy(), hand, rtol=1e-12)
        fired += expected.sum()
    assert 10 < fired < 150


@pytest.mark.parametrize("how", ["value", "subtract"])
def test_the_cuba_lif_step_is_its_equation(how):
    parameters = CubaLIFParameters(torch.tensor(ALPHA), torch.tensor(BETA), Firing(threshold=1.4, reset=how))
    zero = torch.zeros(BATCH, SIZE, dtype=torch.float64)
    state, i, v, fired = (zero, zero), np.zeros((BATCH, SIZE)), np.zeros((BATCH, SIZE)), 0
    for t in range(STEPS):
        z, state = cuba_lif_step(torch.tensor(X[:, t]), state, parameters)
        i = ALPHA * i + X[:, t]
        v = BETA * v + i
        expected = v > 1.4
        v = reset(v, expected, how, 1.4)
        np.testing.assert_array_equal(z.numpy(), expected)
        np.testing.assert_allclose(state[0].numpy(), i, rtol=1e-12)
        np.testing.assert_allclose(state[1].numpy(), v, rtol=1e-12)
        fired += expected.sum()
    assert 10 < fired < 150


def test_the_li_step_is_its_equation_and_the_module_runs_it():
    module = LI(SIZE, decay=0.83).double()
    out = module(torch.tensor(X)).detach().numpy()
    v = np.zeros((BATCH, SIZE))
    w = torch.zeros(BATCH, SIZE, dtype=torch.float64)
    decay = float(module.decay())
    for t in range(STEPS):
        v = decay * v + (1 - decay) * X[:, t]
        _, w = li_step(torch.tensor(X[:, t]), w, torch.tensor(decay, dtype=torch.float64))
        np.testing.assert_allclose(out[:, t], v, rtol=1e-12)
        np.testing.assert_allclose(w.numpy(), v, rtol=1e-12)


@pytest.mark.parametrize("kind", [LIF, CubaLIF])
def test_a_recurrent_module_sees_its_own_spikes_one_step_late(kind):
    torch.manual_seed(2)
    module = kind(SIZE, recurrent=True, firing=Firing(threshold=0.9)).double()
    out = module(torch.tensor(X)).detach().numpy()
    weight = module.recurrent.weight.detach().numpy()
    beta = float(module.beta())
    i, v, z = (np.zeros((BATCH, SIZE)) for _ in range(3))
    for t in range(STEPS):
        x = X[:, t] + z @ weight.T
        i = float(module.alpha()) * i + x if kind is CubaLIF else x
        v = beta * v + i
        z = (v > 0.9).astype(float)
        v = reset(v, z, "value", 0.9)
        np.testing.assert_array_equal(out[:, t], z)
    assert 10 < out.sum() < 170


@pytest.mark.parametrize("per_neuron", [False, True])
def test_learned_decays_get_gradients_and_stay_between_0_and_1(per_neuron):
    module = CubaLIF(SIZE, learn_decay=True, per_neuron=per_neuron, alpha=0.4, beta=0.8)
    assert module.alpha().shape == ((SIZE,) if per_neuron else ())
    torch.testing.assert_close(module.beta().max(), torch.tensor(0.8))
    module(torch.tensor(X).float()).sum().backward()
    for decay in (module.alpha, module.beta):
        assert decay.logit.grad.abs().sum() > 0
        with torch.no_grad():
            decay.logit += 9
        assert ((decay() > 0) & (decay() < 1)).all()


def test_detaching_the_reset_changes_the_gradient_and_not_the_spikes():
    out, gradients = [], []
    for detach in (False, True):
        x = torch.tensor(X, requires_grad=True)
        spikes = LIF(SIZE, firing=Firing(detach_reset=detach)).double()(x)
        spikes.sum().backward()
        out.append(spikes.detach())
        gradients.append(x.grad)
    assert torch.equal(*out)
    assert not torch.allclose(*gradients)


@pytest.mark.parametrize(
    "make",
    [
        lambda: LIF(3, beta=1.0),
        lambda: CubaLIF(3, alpha=0.0),
        lambda: LI(3, decay=-0.2),
        lambda: Firing(threshold=0.0),
        lambda: Firing(reset="soft"),
        lambda: Firing(surrogate="relu"),
        lambda: LIF(3)(torch.zeros(2, 4, 5)),
        lambda: LayerConfig(0),
        lambda: LayerConfig(3, "izhikevich"),
        lambda: LayerConfig(3, "li", recurrent=True),
        lambda: NetworkConfig((3,), ()),
        lambda: NetworkConfig((3,), (LayerConfig(3, "li"), LayerConfig(3))),
    ],
)
def test_values_out_of_range_are_refused(make):
    with pytest.raises(SnnCompileError):
        make()


def test_a_network_runs_its_layers_in_order_and_reports_spike_rates():
    torch.manual_seed(0)
    layers = (LayerConfig(7), LayerConfig(6, "cuba_lif", recurrent=True), LayerConfig(4, "li"))
    network = SpikingNetwork(NetworkConfig((2, 3), layers))
    names = [name for name, _ in network.layers.named_children()]
    assert names == ["flatten", "fc1", "hidden1", "fc2", "hidden2", "fc3", "readout"]
    inputs = 3 * torch.rand(5, 9, 2, 3)
    run = network.run(inputs)
    assert run.outputs.shape == (5, 9, 4)
    assert {name: tuple(s.shape) for name, s in run.spikes.items()} == {
        "hidden1": (5, 9, 7),
        "hidden2": (5, 9, 6),
    }
    torch.testing.assert_close(network(inputs), run.outputs)
    assert run.spike_rates()["hidden1"] == pytest.approx(run.spikes["hidden1"].mean().item())
    with pytest.raises(SnnCompileError, match="takes"):
        network(torch.zeros(5, 9, 6))
