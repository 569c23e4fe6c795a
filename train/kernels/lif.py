"""One pass over the steps of a layer of neurons, forwards and backwards, compiled.

Torch would read and write every array once for each of a dozen operations per step; here a neuron's state
stays in the cache from its first step to its last. Sequences are (batch, steps, neurons); an input of one
step is repeated. States `u` and `v` (batch, neurons) are updated in place; decays, thresholds and biases are
(neurons,). `us` saves the currents for the gradient of their decay, or has no steps.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from snn_compile.train.kernels.families import integrate


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
                current, after, far = integrate(
                    alpha[j], beta[j], gain, threshold[j], subtract, u[b, j], v[b, j], now[j]
                )
                u[b, j] = current
                v[b, j] = after
                over[b, t, j] = far
                z[b, t, j] = far > 0
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
    half: float,
    share: float,
    shift: float,
    subtract: bool,
    spiking: bool,
    u: Any,
    v: Any,
    us: Any,
    z: Any,
    over: Any,
) -> None:
    """Step as a chip does (`targets/oracle/lif.py`), in integers that float64 represents exactly.

    `a` is the sum of the weights. With decay registers du, dv of a chip whose decay of 1 is D:
    keep_u = D - (du + 1), keep_v = D - dv, `share` = 1 / D. `half` is half the range of a state, `shift` the
    factor from a sum of weights to a state; bias and threshold are in units of the membrane. `over` is
    (v - threshold) / unit before the reset; if the neurons do not spike, z is v.
    """
    batch, steps, size = z.shape
    repeat, keep = a.shape[1] == 1, us.shape[1] > 0
    for b in range(batch):
        for t in range(steps):
            now = a[b, 0 if repeat else t]
            for j in range(size):
                current = np.trunc(u[b, j] * keep_u[j] * share) + shift * now[j]
                current -= 2.0 * half if current > half else 0.0
                current += 2.0 * half if current <= -half else 0.0
                u[b, j] = current
                reached = np.trunc(v[b, j] * keep_v[j] * share) + current + bias[j]
                reached = min(max(reached, 1.0 - half), half - 1.0)
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
