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

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from snn_compile.targets.errors import ExportError
from snn_compile.train.trace_neurons import Ports, neuron_ports, read_call

STEPS = 12
"""How often a forward of one step is called; delays a module builds by hand are seen up to this long."""


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
    """The steps of one population, in order."""

    module: nn.Module
    path: str
    shape: tuple[int, ...]
    calls: list[Call] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Trace:
    """Chains in the order of their first call, and what the forward returned, tensor by tensor.

    Each output is a Value; of a forward of one step a "stack" with axis 0, one entry a step. `steps` is
    the length of the chains, `input_shape` one step of one sample, `one_step` whether forward is a step.
    """

    chains: Sequence[Chain]
    outputs: Sequence[Value]
    steps: int
    input_shape: tuple[int, ...]
    one_step: bool


class Tracer(TorchFunctionMode):
    """Records torch functions of stand-ins; active while the forward runs."""

    def __init__(self, root: nn.Module) -> None:
        super().__init__()
        self.paths: list[str] = []
        self.root = root
        self.chains: list[Chain] = []
        self.known: dict[int, tuple[Tensor, Value]] = {}
        self.time_axes: set[int] = set()
        self.step = 0

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Record `func` when an argument is a stand-in, else just call it."""
        kwargs = kwargs or {}
        if not any(id(leaf) in self.known for leaf in _leaves((args, kwargs))):
            return func(*args, **kwargs)
        from snn_compile.train.trace_functions import HANDLERS, PLAIN

        name = getattr(func, "__name__", str(func))
        if name in PLAIN:
            return func(*args, **kwargs)
        handler = HANDLERS.get(name)
        if handler is None:
            raise ExportError(
                f"{self.where()}: torch's {name} has no NIR counterpart here; {self._advice(name)}",
                node=self.where(),
                type=name,
            )
        call = FunctionCall(self, func, args, kwargs)
        try:
            return handler(call, *args, **kwargs)
        except TypeError as error:
            raise ExportError(
                f"{self.where()}: {name} is called in a way that is not read ({error})"
            ) from error

    def where(self) -> str:
        """Name the module whose forward is running."""
        path = self.paths[-1] if self.paths else ""
        return path or f"forward of {type(self.root).__name__}"

    def _advice(self, name: str) -> str:
        if name in ("relu", "relu_", "leaky_relu", "gelu", "sigmoid", "tanh", "elu", "silu", "softmax"):
            return "use a spiking neuron; a plain network without spikes is compiled from ONNX"
        if name in (
            "__bool__",
            "item",
            "tolist",
            "numpy",
            "gt",
            "lt",
            "__gt__",
            "__lt__",
            "where",
            "__float__",
        ):
            return "what the forward does may not depend on the values of the data"
        return "compute it outside of the network, or with Linear, Conv and spiking neurons"

    def value(self, thing: Any) -> Value:
        """Return how a stand-in came about; any other tensor or number is a constant."""
        if id(thing) in self.known:
            return self.known[id(thing)][1]
        tensor = thing.detach() if isinstance(thing, Tensor) else torch.as_tensor(thing)
        return Value("const", (), tuple(tensor.shape), self.where(), {"tensor": tensor})

    def knows(self, thing: object) -> bool:
        """Whether this tensor depends on the input."""
        return id(thing) in self.known

    def stand_in(self, value: Value, dtype: torch.dtype) -> Tensor:
        """Return a tensor without memory of its own that stands for `value`."""
        with torch._C.DisableTorchFunction():
            tensor = torch.full((), torch.nan if dtype.is_floating_point else 0, dtype=dtype).expand(
                value.shape
            )
        return self.mark(tensor, value)

    def mark(self, tensor: Tensor, value: Value) -> Tensor:
        """Let `tensor` stand for `value` from now on."""
        self.known[id(tensor)] = (tensor, value)
        return tensor

    def neuron(self, module: nn.Module, path: str, ports: Ports) -> Callable[..., Any]:
        """Return what stands in for the forward of a spiking neuron."""

        def forward(*args: Any, **kwargs: Any) -> Any:
            x, states = read_call(module, path, ports, args, kwargs)
            if not self.knows(x):
                x = self.mark(torch.zeros_like(x), self.value(x))
            value = self.value(x)
            chain = self._chain(module, path, ports, states, value)
            call = Call(chain, len(chain.calls), value)
            chain.calls.append(call)
            out = {
                port: self.stand_in(
                    Value("out", (), value.shape, path, {"call": call, "port": port}), x.dtype
                )
                for port in dict.fromkeys((*ports.states, "spk"))
            }
            for state in ports.states:
                setattr(module, state, out[state])
            if getattr(module, "init_hidden", False) and not getattr(module, "output", False):
                return out["spk"]
            return tuple(out[port] for port in ports.returns)

        return forward

    def _chain(
        self, module: nn.Module, path: str, ports: Ports, states: Mapping[str, Tensor], x: Value
    ) -> Chain:
        """Return the chain that this call goes on with, by where its states come from."""
        before = {name: self.known[id(s)][1] if self.knows(s) else None for name, s in states.items()}
        traced = {name: value for name, value in before.items() if value is not None}
        if not traced:
            for name, state in states.items():
                if tuple(state.shape) == x.shape and bool((state != 0).any()):
                    raise ExportError(
                        f"{path}: {name} starts at values other than 0; start from 0", node=path
                    )
            chain = Chain(module, path, x.shape[1:])
            self.chains.append(chain)
            return chain
        calls = set()
        for name in ports.states:
            value = before[name]
            if value is None or value.op != "out" or value.attrs["port"] != name:
                raise ExportError(
                    f"{path}: the {name} passed in is not the {name} that {path} returned the step before; "
                    "states may be handed on, not computed with",
                    node=path,
                )
            calls.add(value.attrs["call"])
        (call, *others) = calls
        chain = call.chain
        if others or chain.module is not module or chain.calls[-1] is not call or chain.shape != x.shape[1:]:
            raise ExportError(
                f"{path}: the states passed in belong to another layer or to a step further back; pass "
                "those of the same layer's last step",
                node=path,
            )
        return chain


@dataclass(frozen=True, eq=False)
class FunctionCall:
    """One call of a torch function on stand-ins, as its handler sees it."""

    tracer: Tracer
    func: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    def record(
        self,
        op: str,
        inputs: Sequence[Tensor],
        shape: Sequence[int] | None = None,
        replay: Callable[..., Tensor] | None = None,
        **attrs: Any,
    ) -> Tensor:
        """Return a stand-in for `op` of `inputs`; shape and replay are the function's own unless given."""
        if shape is None:
            with torch._C.DisableTorchFunction():
                shape = _on_meta(self.func, self.args, self.kwargs).shape
        values = tuple(self.tracer.value(i) for i in inputs)
        value = Value(op, values, tuple(shape), self.tracer.where(), attrs, replay or self._replay(inputs))
        return self.tracer.stand_in(value, inputs[0].dtype)

    def _replay(self, inputs: Sequence[Tensor]) -> Callable[..., Tensor]:
        place = {id(tensor): i for i, tensor in enumerate(inputs)}

        def replay(*numbers: Tensor) -> Tensor:
            def put(leaf: Any) -> Any:
                return numbers[place[id(leaf)]] if id(leaf) in place else leaf

            result: Tensor = self.func(*_mapped(self.args, put), **_mapped(dict(self.kwargs), put))
            return result

        return replay

    def refuse(self, why: str) -> ExportError:
        """Return the error of this call."""
        where = self.tracer.where()
        return ExportError(f"{where}: {why}", node=where, type=getattr(self.func, "__name__", str(self.func)))


def trace(module: nn.Module, sample: Any) -> Trace:
    """Run `module` on stand-ins of `sample` (what its forward takes) and return what it computes."""
    args = sample if isinstance(sample, tuple) else (sample,)
    x = args[0]
    if not isinstance(x, Tensor) or x.ndim < 2:
        raise ExportError(
            "the sample input must be a tensor with a batch, (batch, *shape) or (steps, batch, *shape)"
        )
    first, outputs = _run(module, args, 1)
    lengths = {len(chain.calls) for chain in first.chains}
    if not first.chains:
        raise ExportError(
            f"{type(module).__name__}: no spiking neuron was called; a plain network without spikes is "
            "compiled from ONNX"
        )
    if lengths == {1} and not first.time_axes:
        first, outputs = _run(module, args, STEPS)
        shape = tuple(x.shape[1:])
        return Trace(first.chains, outputs, STEPS, shape, True)
    steps = max(lengths)
    if steps == 1:
        raise ExportError("the sample input has a single time step; give at least 4, so that feedback shows")
    if len(first.time_axes) > 1:
        raise ExportError("the input is indexed along two different axes; one of them must be time")
    axes = first.time_axes or set()
    shape = tuple(n for i, n in enumerate(x.shape) if i not in axes)[1:]
    return Trace(first.chains, outputs, steps, shape, False)


def _run(module: nn.Module, args: tuple[Any, ...], calls: int) -> tuple[Tracer, list[Value]]:
    tracer = Tracer(module)
    results: list[list[Value]] = []
    with torch.no_grad(), _instrumented(module, tracer):
        states = args[1:]
        for step in range(calls):
            tracer.step = step
            axes = tuple(range(args[0].ndim))
            attrs = {"axes": axes, "step": step if calls > 1 else None}
            x = tracer.stand_in(Value("input", (), tuple(args[0].shape), "input", attrs), args[0].dtype)
            with tracer:
                returned = module(x, *states)
            outputs = [
                tracer.value(leaf) for leaf in _leaves(_sequences(returned, tracer)) if tracer.knows(leaf)
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
def _instrumented(root: nn.Module, tracer: Tracer) -> Iterator[None]:
    """Let every module of `root` tell where it is and neurons be leaves; undo all of it at the end."""
    modules = dict(root.named_modules())
    kept = []
    for module in modules.values():
        if isinstance(module, torch.jit.ScriptModule):
            raise ExportError(f"{type(module).__name__} is compiled by torch.jit; give the Python module")
        inner = {key: dict(module.__dict__[key]) for key in ("_parameters", "_buffers", "_modules")}
        kept.append((module, {**module.__dict__, **inner}))
    leaves: list[str] = []
    try:
        root.eval()
        for path, module in modules.items():
            if any(path.startswith(f"{leaf}.") for leaf in leaves):
                continue
            ports = neuron_ports(module, path)
            if ports is not None:
                leaves.append(path or ".")
                for state in ports.states:
                    setattr(module, state, torch.zeros(0))
                forward = tracer.neuron(module, path or type(module).__name__.lower(), ports)
            else:
                forward = _in_place(tracer, path, module.forward)
            module.__dict__["forward"] = forward
        yield
    finally:
        for module, state in kept:
            module.__dict__.clear()
            module.__dict__.update(state)


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
        finally:
            tracer.paths.pop()

    return run


def _leaves(thing: Any) -> Iterator[Any]:
    if isinstance(thing, (list, tuple)):
        for item in thing:
            yield from _leaves(item)
    elif isinstance(thing, Mapping):
        for item in thing.values():
            yield from _leaves(item)
    else:
        yield thing


def _mapped(thing: Any, change: Callable[[Any], Any]) -> Any:
    if isinstance(thing, (list, tuple)):
        return type(thing)(_mapped(item, change) for item in thing)
    if isinstance(thing, dict):
        return {key: _mapped(item, change) for key, item in thing.items()}
    return change(thing)


def _on_meta(func: Any, args: Any, kwargs: Any) -> Any:
    def away(leaf: Any) -> Any:
        return leaf.to("meta") if isinstance(leaf, Tensor) else leaf

    return func(*_mapped(args, away), **_mapped(dict(kwargs), away))
