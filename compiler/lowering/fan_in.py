"""Fan-in that no core holds, made of relays: pools kept as a stage, and sums in parts.

A neuron needs an input axon and a row of synapses for each of its sources, so that a core's memory bounds
them. Two rewrites keep the network as it is, for one more synapse stage each:

    pools       sources whose weights are the same, as those of an average pool that was folded into the layer
                behind it, are added up by a relay, which sends their number
    partial     relays add up a part of the sources each, and send undivided sums; the neuron adds those

Relays have no memory and no delay, so that retiming aligns the stage with everything else. Their units are
those of `quantization/relays.py`: whole numbers, divided once, by the neuron.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil

import numpy as np
import numpy.typing as npt
from scipy.sparse import csc_array, csr_array, issparse

from snn_compile.compiler.network import Network, Population, Projection, Weight
from snn_compile.compiler.neurons.relay import MESSAGE_BITS
from snn_compile.targets.chips.chip import Chip
from snn_compile.targets.program.kernels import shared_kernel

Index = npt.NDArray[np.int64]

POOLED = 2 / 3
"""Groups per source, at most, from which sources that weigh the same are taken for a pool."""
SHARE = 2
"""A part takes one such share of the sources that a core holds: larger parts leave room for few neurons."""


@dataclass(frozen=True, eq=False)
class Relieved:
    """A network, and a line per stage that was put into it."""

    network: Network
    added: tuple[str, ...] = ()


def relieve_fan_in(network: Network, chip: Chip, weight_bits: int) -> Relieved:
    """Return the network with relays where neurons have more sources than a core of the chip holds.

    Pools are kept as a stage as well where that spares at least a core's memory. Chips whose messages are too
    short for a sum leave the network as it is.
    """
    if not chip.mapped or not chip.graded_messages or chip.message_bits_max < MESSAGE_BITS:
        return Relieved(network)
    relief = _Relief(network, chip, weight_bits)
    for population in network.populations:
        relief.relieve(population)
    return Relieved(relief.network, tuple(relief.added))


def most_sources(chip: Chip, weight_bits: int, delayed: bool = False) -> int:
    """Return how many sources a neuron may have at most, with a row of synapses for each."""
    memory = chip.memory
    bits = weight_bits + memory.index_bits + memory.row_bits + (memory.delay_bits if delayed else 0)
    row = ceil(bits / memory.word_bits)
    room = memory.words - ceil(memory.neuron_words + memory.out_axon_words) - 1
    return min(chip.core_in_axons, memory.synapse_words // row, int(room / (row + memory.in_axon_words)))


class _Relief:
    """The network as it becomes, and what was put into it."""

    def __init__(self, network: Network, chip: Chip, weight_bits: int) -> None:
        self.network, self.chip, self.bits = network, chip, weight_bits
        self.added: list[str] = []
        self.copied = {p.copies for p in network.populations if p.copies}

    def relieve(self, population: Population) -> None:
        """Put stages before one population where it needs them, or where a pool is cheaper as one."""
        if population.kind.relays or population.copies or population.name in self.copied:
            return
        if population.fixed_scale is not None or population.kind.input_units:
            return
        edges = [e for e in self.network.incoming(population.name) if not self._shares(e)]
        limit = most_sources(self.chip, self.bits, any(e.delay_steps for e in edges))
        counts = {e.name: _fan_in(e) for e in edges}
        for edge in sorted(edges, key=lambda e: -counts[e.name]):
            over = sum(counts.values()) > limit
            if counts[edge.name] > limit // 8 and (pool := self._pool(edge, over)):
                edge, counts[edge.name] = pool, _fan_in(pool)
            if sum(counts.values()) > limit and counts[edge.name] > limit // SHARE:
                counts[edge.name] = self._split(population, edge, max(limit // SHARE, 1))

    def _shares(self, edge: Projection) -> bool:
        if not self.chip.memory.shared_kernels:
            return False
        shapes = {node.name: node.shape for node in self.network.nodes}
        return shared_kernel(edge.weight, shapes[edge.target], shapes[edge.source]) is not None

    def _pool(self, edge: Projection, needed: bool) -> Projection | None:
        """Let a relay add up sources of equal weights; return the projection behind it, or None."""
        source = next((p for p in self.network.populations if p.name == edge.source), None)
        if source is None or not source.spiking or source.graded:
            return None
        if not _repeats(edge.weight):
            return None
        columns = csc_array(edge.weight)
        groups = _equal_columns(columns)
        shape, members = _windows(groups, source.shape)
        used = int((np.diff(columns.indptr) > 0).sum())
        size = int(np.prod(shape))
        cheaper = self._spares(used - size, size, edge) and not self._on_a_cycle(edge)
        if size > POOLED * used or not (needed or cheaper):
            return None
        name = self._name(f"{edge.target}.pool")
        first = np.zeros(size, np.int64)
        first[members[members >= 0]] = np.flatnonzero(members >= 0)
        inside = np.flatnonzero(members >= 0)
        ones = (np.ones(inside.size), (members[inside], inside))
        before = csr_array(ones, shape=(size, source.size))
        behind = Projection(
            f"{name}/{edge.target}", name, edge.target, csr_array(columns[:, first]), port=edge.port
        )
        self._put(edge, [(_relay(name, shape), before)], [behind], edge.delay_steps)
        self.added.append(
            f"{edge.name}: pooled spikes are a stage of {size:,} relays, so that a neuron has {size:,} "
            f"sources instead of {used:,}"
        )
        return behind

    def _spares(self, fewer: int, relays: int, edge: Projection) -> bool:
        """Whether a pool as a stage spares a core's memory or more."""
        memory = self.chip.memory
        targets = int(edge.weight.shape[0])
        row = max(targets * (self.bits + memory.index_bits) / memory.word_bits, 1.0)
        cost = relays * (memory.neuron_words + memory.out_axon_words)
        return bool(fewer * (row + memory.in_axon_words) - cost > memory.words)

    def _on_a_cycle(self, edge: Projection) -> bool:
        """Whether a projection's target reaches its source, so that a stage takes time from a cycle."""
        reached, left = {edge.target}, [edge.target]
        while left:
            name = left.pop()
            found = {e.target for e in self.network.projections if e.source == name} - reached
            reached |= found
            left += found
        return edge.source in reached

    def _split(self, population: Population, edge: Projection, most: int) -> int:
        """Let relays add up at most `most` sources each; return how many of them a neuron has."""
        rows = csr_array(edge.weight)
        columns = np.unique(rows.indices)
        parts = np.array_split(columns, ceil(columns.size / most))
        made, behind = [], []
        for number, part in enumerate(parts, 1):
            name = self._name(f"{population.name}.part{number}")
            keep = np.isin(rows.indices, part)
            entry = np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr))[keep]
            weight = csr_array((rows.data[keep], (entry, rows.indices[keep])), shape=rows.shape)
            made.append((_relay(name, population.shape), weight))
            size = population.size
            ones = csr_array((np.ones(size), (np.arange(size), np.arange(size))), shape=(size, size))
            behind.append(
                Projection(f"{name}/{population.name}", name, population.name, ones, port=edge.port)
            )
        self._put(edge, made, behind, edge.delay_steps)
        self.added.append(
            f"{edge.name}: {columns.size:,} sources are added up in {len(parts)} parts of at most "
            f"{max(map(len, parts)):,}, by relays that send undivided sums"
        )
        return len(parts)

    def _put(
        self,
        edge: Projection,
        relays: Sequence[tuple[Population, csr_array]],
        behind: Sequence[Projection],
        delay_steps: int,
    ) -> None:
        """Replace a projection by relays, the projections into them, and those behind them."""
        into = [
            Projection(f"{edge.source}/{relay.name}", edge.source, relay.name, weight, delay_steps)
            for relay, weight in relays
        ]
        projections: list[Projection] = []
        for one in self.network.projections:
            projections += [*into, *behind] if one.name == edge.name else [one]
        populations: list[Population] = []
        for p in self.network.populations:
            populations += [*(relay for relay, _ in relays), p] if p.name == edge.target else [p]
        self.network = replace(self.network, populations=tuple(populations), projections=tuple(projections))

    def _name(self, wanted: str) -> str:
        taken = {node.name for node in self.network.nodes}
        names = (wanted, *(f"{wanted}_{n}" for n in range(2, len(taken) + 3)))
        return next(name for name in names if name not in taken)


def _relay(name: str, shape: tuple[int, ...]) -> Population:
    return Population(name, shape, "relay", {"input_bias": np.zeros(1), "offset": np.zeros(1)})


def _fan_in(edge: Projection) -> int:
    """Return the sources of the neuron that has most of them."""
    if issparse(edge.weight):
        return int(np.diff(edge.weight.indptr).max(initial=0))
    return int(np.count_nonzero(edge.weight, axis=1).max(initial=0))


def _repeats(weight: Weight) -> bool:
    """Whether so many columns may be equal as a pool makes equal: a quick look at a random sum of each."""
    sums = weight.T @ np.random.default_rng(0).standard_normal(weight.shape[0])
    rounded = np.round(sums / max(float(np.abs(sums).max()), 1e-300), 9)
    return bool(np.unique(rounded).size <= POOLED * sums.size)


def _equal_columns(columns: csc_array) -> Index:
    """Return a number for each source, the same where weights are; -1 for sources without weights."""
    known: dict[tuple[bytes, bytes], int] = {}
    found = np.full(columns.shape[1], -1)
    for source in range(columns.shape[1]):
        part = slice(columns.indptr[source], columns.indptr[source + 1])
        if part.start < part.stop:
            key = (columns.indices[part].tobytes(), columns.data[part].tobytes())
            found[source] = known.setdefault(key, len(known))
    return found


def _windows(groups: Index, shape: tuple[int, ...]) -> tuple[tuple[int, ...], Index]:
    """Return the shape of relays and the relay of each source: windows of an image where groups are such."""
    if len(shape) == 3:
        image = groups.reshape(shape)
        rows, columns = (_longest_window(image, axis) for axis in (1, 2))
        after = (shape[0], shape[1] // rows, shape[2] // columns)
        if np.prod(after) <= POOLED * groups.size:
            members = np.full(shape, -1)
            place = np.arange(int(np.prod(after))).reshape(after)
            inside = np.repeat(np.repeat(place, rows, 1), columns, 2)
            members[:, : inside.shape[1], : inside.shape[2]] = inside
            return after, members.reshape(-1)
    return (int(groups.max(initial=-1)) + 1,), groups


def _longest_window(image: Index, axis: int) -> int:
    """Return the length of the longest windows along an axis in which groups are the same, 1 if none are.

    Sources behind the last whole window have no weights.
    """
    lines = np.moveaxis(image, axis, 0).reshape(image.shape[axis], -1)
    for length in range(len(lines), 1, -1):
        whole = len(lines) // length * length
        windows = lines[:whole].reshape(-1, length, lines.shape[1])
        if (windows == windows[:, :1]).all() and (lines[whole:] < 0).all():
            return length
    return 1
