"""Fused sequences against their definitions, the step functions under autograd, on random networks."""

import copy
import itertools

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from snn_compile.targets.errors import SnnCompileError
from snn_compile.train.kernels import fused
from snn_compile.train.kernels.fused import Weights, run_adaptive, run_integrators, run_layer, run_resonators
from snn_compile.train.kernels.sequence import Step
from snn_compile.train.neurons.alif import Adaptation, adaptive_step
from snn_compile.train.neurons.lif import CubaLIFParameters, Firing, cuba_lif_step
from snn_compile.train.neurons.rf_brf import Resonance, damping, resonator_step
from snn_compile.train.neurons.surrogate import SURROGATES

FLAGS = list(itertools.product((True, False), repeat=3))
LIMITS = {torch.float32: 1e-5, torch.float64: 1e-10}


class Net:
    """Random tensors of a recurrent layer, its eager run and its fused run."""

    def __init__(self, family, kind, seed, dtype, recurrent=True, drive=0.1, size=None):
        rng = np.random.default_rng(seed)
        self.family, self.kind, self.dtype = family, kind, dtype
        steps, batch, drawn = rng.integers(1, 30), rng.integers(1, 6), rng.integers(1, 20)
        size = size or drawn
        scale = 1 / kind.delta if family == "resonators" else 1.0
        draw = {
            "x": rng.normal(drive, 0.3, (steps, batch, size)) * scale,
            "weight": rng.normal(0, 0.4, (size, size)) * scale if recurrent else None,
            "one": rng.uniform(3, 0.8 / 0.01, size)
            if family == "resonators"
            else rng.uniform(0.3, 0.95, size),
            "two": rng.uniform(0.1, 3, size) if family == "resonators" else rng.uniform(0.3, 0.95, size),
        }
        count = {"resonators": 3, "adaptive": 2, "integrators": 2}[family]
        states = [rng.normal(0, 0.3, (batch, size)) for _ in range(count)]
        if family != "integrators":
            states[-1] = np.abs(states[-1])
        states.append((rng.random((batch, size)) < 0.3).astype(float))
        self.first = [self._tensor(s) for s in states]
        self.values = {k: None if v is None else self._tensor(v) for k, v in draw.items()}
        self.pull = [self._tensor(rng.normal(size=(steps, batch, size)))]
        self.pull += [self._tensor(rng.normal(size=(batch, size))) for _ in range(count)]

    def _tensor(self, values):
        return torch.as_tensor(values).to(self.dtype).requires_grad_()

    def parameters(self):
        one, two = self.values["one"], self.values["two"]
        return damping(one, two, self.kind) if self.family == "resonators" else (one, two)

    def eager(self):
        one, two = self.parameters()
        *states, z = self.first
        out, self.nearest = [], np.inf
        for x in self.values["x"]:
            if self.values["weight"] is not None:
                x = x + z @ self.values["weight"].T
            if self.family == "resonators":
                q = states[2]
                z, states = resonator_step(x, tuple(states), one, two, self.kind)
                over = states[0] - 1 - q * self.kind.refractory
            elif self.family == "adaptive":
                reached = one * states[0] + (1 - one) * x
                z, (*states, _) = adaptive_step(x, (*states, z), one, two, self.kind)
                over = reached - self.kind.base - self.kind.scale * states[1]
            else:
                k = self.kind
                firing = Firing(k.threshold, "subtract" if k.subtract else "value", k.surrogate, k.detached)
                over = two * states[1] + one * states[0] + x - k.threshold
                z, states = cuba_lif_step(x, tuple(states), CubaLIFParameters(one, two, firing))
            self.nearest = min(self.nearest, float(over.detach().abs().min()))
            out.append(z)
        return torch.stack(out), *states

    def fused(self):
        run = {"resonators": run_resonators, "adaptive": run_adaptive, "integrators": run_integrators}
        z, states = run[self.family](
            self.values["x"], self.values["weight"], *self.parameters(), self.kind, tuple(self.first)
        )
        return z, *states[:-1]

    def doubled(self):
        """Return the same net in float64."""
        twin = copy.copy(self)
        twin.dtype = torch.float64
        twin.values = {k: None if v is None else twin._tensor(v.detach()) for k, v in self.values.items()}
        for name in ("first", "pull"):
            setattr(twin, name, [twin._tensor(v.detach()) for v in getattr(self, name)])
        return twin

    def gradients(self, out):
        wanted = [v for v in (*self.values.values(), *self.first) if v is not None]
        return torch.autograd.grad(out, wanted, self.pull, allow_unused=True)


def compare(net):
    expected, found = net.eager(), net.fused()
    if net.nearest <= LIMITS[net.dtype]:
        return None  # so near to a threshold the order of a sum decides
    assert torch.equal(expected[0], found[0])
    limit = LIMITS[net.dtype]
    for a, b in zip(expected[1:], found[1:], strict=True):
        torch.testing.assert_close(b, a, rtol=10 * limit, atol=limit)
    exact = itertools.repeat(None)
    if net.dtype is torch.float32:
        twin = net.doubled()
        again = twin.eager()
        exact = twin.gradients(again) if torch.equal(again[0], expected[0].double()) else exact
    for a, b, c in zip(net.gradients(expected), net.gradients(found), exact, strict=False):
        if a is None and b is None:
            continue  # the last spikes of a layer that does not hear itself
        a = torch.zeros_like(b) if a is None else a
        # A net that amplifies gradients amplifies float32's rounding, in the definition too.
        own = 0.0 if c is None else 4 * float((a - c).abs().max())
        assert (a - b).abs().max() <= max(limit * max(1.0, float(a.abs().max())), own)
    return float(expected[0].detach().mean())


seeds = st.integers(0, 2**32 - 1)
surrogates = st.sampled_from(sorted(SURROGATES))
dtypes = st.sampled_from([torch.float32, torch.float64])


@settings(max_examples=30)
@given(seeds, dtypes, st.sampled_from(FLAGS), st.booleans(), surrogates)
def test_resonators(seed, dtype, flags, recurrent, surrogate):
    net = Net("resonators", Resonance(*flags, surrogate=surrogate), seed, dtype, recurrent)
    assume(compare(net) is not None)


@settings(max_examples=30)
@given(
    seeds, dtypes, st.sampled_from(["theta", "2theta"]), st.booleans(), st.sampled_from(sorted(SURROGATES))
)
def test_adaptive_neurons(seed, dtype, reset, recurrent, surrogate):
    net = Net("adaptive", Adaptation(reset, surrogate=surrogate), seed, dtype, recurrent)
    assume(compare(net) is not None)


@settings(max_examples=30)
@given(seeds, dtypes, st.booleans(), st.booleans(), surrogates)
def test_integrators(seed, dtype, subtract, detached, surrogate):
    net = Net("integrators", Step(True, 0.6, 1.0, subtract, detached, surrogate), seed, dtype)
    assume(compare(net) is not None)


@pytest.mark.parametrize("flags", FLAGS)
@pytest.mark.parametrize("dtype", LIMITS)
def test_every_ablation_of_the_balanced_neuron(flags, dtype):
    nets = [Net("resonators", Resonance(*flags), i, dtype, drive=(-0.2, 4.0)[i % 2]) for i in range(6)]
    rates = [rate for rate in map(compare, nets) if rate is not None]
    assert len(rates) > 3 and max(rates) > fused.DENSE and min(rates) > 0


@pytest.mark.parametrize("size", [63, 64, 65, 130])
@pytest.mark.parametrize("together", [fused.NEURONS_TOGETHER, 200])
def test_layers_of_several_words_and_parts(size, together, monkeypatch):
    monkeypatch.setattr(fused, "NEURONS_TOGETHER", together)
    for family, kind in (("resonators", Resonance()), ("adaptive", Adaptation())):
        nets = [Net(family, kind, seed, torch.float64, drive=0.3, size=size) for seed in range(3)]
        rates = [rate for rate in map(compare, nets) if rate is not None]
        assert rates and max(rates) > 0


def test_both_ways_to_hear_spikes_are_the_same(monkeypatch):
    net = Net("resonators", Resonance(), 3, torch.float64, drive=0.8)
    found = []
    assert net.eager()[0].any()
    for dense in (0.0, 1.0):
        monkeypatch.setattr(fused, "DENSE", dense)
        found.append(net.gradients(net.fused()))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


def test_a_sequence_may_be_cut_anywhere():
    net = Net("resonators", Resonance(), 5, torch.float64)
    x, weight, parameters = net.values["x"], net.values["weight"], net.parameters()
    assert len(x) > 3
    whole, last = run_resonators(x, weight, *parameters, net.kind, tuple(net.first))
    one, states = run_resonators(x[:3], weight, *parameters, net.kind, tuple(net.first))
    two, end = run_resonators(x[3:], weight, *parameters, net.kind, states)
    assert torch.equal(whole, torch.cat([one, two]))
    assert all(torch.equal(a, b) for a, b in zip(last, end, strict=True))
    a = torch.autograd.grad(whole, [x, weight], net.pull[0])
    b = torch.autograd.grad(torch.cat([one, two]), [x, weight], net.pull[0])
    for left, right in zip(a, b, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("inputs", [1, 3, 20])
@pytest.mark.parametrize("drive", [1.0, 6.0])
def test_a_layer_with_its_weights_is_its_steps_between_products(inputs, drive, monkeypatch):
    monkeypatch.setattr(fused, "NEURONS_TOGETHER", 100)  # several parts of the batch
    generator = torch.Generator().manual_seed(inputs)

    def normal(*shape, scale=1.0):
        return (scale * torch.randn(*shape, dtype=torch.float64, generator=generator)).requires_grad_()

    steps, batch, size, classes = 37, 7, 30, 4
    x = normal(steps, batch, inputs, scale=drive / inputs**0.5)
    weights = normal(size, inputs, scale=60), normal(size, size, scale=8), normal(classes, size)
    one, two = damping(20 + normal(size), 1 + normal(size, scale=0.1), Resonance())
    one, two = one.detach().requires_grad_(), two.detach().requires_grad_()
    read, z = run_layer(x, Weights(*weights), (one, two), Resonance())[:2]
    states, expected = [torch.zeros(batch, size, dtype=torch.float64)] * 3, []
    last = states[0]
    for arrives in torch.nn.functional.linear(x, weights[0]):
        arrives = arrives + torch.nn.functional.linear(last, weights[1])
        last, states = resonator_step(arrives, tuple(states), one, two, Resonance())
        expected.append(last)
    expected = torch.stack(expected)
    assert torch.equal(z, expected) and 0.001 < float(z.detach().mean()) < 0.5
    heard = torch.nn.functional.linear(expected, weights[2])
    torch.testing.assert_close(read, heard, rtol=1e-12, atol=1e-12)
    values, pull = [x, *weights, one, two], torch.randn(heard.shape, dtype=torch.float64, generator=generator)
    a, b = (torch.autograd.grad(out, values, pull) for out in (read, heard))
    for left, right in zip(a, b, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-10, atol=1e-10 * float(right.abs().max()))


def test_a_callable_surrogate_and_a_scalar_parameter():
    x = torch.randn(6, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    share = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    answers = []
    for surrogate in ("linear", SURROGATES["linear"], lambda over: torch.clamp(1 - over.abs(), min=0)):
        z, _ = run_adaptive(x, None, share, share, Adaptation(surrogate=surrogate))
        answers.append(torch.autograd.grad(z.sum(), [x, share]))
    assert answers[0][1].ndim == 0
    for others in answers[1:]:
        assert all(torch.equal(a, b) for a, b in zip(answers[0], others, strict=True))


@pytest.mark.parametrize("shape", [(0, 2, 3), (4, 3)])
def test_a_sequence_of_another_shape_is_told(shape):
    one = torch.ones(3)
    with pytest.raises(SnnCompileError, match="must be \\(steps, batch, neurons\\)"):
        run_resonators(torch.zeros(shape), None, one, -one, Resonance())


def _layer(inputs=3, size=5, classes=2, batch=4, **changes):
    x = torch.ones(6, batch, inputs)
    weights = {
        "inward": torch.ones(size, inputs),
        "recurrent": torch.ones(size, size),
        "outward": torch.ones(classes, size),
    }
    weights |= {k: v for k, v in changes.items() if k in weights}
    states = changes.get("states")
    return run_layer(
        changes.get("x", x), Weights(**weights), (torch.ones(size), -torch.ones(size)), Resonance(), states
    )


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"x": torch.ones(6, 4, 4)}, "input weights have shape \\(5, 3\\); they must have \\(5, 4\\)"),
        ({"x": torch.ones(6, 4, 3).bool()}, "a sequence is torch.bool; use float32 or float64"),
        ({"x": torch.ones(6, 4, 3).double()}, "are torch.float32 and the sequence torch.float64"),
        ({"recurrent": torch.ones(1, 5)}, "recurrent weights have shape \\(1, 5\\)"),
        ({"outward": torch.ones(2, 4)}, "weights of the read-out have shape \\(2, 4\\)"),
        ({"states": (torch.zeros(4, 5),) * 3}, "3 states were given; a Resonance has 4"),
        ({"states": (torch.zeros(3, 5),) * 4}, "states have shape \\(3, 5\\); they must have \\(4, 5\\)"),
        ({"size": 0}, "0 neurons and 3 inputs"),
        ({"inputs": 0}, "5 neurons and 0 inputs"),
        ({"states": (torch.zeros(4, 5),) * 3 + (torch.full((4, 5), 32.0),)}, "holds more than 0 and 1"),
        ({"states": (torch.zeros(4, 5),) * 3 + (torch.full((4, 5), torch.nan),)}, "more than 0 and 1"),
    ],
)
def test_what_does_not_fit_together_is_told(changes, told):
    with pytest.raises(SnnCompileError, match=told):
        _layer(**changes)


def test_parameters_of_another_size_are_told():
    with pytest.raises(SnnCompileError, match="shape \\(2,\\); it must be one number or \\(3,\\)"):
        run_resonators(torch.zeros(4, 2, 3), None, torch.ones(2), -torch.ones(3), Resonance())


def test_no_samples_give_no_outputs_and_no_gradients():
    x = torch.zeros(6, 0, 3, requires_grad=True)
    read = _layer(x=x)[0]
    assert read.shape == (6, 0, 2)
    assert torch.autograd.grad(read.sum(), x)[0].shape == x.shape


def test_a_tensor_changed_before_the_way_back_is_told():
    share = torch.full((3,), 0.7, requires_grad=True)
    z, _ = run_adaptive(torch.ones(4, 2, 3), None, share, share, Adaptation())
    with torch.no_grad():
        share.mul_(0.5)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        z.sum().backward()


def test_gradients_of_gradients_are_refused():
    x, share = torch.ones(4, 2, 3, requires_grad=True), torch.full((3,), 0.7, requires_grad=True)
    z, _ = run_adaptive(x, None, share, share, Adaptation())
    with pytest.raises(SnnCompileError, match="has no gradient of its gradient"):
        torch.autograd.grad(z.sum(), x, create_graph=True)
