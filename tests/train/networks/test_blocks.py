"""Sequences cut into blocks are the whole, and what they keep for gradients is counted."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support import stateful_networks

from snn_compile.targets.errors import SnnCompileError
from snn_compile.train.analysis.memory import kept_bytes, saved_bytes
from snn_compile.train.networks.blocks import cuts, detached, run_block
from snn_compile.train.networks.feedforward import SpikingNetwork
from snn_compile.train.networks.recurrent import RecurrentNetwork


@settings(max_examples=4)
@given(seed=st.integers(0, 2**20), steps=st.integers(2, 12), block=st.integers(1, 5))
def test_blocks_are_the_whole(stateful, seed, steps, block):
    net, x = stateful_networks.network(stateful, seed), stateful_networks.sequence(stateful, seed, steps)
    whole = net.run(x) if isinstance(net, (SpikingNetwork, RecurrentNetwork)) else run_block(net, x)
    states, outputs, spikes = None, [], []
    for part in cuts(steps, block):
        made = run_block(net, x[:, part], states)
        states = made.states
        outputs.append(made.outputs)
        spikes.append(made.spikes)
    for name, z in whole.spikes.items():
        assert torch.equal(torch.cat([s[name] for s in spikes], 1), z)
    last = torch.cat(outputs, 1)[:, -whole.outputs.shape[1] :]
    torch.testing.assert_close(last, whole.outputs, rtol=1e-9, atol=1e-9)
    wanted = list(net.parameters())
    pull = torch.randn_like(whole.outputs)
    for a, b in zip(
        torch.autograd.grad(whole.outputs, wanted, pull, allow_unused=True),
        torch.autograd.grad(last, wanted, pull, allow_unused=True),
        strict=True,
    ):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-9)


def test_the_networks_spike(stateful):
    spikes = run_block(
        stateful_networks.network(stateful, 0), stateful_networks.sequence(stateful, 0, 20)
    ).spikes
    rates = [float(z.detach().mean()) for z in spikes.values()]
    assert bool(rates) == ("lstm" not in stateful) and all(rate > 0.01 for rate in rates), rates


def test_detached_states_hold_their_numbers():
    net = stateful_networks.network("lsn", 0)
    states = run_block(net, stateful_networks.sequence("lsn", 0, 3)).states
    free = detached(states)
    assert torch.equal(free[0][0], states[0][0]) and not free[0][0].requires_grad
    assert free[1] is None and detached(None) is None


def test_a_network_without_blocks_is_refused():
    with pytest.raises(SnnCompileError, match="Linear cannot run block by block"):
        run_block(torch.nn.Linear(1, 1), torch.zeros(1, 1, 1))


def test_memory_is_constant_with_blocks_and_linear_without(stateful):
    net, steps = stateful_networks.network(stateful, 1, dtype=torch.float32), [16, 32, 64, 96, 128]
    inputs = [stateful_networks.sequence(stateful, 1, n, dtype=torch.float32) for n in steps]
    whole = np.array([saved_bytes(net, x) for x in inputs], float)
    fit = np.polyval(np.polyfit(steps, whole, 1), steps)
    assert 1 - ((whole - fit) ** 2).sum() / ((whole - whole.mean()) ** 2).sum() > 0.9999
    for block in (1, 8):
        assert len({saved_bytes(net, x, block) for x in inputs}) == 1


def test_one_step_a_block_keeps_500_times_less_than_1024_steps():
    net = stateful_networks.network("lsn", 0, inputs=2, hidden=64, outputs=1, dtype=torch.float32)
    x = stateful_networks.sequence("lsn", 0, 1024, batch=16, inputs=2, dtype=torch.float32)
    assert saved_bytes(net, x) >= 500 * saved_bytes(net, x, 1)


def test_bytes_are_those_that_are_saved():
    x = torch.randn(10, 4, requires_grad=True)
    w = torch.randn(4, 3, requires_grad=True)
    assert kept_bytes(lambda: x @ w) == 4 * (40 + 12)
    assert kept_bytes(lambda: x @ w, [w]) == 4 * 40
    assert kept_bytes(lambda: torch.sigmoid(x @ w), [x, w]) == 4 * 30  # its own result
    assert kept_bytes(lambda: (x + 1, x[:5] * 2)) == 0


class _Stash(torch.autograd.Function):
    """Keeps an array beside what autograd saves."""

    @staticmethod
    def forward(ctx, x):
        ctx.held = {"numbers": [np.zeros(100)[10:20]]}
        ctx.same = ctx.held
        return x * 2

    @staticmethod
    def backward(ctx, g):
        return g * 2


def test_arrays_that_an_operation_keeps_are_counted_once_and_whole():
    assert kept_bytes(lambda: _Stash.apply(torch.zeros(3, requires_grad=True))) == 800
