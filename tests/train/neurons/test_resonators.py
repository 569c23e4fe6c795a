"""What is proved of resonators, by property: boundary, Jacobian, spectrum, norms; the steps by hand."""

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from snn_compile import train
from snn_compile.targets.errors import SnnCompileError
from snn_compile.train.analysis.convergence import spectral_radius
from snn_compile.train.networks.recurrent import RecurrentConfig
from snn_compile.train.neurons.alif import Adaptation, adaptive_step
from snn_compile.train.neurons.rf_brf import (
    EDGE,
    Resonance,
    clamped,
    damping,
    izhikevich_step,
    resonator_step,
)

DELTA = 0.01
PLAIN = Resonance(False, False, False)
omegas = st.floats(1.0, 0.98 / DELTA)
offsets = st.floats(0.0, 30.0)


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


def step(state, omega, b, x=0.0, kind=PLAIN):
    """Return the state (u, v) of one neuron a step later; no q."""
    u, v = state[0], state[1]
    zero = torch.zeros_like(u)
    _, (u, v, _) = resonator_step(x + zero, (u, v, zero), tensor(omega), tensor(b), kind)
    return u, v


@settings(max_examples=30)
@given(omegas)
def test_at_the_boundary_the_modulus_is_kept(omega):
    b = float(train.divergence_boundary(tensor(omega), DELTA))
    state = tensor(0.6), tensor(-0.8)
    for _ in range(100):
        state = step(state, omega, b)
    assert math.hypot(*map(float, state)) == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize("delta", [0.0, -0.01, math.nan, math.inf])
def test_a_step_without_a_length_is_refused(delta):
    for made in (lambda: Resonance(delta=delta), lambda: train.divergence_boundary([1.0, 2.0], delta)):
        with pytest.raises(SnnCompileError, match="a step's length must be a positive number"):
            made()
    with pytest.raises(SnnCompileError, match="no surrogate 'x'"):
        Resonance(surrogate="x")


def test_the_modulus_is_kept_for_ten_thousand_steps_and_not_beside_the_boundary():
    omega = torch.from_numpy(np.random.default_rng(3).uniform(0.5, 99.5, 300))
    for away, moved in ((0.0, 0.0), (1e-4, 1.0), (-1e-4, -1.0)):
        b = train.divergence_boundary(omega, DELTA) + away
        zero = torch.zeros_like(b)
        state = (torch.full_like(b, 0.6), torch.full_like(b, -0.8), zero)
        for _ in range(10_000):
            state = resonator_step(zero, state, omega, b, PLAIN)[1]
        off = torch.hypot(state[0], state[1]) - 1
        assert off.abs().max() < 1e-9 if not moved else (off * moved > 1e-9).all()


def test_on_a_grid_the_state_grows_above_the_boundary_and_shrinks_below():
    omega = torch.linspace(1.0, 98.0, 41, dtype=torch.float64)[:, None].expand(41, 8)
    p = train.divergence_boundary(omega, DELTA)
    away = tensor(-2.0, -0.5, -0.1, -0.01, 0.01, 0.1, 0.5, 2.0)
    b = p + away
    state = (torch.full_like(b, 0.6), torch.full_like(b, 0.8), torch.zeros_like(b))
    start = torch.hypot(state[0], state[1])
    for _ in range(10_000):  # without spikes' effect: u and v see neither z nor q in the plain neuron
        state = resonator_step(torch.zeros_like(b), state, omega, b, PLAIN)[1]
    grown = torch.hypot(state[0], state[1]) > start
    assert torch.equal(grown, (away > 0).expand(41, 8))


@settings(max_examples=60)
@given(omegas, st.floats(-150.0, 5.0), st.floats(-2, 2), st.floats(-2, 2))
def test_the_jacobian_is_the_matrix_and_its_eigenvalues_the_pair(omega, b, u, v):
    found = torch.autograd.functional.jacobian(
        lambda s: torch.stack(step((s[0], s[1]), omega, b)).flatten(), tensor(u, v)
    )
    wanted = tensor([1 + DELTA * b, -DELTA * omega], [DELTA * omega, 1 + DELTA * b])
    torch.testing.assert_close(found, wanted, rtol=1e-14, atol=1e-14)
    values = sorted(np.linalg.eigvals(found.numpy()), key=lambda e: e.imag)
    assert values[1] == pytest.approx(complex(1 + DELTA * b, DELTA * omega), abs=1e-12)
    assert values[0] == pytest.approx(values[1].conjugate(), abs=1e-12)


@settings(max_examples=60)
@given(omegas, offsets, st.floats(0.0, 10.0))
def test_the_spectral_radius_is_at_most_one_where_it_is_proved(omega, offset, q):
    b = train.divergence_boundary(omega, DELTA) - offset - q
    radius = abs(complex(1 + DELTA * b, DELTA * omega))
    proved = DELTA * (offset + q) <= 2 * math.sqrt(1 - (DELTA * omega) ** 2)
    assert (radius <= 1 + 1e-12) == proved or abs(radius - 1) < 1e-9
    if offset == q == 0:
        assert radius == pytest.approx(1.0, abs=1e-12)


@settings(max_examples=60)
@given(omegas, offsets, st.floats(0.0, 10.0), st.floats(-2, 2), st.floats(-2, 2))
def test_with_q_the_jacobian_is_that_of_the_smaller_damping(omega, offset, q, u, v):
    omega_, b = damping(tensor(omega), tensor(offset), Resonance())

    def after(s):
        state = resonator_step(tensor(0.0), (s[:1], s[1:], tensor(q)), omega_, b, Resonance())[1]
        return torch.cat(state[:2])

    found = torch.autograd.functional.jacobian(after, tensor(u, v)).numpy()
    turn, now = DELTA * omega, math.sqrt(1 - (DELTA * omega) ** 2) - DELTA * (offset + q)
    np.testing.assert_allclose(found, [[now, -turn], [turn, now]], rtol=0, atol=1e-12)
    radius = max(abs(np.linalg.eigvals(found)))
    assert radius == pytest.approx(math.hypot(now, turn), abs=1e-12)


@settings(max_examples=30)
@given(omegas, st.floats(-3.0, 0.3), st.integers(1, 200))
def test_the_gradient_through_time_has_the_norm_of_the_factor_s_power(omega, b, steps):
    state = start = (tensor(0.3).requires_grad_(), tensor(0.1).requires_grad_())
    for _ in range(steps):
        state = step(state, omega, b)
    rows = [torch.stack(torch.autograd.grad(s, start, retain_graph=True)).flatten() for s in state]
    found = float(torch.linalg.matrix_norm(torch.stack(rows), 2))
    assert found == pytest.approx(abs(complex(1 + DELTA * b, DELTA * omega)) ** steps, rel=1e-9)


def test_the_boundary_is_the_formula_for_tensors_arrays_and_numbers():
    omega = np.linspace(0.0, 99.9, 50)
    wanted = (-1 + np.sqrt(1 - (DELTA * omega) ** 2)) / DELTA
    np.testing.assert_allclose(train.divergence_boundary(omega, DELTA), wanted, rtol=1e-12)
    np.testing.assert_allclose(train.divergence_boundary(torch.from_numpy(omega), DELTA).numpy(), wanted)
    assert float(train.divergence_boundary(30.0, 0.02)) == pytest.approx((-1 + 0.8) / 0.02)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_too_fast_a_resonator_is_clamped_and_counted_and_never_nan(dtype):
    parameters = torch.tensor([50.0, -99.0, 100.0, 1e6, -250.0], dtype=dtype, requires_grad=True)
    offset = torch.ones(5, dtype=dtype)
    omega, b = damping(parameters, offset, Resonance())
    assert clamped(parameters, DELTA) == 3
    assert float(omega.detach().max()) * DELTA < 1 and omega.detach()[2:].tolist() == pytest.approx(
        [EDGE / DELTA] * 3
    )
    assert torch.isfinite(b).all() and (b < 0).all()
    b.sum().backward()
    assert torch.isfinite(parameters.grad).all()
    free, _ = damping(parameters, offset, PLAIN)
    assert free.tolist() == [50.0, 99.0, 100.0, 1e6, 250.0]


@settings(max_examples=100)
@given(st.lists(st.floats(-1e30, 1e30), min_size=1, max_size=20), st.floats(1e-4, 1.0))
def test_no_frequency_gives_nan_and_all_that_are_too_fast_are_counted(frequencies, delta):
    kind = Resonance(delta=delta)
    parameters = torch.tensor(frequencies, dtype=torch.float64, requires_grad=True)
    omega, b = damping(parameters, torch.full_like(parameters, 0.5), kind)
    state = (torch.zeros_like(b),) * 3
    for x in (3.0, 0.0, 50.0):
        z, state = resonator_step(torch.full_like(b, x / delta), state, omega, b, kind)
    (state[0].sum() + state[1].sum() + b.sum()).backward()
    assert all(torch.isfinite(values).all() for values in (omega, b, *state, parameters.grad))
    assert float((delta * omega).detach().max()) < 1
    assert clamped(parameters, delta) == sum(delta * abs(f) > EDGE for f in frequencies)


@settings(max_examples=200)
@given(st.floats(1e-3, 0.5), st.floats(0.1, 1.2), st.floats(0.0, 5.0), st.booleans())
def test_a_network_is_built_where_no_q_makes_its_state_grow(delta, turn, offset, reverse):
    omega, offsets_ = (1e-3, turn / delta), (0.0, offset)
    if reverse:  # ranges count by what they can draw, in any order and of any sign
        omega, offsets_ = (-omega[1], omega[0]), offsets_[::-1]
    largest = delta * (offset + 10.0)
    allowed = 2 * math.sqrt(max(0.0, 1 - turn**2))
    assume(abs(largest - allowed) > 1e-9)
    words = {"delta": delta, "omega": omega, "offset": offsets_}
    if largest > allowed:
        with pytest.raises(SnnCompileError, match="makes the state grow"):
            RecurrentConfig(2, 3, 2, **words)
        RecurrentConfig(2, 3, 2, smooth_reset=False, **words)
        return
    RecurrentConfig(2, 3, 2, **words)
    drawn = torch.linspace(*omega, 20, dtype=torch.float64)[:, None]
    frequency, b = damping(drawn, tensor(*np.linspace(*offsets_, 5)), Resonance(delta=delta))
    for q in (0.0, 3.0, 10.0):
        assert (spectral_radius(frequency, b - q, delta) <= 1 + 1e-12).all()


def test_a_balanced_neuron_by_hand_with_q_in_threshold_and_damping():
    kind, omega, b = Resonance(delta=0.1), tensor(2.0), tensor(-1.0)
    u = v = q = 0.0
    state, zero = (tensor(0.0),) * 3, []
    for x in (15.0, 3.0, 20.0, 0.0, 40.0):
        now = -1.0 - q
        u, v = u + 0.1 * (now * u - 2.0 * v + x), v + 0.1 * (2.0 * u + now * v)
        spike = float(u > 1 + q)
        q = 0.9 * q + spike
        z, state = resonator_step(tensor(x), state, omega, b, kind)
        assert [float(s) for s in (z, *state)] == pytest.approx([spike, u, v, q])
        zero.append(spike)
    assert zero == [1.0, 0.0, 1.0, 0.0, 1.0]


def test_izhikevich_s_spike_sets_the_state_to_i_and_a_tie_does_not_spike():
    state = tensor(5.0, 5.0), tensor(0.9, 0.5)
    z, (u, v) = izhikevich_step(tensor(0.0, 0.0), state, tensor(10.0, 10.0), tensor(0.0, 0.0), PLAIN)
    assert z.tolist() == [1.0, 0.0]  # 0.9 + 0.5 and 0.5 + 0.5
    assert u.tolist() == pytest.approx([0.0, 5 - 0.05]) and v.tolist() == pytest.approx([1.0, 1.0])


@pytest.mark.parametrize("reset, times", [("theta", 1.0), ("2theta", 2.0)])
def test_an_adaptive_neuron_by_hand(reset, times):
    alpha, rho = 0.8, 0.9
    u = a = last = 0.0
    state = (tensor(0.0),) * 3
    for x in (1.0, 2.0, 5.0, 0.0, 9.0, 9.0):
        a = rho * a + (1 - rho) * last
        theta = 0.01 + 1.8 * a
        u = alpha * u + (1 - alpha) * x
        last = float(u > theta)
        u -= times * theta * last
        z, state = adaptive_step(tensor(x), state, tensor(alpha), tensor(rho), Adaptation(reset))
        assert [float(s) for s in (z, *state)] == pytest.approx([last, u, a, last])


def test_an_unknown_reset_lists_the_known():
    with pytest.raises(SnnCompileError, match="theta, 2theta"):
        Adaptation("zero")
