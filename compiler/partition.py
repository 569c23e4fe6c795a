"""Partition: populations are cut into slices of neurons, and slices are packed into neurocores.

The memory of a core (docs in the chip file) holds neuron state, synapses and axon entries:

    neurons  n * neuron_state_bits
    synapses of a table dense n_in * rows * (bits + delay bits), rows the targets that it reaches, or sparse
             nnz * (bits + delay bits + log2 n) if smaller
    axons    axon_bits each: one input axon a source neuron, one output axon a neuron and destination core

A slice goes into the first core with room. Splitting by target neurons repeats input axons, not weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, log2

import numpy as np

from snn_compile.compiler.quantize import QuantizedNetwork
from snn_compile.targets.chip import Chip
from snn_compile.targets.errors import DoesNotFit

Slice = tuple[str, int, int]


@dataclass(frozen=True, eq=False)
class Partition:
    """Slices (population, start, stop) by core, and each core's use of its resources."""

    cores: tuple[tuple[Slice, ...], ...]
    use: tuple[Mapping[str, int], ...]
    limits: Mapping[str, int]


def partition(network: QuantizedNetwork, chip: Chip) -> Partition:
    """Return the cores a network needs; raises DoesNotFit with every violation when the chip has too
    few cores, or when a single neuron exceeds a core.
    """
    limits = {
        "neurons": chip.core_neurons,
        "memory_bits": chip.core_memory_bits,
        "in_axons": chip.core_in_axons,
        "out_axons": chip.core_out_axons,
    }
    sizes = {p.name: p.size for p in network.populations}
    parts = {name: ceil(n / chip.core_neurons) for name, n in sizes.items()}
    measure = _Measure(network, chip)
    while True:
        pieces = {name: _slices(name, sizes[name], count) for name, count in parts.items()}
        too_large = [
            name
            for name, slices in pieces.items()
            if any(
                used > limits[key] for piece in slices for key, used in measure.piece(piece, set()).items()
            )
        ]
        if not too_large:
            cores = _pack(pieces, measure, limits, chip.cores)
            use = [measure.core(slices, cores) for slices in cores]
            if not any(used[key] > limits[key] for used in use for key in limits):
                return Partition(tuple(map(tuple, cores)), tuple(use), limits)
            # Spikes go to more cores than was assumed: pack again, knowing it.
            measure.learn(cores)
        for name in too_large:
            if parts[name] >= sizes[name]:
                raise _impossible(name, measure, limits, chip)
            parts[name] = min(2 * parts[name], sizes[name])
        if (count := sum(parts.values())) > 64 * chip.cores:
            line = f"cores: {count} slices of populations for {chip.cores} cores"
            raise DoesNotFit(f"{chip.title} is too small: {line}", violations=[line])


def _slices(name: str, size: int, count: int) -> list[Slice]:
    """Return a population cut into `count` nearly equal slices."""
    bounds = np.linspace(0, size, count + 1).astype(int).tolist()
    return [(name, start, stop) for start, stop in zip(bounds[:-1], bounds[1:], strict=True)]


def _impossible(name: str, measure: _Measure, limits: Mapping[str, int], chip: Chip) -> DoesNotFit:
    used = measure.core([(name, 0, 1)], [[(name, 0, 1)]])
    lines = [f"{key} {used[key]} of {limits[key]}" for key in limits if used[key] > limits[key]]
    # Alone it fits, but not with the cores that hear it once all are placed.
    lines = lines or [f"out_axons {measure.reach[name]} of {limits['out_axons']}"]
    return DoesNotFit(
        f"one neuron of {name!r} exceeds a core of {chip.title}: " + "; ".join(lines), violations=lines
    )


def _pack(
    pieces: Mapping[str, list[Slice]], measure: _Measure, limits: Mapping[str, int], available: int
) -> list[list[Slice]]:
    """Return cores, first-fit; every slice must fit an empty one."""
    cores: list[list[Slice]] = []
    totals: list[dict[str, int]] = []
    shared: list[set[str]] = []
    for piece in [piece for slices in pieces.values() for piece in slices]:
        for index in range(len(cores) + 1):
            if index == len(cores):
                cores.append([])
                totals.append(dict.fromkeys(limits, 0))
                shared.append(set())
            added = measure.piece(piece, shared[index])
            if all(totals[index][key] + added[key] <= limits[key] for key in limits):
                cores[index].append(piece)
                totals[index] = {key: totals[index][key] + added[key] for key in limits}
                shared[index] |= measure.sources[piece[0]].keys()
                break
        if len(cores) > 4 * available:
            line = f"cores: more than {4 * available} needed, {available} available"
            raise DoesNotFit(f"the chip is too small: {line}", violations=[line])
    return cores


class _Measure:
    """What slices use of a core."""

    def __init__(self, network: QuantizedNetwork, chip: Chip) -> None:
        self.network, self.chip = network, chip
        sizes = {p.name: p.size for p in network.nodes}
        self.sources: dict[str, dict[str, int]] = {p.name: {} for p in network.populations}
        for edge in network.projections:
            self.sources[edge.target][edge.source] = sizes[edge.source]
        self.targets = {
            p.name: {name for name, sources in self.sources.items() if p.name in sources}
            for p in network.populations
        }
        # How many cores hear each population: at least one, if anybody does; learnt while packing.
        self.reach = {name: min(len(targets), 1) for name, targets in self.targets.items()}
        self._arriving = {
            p.name: [edge for edge in network.projections if edge.target == p.name]
            for p in network.populations
        }
        self._bits: dict[Slice, int] = {}
        # Up to each target: synapses, and targets that have any.
        self._nonzero = {
            (edge.name, i): np.cumsum([[0, 0], *np.stack([table.fan_in, table.fan_in > 0], axis=1)], axis=0)
            for edge in network.projections
            for i, table in enumerate(edge.tables)
        }

    def synapse_bits(self, piece: Slice) -> int:
        """Memory of the synapses onto a slice, each table dense or sparse, whichever is smaller."""
        if piece in self._bits:
            return self._bits[piece]
        name, start, stop = piece
        n, total = stop - start, 0
        for edge in self._arriving[name]:
            for i, table in enumerate(edge.tables):
                word = table.bits + (self.chip.delay_bits if edge.delay_steps else 0)
                upto = self._nonzero[edge.name, i]
                synapses, reached = (int(count) for count in upto[stop] - upto[start])
                sparse = synapses * (word + ceil(log2(max(n, 2))))
                total += min(reached * table.shape[1] * word, sparse)
        self._bits[piece] = total
        return total

    def piece(self, piece: Slice, present: set[str]) -> dict[str, int]:
        """What a slice adds to a core that already has the input axons of `present`."""
        name, start, stop = piece
        n = stop - start
        in_axons = sum(k for source, k in self.sources[name].items() if source not in present)
        out_axons = n * self.reach[name]
        bits = n * self.chip.neuron_state_bits + self.synapse_bits(piece)
        bits += (in_axons + out_axons) * self.chip.axon_bits
        return {"neurons": n, "memory_bits": bits, "in_axons": in_axons, "out_axons": out_axons}

    def learn(self, cores: list[list[Slice]]) -> None:
        """Raise the number of cores that hear each population to what this packing has."""
        for name in self.reach:
            self.reach[name] = max(self.reach[name], self._reached(name, cores))

    def _reached(self, name: str, cores: list[list[Slice]]) -> int:
        return sum(any(held in self.targets[name] for held, _, _ in core) for core in cores)

    def core(self, slices: list[Slice], cores: list[list[Slice]]) -> dict[str, int]:
        """Use of one core when all are packed."""
        used = dict.fromkeys(("neurons", "memory_bits", "in_axons", "out_axons", "synapse_bits"), 0)
        present: set[str] = set()
        for piece in slices:
            name, n = piece[0], piece[2] - piece[1]
            for key, value in self.piece(piece, present).items():
                used[key] += value
            present |= self.sources[name].keys()
            used["synapse_bits"] += self.synapse_bits(piece)
            # The packing's assumption is replaced by what came out.
            surplus = n * (self.reach[name] - self._reached(name, cores))
            used["out_axons"] -= surplus
            used["memory_bits"] -= surplus * self.chip.axon_bits
        return used
