"""From raw results to a record: read-out, ties, logical time, and what `execute` refuses."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from support import comparing, random_programs

from snn_compile.targets.devices.device import execute, open_device
from snn_compile.targets.devices.record import Overflow, read_out
from snn_compile.targets.devices.registry import device_names
from snn_compile.targets.errors import DeviceError, WrongInput
from snn_compile.targets.program.program import OutputPort, Program

SIGNAL = np.array([[[1, 0, 0], [0, 1, 1], [0, 0, 1]], [[5, 5, 0], [9, 1, 2], [-3, -1, -2]]], np.int32)


@pytest.mark.parametrize(
    ("readout", "predictions", "ties"),
    [
        ("count", [2, 0], 0.0),
        ("mean", [2, 0], 0.0),
        ("last", [2, 1], 0.0),
        ("max", [0, 0], 0.5),
        ("per_step", [[0, 1, 2], [0, 0, 1]], 2 / 6),
    ],
)
def test_classification(readout: str, predictions: Any, ties: float) -> None:
    got, share = read_out(SIGNAL, readout, "classify")
    assert got.tolist() == predictions
    assert share == ties


@pytest.mark.parametrize(
    ("readout", "values"),
    [
        ("count", [[1, 1, 2], [11, 5, 0]]),
        ("mean", [[1 / 3, 1 / 3, 2 / 3], [11 / 3, 5 / 3, 0]]),
        ("last", [[0, 0, 1], [-3, -1, -2]]),
        ("max", [[1, 1, 1], [9, 5, 2]]),
        ("per_step", SIGNAL.tolist()),
    ],
)
def test_regression(readout: str, values: Any) -> None:
    got, share = read_out(SIGNAL, readout, "regress")
    assert got.tolist() == values
    assert share == 0.0


@pytest.mark.parametrize("readout", ["count", "mean", "max"])
@pytest.mark.parametrize("task", ["classify", "regress"])
def test_steps_left_out_might_as_well_not_have_been(readout: str, task: str) -> None:
    rng = np.random.default_rng(1)
    signal = rng.integers(-9, 9, (20, 7, 4))
    for skip in range(7):
        got, ties = read_out(signal, readout, task, skip)
        wanted = read_out(signal[:, skip:], readout, task)
        assert got.tolist() == wanted[0].tolist() and ties == wanted[1]
    assert read_out(signal, readout, task, 3)[0].tolist() != read_out(signal, readout, task)[0].tolist()
    with pytest.raises(WrongInput, match="leaves out the first 7 steps, and the run has 7"):
        read_out(signal, readout, task, 7)


def test_silence_is_a_tie_that_the_lowest_index_wins() -> None:
    got, share = read_out(np.zeros((4, 3, 10), np.uint8), "count", "classify")
    assert got.tolist() == [0] * 4
    assert share == 1.0


def test_counts_do_not_wrap_and_shapes_are_flattened() -> None:
    assert read_out(np.full((1, 300, 2), 1, np.uint8), "count", "regress")[0].tolist() == [[300, 300]]
    large = np.full((1, 3, 2, 2), (1 << 23) - 1, np.int32) * np.array([[1, 1], [1, 100]], np.int32)
    assert read_out(large, "count", "classify")[0].tolist() == [3]


def test_membranes_of_floats_keep_their_fractions() -> None:
    assert read_out(np.array([[[0.2, 0.3]]]), "last", "classify")[0].tolist() == [1]


def test_overflow_adds_and_is_true_if_any() -> None:
    assert not Overflow()
    for one in (Overflow(1, 0, 0), Overflow(0, 1, 0), Overflow(0, 0, 1)):
        assert one
    assert Overflow(1, 2, 3) + Overflow(10, 20, 30) == Overflow(11, 22, 33)


@pytest.fixture
def case() -> Any:
    """Return a program of two inputs, a hidden layer and an integrator."""
    for seed in range(1000):
        case = random_programs.case(seed)
        kinds = [p.model for p in case.program.populations]
        if len(case.program.inputs) == 2 and (kinds[0], kinds[-1]) == ("lif", "li"):
            return case
    raise AssertionError("no such program")


def test_the_record_is_in_logical_time() -> None:
    # A program whose start steps and edges to them are all one later does the same in its record.
    seen = 0
    for seed in range(40):
        case = random_programs.case(seed, random_programs.SHORT)
        program = case.program
        later = Program(
            program.chip,
            program.chip_version,
            tuple(replace(p, start_step=p.start_step + 1) for p in program.populations),
            program.projections,
            tuple(replace(p, start_step=p.start_step + 1) for p in program.inputs),
            program.outputs,
            period=program.period,
        )
        first, second = (comparing.run_all(p, case.inputs, "oracle") for p in (program, later))
        assert second.latency_steps == first.latency_steps + 1
        a, b = comparing.traces(first), comparing.traces(second)
        assert all(np.array_equal(a[key], b[key]) for key in a), seed
        assert np.array_equal(first.outputs, second.outputs)
        seen += first.counts.total_spikes > 0
    assert seen > 20


def test_outputs_are_the_port_s_signal(case: Any) -> None:
    record = comparing.run_all(case.program, case.inputs, "loihi2-sim")
    name = case.program.populations[0].name
    for signal, wanted in (("spikes", record.spikes(name)), ("membrane", record.states(f"{name}.v"))):
        port = OutputPort("out", name, signal)
        read = execute(replace(case.program, outputs=(port,)), case.inputs)
        assert np.array_equal(read.outputs, wanted)
        assert read.predictions.tolist() == wanted.astype(int).sum(axis=1).argmax(axis=-1).tolist()


def test_a_record_says_what_it_was_not_asked_for(case: Any) -> None:
    record = execute(case.program, case.inputs, probes=("pop0.u",))
    assert record.device == "loihi2-sim" and record.digest == case.program.digest()
    with pytest.raises(WrongInput, match=r"spikes of 'pop0' were not recorded; run with record="):
        record.spikes("pop0")
    with pytest.raises(WrongInput, match=r"state 'pop0.v' was not probed.*Probed: \['pop0.u'\]"):
        record.states("pop0.v")


def test_execute_names_what_does_not_fit(case: Any) -> None:
    program, inputs = case.program, case.inputs
    first = inputs["in0"]
    integrator = program.populations[-1].name
    for arguments, message in (
        ({"record": ("z",)}, "no population 'z'; there are pop0"),
        ({"record": (integrator,)}, f"'{integrator}' never spikes; probe '{integrator}.v' instead"),
        ({"probes": ("z.v",)}, "no population 'z'"),
        ({"probes": ("pop0.w",)}, "probe 'pop0.w': states are pop0.u and pop0.v"),
        ({"inputs": first}, r"several inputs \(in0, in1\); give a mapping"),
        ({"inputs": {"in0": first}}, r"inputs \['in0'\] given; the program has \['in0', 'in1'\]"),
        ({"inputs": {**inputs, "in0": first[:, 1:]}}, "differ in their number of samples or steps"),
    ):
        with pytest.raises(WrongInput, match=message):
            execute(program, **({"inputs": inputs} | arguments))


def test_clipped_messages_are_counted(case: Any) -> None:
    port = replace(case.program.inputs[0], kind="graded", bits=2, signed=False)
    program = replace(case.program, inputs=(port, case.program.inputs[1]))
    inputs = dict(case.inputs, in0=np.full(case.inputs["in0"].shape, 3))
    inputs["in0"][0, :2, 0] = (4, -1)
    assert execute(program, inputs).input_clipped == 2


def test_unknown_device_lists_the_names() -> None:
    with pytest.raises(DeviceError, match=f"unknown device 'gpu'; devices are: {device_names()[0]}"):
        open_device("gpu")


def test_a_run_beyond_memory_is_told(case: Any) -> None:
    class Full:
        name = "full"

        def run(self, *_: Any) -> Any:
            raise MemoryError("Unable to allocate 43.2 GiB")

    with pytest.raises(WrongInput, match="do not fit in memory .*43.2 GiB.*run fewer"):
        execute(case.program, case.inputs, Full())
