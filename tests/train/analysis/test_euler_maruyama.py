"""Euler-Maruyama of LIF networks: the kernel against plain numpy, orders in the step, Lyapunov exponents."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from snn_compile.compiler.analysis.slopes import bootstrap_slope, log_slope
from snn_compile.targets.errors import SnnCompileError
from snn_compile.train.analysis.euler_maruyama import (
    BLOCKS,
    Convergence,
    LifSystem,
    converge,
    noisy_voltage,
    small_loop,
    two_layers,
)
from snn_compile.train.analysis.lyapunov import lyapunov


def one(mu: float, sigma: float) -> LifSystem:
    return LifSystem(np.zeros((1, 1)), np.array([mu]), np.array([sigma]), np.zeros(1, np.int64))


def random_system(rng: np.random.Generator) -> LifSystem:
    n = int(rng.integers(1, 6))
    return LifSystem(
        rng.normal(0, 0.5, (n, n)),
        rng.uniform(0.5, 1.5, n),
        rng.uniform(0.2, 1.0, n),
        np.sort(rng.integers(0, 2, n)) * (n > 1),
        float(rng.uniform(0.5, 2.0)),
        float(rng.uniform(0.2, 2.0)),
        str(rng.choice(["current", "voltage"])),
    )


def by_hand(system: LifSystem, steps: np.ndarray, noise: np.ndarray, h: float, v: np.ndarray, c: np.ndarray):
    """Step one path with the increments of `steps` fine steps summed; return spike times by neuron."""
    v, c = v.copy(), c.copy()
    times: list[list[float]] = [[] for _ in v]
    for k in range(steps):
        dw = system.sigma * noise[k]
        drift_v = h * (c - v / system.tau_m)
        drift_c = h * (system.mu - c) / system.tau_s
        v = v + drift_v + (dw if system.noise == "voltage" else 0)
        c = c + drift_c + (dw if system.noise == "current" else 0)
        fired = v >= 1
        c = c + system.weights @ fired
        v = np.where(fired, 0.0, v)
        for i in np.flatnonzero(fired):
            times[i].append((k + 1) * h)
    return times


@pytest.mark.parametrize("seed", range(4))
def test_kernel_equals_plain_numpy_on_random_networks(seed: int) -> None:
    rng = np.random.default_rng(seed)
    system = random_system(rng)
    levels, finest, refine, horizon = 3, 2.0**-5, 2, 1.5
    done = converge(system, 2 * BLOCKS, levels, finest, horizon, refine, seed=seed)
    sums, squares = np.zeros((2, system.layers, levels))
    differ, late, spikes = [], np.zeros((levels, 2)), 0
    for stream in np.random.SeedSequence(seed).spawn(BLOCKS):
        draw = np.random.Generator(np.random.SFC64(stream))
        for _ in range(2):
            v, c = np.zeros(system.size), system.mu.copy()
            for i in range(system.size):
                v[i] = draw.random()
                if system.noise == "current":
                    c[i] += system.sigma[i] * np.sqrt(0.5 * system.tau_s) * draw.standard_normal()
            count = round(horizon / finest) * refine
            noise = draw.standard_normal((count, system.size)) * np.sqrt(finest / refine)
            exact = by_hand(system, count, noise, finest / refine, v, c)
            spikes += sum(map(len, exact))
            unequal = np.zeros(levels)
            for level in range(levels):
                ratio = refine * 2**level
                coarse = by_hand(
                    system,
                    count // ratio,
                    noise.reshape(-1, ratio, system.size).sum(1),
                    finest * 2**level,
                    v,
                    c,
                )
                for layer in range(system.layers):
                    a, b = (
                        sum(
                            (horizon - t) * np.exp(1 - (horizon - t))
                            for i in np.flatnonzero(system.layer == layer)
                            for t in times[i]
                        )
                        for times in (coarse, exact)
                    )
                    sums[layer, level] += a / (1 + a) - b / (1 + b)
                    squares[layer, level] += (a / (1 + a) - b / (1 + b)) ** 2
                equal = [len(a) == len(b) for a, b in zip(coarse, exact, strict=True)]
                unequal[level] = not all(equal)
                for a, b, same in zip(coarse, exact, equal, strict=True):
                    if same:
                        late[level] += np.sum((np.array(a) - np.array(b)) ** 2), len(a)
            differ.append(unequal)
    assert spikes > 50
    assert done.spikes_a_path * done.paths == pytest.approx(spikes)
    np.testing.assert_allclose(done.strong, np.sqrt(squares / done.paths), rtol=1e-9)
    np.testing.assert_allclose(done.weak, np.abs(sums) / done.paths, rtol=1e-6, atol=1e-12)
    np.testing.assert_array_equal(done.mismatch, np.mean(differ, 0))
    np.testing.assert_allclose(done.spike_time_rms, np.sqrt(late[:, 0] / late[:, 1]), rtol=1e-9)


def test_threads_do_not_matter() -> None:
    one_thread, three = (converge(small_loop(), 2 * BLOCKS, 3, 2.0**-5, threads=n) for n in (1, 3))
    assert one_thread.json() == three.json()


@pytest.fixture(scope="module")
def layers() -> Convergence:
    return converge(two_layers(), 48_000, 6, 2.0**-9, horizon=2.0, refine=8)


def test_orders_of_the_feed_forward_network(layers: Convergence) -> None:
    strong, weak, mismatch = (layers.fits[name] for name in ("strong", "weak", "mismatch"))
    assert 0.40 <= strong.slope <= 0.60 and strong.low <= 0.60 and strong.high >= 0.40
    assert 0.8 <= weak.slope <= 1.2 and weak.low <= 1.0 <= weak.high
    assert 0.9 <= mismatch.slope <= 1.1 and mismatch.low <= 1.1 and mismatch.high >= 0.9
    # The intervals say something: they are narrower than the orders are apart.
    assert max(fit.high - fit.low for fit in (strong, weak, mismatch)) < 0.5
    assert strong.high < 0.8 < weak.low and strong.high < mismatch.low


def test_flux_vanishes_with_the_crossing_speed(layers: Convergence) -> None:
    """The paper bounds the share of crossings slower than a by O(a^2).

    For an integrated Brownian motion it is a^(5/2) (McKean 1963): 5.7 times as many below twice a.
    """
    below = np.cumsum(layers.crossings)
    assert below[3] > 500
    assert 4.0 < below[7] / below[3] < 6.5
    assert layers.crossings.argmax() > 12


def test_noise_in_the_voltage_has_half_the_weak_order(layers: Convergence) -> None:
    done = converge(noisy_voltage(), 12_000, 5, 2.0**-8, horizon=2.0, refine=16)
    assert 0.4 <= done.fits["weak"].slope <= 0.65
    assert done.fits["weak"].high < 0.7 < layers.fits["weak"].low
    assert done.fits["mismatch"].high < layers.fits["mismatch"].low


def test_recurrent_network_converges() -> None:
    done = converge(small_loop(), 8_000, 5, 2.0**-7, horizon=2.0, refine=8)
    assert (np.diff(done.strong, axis=1) > 0).all()
    assert done.fits["strong"].low > 0 and done.fits["mismatch"].low > 0.5


@pytest.mark.parametrize("mu", [1.1, 1.5, 3.0])
def test_exponent_vanishes_without_noise(mu: float) -> None:
    (found,) = lyapunov(one(mu, 0.0), duration=3000.0)
    assert found.spikes > 1000
    assert abs(found.saltation) <= 1e-3
    assert abs(found.perturbation) <= 1e-3


@pytest.mark.parametrize(
    "system",
    [one(1.5, 0.3), one(1.1, 1.0), one(0.8, 1.0), two_layers()],
    ids=["drift", "mixed", "noise", "net"],
)
def test_saltation_agrees_with_perturbation(system: LifSystem) -> None:
    for found in lyapunov(system, duration=1000.0, seed=3):
        assert found.spikes > 100
        assert abs(found.saltation - found.perturbation) <= 1e-3
        assert found.saltation < -5e-3  # noise makes the phase forget: the agreement is not of zeros


def test_random_layered_networks_have_agreeing_exponents() -> None:
    rng = np.random.default_rng(5)
    for _ in range(5):
        n = 4
        weights = np.zeros((n, n))
        weights[2:, :2] = rng.normal(0.2, 0.4, (2, 2))
        system = LifSystem(
            weights,
            rng.uniform(0.9, 1.5, n),
            rng.uniform(0, 1, n),
            np.array([0, 0, 1, 1]),
            rng.uniform(0.7, 1.5),
        )
        for found in lyapunov(system, duration=300.0, seed=1):
            assert abs(found.saltation - found.perturbation) <= 1e-3


def test_slope_of_a_power_law_and_its_interval() -> None:
    steps = 2.0 ** -np.arange(6)
    assert log_slope(steps, 3 * steps**0.7) == pytest.approx(0.7, abs=1e-12)
    weights = np.array([1.0, 1, 1, 1, 1e-12, 1e-12])
    bent = np.where(np.arange(6) < 4, steps, 7.0)
    assert log_slope(steps, bent, weights) == pytest.approx(1.0, abs=1e-6)
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(40):
        totals = rng.exponential(1.0, (100, 6)) * steps
        fit = bootstrap_slope(steps, totals, np.ones_like(totals), np.asarray)
        inside += fit.low <= 1.0 <= fit.high
    assert 32 <= inside <= 40
    single = bootstrap_slope(steps, steps[None], np.ones((1, 6)), np.asarray)
    assert single.slope == pytest.approx(1.0) and single.text() == "1.00"
    nothing = bootstrap_slope(steps, np.zeros((9, 6)), np.ones((9, 6)), np.asarray)
    assert nothing.json() == {"slope": None, "low": None, "high": None} and nothing.text() == "-"


def test_refusals_say_why() -> None:
    with pytest.raises(SnnCompileError, match="divide the horizon"):
        converge(two_layers(), 4000, 3, 0.3, horizon=1.0)
    with pytest.raises(SnnCompileError, match="are kept; shorten the horizon"):
        converge(one(300.0, 0.0), 2 * BLOCKS, 2, 2.0**-10, refine=2)
    with pytest.raises(SnnCompileError, match="expected"):
        replace(two_layers(), mu=np.ones(2))
    with pytest.raises(SnnCompileError, match="noise is"):
        replace(two_layers(), noise="both")
    with pytest.raises(SnnCompileError, match="recurrent"):
        lyapunov(small_loop())
    with pytest.raises(SnnCompileError, match="no crossing speed"):
        lyapunov(noisy_voltage())
