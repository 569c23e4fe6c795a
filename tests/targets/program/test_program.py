"""A Program checks itself: every mistake has its error and a message that names it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np
import pytest
from support import random_programs

from snn_compile.targets.errors import ChipError, DoesNotFit, WrongInput, WrongProgram
from snn_compile.targets.program.program import (
    Core,
    InputPort,
    OutputPort,
    Population,
    Program,
    Projection,
    WeightTable,
)

REGISTERS = {"du": 4095, "dv": 10, "vth": 100, "bias_mant": 1, "bias_exp": 2, "v_init": 3}


def lif(name: str = "n", shape: tuple[int, ...] = (2, 3), model: str = "lif", **changes: Any) -> Population:
    registers = {key: np.array([value]) for key, value in REGISTERS.items()}
    if model == "li":
        del registers["vth"]
    options = {key: changes.pop(key) for key in ("reset", "start_step", "spikes_per_step") if key in changes}
    return Population(name, shape, model, registers | changes, **options)


def edge(**changes: Any) -> Projection:
    tables = (WeightTable(np.full((6, 4), 2), 0),)
    return replace(Projection("e", "x", "n", tables), **changes)


def program(**changes: Any) -> Program:
    parts: dict[str, Any] = {
        "chip": "loihi2",
        "chip_version": 2,
        "populations": (lif(),),
        "projections": (edge(),),
        "inputs": (InputPort("x", (4,)),),
        "outputs": (OutputPort("y", "n"),),
    }
    return Program(**(parts | changes))


def relay(source: Population, delay: int = 0, exponent: int = 0, **changes: Any) -> Program:
    """Return a program in which `source` sends numbers to other neurons; its sums reach 6 * 254 each."""
    tables = (WeightTable(np.full((4, 6), 254), exponent, message_bits=1),)
    return program(
        populations=(source, lif("o", (4,))),
        projections=(edge(), Projection("f", "n", "o", tables, delay)),
        outputs=(OutputPort("y", "o"),),
        **changes,
    )


def table(**changes: Any) -> Program:
    weights = changes.pop("weights", np.full((6, 4), 2))
    return program(projections=(edge(tables=(WeightTable(weights, **changes),)),))


WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    "model": (lambda: Population("n", (1,), "izhikevich", {}), "'n': model 'izhikevich'.*models are"),
    "reset": (lambda: lif(reset="soft"), "'n': reset is 'soft'; use one of value, subtract, none"),
    "parameter missing": (lambda: Population("n", (1,), "lif", {"du": [1]}), r"\['du'\].*lif has.*'vth'"),
    "parameter too many": (lambda: lif(tau=np.array([1])), "'tau'.*lif has"),
    "parameter length": (lambda: lif(vth=np.arange(5)), r"'n': vth has shape \(5,\).*\(6,\)"),
    "parameter float": (lambda: lif(du=np.array([0.5])), "float64 does not hold int32"),
    "parameter whole float": (lambda: lif(du=np.array([1.0])), "float64 does not hold int32"),
    "parameter too wide": (lambda: lif(v_init=np.array([2**40])), "int64 does not hold int32"),
    "sign mode": (lambda: table(sign_mode="both"), "sign mode 'both'.*'mixed'"),
    "period 0": (lambda: program(period=0), "a period of 0 device steps"),
    "period without end": (lambda: program(period=10**8), "a period of 100000000 device steps.*1 to 4096"),
    "weight bits 0": (lambda: table(bits=0), "table of 0 bits; 1 to 8"),
    "weight bits 9": (lambda: table(bits=9), "table of 9 bits; 1 to 8"),
    "weight float": (lambda: table(weights=np.full((6, 4), 0.5)), "float64 does not hold int16"),
    "weight not finite": (lambda: table(weights=np.full((6, 4), np.nan)), "float64 does not hold int16"),
    "weight objects": (lambda: table(weights=np.full((6, 4), None)), "object does not hold int16"),
    "weight too wide": (lambda: table(weights=np.full((6, 4), 2**20)), "int64 does not hold int16"),
    "weight odd": (lambda: table(weights=np.full((6, 4), 1)), "not 8-bit mixed integers"),
    "weight sign": (
        lambda: table(weights=np.full((6, 4), -2), sign_mode="excitatory"),
        "not 8-bit excitatory integers",
    ),
    "weight fine": (lambda: table(weights=np.full((6, 4), 2), bits=7), "not 7-bit mixed integers"),
    "weight dimensions": (lambda: table(weights=np.full(6, 2)), r"table has shape \(6,\)"),
    "weight shape": (lambda: table(weights=np.full((4, 6), 2)), r"'e': weights \(4, 6\).*\(6, 4\)"),
    "no tables": (lambda: program(projections=(edge(tables=()),)), "'e' has no weight table"),
    "kind": (lambda: InputPort("x", (4,), kind="rate"), "'x': kind 'rate'; use spikes or graded"),
    "input bits": (lambda: InputPort("x", (4,), bits=0), "'x': 0 bits at scale 1.0"),
    "input scale": (lambda: InputPort("x", (4,), scale=float("nan")), "'x': 1 bits at scale nan"),
    "signal": (lambda: OutputPort("y", "n", signal="current"), "'y': signal 'current'.*spikes, membrane"),
    "readout": (lambda: OutputPort("y", "n", readout="first"), "'y': readout 'first'.*per_step"),
    "task": (lambda: OutputPort("y", "n", task="cluster"), "'y': task 'cluster'.*regress"),
    "skip": (lambda: OutputPort("y", "n", skip=-1), "'y': skip -1; it must be a number of steps"),
    "skip of the last": (lambda: OutputPort("y", "n", readout="last", skip=2), "'y': skip 2;.*0 for.*last"),
    "names": (lambda: program(inputs=(InputPort("n", (4,)),)), "share a name"),
    "projection names": (lambda: program(projections=(edge(), edge())), "two projections share a name"),
    "no neurons": (lambda: program(populations=(lif(shape=(0,)),)), r"'n' has shape \(0,\)"),
    "start step": (lambda: program(populations=(lif(start_step=-1),)), "'n'.*start step -1"),
    "source": (lambda: program(projections=(edge(source="z"),)), "'e' joins 'z' to 'n'"),
    "target": (lambda: program(projections=(edge(target="z"),)), "'e' joins 'x' to 'z'"),
    "into an input": (lambda: program(projections=(edge(target="x"),)), "'e' joins 'x' to 'x'"),
    "too early": (
        lambda: program(populations=(lif(start_step=3),), projections=(edge(delay_steps=1),)),
        "'e' reaches 'n' at device step 2, before its start step 3",
    ),
    "negative delay": (lambda: program(projections=(edge(delay_steps=-1),)), "'e' reaches 'n'"),
    "from an integrator": (
        lambda: program(populations=(lif(), lif("i", (4,), "li")), projections=(edge(source="i"),)),
        "'e' starts at 'i', which never spikes",
    ),
    "output": (lambda: program(outputs=(OutputPort("y", "z"),)), "'y' reads 'z', which is not there"),
    "spikes of an integrator": (
        lambda: program(populations=(lif(model="li"),)),
        "'y' reads spikes of 'n'.*read its membrane",
    ),
    "no input": (lambda: program(inputs=(), projections=()), "at least one input and one output"),
    "no output": (lambda: program(outputs=()), "at least one input and one output"),
    "version": (lambda: program(chip_version=3), "loihi2 version 3.*has version 2; compile again"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_mistake_is_named(name: str) -> None:
    make, message = WRONG[name]
    with pytest.raises(WrongProgram, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


LIMITS = {
    "du": (lambda: program(populations=(lif(du=np.array([4096])),)), "'n': du spans 4096..4096.*0..4095"),
    "dv": (lambda: program(populations=(lif(dv=np.array([-1])),)), "dv spans -1..-1.*0..4096"),
    "vth": (lambda: program(populations=(lif(vth=np.arange(131067, 131073)),)), "vth.*0..131071"),
    "bias_mant": (lambda: program(populations=(lif(bias_mant=np.array([4096])),)), "-4096..4095"),
    "bias_exp": (lambda: program(populations=(lif(bias_exp=np.array([8])),)), "bias_exp.*0..7"),
    "v_init": (lambda: program(populations=(lif(v_init=np.array([2**23])),)), "-8388607..8388607"),
    "v_min": (lambda: program(populations=(lif(v_min=np.array([-(2**23)])),)), "v_min.*-8388607..8388607"),
    "message shift": (
        lambda: program(
            populations=(lif(model="li", message_shift=24),), outputs=(OutputPort("y", "n", "membrane"),)
        ),
        "message_shift spans 24..24, the chip holds 0..23",
    ),
    "message bits": (lambda: table(message_bits=25), "'e': message bits spans 25..25.*0..24"),
    "numbers": (
        lambda: relay(lif("n", model="li"), chip="loihi1"),
        "'f': 'n' sends numbers; Intel Loihi 1, one chip has spikes without payload",
    ),
    "several spikes": (
        lambda: relay(lif("n", spikes_per_step="floor"), chip="loihi1"),
        "'f': 'n' sends numbers; Intel Loihi 1",
    ),
    "delay": (lambda: program(projections=(edge(delay_steps=63),)), "'e': delay 63 steps.*has 62"),
    "exponent high": (lambda: table(exponent=8), "'e': weight exponent.*-8..7"),
    "exponent low": (lambda: table(exponent=-9), "'e': weight exponent.*-8..7"),
    "bits": (lambda: program(inputs=(InputPort("x", (4,), "graded", bits=25),)), "'x': 25 bits.*has 24"),
    "graded": (
        lambda: program(chip="loihi1", inputs=(InputPort("x", (4,), "graded"),)),
        "'x' is graded; Intel Loihi 1, one chip has spikes without payload",
    ),
    "cores": (
        lambda: program(cores=tuple(Core(i, (0, 0), (), {}) for i in range(121))),
        "cores: 121 needed, 120 available",
    ),
}


def wide(message: int, delay: int = 1, exponent: int = -1, **options: Any) -> Program:
    """Return a program whose largest sum is 4 * 254 * (2**message - 1)."""
    tables = (WeightTable(np.full((6, 4), 254), exponent, message_bits=message, **options),)
    return program(
        projections=(edge(tables=tables, delay_steps=delay),),
        inputs=(InputPort("x", (4,), "graded", bits=message),),
    )


def test_delayed_sums_stay_in_32_bits_before_a_right_shift() -> None:
    with pytest.raises(DoesNotFit, match="^1 violation.*'e': delayed messages of 22 bits can leave 32"):
        wide(22)
    assert wide(21) and wide(22, delay=0) and wide(22, exponent=0)


def test_sums_of_delayed_membranes_and_spike_numbers_too() -> None:
    # Magnitudes reach 2**23 - 1 >> shift, one more below 0; times 6 * 254 they fit from a shift of 3 on.
    with pytest.raises(DoesNotFit, match="'f': delayed messages of 22 bits can leave 32"):
        relay(lif(model="li", message_shift=2), 1, -1)
    assert relay(lif(model="li", message_shift=3), 1, -1)
    assert relay(lif(model="li"), 0, -1) and relay(lif(model="li"), 1, 0)
    # At most 2**23 / 64 spikes of the least threshold: 6 * 254 * 131071 just fits.
    assert relay(lif(vth=np.array([1]), spikes_per_step="floor"), 1, -1)


@pytest.mark.parametrize("name", LIMITS)
def test_a_limit_of_the_chip_is_named(name: str) -> None:
    make, message = LIMITS[name]
    with pytest.raises(DoesNotFit, match=f"^1 violation.*{message}") as caught:
        make()
    assert len(caught.value.violations) == 1


def test_all_limits_are_reported_at_once() -> None:
    with pytest.raises(DoesNotFit, match="^3 violation") as caught:
        program(
            populations=(lif(du=np.array([9999]), dv=np.array([9999])),), projections=(edge(delay_steps=99),)
        )
    assert [text.split(":")[0] for text in caught.value.violations] == [
        "population 'n'",
        "population 'n'",
        "projection 'e'",
    ]


def test_the_ends_of_every_range_are_accepted() -> None:
    for low in (True, False):
        ends = {
            "du": (0, 4095),
            "dv": (0, 4096),
            "vth": (0, 131071),
            "bias_mant": (-4096, 4095),
            "bias_exp": (0, 7),
            "v_init": (1 - 2**23, 2**23 - 1),
        }
        registers = {key: np.array([pair[0] if low else pair[1]]) for key, pair in ends.items()}
        made = program(
            populations=(lif(**registers),),
            projections=(
                edge(
                    tables=(WeightTable(np.full((6, 4), -256 if low else 254), -8 if low else 7),),
                    delay_steps=0 if low else 62,
                ),
            ),
            inputs=(InputPort("x", (4,), "graded", bits=1 if low else 24),),
        )
        assert made.population("n").bias.tolist() == [-4096 if low else 4095 << 7]


def test_an_unknown_chip() -> None:
    with pytest.raises(ChipError, match="unknown target 'loihi9'"):
        program(chip="loihi9")


def arrays_of(value: Any) -> list[Any]:
    if isinstance(value, np.ndarray):
        return [value]
    if is_dataclass(value):
        value = [getattr(value, f.name) for f in fields(value)]
    items = value.values() if isinstance(value, dict) else value if isinstance(value, (tuple, list)) else ()
    return [array for item in items for array in arrays_of(item)]


def test_arrays_are_copies_and_read_only() -> None:
    weights = np.full((6, 4), 2)
    made = program(projections=(edge(tables=(WeightTable(weights),)),))
    digest = made.digest()
    weights[:] = 4
    found = arrays_of(made)
    assert len(found) == 1 + len(REGISTERS) + len({"v_min"})
    for array in found:
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0
    assert program().digest() == digest == made.digest()


def test_the_digest_sees_every_change() -> None:
    changed = [
        program(),
        program(populations=(lif(vth=np.array([101])),)),
        program(provenance={"a": "b"}),
        program(populations=(lif(vth=np.full(6, 100)),)),
        program(populations=(lif(reset="none"),)),
        program(populations=(lif(shape=(6,)),)),
        program(projections=(edge(delay_steps=1),)),
        program(outputs=(OutputPort("y", "n", readout="last"),)),
        table(exponent=1),
        table(weights=np.full((6, 4), 4)),
        table(bits=5, weights=np.full((6, 4), 16)),
        table(bits=6, weights=np.full((6, 4), 16)),
        program(inputs=(InputPort("x", (4,), scale=2.0),)),
        *(random_programs.case(seed).program for seed in range(30)),
    ]
    assert len({p.digest() for p in changed}) == len(changed)
    assert all(len(p.digest()) == 64 for p in changed)


def test_questions_a_program_answers() -> None:
    made = program(populations=(lif(start_step=1), lif("o", (5,), start_step=4)))
    assert (made.size("n"), made.size("x"), made.size("o")) == (6, 4, 5)
    assert (made.start_step("n"), made.start_step("x"), made.latency_steps) == (1, 0, 4)
    assert made.population("o").spiking and made.tables("e") == made.tables(made.projections[0])
    with pytest.raises(WrongInput, match="no population 'z'; there are n, o"):
        made.population("z")


@pytest.mark.parametrize(
    ("signed", "bits", "wanted", "clipped"),
    [
        (False, 3, [0, 0, 2, 2, 7, 7], 3),
        (True, 3, [-7, -1, 2, 2, 7, 7], 2),
        (True, 24, [-12, -1, 2, 2, 7, 20], 0),
    ],
)
def test_graded_input_is_rounded_and_clipped(
    signed: bool, bits: int, wanted: list[int], clipped: int
) -> None:
    port = InputPort("x", (6,), "graded", scale=2.0, bits=bits, signed=signed)
    messages, count = port.encode([[[-6.1, -0.4, 0.75, 1.25, 3.4, 10.0]]])
    assert messages.dtype == np.int32 and messages.tolist() == [[wanted]]
    assert count == clipped


def test_input_is_flattened_in_c_order() -> None:
    data = np.arange(2 * 3 * 4).reshape(1, 2, 3, 4)
    port = InputPort("x", (3, 4), "graded", bits=8)
    assert port.encode(data)[0].tolist() == data.reshape(1, 2, 12).tolist()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.zeros((1, 2, 5)), r"'x': data of shape \(1, 2, 5\).*\(batch, steps, 4\)"),
        (np.zeros((2, 4)), r"data of shape \(2, 4\)"),
        (np.zeros((0, 2, 4)), "holds nothing to run"),
        (np.zeros((2, 0, 4)), "holds nothing to run"),
        (np.full((1, 1, 4), "a"), "values of type <U1"),
        (np.full((1, 1, 4), None), "values of type object"),
        (np.array([[[0, 1, np.nan, 0]]]), r"not finite, first at \(0, 0, 2\)"),
        (np.array([[[0, 1, 0, -np.inf]]]), r"not finite, first at \(0, 0, 3\)"),
        (np.full((1, 1, 4), 0.5), "takes spikes, 0 or 1, and got 0.5"),
        (np.full((1, 1, 4), 2), "takes spikes, 0 or 1, and got 2"),
    ],
)
def test_wrong_data(data: Any, message: str) -> None:
    with pytest.raises(WrongInput, match=message):
        InputPort("x", (4,)).encode(data)
