"""Files that older versions wrote load, run and save as they did; see `data/formats/README.md`."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from snn_compile.compiler.cli.inspect import program_json
from snn_compile.runtime.evaluation.compare import report
from snn_compile.targets import Program, execute, load_program
from snn_compile.targets.chips.formats import LOIHI
from snn_compile.targets.errors import WrongProgram
from snn_compile.targets.program.digest import encode
from snn_compile.targets.program.file import VERSION
from snn_compile.targets.program.models import MODELS
from snn_compile.train import load_checkpoint

FOLDER = Path(__file__).parent / "data/formats"
PROGRAMS = sorted(FOLDER.glob("program-*.snn"))
CHECKPOINTS = json.loads((FOLDER / "checkpoint-1.json").read_text())


def number(file: Path) -> int:
    """Return the format number that the file states."""
    with zipfile.ZipFile(file) as archive:
        version: int = json.loads(archive.read("program.json"))["version"]
    return version


def check_run(program: Program, known: Mapping[str, Any], device: str) -> None:
    """Assert that a run gives what the oracle gave when the file was written."""
    inputs = {key.removeprefix("inputs/"): known[key] for key in known if key.startswith("inputs/")}
    spikes = [key.removeprefix("spikes/") for key in known if key.startswith("spikes/")]
    states = [key.removeprefix("states/") for key in known if key.startswith("states/")]
    record = execute(program, inputs, device, record=spikes, probes=states)
    assert spikes == [p.name for p in program.populations if p.spiking]
    assert all(np.array_equal(record.spikes(name), known[f"spikes/{name}"]) for name in spikes)
    assert all(np.array_equal(record.states(name), known[f"states/{name}"]) for name in states)
    assert np.array_equal(record.outputs, known["outputs"])
    assert np.array_equal(record.predictions, known["predictions"])
    for name, lost in record.overflows.items():
        assert known[f"overflows/{name}"].tolist() == [lost.u_wraps, lost.v_high, lost.v_low], name


def test_every_format_number_and_model_is_there() -> None:
    assert {number(file) for file in PROGRAMS} == {int(file.name.split("-")[1]) for file in PROGRAMS}
    assert {number(file) for file in PROGRAMS} == set(range(1, VERSION + 1))
    programs = [load_program(file) for file in PROGRAMS]
    assert {p.model for program in programs for p in program.populations} == set(MODELS)
    assert {program.period for program in programs} == {1, 2, 3}
    assert {program.chip for program in programs if program.cores} == {"loihi1", "loihi2", "chip16"}


@pytest.mark.parametrize("file", PROGRAMS, ids=lambda file: file.stem)
def test_a_program_loads_runs_and_saves_as_it_did(tmp_path: Path, file: Path) -> None:
    program = load_program(file)
    with np.load(file.with_suffix(".npz")) as archive:
        known = dict(archive)
    assert number(file) > 2 or program.formats == LOIHI
    # A file of version 1 states no period, and a chip in one of version 3 states memory in bits.
    kept = number(file) == 2 or number(file) > 3 or (number(file) == 3 and program.profile is None)
    assert (program.digest() == str(known["digest"])) == kept
    for device in ("oracle", "loihi2-sim"):
        check_run(program, known, device)
    program.save(tmp_path / "again.snn")
    again = load_program(tmp_path / "again.snn")
    assert number(tmp_path / "again.snn") == VERSION and again.digest() == program.digest()
    (body, arrays), (body_again, arrays_again) = encode(program), encode(again)
    assert body == body_again
    assert all(np.array_equal(a, b) for a, b in zip(arrays, arrays_again, strict=True))


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_checkpoint_loads_as_it_did(name: str) -> None:
    known = CHECKPOINTS[name]
    checkpoint = load_checkpoint(FOLDER / name)
    if checkpoint.graph is not None:
        nodes = sorted(f"{key}: {type(node).__name__}" for key, node in checkpoint.graph.nodes.items())
        assert nodes == known["nodes"] and checkpoint.digest() == known["graph"]
    assert (checkpoint.graph is None) == (known["graph"] == "")
    assert json.loads(json.dumps(checkpoint.config)) == known["config"]
    assert (checkpoint.metrics, checkpoint.data) == (known["metrics"], known["data"])
    digest = hashlib.sha256()
    for key in sorted(checkpoint.state_dict):
        array = checkpoint.state_dict[key].numpy()
        digest.update(f"{key} {array.dtype.name} {array.shape}".encode() + array.tobytes())
    assert digest.hexdigest() == known["state_dict"]


def test_a_program_of_an_older_chip_version_runs_and_its_mapping_is_reported_as_old(tmp_path: Path) -> None:
    file = FOLDER / "program-2-compiled.snn"
    program = load_program(file)
    program.save(tmp_path / "old.snn")
    old = load_program(tmp_path / "old.snn")
    with np.load(file.with_suffix(".npz")) as archive:
        known = dict(archive)
    for device in ("oracle", "loihi2-sim"):
        check_run(old, known, device)
    note = old.mapping_note
    assert note.startswith("mapped under loihi2 version 1, and this installation has version 2: ")
    today = replace(program, chip_version=2, cores=(), routes=())
    assert today.mapping_note == "" and "\n" not in note
    assert old.describe().splitlines()[1] == note and "mapped under" not in today.describe()
    assert program_json(old, "old.snn")["warnings"] == [note]
    inputs = {key.removeprefix("inputs/"): known[key] for key in known if key.startswith("inputs/")}
    assert note in report(old, execute(old, inputs)).text(300)
    assert "mapped under" not in report(today, execute(today, inputs)).text(300)
    with pytest.raises(WrongProgram, match="compiled for loihi2 version 3; this installation has version 2"):
        replace(program, chip_version=3)
