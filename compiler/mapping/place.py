"""Place: cores onto the chip's tiles, in row-major order. Placement changes cost, never results."""

from __future__ import annotations

from snn_compile.compiler.mapping.partition import Partition
from snn_compile.targets.chips.chip import Chip
from snn_compile.targets.program.program import Core


def place(partition: Partition, chip: Chip) -> tuple[Core, ...]:
    """Return the cores with their tile (column, row) of their chip; Program refuses too many cores."""
    cores = []
    for index, (slices, use) in enumerate(zip(partition.cores, partition.use, strict=True)):
        row, column = divmod(index % chip.cores // chip.cores_per_tile, chip.grid[0])
        cores.append(Core(index, (column, row), slices, dict(use)))
    return tuple(cores)
