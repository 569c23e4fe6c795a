"""Costs of random programs: what must hold between counts, metrics, energies and times of any of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support import random_programs

from snn_compile.runtime.reports.energy import energy
from snn_compile.runtime.reports.layers import layers
from snn_compile.runtime.reports.neurobench import neurobench
from snn_compile.runtime.reports.quantized_ann import quantized_ann
from snn_compile.runtime.reports.step_time import core_synops, step_time
from snn_compile.targets.devices.device import execute
from snn_compile.targets.program.program import Core, Program


def _spread(program: Program, rng: np.random.Generator) -> Program:
    """Return the program with every population cut at a random place, a core per part; no routes."""
    slices = []
    for population in program.populations:
        cut = int(rng.integers(0, population.size + 1))
        slices += [(population.name, a, b) for a, b in ((0, cut), (cut, population.size)) if a < b]
    cores = tuple(Core(i, (i % 3, i // 3), (piece,), {}) for i, piece in enumerate(slices))
    return replace(program, cores=cores, routes=())


@pytest.mark.parametrize("first", [0, 1000])
def test_costs_of_random_programs_agree_with_their_counts(first: int) -> None:
    rng, bound, dense = np.random.default_rng(first), 0, set()
    for seed in range(first, first + 20):
        case = random_programs.case(seed, random_programs.SHORT_OTHERS)
        program = _spread(case.program, rng)
        counts = execute(program, case.inputs).counts
        assert counts is not None
        for layer, edge in zip(layers(program), program.projections, strict=True):
            reached = np.zeros(edge.tables[0].shape, bool)
            for table in edge.tables:
                reached |= table.dense() != 0
            np.testing.assert_array_equal(layer.fan_out, reached.sum(axis=0), err_msg=f"{seed} {edge.name}")
            assert layer.weights - layer.zeros <= reached.sum() <= layer.connections, (seed, edge.name)
            dense.add(layer.kind)
        found = neurobench(program, counts)
        effective = found.effective_acs + found.effective_macs
        assert effective * counts.samples <= counts.total_synops + 1e-6 and effective <= found.dense, seed
        assert found.activation_sparsity is None or 0 <= found.activation_sparsity <= 1
        for proxy in energy(program, counts):
            low, high = proxy.interval_pj
            assert 0 <= low <= high < np.inf, (seed, proxy.name)
        ann = quantized_ann(program, counts)
        assert 0 <= ann.macs <= found.dense and ann.per_sample_pj >= 0.3 * ann.macs - 1e-9, seed
        by_core = core_synops(program, counts)
        assert sum(by_core.values()) == counts.total_synops, seed
        time = step_time(program, counts)
        if time is not None:
            most = max(by_core.values()) / counts.samples / counts.steps
            widest = max(stop - start for core in program.cores for _, start, stop in core.slices)
            assert time.bound_ns[0] == pytest.approx(max(0.66 * most, 4.0 * widest)), seed
            bound += 1
    assert bound > 5 and {"dense", "sparse"} <= dense


def test_a_synapse_in_many_tables_is_one_connection() -> None:
    """Weights of several tables that would cancel in a sum are still there."""
    from snn_compile.runtime.reports.layers import _joined
    from snn_compile.targets.program.program import Projection
    from snn_compile.targets.program.weights import WeightTable

    rng = np.random.default_rng(5)
    for count in range(1, 6):
        drawn = [2 * rng.integers(-60, 61, (4, 5)) * (rng.random((4, 5)) < 0.5) for _ in range(count)]
        drawn.append(-drawn[0])
        joined = _joined(Projection("e", "a", "b", tuple(WeightTable(weights) for weights in drawn)))
        np.testing.assert_array_equal(joined.toarray() != 0, np.any(drawn, axis=0))
