"""Threshold crossings of a finely stepped run: their speeds, and near misses."""

from __future__ import annotations

from dataclasses import dataclass
from math import nan

import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.float64]

TANGENTIAL = 0.1
"""A crossing is near-tangential below this fraction of the median crossing speed."""


@dataclass(frozen=True)
class Crossings:
    """Summary of the reference's threshold crossings; speeds in thresholds per dt.

    `smooth`: spikes whose crossing the membrane's rise announces; the others come with an input's jump.
    `tangential`: fraction of the smooth ones that cross at less than `TANGENTIAL` of the median speed.
    `near_misses`: maxima below the threshold by less than that speed climbs in one dt, per spike.
    """

    spikes: int
    smooth: int
    median_speed: float
    tangential: float
    near_misses: float


class Watch:
    """Collects the threshold crossings of a fine run."""

    def __init__(self, steps_a_dt: float) -> None:
        self.scale = steps_a_dt
        self.spikes = 0
        self.speeds: list[Float] = []
        self.gaps: list[Float] = []

    def add(self, v: Float, fired: npt.NDArray[np.bool_], threshold: Float) -> None:
        """Take membranes (batch, steps, size), shifted so that the reset is to 0, and their spikes."""
        self.spikes += int(fired.sum())
        level = np.broadcast_to(threshold, v.shape[2:])
        if v.shape[1] < 4 or not (level > 0).all():
            return
        share = v / level
        rise = share[:, 1:-1] - share[:, :-2]
        calm = ~(fired[:, 1:-1] | fired[:, :-2])
        at = fired[:, 2:] & calm
        near = share[:, 1:-1][at] + 3 * rise[at] >= 1
        self.speeds.append(rise[at][near & (rise[at] > 0)] * self.scale)
        top = calm & ~fired[:, 2:] & (rise > 0) & (share[:, 2:] <= share[:, 1:-1]) & (share[:, 1:-1] > 0.5)
        self.gaps.append(1 - share[:, 1:-1][top])

    def crossings(self) -> Crossings:
        """Return the summary of what was added."""
        speeds = np.concatenate(self.speeds) if self.speeds else np.zeros(0)
        gaps = np.concatenate(self.gaps) if self.gaps else np.zeros(0)
        if not len(speeds):
            return Crossings(self.spikes, 0, nan, nan, nan)
        median = float(np.median(speeds))
        return Crossings(
            self.spikes,
            len(speeds),
            median,
            float((speeds < TANGENTIAL * median).mean()),
            float((gaps < TANGENTIAL * median).sum() / max(self.spikes, 1)),
        )
