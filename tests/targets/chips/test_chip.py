"""Chips are files: every one loads, and the names on offer are those of the files."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from snn_compile.targets.chips import chip
from snn_compile.targets.chips.chip import chip_names, energy_coefficients, load_chip, target_names
from snn_compile.targets.chips.formats import LOIHI
from snn_compile.targets.errors import ChipError

FILES = sorted(Path(str(resources.files("snn_compile.targets.chips"))).glob("*.toml"))
CHIPS = [file.stem for file in FILES if file.stem != "costs"]


def test_names_are_those_of_the_files() -> None:
    assert chip_names() == CHIPS
    assert "loihi2" in CHIPS and len(CHIPS) >= 2
    assert target_names() == {f"{name}{end}": name for name in CHIPS for end in ("", "-sim")}


@pytest.mark.parametrize("name", CHIPS)
def test_every_chip_loads(name: str) -> None:
    loaded = load_chip(name)
    assert loaded.name == name and load_chip(f"{name}-sim") == loaded
    formats = loaded.formats
    assert formats == LOIHI
    assert loaded.version >= 1 and loaded.title
    for key in ("cores", "core_neurons", "core_memory_bits", "core_in_axons", "core_out_axons"):
        assert getattr(loaded, key) > 0, key
    assert loaded.cores <= loaded.grid[0] * loaded.grid[1] * loaded.cores_per_tile
    for low, high in (formats.bias_exponent, formats.weight_bits, formats.weight_exponent):
        assert low < high
    assert (formats.threshold_max, formats.decay_max, formats.bias_mantissa_max) == (131071, 4095, 4095)
    # Memory for the deepest delay, in the bits a delay takes.
    assert loaded.delay_max < 1 << loaded.delay_bits
    assert loaded.message_bits_max > 1 or not loaded.graded_messages
    table = energy_coefficients(loaded.energy_table)
    assert isinstance(table["source"], str) and table["source"]
    numbers = [value for value in table.values() if isinstance(value, float)]
    assert numbers and all(value > 0 for value in numbers)


@pytest.mark.parametrize("name", ["loihi3", "", "costs", "../loihi2", "loihi2-sim-sim"])
def test_an_unknown_target_lists_the_names(name: str) -> None:
    with pytest.raises(ChipError) as caught:
        load_chip(name)
    assert str(caught.value) == (
        f"unknown target {name!r}; targets are: {', '.join(f'{chip}-sim' for chip in CHIPS)}"
    )
    assert caught.value.target == name


def test_an_unknown_energy_table_lists_the_names() -> None:
    with pytest.raises(ChipError, match="no energy table named 'none'; there are: .*loihi1"):
        energy_coefficients("none")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("[neuron]", "[neurone]"), "chip file of odd: key 'neuron' is missing"),
        (("delay_max", "delay_most"), "chip file of odd: key 'delay_max' is missing"),
        (("[cores]", "[cores"), "chip file odd.toml: "),
    ],
)
def test_a_chip_file_with_a_mistake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: tuple[str, str], message: str
) -> None:
    text = next(file for file in FILES if file.stem == "loihi2").read_text(encoding="utf-8")
    assert text.count(change[0]) == 1
    (tmp_path / "odd.toml").write_text(text.replace(*change), encoding="utf-8")

    def files(package: Any) -> Path:
        return tmp_path

    monkeypatch.setattr(chip.resources, "files", files)
    with pytest.raises(ChipError, match=f"^{message}") as caught:
        load_chip("odd")
    assert "\n" not in str(caught.value)
