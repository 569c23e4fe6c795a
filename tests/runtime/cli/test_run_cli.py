from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest

from snn_compile.compiler.contract.contract import Contract, attach
from snn_compile.compiler.pipeline import Options, compile_graph
from snn_compile.runtime.cli import main
from snn_compile.targets.devices.record import DeviceRun
from snn_compile.targets.loihi2_sim.device import Loihi2Sim
from snn_compile.targets.program.file import load_program
from snn_compile.targets.program.program import Program


@pytest.fixture
def files(relay: Program, relay_inputs: np.ndarray, tmp_path: Path) -> list[str]:
    """PROGRAM --data DATA, as arguments."""
    relay.save(tmp_path / "relay.snn")
    np.savez(tmp_path / "data.npz", inputs=relay_inputs, labels=[1, 1])
    return [str(tmp_path / "relay.snn"), "--data", str(tmp_path / "data.npz")]


@pytest.fixture
def compiled(tmp_path: Path) -> list[str]:
    """PROGRAM --data DATA --against MODEL, as arguments; labels are the reference's own answers."""
    rng = np.random.default_rng(3)
    graph = nir.NIRGraph(
        {
            "input": nir.Input({"input": np.array([6])}),
            "w": nir.Linear(rng.normal(0, 1, (4, 6))),
            "lif": nir.LIF(np.full(4, 2.0), np.full(4, 1.0), np.zeros(4), np.full(4, 0.5)),
            "output": nir.Output({"output": np.array([4])}),
        },
        [("input", "w"), ("w", "lif"), ("lif", "output")],
    )
    attach(graph, Contract(dt=1.0))
    nir.write(tmp_path / "model.nir", graph)
    inputs = (rng.random((30, 12, 6)) < 0.4).astype(float)
    program = compile_graph(tmp_path / "model.nir", options=Options(weight_bits=6), calibration=inputs)
    program.save(tmp_path / "model.snn")
    np.savez(tmp_path / "data.npz", inputs=inputs, labels=rng.integers(0, 4, 30))
    return [
        str(tmp_path / "model.snn"),
        "--data",
        str(tmp_path / "data.npz"),
        "--against",
        str(tmp_path / "model.nir"),
    ]


def run_json(arguments: list[str], capsys: pytest.CaptureFixture[str], code: int = 0) -> Any:
    assert main([*arguments, "--json"]) == code
    return json.loads(capsys.readouterr().out)


def test_json_result(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    body = run_json(files, capsys)
    assert {"schema", "device", "accuracy", "counts", "energy"} <= body.keys()
    assert body["device"] == "loihi2-sim" and body["accuracy"]["deployed"] == 0.5
    assert body["counts"]["total"]["synops"] == 13


def test_text_result(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*files, "--device", "oracle"]) == 0
    out, err = capsys.readouterr()
    assert "on oracle" in out and "Energy proxies" in out and err == ""


def test_without_labels_there_is_no_accuracy(
    files: list[str], relay_inputs: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez(files[-1], inputs=relay_inputs)
    body = run_json(files, capsys)
    assert body["accuracy"] is None and body["counts"]["total"]["spikes"] == 12


def test_samples_limits_the_data(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_json([*files, "--samples", "1"], capsys)["samples"] == 1
    assert run_json([*files, "--samples", "9"], capsys)["samples"] == 2


def test_against_a_model(compiled: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    body = run_json([*compiled, "--max-drop", "100"], capsys)
    accuracy = body["accuracy"]
    assert accuracy["drop"] == pytest.approx(100 * (accuracy["float"] - accuracy["deployed"]))
    assert accuracy["interval"][0] <= accuracy["drop"] <= accuracy["interval"][1]
    assert body["max_drop"]["passed"] and body["agreement"] > 0.8


def test_max_drop_gate(compiled: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_json([*compiled, "--max-drop", "-100"], capsys, 3)["max_drop"]["passed"] is False
    drop = run_json(compiled, capsys)["accuracy"]["drop"]
    run_json([*compiled, "--max-drop", str(drop)], capsys, 0)
    assert main([*compiled, "--max-drop", "-100"]) == 3
    assert "more than the -100 allowed" in capsys.readouterr().err


def test_against_another_model_says_so(
    compiled: list[str], files: list[str], relay: Program, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.snn"
    wide = replace(relay, provenance={"network": "0" * 64})
    wide.save(other)
    assert main([str(other), *files[1:], "--against", compiled[-1]]) == 1
    err = capsys.readouterr().err
    assert "is not the network this program was compiled from" in err and "error: input" in err


def test_check_of_equal_devices(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*files, "--check"]) == 0
    assert "check: loihi2-sim and oracle are equal on 2 samples, 90 values" in capsys.readouterr().out
    body = run_json([*files, "--check", "--device", "oracle"], capsys)
    assert body["check"]["equal"] and body["check"]["devices"] == ["oracle", "loihi2-sim"]
    assert body["accuracy"]["deployed"] == 0.5


def test_check_exits_3_on_a_planted_difference(
    files: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Loihi2Sim.run

    def faulty(
        self: Loihi2Sim,
        program: Program,
        messages: Mapping[str, np.ndarray],
        device_steps: int,
        probes: Sequence[str],
    ) -> DeviceRun:
        result = run(self, program, messages, device_steps, probes)
        if "b.v" in result.states:
            result.states["b.v"][1, 3, 2] += 5
        return result

    monkeypatch.setattr(Loihi2Sim, "run", faulty)
    assert main([*files, "--check", "--device", "oracle"]) == 3
    out = capsys.readouterr().out
    assert "first difference at step 1, population 'b', neuron 2, sample 1" in out
    assert "v is 0 on oracle and 5 on loihi2-sim; 1 of 90 values differ" in out
    body = run_json([*files, "--check"], capsys, 3)
    assert body["check"]["difference"]["devices"] == ["loihi2-sim", "oracle"]
    assert body["check"]["difference"]["values"] == [5, 0]


def test_data_comes_from_the_program(
    chain: Callable[..., Program], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "own.npz"
    np.savez(data, inputs=np.ones((20, 5, 10)), labels=np.zeros(20, int))
    spec = {"name": str(data), "options": {"partition": True}}
    chain(6, 3, data=json.dumps(spec)).save(tmp_path / "p.snn")
    assert main([str(tmp_path / "p.snn"), "--json"]) == 0
    out, err = capsys.readouterr()
    # Every fifth sample is the test split.
    assert json.loads(out)["samples"] == 4 and json.loads(out)["data"] == {**spec, "split": "test"}
    assert "split test, as the program was compiled for: partition=True" in err


def test_reports_are_written(files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wanted = [tmp_path / "r.html", tmp_path / "r.json", tmp_path / "r.png"]
    assert main([*files, *(word for file in wanted for word in ("--report", str(file)))]) == 0
    assert all(file.stat().st_size > 1000 for file in wanted)
    assert capsys.readouterr().err.count("wrote") == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({0: "missing.snn"}, "no program file"),
        ({2: "missing.npz"}, "no such file"),
        ({2: "nothing"}, "not a known data set"),
        ({3: "--device", 4: "tcp"}, "unknown device 'tcp'"),
        ({3: "--device", 4: "oracle", 5: "--threads", 6: "2"}, "takes no number of threads"),
        ({3: "--against", 4: "missing.pt"}, "no such checkpoint"),
        ({3: "--against", 4: "missing.nir"}, "missing.nir"),
        ({3: "--report", 4: "r.pdf"}, "use one of .html, .json, .png"),
    ],
)
def test_bad_input_is_one_line_and_exit_1(
    files: list[str], changes: dict[int, str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [*files, *[""] * 4]
    for at, word in changes.items():
        arguments[at] = word
    assert main([word for word in arguments if word]) == 1
    out, err = capsys.readouterr()
    assert out == "" and message in err
    assert err.startswith("snn-run: error: ") and err.count("\n") == 1


@pytest.mark.parametrize("inputs", [np.zeros((2, 3, 5)), np.full((2, 3, 2), 0.5)])
def test_unfitting_data(files: list[str], inputs: np.ndarray, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(files[-1], inputs=inputs)
    assert main(files) == 1
    assert capsys.readouterr().err.startswith("snn-run: error: input 'in'")


def test_max_drop_needs_labels(compiled: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(compiled[2], inputs=np.ones((2, 3, 6)))
    assert main([*compiled, "--max-drop", "1"]) == 1
    assert "--max-drop needs labels" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["p.snn", "--max-drop", "1"],
        ["p.snn", "--convention", "dt=1"],
        ["p.snn", "--samples", "0"],
        ["p.snn", "--threads", "-1"],
        ["p.snn", "--unknown"],
        ["p.snn", "--max-drop", "x"],
    ],
)
def test_usage_exits_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2


def test_data_is_required_where_the_program_names_none(files: list[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(files[:1])
    assert stop.value.code == 2


def test_interrupt_says_so_in_a_line(
    files: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Loihi2Sim, "run", interrupt)
    assert main(files) == 130
    assert capsys.readouterr() == ("", "snn-run: interrupted\n")


def test_list_devices(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list-devices"]) == 0
    assert "oracle" in capsys.readouterr().out
    assert {"loihi2-sim", "lava"} <= run_json(["--list-devices"], capsys)["devices"].keys()


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom snn_compile.runtime.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'numba', 'lava', 'matplotlib', 'sklearn', 'scipy', 'rich', 'nir'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]" and "--max-drop" in done.stdout


def test_package_exports() -> None:
    from snn_compile import runtime

    assert runtime.__all__ == sorted(runtime.__all__)
    assert all(callable(getattr(runtime, name)) for name in runtime.__all__)


def test_diverge_finds_a_planted_fault(
    compiled: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program = load_program(compiled[0])
    broken = replace(program, populations=tuple(replace(p, reset="none") for p in program.populations))
    broken.save(compiled[0])
    reports = [str(tmp_path / f"found.{suffix}") for suffix in ("html", "json", "png")]
    flags = [word for file in reports for word in ("--report", file)]
    body = run_json(["diverge", *compiled, *flags, "--samples", "20"], capsys)
    assert body["schema"] == {"name": "snn-run-diverge", "version": 1}
    assert (body["causes"][0]["kind"], body["causes"][0]["place"]) == ("reset kind", "lif")
    assert body["samples"] == 20 and body["accuracy"]["samples"] == 20
    assert body["advice"][0].startswith(f"snn-compile {compiled[4]} ") and "reset=value" in body["advice"][0]
    assert all(Path(file).stat().st_size for file in reports)
    saved = json.loads(Path(reports[1]).read_text())
    assert saved["causes"] == body["causes"]


def test_diverge_of_an_unbroken_program(compiled: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diverge", *compiled]) == 0
    out, err = capsys.readouterr()
    assert "verdict: rounding only" in out and err == ""


def test_diverge_needs_a_model_and_a_fitting_one(
    compiled: list[str], files: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as usage:
        main(["diverge", *compiled[:3]])
    assert usage.value.code == 2 and "--against MODEL" in capsys.readouterr().err
    assert main(["diverge", files[0], "--data", files[-1], "--against", compiled[4]]) == 1
    out, err = capsys.readouterr()
    assert out == "" and "compiled from this model" in err
