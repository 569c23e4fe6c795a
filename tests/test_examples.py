"""The examples work from outside the package, through the three commands: a chip, a cost table, a device."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import comparing, random_programs

from snn_compile.targets import load_program

FEW = ("--samples", "20", "--check")
EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def command(floor: str, folder: Path, *arguments: str) -> Any:
    """Run a command in a folder and return its JSON."""
    words = [sys.executable, "-m", f"snn_compile.{floor}.cli", *arguments, "--json"]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder outside the checkout with the examples, a small trained model, and its data."""
    place = tmp_path_factory.mktemp("examples")
    for part in ("chip", "costs"):
        shutil.copytree(EXAMPLES / part, place / part)
    shutil.copy(EXAMPLES / "device/plain.py", place)
    small = ("epochs=1", "hidden=8", "copies=1", "steps=8", "weight_bits=0")
    command("train", place, "digits", "-o", "model.pt", *(word for key in small for word in ("--set", key)))
    return place


@pytest.fixture(scope="module")
def program(folder: Path) -> Path:
    """The model compiled for the example chip."""
    made = ("--target", "chip/chip16.toml", "--calibrate", "digits", "-o", "model.snn")
    result = command("compiler", folder, "model.pt", *made)
    assert result["resources"]["cores"] == {"used": 1, "limit": 16}
    return folder / "model.snn"


def test_the_chip_and_its_costs_go_through_the_commands(folder: Path, program: Path) -> None:
    loaded = load_program(program)
    assert (loaded.chip, loaded.formats.state_bits, loaded.formats.decay_bits) == ("chip16", 16, 10)
    # The program carries the chip: it runs where the chip's file is not.
    (folder / "elsewhere").mkdir()
    shutil.copy(program, folder / "elsewhere")
    words = ("model.snn", "--data", "digits", "--against", "../model.pt", *FEW)
    report = command("runtime", folder / "elsewhere", *words)
    assert report["check"]["equal"] and report["program"]["chip"] == "Chip 16, an example"
    proxies = report["energy"]
    assert set(proxies) == {"synops", "edge28", "cmos45", "sanafe", "lemaire2022"}
    assert proxies["synops"]["source"] == "invented for this example"
    assert proxies["synops"]["total_pj"] == pytest.approx(8.0 * report["counts"]["total"]["synops"])
    assert report["agreement"] > 0.8


def test_the_device_goes_through_the_command(folder: Path, program: Path) -> None:
    words = (program.name, "--data", "digits", "--device", "plain:Plain", *FEW)
    report = command("runtime", folder, *words)
    assert report["device"] == "plain" and report["check"]["equal"]


def test_the_device_agrees_with_the_oracle(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", list(sys.path))
    runs = 0
    for seed in range(60):
        case = random_programs.case(seed, random_programs.SMALL)
        if all(population.plain for population in case.program.populations):
            names = ("oracle", "plain:Plain")
            oracle, plain = (comparing.run_all(case.program, case.inputs, name) for name in names)
            ours, theirs = comparing.traces(oracle), comparing.traces(plain)
            assert all(np.array_equal(ours[key], theirs[key]) for key in ours), seed
            runs += 1
    assert runs > 15
