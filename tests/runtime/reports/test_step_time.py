"""The bound of a step's time: by hand, against loops over synapses, and from a user's rates."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.mapping.dense_graphs import dense_graph

from snn_compile.compiler.pipeline import Options, compile_graph
from snn_compile.runtime import compare
from snn_compile.runtime.execution.core_counters import count_cores
from snn_compile.runtime.execution.run import simulate
from snn_compile.runtime.reports.step_time import core_synops, core_words, step_time
from snn_compile.targets import load_program
from snn_compile.targets.chips.chip import load_chip
from snn_compile.targets.costs.step_rates import load_rates
from snn_compile.targets.errors import ChipError
from snn_compile.targets.program.program import Program

ROOT = Path(__file__).resolve().parents[3]
INPUTS = np.array([[[1, 0], [1, 1], [0, 0]]])
RATES = """
source = "invented"
hardware = "a test"
synaptic_op_ns = [1, 2]
memory_word_ns = 7
mesh_link_bits_per_ns = [0.5, 1]
message_bits = 12
barrier_ns = 3
"""


def _chip(folder: Path, rates: str = "mine.toml") -> Path:
    """Write the chip of loihi2's file under another name, with rates beside it."""
    (folder / "mine.toml").write_text(RATES)
    text = (ROOT / "targets/chips/loihi2.toml").read_text()
    text = text.replace('name = "loihi2"', 'name = "other"').replace('rates = "loihi2"', f'rates = "{rates}"')
    (folder / "other.toml").write_text(text)
    return folder / "other.toml"


def test_terms_by_hand_with_published_rates(three: Program) -> None:
    counts = simulate(three, INPUTS).counts
    assert counts is not None
    found = step_time(three, counts)
    assert found is not None
    terms = {term.name: term for term in found.terms}
    # Five synops in three steps on core 0 and four on core 1; two neurons and one.
    assert terms["synaptic operations"].ns == pytest.approx((5 / 3 * 0.66, 5 / 3 * 0.66))
    assert (terms["neuron operations"].ns, terms["neuron operations"].place) == ((8.0, 8.0), "core 0")
    assert (found.binding.name, found.bound_ns) == ("neuron operations", (8.0, 8.0))
    left = {"synapse-memory reads", "mesh link", "barrier"}
    assert set(found.json()["left_out"]) == left and all(terms[name].ns is None for name in left)
    # Four messages over tiles 0,0 - 1,0 - 2,0 - 2,1.
    assert (
        terms["mesh link"].per_step == pytest.approx(4 / 3) and terms["mesh link"].place == "tile 0,0 to 1,0"
    )
    assert found.latency_steps == 2 and found.json()["sample_ns"] == [24.0, 24.0]
    assert found.static_pj == pytest.approx((0.232078 * 24 * 1000,) * 2)


def test_terms_by_hand_with_a_users_rates(three: Program, tmp_path: Path) -> None:
    chip = load_chip(str(_chip(tmp_path)))
    program = replace(three, chip="other", profile=chip.profile)
    counts = simulate(program, INPUTS).counts
    assert counts is not None
    # Weights of 20 in steps of 4 take 3 bits and a sign; with an index of 12 every row is one word.
    assert core_words(program, counts) == {0: 3, 1: 4}
    found = step_time(program, counts)
    assert found is not None
    terms = {term.name: term.ns for term in found.terms}
    assert terms["synaptic operations"] == pytest.approx((5 / 3, 10 / 3))
    assert terms["neuron operations"] is None and terms["barrier"] == (3, 3)
    assert terms["synapse-memory reads"] == pytest.approx((28 / 3, 28 / 3))
    assert terms["mesh link"] == pytest.approx((4 / 3 * 12, 4 / 3 * 24))
    assert (found.binding.name, found.binding.place) == ("mesh link", "tile 0,0 to 1,0")
    assert found.bound_ns == pytest.approx((16, 32)) and found.static_pj is None
    program.save(tmp_path / "p.snn")
    (tmp_path / "mine.toml").unlink()
    loaded = load_program(tmp_path / "p.snn")
    assert loaded.target.step_rates == chip.rates and loaded.digest() == program.digest()


def test_a_step_of_several_chips_waits_for_the_links_between(three: Program) -> None:
    beyond = three.target.cores
    apart = replace(
        three,
        cores=(three.cores[0], replace(three.cores[1], index=beyond)),
        routes=(three.routes[0], replace(three.routes[1], destinations=(beyond,))),
        chips=2,
    )
    counts = simulate(apart, INPUTS).counts
    assert counts is not None
    found = step_time(apart, counts)
    assert found is not None
    # A message of 12 bytes at 8 bit x 800 MHz takes 15 ns.
    assert (found.binding.name, found.binding.place) == ("link between chips", "chip 0 to 1")
    assert found.bound_ns == pytest.approx((4 / 3 * 15, 4 / 3 * 15))


def test_no_rates_or_no_cores_no_bound(three: Program, tmp_path: Path) -> None:
    chip = replace(load_chip(str(_chip(tmp_path))), rates=None, rates_table="")
    for program in (replace(three, chip="other", profile=chip), replace(three, cores=(), routes=())):
        counts = simulate(program, INPUTS).counts
        assert counts is not None and step_time(program, counts) is None
        report = compare(program, None, INPUTS)
        assert report.json()["step_time"] is None and "A step takes" not in report.text()


@pytest.mark.parametrize("mapper", ["best", "vendor"])
def test_core_synops_are_those_of_every_synapse(mapper: str) -> None:
    program = compile_graph(dense_graph((300, 500, 130, 10), 3), options=Options(mapper=mapper))
    assert len(program.cores) > 1
    rng = np.random.default_rng(3)
    data = (rng.random((2, 4, *program.inputs[0].shape)) < 0.5).astype(float)
    counts = simulate(program, data).counts
    assert counts is not None
    by_core = core_synops(program, counts)
    assert sum(by_core.values()) == counts.total_synops > 0
    each_step = count_cores(program, data).values["synops"]
    assert each_step.sum(axis=(0, 1)).tolist() == [by_core[core.index] for core in program.cores]
    for core in program.cores:
        total = 0
        for name, start, stop in core.slices:
            for edge in program.projections:
                if edge.target == name:
                    rows = [table.dense()[start:stop] != 0 for table in edge.tables]
                    total += int(sum(row.sum(axis=0) @ counts.neuron_spikes[edge.source] for row in rows))
        assert by_core[core.index] == total


@pytest.mark.parametrize(
    ("rates", "message"),
    [
        ("none.toml", "time.rates: no table of rates at"),
        ("loihi", "time.rates: no table of rates named 'loihi'"),
    ],
)
def test_a_chip_names_rates_that_are_not_there(tmp_path: Path, rates: str, message: str) -> None:
    with pytest.raises(ChipError, match=f"^other.toml: {message}"):
        load_chip(str(_chip(tmp_path, rates)))


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("[1, 2]", "[2, 1]", "synaptic_op_ns is \\[2, 1\\]; it must be a number, or \\[low, high\\]"),
        ("[1, 2]", "[1, 2, 3]", "it must be a number, or"),
        ("[1, 2]", "-1", "it must be 0 or more"),
        ("[1, 2]", '"1"', "it must be a number, or"),
        ("[1, 2]", "true", "it must be a number, or"),
        ("[1, 2]", "[nan, nan]", "it must be"),
        ("barrier_ns", "barier_ns", "did you mean barrier_ns"),
    ],
)
def test_a_mistake_in_rates(tmp_path: Path, before: str, after: str, message: str) -> None:
    (tmp_path / "odd.toml").write_text(RATES.replace(before, after, 1))
    with pytest.raises(ChipError, match=f"^odd.toml: .*{message}"):
        load_rates("odd.toml", tmp_path)
