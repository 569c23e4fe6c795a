"""Resonators, adaptive and sigma-delta neurons and relays: by hand, on every device, at every limit."""

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
from snn_compile.targets.errors import DeviceError, DoesNotFit, WrongInput, WrongProgram
from snn_compile.targets.program.models import MODELS
from snn_compile.targets.program.population import Population
from snn_compile.targets.program.program import InputPort, OutputPort, Program, Projection
from snn_compile.targets.program.weights import WeightTable

PROGRAMS, BLOCKS = 160, 4
M = 1 << 23

needs_lava = pytest.mark.skipif(
    importlib.util.find_spec("lava.magma") is None, reason="lava-nc is not installed; the README says how"
)
everywhere = pytest.mark.parametrize(
    "device", ["oracle", "loihi2-sim", pytest.param("lava-stepped", marks=needs_lava)]
)
RESONATOR = {"cos_decay": 3000, "sin_decay": 2000, "vth": 4}
ADAPTIVE = {"delta_i": 1639, "delta_v": 1639, "delta_theta": 820, "delta_r": 820} | {
    "theta_0": 320,
    "theta_step": 240,
}
REGISTERS: dict[str, dict[str, Any]] = {
    "rf": RESONATOR,
    "rf_iz": RESONATOR,
    "atrlif": ADAPTIVE,
    "sigma_delta": {"vth": 5},
    "delta": {"vth": 5},
    "sigma": {},
    "graded": {},
    "graded_relu": {},
}


def one(model: str, chip: str = "loihi2", signal: str = "spikes", size: int = 1, **registers: Any) -> Program:
    """Return neurons of a model; input x reaches each as it is, and input y the second port."""
    neurons = Population("n", (size,), model, REGISTERS[model] | registers)
    ports = neurons.kind.ports
    wire = WeightTable(np.eye(size, dtype=np.int64), 0, 8, "excitatory", 24)
    names = ("x", "y")[: len(ports)]
    return Program(
        chip,
        1,
        (neurons,),
        tuple(Projection(f"{name}-n", name, "n", (wire,), port=i) for i, name in enumerate(names)),
        tuple(InputPort(name, (size,), kind="graded", bits=24, signed=True) for name in names),
        (OutputPort("out", "n", signal),),
    )


def played(program: Program, device: str, **inputs: list[int]) -> Any:
    """Run and record everything; inputs come a step late, as through any synapse."""
    rows = {name: np.array(values)[None, :, None] for name, values in inputs.items()}
    probes = [f"n.{state}" for state in program.population("n").kind.states]
    return execute(program, rows, device, record=("n",), probes=probes)


def traced(record: Any, *states: str) -> list[list[int]]:
    """Return states and then messages as lists over the steps."""
    found = [record.states(f"n.{state}") for state in states]
    return [array[0, :, 0].tolist() for array in (*found, record.spikes("n"))]


@everywhere
def test_adaptive_neurons_of_lavas_default_parameters(device: str) -> None:
    """The trace of Lava's ATRLIF for an input of 3 at every step."""
    record = played(one("atrlif"), device, x=[3] * 6)
    i, v, theta, r, s = traced(record, "i", "v", "theta", "r")
    assert i == [0, 192, 307, 376, 417, 442]
    assert v == [0, 192, 422, 629, 794, 918]
    assert theta == [320, 320, 560, 511, 472, 681]
    assert r == [0, 0, 640, 511, 408, 1208]
    assert s == [0, 0, 1, 0, 0, 1]


@everywhere
def test_a_resonator_turns_and_fires_at_phase_zero(device: str) -> None:
    """A quarter turn a step without loss: (2, 0) -> (0, 2) -> (-2, 0) -> (0, -2) -> (2, 0)."""
    turn = {"cos_decay": 0, "sin_decay": 4096, "state_exp": 0, "vth": 2}
    record = played(one("rf", **turn), device, x=[2, *[0] * 9], y=[0] * 10)
    real, imag, s = traced(record, "real", "imag")
    assert real == [0, 2, 0, -2, 0, 2, 0, -2, 0, 2]
    assert imag == [0, 0, 2, 0, -2, 0, 2, 0, -2, 0]
    assert s == [0, 0, 0, 0, 0, 1, 0, 0, 0, 1]
    above = played(one("rf", **turn | {"vth": 3}), device, x=[2, *[0] * 9], y=[0] * 10)
    assert not above.spikes("n").any()


@everywhere
def test_each_product_of_a_resonator_rounds_by_itself(device: str) -> None:
    """3 * (0.5 + 0.5 i) keeps trunc(1.5) of each part; from (3, 3) it is 1 - 1 and 1 + 1, not 0 and 3."""
    half = {"cos_decay": 1, "sin_decay": 1, "decay_bits": 1, "state_exp": 0, "vth": 100}
    record = played(one("rf", **half), device, x=[3, 0, 0], y=[3, 0, 0])
    real, imag, _ = traced(record, "real", "imag")
    assert (real, imag) == ([0, 3, 0], [0, 3, 2])


@everywhere
def test_an_izhikevich_resonator_is_reset_below_its_threshold(device: str) -> None:
    still = {"cos_decay": 4096, "sin_decay": 0, "state_exp": 3, "vth": 2}
    record = played(one("rf_iz", **still), device, x=[5, 0, 0, 0], y=[1, 1, 1, 0])
    real, imag, s = traced(record, "real", "imag")
    assert (real, imag, s) == ([0, 40, 0, 0], [0, 8, 15, 15], [0, 0, 1, 1])


@everywhere
def test_sigma_delta_sends_what_has_changed_enough(device: str) -> None:
    """Threshold 5 << 2, bias 1 << 2; messages lose two bits, which the residue does not keep."""
    program = one("sigma_delta", spike_exp=1, state_exp=1, bias=1, signal="membrane")
    record = played(program, device, x=[10, 7, 0, 30, -90, 0])
    sigma, act, residue, error, s = traced(record, "sigma", "act", "residue", "error")
    assert sigma == [0, 10, 17, 17, 47, -43]
    assert act == [4, 14, 21, 21, 51, 0]
    assert residue == [4, 14, 0, 0, 0, 0]
    assert s == [0, 0, 10, 0, 15, -26]
    assert not any(error) and record.outputs[0, :, 0].tolist() == act


@everywhere
def test_sigma_delta_with_the_error_summed(device: str) -> None:
    """d is 3, then 3 + 3 kept: the summed error, 3 + 6, is past 8 and 6 is sent."""
    record = played(one("sigma_delta", vth=8, cum_error=1, relu=0), device, x=[3, 3, -6, -1])
    _, act, residue, error, s = traced(record, "sigma", "act", "residue", "error")
    assert act == [0, 3, 6, 0]
    assert residue == [0, 3, 0, -6]
    assert error == [0, 3, 0, -6]
    assert s == [0, 0, 6, 0]


@everywhere
def test_encoders_sums_and_relays(device: str) -> None:
    pulses = [3, 4, 4, -9, 0]
    assert traced(played(one("delta", spike_exp=1), device, x=pulses), "act", "residue") == [
        [0, 6, 8, 8, -18],
        [0, 6, 8, 8, 0],
        [0, 0, 0, 0, -18],
    ]
    assert (
        traced(played(one("sigma", signal="membrane"), device, x=pulses), "sigma") == [[0, 3, 7, 11, 2]] * 2
    )
    assert traced(played(one("graded", vth=3), device, x=pulses), "v") == [[0] * 5, [0, 0, 4, 4, -9]]
    assert traced(played(one("graded_relu", vth=3), device, x=pulses), "v") == [[0] * 5, [0, 0, 4, 4, 0]]


@needs_lava
@pytest.mark.parametrize("key", ["delta_i", "delta_v", "delta_theta", "delta_r"])
def test_lavas_floats_are_these_integers_over_the_whole_register(key: str) -> None:
    """Every value of a delta, on states that fill their range."""
    size = 4096
    deltas = np.arange(size) + (key != "delta_i")
    rest = {"delta_i": 50, "delta_v": 60, "delta_theta": 70, "delta_r": 80} | {key: deltas}
    neurons = Population("n", (size,), "atrlif", ADAPTIVE | rest | {"theta_step": 65535})
    wire = WeightTable(np.ones((size, 1), np.int64), 0, 8, "excitatory", 24)
    edge = Projection("x-n", "x", "n", (wire,))
    ports = one("atrlif").inputs, one("atrlif").outputs
    program = Program("loihi2", 2, (neurons,), (edge,), *ports)
    drive = np.array([131071, -131072, 99999, 77, -65537, 131071, 131071, -9, 100000, 0, 0, 3, 0])
    data = {"x": drive[None, :, None]}
    wanted = comparing.run_all(program, data, "oracle")
    assert wanted.counts.spikes["n"] and wanted.overflows["n"].v_high and wanted.overflows["n"].u_wraps
    for device in ("loihi2-sim", "lava-stepped"):
        got = comparing.run_all(program, data, device)
        assert not comparing.first_difference(wanted, got, overflows=device == "loihi2-sim"), device


def edges(model: str, **registers: Any) -> tuple[Program, dict[str, Any]]:
    """Return neurons that meet the ends of 24 and of 32 bits."""
    program = one(model, **registers)
    wide = WeightTable(np.full((1, 1), 128), 1, 8, "excitatory", 24)
    first = Projection("x-n", "x", "n", (wide, *program.projections[0].tables))
    program = Program(
        "loihi2", 2, program.populations, (first, *program.projections[1:]), program.inputs, program.outputs
    )
    near = [a * (M >> 8) + b for a in (1, -1, 255, -255) for b in (-1, 0, 1)]
    rows = {"x": [*near, M - 1, 0, 1 - M, M - 1, M - 1, 0, M - 1, -M // 2], "y": [*near[::-1], *range(8)]}
    return program, {port.name: np.array(rows[port.name])[None, :, None] for port in program.inputs}


@pytest.mark.parametrize("model", REGISTERS)
@pytest.mark.parametrize("device", ["loihi2-sim", pytest.param("lava-stepped", marks=needs_lava)])
def test_the_ends_of_24_and_32_bits(model: str, device: str) -> None:
    sums = {"relu": 0, "cum_error": 1} if model == "sigma_delta" else {}
    program, data = edges(model, **sums)
    wanted = comparing.run_all(program, data, "oracle")
    counted = wanted.overflows["n"]
    assert counted.u_wraps if model not in ("graded", "graded_relu") else counted.v_high
    got = comparing.run_all(program, data, device)
    assert not comparing.first_difference(wanted, got, overflows="lava" not in device)
    with pytest.raises(DeviceError, match="'n' left its 24-bit range"):
        comparing.run_all(program, data, "oracle", strict=True)


@pytest.mark.parametrize("index", range(BLOCKS))
def test_random_programs_on_every_device(tmp_path: Any, index: int) -> None:
    limits = random_programs.Limits(neurons=24, models=random_programs.OTHERS)
    for seed in range(index, PROGRAMS, BLOCKS):
        comparing.check_everywhere(random_programs.case(seed, limits), tmp_path / "program", f"seed {seed}")


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(drawn=st.data())
def test_a_difference_shrinks_to_a_small_program(drawn: st.DataObject) -> None:
    case = drawn.draw(random_programs.cases(random_programs.SMALL_OTHERS))
    wanted = comparing.run_all(case.program, case.inputs, "oracle")
    got = comparing.run_all(case.program, case.inputs, "loihi2-sim", threads=1)
    assert not comparing.first_difference(wanted, got)


@needs_lava
@pytest.mark.parametrize("seed", range(1000, 1010))
def test_random_programs_on_lava(seed: int) -> None:
    case = random_programs.case(seed, random_programs.TINY_OTHERS)
    wanted = comparing.run_all(case.program, case.inputs, "oracle")
    got = comparing.run_all(case.program, case.inputs, "lava")
    assert not comparing.first_difference(wanted, got, overflows=False)


def test_the_random_programs_show_every_model() -> None:
    limits = random_programs.Limits(neurons=24, models=random_programs.OTHERS)
    seen: Counter[str] = Counter()
    for seed in range(PROGRAMS):
        case = random_programs.case(seed, limits)
        record = comparing.run_all(case.program, case.inputs, "oracle")
        program = case.program
        for p in program.populations:
            found = {p.model}
            if record.counts.spikes.get(p.name):
                found |= {"sends", "c-slow" if program.period > 1 else "", "late" if p.start_step else ""}
            if record.overflows[p.name]:
                found |= {"overflows"}
            if any(edge.port for edge in program.projections if edge.target == p.name):
                found |= {"second port"}
            if any(edge.source == p.name == edge.target for edge in program.projections):
                found |= {"self loop"}
            seen.update(f"{p.model} {item}" for item in found)
    for model in REGISTERS:
        for item in ("sends", "c-slow", "late", "overflows", "self loop"):
            assert seen[f"{model} {item}"] >= (10 if item == "sends" else 2), (model, item, seen)
    assert min(seen["rf second port"], seen["rf_iz second port"]) >= 10


@needs_lava
@pytest.mark.parametrize("model", REGISTERS)
def test_a_process_of_lavas_own_unless_it_must_be_held_still(model: str) -> None:
    from snn_compile.targets.lava.populations import implementation_of, make_process

    moving = {"atrlif": {"bias_mant": 1}, "sigma_delta": {"bias": 1}, "rf_iz": {"vth": 0}}
    for registers, start, period, held in (
        ({}, 0, 1, False),
        ({}, 3, 1, False),
        (moving.get(model, {}), 0, 1, False),
        (moving.get(model, {}), 3, 1, model in moving),
        ({}, 0, 2, True),
    ):
        made = Population("n", (2,), model, REGISTERS[model] | registers, start_step=start)
        assert implementation_of(made, True, period) == ("derived (run_spk)" if held else "stock")
        module = type(make_process(made, True, period)).__module__
        assert module.startswith("snn_compile." if held else "lava.proc.")


LIMITS = {
    "cos_decay": ("rf", 4097),
    "sin_decay": ("rf_iz", -4097),
    "decay_bits": ("rf", 13),
    "state_exp": ("rf", 8),
    "delta_i": ("atrlif", 4096),
    "delta_v": ("atrlif", 4097),
    "delta_theta": ("atrlif", -1),
    "delta_r": ("atrlif", 4097),
    "theta_0": ("atrlif", 64 * 131071 + 1),
    "theta_step": ("atrlif", -1),
    "spike_exp": ("delta", 8),
    "relu": ("sigma_delta", 2),
    "cum_error": ("delta", 2),
}


@pytest.mark.parametrize("key", LIMITS)
def test_a_register_has_its_range(key: str) -> None:
    model, value = LIMITS[key]
    with pytest.raises(DoesNotFit, match=f"1 violation.* population 'n': {key} spans {value}"):
        one(model, **{key: value})
    one(model, **{key: value - 1 if value > 0 else value + 1})


def test_what_is_shifted_has_to_fit_a_state() -> None:
    for key in ("vth", "bias"):
        fits = (M - 1) >> 10
        one("sigma_delta", spike_exp=4, state_exp=6, **{key: fits})
        with pytest.raises(DoesNotFit, match=rf"'n': {key} \* 2\*\*10 spans"):
            one("sigma_delta", spike_exp=4, state_exp=6, **{key: fits + 1})


def test_models_a_chip_without_programmable_neurons_refuses() -> None:
    for model in REGISTERS:
        with pytest.raises(DoesNotFit, match=f"model {model}; Intel Loihi 1, one chip has leaky neurons"):
            one(model, chip="loihi1")


def test_registers_that_lava_shares_are_shared() -> None:
    with pytest.raises(WrongProgram, match="'n': rf neurons share vth, state_exp"):
        Population("n", (2,), "rf", RESONATOR | {"vth": [1, 2], "state_exp": [1, 2]})
    with pytest.raises(WrongProgram, match="'n': graded neurons have Lava's rule and no other"):
        Population("n", (2,), "graded", {}, comparison=">=")


def test_ports_states_and_membranes() -> None:
    program = one("rf")
    assert "projection y-n: y -> n a_imag_in, delay 0" in program.describe()
    assert "population n 1 rf, start 0" in program.describe()
    for model, port, names in (("rf", 2, "0 (a_real_in), 1 (a_imag_in)"), ("graded", 1, "0 (a_in)")):
        made = one(model)
        edge = Projection("x-n", "x", "n", made.projections[0].tables, port=port)
        with pytest.raises(WrongProgram) as caught:
            Program("loihi2", 2, made.populations, (edge,), made.inputs[:1], made.outputs)
        assert f"reaches port {port} of 'n'; model {model} has {names}" in str(caught.value)
    with pytest.raises(WrongInput, match=r"probe 'n.v': states are n.real and n.imag"):
        execute(program, {"x": np.zeros((1, 1, 1)), "y": np.zeros((1, 1, 1))}, "oracle", probes=("n.v",))
    with pytest.raises(WrongProgram, match="reads the membrane of 'n', which keeps none"):
        one("graded", signal="membrane")
    membranes = {model: kind.membrane for model, kind in MODELS.items() if kind.programmable}
    assert all(name in MODELS[model].states for model, name in membranes.items() if name)


def test_messages_have_their_size() -> None:
    sizes = {model: one(model).population("n").largest_message for model in REGISTERS}
    assert sizes == {"rf": 1, "rf_iz": 1, "atrlif": 1} | dict.fromkeys(
        ("sigma_delta", "delta", "sigma"), 1 << 31
    ) | dict.fromkeys(("graded", "graded_relu"), (1 << 31) - 1)
    assert one("delta", state_exp=7).population("n").largest_message == 1 << 24
    with pytest.raises(DoesNotFit, match="delayed messages of 32 bits can leave 32 bits"):
        wire = WeightTable(np.eye(1, dtype=np.int64), -1, 8, "excitatory", 24)
        made = one("sigma")
        back = Projection("n-n", "n", "n", (wire,), 3)
        Program("loihi2", 2, made.populations, (*made.projections, back), made.inputs, made.outputs)
