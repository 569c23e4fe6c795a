"""Partition, place and route: every neuron on one core, no core over its limits, every spike where it is
received; and none of it changes a result. Use is recomputed here from the rule in core_memory's docstring."""

from __future__ import annotations

import time
from dataclasses import replace
from math import ceil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array

from snn_compile.compiler import QuantizedNetwork, compile_graph
from snn_compile.compiler.linear_maps import convolution_map
from snn_compile.compiler.mapping.core_memory import RESOURCES, core_limits
from snn_compile.compiler.mapping.partition import MAPPERS, partition
from snn_compile.compiler.mapping.place import place
from snn_compile.compiler.mapping.route import HOST, route
from snn_compile.targets import InputPort, OutputPort, Population, Program, Projection, WeightTable, load_chip
from snn_compile.targets.devices.device import execute
from snn_compile.targets.errors import DoesNotFit
from snn_compile.targets.program.kernels import shared_kernel

LOIHI2 = load_chip("loihi2")


def population(name: str, size: int, start: int = 1) -> Population:
    registers = {"du": 4095, "dv": 1000, "vth": 90, "bias_mant": 0, "bias_exp": 0, "v_init": 0}
    values = {key: np.array([value]) for key, value in registers.items()}
    return Population(name, (size,), "lif", values, start_step=start)


def projection(rng, source: str, target: str, shape: tuple[int, int], density=0.5, tables=1, delay=0):
    def table() -> WeightTable:
        return WeightTable((rng.random(shape) < density) * rng.integers(1, 100, shape) * 2, bits=8)

    return Projection(f"{source}-{target}", source, target, tuple(table() for _ in range(tables)), delay)


def network(populations, projections, inputs) -> QuantizedNetwork:
    outputs = (OutputPort("out", populations[-1].name),)
    return QuantizedNetwork(tuple(populations), tuple(projections), tuple(inputs), outputs, (), ())


def chip(**limits: int):
    """Loihi 2 with other limits, and rows that keep their shape: no kernel is shared."""
    words = {key: limits.pop(key) for key in ("words", "synapse_words") if key in limits}
    memory = replace(LOIHI2.memory, shared_kernels=False, **words)
    return replace(LOIHI2, memory=memory, **{f"core_{key}": value for key, value in limits.items()})


@st.composite
def cases(draw: st.DrawFn):
    """A random network and a chip with cores so small that populations must be cut."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    count = draw(st.integers(1, 5))
    sizes = {"in": draw(st.integers(1, 30)), **{f"p{i}": draw(st.integers(1, 60)) for i in range(count)}}
    edges = []
    for i in range(count):
        for source in draw(st.sets(st.sampled_from(["in", *(f"p{k}" for k in range(count))]), max_size=3)):
            shape = (sizes[f"p{i}"], sizes[source])
            more = (draw(st.sampled_from([0.05, 0.5, 1.0])), draw(st.integers(1, 2)), draw(st.integers(0, 2)))
            edges.append(projection(rng, source, f"p{i}", shape, *more))
    made = network(
        [population(f"p{i}", sizes[f"p{i}"]) for i in range(count)], edges, [InputPort("in", (sizes["in"],))]
    )
    limits = {
        "neurons": draw(st.integers(1, 40)),
        "groups": draw(st.integers(1, 8)),
        "words": draw(st.integers(60, 1000)),
        "in_axons": draw(st.integers(30, 300)),
        "out_axons": draw(st.integers(5, 300)),
    }
    limits["synapse_words"] = draw(st.integers(30, limits["words"]))
    return made, chip(**limits)


def sources_of(made: QuantizedNetwork, core) -> set[tuple[str, int]]:
    """Count by brute force the source neurons that a core has a weight from."""
    found = set()
    for name, start, stop in core:
        for e in made.projections:
            if e.target == name:
                for t in e.tables:
                    found |= {(e.source, int(i)) for i in np.nonzero(t.dense()[start:stop].any(axis=0))[0]}
    return found


def row_bits(table: WeightTable) -> int:
    """Bits of a weight: a sign, and what the largest needs in the table's steps of a power of two."""
    values = np.abs(table.dense().astype(int))
    while values.any() and not (values % 2).any():
        values = values // 2
    largest = int(values.max(initial=0))
    return max(min(int(np.ceil(np.log2(largest))) + 1 if largest > 1 else 1, table.bits), 1)


def used(made: QuantizedNetwork, target, core, dense=False) -> dict[str, int]:
    """Recompute what one core uses, row by row; a population's slices on it share the rows of its sources."""
    total = dict.fromkeys(("neurons", "synapse_words", "out_axons"), 0)
    sending = {e.source for e in made.projections} | {port.population for port in made.outputs}
    heard, held = set(), {}
    for name, start, stop in core:
        held.setdefault(name, []).extend(range(start, stop))
    for name, neurons in held.items():
        total["neurons"] += len(neurons)
        total["out_axons"] += len(neurons) * (name in sending)
        for e in (e for e in made.projections if e.target == name):
            for t in e.tables:
                word = row_bits(t) + target.memory.index_bits
                word += target.memory.delay_bits if e.delay_steps else 0
                for i, row in enumerate(t.dense()[neurons].T):
                    synapses = len(row) if dense else np.count_nonzero(row)
                    if synapses:
                        heard.add((e.source, i))
                        total["synapse_words"] += ceil((synapses * word + target.memory.row_bits) / 64)
    axons = len(heard) + total["out_axons"]
    words = total["synapse_words"] + 0.75 * (total["neurons"] + axons)
    return total | {"in_axons": len(heard), "words": ceil(words), "groups": len(held)}


def agrees(made: QuantizedNetwork, target, core, use, mapper) -> bool:
    """Whether a core's use is the recomputed one; blocks of one population on it have rows of their own."""
    found = used(made, target, core, mapper == "vendor")
    if mapper == "vendor" or use["groups"] == found["groups"]:
        return dict(use) == found
    merged = {"neurons", "in_axons", "out_axons"}
    return all(use[key] == found[key] if key in merged else use[key] >= found[key] for key in found)


def check(made: QuantizedNetwork, target, mapper="best") -> int:
    """Assert every property of a partition and return its number of cores."""
    split = partition(made, target, mapper)
    for p in made.populations:
        pieces = sorted((a, b) for core in split.cores for name, a, b in core if name == p.name)
        assert pieces[0][0] == 0 and pieces[-1][1] == p.size
        assert all(a < b for a, b in pieces)
        assert all(a[1] == b[0] for a, b in zip(pieces, pieces[1:], strict=False))
    limits = core_limits(target)
    assert split.limits == limits and tuple(limits) == RESOURCES
    for core, use in zip(split.cores, split.use, strict=True):
        assert core and agrees(made, target, core, use, mapper)
        assert all(use[key] <= limits[key] for key in RESOURCES)
    cores = place(split, target)
    assert [c.index for c in cores] == list(range(len(split.cores)))
    for c in cores[: target.cores]:
        assert c.slices == split.cores[c.index]
        assert 0 <= c.tile[0] < target.grid[0]
    tiles = [c.tile for c in cores]
    assert max(map(tiles.count, tiles)) <= target.cores_per_tile
    check_routes(made, cores)
    return len(cores)


def check_routes(made: QuantizedNetwork, cores) -> None:
    routes = route(made, cores)
    held = {c.index: {name for name, _, _ in c.slices} for c in cores}
    found = {(r.source, r.start, r.stop, r.core): set(r.destinations) for r in routes}
    assert len(found) == len(routes)
    pieces = [(p.name, 0, p.size, HOST) for p in made.inputs]
    pieces += [(name, a, b, c.index) for c in cores for name, a, b in c.slices]
    for piece in pieces:
        targets = {e.target for e in made.projections if e.source == piece[0]}
        wanted = {index for index, names in held.items() if names & targets}
        assert found.pop(piece, set()) == wanted
    assert not found


@settings(max_examples=150, deadline=None)
@given(cases(), st.sampled_from(MAPPERS))
def test_every_partition_is_whole_within_limits_and_routed(case, mapper):
    made, target = case
    try:
        check(made, target, mapper)
    except DoesNotFit as error:
        # Only one neuron alone that is too much for an empty core may stop a partition here.
        text, limits = str(error), core_limits(target)
        assert "one neuron of" in text and "\n" not in text and error.violations
        name = text.split("'")[1]
        single = [used(made, target, [(name, i, i + 1)], mapper == "vendor") for i in range(size(made, name))]
        over = [
            [f"{key} {one[key]} of {limits[key]}" for key in RESOURCES if one[key] > limits[key]]
            for one in single
        ]
        assert error.violations in over


def size(made: QuantizedNetwork, name: str) -> int:
    return next(p.size for p in made.populations if p.name == name)


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
    # A row of b receives 3 rows of 18 in 4 channels, 216 neurons: 3 rows of b fit 420 entries, so 6 cores do.
    assert 6 <= len([core for core in cores if any(name == "b" for name, _, _ in core)]) <= 9


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
        assert taps * 2 <= use["synapse_words"] <= taps * (1 + np.ceil(lengths.max())) <= 2 * taps
        assert (use["in_axons"], use["neurons"]) == (stride, len(held))


def test_a_chip_with_too_few_cores_says_what_fills_them():
    rng = np.random.default_rng(0)
    names = [f"p{i}" for i in range(4)]
    made = network(
        [population(name, 1000) for name in names],
        [projection(rng, a, b, (1000, 1000), 1.0) for a, b in zip(names, names[1:], strict=False)]
        + [projection(rng, "in", "p0", (1000, 2), 1.0)],
        [InputPort("in", (2,))],
    )
    with pytest.raises(DoesNotFit) as error:
        partition(made, replace(LOIHI2, cores=8))
    cores, synapses, words = error.value.violations
    assert "needed for 8 cores" in cores
    # A row of 1000 targets takes 301 or 313 words, and 1000 rows of them 26 cores.
    assert synapses.startswith("synapse_words alone fill 7") and "p1 2" in synapses and "words" in words
    cores = place(partition(made, replace(LOIHI2, cores=90)), LOIHI2)
    with pytest.raises(DoesNotFit) as error:
        Program("loihi2", 2, made.populations, made.projections, made.inputs, made.outputs, cores * 8)
    assert "each resource alone would fill: " in str(error.value)
    assert "largest are p" in str(error.value)


def test_layers_share_cores():
    rng = np.random.default_rng(0)
    sizes = {"in": 3, "a": 300, "b": 300, "c": 5, "d": 5}
    edges = [("in", "a"), ("in", "b"), ("a", "c"), ("b", "d")]
    made = network(
        [population(name, sizes[name]) for name in "abcd"],
        [projection(rng, s, t, (sizes[t], sizes[s]), 0.1) for s, t in edges],
        [InputPort("in", (3,))],
    )
    assert (check(made, LOIHI2), check(made, LOIHI2, "vendor")) == (1, 4)


@pytest.mark.parametrize("density", [0.02, 1.0])
def test_a_hundred_thousand_neurons_in_reasonable_time(density):
    rng = np.random.default_rng(0)
    shared = projection(rng, "p0", "p1", (1000, 1000), density).tables
    names = [f"p{i}" for i in range(100)]
    edges = [Projection(f"{a}-{b}", a, b, shared) for a, b in zip(names, names[1:], strict=False)]
    edges.append(projection(rng, "in", "p0", (1000, 20), 1.0))
    made = network([population(name, 1000) for name in names], edges, [InputPort("in", (20,))])
    began = time.process_time()
    if density == 1.0:
        with pytest.raises(DoesNotFit) as error:
            partition(made, LOIHI2)
            raise AssertionError("a chip of 120 cores does not hold 99 million dense weights")
        assert "cores" in str(error.value)
    else:
        assert len(partition(made, LOIHI2).cores) <= LOIHI2.cores
    assert time.process_time() - began < 20  # a guard against runaway loops, not a benchmark


def test_a_network_too_large_for_the_chip_says_everything_at_once(build, rng, spikes):
    layers = []
    for _ in range(4):
        layers += [
            build.linear(rng, 1024, layers[-1].tau.size if layers else 3),
            build.lif(1024, v_threshold=9),
        ]
    graph = build.chain(3, *layers, build.linear(rng, 4, 1024), build.lif(4))
    with pytest.raises(DoesNotFit) as error:
        compile_graph(graph, "loihi1-sim", calibration=spikes * 0.3)
    text = str(error.value)
    assert "\n" not in text and "payload" in text


def test_too_many_cores_and_other_limits_are_listed_together():
    rng = np.random.default_rng(0)
    names = [f"p{i}" for i in range(130)]
    edges = [projection(rng, "in", name, (1000, 1), 1.0) for name in names]
    edges.append(projection(rng, "p0", "p1", (1000, 1000), 0.01, delay=70))
    made = network(
        [population(name, 1000) for name in names], edges, [InputPort("in", (1,), "graded", 2.0, 8)]
    )
    target = load_chip("loihi1")
    cores = place(partition(made, target), target)
    assert len(cores) == 130
    with pytest.raises(DoesNotFit) as error:
        Program("loihi1", 2, made.populations, made.projections, made.inputs, made.outputs, cores)
    text = "; ".join(error.value.violations)
    assert len(error.value.violations) == 3
    assert "payload" in text and "delay 70" in text and "130 needed, 128 available" in text
    assert all(line in str(error.value) for line in error.value.violations)


def test_a_neuron_with_more_axons_than_a_core():
    made = network(
        [population("p", 3)],
        [projection(np.random.default_rng(0), "in", "p", (3, 5000), 1.0)],
        [InputPort("in", (5000,))],
    )
    target = chip(in_axons=4096)
    with pytest.raises(DoesNotFit) as error:
        partition(made, target)
    assert error.value.violations == ["in_axons 5000 of 4096"] and "'p'" in str(error.value)
    assert check(made, LOIHI2) == 1


def test_cores_change_no_result(build, rng, spikes):
    layers = [
        build.affine(rng, 30, 3),
        build.cuba(30),
        build.linear(rng, 9, 30),
        build.lif(9, v_threshold=0.1),
    ]
    program = compile_graph(build.chain(3, *layers), calibration=spikes)
    small = chip(neurons=4)
    quantized = QuantizedNetwork(
        program.populations, program.projections, program.inputs, program.outputs, (), ()
    )
    cores = place(partition(quantized, small), small)
    assert len(cores) > 5 > len(program.cores)
    many = replace(program, cores=cores, routes=route(quantized, cores))
    none = replace(program, cores=(), routes=())
    for device in ("oracle", "loihi2-sim"):
        records = [
            execute(p, spikes, device, record=["n1", "n3"], probes=["n1.u", "n1.v", "n3.v"])
            for p in (program, many, none)
        ]
        for record in records[1:]:
            for name in ("n1", "n3"):
                np.testing.assert_array_equal(record.spikes(name), records[0].spikes(name))
            for probe in ("n1.u", "n1.v", "n3.v"):
                np.testing.assert_array_equal(record.states(probe), records[0].states(probe))
        assert records[0].spikes("n3").any()
    with pytest.raises(DoesNotFit):
        replace(program, cores=cores * 20)
