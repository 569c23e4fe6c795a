"""Chip files that state the memory of a core in bits, as they did before words, are read."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from snn_compile.targets import load_chip
from snn_compile.targets.errors import ChipError

EXAMPLES = Path(__file__).parents[3] / "examples"
OLD = """
[cores]
count = 16
neurons = 1024
memory_bits = 1048576
in_axons = 2048
out_axons = 2048
grid = [4, 4]
cores_per_tile = 1

[memory]
neuron_state_bits = 48
axon_bits = 48
delay_bits = 4

"""


def older(tmp_path: Path, text: str = OLD) -> Path:
    for part in ("chip", "costs"):
        shutil.copytree(EXAMPLES / part, tmp_path / part)
    file = tmp_path / "chip/chip16.toml"
    now = file.read_text()
    file.write_text(re.sub(r"\[cores\].*?(?=\[neuron\])", text, now, flags=re.DOTALL))
    return file


def test_bits_become_words_of_one_bit(tmp_path: Path) -> None:
    chip, today = load_chip(str(older(tmp_path))), load_chip(str(EXAMPLES / "chip/chip16.toml"))
    memory = chip.memory
    assert (memory.words, memory.synapse_words, memory.word_bits) == (1048576, 1048576, 1)
    assert (memory.neuron_words, memory.in_axon_words, memory.out_axon_words) == (48, 48, 48)
    assert (memory.index_bits, memory.delay_bits, chip.core_groups) == (10, 4, 1024)
    assert memory.dense_rows and not memory.shared_kernels
    assert (chip.formats, chip.cores, chip.grid) == (today.formats, today.cores, today.grid)


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ("memory_bits = 1048576", 'memory_bits = "much"', "unknown key cores.memory_bits"),
        ("axon_bits = 48", "axon_bits = -1", "unknown key cores.memory_bits"),
        ("neuron_state_bits = 48\n", "", "unknown key cores.memory_bits"),
        ("memory_bits = 1048576", "memory_bits = 0", "memory.words is 0; it must be 1 or more"),
    ],
)
def test_a_mistake_in_an_older_file_is_named(tmp_path: Path, old: str, new: str, text: str) -> None:
    with pytest.raises(ChipError, match=text):
        load_chip(str(older(tmp_path, OLD.replace(old, new))))
