"""Spikes that can be learned through: a step forwards, a surrogate derivative backwards.

    forward    z = 1 if x > 0 else 0, with x = v - threshold     (strict: a tie does not spike)
    backward   dz/dx = one of the functions below

With N(x; m, s) the normal density and h = 0.15, c = 6, gamma = 0.5:

    arctan           1 / (1 + (pi x)^2)
    multi-gaussian   gamma [(1 + h) N(x; 0, s) - h N(x; s, c s) - h N(x; -s, c s)]   (Yin 2021)
    multi-gaussian-0.3    the same with s = 0.3                                 (FPTT, Yin et al. 2023)
    double-gaussian  gamma [(1 + h) N(x; 0, s) - 2 h N(x; 0, c s)]              (Higuchi 2024)
    linear           max(0, 1 - |x|)
    exponential      exp(-|x|)

s is 0.5 by default. Both Gaussians are negative for large |x|, which is intended.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from snn_compile.targets.errors import SnnCompileError

_H, _WIDER, _GAMMA = 0.15, 6.0, 0.5


def _bell(height: float, mean: float, sigma: float) -> tuple[float, float, float]:
    return mean, 0.5 / sigma**2, _GAMMA * height / (sigma * math.sqrt(2 * math.pi))


def multi_bells(sigma: float = 0.5) -> tuple[tuple[float, float, float], ...]:
    """Return mean, fall and height of each term height exp(-fall (x - mean)^2) of the multi-Gaussian."""
    sides = (_bell(-_H, mean, _WIDER * sigma) for mean in (sigma, -sigma))
    return _bell(1 + _H, 0.0, sigma), *sides


def double_bells(sigma: float = 0.5) -> tuple[tuple[float, float, float], ...]:
    """Return mean, fall and height of each term height exp(-fall (x - mean)^2) of the double-Gaussian."""
    return _bell(1 + _H, 0.0, sigma), _bell(-2 * _H, 0.0, _WIDER * sigma)


def _summed(x: Tensor, bells: Sequence[tuple[float, float, float]]) -> Tensor:
    terms = [height * torch.exp(-fall * (x - mean) ** 2) for mean, fall, height in bells]
    return torch.stack(terms).sum(0)


def arctan(x: Tensor) -> Tensor:
    """Return 1 / (1 + (pi x)^2), elementwise."""
    return 1 / (1 + (math.pi * x) ** 2)


def multi_gaussian(x: Tensor, sigma: float = 0.5) -> Tensor:
    """Return the multi-Gaussian derivative, elementwise."""
    return _summed(x, multi_bells(sigma))


def narrow_multi_gaussian(x: Tensor) -> Tensor:
    """Return the multi-Gaussian derivative of width 0.3, elementwise."""
    return multi_gaussian(x, 0.3)


def double_gaussian(x: Tensor, sigma: float = 0.5) -> Tensor:
    """Return the double-Gaussian derivative, elementwise."""
    square = x * x
    (_, narrow, tall), (_, wide, low) = double_bells(sigma)
    return torch.exp(-narrow * square) * tall + torch.exp(-wide * square) * low


def linear(x: Tensor) -> Tensor:
    """Return max(0, 1 - |x|), elementwise."""
    return torch.clamp(1 - x.abs(), min=0)


def exponential(x: Tensor) -> Tensor:
    """Return exp(-|x|), elementwise."""
    return torch.exp(-x.abs())


Derivative = Callable[[Tensor], Tensor]

SURROGATES: dict[str, Derivative] = {
    "arctan": arctan,
    "multi-gaussian": multi_gaussian,
    "multi-gaussian-0.3": narrow_multi_gaussian,
    "double-gaussian": double_gaussian,
    "linear": linear,
    "exponential": exponential,
}
"""The derivatives by the name that configurations use."""


class _Spike(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, derivative: Derivative) -> Tensor:
        ctx.save_for_backward(x)
        ctx.derivative = derivative
        return (x > 0).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return gradients[0] * ctx.derivative(x), None


def check_surrogate(kind: str | Derivative) -> None:
    """Raise SnnCompileError for a name that is none of SURROGATES."""
    if isinstance(kind, str) and kind not in SURROGATES:
        raise SnnCompileError(f"no surrogate {kind!r}; use one of {', '.join(SURROGATES)}")


def spike(x: Tensor, surrogate: str | Derivative = "arctan") -> Tensor:
    """Return 1 where x > 0, else 0, in the type of x; the derivative is the surrogate's at x.

    `surrogate` is a name in SURROGATES or an elementwise function. Raises SnnCompileError for an
    unknown name.
    """
    if isinstance(surrogate, str):
        check_surrogate(surrogate)
        surrogate = SURROGATES[surrogate]
    result: Tensor = _Spike.apply(x, surrogate)  # type: ignore[no-untyped-call]
    return result


def first_order_only() -> None:
    """Raise SnnCompileError if a backward pass is to be differentiated; those written by hand cannot be."""
    if torch.is_grad_enabled():
        raise SnnCompileError(
            "a fused sequence has no gradient of its gradient (create_graph=True); use the step functions"
        )
