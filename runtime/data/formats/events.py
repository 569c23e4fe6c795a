"""Event recordings, and their binning into steps.

A recording is a list of events (t, x, y, p): microseconds from its start, column, row from the top, and
polarity, 1 for brighter. One of a camera starts at its first event, or where a list of trials says; spiking
digits start with their audio. Each step counts the events of an interval of time:

    dt > 0     step k holds k dt <= t < (k + 1) dt; later events are ignored
    dt = 0     the recording, from its start to its last event, is divided into steps of equal length

Places are pooled by summing squares of `shrink` pixels (of neighbouring channels where there is one row).
A value is 1 where there is any event, or with `counts` their number.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snn_compile.targets.errors import WrongInput

MICROSECONDS = 1_000_000
SPAN_MAX_US = 3600 * MICROSECONDS
"""Longest recording; a longer one has damaged times."""
BYTES_MAX = 1 << 33
"""Largest split in memory, as float64 of 8 bytes per value."""
COUNT_MAX = np.iinfo(np.uint16).max


@dataclass(frozen=True, eq=False)
class Events:
    """The events of one recording, each array (events,) of whole numbers; `where` names it in errors."""

    where: str
    t: NDArray[np.int64]
    x: NDArray[np.int64]
    y: NDArray[np.int64]
    p: NDArray[np.int64]


@dataclass(frozen=True)
class Binning:
    """How recordings of a sensor of `height` x `width` pixels and `polarities` become steps."""

    height: int
    width: int
    polarities: int
    steps: int
    dt: float = 0.0
    shrink: int = 1
    counts: bool = False

    def check(self, name: str, samples: int) -> None:
        """Raise WrongInput, naming the data set, for values that do not fit or too much data."""
        ticks = self.dt * MICROSECONDS
        if not 0 <= self.dt < SPAN_MAX_US or abs(ticks - round(ticks)) > 1e-3:
            raise WrongInput(
                f"data {name}: dt is {self.dt!r}; it must be seconds, in whole microseconds, or 0 to divide "
                "each recording into steps of equal length",
                option="dt",
            )
        if self.width % self.shrink or (self.height > 1 and self.height % self.shrink):
            size = f"{self.height}x{self.width} pixels" if self.height > 1 else f"{self.width} channels"
            raise WrongInput(
                f"data {name}: shrink is {self.shrink}, which does not divide {size}", option="shrink"
            )
        needed = 8 * samples * self.steps * prod(self.shape)
        if needed > BYTES_MAX:
            raise WrongInput(
                f"data {name}: {samples} recordings of {self.steps} steps of {prod(self.shape)} values take "
                f"{needed / 1e9:.1f} GB; at most {BYTES_MAX / 1e9:.1f} GB are allowed: use fewer steps, more "
                "shrink, or fewer samples",
                needed=needed,
                limit=BYTES_MAX,
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        """Polarities, rows and columns of a step."""
        rows = self.height // self.shrink if self.height > 1 else 1
        return self.polarities, rows, self.width // self.shrink

    def binned(self, recordings: Iterable[Events], samples: int) -> NDArray[Any]:
        """Return whole numbers (samples, steps, polarities, rows, columns).

        Raises WrongInput for events that are not on the sensor, and for a recording without events.
        """
        out = np.zeros((samples, self.steps, *self.shape), np.uint16)
        for row, events in zip(out, recordings, strict=True):
            step, inside = self._steps(events)
            place = self._places(events)
            cells = step[inside] * prod(self.shape) + place[inside]
            found = np.bincount(cells, minlength=row.size)
            row[...] = np.minimum(found, COUNT_MAX if self.counts else 1).reshape(row.shape)
        return out

    def _steps(self, events: Events) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        t = events.t
        if not t.size:
            raise WrongInput(
                f"{events.where}: holds no events, so there is nothing to classify; take it out of the "
                "data set",
                where=events.where,
            )
        if t.min() < 0 or t.max() >= SPAN_MAX_US:
            raise WrongInput(
                f"{events.where}: its events are from {t.min() / MICROSECONDS:.6g} to "
                f"{t.max() / MICROSECONDS:.6g} s; they must be from 0 to less than an hour",
                where=events.where,
            )
        if self.dt:
            step = t // round(self.dt * MICROSECONDS)
        else:
            step = t * self.steps // (t.max() + 1)
        return step, step < self.steps

    def _places(self, events: Events) -> NDArray[np.int64]:
        limits = {"x": (events.x, self.width), "y": (events.y, self.height), "p": (events.p, 2)}
        for axis, (values, limit) in limits.items():
            if values.size and not (values.min() >= 0 and values.max() < limit):
                worst = values.max() if values.max() >= limit else values.min()
                raise WrongInput(
                    f"{events.where}: an event has {axis} {worst}; it must be from 0 to {limit - 1}",
                    where=events.where,
                )
        _, rows, columns = self.shape
        row = events.y // self.shrink if self.height > 1 else events.y
        place = row * columns + events.x // self.shrink
        return place + events.p * rows * columns if self.polarities == 2 else place
