"""Partition: cut populations into blocks of neurons, and pack the blocks into neurocores.

`core_memory.py` measures what a block uses. Cutting never changes a result: every neuron keeps its synapses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

from snn_compile.compiler.mapping.blocks import Block, Slice, axes, even, grid
from snn_compile.compiler.mapping.core_memory import RESOURCES, CoreMemory, core_limits
from snn_compile.compiler.mapping.lower_bound import bound_by, least_cores
from snn_compile.compiler.mapping.search import DEFAULT_EFFORT, best_cores
from snn_compile.compiler.mapping.vendor import vendor_blocks
from snn_compile.compiler.mapping.work import Rates, Work
from snn_compile.compiler.quantization.quantize import QuantizedNetwork
from snn_compile.targets.chips.chip import Chip
from snn_compile.targets.errors import DoesNotFit

MAPPERS = ("best", "vendor")


@dataclass(frozen=True, eq=False)
class Partition:
    """Slices (population, start, stop) per core, and each core's use of its resources.

    `slots`: each core's place on the mesh, counted as in `place.py`; () for cores in row-major order.
    `lower_bound`: cores that the network needs at least (`lower_bound.py`).
    """

    cores: tuple[tuple[Slice, ...], ...]
    use: tuple[Mapping[str, int], ...]
    limits: Mapping[str, int]
    slots: tuple[int, ...] = ()
    lower_bound: int = 0


def partition(
    network: QuantizedNetwork,
    chip: Chip,
    mapper: str = "best",
    effort: int = DEFAULT_EFFORT,
    rates: Rates | None = None,
    spread: int | None = None,
) -> Partition:
    """Return the cores that a network needs.

    `mapper`: "best" lets layers share cores; "vendor" maps as Intel's compiler does. `effort`: 1 to 5, how
    long "best" searches. `rates`: messages per step of the neurons of populations and inputs, by name, for
    which time and traffic are balanced; without them every neuron sends in every step. `spread`: cores that
    "best" may take for a shorter step, where fewer would do. Raises DoesNotFit with every violation where a
    single neuron exceeds a core or far too many cores are needed.
    """
    if not chip.mapped:
        return Partition((), (), core_limits(chip))
    memory, most = CoreMemory(network, chip, dense=mapper == "vendor"), core_limits(chip)
    cut = vendor_blocks if mapper == "vendor" else fewest_blocks
    if (least := least_cores(memory)) > OVERFLOW * chip.all_cores:
        raise _too_small(least, memory, most, chip)
    blocks: list[Block] = []
    for population in network.populations:
        found = cut(population.name, population.shape, memory, chip)
        _refuse_too_large(found, memory, most, chip)
        blocks += found
    slots: tuple[int, ...] = ()
    if mapper == "vendor":
        cores = [[block] for block in blocks]
    else:
        cores, slots = best_cores(memory, Work(network, chip, rates), blocks, effort, spread)
    if len(cores) > OVERFLOW * chip.all_cores:
        raise _too_small(len(cores), memory, most, chip)
    assert sum(b.size for core in cores for b in core) == sum(p.size for p in network.populations)
    use = tuple(memory.core(core) for core in cores)
    slices = tuple(tuple(piece for block in core for piece in block.slices()) for core in cores)
    return Partition(slices, use, most, slots, least)


OVERFLOW = 4
"""Cores needed, per core of the chip, from which there is no mapping to show; below, the Program refuses."""


def fewest_blocks(name: str, shape: tuple[int, ...], memory: CoreMemory, chip: Chip) -> list[Block]:
    """Return the fewest blocks of one population that fit a core each.

    Images are cut into strips of rows, into tiles of these once every strip is one row, and by channel where
    that relieves a core more: kernels that positions share fill it however few its positions are.
    """
    most, whole = core_limits(chip), axes(shape)
    parts = [1] * len(whole)

    def blocks(parts: list[int]) -> list[Block]:
        return grid(name, shape, [even(length, n) for length, n in zip(whole, parts, strict=True)])

    def worst(parts: list[int]) -> float:
        return max(memory.alone(b)[key] / most[key] for b in blocks(parts) for key in RESOURCES)

    axis = 0
    while (over := worst(parts)) > 1 and parts != list(whole):
        factor = max(2, min(ceil(over), 64)) if len(whole) == 1 else 2
        tried = {}
        for at in _cuttable(parts, whole):
            tried[at] = [min(n * factor, whole[i]) if i == at else n for i, n in enumerate(parts)]
        axis = min(tried, key=lambda at: (worst(tried[at]), -at))
        parts = tried[axis]
    low, high = parts[axis] // 2, parts[axis]
    while high - low > 1 and worst(parts) <= 1:
        middle = (low + high) // 2
        fits = worst([middle if i == axis else n for i, n in enumerate(parts)]) <= 1
        low, high = (low, middle) if fits else (middle, high)
    return blocks([high if i == axis else n for i, n in enumerate(parts)])


def _cuttable(parts: list[int], whole: tuple[int, ...]) -> list[int]:
    """Return the axes to cut next: of an image channels, and rows before columns."""
    if len(whole) == 1:
        return [0]
    plane = 1 if parts[1] < whole[1] else 2
    return [axis for axis in (0, plane) if parts[axis] < whole[axis]]


def _refuse_too_large(blocks: list[Block], memory: CoreMemory, most: Mapping[str, int], chip: Chip) -> None:
    """Raise DoesNotFit if a block exceeds a core, however small it was cut."""
    for block in blocks:
        use = memory.core([block])
        lines = [f"{key} {use[key]} of {most[key]}" for key in most if use[key] > most[key]]
        if lines:
            raise DoesNotFit(
                f"{'one neuron' if block.size == 1 else f'{block.size} neurons'} of {block.population!r} "
                f"exceed{'s' if block.size == 1 else ''} a core of {chip.title}: {'; '.join(lines)}"
                + _sources(block, memory),
                violations=lines,
            )


def _sources(block: Block, memory: CoreMemory) -> str:
    """Return what to do about many source neurons, "" where they are few."""
    count = sum(map(len, memory.sources(block).values()))
    if count < 1000:
        return ""
    return (
        f"; it has {count:,} source neurons: give it fewer, or a layer between them (an average pool is "
        "folded into the layer behind it, which then has every neuron of the pool's windows as a source)"
    )


def _too_small(count: int, memory: CoreMemory, most: Mapping[str, int], chip: Chip) -> DoesNotFit:
    """Return the error for a chip with too few cores, with lower bounds that hold for any cut."""
    lines = [f"cores: {count} needed for {chip.all_cores} cores"]
    for key, shares in bound_by(memory).items():
        if (cores := ceil(sum(shares.values()))) > chip.all_cores:
            largest = sorted(shares, key=lambda name: -shares[name])[:4]
            text = ", ".join(f"{name} {shares[name]:.0f}" for name in largest)
            lines.append(f"{key} alone fill {cores} cores ({text})")
    return DoesNotFit(f"{chip.heading} has too few cores: " + "; ".join(lines), violations=lines)
