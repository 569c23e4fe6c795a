"""Liquid spiking neurons: by hand, on every device, at every limit, and their tables of rates."""

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
from snn_compile.targets.program.population import Population
from snn_compile.targets.program.program import InputPort, OutputPort, Program, Projection
from snn_compile.targets.program.weights import WeightTable

PROGRAMS = 12
"""Random programs of a test run; `benchmarks/liquid_programs.py` compares as many as asked for."""

M, ONE = 1 << 23, 1 << 16
HALVES = [0, 1024, 2048, 4096]
"""Rates of 0, a quarter, a half and 1, for gate inputs from -2, -1, 0 and 1 places on."""

needs_lava = pytest.mark.skipif(
    importlib.util.find_spec("lava.magma") is None, reason="lava-nc is not installed; the README says how"
)
everywhere = pytest.mark.parametrize(
    "device", ["oracle", "loihi2-sim", pytest.param("lava-stepped", marks=needs_lava)]
)
REGISTERS: dict[str, dict[str, Any]] = {
    "lsn": {"theta_0": 640, "theta_step": 256, "rate_shift": 0, "rates": HALVES},
    "lsn_membrane": {"theta_0": 640, "theta_step": 256, "rate_shift": 0, "rates": HALVES},
    "lsn_adaptation": {"rate_shift": 0, "rates": HALVES},
}
PORTS = ("x", "gate", "adaptation")


def one(model: str, chip: str = "loihi2", more: int = 1, **registers: Any) -> Program:
    """Return one neuron, each port of which receives an input as it is, the first times `more`."""
    neuron = Population("n", (1,), model, REGISTERS[model] | registers)
    count = len(neuron.kind.ports)
    ports = tuple(InputPort(name, (1,), kind="graded", bits=24, signed=True) for name in PORTS[:count])
    wire = WeightTable(np.array([[1]]), 0, 8, "excitatory", 24)
    wide = WeightTable(np.array([[128]]), 1, 8, "excitatory", 24)
    edges = tuple(
        Projection(f"{p.name}-n", p.name, "n", (wide if more > 1 and not i else wire,), 0, i)
        for i, p in enumerate(ports)
    )
    signal = "spikes" if model == "lsn" else "membrane"
    return Program(chip, 1, (neuron,), edges, ports, (OutputPort("out", "n", signal),))


def played(program: Program, device: str, *rows: list[int]) -> dict[str, list[int]]:
    """Return all states over the steps; inputs come a step late, as by any synapse."""
    states = program.population("n").kind.states
    given = {p.name: np.array(row)[None, :, None] for p, row in zip(program.inputs, rows, strict=True)}
    record = execute(program, given, device, probes=[f"n.{state}" for state in states])
    return {state: record.states(f"n.{state}")[0, :, 0].tolist() for state in states}


@everywhere
def test_a_neuron_by_hand(device: str) -> None:
    """Base 640, rise 256; x of 20 is 1280. Every step the gate's rate of the way to it is gone.

    640 does not spike, 640 + (1280 - 640) / 4 does. The adaptation is halfway to 1 after it, which lifts the
    threshold by 128, and at a quarter when the next spike comes.
    """
    found = played(one("lsn"), device, [20, 20, 20, 20, 0, 0], [0, -1, -2, 1, -1, 0], [0] * 6)
    assert found["v"] == [0, 640, 0, 0, 0, 0]
    assert found["fired"] == [0, 0, 1, 0, 1, 0]
    assert found["b"] == [0, 0, 0, ONE // 2, ONE // 4, ONE // 4 + 3 * ONE // 8]
    lifted = one("lsn", theta_step=5121)
    assert played(lifted, device, [20, 20, 20, 20, 0, 0], [0, -1, -2, 1, -1, 0], [0] * 6)["fired"][4] == 0


@everywhere
def test_a_membrane_moves_toward_zero_rounding_and_never_beyond_its_input(device: str) -> None:
    falling = played(one("lsn"), device, [-1] * 6, [-1] * 6, [0] * 6)["v"]
    assert falling == [0, -16, -28, -37, -43, -48]
    rising = played(one("lsn"), device, [1] * 6, [-1] * 6, [0] * 6)["v"]
    assert rising == [0, 16, 28, 37, 43, 48]


@everywhere
def test_places_of_the_table_floor_and_end(device: str) -> None:
    """8 gate units a place: -1 lies in the one before 0, 7 in that of 0; all beyond an end have its rate."""
    gates = [-1, 0, 7, 8, 15, 16, M - 1, -8, -9, -16, -17, 1 - M, 0]
    wide = one("lsn", rate_shift=3, theta_0=64 * 131071)
    found = played(wide, device, [1] * 13, gates, [0] * 13)["v"]
    v, expected = 0, [0]
    for gate in gates[:-1]:
        rate = HALVES[min(max(gate // 8 + 2, 0), 3)]
        v += (64 - v) * rate // 4096
        expected.append(v)
    assert found == expected
    shifted = one("lsn", rate_shift=3, theta_0=64 * 131071, membrane_bias=-8, bias=64)
    assert played(shifted, device, [0] * 3, [0] * 3, [0] * 3)["v"] == [16, 28, 37]


@everywhere
def test_the_populations_that_send_states_have_them(device: str) -> None:
    """The same states as the neurons; a message is the state shifted right, which floors."""
    rows = [20, 20, -20, 20, 0, 0], [0, -1, -1, 1, -1, 0], [0, 1, -1, -2, 0, 0]
    neurons = played(one("lsn"), device, *rows)
    assert played(one("lsn_membrane", message_shift=5), device, *rows) == neurons
    alone = played(one("lsn_adaptation"), device, neurons["fired"], rows[2])
    # Either takes the spike of the step before: its own, or one that arrives a step late.
    assert alone["b"] == neurons["b"] and any(neurons["b"])


@everywhere
@pytest.mark.parametrize("shift", [0, 3, 12])
def test_a_message_is_the_state_shifted_right(device: str, shift: int) -> None:
    sender = one("lsn_membrane", message_shift=shift)
    bits = sender.population("n").largest_message.bit_length()
    heard = Population("h", (1,), "sigma", {})
    edge = Projection("n-h", "n", "h", (WeightTable(np.array([[1]]), 0, 8, "excitatory", min(24, bits)),))
    program = Program(
        "loihi2", 1, (*sender.populations, heard), (*sender.projections, edge), sender.inputs,
        (OutputPort("out", "h", "membrane"),),
    )  # fmt: skip
    rows = [-9, 3, -70, 5, -3, 0], [0, -1, 1, 1, 1, 0], [0] * 6
    given = {p.name: np.array(row)[None, :, None] for p, row in zip(program.inputs, rows, strict=True)}
    record = execute(program, given, device, probes=["n.v", "h.sigma"])
    v, sums = (record.states(probe)[0, :, 0] for probe in ("n.v", "h.sigma"))
    np.testing.assert_array_equal(np.diff(sums, prepend=0)[1:], (v >> shift)[:-1])


@pytest.mark.parametrize("model", ["lsn", "lsn_membrane"])
@pytest.mark.parametrize("device", ["loihi2-sim", pytest.param("lava-stepped", marks=needs_lava)])
def test_the_ends_of_24_and_32_bits(model: str, device: str) -> None:
    near = [a * (M >> 6) + b for a in (1, -1, 63, -63) for b in (-1, 0, 1)]
    rows = np.array([*near, M - 1, 0, 1 - M, M - 1, M - 1, 0, M - 1, -M // 2])
    program = one(model, more=257, theta_0=64 * 131071, theta_step=0, rates=[4095, 4096])
    data = {name: rows[None, :, None] for name in PORTS}
    wanted = comparing.run_all(program, data, "oracle")
    counted = wanted.overflows["n"]
    assert counted.u_wraps and counted.v_high and counted.v_low
    got = comparing.run_all(program, data, device)
    assert not comparing.first_difference(wanted, got, overflows="lava" not in device)
    with pytest.raises(DeviceError, match="'n' left its 24-bit range"):
        comparing.run_all(program, data, "oracle", strict=True)


def test_random_programs_on_every_device(tmp_path: Any) -> None:
    limits = random_programs.Limits(neurons=16, steps=20, models=random_programs.LIQUID)
    for seed in range(PROGRAMS):
        comparing.check_everywhere(random_programs.case(seed, limits), tmp_path / "program", f"seed {seed}")


@settings(max_examples=20, suppress_health_check=list(HealthCheck), deadline=None)
@given(drawn=st.data())
def test_a_difference_shrinks_to_a_small_program(drawn: st.DataObject) -> None:
    case = drawn.draw(random_programs.cases(random_programs.SMALL_LIQUID))
    wanted = comparing.run_all(case.program, case.inputs, "oracle")
    got = comparing.run_all(case.program, case.inputs, "loihi2-sim", threads=1)
    assert not comparing.first_difference(wanted, got)


@needs_lava
def test_a_random_program_on_lava() -> None:
    cases = (random_programs.case(seed, random_programs.TINY_LIQUID) for seed in range(1000, 1100))
    case = next(c for c in cases if {"lsn", "lsn_membrane"} <= {p.model for p in c.program.populations})
    wanted = comparing.run_all(case.program, case.inputs, "oracle")
    got = comparing.run_all(case.program, case.inputs, "lava")
    assert not comparing.first_difference(wanted, got, overflows=False)


def test_the_random_programs_show_what_there_is() -> None:
    limits = random_programs.Limits(neurons=16, steps=20, models=random_programs.LIQUID)
    seen: Counter[str] = Counter()
    for seed in range(60):
        case = random_programs.case(seed, limits)
        record = comparing.run_all(case.program, case.inputs, "loihi2-sim")
        for p in case.program.populations:
            if p.model not in REGISTERS:
                continue
            edges = [edge for edge in case.program.projections if edge.target == p.name]
            counted = record.overflows[p.name]
            found = {
                "sends": any(edge.source == p.name for edge in case.program.projections)
                or bool(record.counts.spikes.get(p.name)),
                "c-slow": case.program.period > 1,
                "late": p.start_step > 0,
                "wraps": counted.u_wraps > 0,
                "saturates": counted.v_high > 0 or counted.v_low > 0,
                "self loop": any(edge.source == p.name for edge in edges),
                "delayed": any(edge.delay_steps for edge in edges),
                "gated": any(edge.port for edge in edges),
            }
            seen.update(f"{p.model} {item}" for item, there in found.items() if there)
    for model in REGISTERS:
        for item in ("sends", "c-slow", "late", "self loop", "delayed", "gated"):
            assert seen[f"{model} {item}"] >= 2, (model, item, seen)
    for model in ("lsn", "lsn_membrane"):
        assert seen[f"{model} saturates"] >= 1, seen
    assert seen["lsn wraps"] >= 1, seen


PER_NEURON = np.array([0, 1])
MALFORMED: dict[str, tuple[str, dict[str, Any], str]] = {
    "no table": ("lsn", {"rates": None}, r"'n': parameters .* \['rates'\] must be given"),
    "no shift": ("lsn", {"rate_shift": None}, r"'n': parameters .* \['rate_shift'\] must be given"),
    "no threshold": ("lsn", {"theta_0": None}, r"'n': parameters .* \['theta_0'\] must be given"),
    "unknown": ("lsn", {"dv": 3}, r"'n': parameters .*'dv'"),
    "table of 3": ("lsn", {"rates": [0, 1, 2]}, r"'n': rates has shape \(3,\); a table has 2, 4, 8 .. 4096"),
    "table of 1": ("lsn_adaptation", {"rates": [5]}, r"'n': rates has shape \(1,\); a table has"),
    "table of 8192": ("lsn", {"rates": np.zeros(8192, int)}, r"'n': rates has shape \(8192,\)"),
    "two axes": ("lsn", {"rates": [[0, 1], [2, 3]]}, r"'n': rates has shape \(2, 2\)"),
    "fractions": ("lsn", {"rates": [0.5, 1.0]}, r"'n': rates: an array of float64 does not hold int32"),
    "not finite": ("lsn", {"rates": [0.0, np.nan]}, r"'n': rates: an array of float64"),
    "rates above 1": ("lsn", {"rates": [0, 4097]}, "'n': rates spans 0..4097, the chip holds 0..4096"),
    "rates below 0": ("lsn_adaptation", {"rates": [-1, 5]}, "'n': rates spans -1..5, the chip holds 0..4096"),
    "rise below 0": ("lsn", {"theta_step": -1}, "'n': theta_step spans -1..-1"),
    "wide threshold": ("lsn", {"theta_0": 64 * 131071 + 1}, "'n': theta_0 spans 8388545"),
    "wide bias": ("lsn", {"bias": M}, "'n': bias spans 8388608"),
    "wide gate bias": ("lsn", {"membrane_bias": -M}, "'n': membrane_bias spans -8388608"),
    "long shift": ("lsn", {"rate_shift": 24}, "'n': rate_shift spans 24..24, the chip holds 0..23"),
    "long message shift": ("lsn_membrane", {"message_shift": 24}, "'n': message_shift spans 24..24"),
    "shift per neuron": ("lsn", {"rate_shift": PER_NEURON}, "'n': rate_shift has shape"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_program_is_one_clear_line(name: str) -> None:
    model, registers, says = MALFORMED[name]
    kept = {k: v for k, v in (REGISTERS[model] | registers).items() if v is not None}
    with pytest.raises((WrongProgram, DoesNotFit), match=says) as caught:
        program = one(model)
        Program(
            program.chip, 1, (Population("n", (1,), model, kept),), program.projections, program.inputs,
            program.outputs,
        )  # fmt: skip
    assert "\n" not in str(caught.value)


def test_a_gate_that_is_not_there_and_leaky_chips_are_refused() -> None:
    program = one("lsn")
    wire = program.projections[0].tables
    with pytest.raises(WrongProgram, match=r"reaches port 3 of 'n'; model lsn has 0 \(a_in\)"):
        Program(
            "loihi2", 1, program.populations, (Projection("x-n", "x", "n", wire, 0, 3),), program.inputs,
            program.outputs,
        )  # fmt: skip
    with pytest.raises(WrongProgram, match="starts at 'n', which never spikes"):
        sender = one("lsn_membrane")
        back = Projection("n-n", "n", "n", (WeightTable(np.array([[2]])),), 0, 1)
        Program("loihi2", 1, sender.populations, (*sender.projections, back), sender.inputs, sender.outputs)
    for model in REGISTERS:
        with pytest.raises(DoesNotFit, match=f"model {model}; Intel Loihi 1, one chip has leaky neurons"):
            one(model, chip="loihi1")


@needs_lava
def test_the_witness_says_that_the_process_is_no_independent_one() -> None:
    from snn_compile.targets.lava.populations import implementation_of

    for model, registers in REGISTERS.items():
        made = Population("n", (2,), model, registers, start_step=3)
        assert implementation_of(made, True) == "own"
