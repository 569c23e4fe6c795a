"""What a torch module computes, written down while its forward runs.

The forward is run as it stands, so that loops, lists, branches on shapes and states passed by hand mean
what Python says they mean. Every tensor that depends on the input is a stand-in whose `Value` says how it
came about; functions of torch on stand-ins are looked up in `trace_functions.HANDLERS` and recorded, and
what is not there is refused by name. Spiking neurons are leaves: they return stand-ins and note which
earlier call their state came from, so the calls of one population form a chain, one call a step, whoever
carried the state (the module itself or the caller).

A forward that makes one step is called `STEPS` times with fresh inputs; one that holds a time loop once.
The module is left as it was found.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from typing import Any

import torch
from torch import Tensor, nn

from snn_compile.targets.errors import ExportError
from snn_compile.train.tracing.functions import HANDLERS, PLAIN
from snn_compile.train.tracing.neurons import neuron_ports
from snn_compile.train.tracing.recorder import Tracer
from snn_compile.train.tracing.values import Trace, Value, leaves

_CONTAINERS = (list, deque, dict, set)

STEPS = 12
"""Number of calls of a forward of one step; delays that a module keeps itself are seen up to this length."""


Leaf = Callable[[Tracer, nn.Module, str, Callable[..., Any]], Callable[..., Any]]
"""From a tracer, a module, its path and its forward to what stands in for that forward."""


def trace(module: nn.Module, sample: Any, leaf: Leaf | None = None) -> Trace:
    """Run `module` on stand-ins of `sample`, the argument of its forward, and return the trace.

    `leaf` may take the place of the forward of any module that is no known neuron.
    """
    args = sample if isinstance(sample, tuple) else (sample,)
    x = args[0]
    if not isinstance(x, Tensor) or x.ndim < 2:
        raise ExportError(
            "the sample input must be a tensor with a batch, (batch, *shape) or (steps, batch, *shape)"
        )
    first, outputs = _run(module, args, 1, leaf)
    lengths = {len(chain.calls) for chain in first.chains}
    if not first.chains:
        raise ExportError(
            f"{type(module).__name__}: no spiking neuron was called; a plain network without spikes is "
            "compiled from ONNX"
        )
    if lengths == {1} and not first.time_axes:
        first, outputs = _run(module, args, STEPS, leaf)
        shape = tuple(x.shape[1:])
        return Trace(first.chains, outputs, STEPS, shape, True)
    steps = max(lengths)
    if steps == 1:
        raise ExportError("the sample input has a single time step; give at least 4, so that feedback shows")
    if len(first.time_axes) > 1:
        raise ExportError("the input is indexed along two different axes; one of them must be time")
    axes = first.time_axes or set()
    shape = tuple(n for i, n in enumerate(x.shape) if i not in axes)[1:]
    return Trace(first.chains, outputs, steps, shape, False, still=not axes)


def _run(
    module: nn.Module, args: tuple[Any, ...], calls: int, leaf: Leaf | None
) -> tuple[Tracer, list[Value]]:
    tracer = Tracer(module, HANDLERS, PLAIN)
    results: list[list[Value]] = []
    with torch.no_grad(), _instrumented(module, tracer, leaf):
        states = args[1:]
        for step in range(calls):
            tracer.step = step
            axes = tuple(range(args[0].ndim))
            attrs = {"axes": axes, "step": step if calls > 1 else None}
            x = tracer.stand_in(Value("input", (), tuple(args[0].shape), "input", attrs), args[0].dtype)
            with tracer:
                returned = module(x, *states)
            outputs = [
                tracer.value(leaf) for leaf in leaves(_sequences(returned, tracer)) if tracer.knows(leaf)
            ]
            if isinstance(returned, (tuple, list)) and args[1:]:
                states = _next_states(returned, args)
                outputs = outputs[:1]
            results.append(outputs)
    if not results[0]:
        raise ExportError(f"{type(module).__name__}: forward returns nothing that depends on its input")
    if calls == 1:
        return tracer, results[0]
    if len({len(r) for r in results}) > 1:
        raise ExportError(f"{type(module).__name__}: forward returns a different number of tensors each step")
    each = zip(*results, strict=True)
    return tracer, [Value("stack", v, (len(v), *v[0].shape), "output", {"axis": 0}) for v in each]


def _next_states(returned: Sequence[Any], args: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(returned) == len(args):
        return tuple(returned[1:])
    if len(args) == 2 and isinstance(args[1], (tuple, list)) and len(returned) == 1 + len(args[1]):
        return (type(args[1])(returned[1:]),)
    raise ExportError(
        f"forward takes {len(args) - 1} states and returns {len(returned) - 1} values after the output; "
        "return the output first and then each state in the order of the arguments"
    )


def _sequences(returned: Any, tracer: Tracer) -> Any:
    """Replace lists with one tensor of equal shape a step by the stack that torch.stack would give."""
    if isinstance(returned, list) and len(returned) > 1:
        values = [tracer.value(item) for item in returned if tracer.knows(item)]
        if len(values) == len(returned) and len({v.shape for v in values}) == 1:
            shape = (len(values), *values[0].shape)
            return tracer.stand_in(
                Value("stack", tuple(values), shape, "output", {"axis": 0}), returned[0].dtype
            )
    if isinstance(returned, Mapping):
        return {key: _sequences(item, tracer) for key, item in returned.items()}
    if isinstance(returned, (list, tuple)):
        return [_sequences(item, tracer) for item in returned]
    return returned


@contextmanager
def _instrumented(root: nn.Module, tracer: Tracer, leaf: Leaf | None) -> Iterator[None]:
    """Let every module of `root` report its path and treat neurons as leaves; undo it at the end."""
    modules = dict(root.named_modules())
    kept, held = [], []
    for module in modules.values():
        if isinstance(module, torch.jit.ScriptModule):
            raise ExportError(f"{type(module).__name__} is compiled by torch.jit; give the Python module")
        inner = {key: dict(module.__dict__[key]) for key in ("_parameters", "_buffers", "_modules")}
        kept.append((module, {**module.__dict__, **inner}))
        held += [(v, copy(v)) for k, v in vars(module).items() if k[0] != "_" and type(v) in _CONTAINERS]
    leaves_found: list[str] = []
    apply = torch.autograd.Function.__dict__["apply"]
    try:
        setattr(torch.autograd.Function, "apply", classmethod(_guarded(tracer, apply)))  # noqa: B010
        root.eval()
        for path, module in modules.items():
            if any(path.startswith(f"{leaf}.") for leaf in leaves_found):
                continue
            ports = neuron_ports(module, path)
            if ports is not None:
                leaves_found.append(path)
                for state in ports.states:
                    setattr(module, state, torch.zeros(0))
                forward = tracer.neuron(module, path or type(module).__name__.lower(), ports)
            else:
                forward = _in_place(tracer, path, module.forward)
                forward = leaf(tracer, module, path, forward) if leaf else forward
            module.__dict__["forward"] = forward
        yield
    finally:
        setattr(torch.autograd.Function, "apply", apply)  # noqa: B010
        for module, before in kept:
            module.__dict__.clear()
            module.__dict__.update(before)
        for container, content in held:
            container.clear()
            container.update(content) if isinstance(container, (dict, set)) else container.extend(content)


def _guarded(tracer: Tracer, apply: Any) -> Callable[..., Any]:
    """Refuse custom autograd functions of stand-ins, which torch does not show to a tracer."""

    def guarded(cls: type, *args: Any, **kwargs: Any) -> Any:
        if any(tracer.knows(leaf) for leaf in leaves((args, kwargs))):
            raise ExportError(
                f"{tracer.where()}: {cls.__name__} is an autograd function of its own, which cannot be read; "
                "use the neurons of snnTorch, with this function as spike_grad",
                node=tracer.where(),
                type=cls.__name__,
            )
        return apply.__get__(None, cls)(*args, **kwargs)

    return guarded


def _in_place(tracer: Tracer, path: str, forward: Callable[..., Any]) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        for arg in args:
            if isinstance(arg, tuple) and arg and all(isinstance(item, Tensor) for item in arg) and path:
                raise ExportError(
                    f"{path}: gets a tuple of {len(arg)} tensors; a neuron before it returns its state too: "
                    "give that neuron init_hidden=True",
                    node=path,
                )
        tracer.paths.append(path)
        try:
            return forward(*args, **kwargs)
        except ExportError:
            raise
        except Exception as error:  # whatever torch or the user's forward raises on what does not fit
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise ExportError(f"{tracer.where()}: forward stops with {reason}", node=path) from error
        finally:
            tracer.paths.pop()

    run.stands_in = True  # type: ignore[attr-defined]
    return run
