"""Lyapunov exponents of the membranes of a feed-forward LIF network: by saltation, and by perturbation.

A perturbation of v shrinks at the rate 1 / tau_m between spikes. At a spike of crossing speed A it moves the
spike by -dv / A, and is multiplied by the ratio of the slopes of v after and before the reset. Hence

    Lambda = -1 / tau_m + (1 / T) sum over spikes of log((A + 1 / tau_m) / A),    A = I - 1 / tau_m

(saltation; threshold 1, reset to 0; Dou, Chen, Lin, Xiao, its formula with the threshold flux). The other
estimate (Benettin) runs each neuron a second time, `DISTANCE` away and under the same input and noise, and
adds up by how much the distance grows. Both step the Euler-Maruyama scheme with the crossing inside a step
found by linear interpolation, because a spike held to the grid hides distances below a step.

A feed-forward network's Jacobian is block-triangular: its exponents are those of its neurons, and -1 / tau_s
once for each.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log, sqrt
from typing import Any

import numpy as np
from numba import njit

from snn_compile.targets.errors import SnnCompileError
from snn_compile.train.analysis.euler_maruyama import LifSystem

DISTANCE = 1e-7
"""Distance of the two membranes after each renormalisation."""

EVERY = 16
"""Steps between renormalisations."""

PATIENCE = 512
"""Steps after which two trajectories whose spikes stay unmatched are taken as parted, and joined again."""


@dataclass(frozen=True)
class Exponents:
    """One neuron's exponent in both ways, per unit of time, with its spikes and the partings."""

    neuron: int
    saltation: float
    perturbation: float
    spikes: int
    parted: int


def lyapunov(
    system: LifSystem, duration: float = 2000.0, step: float = 2.0**-12, seed: int = 0
) -> list[Exponents]:
    """Return the exponent of every neuron of a feed-forward system over `duration`.

    Neurons come in the order of their layers; raises SnnCompileError for a recurrent system, whose
    exponents are not those of its neurons, and for noise in the voltage, which has no crossing speed.
    """
    targets, sources = np.nonzero(system.weights)
    if (system.layer[targets] <= system.layer[sources]).any():
        raise SnnCompileError("the exponents of a recurrent system are not those of its neurons")
    if system.noise != "current":
        raise SnnCompileError("with noise in the voltage a spike has no crossing speed")
    generator = np.random.Generator(np.random.SFC64(seed))
    steps = round(duration / step)
    saltation, growth, spikes, parted = _exponents(
        generator, steps, step, system.tau_m, system.tau_s, system.mu, system.sigma, system.weights
    )
    return [
        Exponents(i, float(saltation[i]), float(growth[i]), int(spikes[i]), int(parted[i]))
        for i in range(system.size)
    ]


@njit(nogil=True, cache=True, inline="always")
def _advance(v: float, current: float, leak: float, h: float) -> Any:
    """Return the membrane after a step and whether it spiked; the crossing is interpolated."""
    rise = h * (current - leak * v)
    if v + rise < 1.0:
        return v + rise, False
    rest = h * (1.0 - (1.0 - v) / rise)
    return rest * current, True


@njit(nogil=True, cache=True)
def _exponents(
    generator: Any, steps: int, h: float, tau_m: float, tau_s: float, mu: Any, sigma: Any, weights: Any
) -> Any:
    """Return per neuron both exponents, the number of spikes and of partings."""
    n, leak, decay, deviation = mu.shape[0], 1.0 / tau_m, 1.0 / tau_s, sqrt(h)
    v, c = np.zeros(n), mu.copy()
    near = v + DISTANCE
    ahead, since = np.zeros(n, np.int64), np.zeros(n, np.int64)
    salt, growth = np.zeros(n), np.zeros(n)
    spikes, parted = np.zeros(n, np.int64), np.zeros(n, np.int64)
    kicks = np.zeros(n)
    for t in range(1, steps + 1):
        kicks[:] = 0.0
        for i in range(n):
            v[i], fired = _advance(v[i], c[i], leak, h)
            near[i], followed = _advance(near[i], c[i], leak, h)
            if fired:
                spikes[i] += 1
                salt[i] += log(c[i] / (c[i] - leak))
                for j in range(n):
                    kicks[j] += weights[j, i]
            ahead[i] += int(followed) - int(fired)
            since[i] = since[i] + 1 if ahead[i] != 0 else 0
            if since[i] > PATIENCE:
                parted[i] += 1
                ahead[i], since[i] = 0, 0
                near[i] = v[i] + DISTANCE
            elif ahead[i] == 0 and (t % EVERY == 0 or t == steps):
                distance = abs(near[i] - v[i])
                if 0.0 < distance < 1e-2:
                    growth[i] += log(distance / DISTANCE)
                    near[i] = v[i] + DISTANCE * (1.0 if near[i] > v[i] else -1.0)
        for i in range(n):
            noise = sigma[i] * deviation * generator.standard_normal()
            c[i] += h * decay * (mu[i] - c[i]) + noise + kicks[i]
    span = steps * h
    return -leak + salt / span, growth / span, spikes, parted
