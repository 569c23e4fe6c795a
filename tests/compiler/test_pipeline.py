"""The pipeline as a whole: what small graphs become (golden), that it is the same every time, options,
observers and early stops."""

from __future__ import annotations

import json

import nir
import numpy as np
import pytest

from snn_compile.compiler import STAGES, Compilation, Options, compile_graph, compile_stages, lower
from snn_compile.compiler.contract.contract import Contract, Readout
from snn_compile.targets import Program, load_program
from snn_compile.targets.devices.device import execute
from snn_compile.targets.errors import ChipError, CompileError, WrongInput

ROW = np.array([0.5, -0.25, 0.125, 1.0, -0.75])


def rows(count: int, columns: int) -> np.ndarray:
    """Weights that are the same on every machine."""
    return np.resize(ROW, (count, columns)) * (1 + np.arange(count)[:, None] / 8)


def feed_forward(build):
    """Graded input, a biased layer, a read-out at latency 2."""
    layers = [nir.Affine(rows(4, 3), ROW[:4] / 4), build.lif(4, v_leak=0.25, v_threshold=0.5)]
    graph = build.chain(3, *layers, nir.Linear(rows(2, 4)), build.li(2))
    return graph, np.resize(np.arange(17) / 16, (2, 8, 3))


def recurrent(build):
    """Spike input, a recurrent current-based layer with a biased Affine in its cycle, soft reset."""
    nodes = {
        "input": build.port(nir.Input, 3),
        "fc": nir.Linear(rows(4, 3)),
        "cell": build.cuba(4, tau_mem=np.array([4.0, 5.0, 8.0, 16.0])),
        "back": nir.Affine(rows(4, 4) / 2, ROW[:4] / 8),
        "output": build.port(nir.Output, 4),
    }
    edges = [("input", "fc"), ("fc", "cell"), ("cell", "back"), ("back", "cell"), ("cell", "output")]
    contract = Contract(dt=1.0, reset="subtract", delays={("cell", "back"): 2})
    return build.graph(nodes, edges, contract), np.resize([0.0, 1.0, 1.0], (2, 8, 3))


def branches(build):
    """Two inputs, a skip connection that waits, a declared delay, two outputs."""
    nodes = {
        "left": build.port(nir.Input, 2),
        "right": build.port(nir.Input, 2, 2),
        "flat": nir.Flatten({"input": np.array([2, 2])}, start_dim=0),
        "first": build.lif(2),
        "fc": nir.Linear(rows(3, 2)),
        "fc2": nir.Linear(rows(3, 4)),
        "second": build.lif(3, v_reset=-0.125),
        "skip": nir.Linear(rows(3, 2)),
        "leak": build.li(3),
        "spikes": build.port(nir.Output, 3),
        "membrane": build.port(nir.Output, 3),
    }
    edges = [("left", "first"), ("first", "fc"), ("fc", "second"), ("right", "flat"), ("flat", "fc2")]
    edges += [("fc2", "second"), ("left", "skip"), ("skip", "leak"), ("second", "leak")]
    edges += [("second", "spikes"), ("leak", "membrane")]
    contract = Contract(
        dt=1.0, delays={("left", "skip"): 1}, readouts={"membrane": Readout("membrane", "last", "regress")}
    )
    data = {"left": np.resize([-1.0, 0.5, 0.25], (2, 6, 2)), "right": np.resize([0.0, 1.0], (2, 6, 2, 2))}
    return build.graph(nodes, edges, contract), data


GRAPHS = {"feed-forward": feed_forward, "recurrent": recurrent, "branches": branches}


@pytest.mark.parametrize("name", GRAPHS)
def test_what_small_graphs_become(build, golden, name):
    graph, data = GRAPHS[name](build)
    golden(f"compiler-{name}", compile_graph(graph, calibration=data).describe())


def test_what_a_graph_becomes_without_data_on_few_bits(build, golden):
    graph, _ = feed_forward(build)
    program = compile_graph(graph, options=Options(weight_bits=3, tables="one"))
    golden("compiler-no-data-3-bits", program.describe())


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


@pytest.mark.parametrize("name", GRAPHS)
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
    with pytest.raises(CompileError, match="lower, freeze_rates, release_fixed_integers, simplify, retime"):
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
