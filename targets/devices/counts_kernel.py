"""The kernel of the counts: which neurons were reached by a synop in which step."""

from __future__ import annotations

from typing import Any

from numba import njit


@njit(nogil=True, cache=True)
def mark_reached(reached: Any, masks: Any, row_starts: Any, neurons: Any, steps: int, late: int) -> None:
    """OR each event's bit mask of reached targets (source, words) into row + late of `reached`.

    Rows are sample * steps + step; what would arrive after the last step is dropped.
    """
    words = masks.shape[1]
    for row in range(row_starts.size - 1):
        if row % steps + late >= steps:
            continue
        for k in range(row_starts[row], row_starts[row + 1]):
            source = neurons[k]
            for w in range(words):
                reached[row + late, w] |= masks[source, w]
