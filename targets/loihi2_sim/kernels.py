"""The registry of compiled neuron models: which kernel steps a population, and the arrays it takes.

A kernel advances all neurons of a population by one step. All kernels have one signature:

    step(n, w, acc, state, registers, options, formats, scratch, who, values, overflow) -> k

`n` neurons; `acc`, `state` and `registers` (int32) are rows of one value per neuron, of which row r begins
at r * w: the input of each port, which the kernel sets back to 0; the states in the order of the model's
description; the registers in the order of its layout. `options`: OPTIONS integers that hold for the whole
population. `formats`: the chip's widths, see `format_numbers`. `scratch`: n bytes to use freely. The kernel
lists the k neurons that send in `who` and, where messages carry numbers, what they send in `values`, and
adds to the three overflow counters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from snn_compile.targets.chips.formats import Formats
from snn_compile.targets.program.population import Population

Rows = list[npt.NDArray[np.int64]]

STATE_MAX, DECAY_BITS, SYNAPTIC_SHIFT, ACCUMULATOR_BITS = 0, 1, 2, 3
"""Where a kernel finds the largest state, the bits of a decay and the shift of inputs in `formats`."""

OPTIONS = 6


def _first(population: Population, sends: bool) -> int:
    return 0


def _none(population: Population) -> tuple[int, ...]:
    return ()


@dataclass(frozen=True, eq=False)
class Layout:
    """How the simulator holds and steps a model.

    `steps`: its kernels; `choose(population, sends)`: the index of the one that steps a population, of
    which `sends` says that its messages are read. `registers`: the rows that these take, each of length 1
    or one value per neuron. `initial`: the register that a state begins at, where it is not 0.
    `more_states`: rows of state beyond those that the model describes, which begin at 0. `options`: at most
    OPTIONS integers. `table`: the register, itself a table, that follows the rows.
    """

    steps: tuple[Callable[..., Any], ...]
    registers: Callable[[Population, Formats], Rows]
    initial: Mapping[str, str] = field(default_factory=dict)
    more_states: int = 0
    table: str = ""
    options: Callable[[Population], tuple[int, ...]] = _none
    choose: Callable[[Population, bool], int] = _first


LAYOUTS: dict[str, Layout] = {}
"""The layout of every model that has been registered."""


def register_layout(model: str, layout: Layout) -> None:
    """Add the layout of a model to `LAYOUTS`."""
    LAYOUTS[model] = layout


def format_numbers(formats: Formats) -> npt.NDArray[np.int64]:
    """Return a chip's widths as the kernels take them."""
    numbers = [formats.state_max, formats.decay_bits, formats.synaptic_shift, formats.accumulator_bits]
    return np.array(numbers, np.int64)


def wide(population: Population, key: str) -> npt.NDArray[np.int64]:
    """Return a register in 64 bits."""
    return population.parameters[key].astype(np.int64)
