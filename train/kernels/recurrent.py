"""Sequences of recurrent layers, forwards and backwards, a few samples at a time, compiled.

A layer is a family of neurons (`families.py`) with its constants, two parameters per neuron and up to
three states. Samples are independent of each other, so a few of them at a time run through many steps with
all their data in the cache.

Spikes are stored as bits, 64 neurons per word, and weighted by one matrix `out` (neurons, targets) whose
columns are the recurrent weights followed by those of the read-out. `incoming` (steps, samples, targets)
holds the weighted spikes of the step before; its first columns become the step's input and, in the backward
pass, the gradient by it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from snn_compile.train.kernels.families import slopes, step_backward, step_forward

_ONE = np.uint64(1)
_BRUIJN = np.uint64(0x03F79D71B4CB0A89)
_TOP = np.uint64(58)
_PLACES = np.array([((0x03F79D71B4CB0A89 << i) & ((1 << 64) - 1)) >> 58 for i in range(64)]).argsort()
"""Which bit is set, by the top six bits of its product with a de Bruijn sequence."""

_GATHER, _COUNT = np.uint64(0x0102040810204080), np.uint64(0x0101010101010101)
"""What brings the lowest bits of byte bytes together in the top byte, and what adds them up there."""

FEW = 8
"""Number of inputs up to which they are weighted one by one; more are weighted by one matrix product."""


class Layer(NamedTuple):
    """A layer: its family and constants, two parameters (neurons,), weights, and the surrogate of its spikes.

    `inward` is (inputs, neurons), with 0 inputs if currents are given unweighted. `weights` (targets,
    neurons) stacks the recurrent weights, those of the read-out and zeros up to whole vectors; `out`
    (neurons + 1, targets) is its transpose with a row of zeros; `connected` tells whether there are any. If
    more than the share `dense` of the neurons spikes, the weighted sums are matrix products. `spare` (3, n)
    is scratch space of the surrogate, `bits` (1, n) its first row as integers.
    """

    family: int
    constants: tuple[Any, ...]
    one: Any
    two: Any
    inward: Any
    weights: Any
    out: Any
    connected: bool
    dense: float
    surrogate: int
    bells: Any
    spare: Any
    bits: Any


class Saved(NamedTuple):
    """What the forward pass saves of a sequence `x` (steps, batch, inputs) for the backward pass.

    `masks` (steps + 1, batch, words) are the spikes before each step and after the last one, as bits;
    `counts` (parts, steps + 1) is the number of spikes in each part of the batch. Where they are few,
    `indices` (parts, steps + 1, n) and `bounds` (parts, steps + 1, samples, 3) list them as `_find` does;
    without a backward pass both hold one step that is overwritten. `read` (steps, batch, classes) is the
    input of the read-out. `checkpoints` (n, states, batch, neurons) are the states before the steps 0,
    `every`, 2 `every` and so on, or empty.
    """

    x: Any
    masks: Any
    counts: Any
    indices: Any
    bounds: Any
    read: Any
    every: int
    checkpoints: Any


class Workspace(NamedTuple):
    """Ring buffers (rounds, samples, ...) in which the steps of some samples are computed.

    `track` holds the states, `fires` the spikes (one byte each, in rows of whole words), `incoming` the
    weighted spikes of the step before, `over` the distance from the threshold; `z` (samples, neurons) is
    scratch space.
    """

    track: Any
    fires: Any
    incoming: Any
    over: Any
    z: Any


class Gradients(NamedTuple):
    """Gradients of the loss: by the spikes and the input of the read-out (given), by all else (computed).

    `spikes` (steps, batch, neurons) may have no steps, and `x` one step and no samples: then no gradient by
    the input is computed. `states` (states, samples, neurons) holds the gradient by the last states, and on
    return that by the first ones; `last` (samples, neurons) is by the spikes before the first step. `one`,
    `two`, `inward` and `out` are float64 sums that are added to; `partial` collects `out` in x's type.
    """

    spikes: Any
    read: Any
    x: Any
    states: Any
    last: Any
    one: Any
    two: Any
    inward: Any
    out: Any
    partial: Any


@njit(nogil=True, cache=True, error_model="numpy")
def mark(packed: Any, masks: Any) -> int:
    """Write spikes, bytes in rows of whole words, as bits (samples, words); return how many there are."""
    count = np.uint64(0)
    for i in range(masks.shape[0]):
        for w in range(masks.shape[1]):
            word = np.uint64(0)
            for k in range(8):
                byte = packed[i, 8 * w + k]
                word |= (byte * _GATHER >> np.uint64(56)) << np.uint64(8 * k)
                count += byte * _COUNT >> np.uint64(56)
            masks[i, w] = word
    return int(count)


@njit(nogil=True, cache=True, error_model="numpy")
def spread(masks: Any, z: Any) -> None:
    """Write the bits of `masks` (samples, words) as spikes, a number each."""
    for i in range(z.shape[0]):
        for w in range(masks.shape[1]):
            word = masks[i, w]
            for j in range(min(64, z.shape[1] - 64 * w)):
                z[i, 64 * w + j] = word >> np.uint64(j) & _ONE


@njit(nogil=True, cache=True, error_model="numpy")
def _dense(layer: Layer, saved: Saved, work: Workspace, t: int, part: int) -> bool:
    """Return whether so many neurons spiked before step `t` that a matrix product is faster."""
    return bool(saved.counts[part, t] > layer.dense * work.z.size)


@njit(nogil=True, cache=True, error_model="numpy")
def _find(masks: Any, low: int, none: int, indices: Any, bounds: Any) -> None:
    """List the indices of neurons that spiked, sample by sample, each list padded with `none` to packed.

    `bounds` (samples, 3) is where a list begins, where its neurons end and where its padding bounds.
    """
    count = 0
    for i in range(bounds.shape[0]):
        bounds[i, 0] = count
        for w in range(masks.shape[1]):
            word = masks[low + i, w]
            while word:
                indices[count] = 64 * w + _PLACES[(word & (~word + _ONE)) * _BRUIJN >> _TOP]
                word &= word - _ONE
                count += 1
        bounds[i, 1] = count
        while (count - bounds[i, 0]) % 8:
            indices[count] = none
            count += 1
        bounds[i, 2] = count


@njit(nogil=True, cache=True, error_model="numpy")
def _gather(indices: Any, bounds: Any, out: Any, incoming: Any) -> None:
    """Write for each sample the sum of the rows of `out` whose neurons spiked, byte at a time.

    The last row of `out` is 0 and stands for the padding.
    """
    for i in range(incoming.shape[0]):
        for j in range(out.shape[1]):
            incoming[i, j] = 0
        for k in range(bounds[i, 0], bounds[i, 2], 8):
            a, b, c, d = indices[k], indices[k + 1], indices[k + 2], indices[k + 3]
            e, f, g, h = indices[k + 4], indices[k + 5], indices[k + 6], indices[k + 7]
            for j in range(out.shape[1]):
                near = (out[a, j] + out[b, j]) + (out[c, j] + out[d, j])
                incoming[i, j] += near + ((out[e, j] + out[f, j]) + (out[g, j] + out[h, j]))


@njit(nogil=True, cache=True, error_model="numpy")
def _scatter_grad(incoming: Any, indices: Any, bounds: Any, g_out: Any) -> None:
    """Add the gradients by `incoming` to the rows of `g_out` whose neurons spiked: `_gather` reversed."""
    for i in range(incoming.shape[0]):
        for k in range(bounds[i, 0], bounds[i, 1]):
            index = indices[k]
            for j in range(incoming.shape[1]):
                g_out[index, j] += incoming[i, j]


@njit(nogil=True, cache=True, error_model="numpy")
def _add_input(x: Any, inward: Any, incoming: Any) -> None:
    """Add a step's input to `incoming`: x itself, or weighted by `inward` (inputs, neurons)."""
    inputs, size = inward.shape
    if inputs > FEW:
        more = np.dot(x, inward)
        for i in range(x.shape[0]):
            for j in range(size):
                incoming[i, j] += more[i, j]
    elif inputs:
        for i in range(x.shape[0]):
            for k in range(inputs):
                value = x[i, k]
                for j in range(size):
                    incoming[i, j] += value * inward[k, j]
    else:
        for i in range(x.shape[0]):
            for j in range(size):
                incoming[i, j] += x[i, j]


@njit(nogil=True, cache=True, error_model="numpy")
def sweep(
    layer: Layer, saved: Saved, work: Workspace, first: int, last: int, low: int, part: int, again: bool
) -> None:
    """Run the samples from `low` on through the steps `first` to `last`; spikes before `first` are saved.

    `work.track` begins with the states before `first`. If the steps are run `again`, the input of the
    read-out and the checkpoints are left as they are.
    """
    samples, size = work.z.shape
    classes = 0 if again else saved.read.shape[2]
    spread(saved.masks[first, low : low + samples], work.fires[0, :, :size])
    for t in range(first, last + (classes > 0)):
        n = t - first
        now, was = work.incoming[n % len(work.incoming)], work.fires[n % len(work.fires)]
        if layer.connected and _dense(layer, saved, work, t, part):
            spread(saved.masks[t, low : low + samples], work.z)
            np.dot(work.z, layer.out[:size], now)
        elif layer.connected:
            slot = t % saved.indices.shape[1]
            indices, bounds = saved.indices[part, slot], saved.bounds[part, slot, :samples]
            if not again:
                _find(saved.masks[t], low, size, indices, bounds)
            _gather(indices, bounds, layer.out, now)
        else:
            now[:] = 0
        if classes and t:
            saved.read[t - 1, low : low + samples] = now[:, size : size + classes]
        if t == last:
            break
        _add_input(saved.x[t, low : low + samples], layer.inward, now)
        before, after = work.track[n % len(work.track)], work.track[(n + 1) % len(work.track)]
        fire, over = work.fires[(n + 1) % len(work.fires)], work.over[n % len(work.over)]
        step_forward(layer.family, layer.constants, layer.one, layer.two, now, before, was, after, fire, over)
        if again:
            continue
        saved.counts[part, t + 1] = mark(fire.view(np.uint64), saved.masks[t + 1, low : low + samples])
        if len(saved.checkpoints) and (t + 1) % saved.every == 0 and t + 1 < len(saved.x):
            saved.checkpoints[(t + 1) // saved.every, :, low : low + samples] = after


@njit(nogil=True, cache=True, error_model="numpy")
def _accumulate_grad(
    layer: Layer, saved: Saved, work: Workspace, incoming: Any, t: int, low: int, part: int, partial: Any
) -> None:
    """Add to `partial` the gradient by `out` that the spikes before step `t` cause."""
    samples, size = work.z.shape
    if _dense(layer, saved, work, t, part):
        spread(saved.masks[t, low : low + samples], work.z)
        more = np.dot(work.z.T, incoming)
        for i in range(size):
            for j in range(incoming.shape[1]):
                partial[i, j] += more[i, j]
    else:
        _scatter_grad(incoming, saved.indices[part, t], saved.bounds[part, t, :samples], partial)


@njit(nogil=True, cache=True, error_model="numpy")
def _input_grad(x: Any, inward: Any, incoming: Any, g_x: Any, g_inward: Any) -> None:
    """Write the gradient by the input into `g_x` (samples, inputs), if it has samples; add to `g_inward`."""
    inputs, size = inward.shape
    for i in range(g_x.shape[0]):
        if inputs:
            for k in range(inputs):
                total = inward.dtype.type(0)
                for j in range(size):
                    total += inward[k, j] * incoming[i, j]
                g_x[i, k] = total
        else:
            for j in range(size):
                g_x[i, j] = incoming[i, j]
    if inputs > FEW:
        more = np.dot(x.T, incoming)
        for k in range(inputs):
            for j in range(size):
                g_inward[k, j] += more[k, j]
        return
    total_of = np.zeros((inputs, size), incoming.dtype)
    for i in range(x.shape[0]):
        for k in range(inputs):
            value = x[i, k]
            for j in range(size):
                total_of[k, j] += value * incoming[i, j]
    for k in range(inputs):
        for j in range(size):
            g_inward[k, j] += total_of[k, j]


@njit(nogil=True, cache=True, error_model="numpy")
def backpropagate(
    layer: Layer, saved: Saved, work: Workspace, g: Gradients, low: int, part: int, given: Any
) -> None:
    """Backpropagate the samples from `low` on through the whole sequence.

    Block by block the steps are run again, in a workspace with one round more than a block has steps;
    `incoming` then becomes the gradient by itself. `given` (steps, samples, neurons) are derivatives of the
    spikes if the caller computed them, else it has no steps.
    """
    samples, size = work.z.shape
    steps, classes = len(saved.x), saved.read.shape[2]
    high, behind = low + samples, np.zeros(work.incoming.shape[1:], work.incoming.dtype)
    g_z = np.zeros_like(work.z)
    behind[:, size : size + classes] = g.read[steps - 1, low:high]
    for first in range((len(saved.checkpoints) - 1) * saved.every, -1, -saved.every):
        last = min(first + saved.every, steps)
        work.track[0] = saved.checkpoints[first // saved.every, :, low:high]
        sweep(layer, saved, work, first, last, low, part, True)
        work.incoming[last - first] = behind
        for t in range(last - 1, first - 1, -1):
            n = t - first
            slope, incoming = work.over[n], work.incoming[n]
            if len(given):
                slope = given[t]
            else:
                slopes(layer.surrogate, layer.bells, slope.reshape(-1), layer.spare, layer.bits)
            if layer.connected:
                np.dot(work.incoming[n + 1], layer.weights, g_z)
                _accumulate_grad(layer, saved, work, work.incoming[n + 1], t + 1, low, part, g.partial)
            else:
                g_z[:] = 0
            if len(g.spikes):
                for i in range(samples):
                    for j in range(size):
                        g_z[i, j] += g.spikes[t, low + i, j]
            step_backward(
                layer.family, layer.constants, layer.one, layer.two, incoming, work.track[n],
                work.track[n + 1], work.fires[n], work.fires[n + 1], g_z, slope, g.states, g.last,
                g.one, g.two,
            )  # fmt: skip
            _input_grad(
                saved.x[t, low:high], layer.inward, incoming, g.x[min(t, len(g.x) - 1), low:high], g.inward
            )
            if classes and t:
                incoming[:, size : size + classes] = g.read[t - 1, low:high]
            elif classes:
                incoming[:, size:] = 0
        behind[:] = work.incoming[0]
        for i in range(size):
            for j in range(behind.shape[1]):
                g.out[i, j] += g.partial[i, j]
                g.partial[i, j] = 0
    if layer.connected:
        _accumulate_grad(layer, saved, work, behind, 0, low, part, g.partial)
        g.out[:] += g.partial
        g.partial[:] = 0
        np.dot(behind, layer.weights, g_z)
        g.last[:] += g_z
