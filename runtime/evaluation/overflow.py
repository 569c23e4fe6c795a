"""From which step on states of a program leave their range."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from snn_compile.runtime.execution.run import Inputs, sample_count, simulate, take
from snn_compile.targets.devices.record import Overflow
from snn_compile.targets.program.program import Program

SAMPLES = 64
"""Most samples that are run again to find the step."""


def overflow_onsets(program: Program, inputs: Inputs, found: Mapping[str, Overflow]) -> dict[str, int]:
    """Return the first step, from 0, at which states of a population leave their range.

    `found`: the overflows of a run on inputs (batch, steps, *shape). Populations whose membrane only
    saturates when deeply inhibited are left out, as are those within range on the first `SAMPLES` samples.
    Shorter runs overflow no later, so the step is found by bisection.
    """
    part = take(inputs, 0, min(SAMPLES, sample_count(inputs)))
    ports = part if isinstance(part, Mapping) else {program.inputs[0].name: part}
    few = {port: np.asarray(values) for port, values in ports.items()}
    names = [name for name, overflow in found.items() if harmful(program, name, overflow)]
    return {name: step for name in names if (step := _first(program, few, name)) is not None}


def harmful(program: Program, name: str, overflow: Overflow) -> bool:
    """Whether more than a deeply inhibited membrane, which does not spike anyway, left its range."""
    integrates = not program.population(name).spiking
    return bool(overflow.u_wraps or overflow.v_high or (integrates and overflow.v_low))


def _first(program: Program, inputs: Mapping[str, npt.NDArray[Any]], name: str) -> int | None:
    def left(steps: int) -> bool:
        part = {port: values[:, :steps] for port, values in inputs.items()}
        return harmful(program, name, simulate(program, part).overflows[name])

    low, high = program.outputs[0].skip + 1, next(iter(inputs.values())).shape[1]
    if not left(high):
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if left(middle) else (middle + 1, high)
    return low - 1
