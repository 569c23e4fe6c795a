"""Whole sequences of recurrent spiking layers as one differentiable operation.

A layer, what it hears from outside and of itself, and what a read-out hears of it, are taken through all
steps by compiled passes (`recurrent.py`), forwards and, by hand, backwards, so that autograd neither
records nor replays the dozens of small operations of a step. Spikes and gradients are those of the step
functions, which are the definition, up to the order of sums: in float32 a neuron within rounding of its
threshold may fire in one and not in the other.

A few samples at a time go through the whole sequence, so that their states stay in the cache. Kept for the
way back are the spikes, a bit each, and the states of every BLOCK steps; the steps between are run again.

Sequences are (steps, batch, neurons) here, so that a step is one block of memory; weights are (target,
source) and the recurrent ones act on the spikes of the step before.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import import_module
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from threadpoolctl import ThreadpoolController
from torch import Tensor

from snn_compile.targets.errors import SnnCompileError
from snn_compile.train.kernels import families as family_kernels
from snn_compile.train.kernels import recurrent as recurrent_kernels
from snn_compile.train.kernels.recurrent import Gradients, Layer, Room, Tape
from snn_compile.train.kernels.sequence import Step
from snn_compile.train.neurons.alif import RESETS, Adaptation
from snn_compile.train.neurons.rf_brf import THRESHOLD, Resonance
from snn_compile.train.neurons.surrogate import (
    SURROGATES,
    Derivative,
    double_bells,
    first_order_only,
    multi_bells,
)

Array = npt.NDArray[Any]
States = tuple[Tensor, ...]
Kind = Resonance | Adaptation | Step

_RECURRENT: Any = recurrent_kernels  # numba declares no arrays

DENSE = 0.2
"""The share of spikes above which a product of matrices is quicker than adding rows of weights."""

BLOCK = 16
"""Steps that are run again at once on the way back."""

VECTOR = 16
"""Numbers that a vector instruction takes at once; targets are filled up to a multiple of it."""

SURROGATES_TOGETHER = 1024
"""Derivatives of spikes that are found at once."""

TOGETHER = 16384
"""States of neurons, samples times neurons, that are stepped together."""

_STATES = {Resonance: 3, Adaptation: 2, Step: 2}
_CODES = {
    "arctan": family_kernels.ARCTAN,
    "linear": family_kernels.LINEAR,
    "exponential": family_kernels.EXPONENTIAL,
    "double-gaussian": family_kernels.BELLS,
    "multi-gaussian": family_kernels.BELLS,
    "multi-gaussian-0.3": family_kernels.BELLS,
}
_BELLS = {
    "double-gaussian": double_bells(),
    "multi-gaussian": multi_bells(),
    "multi-gaussian-0.3": multi_bells(0.3),
}


@dataclass(frozen=True, eq=False)
class Weights:
    """What a layer hears and who hears it, each (target, source) or None.

    Without `inward` (neurons, inputs) what arrives from outside is given as it is; `recurrent` (neurons,
    neurons) acts on the spikes of the step before, `outward` (classes, neurons) on those of the step.
    """

    inward: Tensor | None = None
    recurrent: Tensor | None = None
    outward: Tensor | None = None


def run_resonators(
    x: Tensor, weight: Tensor | None, omega: Tensor, b: Tensor, kind: Resonance, states: States | None = None
) -> tuple[Tensor, States]:
    """Return the spikes (steps, batch, neurons) of resonators, and their last states (u, v, q, z).

    `x` is what arrives from outside, `weight` the recurrent weights or None; omega and b (neurons,) are those
    of `resonators.damping`; `states` start at 0 if None.
    """
    return _spikes(x, weight, (omega, b), kind, states)


def run_adaptive(
    x: Tensor,
    weight: Tensor | None,
    alpha: Tensor,
    rho: Tensor,
    kind: Adaptation,
    states: States | None = None,
) -> tuple[Tensor, States]:
    """Return the spikes (steps, batch, neurons) of ALIF neurons, and their last states (u, a, z)."""
    return _spikes(x, weight, (alpha, rho), kind, states)


def run_integrators(
    x: Tensor, weight: Tensor | None, alpha: Tensor, beta: Tensor, kind: Step, states: States | None = None
) -> tuple[Tensor, States]:
    """Return the spikes (steps, batch, neurons) of LIF or CubaLIF, and their last states (u, v, z)."""
    return _spikes(x, weight, (alpha, beta), kind, states)


def run_layer(
    x: Tensor,
    weights: Weights,
    parameters: tuple[Tensor, Tensor],
    kind: Kind,
    states: States | None = None,
    spikes: bool = True,
) -> tuple[Tensor, Tensor | None, States | None]:
    """Return what the read-out hears, (steps, batch, classes), the spikes and the last states.

    `x` is (steps, batch, inputs); parameters and states are those of `run_resonators` and its like. Without
    `spikes` they and the states are None, which spares a sequence as large as the layer. `weights` must have
    outward ones.
    """
    assert weights.outward is not None
    z, read, last = _run(x, weights, parameters, kind, states, spikes)
    return (read, z, (*last, z[-1])) if spikes else (read, None, None)


def _spikes(
    x: Tensor, weight: Tensor | None, parameters: tuple[Tensor, Tensor], kind: Kind, states: States | None
) -> tuple[Tensor, States]:
    z, _, last = _run(x, Weights(recurrent=weight), parameters, kind, states, True)
    return z, (*last, z[-1])


def _run(
    x: Tensor,
    weights: Weights,
    parameters: tuple[Tensor, Tensor],
    kind: Kind,
    states: States | None,
    spikes: bool,
) -> tuple[Tensor, Tensor, States]:
    _check(x, weights, parameters, kind, states)
    size = x.shape[2] if weights.inward is None else len(weights.inward)
    if states is None:
        states = tuple(x.new_zeros(x.shape[1], size) for _ in range(_STATES[type(kind)] + 1))
    spread = [p.to(x.dtype).expand(size) for p in parameters]
    matrices = weights.inward, weights.recurrent, weights.outward
    options = kind, spikes, torch.is_grad_enabled()
    z, read, *last = _Fused.apply(*options, x, *matrices, *spread, *states)  # type: ignore[no-untyped-call]
    return z, read, tuple(last)


def _check(
    x: Tensor, weights: Weights, parameters: tuple[Tensor, Tensor], kind: Kind, states: States | None
) -> None:
    """Raise SnnCompileError if shapes or types do not fit together; the kernels would read beyond them."""
    if x.ndim != 3 or not len(x):
        raise SnnCompileError(f"a sequence has shape {tuple(x.shape)}; it must be (steps, batch, neurons)")
    if x.dtype not in (torch.float32, torch.float64):
        raise SnnCompileError(f"a sequence is {x.dtype}; use float32 or float64 (x.float(), x.double())")
    size = x.shape[2] if weights.inward is None else len(weights.inward)
    if not size or not x.shape[2]:
        raise SnnCompileError(f"a layer has {size} neurons and {x.shape[2]} inputs; it must have some")
    count = _STATES[type(kind)] + 1
    if states is not None and len(states) != count:
        raise SnnCompileError(
            f"{len(states)} states were given; a {type(kind).__name__} has {count}, with the last spikes"
        )
    classes = 0 if weights.outward is None else len(weights.outward)
    wanted: list[tuple[str, Tensor | None, tuple[int, int]]] = [
        ("input weights", weights.inward, (size, x.shape[2])),
        ("recurrent weights", weights.recurrent, (size, size)),
        ("weights of the read-out", weights.outward, (classes, size)),
    ]
    wanted += [("states", state, (x.shape[1], size)) for state in states or ()]
    for name, given, shape in wanted:
        if given is not None and tuple(given.shape) != shape:
            raise SnnCompileError(f"{name} have shape {tuple(given.shape)}; they must have {shape}")
        if given is not None and given.dtype != x.dtype:
            raise SnnCompileError(f"{name} are {given.dtype} and the sequence {x.dtype}; convert one of them")
    if states is not None and not bool(((states[-1] == 0) | (states[-1] == 1)).all()):
        raise SnnCompileError("the last state, the spikes of the step before, holds more than 0 and 1")
    for parameter in parameters:
        if tuple(parameter.shape) not in ((), (1,), (size,)):
            raise SnnCompileError(
                f"a parameter has shape {tuple(parameter.shape)}; it must be one number or ({size},)"
            )


class _Fused(torch.autograd.Function):
    """Inputs: kind, are spikes and gradients wanted, x, three weights, two parameters, states, spikes."""

    @staticmethod
    def forward(
        ctx: Any, kind: Kind, spikes: bool, keep: bool, *tensors: Tensor | None
    ) -> tuple[Tensor, ...]:
        sequence = _Sequence(kind, [None if t is None else _array(t) for t in tensors])
        with _pools().limit(limits=1, user_api="blas"):
            read, states = sequence.run(keep and any(ctx.needs_input_grad))
        ctx.save_for_backward(*tensors)
        ctx.sequence, ctx.spikes = sequence, spikes
        z = sequence.spikes() if spikes else sequence.empty(0)
        return torch.from_numpy(z), torch.from_numpy(read), *map(torch.from_numpy, states)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        first_order_only()
        _ = ctx.saved_tensors  # raises if one was changed in place, which the arrays would show
        pull, read, *states = map(_array, gradients)
        pull = pull if ctx.spikes else pull[:0]
        with _pools().limit(limits=1, user_api="blas"):
            found = ctx.sequence.back(ctx.needs_input_grad[3], pull, read, states)
        return (None, None, None, *found)


@cache
def _pools() -> ThreadpoolController:
    """Return the libraries' threads: products as small as a step's lose by more than one."""
    import_module("scipy.linalg")  # the BLAS of compiled products, which must be there to be limited
    return ThreadpoolController()


class _Sequence:
    """A layer over one sequence, in arrays."""

    def __init__(self, kind: Kind, arrays: list[Array | None]) -> None:
        x, inward, recurrent, outward, one, two, *first, spikes = arrays
        assert x is not None and one is not None and two is not None and spikes is not None
        size, classes = len(one), 0 if outward is None else len(outward)
        targets = -(-(size + classes) // VECTOR) * VECTOR
        weights = _room((targets, size), x.dtype, 0)
        weights[:size] = 0 if recurrent is None else recurrent
        weights[size : size + classes] = 0 if outward is None else outward
        out, spare = _room((size + 1, targets), x.dtype, 0), _room((3, SURROGATES_TOGETHER), x.dtype)
        out[:size] = weights.T
        family, constants = _numbers(kind)
        code, bells = _surrogate(kind.surrogate)
        self.given = kind.surrogate if callable(kind.surrogate) else None
        self.there = tuple(w is not None for w in (inward, recurrent, outward))
        self.layer = Layer(
            family=family,
            constants=tuple(map(x.dtype.type, constants)),
            one=one,
            two=two,
            inward=np.empty((0, size), x.dtype) if inward is None else np.ascontiguousarray(inward.T),
            weights=weights,
            out=out,
            hears=recurrent is not None or outward is not None,
            dense=DENSE,
            surrogate=code,
            bells=np.array(bells, x.dtype).reshape(-1, 3),
            spare=spare,
            bits=spare[:1].view(np.int32 if x.dtype == np.float32 else np.int64),
        )
        self.first = np.stack([s for s in first if s is not None])
        self.x, self.size, self.classes = x, size, classes
        self.steps, self.batch, self.words = len(x), x.shape[1], -(-size // 64)
        self.masks = np.zeros((self.steps + 1, self.batch, self.words), np.uint64)
        sent = np.zeros((self.batch, 64 * self.words), np.uint8)
        sent[:, :size] = spikes
        parts = max(1, min(self.batch, -(-self.batch * size // TOGETHER)))
        self.edges = [self.batch * k // parts for k in range(parts + 1)]
        self.counts = np.zeros((parts, self.steps + 1), np.int64)
        for part, (low, high) in enumerate(pairwise(self.edges)):
            self.counts[part, 0] = _RECURRENT.mark(sent[low:high].view(np.uint64), self.masks[0, low:high])

    def empty(self, steps: int) -> Array:
        """Return room for so many steps of all neurons."""
        return np.empty((steps, self.batch, self.size), self.x.dtype)

    def room(self, samples: int, steps: int | None = None, over: int = 1) -> Room:
        """Return room for some samples with one round, or with one for each of `steps`."""
        shape, rounds, dtype = (samples, self.size), steps or 1, self.x.dtype
        return Room(
            track=_room((rounds + 1, len(self.first), *shape), dtype),
            fires=np.zeros((rounds + 1, samples, 64 * self.words), np.uint8),
            heard=_room((rounds + 1 if steps else 1, samples, len(self.layer.weights)), dtype),
            over=_room((max(over, rounds), *shape), dtype),
            z=_room(shape, dtype),
        )

    def run(self, keep: bool) -> tuple[Array, Array]:
        """Return what is read and the last states; with `keep` there is a way back."""
        every = min(BLOCK, self.steps)
        marks = np.empty((-(-self.steps // every) if keep else 0, *self.first.shape), self.x.dtype)
        read = np.empty((self.steps, self.batch, self.classes), self.x.dtype)
        states = np.empty_like(self.first)
        parts, listed = len(self.edges) - 1, self.steps + 1 if keep else 1
        samples = max(high - low for low, high in pairwise(self.edges))
        most = int(DENSE * samples * self.size) + 8 * samples  # lists are filled up to eights
        self.tape = Tape(
            x=self.x,
            masks=self.masks,
            counts=self.counts,
            places=np.empty((parts, listed, most), np.int32),
            ends=np.zeros((parts, listed, samples, 3), np.int32),
            read=read,
            every=every,
            marks=marks,
        )
        for part, (low, high) in enumerate(pairwise(self.edges)):
            room = self.room(high - low)
            room.track[0] = self.first[:, low:high]
            marks[:1, :, low:high] = room.track[0]
            _RECURRENT.sweep(self.layer, self.tape, room, 0, self.steps, low, part, False)
            states[:, low:high] = room.track[self.steps % 2]
        return read, states

    def spikes(self) -> Array:
        """Return the spikes (steps, batch, neurons)."""
        z = self.empty(self.steps)
        _RECURRENT.spread(self.masks[1:].reshape(-1, self.words), z.reshape(-1, self.size))
        return z

    def back(
        self, by_input: bool, pull: Array, read: Array, g_states: list[Array]
    ) -> tuple[Tensor | None, ...]:
        """Return the gradients of x, three weights, two parameters, the first states and the last spikes."""
        layer, (targets, size) = self.layer, self.layer.weights.shape
        states, last = np.stack(g_states), np.zeros((self.batch, size), self.x.dtype)
        g = Gradients(
            pull=pull,
            read=read,
            x=np.empty_like(self.x if by_input else self.x[:1, :0]),
            states=states,
            last=last,
            one=np.zeros(size),
            two=np.zeros(size),
            inward=np.zeros(layer.inward.shape),
            out=np.zeros((size, targets)),
            some=_room((size, targets), self.x.dtype, 0),
        )
        for part, (low, high) in enumerate(pairwise(self.edges)):
            mine = g._replace(states=states[:, low:high].copy(), last=last[low:high])
            room = self.room(high - low, self.tape.every)
            _RECURRENT.trace(layer, self.tape, room, mine, low, part, self._given(low, high, part))
            states[:, low:high] = mine.states
        weights = g.inward.T, g.out[:, :size].T, g.out[:, size : size + self.classes].T
        found = [g.x if by_input else None]
        found += [w if there else None for w, there in zip(weights, self.there, strict=True)]
        found += [g.one, g.two, *states, last]
        return tuple(None if f is None else torch.from_numpy(np.asarray(f, self.x.dtype)) for f in found)

    def _given(self, low: int, high: int, part: int) -> Array:
        """Return the derivatives of some samples' spikes where their surrogate is a function, else none."""
        room = self.room(high - low, over=self.steps)
        if self.given is None:
            nothing: Array = room.over[:0]
            return nothing
        room.track[0] = self.first[:, low:high]
        _RECURRENT.sweep(self.layer, self.tape, room, 0, self.steps, low, part, True)
        return _array(self.given(torch.from_numpy(room.over)))


def _room(shape: tuple[int, ...], dtype: np.dtype[Any], fill: float | None = None) -> Array:
    """Return an array that begins on a line of the cache, as torch's do and numpy's need not."""
    made: Array = _array(torch.empty(shape, dtype=getattr(torch, dtype.name)))
    if fill is not None:
        made.fill(fill)
    return made


def _numbers(kind: Kind) -> tuple[int, tuple[float, ...]]:
    """Return the family of a kind and its constants, in the order of `family_kernels`."""
    if isinstance(kind, Resonance):
        constants = kind.delta, kind.gamma, THRESHOLD, kind.smooth_reset, kind.refractory
        return family_kernels.RESONATORS, constants
    if isinstance(kind, Adaptation):
        return family_kernels.ADAPTIVE, (kind.base, kind.scale, RESETS[kind.reset], 0.0, 0.0)
    return family_kernels.INTEGRATORS, (kind.gain, kind.threshold, kind.subtract, not kind.detached, 0.0)


def _surrogate(surrogate: str | Derivative) -> tuple[int, tuple[tuple[float, float, float], ...]]:
    """Return a surrogate's code in `family_kernels` and its bells; a function has none."""
    if not isinstance(surrogate, str):
        return -1, ()
    if surrogate not in SURROGATES:
        raise SnnCompileError(f"no surrogate {surrogate!r}; use one of {', '.join(SURROGATES)}")
    return _CODES[surrogate], _BELLS.get(surrogate, ())


def _array(tensor: Tensor) -> Array:
    array: Array = tensor.detach().contiguous().numpy()
    return array
