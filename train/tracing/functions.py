"""What a trace makes of each torch function: by name, the function that records it.

`HANDLERS` are called with the call and the function's own arguments. `PLAIN` are functions of which only
shape, type or identity matter, or that make constants; they are called as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from snn_compile.train.tracing import sequences as seq
from snn_compile.train.tracing.maps import MAPS, linear_function
from snn_compile.train.tracing.recorder import FunctionCall

PLAIN = frozenset(
    "size dim numel nelement ndimension __len__ is_floating_point stride element_size get_device "
    "zeros_like ones_like full_like empty_like rand_like new_zeros new_ones new_full new_empty new_tensor "
    "__repr__ __format__ __hash__ is_contiguous untyped_storage data_ptr".split()
)


def identity(call: FunctionCall, input: Tensor, *_: Any, **__: Any) -> Tensor:
    """Record a function that hands its input on."""
    value = call.tracer.value(input)
    with torch._C.DisableTorchFunction():
        dtype = call.func(input, *call.args[1:], **call.kwargs).dtype
    if not dtype.is_floating_point:
        raise call.refuse(f"converts a signal to {dtype}; keep floats")
    return call.tracer.stand_in(value, dtype)


def to_type(call: FunctionCall, input: Tensor, *args: Any, **kwargs: Any) -> Any:
    """Record Tensor.type, which asks for the type when called without one."""
    return identity(call, input, *args, **kwargs) if args or kwargs else call.func(input)


def equals(call: FunctionCall, input: Any, other: Any = None) -> bool:
    """Answer `state == None`, which snnTorch's own style asks."""
    if input is None or other is None:
        return False
    raise call.refuse("compares a signal; what the forward does may not depend on the values of the data")


def dropout(call: FunctionCall, input: Tensor, *_: Any, **__: Any) -> Tensor:
    """Return the input: dropout is the identity when a network is evaluated."""
    return call.tracer.stand_in(call.tracer.value(input), input.dtype)


def _constant(call: FunctionCall, tensor: Any, what: str) -> Any:
    if isinstance(tensor, Tensor) and call.tracer.knows(tensor):
        raise call.refuse(f"the {what} depends on the data; it must be a constant")
    return tensor


def linear(call: FunctionCall, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Record x W^T + b, step by step on a stack of steps."""
    _constant(call, weight, "weight")
    if input.shape[-1] != weight.shape[1]:
        raise call.refuse(f"takes {weight.shape[1]} values and gets a signal of shape {tuple(input.shape)}")
    return _each_step(
        call,
        input,
        lambda c, x: c.record(
            "linear",
            [x],
            (*x.shape[:-1], len(weight)),
            lambda number: torch.nn.functional.linear(number, weight, bias),
            weight=weight,
            bias=bias,
        ),
    )


def matmul(call: FunctionCall, input: Tensor, other: Tensor) -> Tensor:
    """Record a product with a constant matrix from the right."""
    if not call.tracer.knows(input) or call.tracer.knows(other) or other.ndim != 2:
        raise call.refuse("a product of a signal with anything but a constant matrix on its right")
    return call.record("linear", [input], weight=other.T, bias=None)


def convolution(dimensions: int) -> Callable[..., Tensor]:
    """Return the handler of conv1d or conv2d."""

    def conv(
        call: FunctionCall,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> Tensor:
        _constant(call, weight, "weight")
        if input.ndim != dimensions + 2:
            raise call.refuse(
                f"a convolution of a tensor of shape {tuple(input.shape)}; it needs batch and channels"
            )
        return call.record(
            "conv",
            [input],
            weight=weight,
            bias=bias,
            stride=_many(stride, dimensions),
            padding=padding if isinstance(padding, str) else _many(padding, dimensions),
            dilation=_many(dilation, dimensions),
            groups=groups,
        )

    return conv


def batch_norm(
    call: FunctionCall,
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Record batch normalisation with its running statistics as a factor and an offset a channel."""
    if training or running_mean is None or running_var is None:
        raise call.refuse("normalises by the statistics of the batch; use track_running_stats=True")
    if len(running_mean) != input.shape[1]:
        raise call.refuse(f"normalises {len(running_mean)} channels and gets a signal of {input.shape[1]}")
    factor = 1 / torch.sqrt(running_var.double() + eps)
    factor = factor if weight is None else factor * weight.double()
    offset = -running_mean.double() * factor
    offset = offset if bias is None else offset + bias.double()
    ends = (1,) * (input.ndim - 2)

    def replay(number: Tensor) -> Tensor:
        return number * factor.reshape(-1, *ends) + offset.reshape(-1, *ends)

    return call.record("batchnorm", [input], tuple(input.shape), replay, factor=factor, offset=offset)


def _pool(
    call: FunctionCall,
    op: str,
    dimensions: int,
    input: Tensor,
    kernel: Any,
    stride: Any,
    padding: Any,
    **attrs: Any,
) -> Tensor:
    if input.ndim != dimensions + 2:
        raise call.refuse(f"pools a tensor of shape {tuple(input.shape)}; it needs batch and channels")
    kernels, paddings = _many(kernel, dimensions), _many(padding, dimensions)
    strides = kernels if stride is None or stride == () else _many(stride, dimensions)
    dilations = _many(attrs.pop("dilation", 1), dimensions)
    with torch._C.DisableTorchFunction():  # torch refuses windows that do not fit
        one = torch.zeros(1, *input.shape[1:])
        shape = (input.shape[0], *call.func(one, *call.args[1:], **call.kwargs).shape[1:])
    if attrs.pop("ceil_mode", False):
        plain = tuple(
            (n + 2 * p - d * (k - 1) - 1) // s + 1
            for n, k, s, p, d in zip(input.shape[2:], kernels, strides, paddings, dilations, strict=True)
        )
        attrs["ceil_mode"] = shape[2:] != plain
        if attrs["ceil_mode"] and op != "maxpool":
            return linear_function(call, input, *call.args[1:], **call.kwargs)
    return call.record(
        op, [input], shape, kernel=kernels, stride=strides, padding=paddings, dilation=dilations, **attrs
    )


def average_pool(dimensions: int) -> Callable[..., Tensor]:
    """Return the handler of avg_pool1d or avg_pool2d."""

    def pool(
        call: FunctionCall,
        input: Tensor,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> Tensor:
        if divisor_override is not None or (not count_include_pad and any(_many(padding, dimensions))):
            return linear_function(call, input, *call.args[1:], **call.kwargs)
        return _pool(call, "avgpool", dimensions, input, kernel_size, stride, padding, ceil_mode=ceil_mode)

    return pool


def max_pool(dimensions: int) -> Callable[..., Tensor]:
    """Return the handler of max_pool1d or max_pool2d."""

    def pool(
        call: FunctionCall,
        input: Tensor,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
    ) -> Tensor:
        if return_indices:
            raise call.refuse("max pooling that returns indices")
        return _pool(
            call,
            "maxpool",
            dimensions,
            input,
            kernel_size,
            stride,
            padding,
            dilation=dilation,
            ceil_mode=ceil_mode,
        )

    return pool


def adaptive_average(dimensions: int) -> Callable[..., Tensor]:
    """Return the handler of adaptive average pooling onto a size that divides the input's."""

    def pool(call: FunctionCall, input: Tensor, output_size: Any) -> Tensor:
        sizes = _many(output_size, dimensions)
        sizes = tuple(n if s is None else s for n, s in zip(input.shape[2:], sizes, strict=True))
        if min(sizes) < 1:
            raise call.refuse(f"pools to an output of {sizes}; every axis keeps 1 value at least")
        if any(n % s for n, s in zip(input.shape[2:], sizes, strict=True)):
            return linear_function(call, input, output_size)
        kernel = tuple(n // s for n, s in zip(input.shape[2:], sizes, strict=True))
        return _pool(call, "avgpool", dimensions, input, kernel, kernel, 0)

    return pool


def reshape(call: FunctionCall, input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Record flatten, view and reshape that keep the batch (and the time) apart."""
    if call.func.__name__ == "view" and args and isinstance(args[0], torch.dtype):
        raise call.refuse("reinterprets the bits of a signal")
    with torch._C.DisableTorchFunction():
        shape = tuple(call.func(torch.empty(0).new_empty(()).expand(input.shape), *args, **kwargs).shape)
    if shape == tuple(input.shape):
        return dropout(call, input)
    value = call.tracer.value(input)
    kept = 1 if value.op != "stack" else value.attrs["axis"] + 1
    if value.op == "stack" and kept == 1 and value.shape[0] > 1:
        kept = 2
    if shape[:kept] != tuple(input.shape[:kept]):
        raise call.refuse(
            f"reshapes {tuple(input.shape)} to {shape}, which joins samples or steps; keep axis 0"
        )

    def one(call: FunctionCall, x: Tensor) -> Tensor:
        new = (*x.shape[:1], *shape[1 + input.ndim - x.ndim :])
        return call.record("reshape", [x], new, lambda number: number.reshape(new))

    return _each_step(call, input, one)


def _each_step(call: FunctionCall, input: Tensor, one: Callable[[FunctionCall, Tensor], Tensor]) -> Tensor:
    """Apply `one` to every entry of a stack of steps, to anything else as it is."""
    tracer, value = call.tracer, call.tracer.value(input)
    if value.op != "stack" or value.attrs["axis"] >= input.ndim - 1:
        return one(call, input)
    entries = [one(call, tracer.stand_in(entry, input.dtype)) for entry in value.args]
    return seq.stack_values(call, [tracer.value(e) for e in entries], value.attrs["axis"], input.dtype)


def _many(value: Any, count: int) -> tuple[Any, ...]:
    if isinstance(value, (tuple, list)):
        return tuple(value) * count if len(value) == 1 else tuple(value)
    return (value,) * count


HANDLERS: dict[str, Callable[..., Any]] = {
    **MAPS,
    **dict.fromkeys(
        (
            "contiguous",
            "clone",
            "detach",
            "to",
            "float",
            "double",
            "cpu",
            "cuda",
            "requires_grad_",
            "type_as",
        ),
        identity,
    ),
    "type": to_type,
    "eq": equals,
    "__eq__": equals,
    **dict.fromkeys(("dropout", "dropout1d", "dropout2d", "alpha_dropout", "feature_dropout"), dropout),
    "linear": linear,
    **dict.fromkeys(("matmul", "mm", "__matmul__"), matmul),
    "conv1d": convolution(1),
    "conv2d": convolution(2),
    "batch_norm": batch_norm,
    "avg_pool1d": average_pool(1),
    "avg_pool2d": average_pool(2),
    "max_pool1d": max_pool(1),
    "max_pool2d": max_pool(2),
    "adaptive_avg_pool1d": adaptive_average(1),
    "adaptive_avg_pool2d": adaptive_average(2),
    **dict.fromkeys(("flatten", "unflatten", "view", "reshape"), reshape),
    **dict.fromkeys(("add", "add_", "__iadd__", "__radd__"), seq.add),
    **dict.fromkeys(("sub", "sub_", "__isub__", "subtract"), seq.subtract),
    **dict.fromkeys(("__rsub__", "rsub"), seq.subtract_from),
    **dict.fromkeys(("mul", "mul_", "__imul__", "__rmul__", "multiply"), seq.multiply),
    **dict.fromkeys(("div", "div_", "__idiv__", "__itruediv__", "true_divide", "divide"), seq.divide),
    **dict.fromkeys(("neg", "negative"), seq.negate),
    "__getitem__": seq.get_item,
    "select": lambda call, input, dim, index: seq.get_item(
        call, input, (slice(None),) * (dim % input.ndim) + (index,)
    ),
    "__setitem__": seq.set_item,
    "unbind": seq.unbind,
    "__iter__": seq.iterate,
    "stack": seq.stack,
    **dict.fromkeys(("cat", "concat", "concatenate"), seq.concatenate),
    "unsqueeze": seq.unsqueeze,
    "squeeze": seq.squeeze,
    **dict.fromkeys(("permute", "transpose", "swapaxes", "swapdims"), seq.permute),
    **dict.fromkeys(("sum", "mean", "max", "amax"), seq.reduce_steps),
    "__get__": seq.attribute,
}
