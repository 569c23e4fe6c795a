"""The command snn-compile (and what snn-run says about bad files) as users meet it: results on stdout,
talk on stderr, exit codes, one line for each bad input, and nothing half-written."""

from __future__ import annotations

import json
import pickle
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import nir
import numpy as np
import pytest
import torch

from snn_compile.compiler import STAGES, lower
from snn_compile.compiler.cli import STAGE_NAMES, main
from snn_compile.compiler.conventions import Contract, attach, resolve
from snn_compile.compiler.reference import run_reference
from snn_compile.runtime.cli import main as run_main
from snn_compile.targets import load_program
from snn_compile.train import LayerConfig, NetworkConfig, SpikingNetwork, load_checkpoint, save_checkpoint

PROGRESS = re.compile(r"snn-(compile|run): (\w+ \d+ ms|running .*|warning: .*|data .*)")


def saved(path: Path, inputs: int, data=None, zero: bool = False) -> Path:
    torch.manual_seed(4)
    layers = (LayerConfig(12), LayerConfig(10, "li"))
    network = SpikingNetwork(NetworkConfig((inputs,), layers))
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if name.endswith("weight"):
                weight.mul_(0.0 if zero else 3.0)
    save_checkpoint(path, network, torch.zeros(1, 1, inputs), data=data)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("commands")


@pytest.fixture(scope="module")
def model(folder):
    """A checkpoint of an untrained network with six inputs."""
    return saved(folder / "model.pt", 6)


@pytest.fixture(scope="module")
def data(folder, model):
    """Samples that the float network gets right by construction: its own predictions are the labels."""
    inputs = np.random.default_rng(0).integers(0, 17, (150, 12, 6)) / 16
    labels = run_reference(lower(load_checkpoint(model).graph), inputs).predictions
    np.savez(folder / "data.npz", inputs=inputs, labels=labels)
    return folder / "data.npz"


@pytest.fixture(scope="module")
def program(folder, model, data):
    assert main([str(model), "--calibrate", str(data), "-o", str(folder / "model.snn")]) == 0
    return folder / "model.snn"


@pytest.fixture
def command(capsys):
    """Return run(*arguments) -> (exit code, stdout, stderr) of snn-compile, or of another main."""

    def run(*arguments, main=main):
        capsys.readouterr()
        try:
            code = main([str(a) for a in arguments])
        except SystemExit as leaving:
            code = leaving.code
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture
def refuses(command, tmp_path):
    """Return check(*arguments): exit code 1, nothing on stdout, one error line, no new file."""

    def check(*arguments, main=main, name="snn-compile"):
        before = sorted(tmp_path.rglob("*"))
        code, out, err = command(*arguments, main=main)
        lines = err.splitlines()
        errors = [line for line in lines if line.startswith(f"{name}: error: ")]
        assert (code, out, len(errors)) == (1, "", 1), err
        assert all(PROGRESS.fullmatch(line) for line in lines if line not in errors), err
        assert sorted(tmp_path.rglob("*")) == before
        return errors[0]

    return check


# What comes out.


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
    for words in ("fits on 1 of 120 cores", "Resources", "Quantization error", "150", "synops", "pJ"):
        assert words in out


def test_without_data_it_says_what_is_missing(command, model):
    code, out, err = command(model)
    assert code == 0 and "--check DATA" in out
    assert err.count("warning: no calibration data") == 1
    result = json.loads(command(model, "--json")[1])
    assert result["accuracy"] is None and result["warnings"]


def test_the_checkpoints_own_data_is_used(command, tmp_path):
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
    assert [line.split()[0] for line in out.splitlines()] == ["loihi1-sim", "loihi2-sim"]
    result = json.loads(command("--list-targets", "--json")[1])
    assert [row["target"] for row in result["targets"]] == ["loihi1-sim", "loihi2-sim"]


def test_inspect(command, model, tmp_path):
    code, out, _ = command("inspect", model)
    assert code == 0
    for words in ("Affine", "LIF", "LI", "same_step", "metadata", "decided by"):
        assert words in out
    result = json.loads(command("inspect", model, "--convention", "reset=none", "--json")[1])
    assert result["contract"]["reset"] == {"value": "none", "decided": "stated"}
    graph = load_checkpoint(model).graph
    graph.metadata.clear()
    nir.write(tmp_path / "open.nir", graph)
    code, out, _ = command("inspect", tmp_path / "open.nir")
    assert code == 0 and "the file does not say" in out and "--convention dt=..." in out
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
    assert code == 1 and "1 step(s) are missing" in err
    assert "--relax-timing" in err
    code, out, err = command(
        tmp_path / "cycle.nir", "--convention", "delays=b:a:1", "--relax-timing", "--json"
    )
    assert (
        code == 0 and "1 step(s) of delay added" in err and "added" in " ".join(json.loads(out)["warnings"])
    )
    code, out, _ = command(tmp_path / "cycle.nir", "--convention", "delays=b:a:2", "--json")
    assert code == 0 and json.loads(out)["contract"]["values"]["delays"] == [["b", "a", 2]]


# What is refused, each with one line.


class Evil:
    """A pickle that would write a file when loaded."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


def test_missing_files(refuses, tmp_path):
    for name in ("none.pt", "none.nir"):
        assert name in refuses(tmp_path / name)
    assert "none.nir" in refuses("inspect", tmp_path / "none.nir")
    assert "none.pt" in refuses("export", tmp_path / "none.pt", "-o", tmp_path / "x.nir")
    line = refuses(tmp_path / "none.snn", "--data", "digits", main=run_main, name="snn-run")
    assert "none.snn" in line and "snn-compile" in line


@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 0.99])
def test_truncated_files(refuses, model, program, tmp_path, share):
    for source in (model, program):
        whole = source.read_bytes()
        (tmp_path / source.name).write_bytes(whole[: int(len(whole) * share)])
    assert "model.pt" in refuses(tmp_path / "model.pt", "-o", tmp_path / "out.snn")
    line = refuses(tmp_path / "model.snn", "--data", "digits", main=run_main, name="snn-run")
    assert "model.snn" in line


@pytest.mark.parametrize("how", ["pickle", "torch", "zip"])
def test_pickles_that_would_run_code_do_not(refuses, tmp_path, how):
    mark, file = tmp_path / "executed", tmp_path / "evil.pt"
    if how == "pickle":
        file.write_bytes(pickle.dumps({"graph": Evil(mark)}))
    else:
        torch.save({"graph": Evil(mark)}, file, _use_new_zipfile_serialization=how == "zip")
    assert "evil.pt" in refuses(file)
    assert not mark.exists()
    file.rename(tmp_path / "evil.nir")
    assert "evil.nir" in refuses(tmp_path / "evil.nir")
    np.savez(tmp_path / "evil.npz", inputs=np.array([Evil(mark)], dtype=object))
    assert "evil.npz" in refuses(saved(tmp_path / "m.pt", 6), "--calibrate", tmp_path / "evil.npz")
    assert not mark.exists()


def test_edited_programs(refuses, program, tmp_path):
    edits = {
        "digest": lambda text: text.replace('"exponent": ', '"exponent": 1', 1),
        "version": lambda text: text.replace('"version": 1', '"version": 99', 1),
        "text": lambda text: text[:200],
    }
    for name, edit in edits.items():
        file = tmp_path / f"{name}.snn"
        with zipfile.ZipFile(program) as source, zipfile.ZipFile(file, "w") as target:
            for entry in source.namelist():
                content = source.read(entry)
                if entry == "program.json":
                    changed = edit(content.decode())
                    assert changed != content.decode()
                    content = changed.encode()
                target.writestr(entry, content)
        assert f"{name}.snn" in refuses(file, "--data", "digits", main=run_main, name="snn-run")


def test_data_that_does_not_fit(refuses, model, program, tmp_path):
    cases = {
        "wide": {"inputs": np.zeros((2, 5, 7))},
        "flat": {"inputs": np.zeros((2, 5))},
        "empty": {"inputs": np.zeros((0, 5, 6))},
        "nan": {"inputs": np.full((2, 5, 6), np.nan)},
        "other": {"x": np.zeros((2, 5, 6))},
        "labels": {"inputs": np.zeros((2, 5, 6)), "labels": np.zeros(3, int)},
    }
    for name, arrays in cases.items():
        file = tmp_path / f"{name}.npz"
        np.savez(file, **arrays)
        assert refuses(model, "--calibrate", file, "-o", tmp_path / "out.snn")
        assert refuses(model, "--check", file, "-o", tmp_path / "out.snn")
        assert refuses(program, "--data", file, main=run_main, name="snn-run")
    (tmp_path / "text.npz").write_text("no archive")
    for name in ("text.npz", "missing.npz", "nothing"):
        assert name in refuses(model, "--calibrate", tmp_path / name)


def test_labels_are_needed_for_a_gate(refuses, model, tmp_path):
    np.savez(tmp_path / "x.npz", inputs=np.zeros((2, 5, 6)))
    assert "--check" in refuses(model, "--max-drop", 1)
    assert "--check" in refuses(model, "--max-drop", 1, "--check", tmp_path / "x.npz")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_not_finite(refuses, model, tmp_path, bad):
    graph = load_checkpoint(model).graph
    node = next(name for name, item in graph.nodes.items() if isinstance(item, nir.Affine))
    graph.nodes[node].weight[1, 2] = bad
    attach(graph, resolve(load_checkpoint(model).graph)[0])
    nir.write(tmp_path / "bad.nir", graph)
    line = refuses(tmp_path / "bad.nir", "-o", tmp_path / "out.snn")
    assert node in line and "(1, 2)" in line and str(bad) in line


def test_weights_of_zero_are_a_warning(command, data, tmp_path):
    model, file = saved(tmp_path / "zero.pt", 6, zero=True), tmp_path / "zero.snn"
    code, out, err = command(model, "--calibrate", data, "--check", data, "-o", file, "--json")
    assert code == 0 and file.is_file()
    assert (
        len([line for line in err.splitlines() if "warning:" in line and "every weight is zero" in line]) == 2
    )
    assert sum("zero" in text for text in json.loads(out)["warnings"]) == 2


def test_targets_that_do_not_exist_or_do_not_fit(refuses, model, data, tmp_path):
    line = refuses(model, "--target", "loihi9", "-o", tmp_path / "out.snn")
    assert "loihi9" in line and "loihi1-sim, loihi2-sim" in line
    assert "payload" in refuses(model, "--target", "loihi1-sim", "--calibrate", data)
    nodes = {
        "input": nir.Input({"input": np.array([5000])}),
        "fc": nir.Linear(np.ones((2, 5000))),
        "cell": nir.LIF(*[np.full(2, x) for x in (4.0, 1.0, 0.0, 1.0)]),
        "output": nir.Output({"output": np.array([2])}),
    }
    edges = [("input", "fc"), ("fc", "cell"), ("cell", "output")]
    graph = nir.NIRGraph(nodes, edges)
    attach(graph, Contract(dt=1.0))
    nir.write(tmp_path / "wide.nir", graph)
    line = refuses(tmp_path / "wide.nir", "-o", tmp_path / "out.snn")
    assert "'cell'" in line and "in_axons 5000 of 4096" in line


def test_outputs_that_cannot_be_written(refuses, model, tmp_path):
    (tmp_path / "file").write_text("")
    for target in (tmp_path / "none" / "x.snn", tmp_path / "file" / "x.snn", tmp_path):
        assert str(target) in refuses(model, "-o", target)
        assert str(target) in refuses("export", model, "-o", target)


def test_an_output_that_fails_while_writing_leaves_nothing(refuses, model, tmp_path, monkeypatch):
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    (tmp_path / "x.snn").write_text("what was there")
    monkeypatch.setattr("os.replace", full)
    assert "No space left" in refuses(model, "-o", tmp_path / "x.snn")
    assert (tmp_path / "x.snn").read_text() == "what was there"
    assert "No space left" in refuses("export", model, "-o", tmp_path / "x.nir")


@pytest.mark.parametrize(
    "text, words",
    [
        ("reset", "key=value"),
        ("=3", "unknown convention"),
        ("reset=maybe", "value, subtract, none"),
        ("colour=red", "colour"),
        ("dt=soon", "soon"),
        ("dt=-1", "dt"),
        ("delays=a:b", "SOURCE:TARGET:STEPS"),
        ("delays=a:b:1", "a -> b"),
        ("readouts=3", "readouts"),
        ("nodes=x", "nodes"),
        ("reset_timing=pending", "pending"),
        ("gain=double", "as_written"),
        ("v_init=high", "v_leak"),
    ],
)
def test_conventions_in_wrong_words(refuses, model, text, words):
    assert words in refuses(model, "--convention", text)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["model.pt", "--bits", "many"],
        ["model.pt", "--max-drop", "nan"],
        ["model.pt", "--stop-after", "polish"],
        ["model.pt", "--tables", "two"],
        ["model.pt", "--unknown"],
        ["export", "model.pt"],
        ["inspect"],
    ],
)
def test_usage(command, arguments):
    code, out, err = command(*arguments)
    assert code == 2 and out == "" and "usage:" in err and "Traceback" not in err


def test_other_words_that_do_not_work(refuses, model, tmp_path):
    (tmp_path / "model.onnx").write_text("")
    assert ".nir" in refuses(tmp_path / "model.onnx")
    assert "1 to 8" in refuses(model, "--bits", 9)
    assert "--stop-after" in refuses(model, "--stop-after", "lower", "-o", tmp_path / "x.snn")


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


def test_the_installed_command(tmp_path):
    script = Path(sys.executable).with_name("snn-compile")
    file, mark = tmp_path / "evil.pt", tmp_path / "executed"
    file.write_bytes(pickle.dumps({"graph": Evil(mark)}, protocol=4))
    for arguments, code, words in [
        ([str(tmp_path / "none.pt")], 1, "none.pt"),
        ([str(file)], 1, "evil.pt"),
        (["--bits"], 2, "usage:"),
    ]:
        done = subprocess.run([script, *arguments], capture_output=True, text=True, timeout=120)
        assert (done.returncode, done.stdout) == (code, "") and words in done.stderr
        assert code == 2 or done.stderr.count("\n") == 1, done.stderr
    assert not mark.exists()
