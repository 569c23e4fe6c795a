"""The mapping that Intel's compiler prints: layers with cores of their own, strips, and halved layers.

Read off its output for two networks (lava-dl's notebooks); the compiler itself is closed. A convolution is
cut into strips across its width, of the largest power of two that a core's neurons allow. A dense layer is
cut into as many parts as its synapses fill cores. Where a part exceeds a core, there are twice as many.
"""

from __future__ import annotations

from math import ceil, prod

from snn_compile.compiler.mapping.blocks import Block, axes, even, grid
from snn_compile.compiler.mapping.core_memory import CoreMemory, core_limits
from snn_compile.targets.chips.chip import Chip


def vendor_blocks(name: str, shape: tuple[int, ...], memory: CoreMemory, chip: Chip) -> list[Block]:
    """Return the blocks of one population, each for a core of its own.

    A single neuron that exceeds a core is returned as it is; the caller refuses it.
    """
    most = core_limits(chip)
    steps = list(axes(shape))
    whole = grid(name, shape, steps)[0]
    if len(steps) == 3:
        width = 1
        while 2 * width < 2 * steps[2] and prod(steps[:2]) * 2 * width <= most["neurons"]:
            width *= 2
        steps[2] = width
    else:
        parts = max(ceil(memory.alone(whole)["synapse_words"] / most["synapse_words"]), 1)
        steps[0] = even(steps[0], max(parts, ceil(whole.size / most["neurons"])))
    while True:
        blocks = grid(name, shape, steps)
        fits = all(memory.alone(block)[key] <= most[key] for block in blocks for key in most)
        if fits or max(steps) == 1:
            return blocks
        axis = next((axis for axis in (len(steps) - 1, 1, 0) if axis < len(steps) and steps[axis] > 1), 0)
        if len(steps) == 1:
            parts *= 2
            steps[0] = min(even(whole.size, parts), steps[0])
        else:
            steps[axis] = ceil(steps[axis] / 2)
