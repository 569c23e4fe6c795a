"""What a trace is made of: values, the calls of neurons, and the chains that these form."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from snn_compile.train.probing.identify import Identified


@dataclass(eq=False)
class Value:
    """How a tensor came about: an operation of `args` with constants `attrs`, in the module `path`.

    `shape` has the batch first. `replay` repeats the operation on numbers.
    """

    op: str
    args: tuple[Value, ...] = ()
    shape: tuple[int, ...] = ()
    path: str = ""
    attrs: Mapping[str, Any] = field(default_factory=dict)
    replay: Callable[..., Tensor] | None = None


@dataclass(eq=False)
class Call:
    """One step of a population: what came in; `chain.calls[t]` is step t."""

    chain: Chain
    t: int
    x: Value


@dataclass(eq=False)
class Chain:
    """The steps of one population, in order; `identified` says what a probed module is."""

    module: nn.Module
    path: str
    shape: tuple[int, ...]
    calls: list[Call] = field(default_factory=list)
    identified: Identified | None = None


@dataclass(frozen=True, eq=False)
class Trace:
    """Result of a trace: chains in the order of their first call, and the returned tensors.

    Each output is a Value; of a forward of one step a "stack" with axis 0, one entry per step. `steps` is
    the length of the chains, `input_shape` one step of one sample, `one_step` whether forward is a step, and
    `still` whether it makes all steps of one frame.
    """

    chains: Sequence[Chain]
    outputs: Sequence[Value]
    steps: int
    input_shape: tuple[int, ...]
    one_step: bool
    still: bool = False


def leaves(thing: Any) -> Iterator[Any]:
    """Yield what lists, tuples and dictionaries hold."""
    if isinstance(thing, (list, tuple)):
        for item in thing:
            yield from leaves(item)
    elif isinstance(thing, Mapping):
        for item in thing.values():
            yield from leaves(item)
    else:
        yield thing


def mapped(thing: Any, change: Callable[[Any], Any]) -> Any:
    """Return the same lists, tuples and dictionaries with every leaf changed."""
    if isinstance(thing, (list, tuple)):
        return type(thing)(mapped(item, change) for item in thing)
    if isinstance(thing, dict):
        return {key: mapped(item, change) for key, item in thing.items()}
    return change(thing)


def number(thing: Any) -> Tensor:
    """Return a number as a tensor in float64, a tensor as it is."""
    return thing.detach() if isinstance(thing, Tensor) else torch.as_tensor(thing, dtype=torch.float64)
