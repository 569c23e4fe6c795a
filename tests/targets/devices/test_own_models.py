"""Balanced resonators and adaptive leaky neurons: by hand, on every device, at every limit; none grows."""

from __future__ import annotations

import importlib.util
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import comparing, random_programs

from snn_compile.targets.devices.device import execute
from snn_compile.targets.errors import DeviceError, DoesNotFit, WrongProgram
from snn_compile.targets.oracle.brf import BalancedResonators
from snn_compile.targets.program.population import Population
from snn_compile.targets.program.program import InputPort, OutputPort, Program, Projection
from snn_compile.targets.program.weights import WeightTable

PROGRAMS, BLOCKS = 60, 3
M = 1 << 23

needs_lava = pytest.mark.skipif(
    importlib.util.find_spec("lava.magma") is None, reason="lava-nc is not installed; the README says how"
)
everywhere = pytest.mark.parametrize(
    "device", ["oracle", "loihi2-sim", pytest.param("lava-stepped", marks=needs_lava)]
)
REGISTERS: dict[str, dict[str, Any]] = {
    "brf": {"cos_decay": 3500, "sin_decay": 2000, "vth": 4, "r_step": 256, "delta_r": 410},
    "alif": {"delta_v": 200, "delta_theta": 20, "theta_0": 64, "theta_step": 30},
}


def one(model: str, chip: str = "loihi2", size: int = 1, wide: bool = False, **registers: Any) -> Program:
    """Return neurons of a model; input x reaches each as it is, or `wide`: times 257, beyond 32 bits."""
    neurons = Population("n", (size,), model, REGISTERS[model] | registers)
    wire = WeightTable(np.eye(size, dtype=np.int64), 0, 8, "excitatory", 24)
    more = WeightTable(128 * np.eye(size, dtype=np.int64), 1, 8, "excitatory", 24)
    edge = Projection("x-n", "x", "n", (wire, more) if wide else (wire,))
    port = InputPort("x", (size,), kind="graded", bits=24, signed=True)
    return Program(chip, 1, (neurons,), (edge,), (port,), (OutputPort("out", "n"),))


def played(program: Program, device: str, x: list[int]) -> dict[str, list[int]]:
    """Return all states and the spikes, as lists over the steps; x comes a step late, as by any synapse."""
    states = program.population("n").kind.states
    probes = [f"n.{state}" for state in states]
    record = execute(program, {"x": np.array(x)[None, :, None]}, device, record=("n",), probes=probes)
    found = {state: record.states(f"n.{state}") for state in states} | {"s": record.spikes("n")}
    return {key: array[0, :, 0].tolist() for key, array in found.items()}


@everywhere
def test_a_resonator_by_hand(device: str) -> None:
    """A quarter turn a step without loss; threshold 128, a spike adds 64 to r, of which half is left a step.

    5 arrives as 320, which is past 128. r is 64 then; half of the cosine's range is not damped: cos is 0.
    """
    turn = {"cos_decay": 0, "sin_decay": 4096, "vth": 2, "r_step": 64, "delta_r": 2048, "damping": 4095}
    found = played(one("brf", **turn), device, [5, 0, 0, 0, 0, 0, 0])
    assert found["real"] == [0, 320, 0, -320, 0, 320, 0]
    assert found["imag"] == [0, 0, 320, 0, -320, 0, 320]
    assert found["s"] == [0, 1, 0, 0, 0, 1, 0]
    assert found["r"] == [0, 64, 32, 16, 8, 68, 34]


@everywhere
def test_the_reset_of_a_resonator_is_smooth(device: str) -> None:
    """d = r 2**10: r of 32 takes half of a cosine of 1, one of 128 and more mirrors it."""
    still = {"cos_decay": 4096, "sin_decay": 0, "vth": 1, "damping": 1024, "damping_exp": 0, "delta_r": 0}
    found = played(one("brf", **still, r_step=32), device, [10, 0, 0, 0, 0])
    assert found["real"] == [0, 640, 320, 0, 0] and found["r"] == [0, 32, 64, 64, 64]
    found = played(one("brf", **still, r_step=200), device, [10, 0, 0, -10, 0])
    assert found["real"] == [0, 640, -640, 640, -1280] and found["s"] == [0, 1, 0, 1, 0]


@everywhere
def test_the_products_of_a_resonator_round_together(device: str) -> None:
    """An eighth of a turn: 45.2 (1 + i) keeps 45 of each part; of the next 31.75 + 31.75 it is 63, not 62."""
    eighth = {"cos_decay": 2890, "sin_decay": 2890, "vth": 100, "r_step": 0}
    found = played(one("brf", **eighth), device, [1, 0, 0, -1, 0])
    assert found["real"] == [0, 64, 45, 0, -108]
    assert found["imag"] == [0, 0, 45, 63, 44]


@everywhere
def test_refractoriness_is_strict_and_can_be_left_out(device: str) -> None:
    still = {"cos_decay": 4096, "sin_decay": 0, "vth": 2, "r_step": 128, "delta_r": 0}
    assert played(one("brf", **still), device, [2, 1, 1, 1, 0])["s"] == [0, 0, 1, 0, 1]
    assert played(one("brf", **still, refractory=0), device, [2, 1, 1, 1, 0])["s"] == [0, 0, 1, 1, 1]


@everywhere
def test_an_adaptive_neuron_by_hand(device: str) -> None:
    """Base 64; v = 64 does not spike, 96 does, and loses one threshold, or two."""
    slow = {"delta_v": 2048, "delta_theta": 1024, "theta_0": 64, "theta_step": 40}
    found = played(one("alif", **slow), device, [1, 1, 1, 2, 0])
    assert found["v"] == [0, 64, 32, 80, 74]
    assert found["s"] == [0, 0, 1, 0, 1]
    assert found["theta"] == [64, 64, 104, 94, 126]
    twice = played(one("alif", **slow, reset_exp=1), device, [1, 1, 1, 2, 0])
    assert twice["v"] == [0, 64, -32, 48, -36]
    assert twice["theta"] == [64, 64, 104, 94, 126]


inside = st.tuples(st.floats(0, 4096), st.floats(-np.pi, np.pi)).map(
    lambda polar: (int(np.trunc(polar[0] * np.cos(polar[1]))), int(np.trunc(polar[0] * np.sin(polar[1]))))
)


@settings(max_examples=300)
@given(
    st.lists(inside, min_size=1, max_size=20), st.integers(0, 4095), st.integers(0, 31), st.integers(0, 2**32)
)
def test_no_state_grows_by_itself_whatever_its_refractoriness(
    turns: list[tuple[int, int]], damping: int, exponent: int, seed: int
) -> None:
    """With cos**2 + sin**2 <= 4096**2 a step without input lengthens no state, in integers."""
    cos, sin = np.array(turns).T
    registers = {"cos_decay": cos, "sin_decay": sin, "vth": 131071, "damping": damping}
    n = BalancedResonators(
        Population("n", (len(turns),), "brf", registers | {"damping_exp": exponent, "delta_r": 0}), 4
    )
    rng = np.random.default_rng(seed)
    size = M >> rng.integers(0, 23)
    n.real, n.imag = rng.integers(-size + 1, size, (2, 4, len(turns)))
    n.r = rng.integers(0, M, (4, len(turns))) >> rng.integers(0, 23)
    for _ in range(5):
        before = n.real**2 + n.imag**2
        n.step([n.zeros()])
        assert (n.real**2 + n.imag**2 <= before).all()


def edges(model: str, **registers: Any) -> tuple[Program, dict[str, Any]]:
    """Return neurons that meet the ends of 24 and of 32 bits."""
    near = [a * (M >> 6) + b for a in (1, -1, 63, -63) for b in (-1, 0, 1)]
    rows = [*near, M - 1, 0, 1 - M, M - 1, M - 1, 0, M - 1, -M // 2]
    return one(model, wide=True, **registers), {"x": np.array(rows)[None, :, None]}


@pytest.mark.parametrize("model", REGISTERS)
@pytest.mark.parametrize("device", ["loihi2-sim", pytest.param("lava-stepped", marks=needs_lava)])
def test_the_ends_of_24_and_32_bits(model: str, device: str) -> None:
    rise = {"brf": "r_step", "alif": "theta_step"}[model]
    program, data = edges(model, **{rise: 8388544})
    wanted = comparing.run_all(program, data, "oracle")
    counted = wanted.overflows["n"]
    assert counted.u_wraps and counted.v_high and counted.v_low
    got = comparing.run_all(program, data, device)
    assert not comparing.first_difference(wanted, got, overflows="lava" not in device)
    with pytest.raises(DeviceError, match="'n' left its 24-bit range"):
        comparing.run_all(program, data, "oracle", strict=True)


@pytest.mark.parametrize("model", REGISTERS)
def test_what_lifts_a_threshold_saturates_and_is_counted(model: str) -> None:
    if model == "brf":
        kept = {"refractory": 0, "delta_r": 0, "cos_decay": 4096, "sin_decay": 0, "r_step": 8388544}
    else:
        kept = {"delta_theta": 0, "delta_v": 0, "theta_0": 8388000, "theta_step": 8388544}
    program = one(model, **kept)
    data = {"x": np.array([131071, 0, 0, 0])[None, :, None]}
    wanted = comparing.run_all(program, data, "oracle")
    state = "n.r" if model == "brf" else "n.theta"
    assert wanted.states(state).max() == M - 1 and wanted.overflows["n"].v_high
    assert not comparing.first_difference(wanted, comparing.run_all(program, data, "loihi2-sim"))


@pytest.mark.parametrize("index", range(BLOCKS))
def test_random_programs_on_every_device(tmp_path: Any, index: int) -> None:
    limits = random_programs.Limits(neurons=24, models=random_programs.OWN)
    for seed in range(index, PROGRAMS, BLOCKS):
        comparing.check_everywhere(random_programs.case(seed, limits), tmp_path / "program", f"seed {seed}")


@settings(max_examples=40, suppress_health_check=list(HealthCheck))
@given(drawn=st.data())
def test_a_difference_shrinks_to_a_small_program(drawn: st.DataObject) -> None:
    case = drawn.draw(random_programs.cases(random_programs.SMALL_OWN))
    wanted = comparing.run_all(case.program, case.inputs, "oracle")
    got = comparing.run_all(case.program, case.inputs, "loihi2-sim", threads=1)
    assert not comparing.first_difference(wanted, got)


@needs_lava
@pytest.mark.parametrize("model", REGISTERS)
def test_random_programs_on_lava(model: str) -> None:
    cases = (random_programs.case(seed, random_programs.TINY_OWN) for seed in range(1000, 1100))
    case = next(c for c in cases if any(p.model == model for p in c.program.populations))
    wanted = comparing.run_all(case.program, case.inputs, "oracle")
    got = comparing.run_all(case.program, case.inputs, "lava")
    assert not comparing.first_difference(wanted, got, overflows=False)


def test_the_random_programs_show_what_there_is() -> None:
    limits = random_programs.Limits(neurons=24, models=random_programs.OWN)
    seen: Counter[str] = Counter()
    for seed in range(PROGRAMS):
        case = random_programs.case(seed, limits)
        record = comparing.run_all(case.program, case.inputs, "oracle")
        for p in case.program.populations:
            found = set()
            if record.counts.spikes.get(p.name):
                found |= {
                    "sends",
                    "c-slow" if case.program.period > 1 else "",
                    "late" if p.start_step else "",
                }
            counted = record.overflows[p.name]
            found |= {"wraps"} if counted.u_wraps else set()
            found |= {"saturates"} if counted.v_high and counted.v_low else set()
            edges = [edge for edge in case.program.projections if edge.target == p.name]
            found |= {"self loop"} if any(edge.source == p.name for edge in edges) else set()
            seen.update(f"{p.model} {item}" for item in found)
    for model in REGISTERS:
        for item in ("sends", "c-slow", "late", "wraps", "saturates", "self loop"):
            assert seen[f"{model} {item}"] >= (10 if item == "sends" else 2), (model, item, seen)


@needs_lava
def test_the_witness_says_that_the_process_is_no_independent_one() -> None:
    from snn_compile.targets.lava.populations import implementation_of, make_process

    for model, registers in REGISTERS.items():
        made = Population("n", (2,), model, registers, start_step=3)
        assert implementation_of(made, True) == implementation_of(made, True, 2) == "own"
        assert type(make_process(made, True)).__module__ == "snn_compile.targets.lava.custom"


LIMITS = {
    "cos_decay": ("brf", 4097),
    "sin_decay": ("brf", -4097),
    "vth": ("brf", 131072),
    "r_step": ("brf", 64 * 131071 + 1),
    "delta_r": ("brf", 4097),
    "refractory": ("brf", 2),
    "damping": ("brf", 4096),
    "damping_exp": ("brf", 32),
    "delta_v": ("alif", 4097),
    "delta_theta": ("alif", -1),
    "theta_0": ("alif", 64 * 131071 + 1),
    "theta_step": ("alif", -1),
    "reset_exp": ("alif", 2),
}


@pytest.mark.parametrize("key", LIMITS)
def test_a_register_has_its_range(key: str) -> None:
    model, value = LIMITS[key]
    with pytest.raises(DoesNotFit, match=f"1 violation.* population 'n': {key} spans {value}"):
        one(model, **{key: value})
    one(model, **{key: value - 1 if value > 0 else value + 1})


def test_registers_are_each_neuron_s_own_and_leaky_chips_refuse() -> None:
    for model, registers in REGISTERS.items():
        own = {key: np.arange(5) + value for key, value in registers.items()}
        assert one(model, size=5, **own).population("n").largest_message == 1
        with pytest.raises(DoesNotFit, match=f"model {model}; Intel Loihi 1, one chip has leaky neurons"):
            one(model, chip="loihi1")
    with pytest.raises(WrongProgram, match="'n': brf neurons have Lava's rule and no other"):
        Population("n", (2,), "brf", REGISTERS["brf"], comparison=">=")
