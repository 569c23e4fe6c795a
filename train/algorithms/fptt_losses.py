"""The loss of each block of a sequence: of a class, a class at every step, or numbers.

Of block p = 1..P of a sequence, with c its weight:

    numbers        c mse(y, target)
    a class        c CE(y, label) + (1 - c) aux,  aux = -sum_k Q_p(k) log softmax(y)_k
    by step        the mean CE over the block's steps

y is the output of the block's last step, Q_p the distribution that sequences of the label's class had after
block p over the epoch before, uniform in the first (the auxiliary loss of Kag and Saligrama 2021). c is p / P
(`linear`), or p - 1 + 1/P as the operators of the authors' code for the Add task bind (`public`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from snn_compile.targets.errors import SnnCompileError

WEIGHTS = ("linear", "public")


def block_weight(kind: str, block: int, blocks: int) -> float:
    """Return the weight of block 0..blocks - 1; raises SnnCompileError for an unknown kind."""
    if kind not in WEIGHTS:
        raise SnnCompileError(f"block_weight is {kind!r}; use one of {', '.join(WEIGHTS)}")
    return (block + 1) / blocks if kind == "linear" else block + 1 / blocks


class Numbers:
    """The weighted squared error of numbers (batch, size)."""

    def __init__(self, weight: str = "linear") -> None:
        block_weight(weight, 0, 1)
        self.weight = weight

    def loss(self, outputs: Tensor, targets: Tensor, part: slice, block: int, blocks: int) -> Tensor:
        """Return the loss of a block whose outputs are (batch, steps, size)."""
        return block_weight(self.weight, block, blocks) * nn.functional.mse_loss(outputs[:, -1], targets)

    def restart(self) -> None:
        """Begin an epoch."""

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: there is no state."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take nothing."""


class Classes:
    """Cross-entropy of labels (batch,) or (batch, steps); keeps what classes are predicted after each block.

    Weights are linear: the others pass 1. `auxiliary` False leaves the auxiliary loss out.
    """

    def __init__(self, classes: int, blocks: int, auxiliary: bool = True) -> None:
        self.auxiliary = auxiliary
        self.wanted = torch.full((blocks, classes, classes), 1 / classes)
        self.sums = torch.zeros(blocks, classes, classes, dtype=torch.float64)
        self.counts = torch.zeros(blocks, classes, dtype=torch.float64)

    def loss(self, outputs: Tensor, targets: Tensor, part: slice, block: int, blocks: int) -> Tensor:
        """Return the loss of a block whose outputs are (batch, steps, classes)."""
        if targets.ndim == 2:
            if outputs.shape[1] != targets[:, part].shape[1]:
                raise SnnCompileError(
                    f"a class at every step, and {outputs.shape[1]} outputs for {part.stop - part.start} "
                    "steps; take a read-out of every step: readout=leaky or liquid"
                )
            return nn.functional.cross_entropy(outputs.flatten(0, 1), targets[:, part].flatten())
        weight, last = block_weight("linear", block, blocks), outputs[:, -1]
        loss = weight * nn.functional.cross_entropy(last, targets)
        if not self.auxiliary or block + 1 == blocks:
            return loss
        log_shares = nn.functional.log_softmax(last, 1)
        self.sums[block].index_add_(0, targets, log_shares.detach().exp().double())
        self.counts[block] += torch.bincount(targets, minlength=len(self.counts[block]))
        expected = self.wanted[block, targets].to(log_shares.dtype)
        return loss - (1 - weight) * (expected * log_shares).sum(1).mean()

    def restart(self) -> None:
        """Begin an epoch: the predictions of the last one become the targets of this one."""
        seen = self.counts > 0
        self.wanted[seen] = (self.sums[seen] / self.counts[seen][:, None]).to(self.wanted.dtype)
        self.sums.zero_()
        self.counts.zero_()

    def state_dict(self) -> dict[str, Any]:
        """Return the distributions, copied."""
        return {key: getattr(self, key).clone() for key in ("wanted", "sums", "counts")}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take the state of an objective of the same classes and blocks."""
        for key in ("wanted", "sums", "counts"):
            held = getattr(self, key)
            if held.shape != state[key].shape:
                raise SnnCompileError(
                    f"the distributions of classes are {tuple(state[key].shape)}, not {tuple(held.shape)}"
                )
            held.copy_(state[key])


Objective = Numbers | Classes
