"""Stateful modules that a trace cannot read, taken as the neurons that probing says they are.

A network is traced as it stands first. Where that is refused, its own modules without layers inside are
probed when they are called (`probing/identify.py`): a neuron becomes a leaf of the trace, anything else is
traced on. How a leaf is called decides where its state comes from: kept inside, passed, or neither.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from snn_compile.targets.errors import ExportError
from snn_compile.train.probing.calling import RESETS, Runner, tensors_of
from snn_compile.train.probing.identify import Identified, identify
from snn_compile.train.tracing import sequences
from snn_compile.train.tracing.fold import Step, fold
from snn_compile.train.tracing.recorder import FunctionCall, Tracer
from snn_compile.train.tracing.trace import trace
from snn_compile.train.tracing.values import Call, Chain, Value, leaves

_LAYERS = (nn.Linear, nn.modules.conv._ConvNd, nn.modules.batchnorm._NormBase, nn.RNNBase)
_FOREIGN = ("torch.nn.", "snntorch.", "snn_compile.")


def folded(module: nn.Module, sample: Any) -> Step:
    """Return the one step that a network repeats, its unknown neurons probed if it cannot be read else."""
    try:
        return fold(trace(module, sample))
    except ExportError as error:
        if not any(probeable(part) for part in module.modules()):
            raise
        unread = error
    prober = Prober()
    try:
        return fold(trace(module, sample, prober.leaf))
    except ExportError as error:
        raise prober.cause(error, unread) from None


def probeable(module: nn.Module) -> bool:
    """Whether a module may be a neuron that someone wrote: a class of its own, without layers inside."""
    bases = [base.__module__ for base in type(module).__mro__ if base is not nn.Module]
    parts = [type(part).__module__ for part in module.modules()]
    return (
        not any(f"{name}.".startswith(_FOREIGN) for name in bases)
        and not any(f"{name}.".startswith(_FOREIGN[1:]) for name in parts)
        and not any(isinstance(part, _LAYERS) for part in module.modules())
    )


class Prober:
    """What was found of each module so far, and why the others are no neurons."""

    def __init__(self) -> None:
        self.found: dict[tuple[int, tuple[int, ...]], Identified | None] = {}
        self.errors: list[ExportError] = []

    def leaf(
        self, tracer: Tracer, module: nn.Module, path: str, forward: Callable[..., Any]
    ) -> Callable[..., Any]:
        """Return what stands in for the forward of a module, which is `forward` if it is no neuron."""
        return forward if not probeable(module) else Leaf(self, tracer, module, path, forward)

    def cause(self, error: ExportError, unread: ExportError) -> ExportError:
        """Return the error to raise: of a neuron that was almost one, else of the trace."""
        telling = [e for e in self.errors if not e.facts.get("stateless", True)]
        if telling:
            return telling[0]
        return error if any(self.found.values()) else unread

    def identified(self, module: nn.Module, path: str, shape: tuple[int, ...], ways: Sequence[str]) -> Any:
        """Return what a module is for an input of `shape`, (batch, *layer) or of steps; None: no neuron."""
        key = (id(module), shape)
        if key in self.found:
            return self.found[key]
        self.found[key] = None
        tries = [(shape[1:], way) for way in ways if way != "sequence"]
        if "sequence" in ways and len(shape) > 2:
            tries.append((shape[2:], "sequence"))
        for layer, way in tries:
            try:
                with torch._C.DisableTorchFunction():
                    self.found[key] = identify(module, layer, path, call=way)
                break
            except ExportError as error:
                self.errors.append(error)
        return self.found[key]


class Leaf:
    """The forward of a probed module in a trace."""

    stands_in = True

    def __init__(
        self, prober: Prober, tracer: Tracer, module: nn.Module, path: str, forward: Callable[..., Any]
    ) -> None:
        self.prober, self.tracer, self.module, self.forward = prober, tracer, module, forward
        self.path = path or type(module).__name__.lower()
        self.chain: Chain | None = None
        for name in RESETS:
            if callable(getattr(module, name, None)):
                module.__dict__[name] = self.forget

    def __deepcopy__(self, memo: dict[int, Any]) -> Leaf:
        """Stay one object where a module is copied to be probed; copies drop what stands in."""
        return self

    def forget(self, *_: Any, **__: Any) -> None:
        """Begin anew, as the module's own reset does."""
        self.chain = None

    forget.stands_in = True  # type: ignore[attr-defined]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Record a call of a neuron; call anything else."""
        given = (*args, *kwargs.values())
        x = given[0] if given else None
        if not isinstance(x, Tensor) or x.ndim < 2:
            return self.forward(*args, **kwargs)
        value = self.tracer.value(x)
        stacked = value.op == "stack"
        ways = ("sequence",) if stacked else ("step", "state", "sequence")
        found = self.prober.identified(self.module, self.path, tuple(x.shape), ways)
        if found is None:
            return self.forward(*args, **kwargs)
        if not self.tracer.knows(x):
            x = self.tracer.mark(torch.zeros_like(x), value)
        if found.style.call == "sequence":
            return self._whole(found, x)
        if found.style.call == "state":
            self._continue(given[1:])
        call = self._record(found, self.tracer.value(x))
        return self._returned(found, x, call)

    def _continue(self, states: Sequence[Any]) -> None:
        """Find the chain that the states passed in belong to."""
        passed = [leaf for leaf in leaves(list(states)) if isinstance(leaf, Tensor)]
        values = [self.tracer.value(s) for s in passed if self.tracer.knows(s)]
        if not values:
            if any(bool((s != 0).any()) for s in passed):
                raise ExportError(
                    f"{self.path}: its state starts at values other than 0; start without one", node=self.path
                )
            self.chain = None
            return
        last = self.chain.calls[-1] if self.chain else None
        if len(values) < len(passed) or any(v.op != "out" or v.attrs["call"] is not last for v in values):
            raise ExportError(
                f"{self.path}: the states passed in are not those that {self.path} returned the step before; "
                "states may be handed on, not computed with",
                node=self.path,
            )

    def _record(self, found: Identified, value: Value) -> Call:
        if self.chain is None:
            self.chain = Chain(self.module, self.path, value.shape[1:], identified=found)
            self.tracer.chains.append(self.chain)
        call = Call(self.chain, len(self.chain.calls), value)
        self.chain.calls.append(call)
        return call

    def _port(self, found: Identified) -> str:
        return "mem" if found.neuron.model == "li" else "spk"

    def _out(self, call: Call, port: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        value = Value("out", (), shape, self.path, {"call": call, "port": port})
        return self.tracer.stand_in(value, dtype)

    def _returned(self, found: Identified, x: Tensor, call: Call) -> Any:
        """Return what the module does, stand-ins in place of its tensors."""
        with torch._C.DisableTorchFunction():
            runner = Runner(self.module, tuple(x.shape[1:]), found.style)
            template = runner.first(torch.zeros(x.shape, dtype=runner.dtype))
        full = [id(t) for t in tensors_of(template) if t.shape == x.shape]
        output, places = self._port(found), iter(range(len(full)))

        def stand_in(leaf: Any) -> Any:
            if not isinstance(leaf, Tensor):
                return leaf
            place = next(places) if leaf.shape == x.shape else -1
            port = output if place == found.style.output else f"state {place}"
            return self._out(call, port, tuple(leaf.shape), x.dtype)

        return _mapped(template, stand_in)

    def _whole(self, found: Identified, x: Tensor) -> Any:
        """Record a call over all steps at once."""
        if self.chain is not None:
            raise ExportError(
                f"{self.path}: is called twice over all steps; use a module for each layer", node=self.path
            )
        axis = found.style.time_axis
        call = FunctionCall(self.tracer, self.forward, (x,), {})
        outputs = []
        for entry in sequences.unbind(call, x, axis):
            step = self._record(found, self.tracer.value(entry))
            outputs.append(
                Value("out", (), tuple(entry.shape), self.path, {"call": step, "port": self._port(found)})
            )
        result = sequences.stack_values(call, outputs, axis, x.dtype)
        with torch._C.DisableTorchFunction():
            runner = Runner(self.module, tuple(x.shape[2:]), found.style)
            template = runner.first(torch.zeros(x.shape, dtype=runner.dtype))
        places = iter(range(len(tensors_of(template))))

        def stand_in(leaf: Any) -> Any:
            if not isinstance(leaf, Tensor):
                return leaf
            if leaf.shape == x.shape and next(places) == found.style.output:
                return result
            return self._out(step, "state", tuple(leaf.shape), x.dtype)

        return _mapped(template, stand_in)


def _mapped(thing: Any, change: Callable[[Any], Any]) -> Any:
    """Return the same containers with every leaf changed; named tuples stay what they are."""
    if isinstance(thing, tuple) and hasattr(thing, "_fields"):
        return type(thing)(*(_mapped(item, change) for item in thing))
    if isinstance(thing, (list, tuple)):
        return type(thing)(_mapped(item, change) for item in thing)
    if isinstance(thing, Mapping):
        return {key: _mapped(item, change) for key, item in thing.items()}
    return change(thing)
