"""Liquid spiking neurons: the definition against scalars, and fused blocks against the definition."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import conv2d

from snn_compile.targets.errors import SnnCompileError
from snn_compile.train.kernels.lsn_block import run_liquid
from snn_compile.train.networks.lsn_layers import LiquidConvolution, LiquidLayer, first_state
from snn_compile.train.neurons.lsn import Gates, Liquid, liquid_step
from snn_compile.train.neurons.surrogate import SURROGATES

LIMITS = {torch.float32: 1e-5, torch.float64: 1e-10}
seeds = st.integers(0, 2**32 - 1)


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


@settings(max_examples=40)
@given(seeds, st.booleans())
def test_a_step_is_that_of_the_paper(seed, adaptive):
    rng = np.random.default_rng(seed)
    size = int(rng.integers(1, 6))
    x, u, b = rng.normal(0.3, 0.5, (3, size))
    s = (rng.random(size) < 0.4).astype(float)
    recurrent = rng.normal(0, 0.5, (size, size))
    membrane, adaptation = rng.normal(0, 0.5, (2, size, 2 * size))
    biases = rng.normal(0, 0.5, (2, size))
    kind = Liquid(adaptive=adaptive)
    weights = [torch.from_numpy(w) for w in (recurrent, membrane, biases[0], adaptation, biases[1])]
    gates = Gates(*weights[:3], *(weights[3:] if adaptive else (None, None)))
    spikes, state = liquid_step(
        torch.from_numpy(x)[None], tuple(torch.from_numpy(a)[None] for a in (u, b, s)), gates, kind
    )
    d = [x[j] + sum(recurrent[j, k] * s[k] for k in range(size)) for j in range(size)]
    for j in range(size):
        m = sigmoid(np.dot(membrane[j], [*d, *u]) + biases[0][j])
        held, theta = b[j], 0.5
        if adaptive:
            rho = sigmoid(np.dot(adaptation[j], [*d, *b]) + biases[1][j])
            held = rho * b[j] + (1 - rho) * s[j]
            theta = 0.1 + 1.8 * held
        reached = u[j] + (d[j] - u[j]) * m
        assert float(spikes[0, j]) == (reached > theta)
        assert float(state[0][0, j]) == pytest.approx(0.0 if reached > theta else reached, abs=1e-12)
        assert float(state[1][0, j]) == pytest.approx(held, abs=1e-12)


class Net:
    """Random tensors of a dense layer, its eager run and its fused run."""

    def __init__(self, seed, dtype, kind, recurrent):
        rng = np.random.default_rng(seed)
        steps, batch, size = (int(rng.integers(1, high)) for high in (20, 6, 16))
        self.kind, self.dtype = kind, dtype
        self.x = self._tensor(rng.normal(0.3, 0.6, (steps, batch, size)))
        self.gates = Gates(
            self._tensor(rng.normal(0, 0.4, (size, size))) if recurrent else None,
            self._tensor(rng.normal(0, 0.4, (size, 2 * size))),
            self._tensor(rng.normal(0, 0.4, size)),
            self._tensor(rng.normal(0, 0.4, (size, 2 * size))) if kind.adaptive else None,
            self._tensor(rng.normal(0, 0.4, size)) if kind.adaptive else None,
        )
        states = rng.normal(0, 0.3, (batch, size)), rng.random((batch, size)), rng.random((batch, size)) < 0.3
        self.first = tuple(self._tensor(s.astype(float)) for s in states)
        shapes = (steps, batch, size), (steps, batch, size), (batch, size)
        self.pull = [self._tensor(rng.normal(size=shape)).detach() for shape in shapes]

    def _tensor(self, values):
        return torch.from_numpy(np.asarray(values)).to(self.dtype).requires_grad_()

    def eager(self):
        state, spikes, membranes, self.nearest = self.first, [], [], math.inf
        for x in self.x:
            before = state
            s, state = liquid_step(x, before, self.gates, self.kind)
            spikes.append(s)
            membranes.append(state[0])
            self.nearest = min(self.nearest, self._distance(x, before, state[1]))
        return torch.stack(spikes), torch.stack(membranes), state[1]

    def _distance(self, x, before, b):
        """Return how near the nearest membrane of a step came to its threshold."""
        u, _, s = before
        d = x if self.gates.recurrent is None else x + s @ self.gates.recurrent.T
        m = torch.sigmoid(torch.cat([d, u], 1) @ self.gates.membrane.T + self.gates.membrane_bias)
        theta = self.kind.base + self.kind.scale * b if self.kind.adaptive else self.kind.fixed
        return float((u + (d - u) * m - theta).detach().abs().min())

    def fused(self):
        s, u, state = run_liquid(self.x, self.gates, self.kind, self.first)
        assert torch.equal(state[0], u[-1]) and torch.equal(state[2], s[-1])
        return s, u, state[1]

    def gradients(self, out):
        wanted = [v for v in (self.x, *self.gates, *self.first) if v is not None]
        return torch.autograd.grad(out, wanted, self.pull, allow_unused=True)


def compare(net):
    """Compare both runs; return the spikes per neuron and step, None where rounding may decide a spike."""
    limit = LIMITS[net.dtype]
    expected, found = net.eager(), net.fused()
    if net.nearest <= limit:
        return None
    assert torch.equal(expected[0], found[0])
    for a, b in zip(expected[1:], found[1:], strict=True):
        torch.testing.assert_close(b, a, rtol=limit, atol=limit)
    for a, b in zip(net.gradients(expected), net.gradients(found), strict=True):
        a = torch.zeros_like(b) if a is None else a
        assert (a - b).abs().max() <= limit * max(1.0, float(a.abs().max()))
    return float(expected[0].detach().mean())


@settings(max_examples=60)
@given(
    seeds, st.sampled_from(list(LIMITS)), st.booleans(), st.booleans(), st.sampled_from(sorted(SURROGATES))
)
def test_fused_blocks_are_the_steps(seed, dtype, adaptive, recurrent, surrogate):
    compare(Net(seed, dtype, Liquid(adaptive=adaptive, surrogate=surrogate), recurrent))


@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("adaptive", [True, False])
def test_the_nets_compared_spike_and_are_compared(dtype, adaptive):
    rates = [compare(Net(seed, dtype, Liquid(adaptive=adaptive), True)) for seed in range(12)]
    assert sum(rate is not None and rate > 0.05 for rate in rates) >= 8


@settings(max_examples=20)
@given(seeds, st.booleans())
def test_blocks_one_after_the_other_are_the_whole(seed, adaptive):
    net = Net(seed, torch.float64, Liquid(adaptive=adaptive), True)
    whole = net.fused()
    cut = len(net.x) // 2
    if not cut:
        return
    first = run_liquid(net.x[:cut], net.gates, net.kind, net.first)
    second = run_liquid(net.x[cut:], net.gates, net.kind, first[2])
    parts = torch.cat([first[0], second[0]]), torch.cat([first[1], second[1]]), second[2][1]
    for a, b in zip(whole, parts, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    for a, b in zip(net.gradients(whole), net.gradients(parts), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_a_run_without_gradients_gives_the_same():
    net = Net(3, torch.float32, Liquid(), True)
    expected = net.fused()
    with torch.no_grad():
        for a, b in zip(expected, net.fused(), strict=True):
            assert torch.equal(a, b)


def test_a_layer_is_its_steps():
    torch.manual_seed(0)
    layer = LiquidLayer(3, 8, Liquid())
    x = torch.rand(6, 4, 3)
    s, u, state = layer.block(x, None)
    held, spikes = first_state(u[0], "zero"), []
    for now in layer.input(x):
        z, held = liquid_step(now, held, layer.gates(), layer.kind)
        spikes.append(z)
    assert torch.equal(torch.stack(spikes), s) and s.mean() > 0
    torch.testing.assert_close(held, state, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("adaptive", [True, False])
def test_convolutions_have_gates_of_convolutions(adaptive):
    torch.manual_seed(1)
    kind = Liquid(adaptive=adaptive)
    layer = LiquidConvolution(2, 3, kind, stride=2)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, 0, 0.3)
    x = torch.randn(1, 4, 2, 7, 7).expand(5, -1, -1, -1, -1)
    s, _, (u, b, last) = layer.block(x, None)
    assert s.shape == (5, 4, 3, 4, 4) and 0 < s.mean() < 1 and torch.equal(last, s[-1])
    d = conv2d(x[0], layer.input.weight, layer.input.bias, stride=2, padding=1)
    now_u, now_b, now_s = (torch.zeros(4, 3, 4, 4) for _ in range(3))
    for t in range(5):
        m = torch.sigmoid(conv2d(d + now_u, layer.membrane.weight, layer.membrane.bias, padding=1))
        theta = torch.full_like(d, 0.5)
        if adaptive:
            gate = conv2d(d + now_b, layer.adaptation.weight, layer.adaptation.bias, padding=1)
            rho = torch.sigmoid(gate)
            now_b = rho * now_b + (1 - rho) * now_s
            theta = 0.1 + 1.8 * now_b
        reached = now_u + m * (d - now_u)
        now_s = (reached > theta).float()
        now_u = torch.where(now_s > 0, torch.zeros(()), reached)
        assert torch.equal(now_s, s[t])
    torch.testing.assert_close(u, now_u, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(b, now_b, rtol=1e-5, atol=1e-6)


def test_a_frame_shown_at_every_step_is_as_shown_anew():
    torch.manual_seed(2)
    layer = LiquidConvolution(1, 2, Liquid())
    frame = torch.rand(1, 3, 1, 5, 5)
    once = layer.block(frame.expand(4, -1, -1, -1, -1), None)
    anew = layer.block(frame.repeat(4, 1, 1, 1, 1), None)
    torch.testing.assert_close(once, anew, rtol=1e-5, atol=1e-6)


def test_states_start_as_said():
    torch.manual_seed(0)
    like = torch.empty(50, 40)
    assert all(not state.any() for state in first_state(like, "zero"))
    u, b, s = first_state(like, "random")
    assert 0 <= u.min() < 0.05 and 0.95 < u.max() <= 1 and abs(float(u.mean()) - 0.5) < 0.02
    assert torch.equal(b, torch.full_like(like, 0.1)) and not s.any()
    with pytest.raises(SnnCompileError, match="start is 'one'; use one of zero, random"):
        LiquidLayer(1, 1, Liquid(), start="one")
    with pytest.raises(SnnCompileError, match="must be odd"):
        LiquidConvolution(1, 1, Liquid(), gate=2)
    with pytest.raises(SnnCompileError, match="must be"):
        run_liquid(
            torch.zeros(0, 1, 1), LiquidLayer(1, 1, Liquid()).gates(), Liquid(), first_state(like, "zero")
        )
