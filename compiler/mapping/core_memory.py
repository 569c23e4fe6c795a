"""Memory and axons of a neurocore that slices of populations use.

The memory of a core (sources are in the chip's file) holds neuron state, synapses and axon entries:

    neurons  n * neuron_state_bits / 3 for every state of the model, for its bias, and for each other register
             with a value per neuron of a programmable model (microcode reads it from the neuron's memory, so
             the number of different values is not limited)
    synapses per table: dense n_in * rows * (bits + delay bits), where rows are the targets that it reaches,
             or sparse nnz * (bits + delay bits + log2 n) if smaller
    axons    axon_bits each: one input axon per source neuron with a weight into the core, one output axon per
             neuron and target core
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil, log2

import numpy as np
import numpy.typing as npt

from snn_compile.compiler.quantization.quantize import QuantizedNetwork
from snn_compile.targets.chips.chip import Chip
from snn_compile.targets.program.population import Population

Slice = tuple[str, int, int]
Indices = npt.NDArray[np.int64]
Present = dict[str, npt.NDArray[np.bool_]]
"""Source neurons, by population or input, for which a core has an input axon."""


def _words(p: Population) -> int:
    """Return the words of memory per neuron: its states, its bias and registers with a value per neuron."""
    own = [key for key, array in p.parameters.items() if array.size > 1 and not key.startswith("bias")]
    return len(p.kind.states) + 1 + (len(own) if p.kind.programmable else 0)


class CoreMemory:
    """Use of a core's resources by slices of populations."""

    def __init__(self, network: QuantizedNetwork, chip: Chip) -> None:
        self.network, self.chip = network, chip
        self._sizes = {p.name: p.size for p in network.nodes}
        self._words = {p.name: _words(p) for p in network.populations}
        self._incoming = {
            p.name: [edge for edge in network.projections if edge.target == p.name]
            for p in network.populations
        }
        self._bits: dict[Slice, int] = {}
        self._sources: dict[Slice, dict[str, Indices]] = {}
        # Cumulative over targets: synapses, and targets that have any.
        self._nonzero = {
            (edge.name, i): np.cumsum([[0, 0], *np.stack([table.fan_in, table.fan_in > 0], axis=1)], axis=0)
            for edge in network.projections
            for i, table in enumerate(edge.tables)
        }
        # Target cores per neuron: at least one if it has targets; updated while packing.
        self.reach = {p.name: np.zeros(p.size, np.int64) for p in network.populations}
        for p in network.populations:
            for source, index in self.sources((p.name, 0, p.size)).items():
                if source in self.reach:
                    self.reach[source][index] = 1

    def sources(self, piece: Slice) -> dict[str, Indices]:
        """Return, by source, the indices of the neurons that project to a slice."""
        if piece not in self._sources:
            name, start, stop = piece
            masks: dict[str, npt.NDArray[np.bool_]] = {}
            for edge in self._incoming[name]:
                mask = masks.setdefault(edge.source, np.zeros(self._sizes[edge.source], bool))
                for table in edge.tables:
                    rows = table.nonzero.indptr
                    mask[table.nonzero.indices[rows[start] : rows[stop]]] = True
            self._sources[piece] = {source: np.flatnonzero(mask) for source, mask in masks.items()}
        return self._sources[piece]

    def forget(self, pieces: list[Slice]) -> None:
        """Drop cached values of slices that were cut further."""
        for piece in pieces:
            self._sources.pop(piece, None)
            self._bits.pop(piece, None)

    def synapse_bits(self, piece: Slice) -> int:
        """Memory of the synapses onto a slice, each table dense or sparse, whichever is smaller."""
        if piece in self._bits:
            return self._bits[piece]
        name, start, stop = piece
        n, total = stop - start, 0
        for edge in self._incoming[name]:
            for i, table in enumerate(edge.tables):
                word = table.bits + (self.chip.delay_bits if edge.delay_steps else 0)
                upto = self._nonzero[edge.name, i]
                synapses, reached = (int(count) for count in upto[stop] - upto[start])
                sparse = synapses * (word + ceil(log2(max(n, 2))))
                total += min(reached * table.shape[1] * word, sparse)
        self._bits[piece] = total
        return total

    def _state_bits(self, name: str, n: int) -> int:
        # The chip's figure is for two states and a bias.
        return n * self.chip.neuron_state_bits * self._words[name] // 3

    def least_bits(self, name: str) -> int:
        """Least memory of a population's state and synapses, however it is cut."""
        total = self._state_bits(name, self._sizes[name])
        for edge in self._incoming[name]:
            for table in edge.tables:
                word = table.bits + (self.chip.delay_bits if edge.delay_steps else 0)
                total += int(np.minimum(table.shape[1] * word, table.fan_in * (word + 1)).sum())
        return total

    def piece(self, piece: Slice, present: Present) -> dict[str, int]:
        """Resources that a slice adds to a core that already has the input axons of `present`."""
        name, start, stop = piece
        n = stop - start
        in_axons = 0
        for source, index in self.sources(piece).items():
            there = present.get(source)
            in_axons += len(index) if there is None else int(np.count_nonzero(~there[index]))
        out_axons = int(self.reach[name][start:stop].sum())
        bits = self._state_bits(name, n) + self.synapse_bits(piece)
        bits += (in_axons + out_axons) * self.chip.axon_bits
        return {"neurons": n, "memory_bits": bits, "in_axons": in_axons, "out_axons": out_axons}

    def add(self, piece: Slice, present: Present) -> None:
        """Add to `present` the input axons that a slice brings to its core."""
        for source, index in self.sources(piece).items():
            present.setdefault(source, np.zeros(self._sizes[source], bool))[index] = True

    def reached(self, cores: list[list[Slice]]) -> dict[str, npt.NDArray[np.int64]]:
        """Return the number of target cores of each neuron, by population."""
        found = {name: np.zeros_like(reach) for name, reach in self.reach.items()}
        for core in cores:
            present: Present = {}
            for piece in core:
                self.add(piece, present)
            for source, mask in present.items():
                if source in found:
                    found[source] += mask
        return found

    def learn(self, reached: Mapping[str, npt.NDArray[np.int64]]) -> None:
        """Raise the number of target cores of each neuron to that of a packing."""
        self.reach = {name: np.maximum(reach, reached[name]) for name, reach in self.reach.items()}

    def core(self, slices: list[Slice], reached: Mapping[str, npt.NDArray[np.int64]]) -> dict[str, int]:
        """Return the use of one core once all slices are packed."""
        used = dict.fromkeys(("neurons", "memory_bits", "in_axons", "out_axons", "synapse_bits"), 0)
        present: Present = {}
        for piece in slices:
            for key, value in self.piece(piece, present).items():
                used[key] += value
            self.add(piece, present)
            used["synapse_bits"] += self.synapse_bits(piece)
            # The packing's assumption is replaced by what came out.
            name, start, stop = piece
            surplus = int((self.reach[name] - reached[name])[start:stop].sum())
            used["out_axons"] -= surplus
            used["memory_bits"] -= surplus * self.chip.axon_bits
        return used
