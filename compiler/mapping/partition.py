"""Partition: cut populations into slices of neurons, and pack the slices into neurocores.

A slice goes into the first core with room (`core_memory.py` measures it). Splitting by target neurons repeats
input axons, not weights. The weights of a convolution are stored for every target: kernels shared within a
core are not modelled.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, prod

import numpy as np

from snn_compile.compiler.mapping.core_memory import CoreMemory, Present, Slice
from snn_compile.compiler.quantization.quantize import QuantizedNetwork
from snn_compile.targets.chips.chip import Chip
from snn_compile.targets.errors import DoesNotFit


@dataclass(frozen=True, eq=False)
class Partition:
    """Slices (population, start, stop) per core, and each core's use of its resources."""

    cores: tuple[tuple[Slice, ...], ...]
    use: tuple[Mapping[str, int], ...]
    limits: Mapping[str, int]


def partition(network: QuantizedNetwork, chip: Chip) -> Partition:
    """Return the cores a network needs; raises DoesNotFit with every violation when the chip has too
    few cores, or when a single neuron exceeds a core.

    Where first-fit packing needs more cores than the chip has, the slices of a population are kept together
    instead, so that each neuron has fewer target cores.
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
    measure = CoreMemory(network, chip)
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
            # Spikes go to more cores than assumed: pack again with the new counts.
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

    Neurons of (channels, height, width) are cut at the same places in every channel, rows first: neurons with
    the same receptive field then go to the same core, and share its input axons.
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


def _widest(slices: list[Slice], shape: tuple[int, ...], measure: CoreMemory) -> int:
    """Return the most input axons that the slices of one part of an image need over all channels."""
    if len(shape) != 3 or len(slices) == 1:
        return 0
    most = 0
    for first in range(0, len(slices), shape[0]):
        present: Present = {}
        for piece in slices[first : first + shape[0]]:
            measure.add(piece, present)
        most = max(most, sum(int(np.count_nonzero(mask)) for mask in present.values()))
    return most


def _impossible(name: str, measure: CoreMemory, limits: Mapping[str, int], chip: Chip) -> DoesNotFit:
    alone = [(name, 0, 1)]
    used = measure.core(alone, measure.reached([alone]))
    lines = [f"{key} {used[key]} of {limits[key]}" for key in limits if used[key] > limits[key]]
    # Alone it fits, but not with its target cores once all slices are placed.
    lines = lines or [f"out_axons {measure.reach[name].max()} of {limits['out_axons']}"]
    return DoesNotFit(
        f"one neuron of {name!r} exceeds a core of {chip.title}: " + "; ".join(lines), violations=lines
    )


def _too_small(found: str, measure: CoreMemory, limits: Mapping[str, int], chip: Chip) -> DoesNotFit:
    """Return the error for a chip with too few cores, with lower bounds that hold for any cut."""
    names = list(measure.reach)
    bits = {name: measure.least_bits(name) / limits["memory_bits"] for name in names}
    lines = [f"cores: {found} for {chip.cores} cores"]
    if (least := ceil(sum(bits.values()))) > chip.cores:
        most = sorted(names, key=lambda name: -bits[name])[:4]
        shares = ", ".join(f"{name} {bits[name]:.0f}" for name in most)
        lines.append(
            f"memory_bits: neurons and synapses alone fill {least} cores ({shares}); each target stores its "
            "own weights, also in a convolution"
        )
    sends = {name: reach.sum() / limits["out_axons"] for name, reach in measure.reach.items()}
    if (least := ceil(sum(sends.values()))) > chip.cores:
        most = sorted(names, key=lambda name: -sends[name])[:4]
        shares = ", ".join(f"{name} {sends[name]:.0f}" for name in most)
        lines.append(f"out_axons: alone fill {least} cores ({shares})")
    return DoesNotFit(f"{chip.title} is too small: {'; '.join(lines)}", violations=lines, too_small=True)


def _pack(
    pieces: Mapping[str, list[Slice]],
    measure: CoreMemory,
    limits: Mapping[str, int],
    chip: Chip,
    together: bool,
) -> list[list[Slice]]:
    """Pack slices into cores, first-fit; every slice must fit an empty core.

    `together`: slices of a population that is cut share cores with each other only.
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
