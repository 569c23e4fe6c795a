"""Devices by name, of other distributions and by `package.module:Class`: loaded late, refused in one line."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import random_programs

from snn_compile.runtime.cli import main
from snn_compile.targets.devices.device import execute, open_device
from snn_compile.targets.devices.events import SpikeEvents
from snn_compile.targets.devices.record import DeviceRun
from snn_compile.targets.devices.registry import BUILT_IN, conflicts, device_names, listings
from snn_compile.targets.errors import DeviceError
from snn_compile.targets.oracle.device import Oracle

MODULE = """
from snn_compile.targets.oracle.device import Oracle

class Mine(Oracle):
    name = "mine"

class Nameless:
    def run(self, *arguments):
        return None

class Still:
    name = "still"

class Fails(Mine):
    def __init__(self):
        raise ValueError("no licence")

class Hidden:
    @property
    def name(self):
        raise RuntimeError("not today")
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder that holds a module of devices, and is left as it was found."""
    (tmp_path / "bench_devices.py").write_text(MODULE)
    (tmp_path / "broken_device.py").write_text("import bench_devices_that_are_not_there\n")
    (tmp_path / "script_device.py").write_text("import sys\nsys.exit(5)\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("bench_devices", "broken_device", "wave"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


def declare(folder: Path, distribution: str, **devices: str) -> None:
    """Write the metadata of an installed distribution that declares devices."""
    info = folder / f"{distribution}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
    lines = [f"{name.replace('_', '-')} = {place}" for name, place in devices.items()]
    (info / "entry_points.txt").write_text("\n".join(["[snn_compile.devices]", *lines, ""]))


def test_a_class_is_found_in_the_current_folder(folder: Path) -> None:
    assert open_device("bench_devices:Mine", strict=True).name == "mine"
    case = random_programs.case(3, random_programs.SMALL)
    mine, oracle = (execute(case.program, case.inputs, d) for d in ("bench_devices:Mine", "oracle"))
    assert mine.device == "mine" and np.array_equal(mine.outputs, oracle.outputs)


def test_the_current_folder_is_searched_last(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "wave.py").write_text(MODULE)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    with pytest.raises(DeviceError, match="^device 'wave:Mine': module wave has no Mine$"):
        open_device("wave:Mine")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gpu", "unknown device 'gpu'; devices are: oracle, .*, or package.module:Class$"),
        ("orcle", "unknown device 'orcle'; .*; did you mean oracle"),
        (":Mine", "unknown device ':Mine'"),
        ("bench_devices:", "unknown device 'bench_devices:'"),
        ("bench_devices:Mime", "'bench_devices:Mime': module bench_devices has no Mime; did you mean Mine"),
        ("bench_devices:Nameless", "Nameless is no device: it has no text `name`"),
        ("bench_devices:Still", "Still is no device: it has no method `run`"),
        ("bench_devices:Fails", r"cannot be loaded from bench_devices:Fails \(ValueError: no licence\)"),
        ("bench_devices:Oracle.name", r"cannot be loaded from .* \(TypeError: 'str' object is not callable"),
        ("bench_devices:Hidden", r"cannot be loaded from .* \(RuntimeError: not today\)"),
        ("script_device:Mine", r"cannot be loaded from script_device:Mine \(SystemExit: 5\)"),
        ("broken_device:Mine", r"cannot be loaded from .* \(ModuleNotFoundError: No module named 'bench_dev"),
        ("no_such_module:Mine", r"cannot be loaded from .* \(ModuleNotFoundError: No module named 'no_such"),
    ],
)
def test_what_is_no_device(folder: Path, name: str, message: str) -> None:
    with pytest.raises(DeviceError, match=message) as caught:
        open_device(name)
    assert caught.value.device == name and "\n" not in str(caught.value)


def test_an_entry_point_is_listed_and_loaded_when_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    declare(folder / "site", "bench", bench="bench_devices:Mine", gone="broken_device:Mine")
    monkeypatch.syspath_prepend(str(folder / "site"))
    assert device_names() == [*BUILT_IN, "bench", "gone"]
    assert listings()["bench"].text == "of bench 1.0"
    assert main(["--list-devices"]) == 0
    assert "bench          of bench 1.0\n" in capsys.readouterr().out
    assert not {"bench_devices", "broken_device"} & set(sys.modules)
    assert open_device("bench").name == "mine"
    with pytest.raises(DeviceError, match="device 'gone' cannot be loaded from broken_device:Mine"):
        open_device("gone")


def test_a_built_in_name_cannot_be_taken(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    declare(folder / "site", "evil", oracle="bench_devices:Mine")
    monkeypatch.syspath_prepend(str(folder / "site"))
    line = "device 'oracle' of evil 1.0 is ignored: oracle is a built-in name; it needs another"
    assert conflicts() == [line] and device_names() == list(BUILT_IN)
    with pytest.warns(UserWarning, match=line):
        assert type(open_device("oracle")) is Oracle
    assert open_device("loihi2-sim").name == "loihi2-sim"
    assert main(["--list-devices"]) == 0
    assert line in capsys.readouterr().err


def test_two_distributions_of_one_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    declare(folder / "site", "first", bench="bench_devices:Mine")
    declare(folder / "site", "second", bench="bench_devices:Still")
    monkeypatch.syspath_prepend(str(folder / "site"))
    assert "bench" in device_names()
    with pytest.raises(DeviceError, match="'bench' is declared by first 1.0 and second 1.0; unins"):
        open_device("bench")


class Returning:
    """A device that returns what the oracle does, changed."""

    name = "odd"

    def __init__(self, change: Any) -> None:
        self.change = change

    def run(self, *arguments: Any) -> Any:
        return self.change(Oracle().run(*arguments))


def returned(**parts: Any) -> Any:
    """Return a change of a DeviceRun: its parts, each made from what it was."""

    def change(run: DeviceRun) -> DeviceRun:
        return DeviceRun(**{**vars(run), **{key: make(getattr(run, key)) for key, make in parts.items()}})

    return change


def shifted(events: SpikeEvents) -> SpikeEvents:
    return replace(events, neurons=events.neurons + events.size)


WRONG: dict[str, tuple[Any, str]] = {
    "nothing": (lambda run: None, "returned a NoneType; expected a DeviceRun"),
    "spikes of nobody": (returned(spikes=lambda _: {}), "returned no spikes of population 'pop0'"),
    "a list": (returned(spikes=lambda old: list(old)), "returned spikes as a list; expected a mapping"),
    "arrays": (
        returned(spikes=lambda old: {key: events.dense() for key, events in old.items()}),
        "spikes of population 'pop0' as a ndarray; expected SpikeEvents",
    ),
    "too short": (
        returned(spikes=lambda old: {key: events.window(0, 2) for key, events in old.items()}),
        r"spikes of population 'pop0' of shape \(\d, 2, \d\); expected ",
    ),
    "beyond the neurons": (
        returned(spikes=lambda old: {key: shifted(events) for key, events in old.items()}),
        "spikes of population 'pop1' with indices that do not fit their shape",
    ),
    "states of nobody": (returned(states=lambda _: {}), "returned no states 'pop0.v'"),
    "a state's shape": (
        returned(states=lambda old: {key: array[:, 1:] for key, array in old.items()}),
        r"states 'pop0.v' as int32 \(.*\); expected an array of integers",
    ),
    "a state's type": (
        returned(states=lambda old: {key: array * 1.0 for key, array in old.items()}),
        r"states 'pop0.v' as float64 \(.*\); expected an array of integers",
    ),
    "a state's kind": (
        returned(states=lambda old: dict.fromkeys(old, 3)),
        "states 'pop0.v' as int; expected an array of integers",
    ),
    "overflows": (returned(overflows=lambda old: dict.fromkeys(old, 3)), "overflows of 'pop0' as a int; exp"),
    "an error": (lambda run: run.spikes["z"], r"failed \(KeyError: 'z'\)"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_results_are_an_error_of_the_device(name: str) -> None:
    change, message = WRONG[name]
    case = random_programs.case(14, random_programs.SMALL)
    assert sum(execute(case.program, case.inputs, "oracle").counts.spikes.values()) > 0
    with pytest.raises(DeviceError, match=message) as e:
        execute(case.program, case.inputs, Returning(change), probes=("pop0.v",))
    assert e.value.device == "odd" and "\n" not in str(e.value)
