"""`--check` without `--calibrate`: what is set aside is said, listed, and left out of every measurement."""

from __future__ import annotations

import json

import numpy as np
import pytest

from snn_compile.compiler import Options, compile_graph, lower
from snn_compile.runtime import compare, load_data
from snn_compile.runtime.cli import main as run_main
from snn_compile.targets import load_program
from snn_compile.train import load_checkpoint


@pytest.fixture(scope="module")
def spikes(data):
    """The same samples with spikes for input, which need no calibration."""
    with np.load(data) as arrays:
        file = data.with_name("spikes.npz")
        np.savez(file, inputs=(arrays["inputs"] > 0.5).astype(int), labels=arrays["labels"])
    return file


def test_a_part_is_set_aside_and_the_rest_measured(command, model, data, tmp_path):
    file = tmp_path / "out.snn"
    code, out, err = command(model, "--check", data, "-o", file, "--json")
    result = json.loads(out)
    aside = result["holdout"]["indices"]
    assert code == 0 and len(aside) == 32 and result["holdout"]["of"] == 150
    assert sum("32 of the 150 samples" in line for line in err.splitlines()) == 1
    rest = np.setdiff1d(np.arange(150), aside)
    with np.load(data) as arrays:
        inputs, labels = arrays["inputs"], arrays["labels"]
    graph = load_checkpoint(model).graph
    program = compile_graph(graph, calibration=inputs[aside])
    expected = compare(program, lower(graph), inputs[rest], labels[rest]).json()
    assert result["accuracy"] == expected["accuracy"] and result["counts"] == expected["counts"]
    assert result["accuracy"]["samples"] == result["counts"]["samples"] == 118
    assert load_program(file).digest() == result["program"]["digest"]
    # The program remembers what it was measured on: running it gives the same numbers.
    code, out, err = command(file, "--against", model, "--json", main=run_main)
    assert code == 0 and "holdout=32" in err
    assert json.loads(out)["accuracy"] == result["accuracy"]


@pytest.mark.parametrize(("number", "samples"), [(1, 149), (75, 75), (149, 1)])
def test_another_number(command, model, data, number, samples):
    code, out, _ = command(model, "--check", data, "--holdout", number, "--json")
    result = json.loads(out)
    assert code == 0 and len(result["holdout"]["indices"]) == number
    assert result["accuracy"]["samples"] == samples


def test_none(command, model, spikes, data, refuses):
    code, out, err = command(model, "--check", spikes, "--holdout", 0, "--json")
    result = json.loads(out)
    assert code == 0 and result["holdout"] is None and result["accuracy"]["samples"] == 150
    assert err.count("warning: no calibration data") == 1
    program = compile_graph(load_checkpoint(model).graph, options=Options())
    assert [p.scale for p in program.populations] == list(result["quantization"]["scales"].values())
    assert "takes spikes" in refuses(model, "--check", data, "--holdout", 0)


def test_a_calibration_set_that_is_named_leaves_the_check_data_whole(command, model, data):
    result = json.loads(command(model, "--calibrate", data, "--check", data, "--json")[1])
    assert result["holdout"] is None and result["accuracy"]["samples"] == 150


def test_few_samples_are_a_warning(command, model, spikes, tmp_path):
    with np.load(spikes) as arrays:
        np.savez(tmp_path / "few.npz", inputs=arrays["inputs"][:63], labels=arrays["labels"][:63])
    code, out, err = command(model, "--check", tmp_path / "few.npz", "--json")
    result = json.loads(out)
    assert code == 0 and result["accuracy"]["samples"] == 63 and result["holdout"]["samples"] == 0
    assert sum("63 samples are too few" in line for line in err.splitlines()) == 1
    assert "63 samples are too few" in result["warnings"][0]


def test_a_data_set_gives_its_own_split(command, saved, tmp_path):
    model = saved(tmp_path / "digits.pt", 64)
    code, out, err = command(model, "--check", "digits", "--json")
    result = json.loads(out)
    assert code == 0 and result["holdout"] == {"data": "digits", "samples": 128, "of": 488, "indices": None}
    assert "calibration split of digits" in err
    program = compile_graph(
        load_checkpoint(model).graph, calibration=load_data("digits", "calibration").inputs
    )
    assert [p.scale for p in program.populations] == list(result["quantization"]["scales"].values())


def test_a_checkpoint_with_an_unsplit_file_of_its_own_is_not_measured_on_what_it_calibrates_on(
    command, saved, data, tmp_path
):
    spec = {"name": str(data), "options": {"partition": False}}
    model = saved(tmp_path / "own.pt", 6, data=spec)
    result = json.loads(command(model, "--json")[1])
    assert len(result["holdout"]["indices"]) == 32 and result["accuracy"]["samples"] == 118
    spec = {"name": str(data), "options": {"partition": True}}
    model = saved(tmp_path / "split.pt", 6, data=spec)
    result = json.loads(command(model, "--json")[1])
    assert result["holdout"] is None and result["accuracy"]["samples"] == 30
