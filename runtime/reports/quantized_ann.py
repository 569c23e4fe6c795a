"""The same layers as a quantized ANN: dense multiply-accumulates at the same widths, in 45 nm arithmetic.

A network of T steps and binary spikes tells T + 1 values of a neuron apart, so its counterpart has
activations of ceil(log2(T + 1)) bits (Yan et al. 2024, arXiv 2409.08290); graded messages keep their width.
The counterpart multiplies every weight once per sample: once per step where a projection lies on a cycle, or
where the read-out wants an answer in every step. Both are priced by the arithmetic of `cmos45` alone: with
memory and routing counted, the rate below which spikes pay is lower (ibid.).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import ceil, log2
from typing import Any

from snn_compile.runtime.reports.energy import arithmetic_parts, graded_multiply_pj
from snn_compile.runtime.reports.layers import Layer, layers
from snn_compile.targets.costs.tables import ArithmeticCosts, arithmetic_costs
from snn_compile.targets.devices.counts import Counts
from snn_compile.targets.program.program import Program


@dataclass(frozen=True)
class QuantizedAnn:
    """Multiply-accumulates and picojoules per sample, beside the spiking network's.

    `weight_bits`: the widest layer's; `activation_bits`: of layers that receive spikes, or else the widest.
    `rate`: spikes per neuron and step of the spiking populations. `break_even_rate`: the rate at which both
    take the same energy if spikes scale alike everywhere; 0 if neuron updates and inputs alone take as much,
    None where no spike reaches a synapse.
    """

    macs: float
    weight_bits: int
    activation_bits: int
    per_sample_pj: float
    spiking_pj: float
    rate: float | None
    break_even_rate: float | None

    def json(self) -> dict[str, Any]:
        """Return the comparison as plain values."""
        return asdict(self)


def quantized_ann(program: Program, counts: Counts) -> QuantizedAnn:
    """Return the bit-matched counterpart of a counted run."""
    costs, found = arithmetic_costs(), layers(program)
    each_step = any(port.readout == "per_step" for port in program.outputs)
    passes = {layer.name: counts.steps if each_step or layer.recurrent else 1 for layer in found}
    widths = {layer.name: _activation_bits(program, layer, counts.steps) for layer in found}
    macs = {layer.name: layer.connections * passes[layer.name] for layer in found}
    total = sum(
        macs[layer.name] * (_multiply(max(layer.weight_bits, widths[layer.name]), costs) + costs.add_int32_pj)
        for layer in found
    )
    spiking = sum(arithmetic_parts(program, counts, costs).values()) / counts.samples
    rising = _rising(program, counts, costs) / counts.samples
    names = [p.name for p in program.populations if p.spiking]
    updates = sum(counts.updates[name] for name in names)
    rate = counts.total_spikes / updates if updates else None
    even = None
    if rate is not None and rising > 0:
        even = max(0.0, rate * (total - (spiking - rising)) / rising)
    return QuantizedAnn(
        float(sum(macs.values())),
        max((layer.weight_bits for layer in found), default=0),
        max(_spikes(found, widths) or widths.values(), default=0),
        total,
        spiking,
        rate,
        even,
    )


def _spikes(found: Sequence[Layer], widths: Mapping[str, int]) -> list[int]:
    return [widths[layer.name] for layer in found if layer.message_bits == 1]


def _activation_bits(program: Program, layer: Layer, steps: int) -> int:
    return layer.message_bits if layer.message_bits > 1 else ceil(log2(steps + 1))


def _multiply(bits: int, costs: ArithmeticCosts) -> float:
    return costs.multiply_int8_pj if bits <= 8 else costs.multiply_int32_pj


def _rising(program: Program, counts: Counts, costs: ArithmeticCosts) -> float:
    """Return the picojoules of a run that are in proportion to the spikes of populations."""
    inputs: Mapping[str, object] = {port.name: port for port in program.inputs}
    total = 0.0
    for edge in program.projections:
        if edge.source not in inputs and program.population(edge.source).spiking:
            each = costs.add_int32_pj + graded_multiply_pj(program, edge, costs)
            total += counts.synops[edge.name] * each
    for population in program.populations:
        per_spike = population.kind.spike_additions + (population.reset == "subtract")
        total += counts.spikes.get(population.name, 0) * per_spike * costs.add_int32_pj
    return total
