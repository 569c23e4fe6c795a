"""The compiled pass over a layer against its definitions: the step functions and autograd; the oracle."""

import itertools

import numpy as np
import pytest
import torch

from snn_compile.targets.integer import DECAY_ONE, M
from snn_compile.targets.oracle.lif import LeakyIntegrators, LeakyNeurons
from snn_compile.targets.program.population import Population
from snn_compile.train.kernels.sequence import Registers, Step, advance, rest
from snn_compile.train.networks.layers import run_steps
from snn_compile.train.neurons.lif import CubaLIFParameters, Firing, LIFParameters, cuba_lif_step, lif_step
from snn_compile.train.neurons.surrogate import SURROGATES

BATCH, STEPS, SIZE = 3, 7, 5


def defined(x, alpha, beta, firing, gain, back):
    """Return the spikes of all steps by the step functions; alpha None means LIF."""
    zero = torch.zeros(BATCH, SIZE, dtype=x.dtype)
    state, z, out = (zero if alpha is None else (zero, zero)), zero, []
    for t in range(STEPS):
        now = x[:, t if x.shape[1] > 1 else 0] + (0 if back is None else z @ back.T)
        if alpha is None:
            z, state = lif_step(now, state, LIFParameters(beta, gain, firing))
        else:
            z, state = cuba_lif_step(now, state, CubaLIFParameters(alpha, beta, firing))
        out.append(z)
    return torch.stack(out, dim=1)


CASES = [
    (reset, detached, surrogate, kind, back)
    for (reset, detached), (surrogate, kind, back) in itertools.product(
        itertools.product(("value", "subtract"), (True, False)),
        [
            ("arctan", "lif", False),
            ("arctan", "cuba", True),
            ("multi-gaussian", "cuba", False),
            ("linear", "lif", True),
            ("arctan", "constant", False),
        ],
    )
]


@pytest.mark.parametrize("reset, detached, surrogate, kind, back", CASES)
def test_spikes_and_gradients_are_those_of_the_step_functions(reset, detached, surrogate, kind, back):
    rng = np.random.default_rng(len(reset) + 10 * detached + 100 * back)

    def tensor(values):
        return torch.from_numpy(values).requires_grad_()

    x = tensor(rng.normal(0.4, 0.8, (BATCH, 1 if kind == "constant" else STEPS, SIZE)))
    beta = tensor(rng.uniform(0.2, 0.95, SIZE))
    alpha = tensor(rng.uniform(0.2, 0.9, SIZE)) if kind == "cuba" else None
    weights = tensor(rng.normal(0, 0.7, (SIZE, SIZE))) if back else None
    firing, gain = Firing(0.8, reset, surrogate, detached), 1.0 if kind == "cuba" else 0.7
    step = Step(True, 0.8, gain, reset == "subtract", detached, surrogate)
    decays = (torch.zeros(()) if alpha is None else alpha, beta)
    values = [tensor for tensor in (x, beta, alpha, weights) if tensor is not None]
    pull = torch.from_numpy(rng.normal(size=(BATCH, STEPS, SIZE)))

    wanted = defined(x, alpha, beta, firing, gain, weights)
    expected = torch.autograd.grad((wanted * pull).sum(), values)
    made = run_steps(x, decays, STEPS, step, weights)
    found = torch.autograd.grad((made * pull).sum(), values)
    assert 0.1 < wanted.mean() < 0.9
    assert torch.equal(made, wanted)
    for a, b in zip(found, expected, strict=True):
        assert b.abs().max() > 0.01
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("reset", ["value", "subtract"])
def test_a_sequence_may_be_cut_anywhere(reset):
    rng = np.random.default_rng(5)
    x = torch.from_numpy(rng.normal(0.3, 1.0, (BATCH, STEPS, SIZE))).requires_grad_()
    decays = torch.tensor(0.6, dtype=torch.float64), torch.tensor(0.8, dtype=torch.float64)
    step = Step(subtract=reset == "subtract")
    whole, (u, v) = advance(x, rest(BATCH, SIZE, step, x), decays, STEPS, step)
    first, states = advance(x[:, :3], rest(BATCH, SIZE, step, x), decays, 3, step)
    second, (u2, v2) = advance(x[:, 3:], states, decays, STEPS - 3, step)
    assert torch.equal(whole, torch.cat([first, second], 1)) and torch.equal(u, u2) and torch.equal(v, v2)
    pull = torch.from_numpy(rng.normal(size=(BATCH, SIZE)))
    a = torch.autograd.grad((whole.sum(1) * pull + u * v).sum(), x)[0]
    b = torch.autograd.grad(((first.sum(1) + second.sum(1)) * pull + u2 * v2).sum(), x)[0]
    torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("seed", range(12))
def test_integers_are_the_oracle_s_beyond_the_edges_of_24_bits(seed):
    rng = np.random.default_rng(seed)
    spiking, size, steps = bool(seed % 3), 40, 30
    du, dv = rng.integers(0, 4096, size), rng.integers(0, 4097, size)
    bias, vth = rng.integers(-4095, 4096, size), rng.integers(0, 1 << (4 + seed), size)
    parameters = {"du": du, "dv": dv, "bias_mant": bias, "bias_exp": np.array([seed % 8])}
    if spiking:
        parameters["vth"] = vth
    reset = ("value" if seed % 2 else "subtract") if spiking else "none"
    kind = LeakyNeurons if spiking else LeakyIntegrators
    neurons = kind(Population("p", (size,), "lif" if spiking else "li", parameters, reset), BATCH)
    a = rng.integers(-(1 << (8 + seed)), 1 << (8 + seed), (BATCH, steps, size))
    expected = {"sent": [], "u": [], "v": []}
    for t in range(steps):
        expected["sent"].append(neurons.step([a[:, t]]))
        expected["u"].append(neurons.u.copy())
        expected["v"].append(neurons.v.copy())

    chip = Registers(
        (DECAY_ONE - 1 - du).astype(float),
        (DECAY_ONE - dv).astype(float),
        torch.from_numpy((bias << seed % 8).astype(float)),
        (vth << 6).astype(float),
        64.0,
    )
    step = Step(spiking, subtract=reset == "subtract", registers=chip)
    x = torch.from_numpy(a.astype(np.float64))
    states = rest(BATCH, size, step, x)
    for t in range(steps):
        out, states = advance(x[:, t : t + 1], states, (torch.ones(()), torch.ones(())), 1, step)
        np.testing.assert_array_equal(out[:, 0].numpy(), expected["sent"][t])
        np.testing.assert_array_equal(states[0].numpy(), expected["u"][t])
        np.testing.assert_array_equal(states[1].numpy(), expected["v"][t])
    if seed > 9:
        assert neurons.overflow.u_wraps and np.abs(expected["v"]).max() == M - 1
    whole = run_steps(x, (torch.ones(()), torch.ones(())), steps, step)
    np.testing.assert_array_equal(whole.numpy(), np.stack(expected["sent"], 1))


def test_every_surrogate_is_covered_by_name():
    x = torch.linspace(-1, 3, 24).reshape(1, 4, 6).requires_grad_()
    decays = torch.zeros(()), torch.tensor(0.5)
    for name, function in SURROGATES.items():
        named, own = (
            torch.autograd.grad(run_steps(x, decays, 4, Step(surrogate=s)).sum(), x)[0]
            for s in (name, function)
        )
        torch.testing.assert_close(named, own)
