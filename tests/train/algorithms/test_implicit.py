"""Implicit gradients against unrolled ones and direct solutions, on random networks; what is stored."""

import pytest
import torch
from support import feedback_networks
from torch.nn import functional

from snn_compile.targets.errors import SnnCompileError
from snn_compile.train.algorithms.equilibrium import rates_with_gradient
from snn_compile.train.algorithms.implicit_gradient import Settings, at_equilibrium, solve

UNROLLED = 500

KINDS = ("dense", "two dense", "convolution", "three, transposed feedback", "convolution and dense")


def gradient(net, loss):
    net.zero_grad()
    loss.backward()
    return torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None])


def system(feedback_networks, net, batch=5, learning=False, seed=0):
    """Return the mean current, dropout masks and an equilibrium by many iterations of f."""
    torch.manual_seed(seed)
    current = net.currents(feedback_networks.still(net, batch, 1, seed))[:, 0]
    masks = net.masks(batch, current)
    a = torch.zeros(batch, *net.shapes[0], dtype=torch.float64)
    with torch.no_grad():
        for _ in range(UNROLLED):
            a = net.image(net.outcome(a, learning, masks), current, learning, masks)
    return current, masks, a


def implicit_loss(net, current, masks, a, labels, learning, settings, told=None):
    start = a.clone().requires_grad_()
    outcome = net.outcome(start, learning, masks)
    image = net.image(outcome, current, learning, masks)
    rates = at_equilibrium(outcome.detach(), start, outcome, image, settings, told)
    return functional.cross_entropy(net.classify(rates), labels)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("learning", [False, True])
@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_the_implicit_gradient_is_the_unrolled_one(kind, learning, dropout):
    net = feedback_networks.network(
        kind, 1, dropout=dropout, batch_norm=not (learning and kind == "two dense")
    )
    current, masks, a = system(feedback_networks, net, learning=learning)
    labels = torch.arange(len(a)) % net.config.classes
    settings = Settings("fixed-point", 1e-15, 1000)
    found = gradient(net, implicit_loss(net, current, masks, a, labels, learning, settings))
    current = net.currents(feedback_networks.still(net, len(a), 1))[:, 0]
    unrolled = torch.zeros_like(a)
    for _ in range(UNROLLED):
        unrolled = net.image(net.outcome(unrolled, learning, masks), current, learning, masks)
    last = net.outcome(unrolled, learning, masks)
    wanted = gradient(net, functional.cross_entropy(net.classify(last), labels))
    assert float((found - wanted).norm() / wanted.norm()) <= 1e-12
    assert float(wanted.norm()) > 1e-3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("learning", [False, True])
def test_the_solvers_agree(kind, learning):
    net = feedback_networks.network(kind, 2, contraction=0.5 if learning else 0.9)
    current, masks, a = system(feedback_networks, net, learning=learning)
    start = a.clone().requires_grad_()
    image = net.image(net.outcome(start, learning, masks), current, learning, masks)
    v = torch.randn(a.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))

    def product(x):
        return torch.autograd.grad(image, start, x, retain_graph=True)[0]

    wanted = solve(product, v, Settings("direct")).x
    for solver in ("fixed-point", "damped", "broyden"):
        found = solve(product, v, Settings(solver, 1e-11, 2000))
        assert found.converged(Settings(solver, 1e-11, 2000))
        assert float((found.x - wanted).norm() / wanted.norm()) <= 1e-9, solver


def test_broydens_method_needs_no_more_than_the_fixed_point():
    net = feedback_networks.network("dense", 5, contraction=0.9)
    counts = {}
    for solver in ("fixed-point", "damped", "broyden"):
        current, masks, a = system(feedback_networks, net)
        told: list = []
        labels = torch.zeros(len(a), dtype=torch.int64)
        settings = Settings(solver, 1e-10, 200)
        gradient(net, implicit_loss(net, current, masks, a, labels, False, settings, told.append))
        (solution,) = told
        assert solution.converged(settings)
        counts[solver] = solution.iterations
    assert counts["broyden"] <= counts["fixed-point"] < counts["damped"]


def test_where_the_fixed_point_diverges_broyden_solves_and_the_residual_tells():
    matrix = (
        3
        * torch.linalg.qr(torch.randn(8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))[
            0
        ]
    )
    v = torch.ones(4, 8, dtype=torch.float64)
    wanted = solve(lambda x: x @ matrix, v, Settings("direct")).x
    found = solve(lambda x: x @ matrix, v, Settings("broyden", 1e-10, 200))
    torch.testing.assert_close(found.x, wanted, rtol=1e-7, atol=1e-7)
    failed = solve(lambda x: x @ matrix, v, Settings("fixed-point", 1e-10, 30))
    assert not failed.converged(Settings("fixed-point", 1e-10, 30)) and failed.residual > 0.1


def test_no_gradient_needs_no_solution():
    found = solve(lambda x: pytest.fail("a product"), torch.zeros(2, 3))
    assert found.iterations == 0 and not found.x.any()


@pytest.mark.parametrize(
    ("decay", "steps", "least"), [(1.0, 5, 0.95), (1.0, 30, 0.999), (0.95, 5, 0.95), (0.95, 30, 0.998)]
)
def test_the_gradient_at_simulated_rates_points_where_that_at_the_equilibrium_does(decay, steps, least):
    cosines = []
    for seed in range(5):
        net = feedback_networks.network("wide", seed, contraction=0.5, decay=decay, batch_norm=False)
        inputs = feedback_networks.still(net, 32, steps, seed)
        labels = torch.arange(32) % net.config.classes
        settings = Settings("fixed-point", 1e-12, 200)
        current = net.currents(inputs)
        rates = net.simulate(current, steps).weighted[0]
        exact = net.equilibrium(current[:, 0].detach(), tolerance=1e-13)
        pair = []
        for a in (rates, exact):
            current = net.currents(inputs)[:, 0]
            pair.append(gradient(net, implicit_loss(net, current, {}, a, labels, False, settings)))
        cosines.append(float(functional.cosine_similarity(*pair, dim=0)))
    assert min(cosines) >= least, cosines


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("moving", [False, True])
def test_what_is_stored_does_not_depend_on_the_number_of_steps(kind, moving):
    stored = {}
    for steps in (3, 60):
        net = feedback_networks.network(kind, 9, dropout=0.2)
        inputs = feedback_networks.still(net, 4, steps)
        if moving:
            inputs = inputs.contiguous()
        sizes = []

        def pack(x, sizes=sizes):
            sizes.append(x.numel() * x.element_size())
            return x

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            rates = rates_with_gradient(net, inputs)
            loss = functional.cross_entropy(net.classify(rates), torch.zeros(4, dtype=torch.int64))
        loss.backward()
        stored[steps] = sum(sizes)
    assert stored[3] > 0
    assert stored[3] == stored[60]


@pytest.mark.parametrize("values", [("newton",), ("broyden", 0.0), ("damped", 1e-3, 0)])
def test_impossible_settings_are_refused(values):
    with pytest.raises(SnnCompileError, match="solver"):
        Settings(*values)
