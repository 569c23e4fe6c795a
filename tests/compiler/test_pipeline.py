"""The pipeline as a whole: what small graphs become (golden), that it is the same every time, options,
observers and early stops."""

from __future__ import annotations

import json

import nir
import numpy as np
import pytest
from support.exact_graphs import GRAPHS, branches, feed_forward, recurrent, rows, short_cycle

from snn_compile.compiler import STAGES, Compilation, Options, compile_graph, compile_stages, lower
from snn_compile.targets import Program, load_program
from snn_compile.targets.devices.device import execute
from snn_compile.targets.errors import ChipError, CompileError, WrongInput

OPTIONS = {
    "no-data-3-bits": (feed_forward, False, Options(weight_bits=3, tables="one")),
    "residual": (recurrent, True, Options(tables="residual")),
    "c-slow": (short_cycle, True, Options(c_slow=None)),
    "graded-12-bits": (branches, True, Options(input_bits=12, tables="group")),
}
"""Programs of options other than the default: graph, with calibration data or without, options."""


@pytest.mark.smoke
@pytest.mark.parametrize("name", GRAPHS)
def test_what_small_graphs_become(build, golden, name):
    graph, data = GRAPHS[name](build)
    golden(f"compiler-{name}", compile_graph(graph, calibration=data).describe())


@pytest.mark.parametrize("name", OPTIONS)
def test_what_options_make_of_a_graph(build, golden, name):
    source, calibrated, options = OPTIONS[name]
    graph, data = source(build)
    program = compile_graph(graph, options=options, calibration=data if calibrated else None)
    golden(f"compiler-{name}", program.describe())


@pytest.mark.parametrize("name", GRAPHS)
def test_the_same_every_time(build, name, tmp_path):
    first, again = (compile_graph(GRAPHS[name](build)[0], calibration=GRAPHS[name](build)[1]) for _ in "12")
    assert first.digest() == again.digest() and first.describe() == again.describe()
    first.save(tmp_path / "a.snn")
    again.save(tmp_path / "b.snn")
    assert (tmp_path / "a.snn").read_bytes() == (tmp_path / "b.snn").read_bytes()
    loaded = load_program(tmp_path / "a.snn")
    assert loaded.digest() == first.digest() and loaded.describe() == first.describe()
    data = GRAPHS[name](build)[1]
    np.testing.assert_array_equal(execute(loaded, data).outputs, execute(first, data, "oracle").outputs)


@pytest.mark.parametrize("name", [name for name in GRAPHS if name != "extension-neurons"])
def test_graph_file_and_network_give_the_same_integers(build, name, tmp_path):
    graph, data = GRAPHS[name](build)
    nir.write(tmp_path / "graph.nir", graph)
    programs = [
        compile_graph(source, calibration=data) for source in (graph, tmp_path / "graph.nir", lower(graph))
    ]
    probes = [f"{p.name}.v" for p in programs[0].populations]
    runs = [execute(program, data, probes=probes) for program in programs]
    for probe in probes:
        for run in runs[1:]:
            np.testing.assert_array_equal(run.states(probe), runs[0].states(probe))


def test_a_program_leads_back_to_what_it_was_made_from(build):
    graph, data = feed_forward(build)
    options = Options(weight_bits=7, provenance={"model": "mine.pt"})
    done = compile_stages(graph, options=options, calibration=data)
    facts = done.program.provenance
    assert facts["network"] == done.network.digest()
    assert facts["graph"] == done.network.source_digest == lower(graph).source_digest
    assert (facts["model"], facts["weight_bits"], facts["calibration_samples"]) == ("mine.pt", "7", "2")
    assert json.loads(facts["contract"])["dt"] == 1.0
    assert json.loads(facts["decided"])["dt"] == "metadata"
    other = compile_graph(graph, calibration=data * 0.9)
    assert other.provenance["network"] == facts["network"] and other.digest() != done.program.digest()


def test_stages_are_observed_in_order(build):
    graph, data = feed_forward(build)
    seen: list[tuple[str, object, float]] = []
    program = compile_graph(graph, calibration=data, observe=lambda *stage: seen.append(stage))
    assert tuple(name for name, _, _ in seen) == STAGES
    assert all(seconds >= 0 for _, _, seconds in seen)
    values = {name: value for name, value, _ in seen}
    assert values["quantize"].populations == program.populations
    assert values["place"] == program.cores and values["route"] == program.routes


@pytest.mark.parametrize("stage", STAGES)
def test_stopping_early(build, stage):
    graph, data = recurrent(build)
    seen: list[str] = []
    done = compile_stages(
        graph, calibration=data, stop_after=stage, observe=lambda name, value, seconds: seen.append(name)
    )
    assert isinstance(done, Compilation)
    reached = STAGES.index(stage)
    assert seen[-1] == stage and tuple(seen) == STAGES[: reached + 1]
    assert (done.retimed is not None) == (reached >= STAGES.index("retime"))
    assert (done.quantized is not None) == (reached >= STAGES.index("quantize"))
    assert isinstance(done.program, Program) == (stage == "route")
    assert (done.partition is not None) == (reached >= STAGES.index("partition"))
    assert (done.cores is not None) == (reached >= STAGES.index("place"))
    names = {p.name for p in done.network.populations}
    assert names == ({"cell", "cell.bias"} if stage == "simplify" else {"cell"})


@pytest.mark.parametrize(
    "options, words",
    [
        (Options(weight_bits=0), "1 to 8"),
        (Options(weight_bits=9), "1 to 8"),
        (Options(input_bits=0), "input message"),
        (Options(input_bits=25), "1 to 24"),
        (Options(tables="two"), "auto, one, sign"),
        (Options(conventions={"colour": 1}), "colour"),
    ],
)
def test_options_are_checked(build, options, words):
    with pytest.raises(CompileError) as error:
        compile_graph(feed_forward(build)[0], options=options)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_targets_and_stages_are_checked(build):
    graph, _ = feed_forward(build)
    with pytest.raises(ChipError, match="loihi1-sim, loihi2-sim"):
        compile_graph(graph, "loihi9")
    with pytest.raises(CompileError, match="lower, release_fixed_integers, simplify, retime"):
        compile_stages(graph, stop_after="polish")
    with pytest.raises(WrongInput, match=r"\(2, 8, 5\)"):
        compile_graph(graph, calibration=np.zeros((2, 8, 5)))


def test_tables_auto_is_the_finer_one_that_takes_no_more_cores(build):
    graph, data = recurrent(build)
    split, one, auto = (
        compile_graph(graph, options=Options(tables=how), calibration=data) for how in ("sign", "one", "auto")
    )
    assert auto.describe() == split.describe() != one.describe()
    assert [len(e.tables) for e in one.projections] == [1] * len(one.projections)


def test_a_declared_delay_longer_than_the_data(build):
    """Spikes that are due after the end of the run change nothing, and break nothing."""
    graph = build.chain(3, nir.Linear(rows(2, 3)), build.lif(2, v_leak=2.0), delays={("input", "n0"): 9})
    data = np.ones((2, 5, 3))
    program = compile_graph(graph, calibration=data)
    for device in ("oracle", "loihi2-sim"):
        np.testing.assert_array_equal(
            execute(program, data, device).outputs, execute(program, data * 0, device).outputs
        )
