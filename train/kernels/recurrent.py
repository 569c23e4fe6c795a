"""Sequences of recurrent layers, forwards and backwards, a few samples at a time, compiled.

A layer is a family of neurons (`families.py`) with its constants, two parameters a neuron and up to
three states. Samples do not meet within a sequence, so that a few of them are taken through many steps with
everything that they need in the cache.

Spikes are kept as bits, 64 neurons a word, and act through one matrix `out` (neurons, targets): its columns
are the recurrent weights and then those of the read-out. `heard` (steps, samples, targets) is what the spikes
before a step sent; in its first columns it becomes that step's input, and its gradient on the way back.
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
"""What brings the lowest bits of eight bytes together in the top byte, and what adds them up there."""

FEW = 8
"""Inputs that are weighted one by one; the products of more are one of matrices."""


class Layer(NamedTuple):
    """A layer: its family and constants, two parameters (neurons,), weights, and the surrogate of its spikes.

    `inward` is (inputs, neurons), of no inputs if what arrives is given as it is. `weights` (targets,
    neurons) are the recurrent ones, those of the read-out and zeros up to whole vectors, `out` (neurons + 1,
    targets) is that turned round with a row of zeros; `hears` says that there are any. Above the share
    `dense` of spikes their products are of matrices. `spare` (3, room) is for the surrogate, `bits` (1, room)
    its first row as integers.
    """

    family: int
    constants: tuple[Any, ...]
    one: Any
    two: Any
    inward: Any
    weights: Any
    out: Any
    hears: bool
    dense: float
    surrogate: int
    bells: Any
    spare: Any
    bits: Any


class Tape(NamedTuple):
    """A sequence: `x` (steps, batch, inputs), the spikes before each step and after the last, what is read.

    `masks` (steps + 1, batch, words) are bits, `counts` (parts, steps + 1) how many of them are set in a part
    of the batch. `places` (parts, steps + 1, most) and `ends` (parts, steps + 1, samples, 3) list them as
    `_find` does where they are few; without a way back they are of one step, for all in turn. `read` is
    (steps, batch, classes). `marks` (n, states, batch, neurons) are the states before the steps 0, `every`, 2
    `every` and so on, or none.
    """

    x: Any
    masks: Any
    counts: Any
    places: Any
    ends: Any
    read: Any
    every: int
    marks: Any


class Room(NamedTuple):
    """Where some samples are stepped: rounds of (samples, ...) that follow each other and begin again.

    `track` are states, `fires` spikes, a byte each in rows of whole words, `heard` what the spikes before a
    step sent, `over` the distance from threshold; `z` (samples, neurons) is room.
    """

    track: Any
    fires: Any
    heard: Any
    over: Any
    z: Any


class Gradients(NamedTuple):
    """Gradients by the spikes and by what is read, from outside; by all the rest, which are written.

    `pull` (steps, batch, neurons) may be of no steps, and `x` of one step and no samples: a slice of samples
    of a step must then be empty. `states` (states, samples, neurons) are at first by the last states, in the
    end by the first ones; `last` (samples, neurons) by the spikes before the first step. `one`, `two`,
    `inward`, `out` are float64 and added to, `some` is room for `out`.
    """

    pull: Any
    read: Any
    x: Any
    states: Any
    last: Any
    one: Any
    two: Any
    inward: Any
    out: Any
    some: Any


@njit(nogil=True, cache=True, error_model="numpy")
def mark(eights: Any, masks: Any) -> int:
    """Write spikes, bytes in words of eight (samples, 8 words), as bits (samples, words); return how many."""
    count = np.uint64(0)
    for i in range(masks.shape[0]):
        for w in range(masks.shape[1]):
            word = np.uint64(0)
            for k in range(8):
                eight = eights[i, 8 * w + k]
                word |= (eight * _GATHER >> np.uint64(56)) << np.uint64(8 * k)
                count += eight * _COUNT >> np.uint64(56)
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
def _many(layer: Layer, tape: Tape, room: Room, t: int, part: int) -> bool:
    """Say whether so many fired before step `t` that a product of matrices is quicker."""
    return bool(tape.counts[part, t] > layer.dense * room.z.size)


@njit(nogil=True, cache=True, error_model="numpy")
def _find(masks: Any, low: int, none: int, places: Any, ends: Any) -> None:
    """Write which neurons fired, sample after sample, each list filled up with `none` to whole eights.

    `ends` (samples, 3) is where a list begins, where its neurons end and where it ends.
    """
    count = 0
    for i in range(ends.shape[0]):
        ends[i, 0] = count
        for w in range(masks.shape[1]):
            word = masks[low + i, w]
            while word:
                places[count] = 64 * w + _PLACES[(word & (~word + _ONE)) * _BRUIJN >> _TOP]
                word &= word - _ONE
                count += 1
        ends[i, 1] = count
        while (count - ends[i, 0]) % 8:
            places[count] = none
            count += 1
        ends[i, 2] = count


@njit(nogil=True, cache=True, error_model="numpy")
def _hear(places: Any, ends: Any, out: Any, heard: Any) -> None:
    """Write for each sample the sum of the rows of `out` whose neurons fired, eight at a time.

    The last row of `out` is none's and 0.
    """
    for i in range(heard.shape[0]):
        for j in range(out.shape[1]):
            heard[i, j] = 0
        for k in range(ends[i, 0], ends[i, 2], 8):
            a, b, c, d = places[k], places[k + 1], places[k + 2], places[k + 3]
            e, f, g, h = places[k + 4], places[k + 5], places[k + 6], places[k + 7]
            for j in range(out.shape[1]):
                near = (out[a, j] + out[b, j]) + (out[c, j] + out[d, j])
                heard[i, j] += near + ((out[e, j] + out[f, j]) + (out[g, j] + out[h, j]))


@njit(nogil=True, cache=True, error_model="numpy")
def _blame(heard: Any, places: Any, ends: Any, g_out: Any) -> None:
    """Add to `g_out` what the gradients of what was heard give to the neurons that fired."""
    for i in range(heard.shape[0]):
        for k in range(ends[i, 0], ends[i, 1]):
            place = places[k]
            for j in range(heard.shape[1]):
                g_out[place, j] += heard[i, j]


@njit(nogil=True, cache=True, error_model="numpy")
def _arrive(x: Any, inward: Any, heard: Any) -> None:
    """Add a step's input to what was heard: x itself, or weighted by `inward` (inputs, neurons)."""
    inputs, size = inward.shape
    if inputs > FEW:
        more = np.dot(x, inward)
        for i in range(x.shape[0]):
            for j in range(size):
                heard[i, j] += more[i, j]
    elif inputs:
        for i in range(x.shape[0]):
            for k in range(inputs):
                value = x[i, k]
                for j in range(size):
                    heard[i, j] += value * inward[k, j]
    else:
        for i in range(x.shape[0]):
            for j in range(size):
                heard[i, j] += x[i, j]


@njit(nogil=True, cache=True, error_model="numpy")
def sweep(
    layer: Layer, tape: Tape, room: Room, first: int, last: int, low: int, part: int, again: bool
) -> None:
    """Take the samples from `low` on through steps `first` to `last`; spikes before `first` are on the tape.

    `room.track` begins with the states before `first`. What is read and marks are left alone if it is done
    `again`.
    """
    samples, size = room.z.shape
    classes = 0 if again else tape.read.shape[2]
    spread(tape.masks[first, low : low + samples], room.fires[0, :, :size])
    for t in range(first, last + (classes > 0)):
        n = t - first
        now, was = room.heard[n % len(room.heard)], room.fires[n % len(room.fires)]
        if layer.hears and _many(layer, tape, room, t, part):
            spread(tape.masks[t, low : low + samples], room.z)
            np.dot(room.z, layer.out[:size], now)
        elif layer.hears:
            turn = t % tape.places.shape[1]
            places, ends = tape.places[part, turn], tape.ends[part, turn, :samples]
            if not again:
                _find(tape.masks[t], low, size, places, ends)
            _hear(places, ends, layer.out, now)
        else:
            now[:] = 0
        if classes and t:
            tape.read[t - 1, low : low + samples] = now[:, size : size + classes]
        if t == last:
            break
        _arrive(tape.x[t, low : low + samples], layer.inward, now)
        before, after = room.track[n % len(room.track)], room.track[(n + 1) % len(room.track)]
        fire, over = room.fires[(n + 1) % len(room.fires)], room.over[n % len(room.over)]
        step_forward(layer.family, layer.constants, layer.one, layer.two, now, before, was, after, fire, over)
        if again:
            continue
        tape.counts[part, t + 1] = mark(fire.view(np.uint64), tape.masks[t + 1, low : low + samples])
        if len(tape.marks) and (t + 1) % tape.every == 0 and t + 1 < len(tape.x):
            tape.marks[(t + 1) // tape.every, :, low : low + samples] = after


@njit(nogil=True, cache=True, error_model="numpy")
def _credit(layer: Layer, tape: Tape, room: Room, heard: Any, t: int, low: int, part: int, some: Any) -> None:
    """Add to `some` what the gradients by what was heard give to the spikes before step `t`."""
    samples, size = room.z.shape
    if _many(layer, tape, room, t, part):
        spread(tape.masks[t, low : low + samples], room.z)
        more = np.dot(room.z.T, heard)
        for i in range(size):
            for j in range(heard.shape[1]):
                some[i, j] += more[i, j]
    else:
        _blame(heard, tape.places[part, t], tape.ends[part, t, :samples], some)


@njit(nogil=True, cache=True, error_model="numpy")
def _input(x: Any, inward: Any, heard: Any, g_x: Any, g_inward: Any) -> None:
    """Write into `g_x` (samples, inputs), if it has samples, and add to `g_inward` what an input gets."""
    inputs, size = inward.shape
    for i in range(g_x.shape[0]):
        if inputs:
            for k in range(inputs):
                total = inward.dtype.type(0)
                for j in range(size):
                    total += inward[k, j] * heard[i, j]
                g_x[i, k] = total
        else:
            for j in range(size):
                g_x[i, j] = heard[i, j]
    if inputs > FEW:
        more = np.dot(x.T, heard)
        for k in range(inputs):
            for j in range(size):
                g_inward[k, j] += more[k, j]
        return
    total_of = np.zeros((inputs, size), heard.dtype)
    for i in range(x.shape[0]):
        for k in range(inputs):
            value = x[i, k]
            for j in range(size):
                total_of[k, j] += value * heard[i, j]
    for k in range(inputs):
        for j in range(size):
            g_inward[k, j] += total_of[k, j]


@njit(nogil=True, cache=True, error_model="numpy")
def trace(layer: Layer, tape: Tape, room: Room, g: Gradients, low: int, part: int, given: Any) -> None:
    """Take the gradients of the samples from `low` on back through the whole sequence.

    Block by block the steps are run again, in a room with a round for each and one more; then `heard` becomes
    the gradient by what was heard. `given` (steps, samples, neurons) are derivatives of the spikes that are
    known, or of no steps.
    """
    samples, size = room.z.shape
    steps, classes = len(tape.x), tape.read.shape[2]
    high, behind = low + samples, np.zeros(room.heard.shape[1:], room.heard.dtype)
    g_z = np.zeros_like(room.z)
    behind[:, size : size + classes] = g.read[steps - 1, low:high]
    for first in range((len(tape.marks) - 1) * tape.every, -1, -tape.every):
        last = min(first + tape.every, steps)
        room.track[0] = tape.marks[first // tape.every, :, low:high]
        sweep(layer, tape, room, first, last, low, part, True)
        room.heard[last - first] = behind
        for t in range(last - 1, first - 1, -1):
            n = t - first
            slope, heard = room.over[n], room.heard[n]
            if len(given):
                slope = given[t]
            else:
                slopes(layer.surrogate, layer.bells, slope.reshape(-1), layer.spare, layer.bits)
            if layer.hears:
                np.dot(room.heard[n + 1], layer.weights, g_z)
                _credit(layer, tape, room, room.heard[n + 1], t + 1, low, part, g.some)
            else:
                g_z[:] = 0
            if len(g.pull):
                for i in range(samples):
                    for j in range(size):
                        g_z[i, j] += g.pull[t, low + i, j]
            step_backward(
                layer.family, layer.constants, layer.one, layer.two, heard, room.track[n], room.track[n + 1],
                room.fires[n], room.fires[n + 1], g_z, slope, g.states, g.last, g.one, g.two,
            )  # fmt: skip
            _input(tape.x[t, low:high], layer.inward, heard, g.x[min(t, len(g.x) - 1), low:high], g.inward)
            if classes and t:
                heard[:, size : size + classes] = g.read[t - 1, low:high]
            elif classes:
                heard[:, size:] = 0
        behind[:] = room.heard[0]
        for i in range(size):
            for j in range(behind.shape[1]):
                g.out[i, j] += g.some[i, j]
                g.some[i, j] = 0
    if layer.hears:
        _credit(layer, tape, room, behind, 0, low, part, g.some)
        g.out[:] += g.some
        g.some[:] = 0
        np.dot(behind, layer.weights, g_z)
        g.last[:] += g_z


@njit(nogil=True, cache=True, error_model="numpy")
def leaky_forward(x: Any, a: Any, y: Any) -> None:
    """Write into `y` the leaky integrals y_t = a y_(t-1) + (1 - a) x_t; both (steps, batch, classes)."""
    one = x.dtype.type(1)
    for t in range(x.shape[0]):
        for i in range(x.shape[1]):
            for j in range(x.shape[2]):
                fresh = (one - a[j]) * x[t, i, j]
                y[t, i, j] = a[j] * y[t - 1, i, j] + fresh if t else fresh


@njit(nogil=True, cache=True, error_model="numpy")
def leaky_backward(g_y: Any, x: Any, y: Any, a: Any, g_x: Any, g_a: Any) -> None:
    """Write into `g_x` the gradient by x, and add to `g_a` (classes,) the one by a."""
    one = x.dtype.type(1)
    held = np.zeros(x.shape[1:], x.dtype)
    for back in range(x.shape[0]):
        t = x.shape[0] - 1 - back
        for i in range(x.shape[1]):
            for j in range(x.shape[2]):
                g = g_y[t, i, j] + a[j] * held[i, j]
                held[i, j] = g
                g_x[t, i, j] = (one - a[j]) * g
                g_a[j] += g * ((y[t - 1, i, j] if t else 0 * one) - x[t, i, j])
