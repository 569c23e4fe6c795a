"""The oracle against values measured on Lava 0.10.0, and what it refuses when strict."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

from snn_compile.targets.devices.device import execute
from snn_compile.targets.errors import DeviceError
from snn_compile.targets.program.program import (
    InputPort,
    OutputPort,
    Population,
    Program,
    Projection,
    WeightTable,
)

M_IN = 1 << 17
GOLDEN_A = [
    M_IN - 1,
    M_IN,
    M_IN + 1,
    -M_IN + 1,
    -M_IN,
    -M_IN - 1,
    2 * M_IN,
    2 * M_IN + 5,
    3 * M_IN,
    4 * M_IN,
    -2 * M_IN,
    -3 * M_IN,
    1 << 24,
    1 << 25,
    (1 << 25) + 3,
]
GOLDEN_U = [
    8388544,
    8388608,
    -8388544,
    -8388544,
    8388608,
    8388544,
    0,
    320,
    8388608,
    16777216,
    0,
    -8388608,
    1056964608,
    -2130706432,
    -2130706240,
]
GOLDEN_S = [0, 1, 0, 0, 1, 0, 0, 0, 1, 1, 0, 0, 1, 0, 0]


@pytest.fixture(params=["oracle", "loihi2-sim"])
def device(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def one_to_one(
    size: int = 1,
    delay: int = 0,
    reset: str = "value",
    start: int = 1,
    model: str = "lif",
    output: str = "spikes",
    **registers: Any,
) -> Program:
    """Return `size` neurons; each receives 4 * a first and a second graded message."""
    values = {"du": 4095, "dv": 0, "vth": 131071, "bias_mant": 0, "bias_exp": 0, "v_init": 0} | registers
    if model == "li":
        del values["vth"]
    eye = np.eye(size, dtype=np.int64)
    table = WeightTable(np.hstack([4 * eye, eye]), 0, 8, "excitatory", 24)
    return Program(
        "loihi2",
        2,
        (Population("n", (size,), model, {k: np.atleast_1d(v) for k, v in values.items()}, reset, start),),
        (Projection("p", "x", "n", (table,), delay),),
        (InputPort("x", (2 * size,), kind="graded", bits=24, signed=True),),
        (OutputPort("y", "n", output),),
    )


def run(program: Program, drive: Any, device: str, **options: Any) -> dict[str, list[Any]]:
    """Drive with (steps, size) sums; return u, v and spikes of the steps, per neuron if there is one."""
    sums = np.atleast_2d(np.asarray(drive, np.int64))
    sums = sums.T if len(sums) == 1 and program.population("n").size == 1 else sums
    inputs = np.hstack([sums >> 2, sums & 3])[None]
    spiking = program.population("n").spiking
    record = execute(
        program, inputs, device, probes=("n.u", "n.v"), record=("n",) if spiking else (), **options
    )
    found = {"u": record.states("n.u"), "v": record.states("n.v")}
    if spiking:
        found["s"] = record.spikes("n")
    return {key: np.squeeze(array[0]).tolist() for key, array in found.items()}


def test_golden_vector_of_lava(device: str) -> None:
    found = run(one_to_one(len(GOLDEN_A)), [GOLDEN_A], device)
    assert found["u"] == GOLDEN_U
    assert found["s"] == GOLDEN_S


@pytest.mark.parametrize("sign", [1, -1])
def test_decay_rounds_toward_zero(device: str, sign: int) -> None:
    found = run(one_to_one(du=2047), [sign, 0, 0, 0, 0], device)
    assert found["u"] == [sign * x for x in (64, 32, 16, 8, 4)]


def test_a_spike_needs_more_than_the_threshold(device: str) -> None:
    found = run(one_to_one(2, vth=1, bias_mant=np.array([0, 1])), [[1, 1]], device)
    assert (found["v"], found["s"]) == ([64, 0], [0, 1])


def test_the_threshold_at_its_end_is_just_reached(device: str) -> None:
    found = run(one_to_one(2, bias_mant=np.array([0, 1])), [[M_IN - 1, M_IN - 1]], device)
    assert (found["v"], found["s"]) == ([131071 * 64, 0], [0, 1])


@pytest.mark.parametrize(
    ("reset", "v"),
    [("value", [64, 128, 0, 64]), ("subtract", [64, 128, 64, 128]), ("none", [64, 128, 192, 256])],
)
def test_resets(device: str, reset: str, v: list[int]) -> None:
    found = run(one_to_one(vth=2, reset=reset), [1, 1, 1, 1], device)
    assert found["v"] == v
    assert found["s"] == [0, 0, 1, int(reset == "none")]
    assert found["u"] == [64] * 4, "a reset leaves u alone"


@pytest.mark.parametrize("delay", [0, 1, 5, 62])
def test_a_message_arrives_after_one_step_and_the_delay(device: str, delay: int) -> None:
    found = run(one_to_one(delay=delay, start=0), [1] + [0] * 66, device)
    assert found["u"] == [0] * (delay + 1) + [64] + [0] * (65 - delay)


def test_a_population_is_inert_before_its_start_step(device: str) -> None:
    # Logical step 0 is the first: no bias was added and nothing decayed before it.
    found = run(one_to_one(delay=5, start=6, v_init=1000, bias_mant=7, dv=4095), [0, 0], device)
    assert found["v"] == [1000 // 4096 + 7, 7]
    found = run(one_to_one(delay=5, start=6, v_init=1000, bias_mant=7), [2, 0], device)
    assert found["v"] == [1000 + 128 + 7, 1000 + 128 + 14]


def test_bias_is_in_membrane_units_and_each_neuron_has_its_own(device: str) -> None:
    program = one_to_one(3, bias_mant=np.array([-3, 5, 5]), bias_exp=np.array([0, 1, 7]))
    assert run(program, [[0, 0, 0]], device)["v"] == [-3, 10, 640]


def test_a_leaky_integrator_never_spikes_and_saturates(device: str) -> None:
    program = one_to_one(model="li", output="membrane", v_init=8388607, bias_mant=1)
    assert run(program, [0, 0, -(M_IN - 1)], device)["v"] == [8388607, 8388607, 64]


@pytest.mark.parametrize(
    ("drive", "counters"),
    [
        ([M_IN + 1], {"u_wraps": 1}),
        ([M_IN - 1, M_IN - 1], {"v_high": 1}),
        ([-M_IN + 1, -M_IN + 1], {"v_low": 1}),
    ],
)
def test_strict_names_what_left_its_range(drive: list[int], counters: dict[str, int]) -> None:
    program = one_to_one(reset="none")
    with pytest.raises(DeviceError, match="'n' left its 24-bit range at device step") as caught:
        run(program, drive, "oracle", strict=True)
    assert caught.value.population == "n"
    assert caught.value.step == len(drive)
    inputs = np.array([[[a >> 2, a & 3] for a in drive]])
    overflow = vars(execute(program, inputs, "oracle").overflows["n"])
    assert {name: n for name, n in overflow.items() if n} == counters
    assert pickle.loads(pickle.dumps(caught.value)).step == len(drive)


def test_strict_says_nothing_at_the_last_values_in_range() -> None:
    found = run(
        one_to_one(2, reset="none", bias_mant=np.array([63, -63])),
        [[M_IN - 1, 1 - M_IN]],
        "oracle",
        strict=True,
    )
    assert found["v"] == [8388607, -8388607]
