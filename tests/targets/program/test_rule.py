"""The words of a rule, and each rule against numbers worked out by hand on both of our devices."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from snn_compile.targets.devices.device import execute
from snn_compile.targets.errors import DeviceError, SnnCompileError
from snn_compile.targets.program.population import Population
from snn_compile.targets.program.program import InputPort, OutputPort, Program, Projection
from snn_compile.targets.program.rule import CHOICES, Rule
from snn_compile.targets.program.weights import WeightTable


def test_the_first_words_are_stock() -> None:
    assert Rule() == Rule(*(words[0] for words in CHOICES.values()))
    for key, words in CHOICES.items():
        for word in words[1:]:
            options = {"reset": "subtract"} if word == "pending" else {}
            assert Rule(**{**options, key: word}).stock == (key == "reset")


@pytest.mark.parametrize("key", CHOICES)
def test_an_unknown_word_is_refused_with_the_known_ones(key: str) -> None:
    with pytest.raises(SnnCompileError, match=f"{key} is 'other'; use one of {CHOICES[key][0]}, ") as caught:
        Rule(**{key: "other"})
    assert (caught.value.item, caught.value.value) == (key, "other")


@pytest.mark.parametrize("wrong", [{"reset": "value"}, {"reset": "subtract", "spikes_per_step": "floor"}])
def test_pending_is_for_single_spikes_that_subtract(wrong: dict[str, str]) -> None:
    with pytest.raises(SnnCompileError, match="'pending' exists for single spikes that subtract"):
        Rule(reset_timing="pending", **wrong)


def drive(
    sums: list[int], device: str = "oracle", model: str = "lif", strict: bool = False, **options: Any
) -> dict[str, list[int]]:
    """Drive one neuron with `sums`, in units of 64; return u and v in these units, and messages."""
    registers = {"du": 4095, "dv": 0} | ({"vth": 10} if model == "lif" else {})
    registers |= {key: options.pop(key) for key in list(options) if key in ("du", "dv", "vth", "v_min")}
    registers["v_init"] = 64 * options.pop("v_init", 0)
    neuron = Population("n", (1,), model, registers, start_step=1, **options)
    wire = WeightTable(np.ones((1, 1), np.int64), 0, 8, "excitatory", 24)
    program = Program(
        "loihi2",
        2,
        (neuron,),
        (Projection("p", "x", "n", (wire,)),),
        (InputPort("x", (1,), "graded", bits=24, signed=True),),
        (OutputPort("y", "n", "membrane"),),
    )
    options = {"strict": True} if strict else {}
    record = execute(
        program,
        np.array(sums)[None, :, None],
        device,
        record=("n",) if model == "lif" else (),
        probes=("n.u", "n.v"),
        **options,
    )
    found = {key: (record.states(f"n.{key}")[0, :, 0] / 64).tolist() for key in "uv"}
    found["n"] = record.spikes("n")[0, :, 0].tolist() if model == "lif" else []
    return found


TRACES: dict[str, tuple[dict[str, Any], list[int], list[float], list[int]]] = {
    # name: rule, input, membrane at the end of each step, spikes
    "same_step": ({}, [11, 3, 3], [0, 3, 6], [1, 0, 0]),
    "next_before value": ({"reset_timing": "next_before"}, [11, 3, 3], [11, 3, 6], [1, 0, 0]),
    "next_after value": ({"reset_timing": "next_after"}, [11, 3, 3], [11, 0, 3], [1, 0, 0]),
    "next_before subtract": (
        {"reset": "subtract", "reset_timing": "next_before"},
        [25, 0, 0, 0],
        [25, 15, 5, 5],
        [1, 1, 0, 0],
    ),
    "next_before subtract, decay": (
        # The threshold is taken off before the decay.
        {"reset": "subtract", "reset_timing": "next_before", "dv": 2048},
        [18, 0],
        [18, 4],
        [1, 0],
    ),
    "next_after subtract, decay": (
        # An undecayed threshold is taken off after the decay.
        {"reset": "subtract", "reset_timing": "next_after", "dv": 2048},
        [18, 0],
        [18, -1],
        [1, 0],
    ),
    "next_after at the threshold of two": (
        {"reset": "subtract", "reset_timing": "next_after"},
        [11, 9, 1],
        [11, 10, 11],
        [1, 0, 1],
    ),
    "pending": (
        # 25 - 10 leaves 15, past the threshold: to spike again the membrane must pass 20.
        {"reset": "subtract", "reset_timing": "pending"},
        [25, 5, 6, 0],
        [15, 20, 16, 16],
        [1, 0, 1, 0],
    ),
    "pending at 2 thresholds": (
        {"reset": "subtract", "reset_timing": "pending", "comparison": ">="},
        [20, 9, 1, 0],
        [10, 19, 10, 10],
        [1, 0, 1, 0],
    ),
    "pending from the start": (
        {"reset": "subtract", "reset_timing": "pending", "v_init": 15},
        [0, 6],
        [15, 11],
        [0, 1],
    ),
    "no spike before the first step": (
        {"reset_timing": "next_before", "v_init": 15},
        [1, 1],
        [16, 1],
        [1, 0],
    ),
    ">": ({}, [10, 1], [10, 0], [0, 1]),
    ">=": ({"comparison": ">="}, [10, 1], [0, 1], [1, 0]),
    "floor >=": (
        {"comparison": ">=", "spikes_per_step": "floor", "reset": "subtract"},
        [9, 1, 29, 1],
        [9, 0, 9, 0],
        [0, 1, 2, 1],
    ),
    "floor >": (
        {"spikes_per_step": "floor", "reset": "subtract"},
        [10, 0, 10, 1],
        [10, 10, 10, 1],
        [0, 0, 1, 1],
    ),
    "floor of several, value": ({"spikes_per_step": "floor"}, [35, 4], [0, 4], [3, 0]),
    "floor, next_before": (
        {"spikes_per_step": "floor", "reset": "subtract", "reset_timing": "next_before"},
        [35, 0],
        [35, 5],
        [3, 0],
    ),
    "none": ({"reset": "none", "reset_timing": "next_after"}, [11, -11, 0], [11, 0, 0], [1, 0, 0]),
    "membrane_first": ({"update_order": "membrane_first"}, [7, 8, 0], [0, 7, 0], [0, 0, 1]),
    "decay after": ({"current_decay": "after", "du": 2047}, [4, 0, 0], [4, 6, 7], [0, 0, 0]),
    "decay before": ({"du": 2047}, [4, 0, 0], [4, 6, 7], [0, 0, 0]),
    "membrane_first, decay after": (
        {"update_order": "membrane_first", "current_decay": "after", "du": 2047},
        [4, 0, 0],
        [0, 2, 3],
        [0, 0, 0],
    ),
    "v_min": ({"v_min": -128}, [-9, 1, 9], [-2, -1, 8], [0, 0, 0]),
    "v_min after the reset": ({"v_min": 128, "reset": "value"}, [-9, 9, 5], [2, 2, 7], [0, 1, 0]),
    "dv 4096 forgets": ({"dv": 4096}, [9, 9, 0], [9, 9, 0], [0, 0, 0]),
}


@pytest.mark.parametrize("device", ["oracle", "loihi2-sim"])
@pytest.mark.parametrize("name", TRACES)
def test_a_rule_by_hand(name: str, device: str) -> None:
    options, sums, membrane, spikes = TRACES[name]
    found = drive(sums, device, **options)
    assert (found["v"], found["n"]) == (membrane, spikes)


@pytest.mark.parametrize("device", ["oracle", "loihi2-sim"])
def test_the_current_of_either_decay(device: str) -> None:
    assert drive([4, 0, 0], device, du=2047)["u"] == [4, 2, 1]
    assert drive([4, 0, 0], device, du=2047, current_decay="after")["u"] == [2, 1, 0.5]


@pytest.mark.parametrize("device", ["oracle", "loihi2-sim"])
def test_an_integrator_has_currents_and_no_reset(device: str) -> None:
    options: dict[str, Any] = {"model": "li", "du": 2047, "update_order": "membrane_first"}
    assert drive([40, 0, 0], device, **options)["v"] == [0, 40, 60]
    for timing in CHOICES["reset_timing"]:
        found = drive([40, 0, 0], device, model="li", reset="subtract", reset_timing=timing)
        assert found["v"] == [40, 40, 40]


def test_a_late_reset_below_the_range_is_an_overflow() -> None:
    options: dict[str, Any] = {"reset": "subtract", "reset_timing": "next_after", "dv": 4096, "vth": 131000}
    found = drive([131001, -131000], **options)
    assert found["v"] == [131001, 1 / 64 - 131072]
    with pytest.raises(DeviceError, match="'n' left its 24-bit range at device step 2") as caught:
        drive([131001, -131000], strict=True, **options)
    assert caught.value.step == 2
    assert drive([131001, -71], strict=True, **options)["v"][1] == -131071


@pytest.mark.parametrize("device", ["oracle", "loihi2-sim"])
def test_a_ternary_neuron_by_hand(device: str) -> None:
    registers = {"du": 4095, "dv": 0, "vth_hi": 10, "vth_lo": -4}
    neuron = Population("n", (1,), "ternary", registers, start_step=1)
    wire = WeightTable(np.ones((1, 1), np.int64), 0, 8, "excitatory", 24)
    program = Program(
        "loihi2",
        2,
        (neuron,),
        (Projection("p", "x", "n", (wire,)),),
        (InputPort("x", (1,), "graded", bits=24, signed=True),),
        (OutputPort("y", "n", readout="count", task="regress"),),
    )
    inputs = np.array([10, 1, -4, -1, 3, 8])[None, :, None]
    record = execute(program, inputs, device, record=("n",), probes=("n.v",))
    assert (record.states("n.v")[0, :, 0] / 64).tolist() == [10, 0, -4, 0, 3, 0]
    assert record.spikes("n")[0, :, 0].tolist() == [0, 1, 0, -1, 0, 1]
    assert record.counts.spikes == {"n": 3} and record.predictions.tolist() == [[1]]
