"""Convolution and pooling of every step of a sequence (batch, steps, channels, height, width).

Steps are folded into the batch. A step that is shown again at every step (stride 0) is computed once. Arrays
keep channels last in memory, which both convolutions and neurons read fastest.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


def each_step(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Return a function of (samples, *shape) applied to every step of (batch, steps, *shape)."""
    batch, steps = x.shape[:2]
    if steps > 1 and x.stride(1) == 0:
        once = each_step(function, x[:, :1])
        return once.expand(batch, steps, *once.shape[2:])
    made = function(x.flatten(0, 1))
    return made.reshape(batch, steps, *made.shape[1:])


def as_sequence(x: Tensor) -> Tensor:
    """Return (batch, steps, *shape) as (batch, steps, neurons), channels last; of one step if all are one."""
    if x.shape[1] > 1 and x.stride(1) == 0:
        x = x[:, :1]
    return x.movedim(2, -1).flatten(2) if x.ndim > 3 else x


def as_shape(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Undo `as_sequence` for neurons of a shape."""
    if len(shape) == 1:
        return x
    return x.reshape(*x.shape[:2], *shape[1:], shape[0]).movedim(-1, 2)


class Conv2d(nn.Conv2d):
    """torch's Conv2d over every step: (batch, steps, channels, height, width) in and out."""

    def reset_parameters(self) -> None:
        """Initialise as torch does, channels last."""
        self.weight.data = self.weight.data.to(memory_format=torch.channels_last)
        super().reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolutions of all steps."""
        return each_step(super().forward, x)


class AvgPool2d(nn.AvgPool2d):
    """torch's AvgPool2d over every step: (batch, steps, channels, height, width) in and out."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the averages of all steps."""
        return each_step(super().forward, x)
