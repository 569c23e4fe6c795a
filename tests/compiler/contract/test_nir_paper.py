"""The NIR paper's graphs (Pedersen et al. 2024), where the data is there, and the same with own data.

The published files stand beside the checkout, in ../shared/data; without them the tests that need them are
skipped, and the same behaviour is tested on self-made data.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import nir
import numpy as np
import pytest

from snn_compile.compiler import Options, compile_graph, lower
from snn_compile.compiler.contract.detect import detect
from snn_compile.compiler.frontends.nir import read_nir
from snn_compile.runtime import check, reference
from snn_compile.targets.devices.device import execute
from snn_compile.targets.program.program import (
    InputPort,
    OutputPort,
    Population,
    Program,
    Projection,
    WeightTable,
)

PAPER = Path(__file__).resolve().parents[4] / "shared" / "data" / "nir-paper"
needs_paper = pytest.mark.skipif(not PAPER.is_dir(), reason="no ../shared/data/nir-paper beside the checkout")
PUBLISHED = {"du": 4095, "dv": 163, "vth": 25}
"""Integers of the paper's Lava script for tau 2.5 ms, dt 0.1 ms, threshold 0.1; its weight is 10."""
BRAILLE = {"bias_zero": "value", "noBias_subtract": "subtract"}


@pytest.fixture(scope="module")
def frameworks() -> ModuleType:
    """test_frameworks.py with its simulation by hand."""
    spec = importlib.util.spec_from_file_location("frameworks", Path(__file__).parent / "test_frameworks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def one_neuron() -> Program:
    table = WeightTable(np.array([[10]]), 0, 8, "excitatory", 0)
    registers = {key: np.array([value]) for key, value in PUBLISHED.items()}
    return Program(
        "loihi2",
        1,
        (Population("n", (1,), "lif", registers),),
        (Projection("p", "x", "n", (table,)),),
        (InputPort("x", (1,)),),
        (OutputPort("y", "n"),),
    )


def integers_by_hand(spikes: np.ndarray) -> tuple[list[int], list[int]]:
    """Lava's LIF with the published integers; a spike arrives one step after it was sent."""
    v, trace, fired = 0, [], []
    for arriving in [0, *spikes[:-1]]:
        v = v * (4096 - 163) // 4096 + 64 * 10 * int(arriving)
        fired.append(int(v > 25 * 64))
        v = 0 if fired[-1] else v
        trace.append(v)
    return trace, fired


@pytest.mark.parametrize("device", ["oracle", "loihi2-sim", "lava-stepped"])
@pytest.mark.parametrize("source", ["own", pytest.param("published", marks=needs_paper)])
def test_the_published_integers_give_the_published_trace(device, source):
    if device == "lava-stepped":
        pytest.importorskip("lava")
    if source == "published":
        spikes, v, fired = np.loadtxt(PAPER / "lif_lava_cpu_fixed.csv", delimiter=",").T
    else:
        spikes = (np.random.default_rng(5).random(1000) < 0.1) * 1.0
        v, fired = integers_by_hand(spikes)
    assert len(spikes) == 1000 and sum(fired) >= 4
    inputs = {"x": spikes.reshape(1, -1, 1)}
    record = execute(one_neuron(), inputs, device, record=["n"], probes=["n.v"])
    np.testing.assert_array_equal(record.states("n.v").reshape(-1), v)
    np.testing.assert_array_equal(record.spikes("n").reshape(-1), fired)


@needs_paper
def test_the_papers_lif_is_nobodys_and_is_norses_with_its_flags(frameworks):
    graph = nir.read(PAPER / "lif_norse.nir")
    assert detect(graph) is None  # tau in seconds and r = 1: anybody could have written it
    contract = {"dt": 1e-4, "rule": "euler", "reset": "value", "reset_timing": "same_step", "comparison": ">"}
    spikes, v, fired = np.loadtxt(PAPER / "lif_norse.csv", delimiter=",").T
    inputs = spikes.reshape(1, -1, 1)
    sent = frameworks.simulate(graph, {**contract, "current_decay": "before"}, inputs)["1"]
    record = reference(lower(PAPER / "lif_norse.nir", contract), inputs, record=["1"], probes=["1.v"])
    np.testing.assert_array_equal(record.spikes("1"), sent)
    np.testing.assert_array_equal(record.spikes("1").reshape(-1), fired)
    np.testing.assert_allclose(record.states("1.v").reshape(-1), v, atol=1e-6)


@needs_paper
@pytest.mark.parametrize("form", ["flat", "nested"])
@pytest.mark.parametrize("name", BRAILLE)
def test_braille_under_its_stated_reset(frameworks, name, form):
    file = f"braille_noDelay_{name}" + (".nir" if form == "flat" else "_subgraph.nir")
    graph = read_nir(PAPER / file)
    found = detect(graph)
    assert found.exporter == "snntorch" and [u.item for u in found.unheld][:2] == ["reset", "reset_timing"]
    found = detect(graph, {"reset": BRAILLE[name]})
    assert [u.item for u in found.unheld][:1] == ["reset_timing"] and found.values["dt"] == 1e-4
    inputs = (np.random.default_rng(1).random((3, 100, 12)) < 0.4) * 1.0
    sent = frameworks.simulate(graph, found.values, inputs)
    record = reference(lower(graph, {"reset": BRAILLE[name]}), inputs, record=list(sent))
    for layer, spikes in sent.items():
        assert spikes.any()
        np.testing.assert_array_equal(record.spikes(layer), spikes)


@needs_paper
def test_the_papers_cnn_under_sinabs_defaults(frameworks):
    graph = nir.read(PAPER / "cnn_sinabs.nir")
    found = detect(graph)
    assert found.exporter == "sinabs" and {u.item for u in found.unheld} == {
        "spikes_per_step",
        "reset",
        "v_min",
        "tau_syn",
    }
    found = detect(graph, {"maker": "sinabs"})
    inputs = (np.random.default_rng(2).random((1, 20, 2, 34, 34)) < 0.1) * 1.0
    sent = frameworks.simulate(graph, found.values, inputs)
    record = reference(lower(graph, {"maker": "sinabs"}), inputs, record=list(sent))
    for layer, spikes in sent.items():
        assert spikes.any()
        np.testing.assert_array_equal(record.spikes(layer), spikes)


@needs_paper
@pytest.mark.parametrize("form", ["", "_subgraph"])
@pytest.mark.parametrize("name", BRAILLE)
def test_devices_agree_on_braille(name, form):
    path = PAPER / f"braille_noDelay_{name}{form}.nir"
    conventions = {"dt": 1e-4, "reset": BRAILLE[name], "reset_timing": "same_step"}
    inputs = (np.random.default_rng(3).random((4, 60, 12)) < 0.3) * 1.0
    program = compile_graph(path, options=Options(conventions=conventions), calibration=inputs)
    for device in ("oracle", "lava-stepped"):
        found = check(program, inputs, device)
        assert found.difference is None, str(found)
    assert found.record.counts.total_spikes > 0


@needs_paper
def test_devices_agree_on_the_papers_cnn():
    inputs = (np.random.default_rng(4).random((2, 12, 2, 34, 34)) < 0.1) * 1.0
    options = Options(conventions={"maker": "sinabs"})
    program = compile_graph(PAPER / "cnn_sinabs.nir", options=options, calibration=inputs)
    for device in ("oracle", "lava-stepped"):
        found = check(program, inputs, device)
        assert found.difference is None, str(found)
    assert all(spikes > 0 for spikes in found.record.counts.spikes.values())


@needs_paper
@pytest.mark.parametrize("name", BRAILLE)
def test_braille_in_integers_says_what_the_float_network_says(name):
    """As benchmarks/braille.py, on fewer inputs; test_calibrate.py does the same on a network of its own."""
    file = Path(__file__).resolve().parents[3] / "benchmarks" / "braille.py"
    spec = importlib.util.spec_from_file_location("braille_benchmark", file)
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    conventions = {"dt": 1e-4, "reset": BRAILLE[name], "reset_timing": "same_step"}
    rows = benchmark.measure(name, PAPER / f"braille_noDelay_{name}.nir", conventions, {}, 60, seed=5)
    assert not benchmark.failures(rows), rows
    assert [row["rate"] for row in rows] == [0.02, 0.05, 0.1] and max(row["tables"] for row in rows) == 2
    assert sum(row["v_low"] for row in rows) > 0
    # Another program fails: the bar is one that can be missed.
    plain = {"tables": "one", "rounding": "nearest"}
    coarse = benchmark.measure(name, PAPER / f"braille_noDelay_{name}.nir", conventions, plain, 60, seed=5)
    assert benchmark.failures(coarse)
