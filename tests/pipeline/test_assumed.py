"""What a file of a known exporter does not hold, from the command to the report: said, kept, asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest

from snn_compile.compiler import Options, compile_graph, lower
from snn_compile.compiler.cli.main import main as compile_main
from snn_compile.compiler.frontends.nir import read_nir
from snn_compile.runtime.cli.main import main as run_main
from snn_compile.targets.errors import AmbiguousConvention
from snn_compile.targets.program.file import load_program

FOLDER = Path(__file__).parents[1] / "data" / "frameworks"
FILE = str(FOLDER / "snntorch-rleaky-zero.nir")
LOST = {"inhibition": "none", "state_quant": "none"}
ASSUMED = {"reset": "subtract", "reset_timing": "next_after", "spike_amplitude": 1.0, **LOST}


@pytest.fixture
def data(tmp_path: Path) -> str:
    inputs = np.load(FOLDER / "snntorch-rleaky-zero.npz")["inputs"]
    np.savez(tmp_path / "data.npz", inputs=inputs, labels=np.arange(len(inputs)))
    return str(tmp_path / "data.npz")


def test_the_command_says_what_it_assumes_and_the_program_keeps_it(
    tmp_path: Path, data: str, capsys: pytest.CaptureFixture[str]
) -> None:
    program = str(tmp_path / "a.snn")
    assert compile_main([FILE, "--calibrate", data, "-o", program, "--json"]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    said = [line for line in err.splitlines() if line.startswith("snn-compile: assumed ")]
    assert found["assumed"] == ASSUMED == lower(FILE).assumed
    assert [line.removeprefix("snn-compile: ") for line in said] == found["assumptions"] and len(said) == 4
    assert said[3].startswith("snn-compile: assumed inhibition=none, state_quant=none: snntorch drops ")
    assert "--convention reset=value if the layers have reset_mechanism='zero'" in said[0]
    assert json.loads(load_program(program).provenance["assumed"])[0]["item"] == "reset"
    reports = [str(tmp_path / f"r.{suffix}") for suffix in ("json", "html")]
    words = [word for file in reports for word in ("--report", file)]
    assert run_main([program, "--data", data, *words]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "assumed reset=subtract (the default of snntorch; the file does not hold it)" in text
    assert json.loads(Path(reports[0]).read_text())["assumed"] == ASSUMED
    assert "assumed reset_timing=next_after" in Path(reports[1]).read_text()
    assert compile_main(["inspect", program, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["assumed"] == ASSUMED


def test_what_is_stated_is_not_assumed_and_values_may_differ_by_node(
    capsys: pytest.CaptureFixture[str],
) -> None:
    by_node = {"reset_timing": {"1.lif": "next_after", "3": "next_before"}, "spike_amplitude": 1.0, **LOST}
    assert lower(FILE, {"reset": "value"}).assumed == by_node
    assert compile_main([FILE, "--convention", "reset=value", "--stop-after", "lower", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["assumed"] == by_node
    one = lower(FILE, {"nodes": {"3": {"reset": "value"}}})
    assert [p.reset for p in one.populations] == ["subtract", "value"]
    assert one.population("3").reset_timing == "next_before" and one.assumed["reset"] == "subtract"
    stated = {"reset": "value", "reset_timing": "same_step", "spike_amplitude": 1}
    assert lower(FILE, stated).assumed == LOST and lower(FILE, {**stated, **LOST}).assumed == {}


def test_strict_asks_for_everything(tmp_path: Path, data: str, capsys: pytest.CaptureFixture[str]) -> None:
    for asked in (
        lambda: lower(FILE, strict=True),
        lambda: lower(FILE, {"maker": "snntorch"}, strict=True),
        lambda: compile_graph(read_nir(FILE), options=Options(strict=True)),
    ):
        with pytest.raises(AmbiguousConvention) as error:
            asked()
        assert set(error.value.missing) == set(ASSUMED)
    program = str(tmp_path / "a.snn")
    assert compile_main([FILE, "-o", program]) == 0
    capsys.readouterr()
    commands: list[tuple[Any, list[str]]] = [
        (compile_main, [FILE, "--strict"]),
        (compile_main, ["export", FILE, "--strict", "-o", str(tmp_path / "b.nir")]),
        (run_main, ["diverge", program, "--against", FILE, "--data", data, "--strict"]),
        (run_main, [program, "--against", FILE, "--data", data, "--strict"]),
    ]
    for command, words in commands:
        assert command(words) == 1
        err = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
        assert len(err) == 1 and "reset (subtract by default, value if" in err[0] and FILE in err[0]
    assert not (tmp_path / "b.nir").exists()
    with pytest.raises(SystemExit):
        run_main([program, "--data", data, "--strict"])  # of nothing: there is no --against
    stated = (
        "reset=value",
        "reset_timing=same_step",
        "spike_amplitude=1",
        "inhibition=none",
        "state_quant=none",
    )
    flags = [word for item in stated for word in ("--convention", item)]
    assert compile_main([FILE, "--strict", *flags]) == 0


def test_an_exported_graph_holds_what_was_settled(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = str(tmp_path / "b.nir")
    assert compile_main(["export", FILE, "--convention", "reset=value", "-o", made]) == 0
    assert "snn-compile: assumed reset_timing=" in capsys.readouterr().err
    network = lower(made, strict=True)
    assert network.assumed == {} and network.digest() == lower(FILE, {"reset": "value"}).digest()
    plain = str(tmp_path / "c.nir")
    assert compile_main(["export", FILE, "-o", plain]) == 0
    assert not nir.read(plain, type_check=False).metadata  # without options the graph is as it was


def test_the_users_word_against_the_numbers_is_a_warning_once(capsys: pytest.CaptureFixture[str]) -> None:
    file = str(FOLDER / "norse-lif.nir")
    assert compile_main(["inspect", file, "--convention", "maker=sinabs", "--json"]) == 0
    out, err = capsys.readouterr()
    text = "maker=sinabs is stated, but node '1': tau is"
    assert json.loads(out)["contract"]["comparison"] == {"value": ">=", "decided": "exporter stated (sinabs)"}
    assert sum(text in line for line in json.loads(out)["warnings"]) == 1
    assert sum(text in line for line in err.splitlines()) == 1
    assert compile_main([file, "--convention", "maker=snntorch"]) == 1  # its dt is longer than time constants
    err = capsys.readouterr().err
    assert "dt must not exceed" in err and "maker=snntorch is stated, but node '1': r is 1" in err


def test_the_users_word_holds_against_metadata(tmp_path: Path) -> None:
    made = str(tmp_path / "b.nir")
    assert compile_main(["export", FILE, "--convention", "reset=value", "-o", made]) == 0
    network = lower(made, {"maker": "snntorch"})
    assert network.assumed == ASSUMED and network.decided["dt"] == "exporter stated (snntorch)"
    assert lower(made, {"maker": "none"}).assumed == {}
