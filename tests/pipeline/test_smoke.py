"""Every room in a minute: train, compile, run, compare, report; random programs; one-line errors."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from support import comparing, random_programs

from snn_compile.compiler.cli import main as snn_compile
from snn_compile.runtime.cli import main as snn_run
from snn_compile.train.cli import main as snn_train

pytestmark = pytest.mark.smoke
QUICK = [f"--set={item}" for item in ("copies=0", "steps=4", "hidden=16", "epochs=1")]


def test_train_compile_run_compare_report(command, tmp_path):
    model, program, report = (tmp_path / name for name in ("model.pt", "model.snn", "run.html"))
    assert command("digits", *QUICK, "-o", model, main=snn_train)[0] == 0
    code, out, _ = command(
        model, "--target", "loihi2-sim", "--check", "digits", "-o", program, main=snn_compile
    )
    assert code == 0 and "fits on 1 of 120 cores" in out
    code, out, _ = command(program, "--against", model, "--check", "--json", "--samples", 40, main=snn_run)
    result = json.loads(out)
    assert code == 0 and result["check"]["equal"] and result["accuracy"]["samples"] == 40
    assert command(program, "--against", model, "--report", report, "--samples", 40, main=snn_run)[0] == 0
    assert "<img" in report.read_text()
    code, out, _ = command("diverge", program, "--against", model, "--samples", 20, "--json", main=snn_run)
    assert code == 0 and json.loads(out)["schema"]


@pytest.mark.parametrize("limits", ["SHORT", "SHORT_OTHERS", "SHORT_CUSTOM"])
def test_devices_agree_on_random_programs(limits):
    for seed in range(8):
        case: Any = random_programs.case(seed, getattr(random_programs, limits))
        records = [comparing.run_all(case.program, case.inputs, name) for name in ("oracle", "loihi2-sim")]
        assert not comparing.first_difference(*records)


@pytest.mark.parametrize(
    ("arguments", "main", "says"),
    [
        (("missing.nir",), snn_compile, "missing.nir"),
        (("missing.snn", "--data", "digits"), snn_run, "missing.snn"),
        (("digits", "--set", "epoch=3", "-o", "m.pt"), snn_train, "no key 'epoch'"),
    ],
)
def test_bad_input_is_one_line(command, monkeypatch, tmp_path, arguments, main, says):
    monkeypatch.chdir(tmp_path)
    code, out, err = command(*arguments, main=main)
    assert (code, out, err.count("\n")) == (1, "", 1) and says in err


def test_damaged_data_are_one_line(command, program, tmp_path):
    np.savez(tmp_path / "odd.npz", inputs=np.zeros((2, 3, 7)))
    code, out, err = command(program, "--data", tmp_path / "odd.npz", main=snn_run)
    assert (code, out) == (1, "") and err.splitlines()[-1].startswith("snn-run: error: ")
