"""Liquid spiking neurons (Yin, Corradi and Bohte 2023) as pure step functions.

Of one step, with d the weighted input and sigma the logistic function:

    d     = W_x [x_t; s_(t-1)] + b_x
    m     = sigma(W_m [d; u_(t-1)] + b_m)              the membrane's rate, 1 / tau_m
    rho   = sigma(W_a [d; b_(t-1)] + b_a)              the adaptation's, 1 / tau_adp
    b_t   = rho b_(t-1) + (1 - rho) s_(t-1),  theta = 0.1 + 1.8 b_t
    r     = u_(t-1) + (d - u_(t-1)) m
    s_t   = 1 if r > theta else 0
    u_t   = (1 - s_t) r                                a hard reset to 0

A layer of convolutions has d = Conv(x_t), and gates sigma(Conv(d + u_(t-1))), sigma(Conv(d + b_(t-1))).
Without adaptation there is no b, and theta is 0.5, as in the authors' code for the Add task. Gradients flow
through everything, the reset too. The functions are the definition; `kernels/lsn_block.py` runs a block of
steps of a dense layer as one operation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from snn_compile.train.neurons.surrogate import Derivative, spike

LiquidState = tuple[Tensor, Tensor, Tensor]
"""u, b and the last spikes, all (batch, *shape)."""


@dataclass(frozen=True)
class Liquid:
    """The threshold, with adaptation or fixed, and the surrogate of the spikes."""

    adaptive: bool = True
    base: float = 0.1
    scale: float = 1.8
    fixed: float = 0.5
    surrogate: str | Derivative = "multi-gaussian-0.3"


class Gates(NamedTuple):
    """Weights (target, source) of a dense layer: to itself or None, and of both gates with their biases.

    `membrane` and `adaptation` are (neurons, 2 neurons), of [d; state]; the last two are None without
    adaptation.
    """

    recurrent: Tensor | None
    membrane: Tensor
    membrane_bias: Tensor
    adaptation: Tensor | None
    adaptation_bias: Tensor | None


def liquid_step(x: Tensor, state: LiquidState, gates: Gates, kind: Liquid) -> tuple[Tensor, LiquidState]:
    """Return (spikes, state) after one step of a dense layer; x is W_x x_t + b_x, (batch, neurons)."""
    u, b, s = state
    d = x if gates.recurrent is None else x + nn.functional.linear(s, gates.recurrent)
    m = torch.sigmoid(nn.functional.linear(torch.cat([d, u], 1), gates.membrane, gates.membrane_bias))
    rho = None
    if kind.adaptive:
        assert gates.adaptation is not None
        rho = torch.sigmoid(
            nn.functional.linear(torch.cat([d, b], 1), gates.adaptation, gates.adaptation_bias)
        )
    return liquid_update(d, m, rho, state, kind)


def liquid_update(
    d: Tensor, m: Tensor, rho: Tensor | None, state: LiquidState, kind: Liquid
) -> tuple[Tensor, LiquidState]:
    """Return (spikes, state) of neurons whose rates are known; rho is None without adaptation."""
    u, b, s = state
    theta: Tensor | float = kind.fixed
    if rho is not None:
        b = rho * b + (1 - rho) * s
        theta = kind.base + kind.scale * b
    reached = u + (d - u) * m
    s = spike(reached - theta, kind.surrogate)
    return s, ((1 - s) * reached, b, s)
