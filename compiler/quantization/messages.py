"""Messages in the chip's units: what a source sends, in how many bits, and the exponents of its weights."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass

from snn_compile.compiler.network import Float, Network, Projection
from snn_compile.compiler.neurons.sigma_delta import MESSAGE_BITS
from snn_compile.compiler.quantization.scales import MEMBRANE_BITS, Observation, Sender
from snn_compile.targets.chips.chip import Chip
from snn_compile.targets.program.program import InputPort

COUNT_BITS = 8
"""Bits of a message that counts several spikes in a step."""


@dataclass(frozen=True, eq=False)
class Messages:
    """Messages in the chip's units.

    By source: `units` per unit of the float network's message, `activity`: mean square (size,). `graded`:
    sources whose messages are numbers. By projection: `bits` of a message (0: spikes), and the lowest and
    highest of the weight `exponents`.
    """

    units: Mapping[str, float]
    activity: Mapping[str, Float]
    graded: Set[str]
    bits: Mapping[str, int]
    exponents: Mapping[str, tuple[int, int]]


def messages_of(
    network: Network,
    inputs: Mapping[str, InputPort],
    input_units: Mapping[str, float],
    senders: Mapping[str, Sender],
    observed: Observation,
    chip: Chip,
) -> Messages:
    """Return the messages of every source and projection; `input_units` and `senders` settle their units."""
    units = dict(input_units) | {n: s.unit for n, s in senders.items()}
    units |= {p.name: p.kind.message_units for p in network.populations if p.kind.message_units}
    graded = {p.name for p in network.populations if p.graded}
    graded |= {name for name, port in inputs.items() if port.kind == "graded"}
    bits = {edge.name: _message_bits(network, inputs, edge) for edge in network.projections}
    # Large messages leave no room for sums that are shifted right afterwards.
    low, high = chip.formats.weight_exponent
    relays = {p.name for p in network.relays}
    wide = {e.name for e in network.projections if bits[e.name] == MESSAGE_BITS and e.source not in relays}
    wide |= {e.name for e in network.projections if e.target in relays}
    exponents = {name: (0 if name in wide else low, high) for name in bits}
    return Messages(units, observed.activity(network, units), graded, bits, exponents)


def _message_bits(network: Network, inputs: Mapping[str, InputPort], edge: Projection) -> int:
    """Return the bits of a projection's messages, 0 for spikes."""
    if edge.source in inputs:
        return inputs[edge.source].bits if inputs[edge.source].kind == "graded" else 0
    source = network.population(edge.source)
    if not source.graded:
        return 0
    if source.kind.message_bits:
        return source.kind.message_bits
    return COUNT_BITS if source.spiking else MEMBRANE_BITS
