"""Spikes as events: the same spikes whichever way they are held."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from snn_compile.targets.devices.events import SpikeEvents

RASTERS = hnp.arrays(
    np.int8, hnp.array_shapes(min_dims=3, max_dims=3, max_side=6), elements=st.integers(-1, 2)
)


@given(RASTERS)
def test_dense_and_back(spikes: Any) -> None:
    events = SpikeEvents.from_dense(spikes)
    assert np.array_equal(events.dense(), spikes != 0)
    assert events.count == np.count_nonzero(spikes)
    batch, steps, size = spikes.shape
    assert (events.batch, events.steps, events.size) == (batch, steps, size)
    assert events.row_starts.dtype == np.int64 and events.neurons.dtype == np.int32
    for row in range(batch * steps):
        listed = events.neurons[events.row_starts[row] : events.row_starts[row + 1]]
        assert listed.tolist() == np.flatnonzero(spikes[row // steps, row % steps]).tolist()
    samples, times, neurons = np.nonzero(spikes)
    assert events.rows.tolist() == (samples * steps + times).tolist()
    assert events.neurons.tolist() == neurons.tolist()


@given(RASTERS, st.data())
def test_window(spikes: Any, drawn: st.DataObject) -> None:
    start = drawn.draw(st.integers(0, spikes.shape[1]))
    stop = drawn.draw(st.integers(start, spikes.shape[1]))
    window = SpikeEvents.from_dense(spikes).window(start, stop)
    cut = SpikeEvents.from_dense(spikes[:, start:stop])
    assert (window.batch, window.steps, window.size) == (cut.batch, cut.steps, cut.size)
    assert window.row_starts.tolist() == cut.row_starts.tolist()
    assert window.neurons.tolist() == cut.neurons.tolist()


@pytest.mark.parametrize("fill", [0, 1])
def test_nothing_and_everything(fill: int) -> None:
    spikes = np.full((2, 3, 4), fill, np.uint8)
    assert SpikeEvents.from_dense(spikes).count == 24 * fill
    assert np.array_equal(SpikeEvents.from_dense(spikes).dense(), spikes)
