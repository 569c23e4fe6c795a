"""`spread`: more cores than the fewest, for a shorter step."""

from __future__ import annotations

import numpy as np
import pytest
from support.mapping.cores import chip, network, population, projection
from support.mapping.dense_graphs import dense_graph

from snn_compile.compiler import Options, compile_graph
from snn_compile.compiler.mapping.partition import partition
from snn_compile.compiler.mapping.work import Work
from snn_compile.targets import InputPort
from snn_compile.targets.errors import CompileError


@pytest.mark.parametrize("seed", range(6))
def test_more_cores_make_a_shorter_step(seed):
    rng = np.random.default_rng(seed)
    sizes = {"in": 40, "a": 150, "b": 90, "c": 30}
    edges = [("in", "a"), ("a", "b"), ("b", "c"), ("b", "b")]
    made = network(
        [population(name, sizes[name]) for name in "abc"],
        [projection(rng, s, t, (sizes[t], sizes[s]), 0.6) for s, t in edges],
        [InputPort("in", (sizes["in"],))],
    )
    target = chip(synapse_words=4000, words=5000)
    rates = {name: rng.random(size) for name, size in sizes.items()}
    work = Work(made, target, rates)
    longest = {}
    for spread in (None, 4, 8, 16):
        split = partition(made, target, rates=rates, spread=spread)
        assert len(split.cores) <= (spread or len(split.cores))
        longest[spread] = max(
            sum(float(work.neuron_ns[name][a:b].sum()) for name, a, b in core) for core in split.cores
        )
    assert len(partition(made, target, rates=rates).cores) < 4
    assert longest[16] < longest[8] < longest[4] < longest[None]


@pytest.mark.parametrize("spread", [0, -1, 121])
def test_a_spread_over_cores_that_are_not_there_is_refused(spread):
    with pytest.raises(CompileError, match=f"spread over {spread} cores"):
        compile_graph(dense_graph([4, 6], 0), options=Options(spread=spread))


@pytest.mark.parametrize(("target", "mapper"), [("loihi2", "vendor"), ("unbounded", "best")])
def test_a_spread_that_would_do_nothing_is_refused(target, mapper):
    with pytest.raises(CompileError, match="takes none, leave it out"):
        compile_graph(dense_graph([4, 6], 0), target, Options(spread=2, mapper=mapper))


def test_a_spread_changes_no_result(rng):
    graph = dense_graph([30, 60, 20], 1)
    data = (rng.random((3, 12, 30)) < 0.3).astype(float)
    few = compile_graph(graph, calibration=data)
    many = compile_graph(graph, calibration=data, options=Options(spread=8))
    assert len(many.cores) > len(few.cores)
    for name in ("populations", "projections"):
        assert repr(getattr(few, name)) == repr(getattr(many, name))
