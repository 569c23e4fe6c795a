"""Counters per core and step add up to the counts of the run, on random programs and mappings."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.mapping.dense_graphs import dense_graph
from support.random_programs.programs import case

from snn_compile.compiler import Options, compile_graph
from snn_compile.compiler.mapping.route import route
from snn_compile.runtime import simulate
from snn_compile.runtime.cli.main import main
from snn_compile.runtime.execution.core_counters import COUNTERS, count_cores, save_counters
from snn_compile.runtime.reports.energy import count_traffic
from snn_compile.targets import Program
from snn_compile.targets.errors import WrongInput
from snn_compile.targets.program.program import Core


def mapped(program: Program, seed: int) -> Program:
    """Return a program whose neurons lie on cores drawn at random, in slices."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 7))
    held: list[list[tuple[str, int, int]]] = [[] for _ in range(count)]
    for p in program.populations:
        cuts = np.unique([0, p.size, *rng.integers(0, p.size + 1, 2)])
        for start, stop in zip(cuts[:-1], cuts[1:], strict=True):
            held[int(rng.integers(count))].append((p.name, int(start), int(stop)))
    full = [tuple(pieces) for pieces in held if pieces]
    cores = tuple(Core(i, (i // 2 % 8, i % 3), pieces, {}) for i, pieces in enumerate(full))
    return replace(program, cores=cores, routes=route(program, cores))


@pytest.mark.parametrize("seed", range(40))
def test_sums_over_cores_and_steps_are_the_counts(seed: int) -> None:
    drawn = case(seed)
    program = mapped(drawn.program, seed)
    found = count_cores(program, drawn.inputs)
    record = simulate(program, drawn.inputs)
    counts, traffic = record.counts, count_traffic(program, record.counts)
    assert counts is not None and traffic is not None
    total = {name: int(array.sum()) for name, array in found.values.items()}
    assert {array.shape for array in found.values.values()} == {
        (record.samples, record.steps, len(program.cores))
    }
    assert total["spikes"] == counts.total_spikes
    assert total["synops"] == counts.total_synops
    assert total["active_updates"] == counts.total_active_updates
    assert total["inactive_updates"] == counts.total_updates - counts.total_active_updates
    assert total["messages_out"] == traffic.messages
    assert (total["hops_east_west"], total["hops_north_south"]) == (
        traffic.hops_east_west,
        traffic.hops_north_south,
    )
    from_host = sum(
        len(r.destinations) * int(counts.neuron_spikes[r.source].sum()) for r in program.routes if r.core < 0
    )
    assert total["messages_in"] == total["messages_out"] + from_host
    for core in program.cores:
        spikes = sum(
            int(counts.neuron_spikes[name][start:stop].sum())
            for name, start, stop in core.slices
            if program.population(name).spiking
        )
        assert found.values["spikes"][:, :, core.index].sum() == spikes


def test_files_hold_every_core_and_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    data = (rng.random((5, 7, 40)) < 0.3).astype(float)
    program = compile_graph(
        dense_graph([40, 60, 5], 0), options=Options(rounding="nearest"), calibration=data
    )
    wanted = count_cores(program, data)
    program.save(tmp_path / "p.snn")
    np.savez(tmp_path / "d.npz", inputs=data)
    run = [str(tmp_path / "p.snn"), "--data", str(tmp_path / "d.npz"), "--counters"]
    assert main([*run, str(tmp_path / "c.csv")]) == 0
    with (tmp_path / "c.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 5 * 7 * len(program.cores)
    for name in COUNTERS:
        assert [int(row[name]) for row in rows] == wanted.values[name].reshape(-1).tolist(), name
    assert main([*run, str(tmp_path / "c.txt")]) == 1
    assert ".csv or .parquet" in capsys.readouterr().err and not (tmp_path / "c.txt").exists()
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is in the extra tables")
    save_counters(tmp_path / "c.parquet", program, data)
    table = parquet.read_table(tmp_path / "c.parquet").to_pydict()
    assert list(table) == ["sample", "step", "core", *COUNTERS]
    for name in ("sample", "step", "core", *COUNTERS):
        assert table[name] == [int(row[name]) for row in rows], name


def test_a_program_without_cores_is_refused() -> None:
    program = compile_graph(dense_graph([10, 5], 0), "unbounded")
    with pytest.raises(WrongInput, match="not mapped onto cores"):
        count_cores(program, np.zeros((1, 4, 10)))
