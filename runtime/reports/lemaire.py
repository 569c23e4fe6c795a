"""Energy of operations, memory accesses and addressing after Lemaire et al. 2022 (arXiv 2210.13107).

    synaptic operations   an addition per synop, a multiplication more if its message is graded; eqs. 1.4, 2.4
    neurons               an addition per neuron and step, a multiplication and an addition more if its
                          states decay, an addition per spike; eqs. 1.3, 1.4, 2.3
    weights               a read per synop; eqs. 7, 8
    biases                a read per neuron of a layer with a bias; eqs. 7, 8
    potentials            a read and a write per synop, and of every neuron: once per sample as in the
                          equations (low), every step as a decay takes (high); eqs. 9, 10, 14, 15
    events                a read per message and layer, a write per spike; eqs. 5, 13
    addressing            an addition per synop; of a convolution two multiplications and additions per
                          message more; eqs. 16, 17

Synops are those that happened. The paper's closed forms count a layer's whole fan-out instead, beyond the
edges of an image too; eq. 2.4 as printed has the number of inputs once too often, which its authors' program
leaves out, as this does.
"""

from __future__ import annotations

from snn_compile.runtime.reports.layers import layers
from snn_compile.targets.costs.published import LemaireCosts
from snn_compile.targets.devices.counts import Counts
from snn_compile.targets.program.program import Program
from snn_compile.targets.schema import Interval


def lemaire_parts(program: Program, counts: Counts, costs: LemaireCosts) -> dict[str, Interval]:
    """Return picojoules by term over all samples, low and high."""
    add, multiply = costs.add_pj, costs.multiply_pj
    synapses = addressing = neurons = 0.0
    memory: dict[str, Interval] = dict.fromkeys(("weights", "biases", "potentials", "events"), (0.0, 0.0))
    queue = costs.access_pj(8 * costs.memory_bytes_small)
    reached: dict[str, int] = {p.name: 0 for p in program.populations}
    for layer in layers(program):
        synops, messages = counts.synops[layer.name], int(counts.neuron_spikes[layer.source].sum())
        synapses += synops * (add + multiply * (layer.message_bits > 1))
        addressing += synops * add + messages * 2 * (multiply + add) * (layer.kind == "convolution")
        reached[layer.target] += synops
        _add(memory, "weights", costs.access_pj(layer.storage_bits), synops, synops)
        _add(memory, "events", queue, messages, messages)
    for population in program.populations:
        name, updates = population.name, counts.updates[population.name]
        spikes = counts.spikes.get(name, 0)
        products, _ = population.kind.operations(population.parameters, program.formats.decay_one)
        neurons += updates * (add + (multiply + add) * (products > 0)) + spikes * add
        state_bits = program.formats.state_bits * population.size
        biased = "bias_mant" in population.parameters and bool(population.parameters["bias_mant"].any())
        each = population.size * counts.samples
        _add(memory, "biases", costs.access_pj(state_bits), each * biased, each * biased)
        size = state_bits * len(population.kind.states)
        _add(
            memory,
            "potentials",
            costs.access_pj(size),
            2 * (reached[name] + each),
            2 * (reached[name] + updates),
        )
        _add(memory, "events", queue, spikes, spikes)
    return {
        "synaptic operations": (synapses, synapses),
        "neurons": (neurons, neurons),
        **{f"memory: {name}": interval for name, interval in memory.items()},
        "addressing": (addressing, addressing),
    }


def _add(memory: dict[str, Interval], name: str, access: Interval, fewest: float, most: float) -> None:
    low, high = memory[name]
    memory[name] = low + access[0] * fewest, high + access[1] * most
