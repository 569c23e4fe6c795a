"""Feedback networks: maps, their norms, simulation against matrices, convergence to the equilibrium."""

import math

import numpy as np
import pytest
import torch
from support import feedback_networks

from snn_compile.targets.errors import SnnCompileError
from snn_compile.train.algorithms.equilibrium import simulated
from snn_compile.train.networks.feedback import FeedbackConfig, FeedbackLayer, FeedbackNetwork

KINDS = ("dense", "two dense", "convolution", "three, transposed feedback", "convolution and dense")


@pytest.mark.parametrize("kind", KINDS)
def test_transposed_maps_are_transposed(kind):
    net = feedback_networks.network(kind, 1)
    maps = [
        (layer, lambda y, layer=layer: layer.adjoint(y, layer.weight), layer.source, layer.target)
        for layer in net.forwards
    ]
    weight = net.feedback.weight()
    maps.append((net.feedback, lambda y: net.feedback.adjoint(weight, y), net.feedback.source, net.shapes[0]))
    for forward, adjoint, source, target in maps:
        there, back = feedback_networks.matrix(forward, source), feedback_networks.matrix(adjoint, target)
        assert there.shape == (math.prod(target), math.prod(source))
        np.testing.assert_allclose(back, there.T, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_norms_are_the_largest_singular_values(kind):
    net = feedback_networks.network(kind, 2)
    found = net.restriction()
    maps = [feedback_networks.matrix(net.feedback, net.feedback.source)]
    for layer in net.forwards[1:]:
        whole = feedback_networks.matrix(
            lambda x, layer=layer: layer.mapped(x, layer.folded()[0]), layer.source
        )
        maps.append(whole)
    wanted = [np.linalg.norm(m, 2) for m in maps]
    np.testing.assert_allclose(found.norms, wanted, rtol=1e-6)
    assert found.bound == net.config.threshold ** len(net.shapes)
    assert found.product == pytest.approx(np.prod(wanted), rel=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_the_norm_of_the_feedback_is_its_scale(kind):
    net = feedback_networks.network(kind, 3)
    # Power iteration comes from below, so that W is no smaller than its scale and soon no larger.
    scale = abs(net.feedback.scale.item())
    assert scale * (1 - 1e-9) <= net.feedback.norm_of_map() <= 1.01 * scale
    fresh = FeedbackNetwork(net.config)
    assert abs(fresh.feedback.scale.item()) <= net.config.scale_limit
    with torch.no_grad():
        fresh.feedback.scale.fill_(-7.0)
    fresh.restrict()
    assert fresh.feedback.scale.item() == -net.config.scale_limit


@pytest.mark.parametrize("kind", KINDS)
def test_feedback_beyond_the_bound_is_reported(kind):
    inside, beyond = (
        feedback_networks.network(kind, 4, contraction=0.99),
        feedback_networks.network(kind, 4, contraction=1.01),
    )
    assert inside.restriction().holds and "one equilibrium" in inside.restriction().text()
    assert not beyond.restriction().holds and "nothing says" in beyond.restriction().text()


def test_without_an_equilibrium_none_is_returned():
    net = feedback_networks.network("dense", 0, contraction=40.0)
    with torch.no_grad():
        net.feedback.scale.mul_(-1)
    current = net.currents(feedback_networks.still(net, 3, 1))[:, 0]
    with pytest.raises(SnnCompileError, match=r"no equilibrium.*not below 2"):
        net.equilibrium(current)


@pytest.mark.parametrize("kind", KINDS)
def test_folded_normalisation_computes_the_same(kind):
    net = feedback_networks.network(kind, 5)
    for layer in net.forwards:
        x = torch.randn(7, *layer.source, dtype=torch.float64)
        wanted = layer.normalised(layer(x), learning=False)
        torch.testing.assert_close(layer.mapped(x, *layer.folded()), wanted, rtol=0, atol=1e-12)
    single = feedback_networks.network(kind, 5).float()
    for layer in single.forwards:
        x = torch.rand(7, *layer.source)
        wanted = layer.normalised(layer(x), learning=False)
        torch.testing.assert_close(layer.mapped(x, *layer.folded()), wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("decay", [0.95, 1.0])
@pytest.mark.parametrize("moving", [False, True])
def test_simulation_is_the_definition(kind, decay, moving):
    net = feedback_networks.network(kind, 6, decay=decay, batch_norm=kind != "two dense", dropout=0.3)
    steps = 12
    inputs = torch.rand(5, steps, *net.config.input_shape, dtype=torch.float64)
    if not moving:
        inputs = inputs[:, :1].expand(-1, steps, *net.config.input_shape)
    masks = net.masks(5, inputs)
    assert {"input", "feedback"} <= masks.keys() and any((m == 0).any() for m in masks.values())
    for given in ({}, masks):
        rates = net.simulate(net.currents(inputs), steps, given, record=True)
        hand = list(zip(*feedback_networks.by_hand(net, inputs, given), strict=True))
        factors = decay ** np.arange(steps - 1, -1, -1)
        for spikes, weighted, mean, wanted in zip(
            rates.spikes, rates.weighted, rates.means, hand, strict=True
        ):
            wanted = np.stack(wanted, axis=1)
            assert 0 < wanted.mean() < 1
            np.testing.assert_array_equal(spikes.flatten(2), wanted)
            np.testing.assert_allclose(mean.flatten(1), wanted.mean(axis=1), atol=1e-12)
            rate = np.einsum("btn,t->bn", wanted, factors / factors.sum())
            np.testing.assert_allclose(weighted.flatten(1), rate, atol=1e-12)


@pytest.mark.parametrize("decay", [0.9, 1.0])
def test_the_last_read_out_is_that_of_the_rates(decay):
    net = feedback_networks.network("two dense", 7, decay=decay)
    inputs = feedback_networks.still(net, 6, 9)
    with torch.no_grad():
        wanted = net.classify(simulated(net, inputs).weighted[-1])
        torch.testing.assert_close(net(inputs)[:, -1], wanted, rtol=1e-12, atol=1e-12)


def errors(feedback_networks, net, times, batch=24):
    """Return the relative distance of the first layer's rates from the equilibrium at some times."""
    current = net.currents(feedback_networks.still(net, batch, 1))
    wanted = net.equilibrium(current[:, 0], tolerance=1e-13)
    total, found = 0.0, {}
    for t, (sums, _, _) in enumerate(net.stepped(current, times[-1]), start=1):
        total = net.config.decay * total + 1
        if t in times:
            found[t] = float((sums[0] / total - wanted).norm() / wanted.norm())
    return np.array([found[t] for t in times])


@pytest.mark.parametrize("kind", ["dense", "two dense", "convolution"])
def test_rates_of_if_neurons_converge_as_one_over_time(kind):
    times = [10, 32, 100, 316, 1000, 3162, 10000]
    found = errors(feedback_networks, feedback_networks.network(kind, 8, decay=1.0), times)
    slope = np.polyfit(np.log(times), np.log(found), 1)[0]
    assert slope == pytest.approx(-1, abs=0.15)


def test_rates_of_lif_neurons_stay_at_an_error():
    times = [10, 100, 300, 1000, 2000]
    leaky, plain = (
        errors(feedback_networks, feedback_networks.network("dense", 8, decay=decay), times)
        for decay in (0.95, 1.0)
    )
    assert leaky[-1] > 0.2 * leaky[1] and plain[-1] < 0.2 * plain[1]


@pytest.mark.parametrize(
    ("layers", "says"),
    [
        ((), "at least one layer"),
        ((FeedbackLayer(3, 1), FeedbackLayer(3, 8)), "no feedback convolution"),
        ((FeedbackLayer(4), FeedbackLayer(3, 3)), "must be .channels"),
    ],
)
def test_impossible_networks_are_refused(layers, says):
    with pytest.raises(SnnCompileError, match=says):
        FeedbackNetwork(FeedbackConfig((1, 14, 14), layers, 3))


@pytest.mark.parametrize("values", [{"decay": 1.5}, {"decay": 0.0}, {"dropout": 1.0}, {"threshold": 0.0}])
def test_impossible_values_are_refused(values):
    with pytest.raises(SnnCompileError, match="decay"):
        FeedbackConfig((3,), (FeedbackLayer(3),), 2, **values)


def test_the_papers_convolutional_networks_can_be_built():
    def built(layers, classes=10):
        return FeedbackNetwork(FeedbackConfig((3, 32, 32), layers, classes, decay=0.99))

    alex = built(
        (
            FeedbackLayer(96, 3, 2),
            FeedbackLayer(256, 3),
            FeedbackLayer(384, 3, 2),
            FeedbackLayer(384, 3),
            FeedbackLayer(256, 3),
        )
    )
    assert alex.shapes == [(96, 16, 16), (256, 16, 16), (384, 8, 8), (384, 8, 8), (256, 8, 8)]
    assert tuple(alex.feedback.raw.shape) == (256, 96, 3, 3) and alex.feedback.stride == 2
    cifar = built(
        (
            FeedbackLayer(128, 3, 2),
            FeedbackLayer(256, 3),
            FeedbackLayer(512, 3, 2),
            FeedbackLayer(1024, 3),
            FeedbackLayer(512, 3),
        ),
        100,
    )
    assert cifar.shapes == [(128, 16, 16), (256, 16, 16), (512, 8, 8), (1024, 8, 8), (512, 8, 8)]
    for net, classes in ((alex, 10), (cifar, 100)):
        x = torch.rand(1, 1, 3, 32, 32).expand(-1, 2, -1, -1, -1)
        assert net(x).shape == (1, 2, classes)
        a = torch.zeros(1, *net.shapes[0])
        assert net.image(net.outcome(a), net.currents(x)[:, 0]).shape == a.shape
