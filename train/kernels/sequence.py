"""A layer of neurons over a sequence as one differentiable operation, in floats or in a chip's integers.

The forward pass steps every neuron (`lif.py`); the backward pass applies the chain rule with the surrogate
derivative. In integers the forward pass is the chip's step, with its truncation, saturation and wrap; the
gradient passes straight through those: it is that of the float step at the integer states.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from snn_compile.targets.chips.formats import LOIHI, Formats
from snn_compile.train.kernels import lif as step_kernels
from snn_compile.train.neurons.surrogate import SURROGATES, Derivative

Numbers = npt.NDArray[np.float64]
States = tuple[Tensor, Tensor]


@dataclass(frozen=True, eq=False)
class Registers:
    """Registers of a layer on a chip, integers as float64 (neurons,); see `lif.integer_forward`.

    `unit` is the number of units of the chip's membrane per unit of the float membrane; `formats` gives the
    widths of the chip's integers.
    """

    keep_u: Numbers
    keep_v: Numbers
    bias: Tensor
    threshold: Numbers
    unit: float
    formats: Formats = LOIHI


@dataclass(frozen=True, eq=False)
class Step:
    """How a layer steps: reset and surrogate, or neither for a leaky integrator (`spiking` False).

    `registers`: in integers; the threshold and gain are then those of the registers and the weights.
    """

    spiking: bool = True
    threshold: float = 1.0
    gain: float = 1.0
    subtract: bool = False
    detached: bool = True
    surrogate: str | Derivative = "arctan"
    registers: Registers | None = None


def rest(batch: int, size: int, step: Step, like: Tensor) -> States:
    """Return the states (u, v) that a layer starts from."""
    dtype = torch.float64 if step.registers else like.dtype
    return torch.zeros(batch, size, dtype=dtype), torch.zeros(batch, size, dtype=dtype)


def advance(
    x: Tensor, states: States, decays: tuple[Tensor, Tensor], steps: int, step: Step
) -> tuple[Tensor, States]:
    """Return the output of a layer in `steps` steps, (batch, steps, neurons), and its last states.

    `x` is the input, (batch, steps, neurons), or one step of it that is repeated; `decays` are the factors
    (alpha, beta) of current and membrane, scalars or (neurons,). The output of spiking neurons is their
    spikes; that of integrators (integers only) is the membrane in the chip's units.
    """
    size = x.shape[2]
    alpha, beta = (d.to(x.dtype).expand(size) for d in decays)
    bias = step.registers.bias if step.registers else torch.zeros(size, dtype=x.dtype)
    out, u, v = _Sequence.apply(x, *states, alpha, beta, bias, steps, step)  # type: ignore[no-untyped-call]
    return out, (u, v)


class _Sequence(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        u: Tensor,
        v: Tensor,
        alpha: Tensor,
        beta: Tensor,
        bias: Tensor,
        steps: int,
        step: Step,
    ) -> tuple[Tensor, Tensor, Tensor]:
        batch, size = x.shape[0], x.shape[2]
        first, (u, v) = (u, v), (u.clone(), v.clone())
        us = torch.empty(batch, steps if ctx.needs_input_grad[3] else 0, size, dtype=x.dtype)
        z = torch.empty(batch, steps, size, dtype=x.dtype if step.spiking else torch.float64)
        over = torch.empty(batch, steps, size, dtype=x.dtype)
        out = [_array(tensor) for tensor in (u, v, us, z, over)]
        chip = step.registers
        if chip is None:
            threshold = np.full(size, step.threshold, out[4].dtype)
            decays = _array(alpha), _array(beta)
            step_kernels.float_forward(_array(x), step.gain, *decays, threshold, step.subtract, *out)
        else:
            registers = chip.keep_u, chip.keep_v, _array(bias), chip.threshold, chip.unit
            half, one, shift = chip.formats.state_half, chip.formats.decay_one, chip.formats.threshold_unit
            widths = float(half), 1.0 / one, float(shift)
            step_kernels.integer_forward(_array(x), *registers, *widths, step.subtract, step.spiking, *out)
        ctx.save_for_backward(z, over, us, *first, alpha, beta)
        ctx.step, ctx.given = step, x.shape[1]
        return z, u, v

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        z, over, us, u, v, alpha, beta = ctx.saved_tensors
        step: Step = ctx.step
        chip, wanted = step.registers, ctx.needs_input_grad
        unit, none = chip.unit if chip else 1.0, over[:, :0]
        threshold = torch.from_numpy(chip.threshold).to(over.dtype) if chip else step.threshold
        slope, spikes, lost = none, z, none
        if not step.spiking:
            slope, spikes = torch.ones_like(over), torch.zeros_like(over)
        elif step.surrogate != "arctan":
            chosen = step.surrogate
            slope = (SURROGATES[chosen] if isinstance(chosen, str) else chosen)(over) / unit
        if not step.detached:
            lost = torch.zeros_like(over) + threshold if step.subtract else over * unit + threshold
        g_u, g_v = (g.to(over.dtype, copy=True) for g in gradients[1:])
        g_current = torch.empty_like(over)
        g_reached = torch.empty_like(over) if wanted[4] or wanted[5] else none
        given = [_array(tensor) for tensor in (gradients[0], over, slope, spikes, lost)]
        made = [_array(tensor) for tensor in (alpha, beta, g_u, g_v, g_reached, g_current)]
        step_kernels.backward(*given, unit, step.subtract, *made)  # type: ignore[call-arg, arg-type]
        g_alpha = (g_current * torch.cat([u[:, None], us[:, :-1]], 1)).sum((0, 1)) if wanted[3] else None
        g_beta = None
        if wanted[4]:
            before = over * unit + threshold
            after = before - spikes * (threshold if step.subtract else before)
            g_beta = (g_reached * torch.cat([v[:, None], after[:, :-1]], 1)).sum((0, 1))
        g_bias = g_reached.sum((0, 1), dtype=torch.float64) if wanted[5] else None
        g_x = g_current.sum(1, keepdim=True) if ctx.given == 1 else g_current
        gain = float(chip.formats.threshold_unit) if chip else step.gain
        return (g_x * gain if gain != 1 else g_x, g_u, g_v, g_alpha, g_beta, g_bias, None, None)


def _array(tensor: Tensor) -> npt.NDArray[Any]:
    array: npt.NDArray[Any] = tensor.detach().contiguous().numpy()
    return array
