"""Forward propagation through time: its limits are backpropagation, its rule is the paper's."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support import stateful_networks
from torch.nn.functional import cross_entropy, log_softmax, mse_loss

from snn_compile.targets.errors import SnnCompileError
from snn_compile.train.algorithms.fptt_losses import Classes, Numbers, block_weight
from snn_compile.train.algorithms.fptt_regularizer import DynamicRegularizer
from snn_compile.train.algorithms.fptt_update import ForwardPropagation
from snn_compile.train.networks.blocks import run_block
from snn_compile.train.networks.blockwise import OnlineConfig

seeds = st.integers(0, 2**20)


def trainer(net, block, rate=0.1, objective=None, optimizer=torch.optim.SGD, **options):
    chosen = optimizer(net.parameters(), lr=rate)
    return ForwardPropagation(net, chosen, objective or Numbers(), block, **options)


def weights(net):
    return [p.detach().clone() for p in net.parameters()]


@settings(max_examples=3)
@given(seed=seeds, steps=st.integers(1, 10))
def test_one_block_without_penalty_is_backpropagation_through_time(stateful, seed, steps):
    net, x = stateful_networks.network(stateful, seed), stateful_networks.sequence(stateful, seed, steps)
    target = torch.randn(len(x), 2, dtype=x.dtype)
    loss = mse_loss(net.run(x).outputs[:, -1], target)
    wanted = torch.autograd.grad(loss, list(net.parameters()), allow_unused=True)
    training = trainer(net, steps, alpha=0.0, clip_norm=0.0)
    assert training.update(x, target).loss == pytest.approx(float(loss.detach()), rel=1e-12)
    for p, gradient in zip(net.parameters(), wanted, strict=True):
        if gradient is None:
            assert p.grad is None
        else:
            assert p.grad is not None and torch.equal(p.grad, gradient)


@settings(max_examples=3)
@given(seed=seeds, steps=st.integers(2, 10), block=st.integers(1, 4))
def test_without_penalty_it_is_truncated_backpropagation(stateful, seed, steps, block):
    ours, theirs, x = (
        stateful_networks.network(stateful, seed),
        stateful_networks.network(stateful, seed),
        stateful_networks.sequence(stateful, seed, steps),
    )
    target = torch.randn(len(x), 2, dtype=x.dtype)
    trainer(ours, block, 0.05, alpha=0.0, clip_norm=0.0).update(x, target)
    blocks, states = math.ceil(steps / block), None
    for number in range(blocks):
        made = run_block(theirs, x[:, number * block : (number + 1) * block], states)
        states = _free(made.states)
        loss = (number + 1) / blocks * mse_loss(made.outputs[:, -1], target)
        gradients = torch.autograd.grad(loss, list(theirs.parameters()), allow_unused=True)
        with torch.no_grad():
            for p, g in zip(theirs.parameters(), gradients, strict=True):
                if g is not None:
                    p.sub_(0.05 * g)
    for a, b in zip(weights(ours), weights(theirs), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def _free(states):
    if isinstance(states, tuple):
        return tuple(_free(s) for s in states)
    return None if states is None else states.detach()


class Convex:
    """A quadratic loss 1/2 w A w - c w with A positive definite."""

    def __init__(self, seed):
        rng = np.random.default_rng(seed)
        size = int(rng.integers(1, 6))
        root = rng.normal(size=(size, size))
        self.a = torch.from_numpy(root @ root.T + 0.1 * np.eye(size))
        self.c = torch.from_numpy(rng.normal(size=size))
        self.w = torch.from_numpy(rng.normal(size=size)).requires_grad_()
        self.inverse = None

    def gradient(self):
        return self.a @ self.w.detach() - self.c

    def minimise(self, rule):
        """Put w at the minimum of loss and penalty."""
        share = 1.0 if rule.form == "public" else 0.5
        right = self.c + rule.alpha * rule.means[0] + share * rule.gradients[0]
        if self.inverse is None:
            self.inverse = torch.linalg.inv(self.a + rule.alpha * torch.eye(len(self.c), dtype=self.a.dtype))
        self.w.data = self.inverse @ right


@settings(max_examples=20)
@given(seeds, st.floats(0.05, 3), st.sampled_from(["public", "paper"]))
def test_the_stored_gradient_is_the_last_one_and_weights_reach_the_minimum(seed, alpha, form):
    toy = Convex(seed)
    rule = DynamicRegularizer([toy.w], alpha, 0.5, form)
    for _ in range(60):
        toy.minimise(rule)
        rule.after_step()
        scale = 1 + float(toy.gradient().abs().max())
        assert float((rule.gradients[0] - toy.gradient()).abs().max()) < 1e-9 * scale
    first = float((torch.linalg.solve(toy.a, toy.c) - toy.w).detach().norm())
    for _ in range(2000):
        toy.minimise(rule)
        rule.after_step()
    last = float((torch.linalg.solve(toy.a, toy.c) - toy.w).detach().norm())
    assert last < 1e-6 or last < 0.01 * first


@settings(max_examples=20)
@given(seeds, st.floats(0.05, 3), st.floats(0.1, 1), st.sampled_from(["public", "paper"]))
def test_the_penalty_and_its_gradient_agree(seed, alpha, beta, form):
    rng = np.random.default_rng(seed)
    w = torch.from_numpy(rng.normal(size=5)).requires_grad_()
    rule = DynamicRegularizer([w], alpha, beta, form)
    rule.means[0], rule.gradients[0] = (torch.from_numpy(rng.normal(size=5)) for _ in range(2))
    mean, lam = rule.means[0].clone(), rule.gradients[0].clone()
    if form == "public":
        penalty = alpha / 2 * ((w - mean) ** 2).sum() - (w * lam).sum()
    else:
        penalty = alpha / 2 * ((w - mean - lam / (2 * alpha)) ** 2).sum()
    (wanted,) = torch.autograd.grad(penalty, w)
    rule.add_gradients()
    torch.testing.assert_close(w.grad, wanted, rtol=1e-12, atol=1e-12)
    assert float(rule.penalty()) == pytest.approx(float(penalty.detach()), rel=1e-9)
    rule.after_step()
    now = (lam if form == "public" else lam / 2) - alpha * (w.detach() - mean)
    torch.testing.assert_close(rule.gradients[0], now, rtol=1e-12, atol=1e-12)
    expected = (1 - beta) * mean + beta * w.detach() - beta / alpha * now
    torch.testing.assert_close(rule.means[0], expected, rtol=1e-9, atol=1e-12)
    rule.restart()
    assert torch.equal(rule.means[0], w.detach()) and not rule.gradients[0].any()


def run(stateful_networks, training, first, last):
    for number in range(first, last):
        if number % 2 == 0:
            training.restart()
        x = stateful_networks.sequence("lsn", number, 8, dtype=torch.float32)
        training.update(x, (x[:, 0, 0] > 0.5).long())
    return training


@pytest.mark.parametrize("form", ["public", "paper"])
@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.Adamax])
def test_a_state_restored_goes_on_bit_for_bit(tmp_path, form, optimizer):
    def made(seed):
        net = stateful_networks.network("lsn", seed, dtype=torch.float32)
        return trainer(net, 3, 0.01, Classes(2, 3), optimizer, form=form)

    whole = run(stateful_networks, made(0), 0, 7)
    part = run(stateful_networks, made(0), 0, 3)
    torch.save({"net": part.network.state_dict(), "fptt": part.state_dict()}, tmp_path / "state.pt")
    run(stateful_networks, part, 3, 5)  # the file must not follow
    held = torch.load(tmp_path / "state.pt", weights_only=True)
    again = made(1)
    again.network.load_state_dict(held["net"])
    again.load_state_dict(held["fptt"])
    run(stateful_networks, again, 3, 7)
    for a, b in zip(weights(whole.network), weights(again.network), strict=True):
        assert torch.equal(a, b)
    for key in ("means", "gradients"):
        ours, theirs = (getattr(t.regularizer, key) for t in (whole, again))
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert torch.equal(whole.objective.wanted, again.objective.wanted)
    assert (again.sequences, again.updates) == (7, 21)


def test_a_state_of_another_network_is_refused():
    state = trainer(stateful_networks.network("lsn", 0), 1).state_dict()
    with pytest.raises(SnnCompileError, match="parameters of other shapes"):
        trainer(stateful_networks.network("lsn", 0, hidden=5), 1).load_state_dict(state)
    with pytest.raises(SnnCompileError, match="distributions of classes"):
        Classes(3, 2).load_state_dict(Classes(2, 2).state_dict())


def test_a_loss_that_is_not_a_number_stops_training_and_says_where():
    net = stateful_networks.network("lsn", 0)
    training = trainer(net, 2)
    x, target = stateful_networks.sequence("lsn", 0, 8), torch.zeros(4, 2, dtype=torch.float64)
    training.update(x, target)
    before = None
    x[1, 5, 0] = math.nan  # block 3 of 4
    step = training.optimizer.step

    def watched(*given):
        nonlocal before
        result = step(*given)
        before = weights(net)
        return result

    training.optimizer.step = watched
    with pytest.raises(
        SnnCompileError, match=r"loss is nan .* at update 2, block 3 of 4; training stops"
    ) as told:
        training.update(x, target)
    assert told.value.facts["update"] == 2 and told.value.facts["block"] == 3
    assert all(torch.equal(a, b) and a.isfinite().all() for a, b in zip(before, weights(net), strict=True))


def test_classes_add_what_their_class_was_predicted_before():
    objective, labels = Classes(3, 4), torch.tensor([0, 2, 2])
    outputs = torch.randn(3, 2, 3)
    told = log_softmax(outputs[:, -1], 1)

    def loss(block):
        return objective.loss(outputs, labels, slice(0, 2), block, 4)

    hard = cross_entropy(outputs[:, -1], labels)
    torch.testing.assert_close(loss(0), hard / 4 - 3 / 4 * told.mean())
    torch.testing.assert_close(loss(3), hard)
    objective.restart()
    expected = torch.stack([told[0].exp(), told[1:].exp().mean(0), told[1:].exp().mean(0)])
    torch.testing.assert_close(loss(0), hard / 4 - 3 / 4 * (expected * told).sum(1).mean())
    torch.testing.assert_close(objective.wanted[0, 1], torch.full((3,), 1 / 3))  # a class not seen
    torch.testing.assert_close(loss(1), hard / 2 - 1 / 2 * told.mean())
    objective.auxiliary = False
    torch.testing.assert_close(loss(0), hard / 4)


def test_labels_of_every_step_are_scored_by_step():
    outputs, labels = torch.randn(2, 3, 4), torch.randint(4, (2, 9))
    made = Classes(4, 3).loss(outputs, labels, slice(3, 6), 1, 3)
    expected = cross_entropy(outputs.reshape(6, 4), labels[:, 3:6].reshape(6))
    torch.testing.assert_close(made, expected)


def test_weights_of_blocks():
    assert [block_weight("linear", p, 4) for p in range(4)] == [0.25, 0.5, 0.75, 1.0]
    assert [block_weight("public", p, 10) for p in (0, 1, 8)] == [0.1, 1.1, 8.1]
    assert block_weight("public", 0, 1) == block_weight("linear", 0, 1) == 1


@pytest.mark.parametrize(
    "make, says",
    [
        (lambda: trainer(torch.nn.Linear(1, 1), 0), "a block has 0 steps"),
        (
            lambda: trainer(torch.nn.Linear(1, 1), 1, form="printed"),
            "form is 'printed'; use one of public, paper",
        ),
        (lambda: trainer(torch.nn.Linear(1, 1), 1, alpha=-1.0), "alpha -1.0"),
        (lambda: trainer(torch.nn.Linear(1, 1), 1, alpha=1e-45), "alpha 1e-45, beta .* must be 0, or from"),
        (lambda: OnlineConfig((3,), 0), "must be at least 1"),
        (lambda: OnlineConfig((3,), 2, tau_readout=(1.0, -1.0)), "tau_readout is"),
        (lambda: OnlineConfig((3,), 2, reads="mean"), "reads is 'mean'; use one of last, per_step"),
        (lambda: Numbers("squared"), "block_weight is 'squared'"),
    ],
)
def test_wrong_values_are_refused(make, says):
    with pytest.raises(SnnCompileError, match=says):
        make()
