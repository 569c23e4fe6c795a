"""How a stateful module is called, and runs of fresh copies of it.

    step       y = m(x_t), the state kept inside
    state      y, s = m(x_t, s); several values may be returned and passed on
    sequence   y = m(x) over all steps at once, time on axis 0 or 1

Every run starts from a new copy of the module in eval(), without gradients; the random state is restored.
"""

from __future__ import annotations

import inspect
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Float = NDArray[np.float64]

RESETS = ("reset", "reset_states", "reset_state", "reset_mem", "reset_hidden", "reset_net")
"""Methods without arguments by which modules forget their state."""


@dataclass(frozen=True)
class Style:
    """One way to call a module; `output` is the place of the spikes among the tensors it returns.

    `first` is what a module that is passed its state gets before it has one: "nothing", "None" or "zeros".
    """

    call: str
    time_axis: int = 0
    first: str = "nothing"
    output: int = 0

    def describe(self) -> str:
        """Return the style in words."""
        if self.call == "sequence":
            return f"all steps at once, time on axis {self.time_axis}"
        return "step by step" if self.call == "step" else "step by step, its state passed"


STYLES = (
    Style("step"),
    Style("state"),
    Style("state", first="None"),
    Style("state", first="zeros"),
    Style("sequence", 0),
    Style("sequence", 1),
)


@contextmanager
def untouched_randomness() -> Iterator[None]:
    """Restore the random state of torch, numpy and Python at the end."""
    kept = torch.get_rng_state(), np.random.get_state(), random.getstate()
    try:
        yield
    finally:
        torch.set_rng_state(kept[0])
        np.random.set_state(kept[1])
        random.setstate(kept[2])


def isolated(module: nn.Module) -> nn.Module:
    """Return a copy in eval() that has forgotten its state, cut off from any graph of gradients."""
    memo: dict[int, Any] = {}
    for part in module.modules():
        for value in _held(part):
            if not value.is_leaf:
                memo[id(value)] = value.detach().clone()
    copy = deepcopy(module, memo)
    for part in copy.modules():
        for key in [k for k, v in vars(part).items() if getattr(v, "stands_in", False)]:
            del part.__dict__[key]
    for name in RESETS:
        method = getattr(copy, name, None)
        if callable(method) and not _positional(method):
            method()
            break
    return copy.eval()


def _held(part: nn.Module) -> Iterator[Tensor]:
    for value in (*vars(part).values(), *part._buffers.values()):
        for item in value.values() if isinstance(value, dict) else _leaves(value):
            if isinstance(item, Tensor):
                yield item


def _positional(function: Any) -> list[inspect.Parameter]:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [p for p in inspect.signature(function).parameters.values() if p.kind in kinds]


def dtype_of(module: nn.Module) -> torch.dtype:
    """Return the type of number a module computes in."""
    tensors = (*module.parameters(), *module.buffers())
    return next((t.dtype for t in tensors if t.is_floating_point()), torch.get_default_dtype())


def numpy_dtype(dtype: torch.dtype) -> Any:
    """Return numpy's float type whose numbers a torch type can hold."""
    return np.float64 if dtype == torch.float64 else np.float32


def tensors_of(returned: Any) -> list[Tensor]:
    """Return the tensors in what a module returned, in order."""
    return [leaf for leaf in _leaves(returned) if isinstance(leaf, Tensor)]


def _leaves(thing: Any) -> Iterator[Any]:
    if isinstance(thing, (list, tuple)):
        for item in thing:
            yield from _leaves(item)
    elif isinstance(thing, dict):
        for item in thing.values():
            yield from _leaves(item)
    else:
        yield thing


class Runner:
    """Runs fresh copies of a module over inputs (steps, batch, neurons) in one style and type of number."""

    def __init__(
        self, module: nn.Module, shape: tuple[int, ...], style: Style, dtype: torch.dtype | None = None
    ) -> None:
        self.style, self.shape, self.size = style, shape, int(np.prod(shape))
        self.dtype = dtype or dtype_of(module)
        self.module = isolated(module)
        if dtype is not None:
            self.module = self.module.to(dtype)
        self.takes = len(_positional(self.module.forward)) - 1

    def run(self, x: Float) -> Float:
        """Return the values of the style's output, (steps, batch, neurons)."""
        return self.outputs(x)[self.style.output]

    def outputs(self, x: Float) -> list[Float]:
        """Return every returned tensor that has a value per step and neuron."""
        return self.observe(x)[0]

    def observe(self, x: Float) -> tuple[list[Float], dict[str, Float]]:
        """Return the outputs, and by name the tensors kept after the last step, (batch, neurons)."""
        steps, batch = x.shape[:2]
        given = torch.from_numpy(np.ascontiguousarray(x)).to(self.dtype).reshape(steps, batch, *self.shape)
        module = deepcopy(self.module)
        with torch.no_grad(), untouched_gradient_mode():
            if self.style.call == "sequence":
                outputs = self._whole(module, given)
                last: Sequence[Tensor] = ()
            else:
                outputs, last = self._stepped(module, given)
        wanted = (steps, batch, *self.shape)
        flat = [_array(o).reshape(steps, batch, -1) for o in outputs if tuple(o.shape) == wanted]
        kept = {f"returned[{i}]": tensor for i, tensor in enumerate(last)}
        kept |= {name: t for name, t in _attributes(module)}
        states = {
            name: _array(t).reshape(batch, -1)
            for name, t in kept.items()
            if tuple(t.shape) in ((batch, *self.shape), (1, batch, *self.shape)) and t.is_floating_point()
        }
        return flat, states

    def first(self, x: Tensor) -> Any:
        """Return what a fresh copy returns for its first call with `x`, (batch, *shape) or all steps."""
        module = deepcopy(self.module)
        with torch.no_grad():
            states: tuple[Any, ...] = ()
            if self.style.call == "state":
                states = _first_states(self.takes, x, self.style.first)
            return module(x, *states)

    def _whole(self, module: nn.Module, x: Tensor) -> list[Tensor]:
        if self.style.time_axis == 0:
            return tensors_of(module(x))
        returned = tensors_of(module(x.transpose(0, 1).contiguous()))
        return [t.transpose(0, 1) if t.ndim > 1 else t for t in returned]

    def _stepped(self, module: nn.Module, x: Tensor) -> tuple[list[Tensor], Sequence[Tensor]]:
        states: tuple[Any, ...] = ()
        rows: list[list[Tensor]] = []
        if self.style.call == "state":
            states = _first_states(self.takes, x[0], self.style.first)
        for t in range(len(x)):
            returned = module(x[t].clone(), *states)
            # A module may change a state in place that it returned a step ago.
            rows.append([tensor.clone() for tensor in tensors_of(returned)])
            if self.style.call == "state":
                states = _next_states(self.takes, returned)
        if len({len(row) for row in rows}) > 1:
            raise ValueError("the number of tensors it returns changes from step to step")
        columns = zip(*rows, strict=True)
        stacked = [torch.stack(c) for c in columns if len({tuple(t.shape) for t in c}) == 1]
        return stacked, rows[-1]


@contextmanager
def untouched_gradient_mode() -> Iterator[None]:
    """Keep hooks and traces of torch functions away from a run."""
    with torch._C.DisableTorchFunction():
        yield


def _array(tensor: Tensor) -> Float:
    array: Float = tensor.detach().cpu().double().numpy()
    return array


def _attributes(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    for path, part in module.named_modules():
        head = f"{path}." if path else ""
        for name, value in (*vars(part).items(), *part._buffers.items()):
            if name in ("_parameters", "_buffers", "_modules"):
                continue
            held = value if isinstance(value, dict) else {"": value}
            for key, item in held.items():
                for i, leaf in enumerate(_leaves(item)):
                    if isinstance(leaf, Tensor):
                        place = "" if leaf is item else f"[{i}]"
                        yield f"{head}{f'{name}.{key}' if key else name}{place}", leaf


def _first_states(takes: int, x: Tensor, first: str) -> tuple[Any, ...]:
    if first == "nothing":
        return ()
    return tuple(None if first == "None" else torch.zeros_like(x) for _ in range(takes))


def _next_states(takes: int, returned: Any) -> tuple[Any, ...]:
    if not isinstance(returned, (tuple, list)) or len(returned) < 2:
        raise ValueError("it returns no state to pass on")
    after = tuple(returned[1:])
    if len(after) == 1 and takes > 1 and isinstance(after[0], (tuple, list)):
        after = tuple(after[0])
    if takes == 1 and len(after) > 1:
        after = (after,)
    if not takes or len(after) > takes:
        raise ValueError(f"it takes {takes} states and returns {len(after)}")
    return after
