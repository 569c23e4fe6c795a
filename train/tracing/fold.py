"""From the steps of a trace to one step: every population's input must be the same expression each step.

The last step is the template. An earlier step must compute the same from the same signals equally far back;
signals from before the first step are zeros, and what the template makes of zeros is what must stand there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from snn_compile.targets.errors import ExportError
from snn_compile.train.tracing.values import Chain, Trace, Value


@dataclass(frozen=True, eq=False)
class Returned:
    """One returned tensor: its value at the last step, and how the steps are read (None: each)."""

    value: Value
    readout: str | None


@dataclass(frozen=True, eq=False)
class Step:
    """One step of the network: inputs of populations and outputs as they stand at step `last`.

    `presented`: steps that forward makes of one frame, None where the input has steps of its own.
    """

    populations: Sequence[Chain]
    returned: Sequence[Returned]
    last: int
    input_shape: tuple[int, ...]
    presented: int | None = None

    def input_of(self, chain: Chain) -> Value:
        """Return the input of a population in the last step."""
        return chain.calls[self.last].x


class _Differs(Exception):
    """Two steps compute different things."""


def fold(trace: Trace) -> Step:
    """Return the one step that a trace repeats; raises ExportError where it does not repeat one."""
    last = trace.steps - 1
    for chain in trace.chains:
        if len(chain.calls) != trace.steps:
            raise ExportError(_uneven(chain, trace), node=chain.path)
        for call in chain.calls[:-1]:
            _same(chain.calls[last].x, last, call.x, call.t, chain.path)
    returned = []
    for value in trace.outputs:
        steps, readout = _read(value, trace.steps)
        for t, entry in enumerate(steps[:-1]):
            _same(steps[-1], last, entry, t, "the output")
        returned.append(Returned(steps[-1], readout))
    used = _reachable(returned, last)
    shown = trace.steps if trace.still else None
    return Step([c for c in trace.chains if id(c) in used], returned, last, trace.input_shape, shown)


def _uneven(chain: Chain, trace: Trace) -> str:
    many = len(chain.calls)
    if trace.one_step and many % trace.steps == 0:
        return (
            f"{chain.path}: is called {many // trace.steps} times in a step and keeps one state; use a "
            "neuron module for each layer"
        )
    if many < trace.steps:
        return (
            f"{chain.path}: its state begins anew after {many} of {trace.steps} steps; hand it on from "
            "step to step, and reset it only before the first"
        )
    return f"{chain.path}: is stepped {many} times where others make {trace.steps} steps"


def _read(value: Value, steps: int) -> tuple[Sequence[Value], str | None]:
    """Return what was returned step by step and how it is reduced; the last step alone is "last"."""
    if value.op == "reduce":
        words = {"sum": "count", "mean": "mean", "max": "max"}
        return _all_steps(value.args[0].args, steps), words[value.attrs["kind"]]
    if value.op == "stack":
        return _all_steps(value.args, steps), None
    if value.op == "scale" and value.attrs["factor"].numel() == 1:
        inner, readout = _read(value.args[0], steps)
        if readout == "count" and abs(float(value.attrs["factor"]) * steps - 1) < 1e-6:
            return inner, "mean"
    if value.op == "add" and len(value.args) == steps and steps > 1:
        return value.args, "count"
    return [value], "last"


def _all_steps(values: Sequence[Value], steps: int) -> Sequence[Value]:
    if len(values) != steps or any(v.op == "stack" for v in values):
        raise ExportError(
            f"the output holds {len(values)} of {steps} steps; return every step, a sum over all, or the last"
        )
    return values


def _same(template: Value, last: int, value: Value, t: int, path: str) -> None:
    try:
        _match(template, last, value, t)
    except _Differs as difference:
        raise ExportError(
            f"{path}: the input at step {t} differs from that at step {last} ({difference}); every step "
            "must compute the same from signals equally far back, with zeros before the first, and a "
            "neuron that keeps its state serves one layer",
            node=path,
        ) from None


def _match(template: Value, last: int, value: Value, t: int) -> None:
    terms, present = _terms(template), _terms(value)
    alive = [v for v in terms if v.op != "const" and not _is_before(v, last, t)]
    signals = [v for v in present if v.op != "const"]
    if len(alive) != len(signals):
        raise _Differs(f"{len(signals)} signals instead of {len(alive)}")
    constant = _total([_at_zero(v) for v in terms if v.op == "const" or _is_before(v, last, t)])
    given = _total([v.attrs["tensor"] for v in present if v.op == "const"])
    if not bool(torch.isclose(constant, given, rtol=1e-5, atol=1e-7).all()):
        raise _Differs("a constant differs; a bias fed by spikes of the step before must act at step 0 too")
    for a, b in zip(alive, signals, strict=True):
        if a.op != b.op or len(a.args) != len(b.args):
            raise _Differs(f"{b.op} of {b.path} instead of {a.op} of {a.path}")
        if a.op in ("out", "slice", "input"):
            if source(a) != source(b) or delay(a, last) != delay(b, t):
                raise _Differs(f"{b.path} of another step or layer than {a.path}")
        elif not all(_equal(a.attrs[key], b.attrs.get(key)) for key in a.attrs):
            raise _Differs(f"{b.op} of {b.path} with other weights or settings")
        for inner, other in zip(a.args, b.args, strict=True):
            _match(inner, last, other, t)


def _terms(value: Value) -> Sequence[Value]:
    return value.args if value.op == "add" else [value]


def source(value: Value) -> tuple[Any, ...]:
    """Return the origin of a signal: a population and its port, or the input."""
    return (id(value.attrs["call"].chain), value.attrs["port"]) if value.op == "out" else (value.op,)


def delay(value: Value, t: int) -> int:
    """Return how many steps before `t` a signal left its source; raises ExportError if it is yet to."""
    if value.op == "out":
        steps = t - value.attrs["call"].t
    elif value.op == "slice":
        steps = t - value.attrs["t"]
    else:
        steps = 0 if value.attrs["step"] is None else t - value.attrs["step"]
    if steps < 0:
        raise ExportError(
            f"{value.path}: what it gives at step {t - steps} is used at step {t}; a step may use its own "
            "and earlier ones",
            node=value.path,
        )
    return int(steps)


def signals(value: Value) -> Iterator[Value]:
    """Return the signals an expression is made of."""
    if value.op in ("out", "slice", "input"):
        yield value
    for arg in value.args:
        yield from signals(arg)


def _is_before(value: Value, last: int, t: int) -> bool:
    """Whether all signals of a template expression lie before the first step when it stands at `t`."""
    delays = [None if v.op == "input" and v.attrs["step"] is None else delay(v, last) for v in signals(value)]
    return bool(delays) and all(d is not None and d > t for d in delays)


def _at_zero(value: Value) -> Tensor:
    """Return what an expression is when all of its signals are zero."""
    if value.op == "const":
        tensor: Tensor = value.attrs["tensor"]
        return tensor.double()
    if value.op in ("out", "slice", "input"):
        return torch.zeros(value.shape, dtype=torch.float64)
    if value.replay is None:
        raise _Differs(f"{value.op} cannot be followed to the first step")
    numbers = [_at_zero(arg) for arg in value.args]
    weight = value.attrs.get("weight")
    if isinstance(weight, Tensor):
        numbers = [n.to(weight.dtype) for n in numbers]
    with torch.no_grad():
        return value.replay(*numbers).double()


def _total(tensors: Sequence[Tensor]) -> Tensor:
    return sum((t.detach().double() for t in tensors), torch.zeros((), dtype=torch.float64))


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a is b or (a.shape == b.shape and torch.equal(a, b))
    return type(a) is type(b) and bool(a == b)


def _reachable(returned: Sequence[Returned], last: int) -> set[int]:
    """Return the populations that an output depends on."""
    seen: set[int] = set()
    waiting = [r.value for r in returned]
    while waiting:
        for signal in signals(waiting.pop()):
            if signal.op == "out" and id(signal.attrs["call"].chain) not in seen:
                chain = signal.attrs["call"].chain
                seen.add(id(chain))
                waiting.append(chain.calls[last].x)
    return seen
