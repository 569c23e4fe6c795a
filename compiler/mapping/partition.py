"""Partition: populations are cut into slices of neurons, and slices are packed into neurocores.

The memory of a core (docs in the chip file) holds neuron state, synapses and axon entries:

    neurons  n * neuron_state_bits, a third of it for every state of the model, one for its bias, and one for
             each other register of which programmable neurons have a value of their own (microcode reads it
             from the neuron's memory, so there is no limit to the number of different values)
    synapses of a table dense n_in * rows * (bits + delay bits), rows the targets that it reaches, or sparse
             nnz * (bits + delay bits + log2 n) if smaller
    axons    axon_bits each: one input axon a source neuron that a core has a weight from, one output axon
             a neuron and core that hears it

A slice goes into the first core with room. Splitting by target neurons repeats input axons, not weights. The
weights of a convolution are stored for every target; a kernel that a core holds once is not modelled.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, log2, prod

import numpy as np
import numpy.typing as npt

from snn_compile.compiler.quantization.quantize import QuantizedNetwork
from snn_compile.targets.chips.chip import Chip
from snn_compile.targets.errors import DoesNotFit
from snn_compile.targets.program.population import Population

Slice = tuple[str, int, int]
Indices = npt.NDArray[np.int64]
Present = dict[str, npt.NDArray[np.bool_]]
"""The source neurons, by population or input, that a core has an input axon for."""


@dataclass(frozen=True, eq=False)
class Partition:
    """Slices (population, start, stop) by core, and each core's use of its resources."""

    cores: tuple[tuple[Slice, ...], ...]
    use: tuple[Mapping[str, int], ...]
    limits: Mapping[str, int]


def partition(network: QuantizedNetwork, chip: Chip) -> Partition:
    """Return the cores a network needs; raises DoesNotFit with every violation when the chip has too
    few cores, or when a single neuron exceeds a core.

    Where slices that fill every gap need more cores than the chip has, the slices of a population are kept
    together instead: fewer cores then hear each neuron.
    """
    try:
        found = _partition(network, chip, together=False)
        if len(found.cores) <= chip.cores:
            return found
    except DoesNotFit as error:
        if not error.facts.get("too_small"):
            raise
        return _partition(network, chip, together=True)
    try:
        other = _partition(network, chip, together=True)
    except DoesNotFit:
        return found
    return min(found, other, key=lambda made: len(made.cores))


def _partition(network: QuantizedNetwork, chip: Chip, together: bool) -> Partition:
    limits = {
        "neurons": chip.core_neurons,
        "memory_bits": chip.core_memory_bits,
        "in_axons": chip.core_in_axons,
        "out_axons": chip.core_out_axons,
    }
    sizes = {p.name: p.size for p in network.populations}
    shapes = {p.name: p.shape for p in network.populations}
    parts = {name: ceil(n / chip.core_neurons) for name, n in sizes.items()}
    measure = _Measure(network, chip)
    while True:
        pieces = {name: _slices(name, shapes[name], count) for name, count in parts.items()}
        too_large = [
            name
            for name, slices in pieces.items()
            if any(used > limits[key] for piece in slices for key, used in measure.piece(piece, {}).items())
        ]
        if together:
            too_large += [
                name
                for name, slices in pieces.items()
                if name not in too_large
                and len(slices) < sizes[name]
                and _widest(slices, shapes[name], measure) > limits["in_axons"]
            ]
        if not too_large:
            cores = _pack(pieces, measure, limits, chip, together)
            reached = measure.reached(cores)
            use = [measure.core(slices, reached) for slices in cores]
            if not any(used[key] > limits[key] for used in use for key in limits):
                return Partition(tuple(map(tuple, cores)), tuple(use), limits)
            # Spikes go to more cores than was assumed: pack again, knowing it.
            measure.learn(reached)
        for name in too_large:
            if parts[name] >= sizes[name]:
                raise _impossible(name, measure, limits, chip)
            measure.forget(pieces[name])
            parts[name] = min(2 * parts[name], sizes[name])
        if (count := sum(map(len, pieces.values()))) > 64 * chip.cores:
            raise _too_small(f"{count} slices of populations", measure, limits, chip)


def _slices(name: str, shape: tuple[int, ...], count: int) -> list[Slice]:
    """Return a population cut into at least `count` slices.

    Neurons of (channels, height, width) are cut at the same places in every channel, rows first: what hears
    the same part of an image then goes to the same core, and shares its input axons there.
    """
    size = prod(shape)
    if len(shape) != 3 or count <= 1:
        return _cut(name, 0, size, count)
    channels, height, width = shape
    blocks = min(ceil(count / channels), height * width)
    rows = [(a, b) for _, a, b in _cut(name, 0, height, min(blocks, height))]
    columns = [(a, b) for _, a, b in _cut(name, 0, width, ceil(blocks / height))]
    found = []
    for top, bottom in rows:
        for left, right in columns:
            for c in range(channels):
                first = (c * height + top) * width
                found.append((name, first + left, first + (bottom - top - 1) * width + right))
    return found


def _cut(name: str, low: int, high: int, count: int) -> list[Slice]:
    bounds = np.linspace(low, high, count + 1).astype(int).tolist()
    return [(name, start, stop) for start, stop in zip(bounds[:-1], bounds[1:], strict=True)]


def _widest(slices: list[Slice], shape: tuple[int, ...], measure: _Measure) -> int:
    """Return the most input axons that the slices of one part of an image need, in all channels."""
    if len(shape) != 3 or len(slices) == 1:
        return 0
    most = 0
    for first in range(0, len(slices), shape[0]):
        present: Present = {}
        for piece in slices[first : first + shape[0]]:
            measure.add(piece, present)
        most = max(most, sum(int(np.count_nonzero(mask)) for mask in present.values()))
    return most


def _impossible(name: str, measure: _Measure, limits: Mapping[str, int], chip: Chip) -> DoesNotFit:
    alone = [(name, 0, 1)]
    used = measure.core(alone, measure.reached([alone]))
    lines = [f"{key} {used[key]} of {limits[key]}" for key in limits if used[key] > limits[key]]
    # Alone it fits, but not with the cores that hear it once all are placed.
    lines = lines or [f"out_axons {measure.reach[name].max()} of {limits['out_axons']}"]
    return DoesNotFit(
        f"one neuron of {name!r} exceeds a core of {chip.title}: " + "; ".join(lines), violations=lines
    )


def _too_small(found: str, measure: _Measure, limits: Mapping[str, int], chip: Chip) -> DoesNotFit:
    """Return the error for a chip with too few cores: what was found, and what any cut would need."""
    names = list(measure.reach)
    bits = {name: measure.least_bits(name) / limits["memory_bits"] for name in names}
    lines = [f"cores: {found} for {chip.cores} cores"]
    if (least := ceil(sum(bits.values()))) > chip.cores:
        most = sorted(names, key=lambda name: -bits[name])[:4]
        shares = ", ".join(f"{name} {bits[name]:.0f}" for name in most)
        lines.append(
            f"memory_bits: neurons and synapses alone fill {least} cores ({shares}); each target stores its "
            "own weights, also of a convolution"
        )
    sends = {name: reach.sum() / limits["out_axons"] for name, reach in measure.reach.items()}
    if (least := ceil(sum(sends.values()))) > chip.cores:
        most = sorted(names, key=lambda name: -sends[name])[:4]
        shares = ", ".join(f"{name} {sends[name]:.0f}" for name in most)
        lines.append(f"out_axons: alone fill {least} cores ({shares})")
    return DoesNotFit(f"{chip.title} is too small: {'; '.join(lines)}", violations=lines, too_small=True)


def _pack(
    pieces: Mapping[str, list[Slice]],
    measure: _Measure,
    limits: Mapping[str, int],
    chip: Chip,
    together: bool,
) -> list[list[Slice]]:
    """Return cores, first-fit; every slice must fit an empty one.

    `together`: slices of a population that is cut go only where others of it are, or into an empty core.
    """
    cores: list[list[Slice]] = []
    totals: list[dict[str, int]] = []
    shared: list[Present] = []
    for piece in [piece for slices in pieces.values() for piece in slices]:
        for index in range(len(cores) + 1):
            apart = together and len(pieces[piece[0]]) > 1 and index < len(cores)
            if apart and cores[index][-1][0] != piece[0]:
                continue
            if index == len(cores):
                cores.append([])
                totals.append(dict.fromkeys(limits, 0))
                shared.append({})
            added = measure.piece(piece, shared[index])
            if all(totals[index][key] + added[key] <= limits[key] for key in limits):
                cores[index].append(piece)
                totals[index] = {key: totals[index][key] + added[key] for key in limits}
                measure.add(piece, shared[index])
                break
        if len(cores) > 4 * chip.cores:
            raise _too_small(f"more than {4 * chip.cores} needed", measure, limits, chip)
    return cores


def _words(p: Population) -> int:
    """Return the words that a neuron's states, bias and own registers take."""
    own = [key for key, array in p.parameters.items() if array.size > 1 and not key.startswith("bias")]
    return len(p.kind.states) + 1 + (len(own) if p.kind.programmable else 0)


class _Measure:
    """What slices use of a core."""

    def __init__(self, network: QuantizedNetwork, chip: Chip) -> None:
        self.network, self.chip = network, chip
        self._sizes = {p.name: p.size for p in network.nodes}
        self._words = {p.name: _words(p) for p in network.populations}
        self._arriving = {
            p.name: [edge for edge in network.projections if edge.target == p.name]
            for p in network.populations
        }
        self._bits: dict[Slice, int] = {}
        self._heard: dict[Slice, dict[str, Indices]] = {}
        # Up to each target: synapses, and targets that have any.
        self._nonzero = {
            (edge.name, i): np.cumsum([[0, 0], *np.stack([table.fan_in, table.fan_in > 0], axis=1)], axis=0)
            for edge in network.projections
            for i, table in enumerate(edge.tables)
        }
        # How many cores hear each neuron: at least one, if anybody does; learnt while packing.
        self.reach = {p.name: np.zeros(p.size, np.int64) for p in network.populations}
        for p in network.populations:
            for source, index in self.heard((p.name, 0, p.size)).items():
                if source in self.reach:
                    self.reach[source][index] = 1

    def heard(self, piece: Slice) -> dict[str, Indices]:
        """Return the neurons of each source that a slice has a weight from, by index."""
        if piece not in self._heard:
            name, start, stop = piece
            masks: dict[str, npt.NDArray[np.bool_]] = {}
            for edge in self._arriving[name]:
                mask = masks.setdefault(edge.source, np.zeros(self._sizes[edge.source], bool))
                for table in edge.tables:
                    rows = table.nonzero.indptr
                    mask[table.nonzero.indices[rows[start] : rows[stop]]] = True
            self._heard[piece] = {source: np.flatnonzero(mask) for source, mask in masks.items()}
        return self._heard[piece]

    def forget(self, pieces: list[Slice]) -> None:
        """Drop what is known of slices that were cut further."""
        for piece in pieces:
            self._heard.pop(piece, None)
            self._bits.pop(piece, None)

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

    def _state_bits(self, name: str, n: int) -> int:
        # The chip's figure is for two states and a bias.
        return n * self.chip.neuron_state_bits * self._words[name] // 3

    def least_bits(self, name: str) -> int:
        """Memory that a population's state and synapses take at the least, however it is cut."""
        total = self._state_bits(name, self._sizes[name])
        for edge in self._arriving[name]:
            for table in edge.tables:
                word = table.bits + (self.chip.delay_bits if edge.delay_steps else 0)
                total += int(np.minimum(table.shape[1] * word, table.fan_in * (word + 1)).sum())
        return total

    def piece(self, piece: Slice, present: Present) -> dict[str, int]:
        """What a slice adds to a core that already has the input axons of `present`."""
        name, start, stop = piece
        n = stop - start
        in_axons = 0
        for source, index in self.heard(piece).items():
            there = present.get(source)
            in_axons += len(index) if there is None else int(np.count_nonzero(~there[index]))
        out_axons = int(self.reach[name][start:stop].sum())
        bits = self._state_bits(name, n) + self.synapse_bits(piece)
        bits += (in_axons + out_axons) * self.chip.axon_bits
        return {"neurons": n, "memory_bits": bits, "in_axons": in_axons, "out_axons": out_axons}

    def add(self, piece: Slice, present: Present) -> None:
        """Note in `present` the input axons that a slice brings to its core."""
        for source, index in self.heard(piece).items():
            present.setdefault(source, np.zeros(self._sizes[source], bool))[index] = True

    def reached(self, cores: list[list[Slice]]) -> dict[str, npt.NDArray[np.int64]]:
        """Return how many cores hear each neuron of each population."""
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
        """Raise the number of cores that hear each neuron to what a packing has."""
        self.reach = {name: np.maximum(reach, reached[name]) for name, reach in self.reach.items()}

    def core(self, slices: list[Slice], reached: Mapping[str, npt.NDArray[np.int64]]) -> dict[str, int]:
        """Use of one core when all are packed."""
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
