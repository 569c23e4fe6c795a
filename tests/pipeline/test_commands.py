"""The commands as users meet them: results on stdout, talk on stderr, exit codes, nothing heavy loaded."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path

import nir
import numpy as np
import pytest

from snn_compile.compiler import STAGES, lower
from snn_compile.compiler.cli.arguments import STAGE_NAMES
from snn_compile.compiler.contract.contract import Contract, attach
from snn_compile.compiler.contract.resolve import resolve
from snn_compile.compiler.reference import run_reference
from snn_compile.targets import load_program
from snn_compile.train import load_checkpoint


def test_json_has_what_scripts_rely_on(command, model, data, tmp_path):
    file = tmp_path / "out.snn"
    code, out, err = command(
        model, "--target", "loihi2-sim", "--calibrate", data, "--check", data, "-o", file, "--json"
    )
    result = json.loads(out)
    assert code == 0 and out.count("\n") == 1
    wanted = {"schema", "fits", "cores", "resources", "quantization", "accuracy", "counts", "energy"}
    assert wanted <= result.keys()
    assert result["schema"] == {"name": "snn-compile", "version": 1}
    assert result["fits"] is True and result["cores"] == 1
    assert result["accuracy"].keys() >= {"float", "deployed", "drop", "interval", "samples"}
    assert (result["accuracy"]["float"], result["accuracy"]["samples"]) == (1.0, 150)
    drop = 100 * (result["accuracy"]["float"] - result["accuracy"]["deployed"])
    assert result["accuracy"]["drop"] == pytest.approx(drop)
    assert result["program"]["digest"] == load_program(file).digest()
    assert all(
        item["used"] <= item["core_limit"]
        for key, item in result["resources"].items()
        if "core_limit" in item
    )
    assert {e["tensor"] for e in result["quantization"]["tensors"]} >= {"input"}
    assert [line.split()[1] for line in err.splitlines()][: len(STAGES)] == list(STAGES)


def test_text_answers_the_three_questions(command, model, data):
    code, out, _ = command(model, "--calibrate", data, "--check", data)
    assert code == 0
    for words in (
        "fits on 1 of 120 cores",
        "Resources",
        "Quantization error",
        "150",
        "synops",
        "nJ per sample",
    ):
        assert words in out


def test_without_data_it_says_what_is_missing(command, model):
    code, out, err = command(model)
    assert code == 0 and "--check DATA" in out
    assert err.count("warning: no calibration data") == 1
    result = json.loads(command(model, "--json")[1])
    assert result["accuracy"] is None and result["warnings"]


def test_the_checkpoints_own_data_is_used(saved, command, tmp_path):
    own = saved(tmp_path / "digits.pt", 64, {"name": "digits", "options": {"coding": "rate", "steps": 4}})
    code, out, _ = command(own, "--json")
    result = json.loads(out)
    assert code == 0 and result["data"]["name"] == "digits" and result["data"]["options"]["steps"] == 4
    assert result["accuracy"]["samples"] == 360
    assert result["quantization"]["inputs"]["input"]["kind"] == "spikes"


def test_the_gate(command, model, data):
    both = ("--calibrate", data, "--check", data)
    code, out, err = command(model, *both, "--max-drop", 10, "--json")
    assert code == 0 and json.loads(out)["gate"] == {"max_drop": 10.0, "passed": True}
    coarse = ("--bits", 1, "--tables", "one", "--max-drop", 0.5)
    code, out, err = command(model, *both, *coarse, "--json")
    assert code == 3 and json.loads(out)["gate"] == {"max_drop": 0.5, "passed": False}
    assert "gate failed" in err and "0.5" in err


def test_a_failed_gate_still_writes_the_program(command, model, data, tmp_path):
    file = tmp_path / "coarse.snn"
    coarse = ("--bits", 1, "--tables", "one", "--max-drop", 0.5, "-o", file)
    assert command(model, "--calibrate", data, "--check", data, *coarse)[0] == 3
    assert load_program(file).provenance["weight_bits"] == "1"


def test_stage_names_are_the_pipelines():
    assert STAGE_NAMES == STAGES


@pytest.mark.parametrize("stage", STAGES[:-1])
def test_stopping_after_a_stage(command, model, data, stage):
    code, out, err = command(model, "--calibrate", data, "--stop-after", stage)
    assert code == 0 and out.startswith(f"after {stage}\n")
    assert "Populations" in out and "Projections" in out
    assert ("Quantization error" in out) == (STAGES.index(stage) >= STAGES.index("quantize"))
    assert ("Cores" in out) == (STAGES.index(stage) >= STAGES.index("partition"))
    assert f"snn-compile: {stage} " in err
    result = json.loads(command(model, "--stop-after", stage, "--json")[1])
    assert result["schema"]["name"] == "snn-compile-stage" and result["stage"] == stage
    starts = [p["start_step"] for p in result["populations"]]
    assert starts == ([1, 2] if STAGES.index(stage) >= STAGES.index("retime") else [None, None])


def test_targets_are_listed(command):
    code, out, err = command("--list-targets")
    assert code == 0 and err == ""
    names = ["loihi1", "loihi2", "unbounded", "kapoho-point", "hala-point", "nahuku"]
    assert [line.split()[0] for line in out.splitlines()] == [f"{name}-sim" for name in names]
    result = json.loads(command("--list-targets", "--json")[1])
    assert [row["target"] for row in result["targets"]] == [f"{name}-sim" for name in names]


def test_inspect(command, model, tmp_path):
    code, out, _ = command("inspect", model)
    assert code == 0
    for words in ("Affine", "LIF", "LI", "same_step", "metadata", "decided by"):
        assert words in out
    result = json.loads(command("inspect", model, "--convention", "reset=none", "--json")[1])
    assert result["contract"]["reset"]["value"] == "none"
    assert result["contract"]["reset"]["decided"].startswith("stated, against the file's ")
    graph = load_checkpoint(model).graph
    graph.metadata.clear()
    nir.write(tmp_path / "open.nir", graph)
    code, out, _ = command("inspect", tmp_path / "open.nir")
    assert code == 0 and "the file does not state" in out and "--convention dt=..." in out
    result = json.loads(command("inspect", tmp_path / "open.nir", "--json")[1])
    assert result["contract"] is None and "reset" in result["open"]


def test_export_is_read_by_plain_nir(command, model, tmp_path):
    code, out, err = command("export", model, "-o", tmp_path / "graph.nir")
    assert (code, out) == (0, "") and "graph.nir" in err
    graph, own = nir.read(tmp_path / "graph.nir"), load_checkpoint(model).graph
    assert resolve(graph)[0] == resolve(own)[0]
    assert graph.nodes.keys() == own.nodes.keys() and sorted(graph.edges) == sorted(own.edges)
    inputs = np.random.default_rng(1).random((3, 9, 6))
    np.testing.assert_array_equal(
        run_reference(lower(graph), inputs).outputs, run_reference(lower(own), inputs).outputs
    )


def test_conventions_answer_what_a_file_leaves_open(command, model, refuses, tmp_path):
    graph = load_checkpoint(model).graph
    graph.metadata.clear()
    nir.write(tmp_path / "open.nir", graph)
    line = refuses(tmp_path / "open.nir")
    assert all(f"--convention {item}=" in line for item in ("dt", "rule", "reset", "comparison"))
    stated = ["dt=1", "rule=euler", "reset=value", "reset_timing=same_step", "comparison=>"]
    answers = [word for item in stated for word in ("--convention", item)]
    code, out, _ = command(tmp_path / "open.nir", *answers, "--json")
    assert code == 0 and json.loads(out)["contract"]["decided"]["dt"] == "stated"


def test_delays_are_stated_by_edge(command, tmp_path):
    nodes = {
        "input": nir.Input({"input": np.array([2])}),
        "a": nir.LIF(*[np.full(2, x) for x in (4.0, 1.0, 0.0, 1.0)]),
        "b": nir.LIF(*[np.full(2, x) for x in (4.0, 1.0, 0.0, 1.0)]),
        "output": nir.Output({"output": np.array([2])}),
    }
    edges = [("input", "a"), ("a", "b"), ("b", "a"), ("b", "output")]
    graph = nir.NIRGraph(nodes, edges, type_check=False)
    attach(graph, Contract(dt=1.0))
    nir.write(tmp_path / "cycle.nir", graph)
    code, _, err = command(tmp_path / "cycle.nir")
    assert code == 1 and "delays=SOURCE:TARGET:STEPS" in err
    code, _, err = command(tmp_path / "cycle.nir", "--convention", "delays=b:a:1")
    assert code == 1 and "(1 missing)" in err
    assert "--relax-timing" in err
    code, out, err = command(
        tmp_path / "cycle.nir", "--convention", "delays=b:a:1", "--relax-timing", "--json"
    )
    assert (
        code == 0 and "1 step(s) of delay added" in err and "added" in " ".join(json.loads(out)["warnings"])
    )
    code, out, err = command(tmp_path / "cycle.nir", "--convention", "delays=b:a:1", "--c-slow", "--json")
    assert code == 0 and json.loads(out)["period"] == 2 and "added" not in err
    code, out, _ = command(tmp_path / "cycle.nir", "--convention", "delays=b:a:1", "--c-slow", "3")
    assert code == 0 and "each step of the network takes 3 device steps" in out
    code, _, err = command("--c-slow", tmp_path / "cycle.nir")
    assert code == 2 and "write the model before --c-slow" in err
    code, out, _ = command(tmp_path / "cycle.nir", "--convention", "delays=b:a:2", "--json")
    assert code == 0 and json.loads(out)["contract"]["values"]["delays"] == [["b", "a", 2]]


# In processes of their own.


@pytest.mark.parametrize("module", ["compiler", "runtime", "train"])
def test_help_loads_nothing_heavy(module):
    code = f"""
import sys
from snn_compile.{module}.cli import main
try:
    main(["--help"])
except SystemExit as leaving:
    assert not leaving.code
heavy = [name for name in ("torch", "lava", "numba", "nir", "sklearn", "matplotlib") if name in sys.modules]
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: snn-") and "-h, --help" in done.stdout


def test_the_installed_command(evil, tmp_path):
    script = Path(sys.executable).with_name("snn-compile")
    file, mark = tmp_path / "evil.pt", tmp_path / "executed"
    file.write_bytes(pickle.dumps({"graph": evil(mark)}, protocol=4))
    for arguments, code, words in [
        ([str(tmp_path / "none.pt")], 1, "none.pt"),
        ([str(file)], 1, "evil.pt"),
        (["--bits"], 2, "usage:"),
    ]:
        done = subprocess.run([script, *arguments], capture_output=True, text=True, timeout=120)
        assert (done.returncode, done.stdout) == (code, "") and words in done.stderr
        assert code == 2 or done.stderr.count("\n") == 1, done.stderr
    assert not mark.exists()


def test_the_model_is_not_overwritten(command, model):
    kept = model.read_bytes()
    code, _, talk = command(model, "-o", model)
    assert code == 1 and "it is the model itself" in talk and model.read_bytes() == kept


def test_a_convention_against_the_file_is_a_warning(command, model):
    code, _, talk = command(model, "--convention", "reset=none")
    assert code == 0 and "reset is none: stated, against the file's value" in talk
