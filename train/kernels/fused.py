"""Whole sequences of recurrent spiking layers as one differentiable operation.

Compiled passes (`recurrent.py`) run a layer with its input, recurrent and read-out weights through all steps,
forwards and, with gradients written by hand, backwards, so autograd does not record the dozens of small
operations of a step. Spikes and gradients equal those of the step functions, which are the definition, up to
the order of sums: in float32 a neuron within rounding of its threshold may spike in one and not in the other.

A few samples at a time go through the whole sequence, so that their states stay in the cache. Saved for the
backward pass are the spikes, one bit each, and the states of every BLOCK steps; the steps between are run
again (gradient checkpointing).

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
from snn_compile.train.kernels import recurrent as recurrent_kernels
from snn_compile.train.kernels.kinds import STATES, Kind, family_of, surrogate_of
from snn_compile.train.kernels.recurrent import Gradients, Layer, Saved, Workspace
from snn_compile.train.kernels.sequence import Step
from snn_compile.train.neurons.alif import Adaptation
from snn_compile.train.neurons.rf_brf import Resonance
from snn_compile.train.neurons.surrogate import first_order_only

Array = npt.NDArray[Any]
States = tuple[Tensor, ...]

_RECURRENT: Any = recurrent_kernels  # numba declares no arrays

DENSE = 0.2
"""Share of neurons that spike above which a matrix product is faster than adding rows of weights."""

BLOCK = 16
"""Steps that the backward pass runs again at once."""

VECTOR = 16
"""Numbers per vector instruction; the number of targets is padded to a multiple of it."""

SURROGATE_CHUNK = 1024
"""Surrogate derivatives that are computed at once."""

NEURONS_TOGETHER = 16384
"""Neurons, counted over samples, that are stepped together."""


@dataclass(frozen=True, eq=False)
class Weights:
    """Input, recurrent and read-out weights of a layer, each (target, source) or None.

    Without `inward` (neurons, inputs) the input is used unweighted; `recurrent` (neurons, neurons) weights
    the spikes of the step before, `outward` (classes, neurons) those of the step.
    """

    inward: Tensor | None = None
    recurrent: Tensor | None = None
    outward: Tensor | None = None


def run_resonators(
    x: Tensor, weight: Tensor | None, omega: Tensor, b: Tensor, kind: Resonance, states: States | None = None
) -> tuple[Tensor, States]:
    """Return the spikes (steps, batch, neurons) of resonators, and their last states (u, v, q, z).

    `x` (steps, batch, neurons) is the input, `weight` the recurrent weights or None; omega and b (neurons,)
    are those of `neurons.rf_brf.damping`; `states` start at 0 if None.
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
    """Return the input of the read-out, (steps, batch, classes), the spikes and the last states.

    `x` is (steps, batch, inputs); parameters and states are those of `run_resonators` and its like. Without
    `spikes` they and the states are None, which saves a sequence as large as the layer. `weights` must have
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
        states = tuple(x.new_zeros(x.shape[1], size) for _ in range(STATES[type(kind)] + 1))
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
    count = STATES[type(kind)] + 1
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
    """Arguments: kind, whether to return spikes, whether to save, x, 3 weights, 2 parameters, states."""

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
    """Return the controller of BLAS's threads: products as small as a step's lose by more than one."""
    import_module("scipy.linalg")  # the BLAS of compiled products, which must be there to be limited
    return ThreadpoolController()


class _Sequence:
    """A layer over one sequence, in arrays."""

    def __init__(self, kind: Kind, arrays: list[Array | None]) -> None:
        x, inward, recurrent, outward, one, two, *first, spikes = arrays
        assert x is not None and one is not None and two is not None and spikes is not None
        size, classes = len(one), 0 if outward is None else len(outward)
        targets = -(-(size + classes) // VECTOR) * VECTOR
        weights = _aligned((targets, size), x.dtype, 0)
        weights[:size] = 0 if recurrent is None else recurrent
        weights[size : size + classes] = 0 if outward is None else outward
        out, spare = _aligned((size + 1, targets), x.dtype, 0), _aligned((3, SURROGATE_CHUNK), x.dtype)
        out[:size] = weights.T
        family, constants = family_of(kind)
        code, bells = surrogate_of(kind.surrogate)
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
            connected=recurrent is not None or outward is not None,
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
        parts = max(1, min(self.batch, -(-self.batch * size // NEURONS_TOGETHER)))
        self.edges = [self.batch * k // parts for k in range(parts + 1)]
        self.counts = np.zeros((parts, self.steps + 1), np.int64)
        for part, (low, high) in enumerate(pairwise(self.edges)):
            self.counts[part, 0] = _RECURRENT.mark(sent[low:high].view(np.uint64), self.masks[0, low:high])

    def empty(self, steps: int) -> Array:
        """Return an empty array for so many steps of all neurons."""
        return np.empty((steps, self.batch, self.size), self.x.dtype)

    def workspace(self, samples: int, steps: int | None = None, over: int = 1) -> Workspace:
        """Return a workspace for some samples with one round, or with one for each of `steps`."""
        shape, rounds, dtype = (samples, self.size), steps or 1, self.x.dtype
        return Workspace(
            track=_aligned((rounds + 1, len(self.first), *shape), dtype),
            fires=np.zeros((rounds + 1, samples, 64 * self.words), np.uint8),
            incoming=_aligned((rounds + 1 if steps else 1, samples, len(self.layer.weights)), dtype),
            over=_aligned((max(over, rounds), *shape), dtype),
            z=_aligned(shape, dtype),
        )

    def run(self, keep: bool) -> tuple[Array, Array]:
        """Return the input of the read-out and the last states; `keep` saves what `back` needs."""
        every = min(BLOCK, self.steps)
        checkpoints = np.empty((-(-self.steps // every) if keep else 0, *self.first.shape), self.x.dtype)
        read = np.empty((self.steps, self.batch, self.classes), self.x.dtype)
        states = np.empty_like(self.first)
        parts, listed = len(self.edges) - 1, self.steps + 1 if keep else 1
        samples = max(high - low for low, high in pairwise(self.edges))
        most = int(DENSE * samples * self.size) + 8 * samples  # lists are filled up to eights
        self.saved = Saved(
            x=self.x,
            masks=self.masks,
            counts=self.counts,
            indices=np.empty((parts, listed, most), np.int32),
            bounds=np.zeros((parts, listed, samples, 3), np.int32),
            read=read,
            every=every,
            checkpoints=checkpoints,
        )
        for part, (low, high) in enumerate(pairwise(self.edges)):
            workspace = self.workspace(high - low)
            workspace.track[0] = self.first[:, low:high]
            checkpoints[:1, :, low:high] = workspace.track[0]
            _RECURRENT.sweep(self.layer, self.saved, workspace, 0, self.steps, low, part, False)
            states[:, low:high] = workspace.track[self.steps % 2]
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
            spikes=pull,
            read=read,
            x=np.empty_like(self.x if by_input else self.x[:1, :0]),
            states=states,
            last=last,
            one=np.zeros(size),
            two=np.zeros(size),
            inward=np.zeros(layer.inward.shape),
            out=np.zeros((size, targets)),
            partial=_aligned((size, targets), self.x.dtype, 0),
        )
        for part, (low, high) in enumerate(pairwise(self.edges)):
            mine = g._replace(states=states[:, low:high].copy(), last=last[low:high])
            workspace = self.workspace(high - low, self.saved.every)
            _RECURRENT.backpropagate(
                layer, self.saved, workspace, mine, low, part, self._derivatives(low, high, part)
            )
            states[:, low:high] = mine.states
        weights = g.inward.T, g.out[:, :size].T, g.out[:, size : size + self.classes].T
        found = [g.x if by_input else None]
        found += [w if there else None for w, there in zip(weights, self.there, strict=True)]
        found += [g.one, g.two, *states, last]
        return tuple(None if f is None else torch.from_numpy(np.asarray(f, self.x.dtype)) for f in found)

    def _derivatives(self, low: int, high: int, part: int) -> Array:
        """Return the spikes' derivatives if the surrogate is a function, else an empty array."""
        workspace = self.workspace(high - low, over=self.steps)
        if self.given is None:
            nothing: Array = workspace.over[:0]
            return nothing
        workspace.track[0] = self.first[:, low:high]
        _RECURRENT.sweep(self.layer, self.saved, workspace, 0, self.steps, low, part, True)
        return _array(self.given(torch.from_numpy(workspace.over)))


def _aligned(shape: tuple[int, ...], dtype: np.dtype[Any], fill: float | None = None) -> Array:
    """Return an array aligned to a cache line, as torch's are and numpy's need not be."""
    made: Array = _array(torch.empty(shape, dtype=getattr(torch, dtype.name)))
    if fill is not None:
        made.fill(fill)
    return made


def _array(tensor: Tensor) -> Array:
    array: Array = tensor.detach().contiguous().numpy()
    return array
