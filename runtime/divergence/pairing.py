"""Lay a program beside the network it was compiled from: the same names and places, both in logical time.

The network is rewritten as the compiler rewrites it (biases through always-on neurons, fused thresholds,
relays for long delays); the program's device delays and start steps become logical delays,

    D = (start of source + 1 + device delay - start of target) / period,

so that both can be compared tensor by tensor, in the program's units: a weight is what one unit of message
adds to the synaptic input (64 of it are one unit of u), a threshold counts 64 units of v.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array, eye_array, issparse

from snn_compile.compiler.neurons.models import neuron_model
from snn_compile.compiler.neurons.relay import RELAYS
from snn_compile.runtime.divergence.neurons.models import MODELS
from snn_compile.runtime.divergence.pair import Edge, Float, Pair, Tensor
from snn_compile.targets.errors import WrongInput
from snn_compile.targets.integer import weight_step
from snn_compile.targets.program.population import Population as IntegerPopulation
from snn_compile.targets.program.program import Program
from snn_compile.targets.program.program import Projection as IntegerProjection

if TYPE_CHECKING:
    from snn_compile.compiler.network import Network, Projection


def pair(program: Program, network: Network) -> Pair:
    """Lay program and network side by side.

    Raises WrongInput where they are not the same network, or for a population of a model that the files of
    `neurons/` do not know.
    """
    from snn_compile.compiler.lowering.fan_in import relieve_fan_in
    from snn_compile.compiler.lowering.simplify import simplify

    simple = simplify(network)
    if {p.name for p in program.populations} - {p.name for p in simple.populations}:
        bits = str(program.provenance.get("weight_bits", ""))
        simple = relieve_fan_in(simple, program.target, int(bits) if bits.isdecimal() else 8).network
    if other := [p for p in simple.populations if p.model not in MODELS]:
        *most, last = sorted(
            name for name in MODELS if name not in RELAYS and not neuron_model(name).sends_state
        )
        raise WrongInput(
            f"population {other[0].name!r} is of model {other[0].model}; diverge supports "
            f"{', '.join(most).upper()} and {last.upper()} populations (snn-run --against compares the "
            "outputs of any model)",
            population=other[0].name,
        )
    simple = _with_relays(program, simple)
    made = _populations(program, simple)
    formats = program.formats
    scale = {name: p.scale if p else float(formats.threshold_unit) for name, p in made.items()}
    unit: dict[str, Float] = {}
    ports = {port.name: port for port in program.inputs}
    for port in simple.inputs:
        found = ports.get(port.name)
        if found is None or found.shape != tuple(port.shape):
            raise _other(f"input {port.name!r} of shape {port.shape}", "no such input in the program")
        own = found.scale if found.kind == "graded" else 1.0
        unit[port.name] = np.array([own / (port.host_gain or 1.0)])
    relays = {q.name for q in simple.populations if q.kind.relays}
    for name, p in made.items():
        shift = p.parameters.get("message_shift") if p and not p.spiking else None
        unit[name] = np.ones(1)
        if p and (shift is not None or name in relays):
            unit[name] = np.asarray(p.scale / 2.0 ** (0 if shift is None else shift), np.float64).reshape(-1)
    # The input of a relay is in units of its message.
    gains = {n: own / (1 if n in relays else formats.threshold_unit) for n, own in scale.items()}
    edges = _edges(program, simple, gains, unit)
    parameters = {
        (item, q.name): tensor
        for q in simple.populations
        for item, tensor in MODELS[q.model].tensors(q, made[q.name], scale[q.name], formats).items()
    }
    return Pair(program, simple, made, scale, unit, edges, parameters)


def _other(what: str, why: str) -> WrongInput:
    return WrongInput(f"{what}: {why}; was the program compiled from this model?")


def logical_delay(program: Program, edge: IntegerProjection) -> int:
    """Return how many logical steps after its emission a message counts."""
    late = program.start_step(edge.source) + 1 + edge.delay_steps - program.start_step(edge.target)
    return late // program.period


def _with_relays(program: Program, network: Network) -> Network:
    """Add the program's relay populations, which repeat their input, to the network."""
    from snn_compile.compiler.lowering.retime import repeater
    from snn_compile.compiler.network import Projection

    nodes = {p.name for p in network.nodes}
    by_name = {e.name: e for e in program.projections}
    incoming: dict[str, list[IntegerProjection]] = {}
    for e in program.projections:
        incoming.setdefault(e.target, []).append(e)
    populations, projections = list(network.populations), []
    for edge in network.projections:
        behind, left = edge.source, edge.delay_steps
        chain: list[IntegerProjection] = []
        source = by_name[edge.name].source if edge.name in by_name else edge.source
        while source not in nodes and len(incoming.get(source, ())) == 1 and ".relay" in source:
            chain.insert(0, incoming[source][0])
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
    targets = {e.target for e in network.projections}
    found: dict[str, IntegerPopulation | None] = {}
    for p in network.populations:
        q = made.get(p.name)
        if q is None and (p.name in targets or not p.name.endswith(".bias")):
            raise _other(f"population {p.name!r}", f"the program has {sorted(made)}")
        if q is not None and (q.size, q.model) != (p.size, RELAYS.get(p.model, p.model)):
            raise _other(
                f"population {p.name!r}",
                f"{p.size} neurons of model {p.model} there, {q.size} of {q.model} in the program",
            )
        found[p.name] = q
    return found


def _edges(
    program: Program, network: Network, gains: Mapping[str, float], unit: Mapping[str, Float]
) -> dict[str, Edge]:
    made = {e.name: e for e in program.projections}
    found = {}
    for e in network.projections:
        q = made.get(e.name)
        if q is not None and (q.source, q.target) != (e.source, e.target):
            raise _other(f"projection {e.name!r}", f"it joins {q.source!r} to {q.target!r} in the program")
        if q is not None and q.port != e.port:
            raise _other(f"projection {e.name!r}", f"it reaches port {q.port} in the program, not {e.port}")
        found[e.name] = _edge(program, e, q, gains[e.target], unit[e.source])
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
        e.weight,
        weight,
        (int(e.weight.shape[0]), int(e.weight.shape[1])),
        structure,
        e.delay_steps,
        delay,
        tuple(tables[:-1]),
        tuple(table.exponent for table in q.tables) if q else (),
        tuple(table.bits for table in q.tables) if q else (),
        top,
        q,
        e.port,
    )


def _weight_formats(
    q: IntegerProjection | None, ideal: Float, rows: npt.NDArray[np.int64]
) -> tuple[Float, Float]:
    """Return each weight's last bit and the largest magnitude its tables hold together.

    A table without any weight of a target is not that target's, unless no table has one.
    """
    lsb, top = np.full(ideal.shape, np.inf), np.zeros(ideal.shape)
    tables = q.tables if q else ()
    if not tables:
        return np.ones(ideal.shape), top
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
