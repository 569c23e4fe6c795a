"""Arithmetic, indexing and stacking of stand-ins: how steps are taken apart and put together again."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from snn_compile.train.tracing.recorder import FunctionCall
from snn_compile.train.tracing.values import Value, number


class Extremum(NamedTuple):
    """What torch's max over an axis returns."""

    values: Tensor
    indices: Tensor


def add(call: FunctionCall, input: Any, other: Any, *, alpha: Any = 1) -> Tensor:
    """Record a sum of signals and constants; `alpha` scales the second."""
    tracer = call.tracer
    second = tracer.value(other)
    if alpha != 1:
        second = scaled(call, second, number(alpha))
    return _finish(call, input, other, plus(call, tracer.value(input), second))


def subtract(call: FunctionCall, input: Any, other: Any, *, alpha: Any = 1) -> Tensor:
    """Record a difference."""
    return add(call, input, other, alpha=-alpha)


def subtract_from(call: FunctionCall, input: Any, other: Any) -> Tensor:
    """Record other - input."""
    value = call.tracer.value(input)
    negative = scaled(call, value, number(-1))
    return _finish(call, input, other, plus(call, call.tracer.value(other), negative))


def multiply(call: FunctionCall, input: Any, other: Any) -> Tensor:
    """Record a product with a constant."""
    tracer = call.tracer
    if tracer.knows(input) and tracer.knows(other):
        raise call.refuse("multiplies two signals, which no NIR node does")
    signal, factor = (input, other) if tracer.knows(input) else (other, input)
    return _finish(call, input, other, scaled(call, tracer.value(signal), number(factor)))


def divide(call: FunctionCall, input: Any, other: Any) -> Tensor:
    """Record a division by a constant."""
    if call.tracer.knows(other):
        raise call.refuse("divides by a signal, which no NIR node does")
    return _finish(call, input, other, scaled(call, call.tracer.value(input), 1 / number(other)))


def negate(call: FunctionCall, input: Tensor) -> Tensor:
    """Record a sign change."""
    return _finish(call, input, None, scaled(call, call.tracer.value(input), number(-1)))


def _finish(call: FunctionCall, input: Any, other: Any, value: Value) -> Tensor:
    """Return the stand-in of a result; functions in place change what their first tensor stands for."""
    name = call.func.__name__
    if name.endswith("_") and not name.startswith("__") or name.startswith("__i"):
        if tuple(input.shape) != value.shape:
            raise call.refuse(f"writes a signal of shape {value.shape} into one of {tuple(input.shape)}")
        return call.tracer.mark(input, value)
    dtype = torch.result_type(
        *(t if isinstance(t, Tensor) else torch.as_tensor(t or 0.0) for t in (input, other))
    )
    return call.tracer.stand_in(value, dtype)


def scaled(call: FunctionCall, value: Value, factor: Tensor) -> Value:
    """Return `value` times a constant."""
    factor = factor.detach()
    if value.op == "const":
        return call.tracer.value(value.attrs["tensor"] * factor)
    if _joint_shape(tuple(factor.shape), value.shape) != value.shape:
        raise call.refuse(f"multiplies a signal of shape {value.shape} by a larger constant")
    if bool((factor == 1).all()):
        return value
    if value.op == "stack" and factor.numel() == 1:
        return _stack(
            [scaled(call, v, factor.reshape(())) for v in value.args], value.attrs["axis"], value.path
        )
    return Value(
        "scale", (value,), value.shape, call.tracer.where(), {"factor": factor}, lambda x: x * factor
    )


def plus(call: FunctionCall, first: Value, second: Value) -> Value:
    """Return the sum of two values; of two stacks of steps, step by step."""
    pair = (first, second)
    if any(v.op == "stack" for v in pair):
        stack = first if first.op == "stack" else second
        axis, count = stack.attrs["axis"], len(stack.args)
        parts = [_entries(call, v, axis, count) for v in pair]
        return _stack([plus(call, a, b) for a, b in zip(*parts, strict=True)], axis, stack.path)
    shape = _joint_shape(first.shape, second.shape)
    terms: list[Value] = []
    for value in pair:
        if value.op == "const" and not bool(value.attrs["tensor"].any()):
            continue
        if value.op != "const" and value.shape != shape:
            raise call.refuse(f"adds signals of shapes {first.shape} and {second.shape}; make them equal")
        terms += value.args if value.op == "add" else [value]
    if len(terms) == 1 and terms[0].shape == shape:
        return terms[0]
    return Value(
        "add", tuple(terms), shape, call.tracer.where(), {}, lambda *numbers: sum(numbers, torch.zeros(shape))
    )


def _joint_shape(*shapes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(torch.broadcast_shapes(*shapes))  # type: ignore[no-untyped-call]


def _entries(call: FunctionCall, value: Value, axis: int, count: int) -> list[Value]:
    if value.op == "stack" and (value.attrs["axis"], len(value.args)) == (axis, count):
        return list(value.args)
    if value.op == "const" and value.attrs["tensor"].numel() == 1:
        return [call.tracer.value(value.attrs["tensor"].reshape(()))] * count
    raise call.refuse("adds a sequence of steps to something that is not one")


def _stack(entries: Sequence[Value], axis: int, path: str) -> Value:
    shape = list(entries[0].shape)
    shape.insert(axis, len(entries))
    return Value("stack", tuple(entries), tuple(shape), path, {"axis": axis})


def stack_values(call: FunctionCall, entries: Sequence[Value], axis: int, dtype: torch.dtype) -> Tensor:
    """Return a stand-in for values of equal shape along a new axis."""
    return call.tracer.stand_in(_stack(entries, axis, call.tracer.where()), dtype)


def select(call: FunctionCall, value: Value, axis: int, index: int) -> Value:
    """Return entry `index` along `axis`: a step of the input or of a sequence."""
    shape = value.shape[:axis] + value.shape[axis + 1 :]
    if not -value.shape[axis] <= index < value.shape[axis]:
        raise IndexError(f"index {index} is out of range for {value.shape[axis]} entries")
    index %= value.shape[axis]
    if value.op == "stack":
        if axis == value.attrs["axis"]:
            return value.args[index]
        inner = axis - (axis > value.attrs["axis"])
        outer = value.attrs["axis"] - (axis < value.attrs["axis"])
        return _stack([select(call, v, inner, index) for v in value.args], outer, value.path)
    if value.op == "input":
        rest = [a for i, a in enumerate(value.attrs["axes"]) if i != axis]
        if rest != sorted(rest):
            raise call.refuse("reorders the axes of the input other than time")
        time = value.attrs["axes"][axis]
        call.tracer.time_axes.add(time)
        return Value("slice", (), shape, "input", {"t": index})
    last = len(value.shape) - 1
    args = [a for a in value.args if a.op != "const"]
    through = {
        "linear": axis < last,
        "scale": value.op == "scale" and value.attrs["factor"].numel() == 1,
        "add": len(args) == len(value.args),
        "reshape": bool(args) and axis < 2 and value.shape[:2] == args[0].shape[:2],
    }.get(value.op, False)
    if not through:
        raise call.refuse(
            f"takes one entry of a signal of shape {value.shape} along axis {axis}; only time may be indexed"
        )
    replay = value.replay
    if value.op == "reshape":
        replay = lambda x: x.reshape(shape)  # noqa: E731
    if value.op == "add":
        replay = lambda *numbers: sum(numbers, torch.zeros(shape))  # noqa: E731
    return Value(
        value.op, tuple(select(call, a, axis, index) for a in args), shape, value.path, value.attrs, replay
    )


def get_item(call: FunctionCall, input: Tensor, index: Any) -> Tensor:
    """Record tensor[index] with one whole number, or a slice of a sequence of steps."""
    value, indices = call.tracer.value(input), _indices(call, input, index)
    for axis, item in sorted(indices.items(), reverse=True):
        if isinstance(item, int):
            value = select(call, value, axis, item)
        elif value.op == "stack" and axis == value.attrs["axis"] and value.args[item]:
            value = _stack(value.args[item], axis, value.path)
        else:
            raise call.refuse("takes a part of a signal; only whole steps may be indexed")
    return call.tracer.stand_in(value, input.dtype)


def set_item(call: FunctionCall, input: Tensor, index: Any, entry: Any) -> None:
    """Record tensor[index] = step, the way results are collected in a tensor made before the loop."""
    indices = _indices(call, input, index)
    value, entry_value = call.tracer.value(input), call.tracer.value(entry)
    if len(indices) != 1 or not isinstance(next(iter(indices.values())), int):
        raise call.refuse("writes into a part of a tensor; only whole steps may be written")
    axis, position = next((a, operator.index(i)) for a, i in indices.items() if isinstance(i, int))
    if value.op == "const":
        slices = [value.attrs["tensor"].select(axis, i).clone() for i in range(input.shape[axis])]
        value = _stack([call.tracer.value(s) for s in slices], axis, call.tracer.where())
    if value.op != "stack" or value.attrs["axis"] != axis or entry_value.shape != value.args[0].shape:
        raise call.refuse("writes into a signal; collect the steps in a list and stack them")
    entries = list(value.args)
    entries[position] = entry_value
    call.tracer.mark(input, _stack(entries, axis, value.path))


def _indices(call: FunctionCall, input: Tensor, index: Any) -> dict[int, int | slice]:
    items = list(index) if isinstance(index, tuple) else [index]
    if any(item is Ellipsis for item in items):
        place = next(i for i, item in enumerate(items) if item is Ellipsis)
        items[place : place + 1] = [slice(None)] * (input.ndim - len(items) + 1)
    indices: dict[int, int | slice] = {}
    for axis, item in enumerate(items):
        if isinstance(item, slice):
            if item != slice(None) and range(input.shape[axis])[item] != range(input.shape[axis]):
                indices[axis] = item
        elif isinstance(item, (bool, list, type(None))) or call.tracer.knows(item):
            raise call.refuse(
                "indexes a signal by a mask, a list or a new axis; only whole steps may be indexed "
                "(unsqueeze makes an axis)"
            )
        else:
            indices[axis] = operator.index(item)
    return indices


def unbind(call: FunctionCall, input: Tensor, dim: int = 0) -> tuple[Tensor, ...]:
    """Record the entries along an axis, one by one."""
    axis, tracer = dim % input.ndim, call.tracer
    values = [select(call, tracer.value(input), axis, i) for i in range(input.shape[axis])]
    return tuple(tracer.stand_in(v, input.dtype) for v in values)


def iterate(call: FunctionCall, input: Tensor) -> Iterator[Tensor]:
    """Record a loop over axis 0."""
    return iter(unbind(call, input))


def stack(call: FunctionCall, tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Record torch.stack."""
    values = [call.tracer.value(t) for t in tensors]
    if len({v.shape for v in values}) != 1:
        raise call.refuse(f"stacks tensors of different shapes {sorted({v.shape for v in values})}")
    return stack_values(call, values, dim % (len(values[0].shape) + 1), tensors[0].dtype)


def concatenate(call: FunctionCall, tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Record torch.cat of sequences along time, or of features."""
    values = [call.tracer.value(t) for t in tensors]
    axis = dim % len(values[0].shape)
    if all(v.op == "stack" and v.attrs["axis"] == axis for v in values):
        joined = _stack([e for v in values for e in v.args], axis, call.tracer.where())
        return call.tracer.stand_in(joined, tensors[0].dtype)
    if axis == 0 or any(v.op == "stack" for v in values):
        raise call.refuse("joins tensors along the batch or across sequences; join features only")
    return call.record("concat", list(tensors), axis=axis)


def unsqueeze(call: FunctionCall, input: Tensor, dim: int) -> Tensor:
    """Record a new axis: a sequence of one."""
    value = _stack([call.tracer.value(input)], dim % (input.ndim + 1), call.tracer.where())
    return call.tracer.stand_in(value, input.dtype)


def squeeze(call: FunctionCall, input: Tensor, dim: int | None = None) -> Tensor:
    """Record the end of an axis of one."""
    value = call.tracer.value(input)
    axes = [i for i, n in enumerate(input.shape) if n == 1] if dim is None else [dim % input.ndim]
    axes = [i for i in axes if input.shape[i] == 1]
    if not axes:
        return call.tracer.stand_in(value, input.dtype)
    if value.op != "stack" or axes != [value.attrs["axis"]]:
        raise call.refuse(f"removes axes of a signal of shape {value.shape}; flatten it instead")
    return call.tracer.stand_in(value.args[0], input.dtype)


def permute(call: FunctionCall, input: Tensor, *dims: Any) -> Tensor:
    """Record another order of axes, of the whole input or of time within a sequence."""
    value = call.tracer.value(input)
    if call.func.__name__ == "permute":
        flat = dims[0] if len(dims) == 1 and isinstance(dims[0], (tuple, list)) else dims
        order = [d % input.ndim for d in flat]
    else:
        order = list(range(input.ndim))
        a, b = (d % input.ndim for d in dims)
        order[a], order[b] = order[b], order[a]
    shape = tuple(input.shape[i] for i in order)
    if value.op == "input":
        axes = tuple(value.attrs["axes"][i] for i in order)
        result = Value("input", (), shape, "input", {**value.attrs, "axes": axes})
    else:
        rest = [i for i in order if value.op != "stack" or i != value.attrs["axis"]]
        if value.op != "stack" or rest != sorted(rest):
            raise call.refuse("reorders the axes of a signal; only time may move")
        result = _stack(value.args, order.index(value.attrs["axis"]), value.path)
    return call.tracer.stand_in(result, input.dtype)


def reduce_steps(call: FunctionCall, input: Tensor, dim: Any = None, keepdim: bool = False, **_: Any) -> Any:
    """Record sum, mean or max over the steps of a sequence."""
    value, name = call.tracer.value(input), call.func.__name__.removeprefix("a")
    axis = dim[0] if isinstance(dim, (tuple, list)) and len(dim) == 1 else dim
    if (
        value.op != "stack"
        or not isinstance(axis, int)
        or axis % input.ndim != value.attrs["axis"]
        or keepdim
    ):
        raise call.refuse(
            f"takes the {name} over something else than the steps; use a pooling layer, or only time"
        )
    result = Value("reduce", (value,), value.args[0].shape, call.tracer.where(), {"kind": name})
    tensor = call.tracer.stand_in(result, input.dtype)
    if call.func.__name__ != "max":
        return tensor
    which = Value("indices", (value,), result.shape, call.tracer.where())
    return Extremum(tensor, call.tracer.stand_in(which, torch.int64))


def attribute(call: FunctionCall, input: Tensor, *_: Any) -> Any:
    """Answer an attribute of a stand-in: shape and type as they are, `data` as the tensor itself."""
    result, name = call.func(input), getattr(call.func.__self__, "__name__", "")
    if not isinstance(result, Tensor):
        return result
    if name == "data":
        return call.tracer.stand_in(call.tracer.value(input), input.dtype)
    raise call.refuse(f"takes .{name} of a signal; only time may be moved, with transpose or permute")
