"""Populations as the kernels' arrays: which kernel steps each, its registers and its initial states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from snn_compile.targets.chips.formats import Formats
from snn_compile.targets.loihi2_sim.kernels import LAYOUTS, OPTIONS, Rows, wide
from snn_compile.targets.program.population import Population


@dataclass(frozen=True, eq=False)
class NeuronTables:
    """States and registers of all populations, int32; population p's begin at `state_at[p]`.

    Each is a row of one value per neuron, padded; rows follow each other in the kernel's order, and a table
    follows the rows of registers.
    """

    state_at: npt.NDArray[np.int64]
    register_at: npt.NDArray[np.int64]
    initial: npt.NDArray[np.int32]
    registers: npt.NDArray[np.int32]


def neuron_tables(
    populations: Sequence[Population], formats: Formats, pad: npt.NDArray[np.int64]
) -> NeuronTables:
    """Return the tables of populations whose rows are padded to `pad` entries each."""
    states, registers = [], []
    for p, width in zip(populations, pad, strict=True):
        states.append(_laid_out(_initial_states(p), p.size, int(width)))
        layout = LAYOUTS[p.model]
        registers.append(_laid_out(layout.registers(p, formats), p.size, int(width)))
        if layout.table:
            registers[-1] = np.concatenate([registers[-1], p.parameters[layout.table]])
    return NeuronTables(
        np.concatenate([[0], np.cumsum([rows.size for rows in states])]).astype(np.int64),
        np.concatenate([[0], np.cumsum([rows.size for rows in registers])]).astype(np.int64),
        np.concatenate(states),
        np.concatenate(registers),
    )


def options_of(p: Population) -> list[int]:
    """Return the options that a population's kernel reads, padded with zeros."""
    given = LAYOUTS[p.model].options(p)
    return [*given, *(OPTIONS - len(given)) * [0]]


def _laid_out(rows: Rows, size: int, width: int) -> npt.NDArray[np.int32]:
    held = np.zeros((len(rows), width), np.int32)
    for row, values in zip(held, rows, strict=True):
        row[:size] = values
    return held.reshape(-1)


def _initial_states(p: Population) -> Rows:
    layout, zero = LAYOUTS[p.model], np.zeros(1, np.int64)
    known = [layout.initial.get(state, "") for state in p.kind.states]
    return [*(wide(p, key) if key in p.parameters else zero for key in known), *layout.more_states * [zero]]
