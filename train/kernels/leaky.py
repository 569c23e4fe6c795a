"""Leaky integrators over a whole sequence as one differentiable operation.

    y_t = a y_(t-1) + (1 - a) x_t        y before the first step is 0

It is linear in x: `filters` gives the causal filter of each class, with which y is one product over time. A
compiled pass over the steps is cheaper than that product for long sequences and few classes; it is what runs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from snn_compile.train.kernels import recurrent as recurrent_kernels
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
        recurrent_kernels.leaky_forward(x.detach().numpy(), a.detach().numpy(), y.numpy())
        ctx.save_for_backward(x, a, y)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        first_order_only()
        x, a, y = ctx.saved_tensors
        g_x, g_a = torch.empty_like(x), np.zeros(len(a))
        given = [t.detach().contiguous().numpy() for t in (gradients[0], x, y, a)]
        recurrent_kernels.leaky_backward(*given, g_x.numpy(), g_a)  # type: ignore[call-arg]
        return g_x, torch.from_numpy(g_a).to(a.dtype)
