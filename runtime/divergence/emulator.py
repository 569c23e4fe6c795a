"""Run a pair in float64 and logical time, each ingredient taken from the network or from the program.

An ingredient is (item, place): a tensor of a projection ("weight") or of a population's step ("threshold" and
the other items of `neurons/*.py`), an item of a population's rule ("rule.reset"), a projection's "delay", an
input port's "input coding", a population's effect of integer arithmetic (`arithmetic.EFFECTS`), the
"flooring" of a projection's sums that are shifted right, and the program's "readout". A selection says for
each whether it is the program's: False, True, or a mask of a tensor's values.

Populations step as in the float reference (`compiler/neurons`): with nothing selected this is the reference,
with everything it is the program, bit for bit. States are in the network's units while no integer arithmetic
is selected, else in the program's.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias

import networkx as nx
import numpy as np
import numpy.typing as npt

from snn_compile.compiler.network import Population
from snn_compile.compiler.neurons.arithmetic import FLOAT
from snn_compile.compiler.neurons.base import Group
from snn_compile.compiler.reference import Wire, product, step_groups
from snn_compile.runtime.divergence.arithmetic import EFFECTS, IntegerArithmetic
from snn_compile.runtime.divergence.pair import Edge, Float, Pair, Tensor
from snn_compile.targets.devices.record import Overflow, read_out
from snn_compile.targets.errors import SnnCompileError
from snn_compile.targets.program.rule import CHOICES as RULE_CHOICES
from snn_compile.targets.program.rule import Rule

Ingredient: TypeAlias = tuple[str, str]
Chosen: TypeAlias = bool | npt.NDArray[np.bool_]


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
        return self.rest or any(item in EFFECTS for item, _ in self.effects)


NETWORK = Selection()
PROGRAM = Selection(rest=True)


@dataclass(frozen=True, eq=False)
class Emulation:
    """Messages of a run by population (batch, steps, size), in the network's units, and its read-out.

    `probes`: states of a group, such as "name.u"; "name.v" is the membrane before the reset, as it is
    compared with the threshold.
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
    wires = [_wire(edge, side, chosen, scaled) for edge in side.edges.values()]
    order = _order(side, wires)
    groups = {p.name: _group(p, side, chosen, scaled, batch) for p in side.network.populations}
    sent = {name: _encoded(name, side, chosen, scaled, data) for name, data in inputs.items()}
    states = {probe: _state(probe) for probe in probes}
    port = side.program.outputs[0] if chosen.of("readout") else _network_port(side)
    membrane = (port.population, "v")
    traced = {*states.values(), *((membrane,) if port.signal == "membrane" else ())}
    traces = {state: np.zeros((batch, steps, groups[state[0]].size)) for state in traced}
    with np.errstate(divide="ignore", invalid="ignore"):
        step_groups(groups, order, wires, sent, traces)
    traces = {(name, state): trace / groups[name].arithmetic.scale for (name, state), trace in traces.items()}
    messages = {name: sent[name] for name in groups}
    if scaled:
        messages |= {n: sent[n] / side.unit[n] for n in groups if not groups[n].spiking}
    outputs = messages[port.population]
    if port.signal == "membrane":
        outputs = traces[membrane]
        if not chosen.of("readout"):
            outputs = outputs + side.network.population(port.population).parameters["offset"]
    predictions, _ = read_out(outputs, port.readout, port.task, port.skip)
    overflows = {name: group.arithmetic.overflow for name, group in groups.items()}
    found = {probe: traces[state] for probe, state in states.items()}
    return Emulation(messages, found, overflows, outputs, predictions)


def _state(probe: str) -> tuple[str, str]:
    """Return the population and the group's state that a probe reads."""
    name, _, state = probe.rpartition(".")
    return name, "reached" if state == "v" else state


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


def _order(side: Pair, wires: list[Wire]) -> list[str]:
    """Return the populations in an order in which a step can be computed; raises Unordered."""
    graph: Any = nx.DiGraph()
    names = {p.name: i for i, p in enumerate(side.network.populations)}
    graph.add_nodes_from(names)
    graph.add_edges_from((w.source, w.target) for w in wires if w.delay == 0 and w.source in names)
    try:
        return list(nx.lexicographical_topological_sort(graph, key=names.__getitem__))
    except nx.NetworkXUnfeasible:
        raise Unordered("the mixture of delays has a cycle without delay") from None


def _encoded(name: str, side: Pair, chosen: Selection, scaled: bool, data: Float) -> Float:
    """Return an input's messages: of the program's encoding or exact, in units of messages if `scaled`."""
    unit = float(side.unit[name][0])
    if not chosen.of("input coding", name):
        return data * unit if scaled else data
    port = side.input_ports[name]
    given = side.given(name, data).reshape(*data.shape[:2], *port.shape)
    messages = port.encode(given)[0].astype(np.float64)
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


def _wire(edge: Edge, side: Pair, chosen: Selection, scaled: bool) -> Wire:
    """Return a projection with the weights and the delay of the side that is selected."""
    delay = edge.program_delay if chosen.of("delay", edge.name) else edge.network_delay
    picked = chosen.of("weight", edge.name)
    if picked is False and not scaled:
        return Wire(edge.source, edge.target, delay, partial(product, edge.network_weight), edge.port)
    rest = edge.matrix(pick(edge.weight, picked, scaled))
    parts: list[_Part] = []
    if scaled and chosen.of("flooring", edge.name) and any(edge.floors):
        width = 2.0 * side.formats.accumulator_half if chosen.of("u_wrap", edge.target) else np.inf
        # Every table but the last as it is, the last with whatever is left: exact if all are.
        for table, exponent in zip(edge.tables, edge.exponents, strict=False):
            parts.append(_Part(table, exponent < 0, width * 2.0**exponent))
            rest = rest - table
        parts.append(_Part(rest, edge.floors[-1], width * 2.0 ** edge.exponents[-1]))
    else:
        parts.append(_Part(rest))
    return Wire(edge.source, edge.target, delay, partial(_delivered, parts), edge.port)


@dataclass(frozen=True, eq=False)
class _Part:
    """Weights (target, source) of one table; a floored sum wraps around `width` before its right shift.

    Sums that are not floored need no wrap of their own: that of their total is the same.
    """

    matrix: Any
    floored: bool = False
    width: float = np.inf


def _delivered(parts: list[_Part], messages: Float) -> Float:
    """Return messages (batch, source) through tables, the sums of some of which are floored."""
    total: Any = 0.0
    for part in parts:
        values = product(part.matrix, messages)
        if part.floored:
            values = np.floor(values)
            if 2 * np.abs(values).max(initial=0.0) >= part.width:
                values = np.mod(values + part.width / 2, part.width) - part.width / 2
        total = total + values
    return np.asarray(total)


def _group(population: Population, side: Pair, chosen: Selection, scaled: bool, batch: int) -> Group:
    """Return what steps a population, with the tensors, the rule and the arithmetic that are selected."""
    name, made = population.name, side.made[population.name]
    items = [item for item, place in side.parameters if place == name]
    values = {item: pick(side.parameters[item, name], chosen.of(item, name), scaled) for item in items}
    arithmetic = FLOAT
    if scaled:
        effects = [effect for effect in EFFECTS if chosen.of(effect, name)]
        held = made.parameters if made else {}
        shift = held["message_shift"].astype(np.float64) if "message_shift" in held else None
        rates = None
        if made and "rates" in made.parameters:
            rates = made.parameters["rates"].astype(np.float64), int(made.parameters["rate_shift"][0])
        arithmetic = IntegerArithmetic(effects, side.scale[name], side.formats, shift, rates)
    rule = mixed_rule(side, name, chosen)
    group = population.kind.group(population, batch, arithmetic, values, rule)
    group.watched = False
    return group


def mixed_rule(side: Pair, name: str, chosen: Selection) -> Rule:
    """Return a population's rule, each item from the network or the program."""
    ideal, made = side.network.population(name).rule, side.made[name]
    items = {
        item: getattr(made.rule if made and chosen.of(f"rule.{item}", name) else ideal, item)
        for item in RULE_CHOICES
    }
    return Rule(**items)
