"""One step of resonators and adaptive neurons, forwards and backwards, each in one compiled pass.

Arrays of a step are (batch, neurons), parameters (neurons,). What a function updates in place is said in its
first line; sums over batch and steps are float64, whatever the states are.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit


@njit(nogil=True, cache=True, error_model="numpy")
def hear(x: Any, fired: Any, weight: Any, out: Any) -> None:
    """Write into `out` what arrives: x, and the rows of `weight` (source, target) whose sources fired.

    `fired` (batch, neurons / 8) holds a byte a neuron in words of eight, so that silence is passed over.
    """
    size = x.shape[1]
    total = np.empty(size, x.dtype)
    for i in range(x.shape[0]):
        total[:] = 0
        some = False
        for word in range(fired.shape[1]):
            byte = fired[i, word]
            j = 8 * word
            while byte:
                if byte & np.uint64(1):
                    some = True
                    row = weight[j]
                    for k in range(size):
                        total[k] += row[k]
                byte >>= np.uint64(8)
                j += 1
        if some:
            for k in range(size):
                out[i, k] = x[i, k] + total[k]
        else:
            out[i] = x[i]


@njit(nogil=True, cache=True, error_model="numpy")
def blame(g_x: Any, fired: Any, g_weight: Any) -> None:
    """Add to `g_weight` (source, target) the gradient that a step's `g_x` gives to what was heard."""
    size = g_x.shape[1]
    for i in range(g_x.shape[0]):
        now = g_x[i]
        for word in range(fired.shape[1]):
            byte = fired[i, word]
            j = 8 * word
            while byte:
                if byte & np.uint64(1):
                    row = g_weight[j]
                    for k in range(size):
                        row[k] += now[k]
                byte >>= np.uint64(8)
                j += 1


@njit(nogil=True, cache=True)
def mark(z: Any, fired: Any) -> int:
    """Write the spikes `z` (batch, neurons) as bytes into `fired`, at least as wide; return how many."""
    count = 0
    for i in range(z.shape[0]):
        for j in range(z.shape[1]):
            spike = z[i, j] > 0
            fired[i, j] = spike
            count += spike
    return count


@njit(nogil=True, cache=True, error_model="numpy")
def resonator_forward(
    x: Any,
    omega: Any,
    b: Any,
    delta: Any,
    gamma: Any,
    threshold: Any,
    smooth: bool,
    refractory: bool,
    u0: Any,
    v0: Any,
    q0: Any,
    u: Any,
    v: Any,
    q: Any,
    z: Any,
) -> None:
    """Step from (u0, v0, q0) into `u`, `v`, `q`, `z`, as `resonators.resonator_step` does."""
    one = x.dtype.type(1)
    none = x.dtype.type(0)
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            held = q0[i, j]
            now = b[j] - held if smooth else b[j]
            re, im = u0[i, j], v0[i, j]
            u[i, j] = re + delta * (now * re - omega[j] * im + x[i, j])
            v[i, j] = im + delta * (omega[j] * re + now * im)
            far = u[i, j] - threshold - held if refractory else u[i, j] - threshold
            spike = one if far > none else none
            z[i, j] = spike
            q[i, j] = gamma * held + spike


@njit(nogil=True, cache=True, error_model="numpy")
def resonator_backward(
    g_z: Any,
    slope: Any,
    omega: Any,
    b: Any,
    delta: Any,
    gamma: Any,
    smooth: bool,
    refractory: bool,
    u0: Any,
    v0: Any,
    q0: Any,
    g_u: Any,
    g_v: Any,
    g_q: Any,
    g_x: Any,
    g_omega: Any,
    g_b: Any,
) -> None:
    """Turn `g_u`, `g_v`, `g_q` of a step's end into those of its start, and write `g_x`.

    `g_z` is what reaches the spikes from outside, `slope` their derivative; `g_omega` and `g_b` (neurons,)
    are added to.
    """
    none = g_z.dtype.type(0)
    for i in range(g_z.shape[0]):
        for j in range(g_z.shape[1]):
            held = q0[i, j]
            now = b[j] - held if smooth else b[j]
            re, im = u0[i, j], v0[i, j]
            g_s = (g_z[i, j] + g_q[i, j]) * slope[i, j]
            g_re = g_u[i, j] + g_s
            g_im = g_v[i, j]
            damped = delta * (g_re * re + g_im * im)
            g_b[j] += damped
            g_omega[j] += delta * (g_im * re - g_re * im)
            g_x[i, j] = delta * g_re
            u1 = g_re + delta * (now * g_re + omega[j] * g_im)
            v1 = g_im + delta * (now * g_im - omega[j] * g_re)
            g_u[i, j] = u1
            g_v[i, j] = v1
            g_q[i, j] = gamma * g_q[i, j] - (g_s if refractory else none) - (damped if smooth else none)


@njit(nogil=True, cache=True, error_model="numpy")
def adaptive_forward(
    x: Any,
    alpha: Any,
    rho: Any,
    base: Any,
    scale: Any,
    times: Any,
    u0: Any,
    a0: Any,
    z0: Any,
    u: Any,
    a: Any,
    z: Any,
) -> None:
    """Step from (u0, a0, z0) into `u`, `a`, `z`, as `adaptive.adaptive_step` does."""
    one = x.dtype.type(1)
    none = x.dtype.type(0)
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            held = rho[j] * a0[i, j] + (one - rho[j]) * z0[i, j]
            theta = base + scale * held
            reached = alpha[j] * u0[i, j] + (one - alpha[j]) * x[i, j]
            spike = one if reached - theta > none else none
            z[i, j] = spike
            a[i, j] = held
            u[i, j] = reached - times * theta * spike


@njit(nogil=True, cache=True, error_model="numpy")
def adaptive_distance(x: Any, alpha: Any, base: Any, scale: Any, u0: Any, a: Any, over: Any) -> None:
    """Write into `over` how far the membrane was from the threshold, in the numbers of `adaptive_forward`."""
    one = x.dtype.type(1)
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            theta = base + scale * a[i, j]
            reached = alpha[j] * u0[i, j] + (one - alpha[j]) * x[i, j]
            over[i, j] = reached - theta


@njit(nogil=True, cache=True, error_model="numpy")
def adaptive_backward(
    g_z: Any,
    slope: Any,
    x: Any,
    alpha: Any,
    rho: Any,
    base: Any,
    scale: Any,
    times: Any,
    u0: Any,
    a0: Any,
    z0: Any,
    a: Any,
    z: Any,
    g_u: Any,
    g_a: Any,
    g_last: Any,
    g_x: Any,
    g_alpha: Any,
    g_rho: Any,
) -> None:
    """Turn `g_u`, `g_a`, `g_last` of a step's end into those of its start, and write `g_x`.

    `g_last` is what the next step's adaptation sends to this step's spikes, `g_z` what reaches them from
    outside; `g_alpha` and `g_rho` (neurons,) are added to.
    """
    one = g_z.dtype.type(1)
    for i in range(g_z.shape[0]):
        for j in range(g_z.shape[1]):
            theta = base + scale * a[i, j]
            g_after = g_u[i, j]
            g_s = (g_z[i, j] + g_last[i, j] - times * theta * g_after) * slope[i, j]
            g_reached = g_after + g_s
            g_theta = -g_s - times * z[i, j] * g_after
            g_held = g_a[i, j] + scale * g_theta
            g_x[i, j] = (one - alpha[j]) * g_reached
            g_alpha[j] += g_reached * (u0[i, j] - x[i, j])
            g_rho[j] += g_held * (a0[i, j] - z0[i, j])
            g_u[i, j] = alpha[j] * g_reached
            g_a[i, j] = rho[j] * g_held
            g_last[i, j] = (one - rho[j]) * g_held


@njit(nogil=True, cache=True, error_model="numpy")
def leaky_forward(x: Any, a: Any, y: Any) -> None:
    """Write into `y` the leaky integrals y_t = a y_(t-1) + (1 - a) x_t; both (steps, batch, classes)."""
    one = x.dtype.type(1)
    for t in range(x.shape[0]):
        for i in range(x.shape[1]):
            for j in range(x.shape[2]):
                fresh = (one - a[j]) * x[t, i, j]
                y[t, i, j] = a[j] * y[t - 1, i, j] + fresh if t else fresh


@njit(nogil=True, cache=True, error_model="numpy")
def leaky_backward(g_y: Any, x: Any, y: Any, a: Any, g_x: Any, g_a: Any) -> None:
    """Write into `g_x` the gradient by x, and add to `g_a` (classes,) the one by a."""
    one = x.dtype.type(1)
    held = np.zeros(x.shape[1:], x.dtype)
    for back in range(x.shape[0]):
        t = x.shape[0] - 1 - back
        for i in range(x.shape[1]):
            for j in range(x.shape[2]):
                g = g_y[t, i, j] + a[j] * held[i, j]
                held[i, j] = g
                g_x[t, i, j] = (one - a[j]) * g
                g_a[j] += g * ((y[t - 1, i, j] if t else 0 * one) - x[t, i, j])
