from __future__ import annotations

from dataclasses import fields, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from support import random_programs

from snn_compile.runtime.execution.run import simulate
from snn_compile.runtime.execution.session import open_session
from snn_compile.targets.errors import DeviceError, WrongInput
from snn_compile.targets.oracle.device import Oracle
from snn_compile.targets.program.program import Program

DEVICES = ("loihi2-sim", "oracle", "lava-stepped")
SEEDS = range(7300, 7340)


def same_counts(left: Any, right: Any) -> None:
    for field in fields(left):
        a, b = getattr(left, field.name), getattr(right, field.name)
        if field.name == "neuron_spikes":
            assert a.keys() == b.keys()
            for name in a:
                np.testing.assert_array_equal(a[name], b[name])
        else:
            assert a == b, field.name


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    if request.param == "lava-stepped":
        pytest.importorskip("lava", reason="lava-nc is not installed")
    return str(request.param)


def cases(device: str) -> list[Any]:
    """Return random programs of all models; a few suffice where another test compares the devices."""
    limits = (random_programs.SHORT, random_programs.SHORT_OTHERS)
    seeds = SEEDS if device == "loihi2-sim" else SEEDS[:12]
    return [random_programs.case(seed, limits[seed % 2]) for seed in seeds]


def test_a_call_is_a_sample(device: str) -> None:
    for case in cases(device):
        whole = simulate(case.program, case.inputs, device)
        session = open_session(case.program, device)
        for sample in range(whole.samples):
            answer = session.step({name: data[sample] for name, data in case.inputs.items()})
            np.testing.assert_array_equal(answer.outputs, whole.outputs[sample], str(case.seed))
            np.testing.assert_array_equal(answer.prediction, whole.predictions[sample], str(case.seed))
        totals = session.totals()
        same_counts(totals.counts, whole.counts)
        assert totals.overflows == whole.overflows
        assert totals.calls == whole.samples and totals.input_clipped == whole.input_clipped
        assert totals.ties == pytest.approx(whole.ties * whole.samples)


def test_steps_left_out_are_those_of_a_sample_and_none_of_a_part() -> None:
    answered = 0
    for case in cases("oracle"):
        port = case.program.outputs[0]
        steps = len(next(iter(case.inputs.values()))[0])
        if port.readout not in ("count", "mean", "max") or steps < 4:
            continue
        program = replace(case.program, outputs=(replace(port, skip=steps - 2), *case.program.outputs[1:]))
        whole = simulate(program, case.inputs, "oracle")
        one = {name: data[0] for name, data in case.inputs.items()}
        session = open_session(program, "oracle")
        np.testing.assert_array_equal(session.step(one).prediction, whole.predictions[0])
        with pytest.raises(WrongInput, match=f"leaves out the first {steps - 2} steps"):
            session.step({name: data[:2] for name, data in one.items()})
        np.testing.assert_array_equal(session.step(one).prediction, whole.predictions[0])
        assert session.totals().calls == 2
        parts = open_session(program, "oracle", continuous=True)
        for t in range(steps):
            parts.step({name: data[t : t + 1] for name, data in one.items()})
        assert parts.totals().calls == steps
        answered += 1
    assert answered > 2


def test_a_continuous_session_is_one_sample_in_parts(device: str) -> None:
    behind = 0
    for case in cases(device):
        session = open_session(case.program, device, continuous=True)
        lag = session.lag_steps
        rng = np.random.default_rng(case.seed)
        for sample in range(len(next(iter(case.inputs.values())))):
            one = {name: data[sample] for name, data in case.inputs.items()}
            steps = len(next(iter(one.values())))
            cuts = np.unique([0, *rng.integers(0, steps, 3), steps])
            outputs = np.concatenate(
                [
                    session.step({name: data[a:b] for name, data in one.items()}).outputs
                    for a, b in zip(cuts, cuts[1:], strict=False)
                ]
            )
            session.reset()
            whole = simulate(case.program, {name: data[None] for name, data in one.items()}, device)
            np.testing.assert_array_equal(outputs[lag:], whole.outputs[0, : steps - lag], str(case.seed))
            behind += lag > 0
        whole = simulate(case.program, case.inputs, device)
        totals = session.totals()
        same_counts(totals.counts, whole.counts)
        assert totals.overflows == whole.overflows
    assert behind > 5  # or nothing about the lag would have been tested


def test_nothing_is_loaded_again(relay: Program, relay_inputs: np.ndarray) -> None:
    class Counted:
        name = "counted"
        opened = 0

        def open(self, program: Program, probes: Any = ()) -> Any:
            self.opened += 1
            return Oracle().open(program, probes)

    device = Counted()
    session = open_session(relay, device)  # type: ignore[arg-type]
    for _ in range(3):
        session.step(relay_inputs[0])
    session.reset()
    session.step(relay_inputs[1])
    assert device.opened == 1 and session.totals().calls == 4


def test_calls_of_other_lengths_are_counted(relay: Program, relay_inputs: np.ndarray) -> None:
    session = open_session(relay)
    parts = [relay_inputs[0], relay_inputs[1, :2], relay_inputs[1]]
    for part in parts:
        session.step(part)
    counts = session.totals().counts
    assert counts is not None and counts.samples == 3
    alone = [simulate(relay, part[None]).counts for part in parts]
    assert counts.total_synops == sum(each.total_synops for each in alone if each is not None)


def test_what_does_not_fit_is_refused(relay: Program) -> None:
    session = open_session(relay)
    with pytest.raises(WrongInput, match=r"data of shape \(1, 3, 5\)"):
        session.step(np.zeros((3, 5)))
    with pytest.raises(WrongInput, match=r"the program has \['in'\]"):
        session.step({"other": np.zeros((3, 2))})
    whole = SimpleNamespace(name="whole", run=Oracle().run)
    with pytest.raises(DeviceError, match="'whole' runs whole samples only; loihi2-sim, oracle and lava-"):
        open_session(relay, whole)  # type: ignore[arg-type]
    assert session.totals().counts is None
