"""The description of a neuron model, and the registry of all models.

To add a model, write one file in each of these folders: its description here, its step as the definition in
`oracle/`, its compiled step in `loihi2_sim/`. Each file registers itself when it is imported, and the folders
import all their files. The Lava devices run a model that Lava has no process for through its oracle class.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Parameters = Mapping[str, npt.NDArray[np.integer[Any]]]
Operations = tuple[float, float]
"""Multiplications and additions."""

MODELS: dict[str, Model] = {}
"""All neuron models by name."""

TABLE_MAX = 1 << 12
"""Most values of a register that is a table."""


@dataclass(frozen=True)
class Register:
    """An integer parameter; a default of None: it must be given. `shared`: one value for all neurons.

    A `table` holds a power of two of values, TABLE_MAX at most, that all neurons look up.
    """

    default: int | None = None
    shared: bool = False
    table: bool = False


@dataclass(frozen=True)
class Model:
    """What a neuron model holds and sends.

    `states`: every state that a step changes; all can be probed. `membrane`: the state that an output port of
    signal "membrane" reads, "" if the model has none. `ports`: its input ports by name, in the order of
    `Projection.port`. `largest`: the largest magnitude of a message, before a right shift by state_exp or
    message_shift if the model has it. `graded`: messages carry a number or a sign. `spiking`: it sends
    messages by itself; other models send a state to the projections that read it. `ruled`: the step follows
    the population's rule (`rule.py`); other models have one meaning. `programmable`: only chips with
    programmable neurons hold it.

    `operations(parameters, one)` counts the multiplications and additions of a neuron update, averaged over
    the neurons; a decay register of `one` loses all of a state. `spike_additions`: additions per spike beyond
    those of a subtracting reset. Reports price these.
    """

    registers: Mapping[str, Register]
    states: tuple[str, ...]
    operations: Callable[[Parameters, int], Operations]
    membrane: str = "v"
    ports: tuple[str, ...] = ("a_in",)
    largest: int = 1
    graded: bool = False
    spiking: bool = True
    ruled: bool = False
    programmable: bool = True
    spike_additions: int = 0


def share_of(used: npt.NDArray[np.bool_]) -> float:
    """Return the share of neurons that use something."""
    return float(np.mean(used))


def decaying(parameters: Parameters, key: str, one: int) -> float:
    """Return the share of neurons that lose a part of a state at every step, neither none nor all of it."""
    return share_of((parameters[key] > 0) & (parameters[key] < one))


def register_model(name: str, model: Model) -> None:
    """Add a model to `MODELS`; raises ValueError if the name is taken."""
    if name in MODELS:
        raise ValueError(f"neuron model {name!r} is registered twice")
    MODELS[name] = model
