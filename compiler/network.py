"""The Network: populations and projections in float64 and logical time, nothing left open.

Logical time is the framework's time: within a step a population receives the output of its sources in the
same step if the logical delay of the edge is 0, and of D steps ago if it is D. One step of a population with
synaptic input x:

    u = (1 - current_decay) * u + x + input_bias
    v = (1 - voltage_decay) * v + u + bias
    s = v > threshold  (or >=),  then the reset and the lower clip v_min

or in the order of the population's rule (`targets.Rule`). A leaky integrator (`li`) never spikes; it sends
its membrane. The files of `neurons/` hold the equations of every model.

Gains are folded into the incoming weights. Weights are (target, source) over flattened neurons in C
order, an array or, where most are zero, a scipy.sparse.csr_array. Reset "value" resets to 0: a graph's
v_reset is removed by shifting v by `offset`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod
from typing import Any, TypeAlias

import networkx as nx
import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array, issparse

from snn_compile.compiler.contract.contract import Contract, Readout
from snn_compile.compiler.contract.unheld import Assumption, assumed_items
from snn_compile.compiler.neurons.base import NeuronModel
from snn_compile.compiler.neurons.models import neuron_model
from snn_compile.targets.errors import AmbiguousConvention, CompileError
from snn_compile.targets.program.digest import content_digest, encode
from snn_compile.targets.program.rule import CHOICES as RULE_CHOICES
from snn_compile.targets.program.rule import Rule

Float = npt.NDArray[np.float64]
Weight: TypeAlias = Any
"""A float64 matrix (target, source): an array or a csr_array, which has no type stubs."""

SPARSE_BELOW = 0.25
"""Matrices with a smaller fraction of non-zero weights are kept sparse, from `SPARSE_FROM` entries on."""

SPARSE_FROM = 4096


def _frozen(value: npt.ArrayLike, where: str, unbounded: bool = False) -> Float:
    array = np.array(value, np.float64)
    if not (np.isfinite(array) | (unbounded & (array == -np.inf))).all():
        first = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise CompileError(
            f"{where} holds {array[first]} at index {first}; every value must be finite",
            where=where,
            index=first,
        )
    array.flags.writeable = False
    return array


def weight_values(weight: Weight) -> Float:
    """Return the stored values of a dense or sparse weight."""
    values: Float = weight.data if issparse(weight) else np.asarray(weight)
    return values


def with_values(weight: Weight, values: npt.NDArray[Any]) -> Any:
    """Return a weight with the same sparsity and other stored values."""
    if issparse(weight):
        return csr_array((values, weight.indices, weight.indptr), shape=weight.shape)
    return values


def stored(weight: Weight, where: str) -> Weight:
    """Return a checked, read-only weight, sparse or dense by its fraction of non-zero values."""
    if not issparse(weight):
        array = _frozen(weight, where)
        if array.size < SPARSE_FROM or np.count_nonzero(array) >= SPARSE_BELOW * array.size:
            return array
        weight = csr_array(array)
    table = csr_array(weight, dtype=np.float64, copy=True)
    table.sum_duplicates()
    if table.shape[0] * table.shape[1] < SPARSE_FROM or table.nnz >= SPARSE_BELOW * np.prod(table.shape):
        return _frozen(table.toarray(), where)
    table.data = _frozen(table.data, where)
    return table


@dataclass(frozen=True, eq=False)
class Population:
    """Neurons of one model; parameters are float64 of shape (1,) or (size,).

    `fixed_scale`: threshold units of the chip per unit of the membrane, for populations whose values are
    the chip's integers already; None lets `quantize` choose. `weight_bits`: width of the weight tables into
    such a population, if known. `copies`: the population whose neurons these are once more, with the same
    incoming projections in the same order, to send something else.
    """

    name: str
    shape: tuple[int, ...]
    model: str
    parameters: Mapping[str, Float]
    reset: str = "value"
    comparison: str = ">"
    reset_timing: str = "same_step"
    spikes_per_step: str = "one"
    update_order: str = "synapse_first"
    current_decay: str = "before"
    fixed_scale: float | None = None
    weight_bits: int | None = None
    copies: str = field(default="", metadata={"later": True})

    def __post_init__(self) -> None:
        self.rule  # noqa: B018 - checks its words
        kind = self.kind
        if self.fixed_scale is not None and not 0 < self.fixed_scale < np.inf:
            raise CompileError(f"population {self.name!r}: a fixed scale of {self.fixed_scale}")
        if kind.sends_numbers and self.fixed_scale is None:
            raise CompileError(f"population {self.name!r}: {self.model} neurons need a fixed scale")
        given = {**{key: np.array([value]) for key, value in kind.defaults.items()}, **self.parameters}
        if set(given) != set(kind.parameters):
            raise CompileError(
                f"population {self.name!r}: parameters {sorted(self.parameters)}; model "
                f"{self.model} has {sorted(kind.parameters)}"
            )
        frozen = {key: self._checked(key, given[key]) for key in kind.parameters}
        object.__setattr__(self, "parameters", frozen)
        for key in kind.decays:
            low, high = float(frozen[key].min()), float(frozen[key].max())
            if low < 0 or high > 1:
                raise CompileError(
                    f"population {self.name!r}: {key} is {low if low < 0 else high:g} per "
                    "step; dt must not exceed the time constant (0 to 1 is possible)",
                    population=self.name,
                )

    def _checked(self, key: str, value: npt.ArrayLike) -> Float:
        """Return a parameter as a read-only array of one value, or one per neuron."""
        array = _frozen(value, f"{key} of {self.name!r}", key == "v_min")
        array = np.atleast_1d(array).reshape(-1)
        if array.size not in (1, self.size):
            raise CompileError(
                f"population {self.name!r}: {key} has {array.size} values for {self.size} neurons"
            )
        if array.size > 1 and (array == array[0]).all():
            array = array[:1]
        array.flags.writeable = False
        return array

    @property
    def kind(self) -> NeuronModel:
        """What the compiler knows of the neurons' model."""
        return neuron_model(self.model)

    @property
    def size(self) -> int:
        """Number of neurons."""
        return prod(self.shape)

    @property
    def spiking(self) -> bool:
        """Whether the population emits spikes."""
        return self.kind.spiking

    @property
    def graded(self) -> bool:
        """Whether messages carry a number: several spikes per step, a membrane, or a change."""
        return not self.spiking or self.spikes_per_step != "one" or self.kind.sends_numbers

    @cached_property
    def rule(self) -> Rule:
        """The rule of the neurons' step."""
        return Rule(**{item: getattr(self, item) for item in RULE_CHOICES})


@dataclass(frozen=True, eq=False)
class Projection:
    """An edge with a weight matrix (target, source) and a logical delay in steps.

    `port`: which of the inputs that its target's model takes apart it reaches.
    """

    name: str
    source: str
    target: str
    weight: Weight
    delay_steps: int = 0
    port: int = field(default=0, metadata={"later": True})

    def __post_init__(self) -> None:
        object.__setattr__(self, "weight", stored(self.weight, f"the weight of {self.name!r}"))

    @property
    def values(self) -> Float:
        """The stored weights: all of an array, the non-zero ones of a sparse matrix."""
        return weight_values(self.weight)


@dataclass(frozen=True)
class Port:
    """An input of the network, or an output that reads `population`.

    `fixed_scale`: messages per unit of an input whose encoding is settled already, of `message_bits` bits
    and a sign if `signed`; no bits mean spikes. None lets `quantize` choose.
    `host_gain`: where the host multiplies an input by this number and writes whole numbers into the chip, as
    lava-dl's does; the network then receives the product. 0: the input enters as it is.
    """

    name: str
    shape: tuple[int, ...] = ()
    population: str = ""
    readout: Readout = field(default_factory=Readout)
    fixed_scale: float | None = None
    message_bits: int = 0
    signed: bool = False
    host_gain: float = field(default=0.0, metadata={"later": True})


@dataclass(frozen=True, eq=False)
class Network:
    """A network whose discretisation is resolved; `decided` records how, by item.

    `assumptions` are items that the file did not hold, and that took the default of its exporter.
    """

    populations: tuple[Population, ...]
    projections: tuple[Projection, ...]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    contract: Contract
    decided: Mapping[str, str] = field(default_factory=dict)
    source_digest: str = ""
    assumptions: tuple[Assumption, ...] = ()

    def __post_init__(self) -> None:
        if not self.inputs or not self.outputs:
            raise CompileError("the graph needs at least one Input and one Output node")
        names = [p.name for p in self.nodes]
        if len(set(names)) != len(names):
            raise CompileError("two populations or inputs share a name")
        for edge in self.projections:
            shape = (self.size(edge.target), self.size(edge.source))
            if edge.weight.shape != shape:
                raise CompileError(
                    f"projection {edge.name!r}: the weight is {edge.weight.shape}, its "
                    f"ends {edge.source!r} and {edge.target!r} need {shape}"
                )
            if not 0 <= edge.port < (ports := self.population(edge.target).kind.group.ports):
                raise CompileError(
                    f"projection {edge.name!r} reaches port {edge.port}; {edge.target!r} has {ports}"
                )
        self.order  # noqa: B018 - a cycle without delay is found here

    @property
    def assumed(self) -> dict[str, Any]:
        """What was assumed of the file's exporter, by item: a value, or values by node where they differ."""
        return assumed_items(self.assumptions)

    @property
    def nodes(self) -> tuple[Population | Port, ...]:
        """Everything that can be a projection's source: populations, then inputs."""
        return (*self.populations, *self.inputs)

    @cached_property
    def _by_name(self) -> dict[str, Population | Port]:
        return {p.name: p for p in self.nodes}

    @property
    def fixed(self) -> bool:
        """Whether every population's scale is fixed."""
        return all(p.fixed_scale is not None for p in self.populations)

    @cached_property
    def relays(self) -> tuple[Population, ...]:
        """Populations without memory that send what they receive, each behind those that it receives from."""
        found: dict[str, Population] = {}
        left = {p.name: p for p in self.populations if p.kind.relays}
        while left:
            ready = [p for p in left.values() if not any(e.source in left for e in self.incoming(p.name))]
            found |= {p.name: p for p in ready or left.values()}
            left = {name: p for name, p in left.items() if name not in found}
        return tuple(found.values())

    def population(self, name: str) -> Population:
        """Return a population by name."""
        return next(p for p in self.populations if p.name == name)

    @property
    def originals(self) -> list[Projection]:
        """The projections with weights of their own: copied populations repeat those of others."""
        copies = {p.name for p in self.populations if p.copies}
        return [e for e in self.projections if e.target not in copies]

    def incoming(self, name: str) -> list[Projection]:
        """Return the projections that reach a population."""
        return [e for e in self.projections if e.target == name]

    def size(self, name: str) -> int:
        """Return the number of neurons of a population, or of channels of an input."""
        return prod(self._by_name[name].shape)

    @cached_property
    def order(self) -> tuple[str, ...]:
        """Names of the populations in an order in which a step can be computed."""
        graph = nx.DiGraph()
        graph.add_nodes_from(p.name for p in self.populations)
        graph.add_edges_from(
            (e.source, e.target) for e in self.projections if e.delay_steps == 0 and e.source in graph
        )
        try:
            rank = {p.name: i for i, p in enumerate(self.populations)}
            return tuple(nx.lexicographical_topological_sort(graph, key=rank.__getitem__))
        except nx.NetworkXUnfeasible:
            cycle = [a for a, _ in nx.find_cycle(graph)]
            back = next(
                e for e in self.projections if (e.source, e.target, e.delay_steps) == (cycle[-1], cycle[0], 0)
            )
            nodes = back.name.split("/")  # of a graph's projection, the way it takes
            example = f", for example delays={nodes[0]}:{nodes[1]}:1" if len(nodes) > 1 else ""
            raise AmbiguousConvention(
                f"the cycle {' -> '.join([*cycle, cycle[0]])} has no delay, so no step can be computed; "
                f"state the delay of one of its edges with --convention delays=SOURCE:TARGET:STEPS{example}",
                missing={"delays": ("1",)},
                cycle=cycle,
            ) from None

    def digest(self) -> str:
        """Return the SHA-256 of the network's content."""
        # Delays are keyed by edges, which JSON cannot be; they stand in the projections anyway.
        plain = replace(self.contract, delays={})
        body, arrays = encode([self.populations, self.projections, self.inputs, self.outputs, plain])
        return content_digest(body, arrays)
