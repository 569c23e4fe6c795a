"""Convolutions on cores: positions share the rows of a kernel, and cuts follow what positions receive."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from support.mapping.cores import LOIHI2, check, chip, network, population, row_bits

from snn_compile.compiler import QuantizedNetwork
from snn_compile.compiler.linear_maps import convolution_map
from snn_compile.compiler.mapping.partition import MAPPERS, partition
from snn_compile.targets import InputPort, Projection, WeightTable
from snn_compile.targets.errors import DoesNotFit
from snn_compile.targets.program.kernels import shared_kernel


def sources_of(made: QuantizedNetwork, core) -> set[tuple[str, int]]:
    """Count by brute force the source neurons that a core has a weight from."""
    found = set()
    for name, start, stop in core:
        for e in made.projections:
            if e.target == name:
                for t in e.tables:
                    found |= {(e.source, int(i)) for i in np.nonzero(t.dense()[start:stop].any(axis=0))[0]}
    return found


def convolution(rng, shape, channels: int, size: int, stride: int) -> tuple[WeightTable, tuple[int, ...]]:
    """A table of a random kernel with zeros, and the shape that it makes."""
    kernel = rng.integers(1, 100, (channels, shape[0], size, size)) * (
        rng.random((channels, shape[0], 1, 1)) < 0.7
    )
    made = convolution_map(2.0 * kernel, shape, (stride, stride), (0, 0), (1, 1), 1, None, "conv")
    return WeightTable(csr_array(made.weight).astype(np.int16), bits=8), made.shape


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 2), st.integers(40, 120), st.sampled_from([30, 120]))
def test_axons_of_convolutions_are_those_a_brute_force_count_finds(seed, stride, in_axons, cores):
    rng = np.random.default_rng(seed)
    shapes = [(2, 9, 8)]
    tables = []
    for channels in (3, 4):
        table, shape = convolution(rng, shapes[-1], channels, 3, stride)
        tables.append(table)
        shapes.append(shape)
    names = ["in", "a", "b"]
    made = network(
        [
            replace(population(n, int(np.prod(s))), shape=s)
            for n, s in zip(names[1:], shapes[1:], strict=True)
        ],
        [Projection(f"{s}-{t}", s, t, (w,)) for s, t, w in zip(names, names[1:], tables, strict=False)],
        [InputPort("in", shapes[0])],
    )
    target = replace(chip(in_axons=in_axons, out_axons=150, words=700, synapse_words=600), cores=cores)
    whole = [(p.name, 0, p.size) for p in made.populations]
    assert check(made, target) > 1 or len(sources_of(made, whole)) <= in_axons


def test_convolutions_are_cut_where_they_share_axons():
    """Layers whose rows receive a few rows: cutting by channels would bring every core the whole image."""
    rng = np.random.default_rng(0)
    first, shape = convolution(rng, (3, 20, 20), 4, 3, 1)
    second, last = convolution(rng, shape, 4, 3, 1)
    made = network(
        [
            replace(population("a", int(np.prod(shape))), shape=shape),
            replace(population("b", int(np.prod(last))), shape=last),
        ],
        [Projection("in-a", "in", "a", (first,)), Projection("a-b", "a", "b", (second,))],
        [InputPort("in", (3, 20, 20))],
    )
    target = chip(in_axons=420)
    cores = partition(made, target).cores
    assert check(made, target) == len(cores)
    # 8 x 8 positions of b receive 10 x 10 in 4 channels, 400 neurons, and 18 x 18 x 4 of them need 4 cores.
    assert len([core for core in cores if any(name == "b" for name, _, _ in core)]) == 4


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**32),
    st.integers(1, 2),
    st.integers(20, 300),
    st.integers(30, 200),
    st.sampled_from(MAPPERS),
)
def test_positions_of_a_core_share_the_rows_of_a_kernel(seed, stride, neurons, words, mapper):
    rng = np.random.default_rng(seed)
    table, shape = convolution(rng, (2, 9, 8), 5, 3, stride)
    made = network(
        [replace(population("a", int(np.prod(shape))), shape=shape)],
        [Projection("in-a", "in", "a", (table,))],
        [InputPort("in", (2, 9, 8))],
    )
    memory = replace(LOIHI2.memory, words=neurons + 4 * words, synapse_words=words)
    target = replace(LOIHI2, memory=memory, core_neurons=neurons)
    kernel = shared_kernel(table.weights, shape, (2, 9, 8))
    try:
        split = partition(made, target, mapper)
    except DoesNotFit as error:
        assert error.violations[0].startswith("synapse_words") and words < kernel.rows * 2
        return
    for core, use in zip(split.cores, split.use, strict=True):
        held = np.concatenate([np.arange(start, stop) for _, start, stop in core])
        channels = np.unique(np.unravel_index(held, shape)[0])
        taps = kernel.weights[channels].any(axis=0).sum()
        lengths = (kernel.weights[channels].any(axis=(2, 3)).sum(axis=0) * row_bits(table) + 8) / 64
        # Each block on a core, a group of neurons, has rows and population axons of its own.
        blocks = use["groups"]
        assert taps * 2 <= use["synapse_words"] <= blocks * taps * (1 + np.ceil(lengths.max()))
        assert (use["in_axons"], use["neurons"]) == (blocks * stride, len(held))
