"""Place: cores onto the chip's tiles. Placement changes cost, never results.

A slot is a place of a core: slots are counted chip after chip, tile after tile in rows, core after core.
"""

from __future__ import annotations

from snn_compile.compiler.mapping.partition import Partition
from snn_compile.compiler.mapping.search import slots_per_chip
from snn_compile.targets.chips.chip import Chip
from snn_compile.targets.program.program import Core


def place(partition: Partition, chip: Chip) -> tuple[Core, ...]:
    """Return the cores with their tile (column, row) of their chip, as the partition found, or in row-major
    order; Program refuses too many cores.
    """
    columns, rows, each = slots_per_chip(chip)
    cores = []
    for index, (slices, use) in enumerate(zip(partition.cores, partition.use, strict=True)):
        slot = partition.slots[index] if partition.slots else index % chip.cores
        row, column = divmod(slot % (columns * rows * each) // each, columns)
        cores.append(Core(index, (column, row), slices, dict(use)))
    return tuple(cores)
