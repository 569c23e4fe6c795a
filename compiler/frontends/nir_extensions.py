"""Nodes of ours that NIR 1.0.8 has none for: neurons that multiply their states with each other.

They are nodes to nir like its own: `nir.write` writes them, and edges and shapes are checked. Reading is
`read_nir`'s, which looks a node's type up in `EXTENSIONS` and never imports what a file names; a plain
`nir.read` refuses the file (nir 1.0.8 by its assertion that a type is one of its own). A new one is a class
here, its entries in `nir_graph.ENTRIES`, and a function in `lowering/extensions.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import nir
import numpy as np


class _Neurons(nir.NIRNode):  # type: ignore[misc]
    """Parameters that are arrays of one shape, that of the neurons."""

    def __post_init__(self) -> None:
        shapes = {key: np.shape(value) for key, value in vars(self).items() if key != "metadata"}
        if len(set(shapes.values())) > 1:
            raise ValueError(f"parameters of shapes {shapes}; all share that of the neurons")
        shape = np.array(next(iter(shapes.values())))
        self.input_type = {"input": shape}
        self.output_type = {"output": shape}


@dataclass(eq=False)
class BRF(_Neurons):
    """Balanced resonate-and-fire neurons (Higuchi et al. 2024, 2025), by their step of `delta` s.

        b <- (-1 + sqrt(1 - (delta omega)^2)) / delta - b_offset - smooth_reset q
        u <- u + delta (b u - omega v + x)
        v <- v + delta (omega u + b v)            from the old u
        z = 1 if u > theta + refractory q else 0
        q <- gamma q + z                          of the step before in the lines above

    `omega` in rad/s, `b_offset` in 1/s; `gamma` is the share of q kept a step. `smooth_reset` and
    `refractory` weigh q, 1 or 0 (no such part). All have the neurons' shape.
    """

    omega: Any
    b_offset: Any
    gamma: Any
    theta: Any
    delta: Any
    smooth_reset: Any
    refractory: Any


@dataclass(eq=False)
class RF_IZ(_Neurons):
    """Resonate-and-fire neurons that a spike resets (Izhikevich 2001), by their step of `delta` s.

        u <- u + delta (b u - omega v + x)
        v <- v + delta (omega u + b v)            from the old u
        z = 1 if v > theta else 0
        u, v <- 0, theta                          where z

    `omega` in rad/s, `b` in 1/s: below 0, or the state grows. All have the neurons' shape; theta is one
    number in all of them if the chip is to have them (Lava's RF_IZ).
    """

    omega: Any
    b: Any
    theta: Any
    delta: Any


@dataclass(eq=False)
class ALIF(_Neurons):
    """Adaptive leaky neurons (Yin et al. 2021); time constants in the unit of the graph's.

        tau_adaptation da/dt = -a + z             z: the spike of the step before
        tau du/dt = -u + r x
        z = 1 if u > theta + adaptation a else 0
        u <- u - reset (theta + adaptation a) z   reset: 1, or 2 as Lava's ATRLIF has it

    All have the neurons' shape.
    """

    tau: Any
    r: Any
    theta: Any
    tau_adaptation: Any
    adaptation: Any
    reset: Any


@dataclass(eq=False)
class LSN(nir.NIRNode):  # type: ignore[misc]
    """A layer of liquid spiking neurons (Yin, Corradi and Bohte 2023), by their step; x is what arrives.

        m   = sigma(w_membrane [x; u] + b_membrane)           sigma: the logistic function
        rho = sigma(w_adaptation [x; b] + b_adaptation)
        b <- rho b + (1 - rho) s                              s: the spike of the step before
        u <- u + (x - u) m
        s = 1 if u > theta + rise b else 0
        u <- (1 - s) u

    The two weights are (neurons, 2 neurons), the rest (neurons,). A `rise` of 0 is a fixed threshold.
    """

    w_membrane: Any
    b_membrane: Any
    w_adaptation: Any
    b_adaptation: Any
    theta: Any
    rise: Any

    def __post_init__(self) -> None:
        shapes = {key: np.shape(value) for key, value in vars(self).items() if key != "metadata"}
        (size,) = shapes["theta"]
        for key, shape in shapes.items():
            wanted = (size, 2 * size) if key.startswith("w_") else (size,)
            if shape != wanted:
                raise ValueError(f"{key} has shape {shape}; it must be {wanted}, as theta has {size} values")
        self.input_type = {"input": np.array((size,))}
        self.output_type = {"output": np.array((size,))}


EXTENSIONS: dict[str, type[Any]] = {"BRF": BRF, "RF_IZ": RF_IZ, "ALIF": ALIF, "LSN": LSN}
"""Types in a file and their classes."""
