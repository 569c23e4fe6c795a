from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from snn_compile.runtime.execution.run import batch_size, simulate, simulate_batches
from snn_compile.targets.errors import DeviceError, WrongInput
from snn_compile.targets.program.program import Program


@pytest.fixture
def spikes() -> np.ndarray:
    return np.random.default_rng(0).random((13, 20, 10)) < 0.3


def test_batches_join_to_the_same_record(
    chain: Callable[..., Program], spikes: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = chain(12, 5)
    whole = simulate(program, spikes)
    monkeypatch.setattr("snn_compile.runtime.execution.run.batch_size", lambda *_: 4)
    seen: list[tuple[int, int]] = []
    parts = simulate_batches(program, spikes, observe=lambda *at: seen.append(at))
    assert seen == [(4, 13), (8, 13), (12, 13), (13, 13)]
    np.testing.assert_array_equal(parts.outputs, whole.outputs)
    np.testing.assert_array_equal(parts.predictions, whole.predictions)
    assert parts.ties == pytest.approx(whole.ties)
    assert parts.overflows == whole.overflows
    assert parts.counts is not None and whole.counts is not None
    for field in (
        "samples",
        "steps",
        "spikes",
        "synops",
        "updates",
        "active_updates",
        "input_messages",
        "drain_spikes",
        "drain_synops",
        "drain_updates",
    ):
        assert getattr(parts.counts, field) == getattr(whole.counts, field), field
    for name, expected in whole.counts.neuron_spikes.items():
        np.testing.assert_array_equal(parts.counts.neuron_spikes[name], expected)


def test_inputs_by_port(relay: Program, relay_inputs: np.ndarray) -> None:
    by_port = simulate_batches(relay, {"in": relay_inputs})
    np.testing.assert_array_equal(by_port.outputs, simulate(relay, relay_inputs).outputs)


def test_batch_size_keeps_memory(relay: Program, relay_inputs: np.ndarray) -> None:
    # 3 + 2 device steps of 2 int32 messages and 5 neurons at 5 bytes; a.v is 2 int32 more.
    assert batch_size(relay, relay_inputs, (), 10 * 5 * 33) == 10
    assert batch_size(relay, relay_inputs, ("a.v",), 10 * 5 * 41) == 10
    assert batch_size(relay, relay_inputs, (), 1) == 1


def test_threads_are_for_the_simulator(relay: Program, relay_inputs: np.ndarray) -> None:
    assert simulate(relay, relay_inputs, threads=2).samples == 2
    with pytest.raises(DeviceError, match="'oracle' takes no number of threads"):
        simulate(relay, relay_inputs, "oracle", threads=2)


@pytest.mark.parametrize("bad", [np.zeros((0, 3, 2)), np.zeros((2, 3, 5)), np.zeros(3), 1.0])
def test_bad_inputs_are_refused(relay: Program, bad: object) -> None:
    with pytest.raises(WrongInput, match="data of shape"):
        simulate_batches(relay, bad)  # type: ignore[arg-type]
