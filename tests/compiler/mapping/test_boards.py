"""Several chips, and none: cores go on from chip to chip, and results never change."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.mapping.dense_graphs import dense_graph

from snn_compile.compiler import Options, compile_graph
from snn_compile.compiler.cli.main import main
from snn_compile.runtime import simulate
from snn_compile.targets import execute
from snn_compile.targets.chips.chip import boards, load_chip, target_names
from snn_compile.targets.errors import ChipError, DoesNotFit
from snn_compile.targets.program.file import load_program

CHIP = """
name = "small"
version = 1
title = "a small chip, one chip"
default_device = "loihi2-sim"

[cores]
count = 3
neurons = 16
groups = 4
in_axons = 256
out_axons = 256
grid = [2, 1]
cores_per_tile = 2
"""


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the path of a chip of three cores of sixteen neurons."""
    folder = Path(str(load_chip.__globals__["_folder"]()))
    text = (folder / "loihi2.toml").read_text()
    file = tmp_path_factory.mktemp("chip") / "small.toml"
    file.write_text(CHIP + text[text.index("[memory]") :])
    return str(file)


@pytest.mark.parametrize("seed", range(6))
def test_chips_change_cores_and_never_results(seed: int, small: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    sizes = [int(n) for n in rng.integers(20, 60, 3)]
    graph = dense_graph(sizes, seed)
    data = (rng.random((5, 12, sizes[0])) < 0.3).astype(float)
    with pytest.raises(DoesNotFit, match="cores"):
        compile_graph(graph, small, Options(rounding="nearest"), data)
    programs = {
        "auto": compile_graph(graph, small, Options(rounding="nearest", chips="auto"), data),
        "many": compile_graph(graph, small, Options(rounding="nearest", chips=40), data),
        "unbounded": compile_graph(graph, "unbounded", Options(rounding="nearest"), data),
        "loihi2": compile_graph(graph, "loihi2", Options(rounding="nearest"), data),
    }
    auto = programs["auto"]
    assert auto.chips == -(-len(auto.cores) // 3) > 1 and programs["many"].chips == 40
    assert not programs["unbounded"].cores and not programs["unbounded"].routes
    for core in auto.cores:
        assert core.tile == (core.index % 3 // 2, 0)
    records = {name: execute(p, data, "loihi2-sim", record=("out",)) for name, p in programs.items()}
    records["oracle"] = execute(auto, data, "oracle", record=("out",))
    wanted = records["loihi2"]
    assert wanted.spikes("out").any()
    for name, record in records.items():
        assert np.array_equal(record.spikes("out"), wanted.spikes("out")), name
    auto.save(tmp_path / "a.snn")
    again = load_program(tmp_path / "a.snn")
    assert again.digest() == auto.digest() and again.chips == auto.chips
    assert again.target.all_cores == 3 * auto.chips and "of chip 1" in again.describe()
    with pytest.raises(DoesNotFit, match="cores"):
        replace(auto, chips=1)


def test_boards_are_targets(capsys: pytest.CaptureFixture[str]) -> None:
    for name, board in boards().items():
        chip = load_chip(f"{name}-sim")
        assert chip.name == board.chip == target_names()[name] and chip.chips == board.chips
        assert chip.all_cores == chip.cores * board.chips and f"{board.chips} chips" in chip.heading
    assert main(["--list-targets"]) == 0
    listed = capsys.readouterr().out
    assert all(f"{name}-sim" in listed for name in ("loihi2", "unbounded", *boards()))
    with pytest.raises(ChipError, match="0 chips"):
        load_chip("loihi2").times(0)


@pytest.mark.parametrize("text", ["0", "-1", "many", "1.5"])
def test_no_number_of_chips_is_a_usage_error(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["net.nir", "--chips", text])
    assert caught.value.code == 2 and "no number of chips" in capsys.readouterr().err


def test_a_program_without_a_chip_runs_and_reports(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import nir

    nir.write(tmp_path / "net.nir", dense_graph([12, 9, 4], 1))
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "d.npz", inputs=rng.integers(0, 2, (6, 8, 12)), labels=np.arange(6) % 4)
    out, data = str(tmp_path / "p.snn"), str(tmp_path / "d.npz")
    command = [str(tmp_path / "net.nir"), "--target", "unbounded", "--calibrate", data, "--check", data]
    assert main([*command, "-o", out]) == 0
    assert "not mapped" in capsys.readouterr().out
    record = simulate(load_program(out), rng.integers(0, 2, (2, 8, 12)))
    assert record.steps == 8
