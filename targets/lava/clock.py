"""When a Lava process model steps: in the logical steps of its population, counted by its Var `clock`.

A model that uses these has the attributes `population`, `period` and `clock`; `clock` holds the device steps
since it was last set to 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def is_logical_step(model: Any) -> bool:
    """Count a device step and tell whether it is a logical step of the model's population."""
    model.clock += 1
    late: int = int(model.clock[0]) - 1 - model.population.start_step
    return late >= 0 and late % int(model.period) == 0


def pass_silently(model: Any) -> None:
    """Let a device step pass: take what is received and send zeros."""
    for port in model.population.kind.ports:
        getattr(model, port).recv()
    model.s_out.send(np.zeros((model.population.size,), np.int32))
