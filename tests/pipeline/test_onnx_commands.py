"""ONNX models through the commands: convert, choose the steps, run."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from snn_compile.compiler import ConversionOptions, Options, compile_graph, convert, read_onnx
from snn_compile.compiler.onnx.rate_coding import shown
from snn_compile.runtime import load_data
from snn_compile.runtime.cli import main as run
from snn_compile.runtime.evaluation.step_curve import float_record
from snn_compile.runtime.execution.run import simulate


@pytest.fixture(scope="module")
def images() -> dict[str, Any]:
    """Digits as images (batch, 1, 8, 8), cut as the data set is."""
    found = {}
    for split in ("train", "test", "calibration"):
        data = load_data("digits", split, steps=1)
        found[split] = (data.inputs.reshape(-1, 1, 8, 8), data.labels)
    return found


@pytest.fixture(scope="module")
def digits(images: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A convolution with random kernels, batch normalisation, a pool, and a read-out by least squares."""
    rng = np.random.default_rng(0)

    def constant(name: str, value: Any) -> Any:
        return numpy_helper.from_array(np.asarray(value, np.float32), name)

    tensors = [
        constant("kernel", rng.normal(size=(12, 1, 3, 3))),
        constant("gain", rng.uniform(0.5, 1.5, 12)),
        constant("offset", rng.normal(size=12) / 4),
        constant("mean", rng.normal(size=12) / 4),
        constant("variance", rng.uniform(0.5, 1.5, 12)),
        constant("w1", rng.normal(size=(12 * 9, 120)) / 8),
        constant("b1", rng.normal(size=120) / 8),
    ]
    nodes = [
        helper.make_node("Conv", ["image", "kernel"], ["a"], name="conv"),
        helper.make_node(
            "BatchNormalization", ["a", "gain", "offset", "mean", "variance"], ["b"], name="norm"
        ),
        helper.make_node("Relu", ["b"], ["c"], name="first"),
        helper.make_node("AveragePool", ["c"], ["d"], name="pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["d"], ["e"], name="flat"),
        helper.make_node("Gemm", ["e", "w1", "b1"], ["f"], name="dense"),
        helper.make_node("Relu", ["f"], ["g"], name="second"),
    ]

    def model(nodes: list[Any], tensors: list[Any], output: str, size: int) -> Any:
        graph = helper.make_graph(
            nodes,
            "digits",
            [helper.make_tensor_value_info("image", 1, ["batch", 1, 8, 8])],
            [helper.make_tensor_value_info(output, 1, ["batch", size])],
            tensors,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)

    folder = tmp_path_factory.mktemp("onnx")
    features = folder / "features.onnx"
    features.write_bytes(model(nodes, tensors, "g", 120).SerializeToString())
    x, y = images["train"]
    hidden = np.column_stack([read_onnx(features).scores(x), np.ones(len(x))])
    ridge = hidden.T @ hidden + 1e-2 * np.eye(121)
    readout = np.linalg.solve(ridge, hidden.T @ (np.eye(10)[y] - 0.1))
    tensors += [constant("w2", readout[:-1] * 4), constant("b2", readout[-1] * 4)]
    nodes += [
        helper.make_node("Gemm", ["g", "w2", "b2"], ["h"], name="read"),
        helper.make_node("Softmax", ["h"], ["probability"], name="softmax", axis=1),
    ]
    path = folder / "digits.onnx"
    made = model(nodes, tensors, "probability", 10)
    onnx.checker.check_model(made)
    path.write_bytes(made.SerializeToString())
    return path


@pytest.fixture(scope="module")
def still(images: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The test images as a file without steps."""
    path = tmp_path_factory.mktemp("still") / "still.npz"
    np.savez(path, inputs=images["test"][0], labels=images["test"][1])
    return path


def test_the_report_is_against_onnxruntime(command, digits, tmp_path, images):
    program, curve = tmp_path / "digits.snn", tmp_path / "curve.png"
    code, out, err = command(
        str(digits), "--calibrate", "digits", "--check", "digits", "--steps", "48", "--max-drop", "1.5", "-o",
        str(program), "--curve", str(curve), "--json",
    )  # fmt: skip
    assert code == 0, err
    result = json.loads(out)
    import onnxruntime

    session = onnxruntime.InferenceSession(str(digits), providers=["CPUExecutionProvider"])
    x, y = images["test"]
    right = session.run(None, {"image": x.astype(np.float32)})[0].argmax(axis=1) == y
    assert result["accuracy"]["float"] == pytest.approx(right.mean())
    assert result["accuracy"]["float"] > 0.93
    assert result["accuracy"]["drop"] <= 1.5
    assert result["curve"]["reference"].startswith("onnxruntime")
    points = {p["steps"]: p for p in result["curve"]["points"]}
    assert list(points) == sorted(points) and max(points) == result["curve"]["chosen"] == 48
    assert points[48]["accuracy"] == result["accuracy"]["deployed"]
    assert points[48]["accuracy"] > points[1]["accuracy"]
    energies = [p["energy_pj"]["synops"] for p in points.values()]
    assert energies == sorted(energies) and energies[0] > 0
    assert [layer["name"] for layer in result["conversion"]["layers"]] == ["first", "second"]
    assert result["conversion"]["lowering"]["agreement"] == 1.0
    assert curve.read_bytes().startswith(b"\x89PNG")


def test_a_shorter_run_is_what_the_curve_says(command, digits, tmp_path, capsys):
    program = tmp_path / "digits.snn"
    code, out, err = command(
        str(digits),
        "--calibrate",
        "digits",
        "--check",
        "digits",
        "--steps",
        "24",
        "-o",
        str(program),
        "--json",
    )
    assert code == 0, err
    points = {p["steps"]: p for p in json.loads(out)["curve"]["points"]}
    for steps in (8, 24):
        arguments = [str(program), "--steps", str(steps), "--against", str(digits), "--json"]
        assert run(arguments) == 0
        ran = json.loads(capsys.readouterr().out)
        assert ran["steps"] == steps
        assert ran["accuracy"]["deployed"] == points[steps]["accuracy"]
        assert ran["accuracy"]["drop"] == pytest.approx(points[steps]["drop"])


def test_auto_takes_the_fewest_steps_that_meet_the_drop(command, digits, still, tmp_path):
    program = tmp_path / "digits.snn"
    arguments = [
        str(digits),
        "--calibrate",
        "digits",
        "--check",
        str(still),
        "--steps",
        "auto",
        "--max-drop",
        "1",
    ]
    code, out, err = command(*arguments, "-o", str(program), "--json")
    assert code == 0, err
    result = json.loads(out)
    curve = result["curve"]
    assert curve["met"] and result["gate"]["passed"] and 1 < curve["chosen"] < 64
    assert result["accuracy"]["drop"] <= 1
    # An independent search: run every smaller number of steps by itself.
    network = read_onnx(digits)
    from snn_compile.targets import load_program

    x = np.load(still)["inputs"]
    labels = np.load(still)["labels"]
    right = int((float_record(network, x).predictions == labels).sum())
    for steps in range(1, curve["chosen"] + 1):
        predicted = simulate(load_program(program), shown(x, steps)).predictions
        drop = 100 * (right - int((predicted == labels).sum())) / len(x)
        assert (drop <= 1) == (steps == curve["chosen"])
    assert run([str(program)]) == 0, "the program knows its data and its steps"


def test_a_drop_that_nothing_meets_is_a_failed_gate_with_the_nearest(command, digits, tmp_path):
    program = tmp_path / "digits.snn"
    code, out, err = command(
        str(digits), "--calibrate", "digits", "--check", "digits", "--steps", "auto", "--max-drop", "-50",
        "-o", str(program), "--json",
    )  # fmt: skip
    assert code == 3 and "gate failed" in err and program.exists()
    curve = json.loads(out)["curve"]
    assert not curve["met"]
    least = min(p["drop"] for p in curve["points"])
    assert next(p["drop"] for p in curve["points"] if p["steps"] == curve["chosen"]) == least


def test_the_text_has_the_curve(command, digits):
    code, out, _ = command(
        str(digits), "--calibrate", "digits", "--check", "digits", "--steps", "8", "--balance", "99.9"
    )
    assert code == 0
    assert "Conversion to rates" in out and "Steps against accuracy" in out and "8 *" in out
    assert "Softmax at the end dropped" in out


def test_without_onnxruntime_the_reference_is_ours_and_says_so(command, digits, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    code, out, _ = command(
        str(digits), "--calibrate", "digits", "--check", "digits", "--steps", "8", "--json"
    )
    assert code == 0 and "not installed" in json.loads(out)["curve"]["reference"]


def test_in_python(digits, images):
    network = read_onnx(digits)
    conversion = convert(network, images["calibration"][0], ConversionOptions(32))
    program = compile_graph(conversion.network, calibration=conversion.shown_calibration())
    at_once = compile_graph(
        digits, calibration=images["calibration"][0], options=Options(conversion=ConversionOptions(32))
    )
    assert at_once.digest() == program.digest()
    x = images["test"][0]
    record = simulate(program, shown(x, 32))
    assert (record.predictions == network.scores(x).argmax(axis=1)).mean() > 0.95
    for device in ("oracle", "lava-stepped"):
        few = simulate(program, shown(x[:3], 32), device, probes=("scores.v",))
        same = simulate(program, shown(x[:3], 32), probes=("scores.v",))
        np.testing.assert_array_equal(few.states("scores.v"), same.states("scores.v"))


def test_inspect_shows_what_is_left_after_folding(command, digits):
    code, out, _ = command("inspect", str(digits))
    assert code == 0 and "first" in out and "Rectifiers" in out and "converts them" in out


def test_stop_after_a_stage(command, digits):
    code, out, _ = command(str(digits), "--calibrate", "digits", "--stop-after", "quantize", "--json")
    assert code == 0
    assert [p["name"] for p in json.loads(out)["populations"]] == ["first", "second", "scores"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "add --calibrate DATA"),
        (("--calibrate", "digits", "--steps", "auto"), "--max-drop PP"),
        (("--calibrate", "digits", "--curve", "c.png"), "add --check DATA"),
        (("--calibrate", "digits", "--balance", "biggest"), "percentile such as"),
        (("--calibrate", "digits", "--max-drop", "1"), "--check DATA"),
    ],
)
def test_what_does_not_go_together_is_refused(arguments, says, command, digits):
    code, out, err = command(str(digits), *arguments)
    assert code == 1 and says in err and not out and "Traceback" not in err


@pytest.mark.parametrize("text", ["0", "-3", "many", "1e9"])
def test_steps_are_a_number_or_auto(text, command, digits):
    code, out, err = command(str(digits), "--calibrate", "digits", f"--steps={text}")
    assert code == 2 and "auto" in err and not out


@pytest.mark.parametrize("option", ["--steps=5", "--balance=error", "--max-pool=average", "--curve=x.png"])
def test_options_of_the_conversion_are_for_onnx(option, command, model):
    code, _, err = command(str(model), option)
    assert code == 1 and "is for ONNX models" in err


def test_diverge_needs_a_network_that_spikes(program, digits, capsys):
    assert run(["diverge", str(program), "--against", str(digits), "--data", "digits"]) == 1
    assert "has no spikes to compare" in capsys.readouterr().err


def test_data_with_steps_of_their_own_are_refused(command, digits, tmp_path):
    path = tmp_path / "moving.npz"
    np.savez(path, inputs=np.zeros((4, 6, 1, 8, 8)))
    code, _, err = command(str(digits), "--calibrate", str(path))
    assert code == 1 and "the model takes static ones" in err


def test_steps_of_a_program_that_was_not_converted(program, data, capsys):
    assert run([str(program), "--data", str(data), "--steps", "5"]) == 1
    assert "converted" in capsys.readouterr().err


def test_one_data_set_is_divided(command, digits: Path, tmp_path: Path, images: dict[str, Any]) -> None:
    inputs, labels = images["test"]
    file, program = tmp_path / "data.npz", tmp_path / "out.snn"
    np.savez(file, inputs=inputs, labels=labels)
    code, out, err = command(digits, "--check", file, "--steps", 8, "-o", program, "--json")
    result = json.loads(out)
    aside = result["holdout"]["indices"]
    assert code == 0 and len(aside) == 36 and f"36 of the {len(inputs)} samples" in err
    rest = np.setdiff1d(np.arange(len(inputs)), aside)
    conversion = convert(read_onnx(digits), inputs[aside], ConversionOptions(8))
    expected = simulate(
        compile_graph(conversion.network, calibration=shown(inputs[aside], 8)), shown(inputs[rest], 8)
    )
    deployed = float((expected.predictions == labels[rest]).mean())
    assert result["accuracy"]["deployed"] == deployed and result["accuracy"]["samples"] == len(rest)
    code, out, _ = command(program, "--json", main=run)
    assert code == 0 and json.loads(out)["accuracy"]["deployed"] == deployed
    assert "--calibrate" in command(digits, "--check", file, "--holdout", 0)[2]
