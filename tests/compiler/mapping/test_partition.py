"""Partition, place and route: every neuron on one core, no core over its limits, every spike where it is
received; and none of it changes a result. Use is recomputed here from the rule in core_memory's docstring."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.mapping.cores import LOIHI2, check, chip, network, population, projection, used

from snn_compile.compiler import QuantizedNetwork, compile_graph
from snn_compile.compiler.mapping.core_memory import RESOURCES, core_limits
from snn_compile.compiler.mapping.partition import MAPPERS, partition
from snn_compile.compiler.mapping.place import place
from snn_compile.compiler.mapping.route import route
from snn_compile.targets import InputPort, Program, Projection, load_chip
from snn_compile.targets.devices.device import execute
from snn_compile.targets.errors import DoesNotFit


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
