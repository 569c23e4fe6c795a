"""Who wrote a file: recognised from its habits, and never where a habit is broken."""

from __future__ import annotations

import json
import re
from pathlib import Path

import nir
import numpy as np
import pytest

from snn_compile.compiler import lower
from snn_compile.compiler.contract.contract import CHOICES, Contract, attach
from snn_compile.compiler.contract.detect import detect
from snn_compile.compiler.contract.exporters import EXPORTERS
from snn_compile.compiler.contract.resolve import resolution, resolve
from snn_compile.compiler.contract.unheld import DROPPED
from snn_compile.compiler.reference import run_reference
from snn_compile.targets.errors import AmbiguousConvention, CompileError

FOLDER = Path(__file__).resolve().parents[2] / "data" / "frameworks"
FILES = {line["name"]: line for line in json.loads((FOLDER / "manifest.json").read_text())["files"]}
SHARED_BY_TWO = {"norse-if", "sinabs-iaf"}
"""IF of one number a layer and r = 1: Norse and sinabs write the same file and mean different networks."""
SAME_NUMBERS = {
    ("spikingjelly-cuba", "snntorch"),
    ("spikingjelly-lif", "snntorch"),
    ("sinabs-iaf", "spikingjelly"),
}
"""Files whose numbers another exporter could have written, though it names the ports differently."""
UNHELD = {
    "norse": {"dt", "reset", "v_reset"},
    "rockpool": {"spikes_per_step", "bias", "w_rec"},
    "sinabs": {"gain", "spikes_per_step", "reset", "v_min", "tau_syn"},
    "snntorch": {"reset", "reset_timing", "spike_amplitude", "inhibition", "state_quant"},
    "spikingjelly": {"dt"},
    "spyx": set(),
}
"""Items that an exporter's files may not hold."""


def read(name: str) -> nir.NIRGraph:
    return nir.read(FOLDER / f"{name}.nir", type_check=False)


def spiking(graph):
    return [n for n, node in graph.nodes.items() if hasattr(node, "v_threshold")]


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_its_makers(name):
    exporter = FILES[name]["framework"]
    found = detect(read(name))
    assert found.evidence and all(found.evidence)
    if name in SHARED_BY_TWO:
        assert found.exporter == "norse or sinabs" and set(found.candidates) == {"norse", "sinabs"}
        return
    assert found.exporter == exporter and not found.candidates and not found.warnings
    items = {u.item for u in found.unheld}
    assert items <= UNHELD[exporter] and FILES[name]["not_in_file"].keys() <= items
    words = [found.values, *found.values.get("nodes", {}).values()]
    assert all(w[item] in CHOICES[item] for w in words for item in w.keys() & CHOICES.keys())
    assert set(found.values.get("nodes", {})) <= read(name).nodes.keys()


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_nobody_elses_and_the_users_word_holds_with_a_warning(name):
    others = (
        set(EXPORTERS)
        - {FILES[name]["framework"]}
        - ({"norse", "sinabs"} if name in SHARED_BY_TWO else set())
    )
    for other in others:
        found = detect(read(name), {"maker": other})
        if (name, other) in SAME_NUMBERS:
            assert not found.warnings
            continue
        assert found.exporter == other and found.warnings, other
        assert all(f"maker={other} is stated, but " in text for text in found.warnings)
        assert found.values["comparison"] == resolve(read(name), {"maker": other})[0].comparison
        assert any(re.search("nodes? '", text) for text in found.warnings), found.warnings


@pytest.mark.parametrize("name", FILES)
def test_what_the_file_does_not_hold_is_assumed_and_with_strict_asked_for(name):
    exporter, graph = FILES[name]["framework"], read(name)
    stated = {"maker": exporter} if name in SHARED_BY_TWO else {}
    unheld = {u.item for u in detect(graph, stated).unheld}
    found = resolution(graph, stated)
    assert {a.item for a in found.assumptions} == unheld
    for one in found.assumptions:
        assert "\n" not in one.text and one.text.startswith("assumed ") and exporter in one.text
        assert f"{one.item}=" in one.text.split(" (")[0].split(": ")[0]
        if one.item in DROPPED:
            assert one.value == "none" and "no option restores " in one.text
            continue
        assert f"{one.item}=" in one.text.split("--convention", 1)[1]
        assert found.decided[one.item] == f"default of {exporter}"
        nodes = spiking(graph) if one.item not in ("dt", "gain", "spike_amplitude") else []
        for node in [n for n in nodes if not isinstance(one.value, dict)]:
            assert getattr(found.contract.of(node), one.item) == one.value or exporter == "norse"
    assert resolve(graph, stated) == (found.contract, found.decided)
    if not unheld:
        return
    with pytest.raises(AmbiguousConvention) as error:
        resolution(graph, stated, strict=True)
    text, missing = str(error.value), error.value.missing
    assert "\n" not in text and set(missing) == unheld
    assert all(f"{item}=" in text for item in missing)
    answers = {item: "none" if item in DROPPED else words[0] for item, words in missing.items()}
    told = resolution(graph, {**stated, **answers}, strict=True)
    assert not told.assumptions and all(told.decided[i] == "stated" for i in unheld - set(DROPPED))


@pytest.mark.parametrize("name", FILES)
def test_one_edited_number_is_no_fingerprint(name):
    for node in spiking(read(name)):
        graph = read(name)
        r = np.array(graph.nodes[node].r, np.float64)
        r.reshape(-1)[0] *= 1.01
        graph.nodes[node].r = r
        assert detect(graph) is None
        found = detect(graph, {"maker": FILES[name]["framework"]})
        assert any(repr(node) in text and "1 of" in text for text in found.warnings), found.warnings


@pytest.mark.parametrize(
    "name", [n for n, line in FILES.items() if line["framework"] not in ("norse", "spikingjelly")]
)
def test_a_leak_is_no_fingerprint_of_those_who_write_none(name):
    graph = read(name)
    for node in graph.nodes.values():
        if hasattr(node, "v_leak"):
            node.v_leak = node.v_leak + 0.1
            assert detect(graph) is None


@pytest.mark.parametrize("name", FILES)
def test_what_is_stated_wins_for_every_node(name):
    exporter = FILES[name]["framework"]
    stated = {"dt": 0.25, "comparison": ">", "gain": "unit", "spikes_per_step": "one", "v_init": 0.5}
    contract, decided = resolve(read(name), {**stated, "maker": exporter})
    for node in ("", *spiking(read(name))):
        own = contract.of(node)
        assert {key: getattr(own, key) for key in stated} == stated
    assert {decided[key] for key in stated} == {"stated"}


def test_metadata_is_asked_before_the_habits():
    graph = read("snntorch-leaky-zero")
    attach(graph, Contract(dt=1.0, reset="none"))
    contract, decided = resolve(graph)
    assert (contract.dt, contract.reset, decided["dt"]) == (1.0, "none", "metadata")


def test_the_maker_may_be_denied_and_must_be_known():
    graph = read("rockpool-lif")
    assert detect(graph, {"maker": "none"}) is None
    with pytest.raises(AmbiguousConvention) as error:
        resolve(graph, {"maker": "none"})
    assert set(error.value.missing) == {"dt", "rule", "reset", "reset_timing", "comparison"}
    with pytest.raises(CompileError, match="known are norse, rockpool, sinabs"):
        resolve(graph, {"maker": "brian"})


def test_snntorchs_zero_reset_depends_on_the_layer():
    found = detect(read("snntorch-rleaky-zero"), {"reset": "value"})
    assert found.values["reset_timing"] == "next_after"  # a recurrent layer loses the step's input
    assert found.values["nodes"] == {"3": {"reset_timing": "next_before"}}
    assert "nodes" not in detect(read("snntorch-synaptic-zero"), {"reset": "value"}).values
    stated = {"reset": "value", "reset_timing": "same_step"}
    found = detect(read("snntorch-rleaky-zero"), stated)
    assert found.values["reset_timing"] == "same_step" and "nodes" not in found.values
    found = detect(read("snntorch-leaky-zero"), {"nodes": {"3": {"reset": "value"}}})
    assert found.values["nodes"] == {"3": {"reset": "value", "reset_timing": "next_before"}}
    assert found.values["reset"] == "subtract"
    assert [(u.item, u.nodes) for u in found.unheld] == [
        ("reset", {"1": "subtract"}),
        ("reset_timing", {"1": "next_after"}),
        ("reset_timing", {"3": "next_before"}),
        ("spike_amplitude", {}),
        ("inhibition", {}),
        ("state_quant", {}),
    ]


def test_two_makers_that_agree_on_everything_asked_for_need_no_name(build):
    graph = read("norse-if")
    stated = {"dt": 1.0, "rule": "euler", "reset": "value", "reset_timing": "same_step", "comparison": ">"}
    assert resolve(graph, stated)[0].comparison == ">"


def neutral(build):
    """Graphs by hand that carry nobody's habits, or only some of them."""
    rng = np.random.default_rng(0)
    affine, linear = (lambda: build.affine(rng, 4, 3)), (lambda: build.linear(rng, 4, 3))
    taus = np.array([0.01, 0.02, 0.03, 0.04])
    cells = {
        "seconds": build.lif(4, tau=0.02, r=1.0),
        "resistance": build.lif(4, tau=0.02, r=3.0),
        "tau over another dt": build.lif(4, tau=taus, r=taus / 1e-3),
        "steps": build.lif(4, tau=10.0, r=1.0),
        "leak": build.lif(4, tau=taus, r=taus / 1e-4, v_leak=0.1),
        "reset": build.lif(4, tau=taus, r=taus / 1e-4, v_reset=-0.1),
        "half of it": build.cuba(4, tau_mem=taus, tau_syn=taus / 2, r=taus / 1e-4, w_in=1.0),
        "two steps": build.cuba(4, tau_mem=taus, tau_syn=taus, r=taus / 1e-4, w_in=taus / 2e-4),
        "almost rockpool": build.lif(4, tau=taus, r=taus * np.exp(-1e-3 / taus) / 1.001e-3),
        "if": nir.IF(np.ones(4), np.ones(4)),
        "li": build.li(4),
        "threshold": nir.Threshold(np.ones(4)),
    }
    for name, cell in cells.items():
        for between in (affine, linear):
            yield name, build.chain(3, between(), cell, no_contract=True)
    yield "no neuron", build.chain(3, affine(), no_contract=True)
    yield "no node", nir.NIRGraph({}, [], type_check=False)


def test_spyx_spikes_leave_a_step_late(build):
    rng, beta = np.random.default_rng(0), np.linspace(0.5, 0.9, 4)
    cell = build.lif(4, tau=1 / (1 - beta), r=beta)
    nodes = {
        "input": build.port(nir.Input, 3),
        "output": build.port(nir.Output, 4),
        "layer_0": build.linear(rng, 4, 3),
        "layer_1": cell,
        "layer_2": build.linear(rng, 4, 4),
        "layer_3": build.lif(4, tau=1 / (1 - beta), r=beta),
    }
    names = ["input", "layer_0", "layer_1", "layer_2", "layer_3", "output"]
    graph = build.graph(nodes, list(zip(names, names[1:], strict=False)), no_contract=True)
    found = detect(graph)
    assert found.exporter == "spyx" and not found.unheld
    assert found.values["delays"] == {("layer_1", "layer_2"): 1} and found.values["dt"] == 1
    assert (found.values["reset"], found.values["reset_timing"]) == ("subtract", "next_after")
    inputs = rng.integers(0, 2, (1, 30, 3)) * 1.0
    record = run_reference(lower(graph), inputs, record=["layer_1", "layer_3"])
    x, weights, shown = inputs[0], (nodes["layer_0"].weight, nodes["layer_2"].weight), {}
    for weight, layer in zip(weights, ("layer_1", "layer_3"), strict=True):  # spyx.nn.LIF.__call__
        v, sent = np.zeros(4), []
        for row in x:
            spikes = (v - 0.7 > 0) * 1.0
            v = beta * v + weight @ row - spikes * 0.7
            sent.append(spikes)
        x = shown[layer] = np.array(sent)
    assert x.any()
    for layer, spikes in shown.items():
        np.testing.assert_array_equal(record.spikes(layer)[0, :-1], spikes[1:])


def test_graphs_without_habits_are_nobodys(build):
    for name, graph in neutral(build):
        assert detect(graph) is None, name


@pytest.mark.parametrize(
    "values",
    [
        {"r": np.nan},
        {"r": 0.0},
        {"tau": 0.0},
        {"tau": np.inf},
        {"r": None},
        {"r": "one"},
        {"tau": np.ones((2, 3))},
        {"v_leak": np.ones(0)},
        {"v_threshold": np.array([{}], object)},
    ],
)
@pytest.mark.parametrize(
    "name", ["snntorch-leaky-zero", "rockpool-neuron", "spikingjelly-lif", "sinabs-lif", "norse-lif"]
)
def test_unusable_numbers_are_nobodys_habit_and_no_crash(name, values):
    graph = read(name)
    for node in graph.nodes.values():
        if isinstance(node, nir.LIF):
            vars(node).update(values)
    assert detect(graph) is None or "v_threshold" in values


def test_lowering_says_what_was_detected():
    network = lower(FOLDER / "rockpool-lif.nir")
    assert network.decided["dt"] == "detected (rockpool)" and network.contract.dt == 1e-3
    network = lower(FOLDER / "snntorch-leaky-subtract.nir", {"maker": "snntorch"})
    assert network.decided["reset"] == "default of snntorch"
