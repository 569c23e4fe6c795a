"""Run a pair in float64 and logical time, each ingredient taken from the network or from the program.

An ingredient is (item, place): a tensor of a projection ("weight") or population ("threshold", "bias",
"v_init", "v_min", "current_decay", "voltage_decay", those of `programmed.ITEMS`), an item of a population's
rule ("rule.reset"), a projection's "delay", an input port's "input coding", a population's "v_high", "v_low"
(saturation), "u_wrap", "truncation" (decays that round toward zero) and "damping_end" (of resonators), the
"flooring" of a projection's sums or a population's messages that are shifted right, and the program's
"readout". A selection says for each whether it is the
program's: False, True, or a mask of a tensor's values. With nothing selected this is the float reference;
with everything it is the program, bit for bit: float64 holds every integer that occurs, and divisions by
4096 are exact.

States are in the network's units while no integer arithmetic is selected, else in the program's.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import networkx as nx
import numpy as np
import numpy.typing as npt

from snn_compile.runtime.divergence.brf_alif import ITEMS, STATES
from snn_compile.runtime.divergence.pairing import UNIT, Edge, Float, Pair, Tensor, input_ports
from snn_compile.targets.devices.record import Overflow, read_out
from snn_compile.targets.errors import SnnCompileError
from snn_compile.targets.integer import M
from snn_compile.targets.program.rule import CHOICES as RULE_CHOICES
from snn_compile.targets.program.rule import Rule

Ingredient: TypeAlias = tuple[str, str]
Chosen: TypeAlias = bool | npt.NDArray[np.bool_]

ARITHMETIC = ("truncation", "flooring", "v_high", "v_low", "u_wrap", "damping_end")


@dataclass(frozen=True, eq=False)
class Selection:
    """Which ingredients are the program's: those of `effects`, or with `rest` all but those."""

    effects: Mapping[Ingredient, Chosen] = field(default_factory=dict)
    rest: bool = False

    def of(self, item: str, place: str = "") -> Chosen:
        """Return whether an ingredient is the program's, or for which values of a tensor."""
        chosen = self.effects.get((item, place), False)
        if not self.rest:
            return chosen
        return ~chosen if isinstance(chosen, np.ndarray) else not chosen

    @property
    def arithmetic(self) -> bool:
        """Whether any integer arithmetic is selected."""
        return self.rest or any(item in ARITHMETIC for item, _ in self.effects)


NETWORK = Selection()
PROGRAM = Selection(rest=True)


@dataclass(frozen=True, eq=False)
class Emulation:
    """What a run sent, by population (batch, steps, size), in the network's units; and its read-out.

    `probes`: "name.u", and "name.v" before the reset (what is compared with the threshold); of other than
    leaky neurons those of `programmed.PROBES`.
    """

    messages: Mapping[str, Float]
    probes: Mapping[str, Float]
    overflows: Mapping[str, Overflow]
    outputs: Float
    predictions: npt.NDArray[np.generic]


class Unordered(SnnCompileError):
    """A mixture of both sides' delays has a cycle without delay, so no step can be computed."""


def emulate(
    side: Pair, chosen: Selection, inputs: Mapping[str, Float], probes: Collection[str] = ()
) -> Emulation:
    """Run inputs (batch, steps, size) by port. Raises Unordered for delays that cannot be mixed."""
    batch, steps = next(iter(inputs.values())).shape[:2]
    scaled = chosen.arithmetic
    edges = [_Wires(edge, side, chosen, scaled) for edge in side.edges.values()]
    order = _order(side, edges)
    groups = {p.name: _group(p.name, side, chosen, scaled, batch) for p in side.network.populations}
    sent = {name: np.zeros((batch, steps, group.size)) for name, group in groups.items()}
    sent |= {name: _encoded(name, side, chosen, scaled, data) for name, data in inputs.items()}
    held = {probe: np.zeros((batch, steps, side.network.size(probe.rpartition(".")[0]))) for probe in probes}
    probed = {name: [p for p in held if p.rpartition(".")[0] == name] for name in groups}
    port = side.program.outputs[0] if chosen.of("readout") else _network_port(side)
    membrane = np.zeros((batch, steps, groups[port.population].size)) if port.signal == "membrane" else None
    arriving = {name: [wire for wire in edges if wire.edge.target == name] for name in groups}
    known = {
        wire.edge.name: wire.all_steps(sent[wire.edge.source]) for wire in edges if wire.edge.source in inputs
    }
    with np.errstate(divide="ignore", invalid="ignore"):
        for t in range(steps):
            for name in order:
                group = groups[name]
                a = group.constant
                for wire in arriving[name]:
                    if t >= wire.delay:
                        late = t - wire.delay
                        early = known.get(wire.edge.name)
                        a = a + (
                            wire.deliver(sent[wire.edge.source][:, late]) if early is None else early[:, late]
                        )
                sent[name][:, t] = group.step(a)
                for probe in probed[name]:
                    state = probe.rpartition(".")[2]
                    held[probe][:, t] = getattr(group, "reached" if state == "v" else state) / group.scale
            if membrane is not None:
                membrane[:, t] = groups[port.population].v / groups[port.population].scale
    messages = {name: sent[name] for name in groups}
    if scaled:
        messages |= {n: sent[n] / side.unit[n] for n in groups if not groups[n].spiking}
    outputs = membrane if membrane is not None else messages[port.population]
    if membrane is not None and not chosen.of("readout"):
        outputs = outputs + side.network.population(port.population).parameters["offset"]
    predictions, _ = read_out(outputs, port.readout, port.task, port.skip)
    overflows = {name: group.overflow for name, group in groups.items()}
    return Emulation(messages, held, overflows, outputs, predictions)


@dataclass(frozen=True)
class _Read:
    population: str
    signal: str
    readout: str
    task: str
    skip: int


def _network_port(side: Pair) -> _Read:
    port = side.network.outputs[0]
    read = port.readout
    return _Read(port.population, read.signal, read.readout, read.task, read.skip)


def _order(side: Pair, edges: list[_Wires]) -> list[str]:
    graph: Any = nx.DiGraph()
    names = {p.name: i for i, p in enumerate(side.network.populations)}
    graph.add_nodes_from(names)
    graph.add_edges_from(
        (w.edge.source, w.edge.target) for w in edges if w.delay == 0 and w.edge.source in names
    )
    try:
        return list(nx.lexicographical_topological_sort(graph, key=names.__getitem__))
    except nx.NetworkXUnfeasible:
        raise Unordered("the mixture of delays has a cycle without delay") from None


def _encoded(name: str, side: Pair, chosen: Selection, scaled: bool, data: Float) -> Float:
    """Return an input's messages: of the program's encoding or exact, in units of messages if `scaled`."""
    unit = float(side.unit[name][0])
    if not chosen.of("input coding", name):
        return data * unit if scaled else data
    port = input_ports(side)[name]
    messages = port.encode(data.reshape(*data.shape[:2], *port.shape))[0].astype(np.float64)
    return messages if scaled else messages / unit


def pick(tensor: Tensor, chosen: Chosen, scaled: bool) -> Float:
    """Return a tensor's values, the program's where chosen, in the program's units if `scaled`."""
    if chosen is False:
        return tensor.ideal if scaled else tensor.network
    if chosen is True:
        return tensor.kept if scaled else tensor.kept * tensor.to_network
    if scaled:
        return np.where(chosen, tensor.kept, tensor.ideal)
    return np.where(chosen, tensor.kept * tensor.to_network, tensor.network)


class _Wires:
    """One edge: what it delivers, and after how many steps."""

    def __init__(self, edge: Edge, side: Pair, chosen: Selection, scaled: bool) -> None:
        self.edge = edge
        self.delay = edge.program_delay if chosen.of("delay", edge.name) else edge.network_delay
        values = pick(edge.weight, chosen.of("weight", edge.name), scaled)
        self.parts: list[tuple[Any, bool]] = []
        rest = edge.matrix(values)
        if scaled and chosen.of("flooring", edge.name) and any(edge.floors):
            # Every table but the last as it is, the last with whatever is left: exact if all are.
            for table, floored in zip(edge.tables, edge.floors, strict=False):
                self.parts.append((table, floored))
                rest = rest - table
            self.parts.append((rest, edge.floors[-1]))
        else:
            self.parts = [(rest, False)]

    def deliver(self, messages: Float) -> Float:
        """Return messages (rows, source) through the weights: (rows, target)."""
        total: Any = 0.0
        for matrix, floored in self.parts:
            product = (
                (matrix @ messages.T).T if self.edge.sparse is not None else messages @ np.asarray(matrix).T
            )
            total = total + (np.floor(product) if floored else product)
        return np.asarray(total)

    def all_steps(self, messages: Float) -> Float:
        """Return what all steps of an input deliver at once."""
        return self.deliver(messages.reshape(-1, messages.shape[2])).reshape(*messages.shape[:2], -1)


def _group(name: str, side: Pair, chosen: Selection, scaled: bool, batch: int) -> Any:
    """Return what steps a population."""
    model = side.network.population(name).model
    if model not in STATES:
        return _Group(name, side, chosen, scaled, batch)
    values = {item: pick(side.parameters[item, name], chosen.of(item, name), scaled) for item in ITEMS[model]}
    arithmetic = [item for item in ARITHMETIC if scaled and chosen.of(item, name)]
    return STATES[model](values, arithmetic, batch, side.scale[name] if scaled else None)


class _Group:
    """The state of one population over a batch; `targets/program/rule.py` defines the step."""

    def __init__(self, name: str, side: Pair, chosen: Selection, scaled: bool, batch: int) -> None:
        ideal, made = side.network.population(name), side.made[name]
        self.size, self.spiking = ideal.size, ideal.spiking
        self.scale = side.scale[name] if scaled else 1.0
        self.synaptic = UNIT if scaled else 1
        self.rule = mixed_rule(side, name, chosen)

        def of(item: str) -> Float:
            return pick(side.parameters[item, name], chosen.of(item, name), scaled)

        # As the program has them: decays in 4096ths, thresholds in 64 units of v.
        part, lift = (4096.0, float(UNIT)) if scaled else (1.0, 1.0)
        self.keep_u, self.keep_v = part - of("current_decay"), part - of("voltage_decay")
        self.part = part
        self.bias = of("bias")
        self.threshold = of("threshold") * lift if self.spiking else None
        self.lowest = of("v_min") if self.spiking else np.full(1, -np.inf)
        self.lowest = np.where(self.lowest <= -(M - 1), -np.inf, self.lowest) if scaled else self.lowest
        self.truncated = scaled and bool(chosen.of("truncation", name))
        self.floored = scaled and bool(chosen.of("flooring", name))
        self.limits = tuple(bool(scaled and chosen.of(item, name)) for item in ("u_wrap", "v_high", "v_low"))
        shift = made.parameters["message_shift"] if made and not self.spiking else np.zeros(1, int)
        self.message = 2.0**-shift if scaled else np.ones(1)
        self.u = np.zeros((batch, self.size))
        self.v = self.u + of("v_init")
        self.reached, self.last = self.v, np.zeros_like(self.u)
        self.constant = np.zeros(1)
        self.overflow = Overflow()

    def _decayed(self, state: Float, keep: Float) -> Float:
        left: Float = state * keep / self.part
        return np.trunc(left) if self.truncated else left

    def step(self, a: Float) -> Float:
        """Advance by one logical step with synaptic input `a`; return what is sent."""
        drive = self._current(a)
        pending = self._past(self.v)
        if self.rule.reset_timing == "next_before":
            self._reset(self.last)
        self.v = self._saturated(self._decayed(self.v, self.keep_v) + drive + self.bias)
        self.reached = self.v
        if self.threshold is None:
            message = self.v * self.message
            return np.floor(message) if self.floored else message
        if self.rule.reset_timing == "next_after":
            self._reset(self.last)
            self.reached = self.v
        self.last = self._spikes(pending)
        if self.rule.reset_timing in ("same_step", "pending"):
            self._reset(self.last)
        self.v = np.maximum(self.v, self.lowest)
        if self.limits[2]:
            self.v = np.maximum(self.v, -(M - 1))
        return self.last

    def _current(self, a: Float) -> Float:
        before = self.u
        arriving = np.broadcast_to(a * self.synaptic, self.u.shape)
        early = self.rule.current_decay == "before"
        whole = (self._decayed(self.u, self.keep_u) if early else self.u) + arriving
        if self.limits[0]:
            turned = _turn(whole)
            self.overflow += Overflow(int(np.count_nonzero(turned != whole)), 0, 0)
            whole = turned
        self.u = whole if early else self._decayed(whole, self.keep_u)
        return whole if self.rule.update_order == "synapse_first" else before

    def _saturated(self, v: Float) -> Float:
        high, low = self.limits[1], self.limits[2]
        if high:
            self.overflow += Overflow(0, int(np.count_nonzero(v > M - 1)), 0)
            v = np.minimum(v, M - 1)
        if low:
            self.overflow += Overflow(0, 0, int(np.count_nonzero(v < -(M - 1))))
            v = np.maximum(v, -(M - 1))
        return v

    def _past(self, v: Float) -> npt.NDArray[np.bool_]:
        if self.threshold is None:
            return np.zeros(v.shape, bool)
        past: npt.NDArray[np.bool_] = (
            v > self.threshold if self.rule.comparison == ">" else v >= self.threshold
        )
        return past

    def _spikes(self, pending: npt.NDArray[np.bool_]) -> Float:
        assert self.threshold is not None
        late = self.rule.reset_timing == "pending"
        reached = self.v - np.where(pending, self.threshold, 0) if late else self.v
        fired = self._past(reached)
        if self.rule.spikes_per_step == "floor":
            passed = reached / self.threshold
            return np.where(
                fired, np.ceil(passed) - 1 if self.rule.comparison == ">" else np.floor(passed), 0.0
            )
        return fired.astype(np.float64)

    def _reset(self, spikes: Float) -> None:
        if self.threshold is None or self.rule.reset == "none":
            return
        if self.rule.reset == "value":
            self.v = np.where(spikes != 0, 0.0, self.v)
        else:
            self.v = self.v - spikes * self.threshold


def _turn(x: Float) -> Float:
    """Wrap a synaptic current as the chip does: to 32 bits, then one turn of 24 bits."""
    if np.abs(x).max(initial=0.0) >= 1 << 31:
        x = np.mod(x + (1 << 31), 1 << 32) - (1 << 31)
    return np.where(x > M, x - 2 * M, np.where(x <= -M, x + 2 * M, x))


def mixed_rule(side: Pair, name: str, chosen: Selection) -> Rule:
    """Return a population's rule, each item from the network or the program."""
    ideal, made = side.network.population(name).rule, side.made[name]
    items = {
        item: getattr(made.rule if made and chosen.of(f"rule.{item}", name) else ideal, item)
        for item in RULE_CHOICES
    }
    return Rule(**items)
