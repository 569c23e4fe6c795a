"""What makes a network fit that does not: options that were tried on its integers, and what each gives."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from math import ceil
from typing import Any

import numpy as np
from scipy.sparse import issparse

from snn_compile.compiler.mapping.partition import partition
from snn_compile.compiler.network import with_values
from snn_compile.compiler.quantization.quantize import QuantizedNetwork
from snn_compile.compiler.quantization.weight_tables import TableFormat, split_weights
from snn_compile.targets.chips.chip import CHIPS_MAX, Chip
from snn_compile.targets.errors import DoesNotFit
from snn_compile.targets.program.weights import WeightTable

BITS = (6, 4, 3, 2, 1)
MARGIN = 0.97
"""Share of the cores that a remedy may fill: a compilation chooses scales anew and may take a few more."""


@dataclass(frozen=True)
class Remedy:
    """Options of the command and of `Options`, and the cores and chips of the network with them.

    `cores` is None where a single neuron exceeds a core; `fits` says whether the chips are enough. `least`:
    the numbers are lower bounds, by sizes alone.
    """

    option: str
    cores: int | None
    chips: int
    fits: bool
    least: bool = False

    def text(self) -> str:
        """Return what was tried and what came of it."""
        if self.cores is None:
            return f"{self.option}: one neuron still exceeds a core"
        if self.least:
            return f"{self.option}: at least {self.cores:,} cores on {self.chips} chips, by sizes alone"
        on = "1 chip" if self.chips == 1 else f"{self.chips} chips"
        return f"{self.option}: {'fits' if self.fits else 'does not fit'}, {self.cores:,} cores on {on}"

    def json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return asdict(self)


def tried_remedies(quantized: QuantizedNetwork, chip: Chip, mapper: str, weight_bits: int) -> list[Remedy]:
    """Return what was tried, the cheapest first, up to the first that fits of each kind.

    The kinds are the other mapper, fewer bits per weight, more chips, and fewer bits on more chips. A remedy
    that fits leaves a few cores free, for the scales that a compilation with it chooses anew.
    """
    found: list[Remedy] = []
    if mapper != "best":
        found.append(_remedy("--mapper best", quantized, chip, "best"))
    least: tuple[QuantizedNetwork, str] = quantized, ""
    for bits in (b for b in BITS if b < weight_bits):
        least = narrowed(quantized, bits, chip), f"--bits {bits}"
        found.append(_remedy(least[1], least[0], chip, "best"))
        if found[-1].fits or bits == 4:
            break
    for network, more in ((quantized, ""), *([] if found and found[-1].fits else [least])):
        if (cores := _cores(network, chip.times(CHIPS_MAX), "best")) is not None:
            chips = ceil(cores / MARGIN / chip.cores)
            found.append(Remedy(f"{more} --chips {chips}".strip(), cores, chips, chips <= CHIPS_MAX))
    return found


def _remedy(option: str, network: QuantizedNetwork, chip: Chip, mapper: str) -> Remedy:
    cores = _cores(network, chip.times(CHIPS_MAX), mapper)
    return Remedy(option, cores, chip.chips, cores is not None and cores <= MARGIN * chip.all_cores)


def _cores(network: QuantizedNetwork, chip: Chip, mapper: str) -> int | None:
    try:
        return len(partition(network, chip, mapper, effort=1).cores)
    except DoesNotFit:
        return None


def narrowed(network: QuantizedNetwork, bits: int, chip: Chip) -> QuantizedNetwork:
    """Return a network whose projections have one table each, of `bits` bits, for its sizes."""
    low, high = chip.formats.weight_exponent

    def tables(parts: tuple[WeightTable, ...]) -> Iterator[WeightTable]:
        whole: Any = sum(part.weights * 2.0**part.exponent for part in parts)
        stored = whole.data if issparse(whole) else np.asarray(whole)
        (rounded,) = split_weights(stored, TableFormat(bits, "one"), (low, high)).parts
        weights = with_values(whole, rounded.weights)
        yield WeightTable(weights, rounded.exponent, bits, rounded.sign_mode, parts[0].message_bits)

    projections = tuple(replace(edge, tables=tuple(tables(edge.tables))) for edge in network.projections)
    return replace(network, projections=projections)
