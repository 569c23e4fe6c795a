"""Leaky integrators over a whole sequence as one differentiable operation.

    y_t = a y_(t-1) + (1 - a) x_t        y before the first step is 0

It is linear in x: `filters` gives the causal filter of each class, with which y is one product over time. A
compiled pass over the steps is cheaper than that product for long sequences and few classes; it is what runs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import njit
from torch import Tensor

from snn_compile.train.neurons.surrogate import first_order_only


def integrated(x: Tensor, a: Tensor) -> Tensor:
    """Return y for x (steps, batch, classes) and decays a (classes,)."""
    result: Tensor = _Leaky.apply(x, a.to(x.dtype).expand(x.shape[2]))  # type: ignore[no-untyped-call]
    return result


class _Leaky(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, a: Tensor) -> Tensor:
        x, a = x.contiguous(), a.contiguous()
        y = torch.empty_like(x)
        _forward(x.detach().numpy(), a.detach().numpy(), y.numpy())
        ctx.save_for_backward(x, a, y)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        first_order_only()
        x, a, y = ctx.saved_tensors
        g_x, g_a = torch.empty_like(x), np.zeros(len(a))
        given = [t.detach().contiguous().numpy() for t in (gradients[0], x, y, a)]
        _backward(*given, g_x.numpy(), g_a)  # type: ignore[call-arg]
        return g_x, torch.from_numpy(g_a).to(a.dtype)


@njit(nogil=True, cache=True, error_model="numpy")
def _forward(x: Any, a: Any, y: Any) -> None:
    """Write into `y` the leaky integrals y_t = a y_(t-1) + (1 - a) x_t; both (steps, batch, classes)."""
    one = x.dtype.type(1)
    for t in range(x.shape[0]):
        for i in range(x.shape[1]):
            for j in range(x.shape[2]):
                fresh = (one - a[j]) * x[t, i, j]
                y[t, i, j] = a[j] * y[t - 1, i, j] + fresh if t else fresh


@njit(nogil=True, cache=True, error_model="numpy")
def _backward(g_y: Any, x: Any, y: Any, a: Any, g_x: Any, g_a: Any) -> None:
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
