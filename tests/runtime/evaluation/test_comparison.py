from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from typing import Any

import numpy as np
import pytest

from snn_compile import runtime
from snn_compile.runtime.evaluation.compare import check, compare, first_difference, report
from snn_compile.targets.devices.events import SpikeEvents
from snn_compile.targets.devices.record import DeviceRun, RunRecord
from snn_compile.targets.errors import WrongInput
from snn_compile.targets.oracle.device import Oracle
from snn_compile.targets.program.program import Population, Program

PROBES = ("a.u", "a.v", "b.u", "b.v")


@pytest.fixture
def record(relay: Program, relay_inputs: np.ndarray) -> RunRecord:
    return runtime.simulate(relay, relay_inputs, "oracle", record=("a", "b"), probes=PROBES)


def with_state(record: RunRecord, name: str, *changes: tuple[int, int, int]) -> RunRecord:
    """Change a state at (sample, step, neuron)."""
    array = record.state_arrays[name].copy()
    for at in changes:
        array[at] += 1
    return replace(record, device="other", state_arrays={**record.state_arrays, name: array})


def without_spikes(record: RunRecord, name: str, sample: int, step: int) -> RunRecord:
    dense = record.spike_events[name].dense()
    dense[sample, step] = 0
    events = {**record.spike_events, name: SpikeEvents.from_dense(dense)}
    return replace(record, device="other", spike_events=events)


def test_equal_records_have_no_difference(relay: Program, record: RunRecord) -> None:
    assert first_difference(record, record, relay) is None


def test_difference_names_the_place_and_both_values(relay: Program, record: RunRecord) -> None:
    found = first_difference(record, with_state(record, "b.v", (1, 2, 2), (1, 2, 1)), relay)
    assert found is not None
    assert (found.step, found.population, found.neuron, found.sample) == (2, "b", 1, 1)
    value = int(record.state_arrays["b.v"][1, 2, 1])
    assert (found.item, found.values) == ("v", (value, value + 1))
    assert (found.differing, found.compared) == (2, 2 * 3 * (2 + 3) * 3)
    text = str(found)
    assert "step 2, population 'b', neuron 1, sample 1" in text
    assert f"v is {value} on oracle and {value + 1} on other" in text
    body = found.json()
    assert (body["devices"], body["values"]) == (["oracle", "other"], [value, value + 1])


def test_earliest_step_wins_then_the_order_of_populations(relay: Program, record: RunRecord) -> None:
    late_a = with_state(record, "a.u", (0, 2, 0))
    early_b = with_state(late_a, "b.u", (1, 1, 0))
    found = first_difference(record, early_b, relay)
    assert found is not None and (found.population, found.step) == ("b", 1)
    both = with_state(early_b, "a.v", (1, 1, 1))
    found = first_difference(record, both, relay)
    assert found is not None and (found.population, found.item, found.neuron) == ("a", "v", 1)


def test_states_come_before_the_spikes_they_cause(relay: Program, record: RunRecord) -> None:
    silent = without_spikes(record, "a", 0, 0)
    found = first_difference(record, silent, relay)
    assert found is not None and (found.item, found.values) == ("spike", (1, 0))
    found = first_difference(record, with_state(silent, "a.v", (0, 0, 1)), relay)
    assert found is not None and found.item == "v"


def test_records_must_be_comparable(relay: Program, relay_inputs: np.ndarray, record: RunRecord) -> None:
    shorter = runtime.simulate(relay, relay_inputs[:, :2], "oracle", probes=PROBES)
    with pytest.raises(WrongInput, match="2 samples x 3 steps and 2 x 2"):
        first_difference(record, shorter, relay)
    with pytest.raises(WrongInput, match="share no recorded spikes"):
        first_difference(record, runtime.simulate(relay, relay_inputs), relay)


class Faulty:
    """The oracle, one too high in one state of one sample it is given at that position."""

    name = "faulty"

    def __init__(self, state: str, sample: int, device_step: int, neuron: int) -> None:
        self.state, self.at, self.calls = state, (sample, device_step, neuron), 0

    def run(
        self, program: Program, messages: Mapping[str, np.ndarray], device_steps: int, probes: Sequence[str]
    ) -> DeviceRun:
        run = Oracle().run(program, messages, device_steps, probes)
        self.calls += 1
        if self.calls == 2:
            run.states[self.state][self.at] += 1
        return run


def test_check_finds_a_fault_in_a_later_batch(
    relay: Program, relay_inputs: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As an attribute of the package, `compare` is the function.
    module = import_module("snn_compile.runtime.evaluation.compare")
    monkeypatch.setattr(module, "batch_size", lambda *_: 8)
    inputs = np.tile(relay_inputs, (3, 1, 1))
    # b starts at device step 2, so device step 4 is its logical step 2; batches are of 2 samples.
    outcome = check(relay, inputs, Faulty("b.v", 1, 4, 2), "oracle")
    assert outcome.difference is not None
    found = outcome.difference
    assert (found.sample, found.step, found.population, found.neuron) == (3, 2, "b", 2)
    assert (outcome.samples, outcome.values) == (6, 6 * 3 * 5 * 3)
    assert (found.differing, found.compared) == (1, outcome.values)
    assert outcome.json()["equal"] is False


def test_check_of_equal_devices(chain: Callable[..., Program]) -> None:
    program = chain(20, 6)
    spikes = np.random.default_rng(1).random((5, 12, 10)) < 0.3
    outcome = check(program, spikes, "loihi2-sim", "oracle", threads=2)
    assert outcome.difference is None
    assert "equal on 5 samples, 4680 values" in str(outcome)
    whole = runtime.simulate(program, spikes)
    np.testing.assert_array_equal(outcome.record.outputs, whole.outputs)
    assert outcome.record.counts is not None and whole.counts is not None
    assert outcome.record.counts.synops == whole.counts.synops


def as_reference(record: RunRecord, predictions: np.ndarray) -> RunRecord:
    return replace(record, device="reference", counts=None, predictions=predictions)


def test_compare_runs_program_and_network(
    relay: Program, relay_inputs: np.ndarray, record: RunRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_reference(network: Any, inputs: Any, record: Any, probes: Any) -> RunRecord:
        assert network == "network" and np.shape(inputs) == (2, 3, 2)
        return as_reference(ideal, np.array([1, 0]))

    ideal = record
    monkeypatch.setattr("snn_compile.compiler.reference.run_reference", run_reference)
    made = compare(relay, "network", relay_inputs, [1, 1])  # type: ignore[arg-type]
    assert made.accuracy is not None
    # Both samples: b0 and b1 spike; b1 most often, or as often as b0, then b0 wins the tie.
    assert made.accuracy.deployed == 0.5 and made.accuracy.reference == 0.5
    assert (made.samples, made.steps, made.latency_steps) == (2, 3, 2)
    assert made.agreement == 1.0 and made.ties == 0.5


def test_report_without_labels_or_reference(relay: Program, record: RunRecord) -> None:
    made = report(relay, record)
    assert made.accuracy is None and made.agreement is None
    assert made.counts.total_synops == 13
    alone = report(relay, record, [1, 1])
    assert alone.accuracy is not None and alone.accuracy.drop is None
    with pytest.raises(WrongInput, match="without counts"):
        report(relay, as_reference(record, record.predictions))
    with pytest.raises(WrongInput, match="was it compiled from this model"):
        report(relay, record, [1, 1], as_reference(record, np.zeros((2, 3), int)))


@pytest.mark.parametrize(
    ("labels", "message"),
    [([1], "1 labels for 2 samples"), ([0, 3], "has 3 classes"), ([0, -1], "from -1 to 0")],
)
def test_labels_must_fit(relay: Program, relay_inputs: np.ndarray, labels: list[int], message: str) -> None:
    with pytest.raises(WrongInput, match=message):
        compare(relay, None, relay_inputs, labels)


def test_regression_has_no_accuracy(
    relay: Program, relay_inputs: np.ndarray, lif: Callable[..., Population]
) -> None:
    port = replace(relay.outputs[0], task="regress", signal="membrane", readout="last")
    made = compare(replace(relay, outputs=(port,)), None, relay_inputs, np.zeros((2, 3)))
    assert made.accuracy is None and made.ties is None
