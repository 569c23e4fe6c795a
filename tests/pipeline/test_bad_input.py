"""Bad input: one line each on stderr, exit code 1, no traceback, nothing half-written."""

from __future__ import annotations

import json
import pickle
import re
import zipfile

import nir
import numpy as np
import pytest
import torch

from snn_compile.compiler.contract.contract import Contract, attach
from snn_compile.compiler.contract.resolve import resolve
from snn_compile.runtime.cli import main as run_main
from snn_compile.train import load_checkpoint


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
def test_pickles_that_would_run_code_do_not(saved, evil, refuses, tmp_path, how):
    mark, file = tmp_path / "executed", tmp_path / "evil.pt"
    if how == "pickle":
        file.write_bytes(pickle.dumps({"graph": evil(mark)}))
    else:
        torch.save({"graph": evil(mark)}, file, _use_new_zipfile_serialization=how == "zip")
    assert "evil.pt" in refuses(file)
    assert not mark.exists()
    file.rename(tmp_path / "evil.nir")
    assert "evil.nir" in refuses(tmp_path / "evil.nir")
    np.savez(tmp_path / "evil.npz", inputs=np.array([evil(mark)], dtype=object))
    assert "evil.npz" in refuses(saved(tmp_path / "m.pt", 6), "--calibrate", tmp_path / "evil.npz")
    assert not mark.exists()


def test_edited_programs(refuses, program, tmp_path):
    edits = {
        "digest": lambda text: text.replace('"exponent": ', '"exponent": 1', 1),
        "version": lambda text: re.sub(r'"version": \d+', '"version": 99', text, count=1),
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


def test_weights_of_zero_are_a_warning(saved, command, data, tmp_path):
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
        "input": nir.Input({"input": np.array([20000])}),
        "fc": nir.Linear(np.ones((2, 20000))),
        "cell": nir.LIF(*[np.full(2, x) for x in (4.0, 1.0, 0.0, 1.0)]),
        "output": nir.Output({"output": np.array([2])}),
    }
    edges = [("input", "fc"), ("fc", "cell"), ("cell", "output")]
    graph = nir.NIRGraph(nodes, edges)
    attach(graph, Contract(dt=1.0))
    nir.write(tmp_path / "wide.nir", graph)
    line = refuses(tmp_path / "wide.nir", "--target", "loihi1", "-o", tmp_path / "out.snn")
    assert "'cell'" in line and "in_axons 20000 of 4096" in line


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


def test_wrong_words_are_told_before_what_is_missing(refuses, model, tmp_path):
    graph = load_checkpoint(model).graph
    graph.metadata.clear()
    nir.write(tmp_path / "bare.nir", graph)
    line = refuses(tmp_path / "bare.nir", "--convention", "dt=soon")
    assert "'soon'" in line and "does not say" not in line


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
    assert "not an ONNX model" in refuses(tmp_path / "model.onnx")
    assert "1 to 8" in refuses(model, "--bits", 9)
    assert "--stop-after" in refuses(model, "--stop-after", "lower", "-o", tmp_path / "x.snn")
