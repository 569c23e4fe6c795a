import json
import os
import signal
import subprocess
import sys
import time

import pytest

from snn_compile.train import cli, load_checkpoint
from snn_compile.train.configs.registry import PRESETS

QUICK = [f"--set={item}" for item in ("copies=0", "steps=5", "hidden=24", "epochs=2")]


def test_a_preset_gives_json_on_stdout_and_a_checkpoint(tmp_path, capsys):
    path = tmp_path / "model.pt"
    assert cli.main(["digits", *QUICK, "--set", "seed=3", "-o", str(path), "--json"]) == 0
    out, err = capsys.readouterr()
    result = json.loads(out)
    assert result["schema"] == {"name": "snn-train", "version": 1}
    assert result["metric"]["name"] == "accuracy" and result["metric"]["split"] == "test"
    assert (result["preset"], result["seed"], result["epochs"]) == ("digits", 3, 2)
    assert result["checkpoint"] == str(path) and result["cpu_seconds"] > 0
    assert 0 < result["spike_rate"] < 1
    checkpoint = load_checkpoint(path)
    assert checkpoint.metrics["test_accuracy"] == result["metric"]["value"]
    assert checkpoint.config["seed"] == 3 and checkpoint.data["name"] == "digits"
    assert "epoch" in err


def test_the_table_shows_the_same(tmp_path, capsys):
    assert cli.main(["digits", *QUICK, "-o", str(tmp_path / "model.pt")]) == 0
    out = capsys.readouterr().out
    assert "test accuracy" in out and "spike rate" in out and "model.pt" in out


def test_the_presets_are_listed(capsys):
    assert cli.main(["--list-presets"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(PRESETS)
    assert cli.main(["--list-presets", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)["presets"]) == set(PRESETS)


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["mnist", "-o", "m.pt"], "no preset 'mnist'"),
        (["digits", "--set", "epoch=3", "-o", "m.pt"], "no key 'epoch'; known are"),
        (["missing.toml", "-o", "m.pt"], "no such file"),
        (["digits", "-o", "missing/m.pt"], "does not exist"),
        (["digits", "-o", "."], "is a folder"),
        (["digits", "--set", "data=missing.npz", "-o", "m.pt"], "no such file"),
        (["digits", "--set", "coding=phase", "-o", "m.pt"], "coding is 'phase'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_1(tmp_path, monkeypatch, capsys, arguments, says):
    monkeypatch.chdir(tmp_path)
    assert cli.main(arguments) == 1
    out, err = capsys.readouterr()
    lines = [line for line in err.splitlines() if line.startswith("snn-train:")]
    assert out == "" and len(lines) == 1 and says in lines[0]
    assert "Traceback" not in err and not list(tmp_path.iterdir())


@pytest.mark.parametrize("arguments", [[], ["digits"], ["digits", "--fast", "-o", "m.pt"]])
def test_wrong_usage_is_exit_code_2(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2


def test_help_is_quick_and_needs_no_torch():
    code = (
        "import sys; from snn_compile.train import cli\n"
        "try: cli.main(['--help'])\n"
        "except SystemExit: print(sorted({'torch', 'numba', 'lava', 'sklearn'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "snn-train" in out.stdout and out.stdout.splitlines()[-1] == "[]"


def test_ctrl_c_ends_with_130_and_the_best_checkpoint(tmp_path):
    path = tmp_path / "model.pt"
    command = [sys.executable, "-m", "snn_compile.train.cli", "digits", "-o", str(path)]
    process = subprocess.Popen(
        [*command, "--set=epochs=100000", "--set=copies=0", "--set=hidden=16", "--set=steps=2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted" in err and "Traceback" not in err
    assert "validation accuracy" in out
    assert load_checkpoint(path).metrics["epoch"] >= 1
    assert [p.name for p in tmp_path.iterdir()] == ["model.pt"]


def test_the_public_names_are_sorted_and_exist():
    from snn_compile import train

    assert train.__all__ == sorted(train.__all__)
    assert all(getattr(train, name) is not None for name in train.__all__)
    assert set(train.__all__) <= set(dir(train))
    with pytest.raises(AttributeError, match="nothing"):
        train.nothing  # noqa: B018


def test_dynamics_prints_orders_and_writes_no_model(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    few = ["--set=paths=400", "--set=levels=3", "--set=seed=1"]
    assert cli.main(["dynamics", *few, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    for item in ("strong", "weak", "mismatch"):
        assert result[item].keys() >= {"slope", "low", "high"}
        assert len(result[item]["errors"]) == len(result["steps"]) == 3
    assert {row["setting"] for row in result["lyapunov"]} >= {"mu 1.5, sigma 0", "two layers"}
    for row in result["lyapunov"]:
        assert abs(row["saltation"] - row["perturbation"]) <= 1e-3
        assert not row["setting"].endswith("sigma 0") or abs(row["saltation"]) <= 1e-3
    assert result["preset"] == "dynamics" and result["seed"] == 1 and not list(tmp_path.iterdir())
    assert cli.main(["dynamics", *few, "-o", "figure.png"]) == 0
    out, err = capsys.readouterr()
    assert "slope in log-log" in out and "Lyapunov exponent" in out and "two layers" in err
    assert (tmp_path / "figure.png").read_bytes()[1:4] == b"PNG"


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["--set", "epochs=3"], "has the keys paths, levels and seed"),
        (["--set", "paths=many"], "paths is a whole number"),
        (["--set", "paths=3"], "at least 400 paths"),
        (["-o", "model.pt"], "writes no model"),
    ],
)
def test_dynamics_refuses_what_it_does_not_have(capsys, arguments, says):
    assert cli.main(["dynamics", *arguments]) == 1
    out, err = capsys.readouterr()
    assert out == "" and says in err
