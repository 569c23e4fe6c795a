"""Chips are files: every one loads, a user's by its path, and a mistake is named by file, key and reason."""

from __future__ import annotations

import shutil
from importlib import resources
from pathlib import Path

import pytest

from snn_compile.targets.chips.chip import boards, chip_names, load_chip, target_names
from snn_compile.targets.chips.formats import LOIHI
from snn_compile.targets.costs.tables import load_cost_table
from snn_compile.targets.errors import ChipError

FILES = sorted(Path(str(resources.files("snn_compile.targets.chips"))).glob("*.toml"))
CHIPS = [file.stem for file in FILES]
EXAMPLES = Path(__file__).resolve().parents[3] / "examples"


def test_names_are_those_of_the_files() -> None:
    assert chip_names() == CHIPS
    assert "loihi2" in CHIPS and len(CHIPS) >= 2
    named = {name: name for name in CHIPS} | {name: board.chip for name, board in boards().items()}
    assert target_names() == {f"{name}{end}": chip for name, chip in named.items() for end in ("", "-sim")}


@pytest.mark.parametrize("name", CHIPS)
def test_every_chip_loads(name: str) -> None:
    loaded = load_chip(name)
    assert loaded.name == name and load_chip(f"{name}-sim") == loaded
    formats = loaded.formats
    assert formats == LOIHI and loaded.profile is None
    assert loaded.version >= 1 and loaded.title
    for key in ("cores", "core_neurons", "core_groups", "core_in_axons", "core_out_axons"):
        assert getattr(loaded, key) > 0, key
    assert loaded.cores <= loaded.grid[0] * loaded.grid[1] * loaded.cores_per_tile
    for low, high in (formats.bias_exponent, formats.weight_bits, formats.weight_exponent):
        assert low < high
    assert (formats.threshold_max, formats.decay_max, formats.bias_mantissa_max) == (131071, 4095, 4095)
    # Memory for the deepest delay, in the bits a delay takes.
    assert loaded.delay_max < 1 << loaded.memory.delay_bits
    assert loaded.message_bits_max > 1 or not loaded.graded_messages
    assert loaded.cost_table == load_cost_table(loaded.energy_table)


@pytest.mark.parametrize("name", ["loihi3", "", "costs", "../loihi2", "loihi2-sim-sim"])
def test_an_unknown_target_lists_the_names(name: str) -> None:
    with pytest.raises(ChipError) as caught:
        load_chip(name)
    targets = ", ".join(f"{chip}-sim" for chip in (*CHIPS, *boards()))
    assert str(caught.value).startswith(
        f"unknown target {name!r}; targets are: {targets}, or the path of a chip's .toml file"
    )
    assert ("did you mean" in str(caught.value)) == ("loihi" in name)
    assert caught.value.target == name


def copied(folder: Path) -> Path:
    """Copy the example chip and its cost table, and return the chip's file."""
    for part in ("chip", "costs"):
        shutil.copytree(EXAMPLES / part, folder / part)
    return folder / "chip/chip16.toml"


def test_a_users_chip_is_loaded_by_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = copied(tmp_path)
    chip = load_chip(str(file))
    assert (chip.name, chip.formats.state_bits, chip.formats.decay_bits) == ("chip16", 16, 10)
    assert chip.profile is chip
    assert chip.cost_table.name == chip.energy_table == "edge28" and chip.cost_table.synaptic_op_pj == 8.0
    monkeypatch.chdir(tmp_path)
    assert load_chip("chip/chip16.toml") == chip
    # A table of this installation, by name.
    text = file.read_text().replace("../costs/edge28.toml", "loihi1")
    file.write_text(text)
    assert load_chip(str(file)).cost_table == load_cost_table("loihi1") and load_chip(str(file)).costs is None


MISTAKES = {
    "a section misspelt": ("[neuron]", "[neurone]", r"unknown key neurone\.\w+; did you mean neuron\."),
    "a key misspelt": ("delay_max", "delay_most", r"unknown key synapse.delay_most; did you mean synapse.de"),
    "a key more": ("[memory]", "[memory]\ncolour = 3", r"unknown key memory.colour"),
    "a key less": ("delay_max = 15", "", r"key synapse.delay_max is missing"),
    "no text": ('title = "Chip 16, an example"', "title = 3", r"title is 3; it must be a text"),
    "an empty text": ('name = "chip16"', 'name = ""', r"name is ''; it must be a text"),
    "no integer": ("count = 16", "count = 1.5", r"cores.count is 1.5; it must be an integer"),
    "a truth for an integer": ("count = 16", "count = true", r"cores.count is True; it must be an integer"),
    "no truth": ("graded = true", "graded = 1", r"messages.graded is 1; it must be true or false"),
    "no pair": ("grid = [4, 4]", "grid = 4", r"cores.grid is 4; it must be two integers"),
    "three for a pair": ("grid = [4, 4]", "grid = [4, 4, 1]", r"cores.grid is \[4, 4, 1\]; it must be two"),
    "too few": ("neurons = 1024", "neurons = 0", r"cores.neurons is 0; it must be 1 or more"),
    "too wide": ("state_bits = 16", "state_bits = 40", r"neuron.state_bits is 40; it must be from 8 to 24"),
    "far too many": (
        "words = 32768",
        "words = " + "9" * 400,
        r"memory.words is 9+; it must be 1 or more, and below 2\*\*63",
    ),
    "nested lists": ("version = 1", "version = " + "[" * 5000, r"its keys or lists are nested too deeply"),
    "nested keys": ("version = 1", ".".join("a" * 3000) + " = 1", r"its keys or lists are nested too deeply"),
    "a pair turned": ("[-6, 5]", "[5, -6]", r"synapse.weight_exponent is \(5, -6\); it must be two int"),
    "too wide a threshold": (
        "threshold_bits = 11",
        "threshold_bits = 12",
        r"neuron.threshold_bits is 12: shifted left by 4, a threshold is wider than the 15 bits and sign",
    ),
    "too large a decay": (
        "voltage_decay_max = 1024",
        "voltage_decay_max = 4096",
        r"neuron.voltage_decay_max is 4096; it must be at most 1024, a decay of 1 in 10 bits",
    ),
    "too deep a delay": ("delay_max = 15", "delay_max = 16", r"synapse.delay_max is 16; 4 bits per delay"),
    "more words of synapses than words": (
        "synapse_words = 32768",
        "synapse_words = 32769",
        r"memory.synapse_words is 32769; a core has 32768 words",
    ),
    "too many cores": ("count = 16", "count = 17", r"cores.count is 17; 4 x 4 tiles of 1 cores hold fewer"),
    "no toml": ("[cores]", "[cores", r"Expected"),
    "a name that is taken": ('"chip16"', '"loihi2"', r"name is 'loihi2', which is a chip of this install"),
    "no such table": (
        "../costs/edge28.toml",
        "../costs/none.toml",
        r"energy.table: no cost table at .*none.toml",
    ),
    "no such named table": (
        "../costs/edge28.toml",
        "loihi",
        r"energy.table: no cost table named 'loihi'; there",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_chip_file_with_a_mistake(tmp_path: Path, name: str) -> None:
    before, after, message = MISTAKES[name]
    file = copied(tmp_path)
    text = file.read_text(encoding="utf-8")
    assert text.count(before) >= 1
    file.write_text(text.replace(before, after, 1), encoding="utf-8")
    with pytest.raises(ChipError, match=f"^chip16.toml: {message}") as caught:
        load_chip(str(file))
    assert "\n" not in str(caught.value)


def test_a_chip_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ChipError, match=f"^no chip file at {tmp_path}/none.toml$"):
        load_chip(str(tmp_path / "none.toml"))
    with pytest.raises(ChipError, match="^no chip file at n+.toml$"):
        load_chip("n" * 300 + ".toml")
