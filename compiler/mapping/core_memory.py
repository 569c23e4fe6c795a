"""Memory and axons of a neurocore that blocks of populations use, counted as the chip's file says.

    neurons   `neuron_words` per neuron, for every state of the model, its bias, and each other register with
              a value per neuron of a programmable model (microcode reads it from the neuron's memory, so the
              number of different values is not limited); the chip's figure is for two states and a bias
    synapses  one row per source neuron with a weight into the block, in whole words: `row_bits`, and per
              synapse its weight, `delay_bits` where there is a delay, and `index_bits`; or one row per tap
              and in channel of a convolution, of weights alone, for all positions of the block
    axons     `in_axon_words` per source neuron; a convolution takes a population axon per phase of its
              stride, whatever the number of source neurons. `out_axon_words` per neuron with a target; of a
              convolution's output one per position and phase.

What Intel's compiler printed for two networks fixes these rules; `docs/mapping.md` holds them against it.
"""

from __future__ import annotations

from collections.abc import Iterable
from copy import copy
from dataclasses import dataclass
from math import ceil, log2

import numpy as np
import numpy.typing as npt

from snn_compile.compiler.mapping.blocks import Block, axes
from snn_compile.compiler.quantization.quantize import QuantizedNetwork
from snn_compile.targets.chips.chip import Chip
from snn_compile.targets.program.kernels import Kernel, shared_kernel
from snn_compile.targets.program.population import Population
from snn_compile.targets.program.weights import WeightTable

RESOURCES = ("neurons", "groups", "synapse_words", "words", "in_axons", "out_axons")


def core_limits(chip: Chip) -> dict[str, int]:
    """Return what one core of a chip has of each resource."""
    return {
        "neurons": chip.core_neurons,
        "groups": chip.core_groups,
        "synapse_words": chip.memory.synapse_words,
        "words": chip.memory.words,
        "in_axons": chip.core_in_axons,
        "out_axons": chip.core_out_axons,
    }


def weight_bits(table: WeightTable) -> int:
    """Return the bits of a row's weights: a sign, and what the largest needs in steps of the table.

    Weights of few values take few bits, as rows that Intel's compiler printed show.
    """
    stored = table.weights.data if table.sparse else table.weights[table.weights != 0]
    values = np.abs(stored.astype(np.int64))
    if not values.size:
        return 1
    step = int(np.bitwise_or.reduce(values))
    step &= -step
    magnitude = ceil(log2(int(values.max()) // step)) if int(values.max()) > step else 0
    signed = table.sign_mode == "mixed"
    return min(magnitude + signed, table.bits) or 1


@dataclass(frozen=True, eq=False)
class _Incoming:
    """One table of a population's input: where from, its row's widths, and its kernel if it is shared."""

    source: str
    table: WeightTable
    bits: int
    delay_bits: int
    kernel: Kernel | None


class CoreMemory:
    """Use of a core's resources by blocks of populations.

    `dense`: tables that are not sparse have a row for every source neuron with a synapse, of every target on
    the core, weights of zero included, as Intel's compiler writes dense layers; else rows hold the non-zero
    ones.
    """

    def __init__(self, network: QuantizedNetwork, chip: Chip, dense: bool = False) -> None:
        self.network, self.chip, self.dense = network, chip, dense
        shapes = {p.name: p.shape for p in network.nodes}
        self._population = {p.name: p for p in network.populations}
        self._incoming: dict[str, list[_Incoming]] = {p.name: [] for p in network.populations}
        for edge in network.projections:
            for table in edge.tables:
                kernel = None
                if chip.memory.shared_kernels:
                    kernel = shared_kernel(table.weights, shapes[edge.target], shapes[edge.source])
                delay = chip.memory.delay_bits if edge.delay_steps else 0
                found = _Incoming(edge.source, table, weight_bits(table), delay, kernel)
                self._incoming[edge.target].append(found)
        self._phases = {name: self._own_phases(name) for name in self._incoming}
        self._sends = {name: self._targets(name) for name in self._incoming}
        self._used: dict[Block, dict[str, float]] = {}
        self._kernel_rows: dict[tuple[int, int, int], int] = {}
        self._sources: dict[Block, dict[str, npt.NDArray[np.int64]]] = {}

    def with_dense_rows(self) -> CoreMemory:
        """Return the same with `dense`, without another search for kernels."""
        found = copy(self)
        found.dense, found._used, found._sources = True, {}, {}
        return found

    def kernel(self, name: str) -> Kernel | None:
        """Return the kernel of a population's input, if a convolution is all of it."""
        found = [incoming.kernel for incoming in self._incoming[name]]
        return found[0] if found and all(kernel is not None for kernel in found) else None

    def tables(self, source: str, target: str) -> list[tuple[WeightTable, bool]]:
        """Return the tables between two, and whether positions share them by population axons."""
        return [(i.table, i.kernel is not None) for i in self._incoming[target] if i.source == source]

    def _own_phases(self, name: str) -> int:
        kernel = self.kernel(name)
        return kernel.stride[1] if kernel else 1

    def _targets(self, name: str) -> set[bool]:
        """Return whether targets receive through kernels; the host reads every neuron."""
        found = {
            incoming.kernel is not None
            for several in self._incoming.values()
            for incoming in several
            if incoming.source == name
        }
        return found | {False for port in self.network.outputs if port.population == name}

    def sources(self, block: Block) -> dict[str, npt.NDArray[np.int64]]:
        """Return, by source, the neurons with a weight into a block, but for shared kernels."""
        if block not in self._sources:
            found: dict[str, list[npt.NDArray[np.int64]]] = {}
            for incoming in self._incoming[block.population]:
                if incoming.kernel is None:
                    index = np.flatnonzero(self._synapses(incoming, block))
                    found.setdefault(incoming.source, []).append(index)
            self._sources[block] = {name: np.unique(np.concatenate(parts)) for name, parts in found.items()}
        return self._sources[block]

    def alone(self, block: Block) -> dict[str, float]:
        """Return what a block uses in a core of its own."""
        if block not in self._used:
            population = self._population[block.population]
            incoming = self._incoming[block.population]
            rows = sum(self._rows(one, block) for one in incoming)
            phases = sum(one.kernel.stride[1] for one in incoming if one.kernel)
            own = {"neurons": block.size, "groups": 1, "synapse_words": rows}
            own["in_axons"] = phases + sum(map(len, self.sources(block).values()))
            sends = self._sends[block.population]
            own["out_axons"] = block.size * (False in sends)
            own["out_axons"] += block.positions * self._phases[block.population] * (True in sends)
            memory = self.chip.memory
            self._used[block] = own | {
                "words": rows
                + block.size * memory.neuron_words * _registers(population) / 3
                + own["in_axons"] * memory.in_axon_words
                + own["out_axons"] * memory.out_axon_words
            }
        return self._used[block]

    def _rows(self, incoming: _Incoming, block: Block) -> int:
        memory = self.chip.memory
        word = incoming.bits + incoming.delay_bits
        if incoming.kernel is not None:
            key = (id(incoming), *block.channels)
            if key not in self._kernel_rows:
                weights = incoming.kernel.weights[slice(*block.channels)] != 0
                linked = weights.any(axis=(2, 3)).sum(axis=0)
                taps = weights.any(axis=0).sum(axis=(1, 2))
                lengths = -(-(linked * word + memory.row_bits) // memory.word_bits) + memory.kernel_words
                self._kernel_rows[key] = int((taps * lengths).sum())
            return self._kernel_rows[key]
        synapses = self._synapses(incoming, block)
        synapses = synapses[synapses > 0]
        bits = synapses * (word + memory.index_bits)
        if memory.dense_rows:
            bits = np.minimum(bits, block.size * word)
        return int((-(-(bits + memory.row_bits) // memory.word_bits)).sum())

    def _synapses(self, incoming: _Incoming, block: Block) -> npt.NDArray[np.int64]:
        """Return, by source neuron, the synapses into a block."""
        if self.dense and not incoming.table.sparse:
            return np.where(incoming.table.fan_out > 0, block.size, 0)
        nonzero = incoming.table.nonzero
        if len(block.shape) == 1:
            start, stop = block.ranges[0]
            reached = nonzero.indices[nonzero.indptr[start] : nonzero.indptr[stop]]
        else:
            reached = nonzero[block.indices()].indices
        return np.bincount(reached, minlength=incoming.table.shape[1])

    def at_least(self, name: str) -> dict[str, float]:
        """Return what a population takes at least, however it is cut, without input axons of its own.

        A row holds at least its synapses, and each row is there at least once.
        """
        population, memory = self._population[name], self.chip.memory
        shape = axes(population.shape)
        whole = Block(name, shape, tuple((0, n) for n in shape))
        rows = sum(self._least_rows(one) for one in self._incoming[name])
        phases = sum(one.kernel.stride[1] for one in self._incoming[name] if one.kernel)
        out = self.alone(whole)["out_axons"]
        words = rows + whole.size * memory.neuron_words * _registers(population) / 3
        words += phases * memory.in_axon_words + out * memory.out_axon_words
        return {"neurons": whole.size, "synapse_words": rows, "out_axons": out, "words": words}

    def _least_rows(self, incoming: _Incoming) -> int:
        memory, further = self.chip.memory, 0
        word = incoming.bits + incoming.delay_bits
        if incoming.kernel is not None:
            synapses = np.count_nonzero(incoming.kernel.weights, axis=0).reshape(-1)
            further = memory.kernel_words
        elif self.dense and not incoming.table.sparse:
            synapses = np.where(incoming.table.fan_out > 0, incoming.table.shape[0], 0)
        else:
            synapses = incoming.table.fan_out
        if incoming.kernel is None and not memory.dense_rows:
            word += memory.index_bits
        synapses = synapses[synapses > 0]
        return int((-(-(synapses * word + memory.row_bits) // memory.word_bits) + further).sum())

    def distinct_sources(self) -> int:
        """Return the number of neurons and inputs with an axon of their own into any population."""
        found = 0
        for node in self.network.nodes:
            received = np.zeros(node.size, bool)
            for several in self._incoming.values():
                for one in several:
                    if one.source == node.name and one.kernel is None:
                        received |= one.table.fan_out > 0
            found += int(received.sum())
        return found

    def core(self, blocks: Iterable[Block]) -> dict[str, int]:
        """Return the use of one core by all its blocks, and the bits of its synapses.

        A source neuron of several blocks takes one input axon.
        """
        used, there = dict.fromkeys(RESOURCES, 0.0), Present()
        for block in blocks:
            added = self.added(block, there)
            used = {key: used[key] + added[key] for key in RESOURCES}
            there.add(self.sources(block))
        bits = {"synapse_bits": int(used["synapse_words"]) * self.chip.memory.word_bits}
        return {key: ceil(round(value, 6)) for key, value in used.items()} | bits

    def added(self, block: Block, there: Present) -> dict[str, float]:
        """Return what a block adds to a core that has input axons already."""
        alone = self.alone(block)
        shared = there.shared(self.sources(block))
        words = alone["words"] - shared * self.chip.memory.in_axon_words
        return alone | {"in_axons": alone["in_axons"] - shared, "words": words}


class Present:
    """Source neurons, by population or input, for which a core has an input axon."""

    def __init__(self) -> None:
        self._index: dict[str, npt.NDArray[np.int64]] = {}

    def shared(self, sources: dict[str, npt.NDArray[np.int64]]) -> int:
        """Return how many of some sources are there already."""
        return sum(
            int(np.isin(index, self._index[name], assume_unique=True).sum())
            for name, index in sources.items()
            if name in self._index
        )

    def add(self, sources: dict[str, npt.NDArray[np.int64]]) -> None:
        """Add sources."""
        for name, index in sources.items():
            self._index[name] = np.union1d(self._index[name], index) if name in self._index else index


def _registers(p: Population) -> int:
    """Return the registers that a neuron's memory holds: states, bias, and those with a value per neuron."""
    own = [key for key, array in p.parameters.items() if array.size > 1 and not key.startswith("bias")]
    return len(p.kind.states) + 1 + (len(own) if p.kind.programmable else 0)
