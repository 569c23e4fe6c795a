"""Handlers of torch functions that are affine maps of one signal and have no operation of their own.

They are recorded as "map" with a function that repeats them on numbers, of which `export/maps.py` makes a
matrix.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from snn_compile.train.tracing.recorder import FunctionCall

Run = Callable[[Tensor], Tensor]


def affine(call: FunctionCall, input: Tensor, run: Run, **attrs: Any) -> Tensor:
    """Record an affine map of a signal; `run` applies it to numbers (batch, *shape) of any float type."""
    with torch._C.DisableTorchFunction():
        shape = call.of_one(run(torch.zeros(1, *input.shape[1:], dtype=torch.float64)), input)
    name = getattr(call.func, "__name__", "map")
    return call.record("map", [input], (*input.shape[:1], *shape), run, function=name, **attrs)


def transposed_convolution(dimensions: int) -> Callable[..., Tensor]:
    """Return the handler of conv_transpose1d or conv_transpose2d."""
    apply: Any = functional.conv_transpose1d if dimensions == 1 else functional.conv_transpose2d

    def transposed(
        call: FunctionCall,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Tensor:
        if call.tracer.knows(weight):
            raise call.refuse("the weight depends on the data; it must be a constant")
        if input.ndim != dimensions + 2:
            raise call.refuse(
                f"a transposed convolution of a tensor of shape {tuple(input.shape)}; it needs batch "
                "and channels"
            )

        def run(x: Tensor) -> Tensor:
            offset = None if bias is None else bias.detach().to(x.dtype)
            found: Tensor = apply(x, weight.detach().to(x.dtype), offset, *args, **kwargs)
            return found

        return affine(call, input, run, weight=weight, bias=bias, settings=repr((args, kwargs)))

    return transposed


def linear_function(call: FunctionCall, input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Record a function whose result is affine in its first argument, whatever the others are."""
    if any(isinstance(a, Tensor) and call.tracer.knows(a) for a in (*args, *kwargs.values())):
        raise call.refuse("takes more than one signal")

    def run(x: Tensor) -> Tensor:
        found: Tensor = call.func(x, *args, **kwargs)
        return found

    return affine(call, input, run, settings=repr((args, kwargs)))


MAPS: dict[str, Callable[..., Any]] = {
    "conv_transpose1d": transposed_convolution(1),
    "conv_transpose2d": transposed_convolution(2),
    **dict.fromkeys(("interpolate", "pad", "pixel_shuffle", "pixel_unshuffle"), linear_function),
}
