"""One step of a network as a NIR graph: layers become nodes, signals of earlier steps delays.

linear           Linear, or Affine with a bias         avgpool    AvgPool2d; of one dimension a Conv1d
conv             Conv1d, Conv2d                        reshape    Flatten
batchnorm        folded into the layer before it,      scale      Scale
                 else an Affine or 1x1 convolution     concat     a Linear per part, that puts it in its place
maxpool          of binary spikes SumPool2d and Threshold at 0.5, as the maximum is whether there is any;
                 of other numbers the extension node MaxPool
add              edges into the same node              a neuron's recurrent layer: a node of its own, delay 1
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import nir
import numpy as np
import torch
from torch import Tensor, nn

from snn_compile.compiler.contract.contract import Contract, Readout, attach
from snn_compile.targets.errors import ExportError
from snn_compile.train.export.nodes import convolution_node, linear_node, numbers
from snn_compile.train.export.probed import probed_neuron
from snn_compile.train.export.snntorch import neuron, spread
from snn_compile.train.tracing.fold import Step, delay, signals
from snn_compile.train.tracing.values import Chain, Value

Source = tuple[str, int]
"""A node and the delay in steps at which it is read."""

LAYERS: dict[str, Callable[[GraphBuilder, Value, int], list[Source]]] = {}
"""Converters of traced operations by name; `layers.py` registers them."""


class GraphBuilder:
    """Grows the graph of one step; `graph()` returns it with its contract."""

    def __init__(self, step: Step, module: nn.Module, dt: float, time_unit: str) -> None:
        self.step, self.dt, self.time_unit = step, dt, time_unit
        self.modules = dict(module.named_modules())
        self.nodes: dict[str, Any] = {"input": nir.Input({"input": np.array(step.input_shape)})}
        self.edges: list[tuple[str, str]] = []
        self.delays: dict[tuple[str, str], int] = {}
        self.names: dict[int, str] = {}
        self.built: dict[Any, list[Source]] = {}
        self.rules: dict[str, Mapping[str, Any]] = {}
        self.readouts: dict[str, Readout] = {}
        self.amplified: dict[int, str] = {}
        self.taken = {"input", "output"}

    def graph(self) -> Any:
        """Build and return the graph."""
        for chain in self.step.populations:
            self.names[id(chain)] = self.name(chain.path, "neuron")
        fires = self._used("spk")
        for chain in self.step.populations:
            self._population(chain, id(chain) in fires)
        for number, returned in enumerate(self.step.returned):
            self._output(returned.value, returned.readout, number)
        graph = nir.NIRGraph(nodes=self.nodes, edges=self.edges)
        attach(graph, self._contract())
        return graph

    def name(self, path: str, kind: str) -> str:
        """Return a free name from a module's path; numbers get the module's class before them."""
        head, _, tail = path.rpartition(".")
        if not path or " " in path:
            tail = kind
        elif tail.isdigit():
            tail = (
                f"{type(self.modules[path]).__name__.lower()}_{tail}"
                if path in self.modules
                else f"{kind}_{tail}"
            )
        base = f"{head}.{tail}" if head else tail
        found, count = base, 1
        while found in self.taken:
            count += 1
            found = f"{base}_{count}"
        self.taken.add(found)
        return found

    def _used(self, port: str) -> set[int]:
        """Return the populations of which something reads `port`."""
        values = [self.step.input_of(chain) for chain in self.step.populations]
        found = signals_of([*values, *(r.value for r in self.step.returned)])
        own = {
            id(c)
            for c in self.step.populations
            if port == "spk" and c.identified is None and hasattr(c.module, "recurrent")
        }
        return own | {id(v.attrs["call"].chain) for v in found if v.op == "out" and v.attrs["port"] == port}

    def _population(self, chain: Chain, fires: bool) -> None:
        name, path = self.names[id(chain)], chain.path
        if chain.identified is not None:
            made = probed_neuron(chain.identified, path, self.dt)
        else:
            made = neuron(chain.module, path, chain.shape, self.dt, fires)
        incoming = self.sources(self.step.input_of(chain), self.step.last)
        self.nodes[name] = made.node
        if made.rule:
            self.rules[name] = made.rule
        self.connect(incoming, name)
        if made.recurrent is not None:
            spikes = self._amplified(chain) if graded(chain) else name
            back = self.name(f"{name}_recurrent", "recurrent")
            self.nodes[back] = _recurrent(made.recurrent, chain.shape, path)
            self.connect([(spikes, 1)], back)
            self.connect([(back, 0)], name)

    def _amplified(self, chain: Chain) -> str:
        """Return the node that gives a population's spikes their weight."""
        if id(chain) not in self.amplified:
            factor = spread(amplitude_of(chain), chain.shape, chain.path, "graded_spikes_factor")
            name = self.name(f"{self.names[id(chain)]}_amplitude", "amplitude")
            self.nodes[name] = nir.Scale(scale=factor)
            self.amplified[id(chain)] = name
            self.connect([(self.names[id(chain)], 0)], name)
        return self.amplified[id(chain)]

    def connect(self, sources: Sequence[Source], target: str) -> None:
        """Add edges into `target`; a second edge from the same node goes through a Scale of 1."""
        for node, steps in sources:
            if (node, target) in self.edges:
                relay = self.name(f"{node}_again", "relay")
                self.nodes[relay] = nir.Scale(scale=np.ones(self.shape_of(node)))
                self.connect([(node, steps)], relay)
                node, steps = relay, 0
            self.edges.append((node, target))
            if steps:
                self.delays[node, target] = steps

    def shape_of(self, node: str) -> tuple[int, ...]:
        """Return the shape of a node's output."""
        return tuple(int(n) for n in np.atleast_1d(self.nodes[node].output_type["output"]))

    def sources(self, value: Value, t: int) -> list[Source]:
        """Return the nodes whose sum is `value` at step `t`, building those that are missing."""
        key = self._key(value, t)
        if key not in self.built:
            self.built[key] = self._sources(value, t)
        return self.built[key]

    def _key(self, value: Value, t: int) -> Any:
        if value.op == "out":
            return ("out", id(value.attrs["call"].chain), value.attrs["port"], delay(value, t))
        if value.op in ("slice", "input"):
            return ("input", delay(value, t))
        settings = tuple((k, id(v) if isinstance(v, Tensor) else str(v)) for k, v in value.attrs.items())
        return (value.op, value.shape, settings, tuple(self._key(arg, t) for arg in value.args))

    def _sources(self, value: Value, t: int) -> list[Source]:
        if value.op == "out":
            return [(self._signal(value), delay(value, t))]
        if value.op in ("slice", "input"):
            return [("input", delay(value, t))]
        if value.op == "const":
            if bool(value.attrs["tensor"].any()):
                raise ExportError(
                    f"{value.path}: adds a constant; give it as the bias of a Linear layer", node=value.path
                )
            return []
        if value.op == "add":
            return self._sum(value, t)
        new_axis = value.op == "stack" and len(value.args) == 1 and value.attrs["axis"] > 0
        op = "reshape" if new_axis else value.op
        if op not in LAYERS:
            raise ExportError(
                f"{value.path}: a {value.op} has no NIR counterpart inside the network, only as its output",
                node=value.path,
            )
        return LAYERS[op](self, value, t)

    def _signal(self, value: Value) -> str:
        chain = value.attrs["call"].chain
        if value.attrs["port"] != "spk":
            raise ExportError(
                f"{chain.path}: its {value.attrs['port']} feeds another layer; only spikes travel "
                "between layers, states can be returned",
                node=chain.path,
            )
        return self._amplified(chain) if graded(chain) else self.names[id(chain)]

    def _sum(self, value: Value, t: int) -> list[Source]:
        """Return the sources of all terms; a constant goes into a linear term, a term twice into a Scale."""
        constants = [v for v in value.args if v.op == "const"]
        terms = [v for v in value.args if v.op != "const"]
        found: dict[Source, int] = {}
        for term in self._with_bias(terms, constants, value):
            for item in self.sources(term, t):
                found[item] = found.get(item, 0) + 1
        result = []
        for (node, steps), count in found.items():
            if count > 1:
                times = self.name(f"{node}_times", "times")
                self.nodes[times] = nir.Scale(scale=np.full(self.shape_of(node), float(count)))
                self.connect([(node, steps)], times)
                node, steps = times, 0
            result.append((node, steps))
        return result

    def _with_bias(self, terms: list[Value], constants: Sequence[Value], value: Value) -> list[Value]:
        if not constants:
            return terms
        zeros = torch.zeros(value.shape[1:], dtype=torch.float64)
        total = sum((v.attrs["tensor"].double() for v in constants), zeros)
        total = total.reshape(-1, *value.shape[1:])
        for i, term in enumerate(terms):
            if term.op == "linear" and total.ndim == 2 and bool((total == total[0]).all()):
                bias = term.attrs["bias"]
                bias = total[0] if bias is None else total[0] + bias.double()
                attrs = {**term.attrs, "bias": bias}
                return [*terms[:i], Value("linear", term.args, term.shape, term.path, attrs), *terms[i + 1 :]]
        offset = numbers(total[0], value.path, "constant")
        if not bool((total == total[0]).all()):
            raise ExportError(
                f"{value.path}: adds another constant to each sample of a batch", node=value.path
            )
        attrs = {"bias": total[0], "function": "offset"}
        rest = Value("add", tuple(terms), value.shape, value.path) if len(terms) > 1 else terms[0]
        return [Value("map", (rest,), value.shape, value.path, attrs, lambda x: x + torch.as_tensor(offset))]

    def binary(self, value: Value) -> bool:
        """Whether a value is spikes of 0 and 1."""
        if value.op in ("reshape", "maxpool", "stack"):
            return self.binary(value.args[0])
        if value.op != "out" or value.attrs["port"] != "spk":
            return False
        return not graded(value.attrs["call"].chain)

    def _output(self, value: Value, readout: str | None, number: int) -> None:
        name = "output" if number == 0 else self.name("output", "output")
        if number and value.op == "out" and value.attrs["port"].startswith(("syn", "state")):
            return
        if value.op == "out" and value.attrs["port"] == "mem":
            signal, found = (
                "membrane",
                [(self.names[id(value.attrs["call"].chain)], delay(value, self.step.last))],
            )
        else:
            found = self.sources(value, self.step.last)
            signal = "spikes" if self.binary(value) else "membrane"
        if not found:
            raise ExportError("the output does not depend on the input")
        self.nodes[name] = nir.Output({"output": np.array(value.shape[1:])})
        self.connect(found, name)
        self.readouts[name] = Readout(
            signal, readout or ("count" if signal == "spikes" else "mean"), "classify"
        )

    def _contract(self) -> Contract:
        rules = [{key: rule[key] for key in _RULE} for rule in self.rules.values() if "reset" in rule]
        common: dict[str, Any] = max(rules, key=rules.count, default={})
        others = {name: dict(rule) for name, rule in self.rules.items() if rule != common}
        return Contract(
            dt=self.dt,
            time_unit=self.time_unit,
            rule="euler",
            **common,
            update_order="synapse_first",
            current_decay="before",
            delays=self.delays,
            readouts=self.readouts,
            nodes=others,
            presented_steps=self.step.presented,
        )


_RULE = ("reset", "reset_timing", "comparison")


def amplitude_of(chain: Chain) -> Any:
    """Return what a population's spikes weigh."""
    if chain.identified is not None:
        return chain.identified.parameters["amplitude"]
    return chain.module.graded_spikes_factor


def graded(chain: Chain) -> bool:
    """Whether a population's spikes weigh anything but 1."""
    return not bool((torch.as_tensor(amplitude_of(chain)) == 1).all())


def signals_of(values: Sequence[Value]) -> list[Value]:
    """Return the signals of several expressions."""
    return [signal for value in values for signal in signals(value)]


def _recurrent(module: nn.Module, shape: tuple[int, ...], path: str) -> Any:
    if isinstance(module, nn.Linear):
        return linear_node(module.weight, module.bias, f"{path}.recurrent")
    if isinstance(module, nn.Conv2d):
        settings = {key: getattr(module, key) for key in ("stride", "padding", "dilation", "groups")}
        return convolution_node(module.weight, module.bias, shape, settings, f"{path}.recurrent")
    weight: Any = getattr(module, "V", None)
    if weight is None:
        raise ExportError(
            f"{path}: its recurrent layer is a {type(module).__name__}; use Linear or Conv2d", node=path
        )
    scale = numbers(torch.as_tensor(weight), f"{path}.recurrent", "V")
    return nir.Scale(scale=np.array(np.broadcast_to(scale, shape)))
