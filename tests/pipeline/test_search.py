"""--bits auto: the cheapest tables within a drop or a number of cores, the front, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from snn_compile import runtime
from snn_compile.compiler import Options, compile_stages, lower
from snn_compile.targets import load_program
from snn_compile.train import LayerConfig, NetworkConfig, SpikingNetwork, load_checkpoint, save_checkpoint
from snn_compile.train.networks.integer_formats import IntegerConfig


@pytest.fixture(scope="module")
def both(data):
    return ("--calibrate", data, "--check", data)


@pytest.fixture(scope="module")
def uniform(model, data):
    """Synapse memory of the same network with one 8-bit table a projection."""
    inputs = np.load(data)["inputs"]
    done = compile_stages(load_checkpoint(model).graph, options=Options(tables="one"), calibration=inputs)
    return sum(core.use["synapse_bits"] for core in done.program.cores)


def test_a_smaller_program_within_the_drop(command, model, data, both, uniform, tmp_path):
    file = tmp_path / "small.snn"
    code, out, err = command(model, *both, "--bits", "auto", "--max-drop", 10, "-o", file, "--json")
    result = json.loads(out)
    assert code == 0 and result["gate"] == {"max_drop": 10.0, "passed": True}
    (chosen,) = (row for row in result["front"] if row["chosen"])
    assert chosen["meets"] and chosen["upper"] <= 10 and chosen["synapse_bits"] < uniform
    # What was measured is what was compiled.
    program = load_program(file)
    assert sum(core.use["synapse_bits"] for core in program.cores) == chosen["synapse_bits"]
    assert (
        result["accuracy"]["drop"] == chosen["drop"] and result["accuracy"]["interval"][1] == chosen["upper"]
    )
    held = {e.name: {table.bits for table in e.tables} for e in program.projections}
    assert held == {name: {form["bits"]} for name, form in chosen["formats"].items()}
    arrays = np.load(data)
    network = lower(load_checkpoint(model).graph)
    report = runtime.compare(program, network, arrays["inputs"], arrays["labels"])
    assert report.accuracy.interval[1] <= 10
    assert program.provenance["weight_bits"] == chosen["title"]
    assert err.count("snn-compile: measured ") == result["search"]["measured"]


def test_the_front_has_nothing_that_another_beats(command, model, both):
    code, out, _ = command(model, *both, "--bits", "auto", "--max-drop", 10, "--json")
    rows = json.loads(out)["front"]
    assert code == 0 and len(rows) > 1
    prices, drops = ([row[key] for row in rows] for key in ("synapse_bits", "upper"))
    assert prices == sorted(prices) and drops == sorted(drops, reverse=True)
    assert len(set(drops)) == len(drops)
    # No smaller program of the front keeps to the limit.
    assert not any(
        row["meets"]
        for row in rows
        if row["synapse_bits"] < [r for r in rows if r["chosen"]][0]["synapse_bits"]
    )
    code, out, _ = command(model, *both, "--bits", "auto", "--max-drop", 10)
    assert "Accuracy against memory" in out and "chosen" in out


def test_a_tighter_limit_takes_more_memory(command, model, both):
    found = []
    for limit in (4, 40):
        code, out, _ = command(model, *both, "--bits", "auto", "--max-drop", limit, "--json")
        assert code == 0
        found.append(next(row for row in json.loads(out)["front"] if row["chosen"]))
    assert found[0]["synapse_bits"] > found[1]["synapse_bits"]
    assert found[0]["upper"] <= 4 < found[1]["upper"] <= 40


def test_an_impossible_drop_names_the_nearest(command, model, both, tmp_path):
    file = tmp_path / "nearest.snn"
    code, out, err = command(model, *both, "--bits", "auto", "--max-drop", 0, "-o", file, "--json")
    result = json.loads(out)
    assert code == 3 and result["gate"] == {"max_drop": 0.0, "passed": False}
    (nearest,) = (row for row in result["front"] if row["chosen"])
    assert nearest["upper"] == min(row["upper"] for row in result["front"]) > 0
    assert not any(row["meets"] for row in result["front"])
    (line,) = (line for line in err.splitlines() if "gate failed" in line)
    assert "within 0 points" in line and nearest["title"] in line and "150 samples" in line
    assert result["search"]["unmet"] == [line.removeprefix("snn-compile: gate failed: ")]
    assert load_program(file).digest() == result["program"]["digest"]
    # What it says can be met can be met.
    limit = line.partition("--max-drop ")[2].split()[0]
    assert command(model, *both, "--bits", "auto", "--max-drop", limit)[0] == 0


def test_cores_alone_take_the_most_precise_that_fits(command, model, both, uniform):
    code, out, _ = command(model, *both, "--bits", "auto", "--max-cores", 1, "--json")
    result = json.loads(out)
    (chosen,) = (row for row in result["front"] if row["chosen"])
    assert code == 0 and result["cores"] == 1 and chosen["synapse_bits"] >= uniform
    # Without labels the spikes tell.
    code, out, _ = command(model, "--calibrate", both[1], "--bits", "auto", "--max-cores", 1, "--json")
    (chosen,) = (row for row in json.loads(out)["front"] if row["chosen"])
    assert code == 0 and chosen["drop"] is None and chosen["spikes_changed"] < 0.1


def test_cores_are_a_gate_without_a_search(command, model, both, monkeypatch):
    code, out, _ = command(model, *both, "--max-cores", 1, "--json")
    assert code == 0 and json.loads(out)["gate"] == {"max_cores": 1, "passed": True}
    # A chip whose cores hold so little that the network takes several.
    from dataclasses import replace

    from snn_compile.compiler import pipeline
    from snn_compile.targets.chips import chip

    small = replace(chip.load_chip("loihi2"), core_neurons=6)
    monkeypatch.setattr(pipeline, "load_chip", lambda name: small)
    code, out, err = command(model, *both, "--max-cores", 1, "--json")
    result = json.loads(out)
    assert code == 3 and result["cores"] > 1 and result["gate"] == {"max_cores": 1, "passed": False}
    assert f"takes {result['cores']} cores, --max-cores allows 1" in err


def test_what_a_search_needs(command, refuses, model, data, tmp_path):
    assert "--calibrate" in refuses(model, "--bits", "auto", "--max-drop", 1, "--check", data, "--holdout", 0)
    assert "--check" in refuses(model, "--bits", "auto", "--max-drop", 1, "--calibrate", data)
    line = refuses(model, "--bits", "auto", "--max-cores", 1, "--calibrate", data, "--stop-after", "place")
    assert "--stop-after" in line
    for arguments in (["--bits", "auto"], ["--bits", "many"], ["--max-cores", "none"], ["--max-cores", "0"]):
        code, out, err = command(model, "--calibrate", data, *arguments)
        assert (code, out) == (2, "") and "usage:" in err
    assert "--max-drop PP or --max-cores N" in command(model, "--bits", "auto")[2]
    code, out, err = command(model, "--bits", "auto", "--max-drop", 1, "--tables", "sign")
    assert (code, out) == (2, "") and "leave out --tables sign" in err


def test_trained_integers_are_searched_anew_and_told(command, both, tmp_path):
    torch.manual_seed(4)
    integers = IntegerConfig(8, input_scale=16.0, input_bits=8)
    network = SpikingNetwork(NetworkConfig((6,), (LayerConfig(12), LayerConfig(10, "li")), integers))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(3.0)
    save_checkpoint(tmp_path / "trained.pt", network, torch.zeros(1, 1, 6))
    file = tmp_path / "small.snn"
    code, out, err = command(
        tmp_path / "trained.pt", *both, "--bits", "auto", "--max-drop", 50, "-o", file, "--json"
    )
    result = json.loads(out)
    (chosen,) = (row for row in result["front"] if row["chosen"])
    (warning,) = (line for line in result["warnings"] if "trained as integers with weights of 8 bits" in line)
    assert code == 0 and "searched for" in warning and f"warning: {warning}" in err
    held = {e.name: {table.bits for table in e.tables} for e in load_program(file).projections}
    assert held == {name: {form["bits"]} for name, form in chosen["formats"].items()}
    assert min(min(bits) for bits in held.values()) < 8
