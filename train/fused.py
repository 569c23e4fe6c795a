"""Whole sequences of recurrent spiking layers as one differentiable operation.

A step is one product with the recurrent weights and one compiled pass over the neurons
(`recurrent_kernels.py`, for LIF and CubaLIF `step_kernels.py`); the backward pass is written by hand, so that
autograd neither records nor replays the dozens of small operations of a step. Spikes and gradients are those
of the step functions, which are the definition.

Sequences are (steps, batch, neurons) here, so that a step is one block of memory; recurrent weights are
(target, source) and act on the spikes of the step before.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from snn_compile.targets.errors import SnnCompileError
from snn_compile.train import recurrent_kernels, step_kernels
from snn_compile.train.adaptive import RESETS, Adaptation
from snn_compile.train.resonators import THRESHOLD, Resonance
from snn_compile.train.sequence import Step
from snn_compile.train.surrogate import SURROGATES, Derivative, double_gaussian

Array = npt.NDArray[Any]
States = tuple[Tensor, ...]

_RECURRENT: Any = recurrent_kernels  # numba declares neither starred arguments nor arrays
_INTEGRATORS: Any = step_kernels

DENSE = 0.12
"""The share of spikes above which a product of matrices is quicker than adding rows of weights."""

SUMMED = 8
"""Steps of gradients that are summed in the type of the weights before they go into float64."""


@dataclass(frozen=True, eq=False)
class _Step:
    """What is known of a step in the backward pass; lists are by state."""

    x: Array
    before: list[Array]
    after: list[Array]
    last: Array
    z: Array


@dataclass(frozen=True, eq=False)
class _Family:
    """A family of neurons: its states, and its step forwards and backwards on arrays, in place.

    `distance` gives the membrane's distance from threshold again; `reads_input` and `reads_spikes` say that
    the backward step needs what arrived, and that the step itself looks at the last spikes.
    """

    states: int
    reads_input: bool
    reads_spikes: bool
    forward: Callable[..., None]
    distance: Callable[..., None]
    backward: Callable[..., None]


def _resonators_forward(
    kind: Resonance, parameters: list[Array], x: Array, before: list[Array], last: Array, after: list[Array],
    z: Array,
) -> None:  # fmt: skip
    one = x.dtype.type
    constants = one(kind.delta), one(kind.gamma), one(THRESHOLD), kind.smooth_reset, kind.refractory
    _RECURRENT.resonator_forward(x, *parameters, *constants, *before, *after, z)


def _resonators_distance(kind: Resonance, parameters: list[Array], step: _Step, over: Array) -> None:
    np.subtract(step.after[0], over.dtype.type(THRESHOLD), out=over)
    if kind.refractory:
        over -= step.before[2]


def _resonators_backward(
    kind: Resonance, parameters: list[Array], step: _Step, g_z: Array, slope: Array, states: list[Array],
    g_x: Array, sums: list[Array],
) -> None:  # fmt: skip
    one = g_x.dtype.type
    constants = one(kind.delta), one(kind.gamma), kind.smooth_reset, kind.refractory
    _RECURRENT.resonator_backward(g_z, slope, *parameters, *constants, *step.before, *states, g_x, *sums)


def _adaptive_constants(kind: Adaptation, like: Array) -> tuple[Any, ...]:
    one = like.dtype.type
    return one(kind.base), one(kind.scale), one(RESETS[kind.reset])


def _adaptive_forward(
    kind: Adaptation, parameters: list[Array], x: Array, before: list[Array], last: Array, after: list[Array],
    z: Array,
) -> None:  # fmt: skip
    constants = _adaptive_constants(kind, x)
    _RECURRENT.adaptive_forward(x, *parameters, *constants, *before, last, *after, z)


def _adaptive_distance(kind: Adaptation, parameters: list[Array], step: _Step, over: Array) -> None:
    base, scale, _ = _adaptive_constants(kind, over)
    _RECURRENT.adaptive_distance(step.x, parameters[0], base, scale, step.before[0], step.after[1], over)


def _adaptive_backward(
    kind: Adaptation, parameters: list[Array], step: _Step, g_z: Array, slope: Array, states: list[Array],
    g_x: Array, sums: list[Array],
) -> None:  # fmt: skip
    constants = _adaptive_constants(kind, g_x)
    known = *step.before, step.last, step.after[1], step.z
    _RECURRENT.adaptive_backward(g_z, slope, step.x, *parameters, *constants, *known, *states, g_x, *sums)


def _integrators_forward(
    kind: Step, parameters: list[Array], x: Array, before: list[Array], last: Array, after: list[Array],
    z: Array,
) -> None:  # fmt: skip
    for old, new in zip(before, after, strict=True):
        new[:] = old
    threshold = np.full(x.shape[1], kind.threshold, x.dtype)
    over, none = np.empty((len(x), 1, x.shape[1]), x.dtype), np.empty((len(x), 0, x.shape[1]), x.dtype)
    _INTEGRATORS.float_forward(
        x[:, None], kind.gain, *parameters, threshold, kind.subtract, *after, none, z[:, None], over
    )


def _integrators_distance(kind: Step, parameters: list[Array], step: _Step, over: Array) -> None:
    np.multiply(parameters[1], step.before[1], out=over)
    over += step.after[0]
    over -= over.dtype.type(kind.threshold)


def _integrators_backward(
    kind: Step, parameters: list[Array], step: _Step, g_z: Array, slope: Array, states: list[Array],
    g_x: Array, sums: list[Array],
) -> None:  # fmt: skip
    g_reached, none = np.empty_like(g_x), np.empty((len(g_x), 0, g_x.shape[1]), g_x.dtype)
    reached = parameters[1] * step.before[1] + step.after[0]
    lost = none
    if not kind.detached:
        lost = np.full_like(reached, kind.threshold)[:, None] if kind.subtract else reached[:, None]
    known = [a[:, None] for a in (g_z, reached, slope, step.z)]
    made = [a[:, None] for a in (g_reached, g_x)]
    _INTEGRATORS.backward(*known, lost, 1.0, kind.subtract, *parameters, *states, *made)
    sums[0] += (g_x * step.before[0]).sum(0, dtype=np.float64)
    sums[1] += (g_reached * step.before[1]).sum(0, dtype=np.float64)
    if kind.gain != 1:
        g_x *= g_x.dtype.type(kind.gain)


_FAMILIES: dict[type, _Family] = {
    Step: _Family(2, False, False, _integrators_forward, _integrators_distance, _integrators_backward),
    Resonance: _Family(3, False, False, _resonators_forward, _resonators_distance, _resonators_backward),
    Adaptation: _Family(2, True, True, _adaptive_forward, _adaptive_distance, _adaptive_backward),
}


def run_resonators(
    x: Tensor, weight: Tensor | None, omega: Tensor, b: Tensor, kind: Resonance, states: States | None = None
) -> tuple[Tensor, States]:
    """Return the spikes (steps, batch, neurons) of resonators, and their last states (u, v, q, z).

    `x` is what arrives from outside, `weight` the recurrent weights or None; omega and b (neurons,) are those
    of `resonators.damping`; `states` start at 0 if None.
    """
    return _run(x, weight, (omega, b), kind, states)


def run_adaptive(
    x: Tensor,
    weight: Tensor | None,
    alpha: Tensor,
    rho: Tensor,
    kind: Adaptation,
    states: States | None = None,
) -> tuple[Tensor, States]:
    """Return the spikes (steps, batch, neurons) of ALIF neurons, and their last states (u, a, z)."""
    return _run(x, weight, (alpha, rho), kind, states)


def run_integrators(
    x: Tensor, weight: Tensor | None, alpha: Tensor, beta: Tensor, kind: Step, states: States | None = None
) -> tuple[Tensor, States]:
    """Return the spikes (steps, batch, neurons) of LIF or CubaLIF, and their last states (u, v, z)."""
    return _run(x, weight, (alpha, beta), kind, states)


def _run(
    x: Tensor, weight: Tensor | None, parameters: tuple[Tensor, ...], kind: Any, states: States | None
) -> tuple[Tensor, States]:
    if x.ndim != 3 or not len(x):
        raise SnnCompileError(f"a sequence has shape {tuple(x.shape)}; it must be (steps, batch, neurons)")
    size, family = x.shape[2], _FAMILIES[type(kind)]
    if states is None:
        states = tuple(x.new_zeros(x.shape[1], size) for _ in range(family.states + 1))
    spread = [p.to(x.dtype).expand(size) for p in parameters]
    z, *last = _Fused.apply(kind, x, weight, *spread, *states)  # type: ignore[no-untyped-call]
    return z, (*last, z[-1])


class _Fused(torch.autograd.Function):
    """Inputs: kind, x, weight, two parameters, the states and the last spikes."""

    @staticmethod
    def forward(ctx: Any, kind: Any, x: Tensor, weight: Tensor | None, *rest: Tensor) -> tuple[Tensor, ...]:
        family, parameters = _FAMILIES[type(kind)], [_array(p) for p in rest[:2]]
        steps = len(x)
        kept = steps if any(ctx.needs_input_grad) else min(2, steps)
        z = torch.empty_like(x, memory_format=torch.contiguous_format)
        traces = [torch.empty_like(z[:kept]) for _ in rest[2:-1]]
        heard = torch.empty_like(z[: kept if family.reads_input else 1])
        spikes = _Spikes(rest[-1], steps, weight)
        tracks, x_array, z_array, h_array = [_array(t) for t in traces], _array(x), _array(z), _array(heard)
        before, last, sent = [_array(s) for s in rest[2:-1]], _array(rest[-1]), rest[-1]
        for t in range(steps):
            now, after, fired = h_array[t % len(heard)], [a[t % kept] for a in tracks], z_array[t]
            spikes.hear(t, sent, x_array[t], now)
            family.forward(kind, parameters, now, before, last, after, fired)
            spikes.mark(t + 1, fired)
            before, last, sent = after, fired, z[t]
        ctx.save_for_backward(weight, *rest, heard, z, *traces)
        ctx.kind, ctx.spikes = kind, spikes
        return (z, *(trace[(steps - 1) % kept].clone() for trace in traces))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        kind, spikes = ctx.kind, ctx.spikes
        family = _FAMILIES[type(kind)]
        weight, *rest = ctx.saved_tensors
        parameters, first, last = rest[:2], rest[2 : 2 + family.states], rest[2 + family.states]
        heard, z, *traces = rest[3 + family.states :]
        steps, slope = len(z), _Slope(kind.surrogate, z[0])
        g_states = [_array(g.to(z.dtype, copy=True)) for g in gradients[1:]]
        g_states += [np.zeros_like(g_states[0])] * family.reads_spikes
        g_x, g_z, over = torch.empty_like(z), torch.empty_like(z[0]), torch.empty_like(z[0])
        g_x_array, g_z_array, over_array = _array(g_x), _array(g_z), _array(over)
        sums = [np.zeros(z.shape[2]) for _ in parameters]
        numbers, tracks = [_array(p) for p in parameters], [_array(trace) for trace in traces]
        h_array, z_array, start, z_start = _array(heard), _array(z), [_array(s) for s in first], _array(last)
        weights = _WeightGradient(weight, spikes)
        for t in range(steps - 1, -1, -1):
            if weight is not None and t + 1 < steps:
                torch.addmm(gradients[0][t], g_x[t + 1], weight, out=g_z)
            else:
                g_z.copy_(gradients[0][t])
            step = _Step(
                x=h_array[t % len(heard)],
                before=[a[t - 1] for a in tracks] if t else start,
                after=[a[t] for a in tracks],
                last=z_array[t - 1] if t else z_start,
                z=z_array[t],
            )
            family.distance(kind, numbers, step, over_array)
            family.backward(kind, numbers, step, g_z_array, _array(slope(over)), g_states, g_x_array[t], sums)
            weights.add(t, g_x[t], z[t - 1] if t else last)
        g_last = None if weight is None else g_x[0] @ weight
        if family.reads_spikes:
            kept = torch.from_numpy(g_states[-1])
            g_last = kept if g_last is None else g_last + kept
        g_parameters = [torch.from_numpy(s).to(z.dtype) for s in sums]
        g_first = [torch.from_numpy(g) for g in g_states[: family.states]]
        return (None, g_x, weights.total(), *g_parameters, *g_first, g_last)


class _Spikes:
    """Who fired before each step, a byte a neuron in words of eight, and how many; heard through weights."""

    def __init__(self, last: Tensor, steps: int, weight: Tensor | None) -> None:
        batch, size = last.shape
        self.source = None if weight is None else weight.detach().t().contiguous()
        self.rows = None if self.source is None else self.source.numpy()
        self.words = np.zeros((0 if weight is None else steps + 1, batch, -(-size // 8)), np.uint64)
        self.bytes = self.words.view(np.uint8)
        self.counts = [0] * len(self.words)
        self.most = DENSE * batch * size
        self.mark(0, _array(last))

    def mark(self, t: int, z: Array) -> None:
        """Keep the spikes before step `t`."""
        if self.source is not None:
            self.counts[t] = _RECURRENT.mark(z, self.bytes[t])

    def hear(self, t: int, last: Tensor, x: Array, out: Array) -> None:
        """Write x and what the spikes before step `t` add to it."""
        if self.source is None:
            out[:] = x
        elif self.counts[t] > self.most:
            torch.mm(last, self.source, out=torch.from_numpy(out))
            out += x
        else:
            _RECURRENT.hear(x, self.words[t], self.rows, out)


class _WeightGradient:
    """The gradient of recurrent weights: few steps are summed as they come, then in float64."""

    def __init__(self, weight: Tensor | None, spikes: _Spikes) -> None:
        self.spikes, self.there, self.steps = spikes, weight is not None, 0
        if weight is not None:
            self.now = torch.zeros(weight.shape, dtype=weight.dtype)
            self.sum = torch.zeros(weight.shape, dtype=torch.float64)

    def add(self, t: int, g_x: Tensor, last: Tensor) -> None:
        """Add step `t`, which heard the spikes `last`."""
        if not self.there:
            return
        if self.spikes.counts[t] > self.spikes.most:
            self.now.addmm_(last.t(), g_x)
        else:
            _RECURRENT.blame(g_x.numpy(), self.spikes.words[t], self.now.numpy())
        self.steps += 1
        if self.steps % SUMMED == 0:
            self._flush()

    def _flush(self) -> None:
        self.sum += self.now
        self.now.zero_()

    def total(self) -> Tensor | None:
        """Return the gradient (target, source)."""
        if not self.there:
            return None
        self._flush()
        return self.sum.t().to(self.now.dtype)


class _Slope:
    """The surrogate derivative of one step after another; the double-Gaussian's in fewer passes."""

    def __init__(self, surrogate: str | Derivative, like: Tensor) -> None:
        self.function = SURROGATES[surrogate] if isinstance(surrogate, str) else surrogate
        self.spare = [torch.empty_like(like) for _ in range(3)]

    def __call__(self, over: Tensor) -> Tensor:
        if self.function is not double_gaussian:
            return self.function(over)
        return double_gaussian(over, spare=self.spare)


def _array(tensor: Tensor) -> Array:
    array: Array = tensor.detach().contiguous().numpy()
    return array
