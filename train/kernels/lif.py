"""One pass over the steps of a layer of neurons, forwards and backwards, compiled.

Torch would read and write every array once for each of a dozen operations a step; here a neuron's state
stays in the cache from its first step to its last. Sequences are (batch, steps, neurons); what arrives may
be of one step, which then holds for all. States `u` and `v` (batch, neurons) are updated in place; decays,
thresholds and biases are (neurons,). `us` keeps the currents for the gradient of their decay, or has no
steps.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

_M = float(1 << 23)
_TURN = 2 * _M
_SHARE = 1.0 / 4096


@njit(nogil=True, cache=True, error_model="numpy")
def float_forward(
    x: Any,
    gain: float,
    alpha: Any,
    beta: Any,
    threshold: Any,
    subtract: bool,
    u: Any,
    v: Any,
    us: Any,
    z: Any,
    over: Any,
) -> None:
    """Step u <- alpha u + gain x, v <- beta v + u, spikes `z`, reset; `over` is v - threshold before it."""
    batch, steps, size = z.shape
    repeat, keep = x.shape[1] == 1, us.shape[1] > 0
    for b in range(batch):
        for t in range(steps):
            now = x[b, 0 if repeat else t]
            for j in range(size):
                current = alpha[j] * u[b, j] + gain * now[j]
                u[b, j] = current
                reached = beta[j] * v[b, j] + current
                spike = reached > threshold[j]
                over[b, t, j] = reached - threshold[j]
                z[b, t, j] = spike
                after = reached - threshold[j] if subtract else 0 * threshold[j]
                v[b, j] = after if spike else reached
            if keep:
                us[b, t] = u[b]


@njit(nogil=True, cache=True, error_model="numpy")
def integer_forward(
    a: Any,
    keep_u: Any,
    keep_v: Any,
    bias: Any,
    threshold: Any,
    unit: float,
    subtract: bool,
    spiking: bool,
    u: Any,
    v: Any,
    us: Any,
    z: Any,
    over: Any,
) -> None:
    """Step as a chip does (`targets.oracle`), in whole numbers that float64 holds exactly.

    `a` is the sum of the weights, keep_u = 4096 - (du + 1), keep_v = 4096 - dv; bias and threshold are in
    units of the membrane. `over` is (v - threshold) / unit before the reset; without spikes z is v.
    """
    batch, steps, size = z.shape
    repeat, keep = a.shape[1] == 1, us.shape[1] > 0
    for b in range(batch):
        for t in range(steps):
            now = a[b, 0 if repeat else t]
            for j in range(size):
                current = np.trunc(u[b, j] * keep_u[j] * _SHARE) + 64.0 * now[j]
                current -= _TURN if current > _M else 0.0
                current += _TURN if current <= -_M else 0.0
                u[b, j] = current
                reached = np.trunc(v[b, j] * keep_v[j] * _SHARE) + current + bias[j]
                reached = min(max(reached, 1.0 - _M), _M - 1.0)
                spike = spiking and reached > threshold[j]
                over[b, t, j] = (reached - threshold[j]) / unit
                z[b, t, j] = spike if spiking else reached
                after = reached - threshold[j] if subtract else 0.0
                v[b, j] = after if spike else reached
            if keep:
                us[b, t] = u[b]


@njit(nogil=True, cache=True, error_model="numpy")
def backward(
    g_z: Any,
    over: Any,
    slope: Any,
    z: Any,
    lost: Any,
    unit: float,
    subtract: bool,
    alpha: Any,
    beta: Any,
    g_u: Any,
    g_v: Any,
    g_reached: Any,
    g_current: Any,
) -> None:
    """Gradients by the membrane before the reset, `g_reached`, and by the current, `g_current`.

    `slope` is dz/dv where it has steps, else it is the arctan's at `over`, by `unit`; `lost` is what a spike
    takes from the membrane, of no steps where the reset passes no gradient. `g_u` and `g_v` (batch, neurons)
    hold the gradients of the last states, and on return those of the first. `g_reached` may have no steps.
    """
    batch, steps, size = g_z.shape
    attached, given, keep = lost.shape[1] > 0, slope.shape[1] > 0, g_reached.shape[1] > 0
    scale, one = over.dtype.type(unit), over.dtype.type(1)
    pi = over.dtype.type(np.pi)
    g = np.empty(size, over.dtype)
    d = np.empty(size, over.dtype)
    for b in range(batch):
        u, v = g_u[b], g_v[b]
        for back in range(steps):
            t = steps - 1 - back
            sent, spike, current = g_z[b, t], z[b, t], g_current[b, t]
            if given:
                d[:] = slope[b, t]
            else:
                for j in range(size):
                    far = pi * over[b, t, j]
                    d[j] = one / (scale * (one + far * far))
            for j in range(size):
                left = one if subtract else one - spike[j]
                g[j] = sent[j] * d[j] + v[j] * left
            if attached:
                for j in range(size):
                    g[j] -= v[j] * lost[b, t, j] * d[j]
            for j in range(size):
                current[j] = g[j] + u[j]
                v[j] = beta[j] * g[j]
                u[j] = alpha[j] * current[j]
            if keep:
                g_reached[b, t] = g
