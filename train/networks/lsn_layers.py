"""Layers of liquid spiking neurons that run a block of steps and hand their states on; see
`neurons/lsn.py`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from snn_compile.targets.errors import SnnCompileError
from snn_compile.train.kernels.lsn_block import run_liquid
from snn_compile.train.neurons.lsn import Gates, Liquid, LiquidState, liquid_update

STARTS = ("zero", "random")


def first_state(like: Tensor, start: str) -> LiquidState:
    """Return the state that a sequence starts from: all 0, or u from U(0, 1) and b = 0.1 (`random`)."""
    zero = torch.zeros_like(like)
    if start == "random":
        return torch.rand_like(like), torch.full_like(like, 0.1), zero
    return zero, zero, zero


class LiquidLayer(nn.Module):
    """A dense layer: (steps, batch, inputs) in, spikes and membranes (steps, batch, size) out.

    Weights start Xavier-normal, those from the layer to itself orthogonal, biases at 0.
    """

    def __init__(
        self, inputs: int, size: int, kind: Liquid, *, recurrent: bool = True, start: str = "zero"
    ) -> None:
        super().__init__()
        _check_start(start)
        self.kind, self.start = kind, start
        self.input = _started(nn.Linear(inputs, size))
        self.recurrent = nn.Linear(size, size, bias=False) if recurrent else None
        if self.recurrent is not None:
            nn.init.orthogonal_(self.recurrent.weight)
        self.membrane = _started(nn.Linear(2 * size, size))
        self.adaptation = _started(nn.Linear(2 * size, size)) if kind.adaptive else None

    def gates(self) -> Gates:
        """Return the weights as the step function takes them."""
        recurrent = None if self.recurrent is None else self.recurrent.weight
        adaptation = (None, None) if self.adaptation is None else tuple(self.adaptation.parameters())
        return Gates(recurrent, self.membrane.weight, self.membrane.bias, *adaptation)

    def block(self, x: Tensor, state: LiquidState | None) -> tuple[Tensor, Tensor, LiquidState]:
        """Return spikes and membranes of a block of steps, and the state after it; None starts anew."""
        d = self.input(x)
        state = first_state(d[0], self.start) if state is None else state
        return run_liquid(d, self.gates(), self.kind, state)


class LiquidConvolution(nn.Module):
    """A layer of convolutions: (steps, batch, *shape) in, spikes and membranes (steps, batch, *shape) out.

    `kernel` is the width of the input's window, padded by half of it, `stride` its step; `gate` is the width
    of the gates' windows.
    """

    def __init__(
        self, inputs: int, size: int, kind: Liquid, *, kernel: int = 3, stride: int = 1, gate: int = 3,
        start: str = "zero",
    ) -> None:  # fmt: skip
        super().__init__()
        _check_start(start)
        if gate % 2 == 0:
            raise SnnCompileError(f"the gates' window is {gate} wide; it must be odd, to keep the shape")
        self.kind, self.start = kind, start
        self.input = _started(nn.Conv2d(inputs, size, kernel, stride, kernel // 2))
        self.membrane = _started(nn.Conv2d(size, size, gate, padding=gate // 2))
        self.adaptation: nn.Conv2d | None = None
        if kind.adaptive:
            self.adaptation = _started(nn.Conv2d(size, size, gate, padding=gate // 2))

    def block(self, x: Tensor, state: LiquidState | None) -> tuple[Tensor, Tensor, LiquidState]:
        """Return spikes and membranes of a block of steps, and the state after it; None starts anew."""
        steps = len(x)
        once = steps == 1 or x.stride(0) == 0
        d = self.input(x[0] if once else x.flatten(0, 1))
        drive = [d] * steps if once else d.unflatten(0, (steps, -1)).unbind(0)
        state = first_state(drive[0], self.start) if state is None else state
        spikes, membranes = [], []
        for now in drive:
            s, state = self.step(now, state)
            spikes.append(s)
            membranes.append(state[0])
        return torch.stack(spikes), torch.stack(membranes), state

    def step(self, d: Tensor, state: LiquidState) -> tuple[Tensor, LiquidState]:
        """Return (spikes, state) after one step; d is Conv(x_t), (batch, channels, height, width)."""
        u, b, _ = state
        m = torch.sigmoid(self.membrane(d + u))
        rho = None if self.adaptation is None else torch.sigmoid(self.adaptation(d + b))
        return liquid_update(d, m, rho, state, self.kind)


def _check_start(start: str) -> None:
    if start not in STARTS:
        raise SnnCompileError(f"start is {start!r}; use one of {', '.join(STARTS)}")


def _started(module: Any) -> Any:
    nn.init.xavier_normal_(module.weight)
    nn.init.zeros_(module.bias)
    return module
