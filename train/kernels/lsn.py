"""One step of a dense layer of liquid spiking neurons, forwards and backwards, each in one compiled pass.

Arrays of a step are (batch, neurons); `gates` and `g_gates` (batch, 2 neurons) hold m and then rho, or are
(batch, neurons) without adaptation.
"""

from __future__ import annotations

from typing import Any

from numba import njit


@njit(nogil=True, cache=True, error_model="numpy")
def liquid_forward(
    d: Any,
    gates: Any,
    adaptive: bool,
    base: Any,
    scale: Any,
    u0: Any,
    b0: Any,
    s0: Any,
    u: Any,
    b: Any,
    s: Any,
) -> None:
    """Step from (u0, b0, s0) into `u`, `b`, `s`, as `liquid.liquid_update` does; without adaptation b stays.

    `base` is then the whole threshold.
    """
    one = d.dtype.type(1)
    none = d.dtype.type(0)
    size = d.shape[1]
    for i in range(d.shape[0]):
        for j in range(size):
            theta = base
            if adaptive:
                rho = gates[i, size + j]
                held = rho * b0[i, j] + (one - rho) * s0[i, j]
                theta = base + scale * held
                b[i, j] = held
            reached = u0[i, j] + (d[i, j] - u0[i, j]) * gates[i, j]
            spike = one if reached - theta > none else none
            s[i, j] = spike
            u[i, j] = (one - spike) * reached


@njit(nogil=True, cache=True, error_model="numpy")
def liquid_distance(
    d: Any, gates: Any, adaptive: bool, base: Any, scale: Any, u0: Any, b: Any, over: Any
) -> None:
    """Write into `over` how far the membrane was from the threshold, in the numbers of `liquid_forward`."""
    for i in range(d.shape[0]):
        for j in range(d.shape[1]):
            theta = base
            if adaptive:
                theta = base + scale * b[i, j]
            reached = u0[i, j] + (d[i, j] - u0[i, j]) * gates[i, j]
            over[i, j] = reached - theta


@njit(nogil=True, cache=True, error_model="numpy")
def liquid_backward(
    slope: Any,
    d: Any,
    gates: Any,
    adaptive: bool,
    scale: Any,
    u0: Any,
    b0: Any,
    s0: Any,
    s: Any,
    g_u: Any,
    g_b: Any,
    g_s: Any,
    g_d: Any,
    g_gates: Any,
) -> None:
    """Turn `g_u`, `g_b`, `g_s` of a step's end into those of its start, but for what the weights carry back.

    Writes `g_d`, likewise, and `g_gates`, the gradient by what goes into the logistic functions. `slope` is
    the derivative of the spikes.
    """
    one = d.dtype.type(1)
    size = d.shape[1]
    for i in range(d.shape[0]):
        for j in range(size):
            m = gates[i, j]
            way = d[i, j] - u0[i, j]
            reached = u0[i, j] + way * m
            g_after = g_u[i, j]
            g_over = (g_s[i, j] - g_after * reached) * slope[i, j]
            g_reached = g_after * (one - s[i, j]) + g_over
            g_d[i, j] = g_reached * m
            g_u[i, j] = g_reached * (one - m)
            g_gates[i, j] = g_reached * way * m * (one - m)
            g_s[i, j] = g_s[i, j] * 0
            if adaptive:
                rho = gates[i, size + j]
                g_held = g_b[i, j] - scale * g_over
                g_gates[i, size + j] = g_held * (b0[i, j] - s0[i, j]) * rho * (one - rho)
                g_b[i, j] = g_held * rho
                g_s[i, j] = g_held * (one - rho)
