"""One step of each family of recurrent neurons, forwards and backwards, and surrogate derivatives, compiled.

    RESONATORS    omega, b         u, v, q     delta, gamma, threshold, smooth reset, refractory period
    ADAPTIVE      alpha, rho       u, a        base, scale, thresholds that a spike takes from u
    INTEGRATORS   alpha, beta      u, v        gain, threshold, reset subtracts, reset passes gradient

are the parameters (neurons,), states (samples, neurons) and constants of the families that
`neurons/rf_brf.py`, `neurons/alif.py` and `neurons/lif.py` define; flags among the constants are 0 or 1.
Spikes are a byte each, in rows that may be wider than the neurons.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

RESONATORS, ADAPTIVE, INTEGRATORS = range(3)
ARCTAN, LINEAR, EXPONENTIAL, BELLS = range(4)


@njit(nogil=True, cache=True, error_model="numpy")
def step_forward(
    family: int,
    constants: Any,
    one: Any,
    two: Any,
    x: Any,
    before: Any,
    was: Any,
    after: Any,
    z: Any,
    over: Any,
) -> None:
    """Step from `before` (states, samples, neurons) into `after`, the spikes `z` and their distance `over`.

    `x` is the input current, in its first columns; `was` are the spikes of the step before.
    """
    u0, v0, u, v = before[0], before[1], after[0], after[1]
    if family == RESONATORS:
        _resonate(constants, one, two, x, u0, v0, before[2], u, v, after[2], z, over)
    elif family == ADAPTIVE:
        _adapt(constants, one, two, x, u0, v0, was, u, v, z, over)
    else:
        _integrate(constants, one, two, x, u0, v0, u, v, z, over)


@njit(nogil=True, cache=True, error_model="numpy")
def _resonate(
    constants: Any,
    omega: Any,
    b: Any,
    x: Any,
    u0: Any,
    v0: Any,
    q0: Any,
    u: Any,
    v: Any,
    q: Any,
    z: Any,
    over: Any,
) -> None:
    delta, gamma, threshold, smooth, refractory = constants
    none, full = x.dtype.type(0), x.dtype.type(1)
    for i in range(len(over)):
        for j in range(over.shape[1]):
            held = q0[i, j]
            now = b[j] - smooth * held
            re, im = u0[i, j], v0[i, j]
            new = re + delta * (now * re - omega[j] * im + x[i, j])
            far = new - threshold - refractory * held
            u[i, j] = new
            v[i, j] = im + delta * (omega[j] * re + now * im)
            z[i, j] = far > none
            over[i, j] = far
            q[i, j] = gamma * held + (full if far > none else none)


@njit(nogil=True, cache=True, error_model="numpy")
def _adapt(
    constants: Any, alpha: Any, rho: Any, x: Any, u0: Any, a0: Any, z0: Any, u: Any, a: Any, z: Any, over: Any
) -> None:
    base, scale, times = constants[0], constants[1], constants[2]
    none, one = x.dtype.type(0), x.dtype.type(1)
    for i in range(len(over)):
        for j in range(over.shape[1]):
            held = rho[j] * a0[i, j] + (one - rho[j]) * x.dtype.type(z0[i, j])
            theta = base + scale * held
            reached = alpha[j] * u0[i, j] + (one - alpha[j]) * x[i, j]
            far = reached - theta
            z[i, j] = far > none
            over[i, j] = far
            a[i, j] = held
            u[i, j] = reached - (times * theta if far > none else none)


@njit(inline="always")
def integrate(
    alpha: Any, beta: Any, gain: Any, threshold: Any, subtract: Any, u: Any, v: Any, x: Any
) -> tuple[Any, Any, Any]:
    """Return current, membrane after the reset, and distance from the threshold, of one LIF or CubaLIF."""
    current = alpha * u + gain * x
    reached = beta * v + current
    far = reached - threshold
    after = far if subtract else 0 * far
    return current, after if far > 0 else reached, far


@njit(nogil=True, cache=True, error_model="numpy")
def _integrate(
    constants: Any, alpha: Any, beta: Any, x: Any, u0: Any, v0: Any, u: Any, v: Any, z: Any, over: Any
) -> None:
    gain, threshold, subtract = constants[0], constants[1], constants[2]
    for i in range(len(over)):
        for j in range(over.shape[1]):
            current, after, far = integrate(
                alpha[j], beta[j], gain, threshold, subtract, u0[i, j], v0[i, j], x[i, j]
            )
            u[i, j] = current
            v[i, j] = after
            over[i, j] = far
            z[i, j] = far > 0


@njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract"})
def step_backward(
    family: int,
    constants: Any,
    one: Any,
    two: Any,
    x: Any,
    before: Any,
    after: Any,
    was: Any,
    z: Any,
    g_z: Any,
    slope: Any,
    g_states: Any,
    g_last: Any,
    g_one: Any,
    g_two: Any,
) -> None:
    """Turn the gradients of a step's end, `g_states` and `g_last`, into those of its start.

    The gradient by the input current takes the place of `x`; `g_z` reaches the spikes from outside of
    the layer and through weights, `g_last` what the next step's own reading sends. `g_one` and `g_two`
    (neurons,), float64, are added to.
    """
    size = len(one)
    sums = np.zeros((2, size), x.dtype)
    u0, v0, g_u, g_v, s_one, s_two = before[0], before[1], g_states[0], g_states[1], sums[0], sums[1]
    if family == RESONATORS:
        _resonate_back(
            constants, one, two, u0, v0, before[2], g_z, slope, g_u, g_v, g_states[2], x, s_one, s_two
        )
    elif family == ADAPTIVE:
        _adapt_back(
            constants, one, two, u0, v0, was, after[1], z, g_z, slope, g_u, g_v, g_last, x, s_one, s_two
        )
    else:
        _integrate_back(constants, one, two, u0, v0, after[0], z, g_z, slope, g_u, g_v, x, s_one, s_two)
    for j in range(size):
        g_one[j] += sums[0, j]
        g_two[j] += sums[1, j]


@njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract"})
def _resonate_back(
    constants: Any,
    omega: Any,
    b: Any,
    u0: Any,
    v0: Any,
    q0: Any,
    g_z: Any,
    slope: Any,
    g_u: Any,
    g_v: Any,
    g_q: Any,
    g_x: Any,
    g_omega: Any,
    g_b: Any,
) -> None:
    delta, gamma, _, smooth, refractory = constants
    for i in range(len(g_z)):
        for j in range(g_z.shape[1]):
            now = b[j] - smooth * q0[i, j]
            re, im, g_im, turn = u0[i, j], v0[i, j], g_v[i, j], omega[j]
            g_s = (g_z[i, j] + g_q[i, j]) * slope[i, j]
            g_re = g_u[i, j] + g_s
            damped = delta * (g_re * re + g_im * im)
            g_b[j] += damped
            g_omega[j] += delta * (g_im * re - g_re * im)
            g_x[i, j] = delta * g_re
            g_u[i, j] = g_re + delta * (now * g_re + turn * g_im)
            g_v[i, j] = g_im + delta * (now * g_im - turn * g_re)
            g_q[i, j] = gamma * g_q[i, j] - refractory * g_s - smooth * damped


@njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract"})
def _adapt_back(
    constants: Any,
    alpha: Any,
    rho: Any,
    u0: Any,
    a0: Any,
    z0: Any,
    a: Any,
    z: Any,
    g_z: Any,
    slope: Any,
    g_u: Any,
    g_a: Any,
    g_last: Any,
    x: Any,
    g_alpha: Any,
    g_rho: Any,
) -> None:
    base, scale, times = constants[0], constants[1], constants[2]
    one = x.dtype.type(1)
    for i in range(len(g_z)):
        for j in range(g_z.shape[1]):
            theta = base + scale * a[i, j]
            g_after = g_u[i, j]
            g_s = (g_z[i, j] + g_last[i, j] - times * theta * g_after) * slope[i, j]
            g_reached = g_after + g_s
            g_held = g_a[i, j] - scale * (g_s + times * x.dtype.type(z[i, j]) * g_after)
            g_alpha[j] += g_reached * (u0[i, j] - x[i, j])
            g_rho[j] += g_held * (a0[i, j] - x.dtype.type(z0[i, j]))
            x[i, j] = (one - alpha[j]) * g_reached
            g_u[i, j] = alpha[j] * g_reached
            g_a[i, j] = rho[j] * g_held
            g_last[i, j] = (one - rho[j]) * g_held


@njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract"})
def _integrate_back(
    constants: Any,
    alpha: Any,
    beta: Any,
    u0: Any,
    v0: Any,
    u: Any,
    z: Any,
    g_z: Any,
    slope: Any,
    g_u: Any,
    g_v: Any,
    x: Any,
    g_alpha: Any,
    g_beta: Any,
) -> None:
    gain, threshold, subtract, attached = constants[0], constants[1], constants[2], constants[3]
    one = x.dtype.type(1)
    for i in range(len(g_z)):
        for j in range(g_z.shape[1]):
            reached = beta[j] * v0[i, j] + u[i, j]
            lost = attached * (subtract * threshold + (one - subtract) * reached)
            kept = one - (one - subtract) * x.dtype.type(z[i, j])
            g_reached = (g_z[i, j] - g_v[i, j] * lost) * slope[i, j] + g_v[i, j] * kept
            g_current = g_reached + g_u[i, j]
            g_alpha[j] += g_current * u0[i, j]
            g_beta[j] += g_reached * v0[i, j]
            x[i, j] = gain * g_current
            g_u[i, j] = alpha[j] * g_current
            g_v[i, j] = beta[j] * g_reached


@njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract"})
def slopes(surrogate: int, bells: Any, over: Any, spare: Any, bits: Any) -> None:
    """Replace the distances `over` (n,) by the derivative `surrogate` there.

    BELLS is the sum of height exp(-fall (over - mean)^2) with mean, fall and height of each row of `bells`.
    `spare` (3, room) is for some of the distances at a time, and `bits` (1, room) its first row as whole
    numbers.
    """
    one, none, pi = over.dtype.type(1), over.dtype.type(0), over.dtype.type(np.pi)
    for first in range(0, over.shape[0], spare.shape[1]):
        some = over[first : first + spare.shape[1]]
        if surrogate == ARCTAN:
            for j in range(len(some)):
                far = pi * some[j]
                some[j] = one / (one + far * far)
        elif surrogate == LINEAR:
            for j in range(len(some)):
                some[j] = max(one - abs(some[j]), none)
        elif surrogate == EXPONENTIAL:
            for j in range(len(some)):
                spare[1, j] = -abs(some[j])
            _exponentials(spare, bits, len(some))
            for j in range(len(some)):
                some[j] = spare[0, j] * spare[1, j]
        else:
            for j in range(len(some)):
                spare[2, j] = 0
            for k in range(bells.shape[0]):
                mean, fall, height = bells[k, 0], bells[k, 1], bells[k, 2]
                for j in range(len(some)):
                    far = some[j] - mean
                    spare[1, j] = -fall * far * far
                _exponentials(spare, bits, len(some))
                for j in range(len(some)):
                    spare[2, j] += height * (spare[0, j] * spare[1, j])
            for j in range(len(some)):
                some[j] = spare[2, j]


@njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract"})
def _exponentials(spare: Any, bits: Any, count: int) -> None:
    """Turn the second row of `spare`, y and never positive, into two whose product is exp(y) = 2^n exp(r).

    The power is written by its bits; r is at most half of ln 2, and its exponential a Taylor series.
    """
    real, whole = spare.dtype.type, bits.dtype.type
    wide = bits.itemsize == 8
    least, shift, bias = real(-700 if wide else -80), whole(52 if wide else 23), whole(1023 if wide else 127)
    turns, half, one = real(1.4426950408889634), real(0.5), real(1)
    high, low = real(0.693145751953125), real(1.4286068203094172e-06)  # ln 2; n times the first is exact
    for j in range(count):
        y = max(spare[1, j], least)
        n = np.floor(y * turns + half)
        r = (y - n * high) - n * low
        bits[0, j] = (whole(n) + bias) << shift
        p = real(1 / 5040)
        if wide:
            p = real(1 / 479001600)
            p = p * r + real(1 / 39916800)
            p = p * r + real(1 / 3628800)
            p = p * r + real(1 / 362880)
            p = p * r + real(1 / 40320)
            p = p * r + real(1 / 5040)
        p = p * r + real(1 / 720)
        p = p * r + real(1 / 120)
        p = p * r + real(1 / 24)
        p = p * r + real(1 / 6)
        p = p * r + half
        p = p * r + one
        spare[1, j] = p * r + one
