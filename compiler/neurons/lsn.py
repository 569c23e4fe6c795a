"""Liquid spiking neurons in float64.

With synaptic input x, sigma the logistic function and s the spikes of the step before, one step is

    m   = sigma(w_membrane [x; v] + b_membrane)
    rho = sigma(w_adaptation [x; b] + b_adaptation)
    b   = rho b + (1 - rho) s
    v   = v + (x - v) m
    s   = v > threshold + rise b ;   v = (1 - s) v

No chip here multiplies a state by a function of all the others; `lowering/freeze_rates.py` has the
approximation that a chip can step. Source: Yin, Corradi and Bohte 2023.
"""

from __future__ import annotations

import numpy as np
from scipy.special import expit

from snn_compile.compiler.neurons.arithmetic import Float
from snn_compile.compiler.neurons.base import Group, NeuronModel

GATES = ("w_membrane", "w_adaptation")


class LiquidGroup(Group):
    """The state of liquid neurons over a batch; `m` and `rho` are the rates of the step."""

    def begin(self) -> None:
        """States start at 0; gates become matrices (2 size, size)."""
        self._membrane, self._adaptation = (
            self.values[key].reshape(self.size, 2 * self.size).T for key in GATES
        )
        self.b = self.m = self.rho = self._last = self.v

    def step(self, x: Float) -> Float:
        """Advance by one logical step with synaptic input x; return the spikes."""
        p, x = self.values, self.receive(x)
        self.m = expit(np.concatenate([x, self.v], 1) @ self._membrane + p["b_membrane"])
        self.rho = expit(np.concatenate([x, self.b], 1) @ self._adaptation + p["b_adaptation"])
        self.b = self.rho * self.b + (1 - self.rho) * self._last
        self.reached = self.v + (x - self.v) * self.m
        fires: Float = (self.reached > p["threshold"] + p["rise"] * self.b).astype(np.float64)
        self.v, self._last = (1 - fires) * self.reached, fires
        self.watch(self.u, (self.reached,))
        return fires


MODELS = (
    NeuronModel(
        "lsn",
        (
            "w_membrane",
            "b_membrane",
            "w_adaptation",
            "b_adaptation",
            "threshold",
            "rise",
            "input_bias",
            "offset",
        ),
        LiquidGroup,
        matrices=GATES,
    ),
)
