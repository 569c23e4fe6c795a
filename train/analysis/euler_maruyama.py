"""Euler-Maruyama for current-based LIF networks: one Brownian path stepped at all step sizes at once.

The system, neuron i with membrane v, synaptic current I and spike trains N_j of its sources:

    dv = (-v / tau_m + I) dt
    dI = -(I - mu) / tau_s dt + sigma dW + sum_j w_ij dN_j        v reaches 1: a spike, v becomes 0

On a grid of step h, with everything on the right taken at the old grid point,

    v' = v + h (-v / tau_m + I),   I' = I - h (I - mu) / tau_s + sigma dW,   spike where v' >= 1

and a spike's kick w_ij is added to its targets' I' at the same grid point, feed-forward or recurrent alike.
Noise enters only I, so v is smooth and crosses the threshold at a speed A = I - 1 / tau_m. With
`noise="voltage"` it enters v instead and v can cross and return between two grid points: the control.

All step sizes of a path see one Brownian motion: the increments of a coarse step are sums of fine ones. The
reference is the same scheme `refine` times finer than the finest step compared. Source: Dou, Chen, Lin, Xiao,
"Numerical analysis for leaky-integrate-fire networks under Euler-Maruyama", whose bounds are strong order
1/2 (up to logarithms) and weak order 1.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from math import exp, sqrt
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from snn_compile.compiler.analysis.slopes import Slope, bootstrap_slope
from snn_compile.targets.errors import SnnCompileError

Float = npt.NDArray[np.float64]

BLOCKS = 200
"""Blocks that the paths are drawn in; each has a generator of its own, so threads do not matter."""

KEPT_SPIKES = 512
"""Spikes of one neuron on one path whose times are kept."""

SPEED_BINS = 512


@dataclass(frozen=True, eq=False)
class LifSystem:
    """A noisy network of n neurons in layers; times are in units of your choice.

    `weights` (target, source), `mu` and `sigma` (n,), `layer` (n,) the layer each neuron belongs to.
    Raises SnnCompileError on values that make no system.
    """

    weights: Float
    mu: Float
    sigma: Float
    layer: npt.NDArray[np.int64]
    tau_m: float = 1.0
    tau_s: float = 1.0
    noise: str = "current"

    def __post_init__(self) -> None:
        n = len(self.mu)
        if self.weights.shape != (n, n) or self.sigma.shape != (n,) or self.layer.shape != (n,):
            raise SnnCompileError(
                f"a system of {n} neurons with weights {self.weights.shape}, sigma {self.sigma.shape} and "
                f"layers {self.layer.shape}; expected {(n, n)}, {(n,)} and {(n,)}"
            )
        if not (self.tau_m > 0 and self.tau_s > 0 and (self.sigma >= 0).all()):
            raise SnnCompileError("time constants must be positive and sigma 0 or more")
        if self.noise not in ("current", "voltage"):
            raise SnnCompileError(f"noise is {self.noise!r}; use current or voltage", noise=self.noise)

    @property
    def size(self) -> int:
        """Number of neurons."""
        return len(self.mu)

    @property
    def layers(self) -> int:
        """Number of layers."""
        return int(self.layer.max()) + 1


def two_layers(noise: str = "current") -> LifSystem:
    """Return the feed-forward network of the experiments: two noisy neurons drive a third."""
    weights = np.zeros((3, 3))
    weights[2, :2] = 0.5
    return LifSystem(
        weights, np.array([0.8, 0.6, 0.8]), np.array([1.0, 1.0, 0.7]), np.array([0, 0, 1]), noise=noise
    )


def small_loop() -> LifSystem:
    """Return the recurrent network of the experiments: a neuron that excites one which inhibits it."""
    weights = np.array([[0.0, -0.6], [0.6, 0.0]])
    return LifSystem(weights, np.array([1.2, 0.8]), np.array([0.8, 0.8]), np.array([0, 1]))


def noisy_voltage() -> LifSystem:
    """Return the control: one neuron with the noise in its membrane."""
    return LifSystem(np.zeros((1, 1)), np.array([1.0]), np.array([0.7]), np.array([0]), noise="voltage")


@dataclass(frozen=True, eq=False)
class Convergence:
    """What the step sizes `steps` (levels,), finest first, did against the reference.

    Per layer and level: `strong` (layers, levels), the RMS over paths of the output's error; `weak`, the
    absolute mean error, with its standard error `weak_se`. Per level: `mismatch`, the share of paths on
    which some neuron's spike count differs, and `spike_time_rms` of the spikes of equal counts. `speeds`
    holds the edges and `crossings` the number of crossing speeds A of the reference in each bin. `fits`
    are slopes of the last layer's curves in log-log, by least squares; the weak errors, which differ most in
    how well they are known, are weighted by (error / standard error)^2.
    """

    paths: int
    steps: Float
    reference_step: float
    strong: Float
    weak: Float
    weak_se: Float
    mismatch: Float
    spike_time_rms: Float
    spikes_a_path: float
    speeds: Float
    crossings: npt.NDArray[np.int64]
    fits: dict[str, Slope] = field(default_factory=dict)

    def json(self) -> dict[str, Any]:
        """Return the slopes with their intervals and every curve, as plain values."""
        curves = {
            "strong": {"errors": self.strong[-1].tolist(), "by_layer": self.strong.tolist()},
            "weak": {
                "errors": self.weak[-1].tolist(),
                "by_layer": self.weak.tolist(),
                "standard_errors": self.weak_se[-1].tolist(),
            },
            "mismatch": {"errors": self.mismatch.tolist()},
            "spike_time": {"errors": self.spike_time_rms.tolist()},
        }
        return {
            "paths": self.paths,
            "steps": self.steps.tolist(),
            "reference_step": self.reference_step,
            "spikes_a_path": self.spikes_a_path,
            **{name: {**self.fits[name].json(), **curve} for name, curve in curves.items()},
            "crossing_speeds": {"edges": self.speeds.tolist(), "counts": self.crossings.tolist()},
        }


def converge(
    system: LifSystem,
    paths: int,
    levels: int = 7,
    finest: float = 2.0**-9,
    horizon: float = 4.0,
    refine: int = 16,
    seed: int = 0,
    threads: int | None = None,
    tau_x: float = 1.0,
) -> Convergence:
    """Simulate `paths` coupled paths to time `horizon` at steps finest * (1, 2, 4, ...) and compare them.

    The output of a layer is S / (1 + S) with S the sum over its spikes of s e^(1 - s), s = (horizon - t) /
    tau_x: bounded, and Lipschitz in every spike time, also where a spike leaves the horizon. Results do not
    depend on `threads`. Raises SnnCompileError if the coarsest step does not divide the horizon.
    """
    coarsest = finest * 2 ** (levels - 1)
    grid = horizon / coarsest
    if levels < 2 or refine < 1 or paths < 2 * BLOCKS or abs(grid - round(grid)) > 1e-9:
        raise SnnCompileError(
            f"{paths} paths, {levels} levels from {finest:g} on, refined {refine} times, to {horizon:g}: at "
            f"least {2 * BLOCKS} paths and 2 levels are needed, and the coarsest step ({coarsest:g}) must "
            "divide the horizon"
        )
    fine_steps = round(grid) * 2 ** (levels - 1) * refine
    sizes = [len(part) for part in np.array_split(np.arange(paths), BLOCKS)]
    streams = np.random.SeedSequence(seed).spawn(BLOCKS)
    widest = 5.0 * float(np.max(np.abs(system.mu)) + np.max(system.sigma) * sqrt(system.tau_s) + 1)

    def block(index: int) -> Any:
        return _paths(
            np.random.Generator(np.random.SFC64(streams[index])),
            sizes[index],
            fine_steps,
            refine,
            levels,
            finest / refine,
            horizon,
            tau_x,
            system.tau_m,
            system.tau_s,
            system.mu,
            system.sigma,
            system.weights,
            system.layer,
            system.layers,
            system.noise == "voltage",
            widest / SPEED_BINS,
        )

    with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
        blocks = list(pool.map(block, range(BLOCKS)))
    most = max(b[5] for b in blocks)
    if most > KEPT_SPIKES:
        raise SnnCompileError(
            f"a neuron spiked {most} times on one path, {KEPT_SPIKES} are kept; shorten the horizon"
        )
    return _summary(blocks, sizes, finest, levels, refine, widest)


def _summary(
    blocks: Sequence[Any], sizes: Sequence[int], finest: float, levels: int, refine: int, widest: float
) -> Convergence:
    """Return the curves, and slopes with intervals from resampled blocks of paths."""
    count = np.asarray(sizes, np.float64)
    steps: Float = finest * 2.0 ** np.arange(levels, dtype=np.float64)
    sums, squares, differ, late, crossings = (np.stack([b[i] for b in blocks]) for i in range(5))
    paths, matched = int(count.sum()), late[:, :, 1].sum(0)
    mean = sums.sum(0) / paths
    variance = squares.sum(0) / paths - mean**2
    curves: dict[str, tuple[Any, Callable[[Any], Any]]] = {
        "strong": (squares[:, -1], np.sqrt),
        "weak": (sums[:, -1], np.abs),
        "mismatch": (differ, np.asarray),
    }
    weak, weak_se = np.abs(mean), np.sqrt(np.maximum(variance, 0) / paths)
    weights = {"weak": (weak[-1] / np.maximum(weak_se[-1], 1e-300)) ** 2}
    each = np.broadcast_to(count[:, None], differ.shape)
    fits = {
        name: bootstrap_slope(steps, values, each, curve, weights.get(name))
        for name, (values, curve) in curves.items()
    }
    fits["spike_time"] = bootstrap_slope(steps, late[:, :, 0], late[:, :, 1], np.sqrt)
    return Convergence(
        paths,
        steps,
        finest / refine,
        np.sqrt(squares.sum(0) / paths),
        weak,
        weak_se,
        differ.sum(0) / paths,
        np.sqrt(late[:, :, 0].sum(0) / np.maximum(matched, 1)),
        float(crossings.sum() / paths),
        np.linspace(0, widest, SPEED_BINS + 1),
        crossings.sum(0),
        fits,
    )


@njit(nogil=True, cache=True, inline="always")
def _step(
    h: float,
    v: Any,
    c: Any,
    dw: Any,
    mu: Any,
    sigma: Any,
    leak: float,
    decay: float,
    noisy_v: bool,
    fired: Any,
) -> int:
    """Advance one level by one step without its kicks; return how many neurons fired."""
    spikes = 0
    for i in range(v.shape[0]):
        drift = h * (c[i] - leak * v[i])
        noise = sigma[i] * dw[i]
        v[i] += drift + noise if noisy_v else drift
        c[i] += h * decay * (mu[i] - c[i]) + (0.0 if noisy_v else noise)
        if v[i] >= 1.0:
            fired[spikes] = i
            spikes += 1
    return spikes


@njit(nogil=True, cache=True)
def _paths(
    generator: Any,
    paths: int,
    fine_steps: int,
    refine: int,
    levels: int,
    reference: float,
    horizon: float,
    tau_x: float,
    tau_m: float,
    tau_s: float,
    mu: Any,
    sigma: Any,
    weights: Any,
    layer: Any,
    layers: int,
    noisy_v: bool,
    bin_width: float,
) -> Any:
    """Return sums over paths of output errors and their squares (layers, levels), of differing counts
    (levels,), of squared spike-time errors with their number (levels, 2), the histogram of crossing
    speeds, and the most spikes of a neuron. Level 0 inside is the reference. One function, because all
    levels of a path step while its increments are at hand.
    """
    n, all_levels = mu.shape[0], levels + 1
    leak, decay, deviation = 1.0 / tau_m, 1.0 / tau_s, sqrt(reference)
    v, c, dw = np.zeros((all_levels, n)), np.zeros((all_levels, n)), np.zeros((all_levels, n))
    times, counts = np.zeros((all_levels, n, KEPT_SPIKES)), np.zeros((all_levels, n), np.int64)
    total, h = np.zeros((all_levels, layers)), np.zeros(all_levels)
    fired = np.zeros(n, np.int64)
    h[0] = reference
    for level in range(1, all_levels):
        h[level] = reference * refine * 2.0 ** (level - 1)
    sums, squares = np.zeros((layers, levels)), np.zeros((layers, levels))
    differ, late = np.zeros(levels), np.zeros((levels, 2))
    crossings, most = np.zeros(SPEED_BINS, np.int64), 0
    for _ in range(paths):
        total[:] = 0.0
        counts[:] = 0
        dw[:] = 0.0
        for i in range(n):
            start, current = generator.random(), mu[i]
            if not noisy_v:
                current += sigma[i] * sqrt(0.5 * tau_s) * generator.standard_normal()
            for level in range(all_levels):
                v[level, i], c[level, i] = start, current
        for f in range(1, fine_steps + 1):
            for i in range(n):
                dw[0, i] = deviation * generator.standard_normal()
                dw[1, i] += dw[0, i]
            level, done = 0, f
            while True:
                spikes = _step(
                    h[level], v[level], c[level], dw[level], mu, sigma, leak, decay, noisy_v, fired
                )
                if spikes:
                    t = f * reference
                    s = (horizon - t) / tau_x
                    for k in range(spikes):
                        i = fired[k]
                        if level == 0:
                            speed = c[0, i] - leak
                            crossings[min(max(int(speed / bin_width), 0), SPEED_BINS - 1)] += 1
                        v[level, i] = 0.0
                        total[level, layer[i]] += s * exp(1.0 - s)
                        if counts[level, i] < KEPT_SPIKES:
                            times[level, i, counts[level, i]] = t
                        counts[level, i] += 1
                    for k in range(spikes):
                        for j in range(n):
                            c[level, j] += weights[j, fired[k]]
                # A level's step is due when all steps below it are done, as the carry of a counter.
                if level == 0:
                    if done % refine:
                        break
                    done //= refine
                else:
                    if level < levels:
                        for i in range(n):
                            dw[level + 1, i] += dw[level, i]
                    for i in range(n):
                        dw[level, i] = 0.0
                    if done & 1:
                        break
                    done >>= 1
                level += 1
                if level > levels:
                    break
        for level in range(levels):
            for k in range(layers):
                exact, coarse = total[0, k], total[level + 1, k]
                error = coarse / (1.0 + coarse) - exact / (1.0 + exact)
                sums[k, level] += error
                squares[k, level] += error * error
            same = True
            for i in range(n):
                most = max(most, counts[level + 1, i], counts[0, i])
                if counts[level + 1, i] != counts[0, i]:
                    same = False
                    continue
                for k in range(min(counts[0, i], KEPT_SPIKES)):
                    late[level, 0] += (times[level + 1, i, k] - times[0, i, k]) ** 2
                    late[level, 1] += 1
            differ[level] += not same
    return sums, squares, differ, late, crossings, most
