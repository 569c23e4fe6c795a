"""A block of steps of a dense layer of liquid spiking neurons as one differentiable operation.

The products with the weights and the logistic functions are torch's, the rest of a step is one compiled pass
(`lsn.py`); the backward pass is written by hand. States come in and go out, so that blocks follow
each other with or without gradients between them. `liquid.liquid_step` is the definition.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from snn_compile.targets.errors import SnnCompileError
from snn_compile.train.kernels import lsn as liquid_kernels
from snn_compile.train.neurons.lsn import Gates, Liquid, LiquidState
from snn_compile.train.neurons.surrogate import SURROGATES, first_order_only

Array = npt.NDArray[Any]
_KERNELS: Any = liquid_kernels  # numba declares neither starred arguments nor arrays


def run_liquid(
    x: Tensor, gates: Gates, kind: Liquid, state: LiquidState
) -> tuple[Tensor, Tensor, LiquidState]:
    """Return spikes and membranes (steps, batch, neurons) of a block, and the state (u, b, s) after it.

    `x` (steps, batch, neurons) is W_x x_t + b_x.
    """
    if x.ndim != 3 or not len(x):
        raise SnnCompileError(f"a block has shape {tuple(x.shape)}; it must be (steps, batch, neurons)")
    s, u, b = _Block.apply(kind, torch.is_grad_enabled(), x, *gates, *state)  # type: ignore[no-untyped-call]
    return s, u, (u[-1], b, s[-1])


class _Block(torch.autograd.Function):
    """Inputs: kind, are gradients wanted, x, the five weights of `Gates`, the three states."""

    @staticmethod
    def forward(ctx: Any, kind: Liquid, keep: bool, x: Tensor, *rest: Any) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        gates, (u0, b0, s0) = Gates(*rest[:5]), rest[5:]
        steps, batch, size = x.shape
        kept = steps if keep and any(ctx.needs_input_grad) else 1
        d = x.new_empty(kept, batch, size)
        both = x.new_empty(kept, batch, (1 + kind.adaptive) * size)
        b = x.new_empty(kept if kind.adaptive else 0, batch, size)
        u, s = x.new_empty(steps, batch, size), x.new_empty(steps, batch, size)
        weights = _Weights(gates, size)
        constants = _constants(kind, x)
        d_array, both_array, u_array, b_array, s_array = (_array(a) for a in (d, both, u, b, s))
        rows = list(zip(x.unbind(), u.unbind(), s.unbind(), strict=True))
        before = [_array(a) for a in (u0, b0, s0)]
        for t, (x_now, u_now, s_now) in enumerate(rows):
            k = t % kept
            d_now, both_now = d[k], both[k]
            if gates.recurrent is None:
                d_now.copy_(x_now)
            else:
                torch.addmm(x_now, s0, gates.recurrent.t(), out=d_now)
            torch.addmm(weights.bias, d_now, weights.of_d.t(), out=both_now)
            both_now[:, :size].addmm_(u0, weights.of_u.t())
            if weights.of_b is not None:
                both_now[:, size:].addmm_(b0, weights.of_b.t())
                b0 = b[k]
            both_now.sigmoid_()
            after = [u_array[t], b_array[k] if kind.adaptive else before[1], s_array[t]]
            _KERNELS.liquid_forward(d_array[k], both_array[k], *constants, *before, *after)
            u0, s0, before = u_now, s_now, after
        ctx.kind = kind
        ctx.save_for_backward(*rest, d, both, b, u, s)
        return s, u, b0.clone()

    @staticmethod
    def backward(ctx: Any, *given: Tensor | None) -> tuple[Tensor | None, ...]:
        first_order_only()
        kind: Liquid = ctx.kind
        *weights_given, u_first, b_first, s_first, d, both, b, u, s = ctx.saved_tensors
        gates, (steps, _, size) = Gates(*weights_given), u.shape
        surrogate = SURROGATES[kind.surrogate] if isinstance(kind.surrogate, str) else kind.surrogate
        weights, (adaptive, base, scale) = _Weights(gates, size), _constants(kind, u)
        g_seen, g_u_seen, g_b_seen = given
        g_u, g_s, over = torch.zeros_like(u[0]), torch.zeros_like(u[0]), torch.empty_like(u[0])
        g_b = (
            torch.zeros_like(g_u)
            if g_b_seen is None
            else g_b_seen.clone(memory_format=torch.contiguous_format)
        )
        g_d, g_both = torch.empty_like(d), torch.empty_like(both)
        numbers = [_array(a) for a in (u, b, s)]
        first = [_array(a) for a in (u_first, b_first, s_first)]
        d_array, both_array = _array(d), _array(both)
        made = [_array(a) for a in (g_u, g_b, g_s)]
        g_d_array, g_both_array, over_array = _array(g_d), _array(g_both), _array(over)
        for t in range(steps - 1, -1, -1):
            before = [a[t - 1] if len(a) else b for a, b in zip(numbers, first, strict=True)] if t else first
            if g_seen is not None:
                g_s += g_seen[t]
            if g_u_seen is not None:
                g_u += g_u_seen[t]
            known = d_array[t], both_array[t], adaptive
            held = numbers[1][t] if adaptive else first[1]
            _KERNELS.liquid_distance(*known, base, scale, before[0], held, over_array)
            slope = _array(surrogate(over))
            _KERNELS.liquid_backward(
                slope, *known, scale, *before, numbers[2][t], *made, g_d_array[t], g_both_array[t]
            )
            g_d_now, g_both_now = g_d[t], g_both[t]
            g_d_now.addmm_(g_both_now, weights.of_d)
            g_u.addmm_(g_both_now[:, :size], weights.of_u)
            if weights.of_b is not None:
                g_b.addmm_(g_both_now[:, size:], weights.of_b)
            if gates.recurrent is not None:
                g_s.addmm_(g_d_now, gates.recurrent)
        g_recurrent = None if gates.recurrent is None else _weight_grad(g_d, s_first, s)
        g_of_d = _flat(g_both).t() @ _flat(d)
        g_bias = g_both.sum((0, 1))
        g_membrane = torch.cat([g_of_d[:size], _weight_grad(g_both[..., :size], u_first, u)], 1)
        g_gates: tuple[Tensor | None, ...] = (g_recurrent, g_membrane, g_bias[:size], None, None)
        if adaptive:
            g_adaptation = torch.cat([g_of_d[size:], _weight_grad(g_both[..., size:], b_first, b)], 1)
            g_gates = (*g_gates[:3], g_adaptation, g_bias[size:])
        return (None, None, g_d, *g_gates, g_u, g_b, g_s)


class _Weights:
    """The gates' weights: of d for both gates at once, of u, and of b if there is adaptation."""

    def __init__(self, gates: Gates, size: int) -> None:
        self.of_d, self.of_u = gates.membrane[:, :size], gates.membrane[:, size:]
        self.of_b, self.bias = None, gates.membrane_bias
        if gates.adaptation is not None and gates.adaptation_bias is not None:
            self.of_d = torch.cat([self.of_d, gates.adaptation[:, :size]])
            self.of_b = gates.adaptation[:, size:]
            self.bias = torch.cat([self.bias, gates.adaptation_bias])


def _weight_grad(g: Tensor, first: Tensor, after: Tensor) -> Tensor:
    """Return the gradient of weights (target, source) whose input at each step is the state before it."""
    total = g[0].t() @ first
    return torch.addmm(total, _flat(g[1:]).t(), _flat(after[:-1])) if len(g) > 1 else total


def _flat(x: Tensor) -> Tensor:
    return x.reshape(-1, x.shape[-1])


def _constants(kind: Liquid, like: Tensor) -> tuple[bool, Any, Any]:
    one = np.dtype(str(like.dtype).removeprefix("torch.")).type
    return kind.adaptive, one(kind.base if kind.adaptive else kind.fixed), one(kind.scale)


def _array(tensor: Tensor) -> Array:
    array: Array = tensor.detach().contiguous().numpy()
    return array
