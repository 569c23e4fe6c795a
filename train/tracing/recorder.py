"""The recorder of a trace: torch functions on stand-ins, and the calls of spiking neurons."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from snn_compile.targets.errors import ExportError
from snn_compile.train.tracing.neurons import Ports, read_call
from snn_compile.train.tracing.values import Call, Chain, Value, leaves, mapped, number

_ADVICE = (
    (
        "relu relu_ leaky_relu gelu sigmoid tanh elu silu",
        "use a spiking neuron; a plain network without spikes is compiled from ONNX",
    ),
    ("softmax log_softmax argmax", "return the spikes or membranes and compute it from them"),
    (
        "__bool__ item tolist numpy gt lt __gt__ __lt__ where __float__ __int__",
        "what the forward does may not depend on the values of the data",
    ),
)


class Tracer(TorchFunctionMode):
    """Records torch functions of stand-ins; active while the forward runs.

    `handlers` record the functions by name; those in `plain` are called as they are.
    """

    def __init__(
        self, root: nn.Module, handlers: Mapping[str, Callable[..., Any]], plain: Collection[str]
    ) -> None:
        super().__init__()
        self.handlers, self.plain = handlers, plain
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
        if not any(id(leaf) in self.known for leaf in leaves((args, kwargs))):
            return func(*args, **kwargs)
        name = getattr(func, "__name__", str(func))
        if name in self.plain:
            return func(*args, **kwargs)
        handler = self.handlers.get(name)
        if handler is None:
            raise ExportError(
                f"{self.where()}: {self._within(name)} no NIR counterpart; {self._advice(name)}",
                node=self.where(),
                type=name,
            )
        call = FunctionCall(self, func, args, kwargs)
        try:
            return handler(call, *args, **kwargs)
        except (TypeError, RuntimeError, ValueError, ArithmeticError, LookupError) as error:
            raise ExportError(
                f"{self.where()}: {name} is called in a way that is not read ({' '.join(str(error).split())})"
            ) from error

    def where(self) -> str:
        """Name the module whose forward is running."""
        path = self.paths[-1] if self.paths else ""
        return path or f"forward of {type(self.root).__name__}"

    def _within(self, name: str) -> str:
        """Return who calls a function: the module whose forward is running, where it is not the network."""
        path = self.paths[-1] if self.paths else ""
        if not path:
            return f"torch's {name} has"
        return f"{type(self.root.get_submodule(path)).__name__} calls torch's {name}, which has"

    def _advice(self, name: str) -> str:
        return next(
            (advice for names, advice in _ADVICE if name in names.split()),
            "compute it outside of the network, or with Linear, Conv and spiking neurons",
        )

    def value(self, thing: Any) -> Value:
        """Return how a stand-in came about; any other tensor or number is a constant."""
        if id(thing) in self.known:
            return self.known[id(thing)][1]
        tensor = number(thing)
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
            self.chains.append(Chain(module, path, x.shape[1:]))
            return self.chains[-1]
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
        chain: Chain = call.chain
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
                shape = (*inputs[0].shape[:1], *self.of_one(self._of_one_sample(inputs), inputs[0]))
        if 0 in shape:
            raise self.refuse(f"{self.func.__name__} leaves no values: its result has shape {tuple(shape)}")
        values = tuple(self.tracer.value(i) for i in inputs)
        value = Value(op, values, tuple(shape), self.tracer.where(), attrs, replay or self._replay(inputs))
        return self.tracer.stand_in(value, inputs[0].dtype)

    def of_one(self, made: Tensor, input: Tensor) -> tuple[int, ...]:
        """Return the shape of a sample, made of one sample of `input`; refuses what mixes up the batch."""
        if tuple(made.shape[:1]) != (1,):
            raise self.refuse(
                f"{self.func.__name__} makes {tuple(made.shape)} of one sample {tuple(input.shape[1:])}: it "
                "takes the axis of the batch for another"
            )
        return tuple(made.shape[1:])

    def _of_one_sample(self, inputs: Sequence[Tensor]) -> Tensor:
        """Call the function on a single sample of zeros, for the shape of its result."""
        places = [id(tensor) for tensor in inputs]

        def one(leaf: Any) -> Any:
            return torch.zeros(1, *leaf.shape[1:], dtype=leaf.dtype) if id(leaf) in places else leaf

        result: Tensor = self.func(*mapped(self.args, one), **mapped(dict(self.kwargs), one))
        return result

    def _replay(self, inputs: Sequence[Tensor]) -> Callable[..., Tensor]:
        place = {id(tensor): i for i, tensor in enumerate(inputs)}

        def replay(*numbers: Tensor) -> Tensor:
            def put(leaf: Any) -> Any:
                return numbers[place[id(leaf)]] if id(leaf) in place else leaf

            result: Tensor = self.func(*mapped(self.args, put), **mapped(dict(self.kwargs), put))
            return result

        return replay

    def refuse(self, why: str) -> ExportError:
        """Return the error of this call."""
        where = self.tracer.where()
        return ExportError(f"{where}: {why}", node=where, type=getattr(self.func, "__name__", str(self.func)))
