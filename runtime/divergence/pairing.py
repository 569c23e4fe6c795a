"""A program beside the network it should be: the same names, the same places, both in logical time.

The network is rewritten as the compiler rewrites it (biases through always-on neurons, fused thresholds,
relays for long delays); the program's device delays and start steps become logical delays,

    D = (start of source + 1 + device delay - start of target) / period,

so that both can be compared tensor by tensor, in the program's units: a weight is what one unit of message
adds to the synaptic input (64 of it are one unit of u), a threshold counts 64 units of v.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array, eye_array, issparse

from snn_compile.targets.errors import WrongInput
from snn_compile.targets.integer import DECAY_ONE, STATE_SHIFT, M, weight_step
from snn_compile.targets.program.population import Population as IntegerPopulation
from snn_compile.targets.program.program import InputPort, Program
from snn_compile.targets.program.program import Projection as IntegerProjection

if TYPE_CHECKING:
    from snn_compile.compiler.network import Network, Population, Projection

Float: TypeAlias = npt.NDArray[np.float64]
UNIT = 1 << STATE_SHIFT
PARAMETERS = ("current_decay", "voltage_decay", "threshold", "bias", "v_init", "v_min")


@dataclass(frozen=True, eq=False)
class Tensor:
    """One tensor from both sides, flat: `ideal` and `kept` in last bits' unit `lsb` of the program.

    `network` holds the network's own numbers, `to_network` turns the program's into them.
    """

    network: Float
    ideal: Float
    kept: Float
    lsb: Float
    to_network: Float

    def error_lsb(self) -> Float:
        """Return kept - ideal in last bits."""
        error: Float = (self.kept - self.ideal) / self.lsb
        return error


@dataclass(frozen=True, eq=False)
class Edge:
    """A projection from both sides; delays are logical. Weights are at `rows`, `columns`.

    `floors`: the program's tables but the last, as matrices, and for every table whether its sum is
    shifted right, which floors it.
    """

    name: str
    source: str
    target: str
    weight: Tensor
    shape: tuple[int, int]
    sparse: Any
    network_delay: int
    program_delay: int
    tables: tuple[Any, ...] = ()
    floors: tuple[bool, ...] = ()
    bits: tuple[int, ...] = ()
    top: Float | None = None
    made: IntegerProjection | None = None

    @property
    def places(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Rows (targets) and columns (sources) of the flat weights."""
        if self.sparse is None:
            rows, columns = np.indices(self.shape)
            return rows.reshape(-1), columns.reshape(-1)
        rows = np.repeat(np.arange(self.shape[0]), np.diff(self.sparse.indptr))
        return rows, self.sparse.indices.astype(np.int64)

    def matrix(self, values: npt.NDArray[Any]) -> Any:
        """Return flat values as a matrix (target, source)."""
        if self.sparse is None:
            return values.reshape(self.shape)
        return csr_array((values, self.sparse.indices, self.sparse.indptr), shape=self.shape)


@dataclass(frozen=True, eq=False)
class Pair:
    """See the file's docstring. `scale`: membrane units per unit of the network's membrane.

    `unit`: message units per unit of the network's message, a number or one a neuron. `made` holds the
    program's populations; an always-on neuron that the program lacks is None.
    """

    program: Program
    network: Network
    made: Mapping[str, IntegerPopulation | None]
    scale: Mapping[str, float]
    unit: Mapping[str, Float]
    edges: Mapping[str, Edge]
    parameters: Mapping[tuple[str, str], Tensor]

    def arriving(self, name: str) -> list[Edge]:
        """Return a population's edges."""
        return [e for e in self.edges.values() if e.target == name]

    @property
    def told(self) -> list[str]:
        """Populations that a user knows: those of the network, not always-on neurons or relays."""
        heard = {e.target for e in self.edges.values()}
        own = [p.name for p in self.network.populations if ".relay" not in p.name]
        return [n for n in own if n in heard or not n.endswith(".bias")]


def pair(program: Program, network: Network) -> Pair:
    """Lay program and network side by side; raises WrongInput where they are not the same network.

    Leaky neurons are followed here, balanced resonators and adaptive leaky neurons in `brf_alif.py`; other
    models are refused by name.
    """
    from snn_compile.compiler.lowering.simplify import simplify
    from snn_compile.runtime.divergence.brf_alif import ITEMS, tensors

    simple = simplify(network)
    if other := [p for p in simple.populations if p.model not in ("lif", "li", *ITEMS)]:
        raise WrongInput(
            f"population {other[0].name!r} is of model {other[0].model}; where a program leaves its network "
            "is found for leaky neurons, brf and alif only (snn-run --against compares the outputs of any)",
            population=other[0].name,
        )

    simple = _with_relays(program, simple)
    made = _populations(program, simple)
    scale = {name: p.scale if p else float(UNIT) for name, p in made.items()}
    unit: dict[str, Float] = {}
    ports = {port.name: port for port in program.inputs}
    for port in simple.inputs:
        found = ports.get(port.name)
        if found is None or found.shape != tuple(port.shape):
            raise _other(f"input {port.name!r} of shape {port.shape}", "no such input in the program")
        unit[port.name] = np.array([found.scale if found.kind == "graded" else 1.0])
    for name, p in made.items():
        shift = p.parameters["message_shift"] if p and not p.spiking else None
        unit[name] = (
            np.ones(1) if shift is None or p is None else np.asarray(p.scale / 2.0**shift, np.float64)
        )
    edges = _edges(program, simple, scale, unit)
    parameters: dict[tuple[str, str], Tensor] = {}
    for q in simple.populations:
        follow = tensors if q.model in ITEMS else _parameters
        parameters |= follow(q, made[q.name], scale[q.name])
    return Pair(program, simple, made, scale, unit, edges, parameters)


def _other(what: str, why: str) -> WrongInput:
    return WrongInput(f"{what}: {why}; was the program compiled from this model?")


def logical_delay(program: Program, edge: IntegerProjection) -> int:
    """Return how many logical steps after its emission a message counts."""
    late = program.start_step(edge.source) + 1 + edge.delay_steps - program.start_step(edge.target)
    return late // program.period


def _with_relays(program: Program, network: Network) -> Network:
    """Add the program's relay populations, which repeat what they hear, to the network."""
    from snn_compile.compiler.lowering.retime import repeater
    from snn_compile.compiler.network import Projection

    nodes = {p.name for p in network.nodes}
    by_name = {e.name: e for e in program.projections}
    arriving: dict[str, list[IntegerProjection]] = {}
    for e in program.projections:
        arriving.setdefault(e.target, []).append(e)
    populations, projections = list(network.populations), []
    for edge in network.projections:
        behind, left = edge.source, edge.delay_steps
        chain: list[IntegerProjection] = []
        source = by_name[edge.name].source if edge.name in by_name else edge.source
        while source not in nodes and len(arriving.get(source, ())) == 1 and ".relay" in source:
            chain.insert(0, arriving[source][0])
            source = chain[0].source
        if source != edge.source:
            raise _other(f"projection {edge.name!r}", f"it starts at {source!r}, not at {edge.source!r}")
        for hop in chain:
            taken = min(left, logical_delay(program, hop))
            shape = next(p.shape for p in program.populations if p.name == hop.target)
            relay = repeater(hop.target, shape)
            populations.append(relay)
            wire = csr_array(eye_array(relay.size))
            projections.append(Projection(hop.name, behind, relay.name, wire, taken))
            behind, left = relay.name, left - taken
        projections.append(replace(edge, source=behind, delay_steps=left))
    return replace(network, populations=tuple(populations), projections=tuple(projections))


def _populations(program: Program, network: Network) -> dict[str, IntegerPopulation | None]:
    made = {p.name: p for p in program.populations}
    if extra := made.keys() - {p.name for p in network.populations}:
        raise _other(f"populations {sorted(extra)}", "the network has none of these names")
    heard = {e.target for e in network.projections}
    found: dict[str, IntegerPopulation | None] = {}
    for p in network.populations:
        q = made.get(p.name)
        if q is None and (p.name in heard or not p.name.endswith(".bias")):
            raise _other(f"population {p.name!r}", f"the program has {sorted(made)}")
        if q is not None and (q.size, q.model) != (p.size, p.model):
            raise _other(
                f"population {p.name!r}",
                f"{p.size} neurons of model {p.model} there, {q.size} of {q.model} in the program",
            )
        found[p.name] = q
    return found


def _edges(
    program: Program, network: Network, scale: Mapping[str, float], unit: Mapping[str, Float]
) -> dict[str, Edge]:
    made = {e.name: e for e in program.projections}
    found = {}
    for e in network.projections:
        q = made.get(e.name)
        if q is not None and (q.source, q.target) != (e.source, e.target):
            raise _other(f"projection {e.name!r}", f"it joins {q.source!r} to {q.target!r} in the program")
        found[e.name] = _edge(program, e, q, scale[e.target] / UNIT, unit[e.source])
    if extra := made.keys() - found.keys():
        raise _other(f"projections {sorted(extra)}", "the network has none of these names")
    return found


def _edge(program: Program, e: Projection, q: IntegerProjection | None, gain: float, unit: Float) -> Edge:
    tables = [table.weights.astype(np.float64) * 2.0**table.exponent for table in q.tables] if q else []
    total: Any = sum(tables[1:], tables[0]) if tables else None
    sparse = issparse(e.weight) or issparse(total)
    if not sparse:
        kept = np.zeros(e.weight.size) if total is None else np.asarray(total).reshape(-1)
        network = np.asarray(e.weight, np.float64).reshape(-1)
        structure, columns = None, np.tile(np.arange(e.weight.shape[1]), e.weight.shape[0])
    else:
        # Real and imaginary parts keep the places that either side has.
        both = csr_array(e.weight).astype(np.complex128)
        both = both if total is None else csr_array(both + 1j * csr_array(total))
        both.sort_indices()
        network, kept, structure, columns = both.data.real.copy(), both.data.imag.copy(), both, both.indices
    per_message = np.broadcast_to(unit, (e.weight.shape[1],))[columns] if unit.size > 1 else unit
    ideal = network * gain / per_message
    rows = np.repeat(
        np.arange(e.weight.shape[0]), e.weight.shape[1] if structure is None else np.diff(structure.indptr)
    )
    lsb, top = _weight_formats(q, ideal, rows)
    weight = Tensor(network, ideal, kept, lsb, per_message / gain)
    delay = logical_delay(program, q) if q else e.delay_steps
    return Edge(
        e.name,
        e.source,
        e.target,
        weight,
        (int(e.weight.shape[0]), int(e.weight.shape[1])),
        structure,
        e.delay_steps,
        delay,
        tuple(tables[:-1]),
        tuple(table.exponent < 0 for table in q.tables) if q else (),
        tuple(table.bits for table in q.tables) if q else (),
        top,
        q,
    )


def _weight_formats(
    q: IntegerProjection | None, ideal: Float, rows: npt.NDArray[np.int64]
) -> tuple[Float, Float]:
    """Return each weight's last bit and the largest magnitude its tables hold together.

    A table without any weight of a target is not that target's, unless no table has one.
    """
    lsb, top = np.full(ideal.shape, np.inf), np.zeros(ideal.shape)
    tables = q.tables if q else ()
    own = np.array([table.fan_in > 0 for table in tables]).reshape(len(tables), -1)
    own = own | ~own.any(axis=0)
    for table, covers in zip(tables, own, strict=True):
        step = weight_step(table.bits, table.sign_mode) * 2.0**table.exponent
        sign = {"mixed": 0, "excitatory": 1, "inhibitory": -1}[table.sign_mode]
        fits = covers[rows] & (np.full(ideal.shape, True) if sign == 0 else sign * ideal >= 0)
        lsb = np.where(fits, np.minimum(lsb, step), lsb)
        high = 256 * 2.0**table.exponent
        top = np.where(fits, top + np.where((ideal < 0) & (sign == 0), high, high - step), top)
    finite = lsb[np.isfinite(lsb)]
    return np.where(np.isfinite(lsb), lsb, finite.min() if finite.size else 1.0), top


def _parameters(p: Population, q: IntegerPopulation | None, scale: float) -> dict[tuple[str, str], Tensor]:
    """Return the tensors of a population; without a program's side both are the network's."""

    def tensor(item: str, gain: float, kept: Any, lsb: float = 1.0) -> None:
        network = np.broadcast_to(p.parameters[item], (p.size,))
        ideal = network * gain
        if item == "v_min":
            ideal = np.maximum(ideal, -(M - 1))
        same = ideal if kept is None else np.broadcast_to(np.asarray(kept, np.float64), (p.size,))
        found[item, p.name] = Tensor(network, ideal, same, np.full(p.size, lsb), np.full(p.size, 1 / gain))

    found: dict[tuple[str, str], Tensor] = {}
    r = q.parameters if q else None
    tensor("current_decay", DECAY_ONE, r and r["du"].astype(np.float64) + 1)
    tensor("voltage_decay", DECAY_ONE, r and r["dv"])
    exponent = int(r["bias_exp"].max()) if r else 0
    tensor("bias", scale, q.bias if q else None, 2.0**exponent)
    tensor("v_init", scale, r and r["v_init"])
    if p.spiking:
        tensor("threshold", scale / UNIT, r and r["vth"])
        tensor("v_min", scale, r and r["v_min"])
    return found


def input_ports(side: Pair) -> dict[str, InputPort]:
    """Return the program's input ports by name."""
    return {port.name: port for port in side.program.inputs}
