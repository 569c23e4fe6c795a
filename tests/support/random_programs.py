"""Random programs and inputs for them: one recipe, fed by a seeded generator or by hypothesis.

The recipe asks a `Picker` for every choice, the plainest value first, so hypothesis shrinks what fails to
a small program. Ranges are the chip's full ones; the common values are those at which states spike, wrap
and saturate within a few steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.sparse import csr_array

from snn_compile.targets.integer import truncate_weights, weight_range
from snn_compile.targets.program.program import (
    InputPort,
    OutputPort,
    Population,
    Program,
    Projection,
    WeightTable,
)
from snn_compile.targets.program.rule import CHOICES

Ints = npt.NDArray[np.int64]

BIAS_EXPONENTS, WEIGHT_EXPONENTS = range(8), range(-8, 8)
READOUTS = ("count", "mean", "last", "max", "per_step")


class Picker(Protocol):
    """Where choices come from."""

    def integer(self, low: int, high: int) -> int: ...

    def choice(self, values: Sequence[Any]) -> Any: ...

    def integers(self, low: int, high: int, shape: tuple[int, ...]) -> Ints: ...


class SeededPicker:
    """Choices of a seeded numpy generator."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def integer(self, low: int, high: int) -> int:
        return int(self.rng.integers(low, high + 1))

    def choice(self, values: Sequence[Any]) -> Any:
        return values[int(self.rng.integers(len(values)))]

    def integers(self, low: int, high: int, shape: tuple[int, ...]) -> Ints:
        return self.rng.integers(low, high + 1, shape)


class DrawnPicker:
    """Choices of hypothesis; they shrink to the first value or to the one nearest zero."""

    def __init__(self, draw: Any) -> None:
        self.draw = draw

    def integer(self, low: int, high: int) -> int:
        return int(self.draw(st.integers(low, high)))

    def choice(self, values: Sequence[Any]) -> Any:
        return self.draw(st.sampled_from(values))

    def integers(self, low: int, high: int, shape: tuple[int, ...]) -> Ints:
        return np.asarray(self.draw(hnp.arrays(np.int64, shape, elements=st.integers(low, high))))


@dataclass(frozen=True)
class Limits:
    """How large programs get."""

    neurons: int = 40
    populations: int = 4
    inputs: int = 2
    channels: int = 8
    steps: int = 40
    samples: int = 4
    tables: int = 3
    delay: int = 62
    models: tuple[str, ...] = ()
    """Models that are drawn besides the leaky ones."""


SMALL = Limits(neurons=4, populations=3, channels=3, steps=12, samples=2, tables=2)
TINY = Limits(neurons=5, populations=3, channels=3, steps=8, samples=3, tables=2, delay=3)
OTHERS = ("rf", "rf_iz", "atrlif", "sigma_delta", "delta", "sigma", "graded", "graded_relu")
OWN = ("brf", "alif")
SHORT = Limits(neurons=12, populations=3, channels=10, steps=10, samples=5, tables=2, delay=4)
SMALL_OTHERS, SHORT_OTHERS, TINY_OTHERS = (replace(each, models=OTHERS) for each in (SMALL, SHORT, TINY))
SMALL_OWN, SHORT_CUSTOM, TINY_OWN = (replace(each, models=OWN) for each in (SMALL, SHORT, TINY))


@dataclass(frozen=True, eq=False)
class Case:
    """A program, inputs for it, and the seed it came from."""

    program: Program
    inputs: dict[str, Ints]
    seed: int = -1


def case(seed: int, limits: Limits | None = None) -> Case:
    """Return the random program and inputs of a seed."""
    return replace(build(SeededPicker(seed), limits or Limits()), seed=seed)


def cases(limits: Limits | None = None) -> st.SearchStrategy[Case]:
    """Return the strategy of small random programs with inputs."""
    return st.composite(lambda draw: build(DrawnPicker(draw), limits or SMALL))()


def build(pick: Picker, limits: Limits) -> Case:
    """Make one program and inputs for it."""
    steps, samples = pick.integer(5, limits.steps), pick.integer(1, limits.samples)
    stock = pick.choice((True, True, False, False, False))
    ports = tuple(input_port(pick, f"in{i}", limits) for i in range(pick.integer(1, limits.inputs)))
    count = pick.integer(1, limits.populations)
    populations: list[Population] = []
    for i in range(count):
        models = ("lif", "lif", "lif", "li") if i == count - 1 or not stock else ("lif",)
        models += () if stock else ("lif", "lif", "li", "ternary")
        if limits.models:
            models = (*limits.models, *limits.models, *models)
        populations.append(population(pick, f"pop{i}", pick.choice(models), limits, stock))
    projections = []
    for index, target in enumerate(populations):
        # One edge that makes sure it is driven, then any others: skips, cycles, second edges.
        first = pick.choice([*ports, *(p for p in populations[:index] if p.spiking or not stock)])
        others = [*ports, *(p for p in populations if p.spiking or not stock)]
        for source in (first, *(pick.choice(others) for _ in range(pick.integer(0, 2)))):
            projections.append(projection(pick, len(projections), source, target, limits, stock))
    program = Program(
        "loihi2", 1, tuple(populations), tuple(projections), ports, (output_port(pick, populations),)
    )
    inputs = {port.name: data(pick, port, samples, steps) for port in ports}
    return Case(slowed(pick, program, pick.choice((1, 1, 1, 1, 2, 3))), inputs)


def slowed(pick: Picker, program: Program, period: int) -> Program:
    """Return the program c-slow, which gives the same record, or itself where a delay gets too long.

    Every device step becomes `period` of them, and every population begins up to a period later.
    """
    start = {node.name: node.start_step * period + pick.integer(0, period - 1) for node in program.nodes}
    edges = []
    for edge in program.projections:
        late = program.start_step(edge.source) + 1 + edge.delay_steps - program.start_step(edge.target)
        delay = late * period + start[edge.target] - start[edge.source] - 1
        edges.append(replace(edge, delay_steps=delay))
    if any(not 0 <= edge.delay_steps <= 62 for edge in edges):
        return program
    bits = {node.name: node.largest_message.bit_length() for node in program.nodes}
    return replace(
        program,
        populations=tuple(replace(p, start_step=start[p.name]) for p in program.populations),
        inputs=tuple(replace(p, start_step=start[p.name]) for p in program.inputs),
        projections=tuple(
            sums_in_32_bits(edge, bits[edge.source]) if edge.delay_steps else edge for edge in edges
        ),
        period=period,
    )


def input_port(pick: Picker, name: str, limits: Limits) -> InputPort:
    """Make an input port."""
    shape = (pick.integer(1, limits.channels),)
    start = pick.choice((0, 0, 0, 0, 1, 3))
    if pick.choice((True, True, False)):
        return InputPort(name, shape, start_step=start)
    return InputPort(
        name,
        shape,
        kind="graded",
        bits=pick.choice((4, 8, 24, 1, 12, 20, 24)),
        signed=pick.choice((False, True)),
        start_step=start,
    )


def population(pick: Picker, name: str, model: str, limits: Limits, stock: bool = True) -> Population:
    """Make a population, each parameter shared or per neuron; with `stock` only its reset is drawn."""
    size = pick.integer(1, limits.neurons)
    if model in _REGISTERS:
        parameters = _REGISTERS[model](pick, size)
        return Population(name, (size,), model, parameters, start_step=pick.choice((0, 0, 1, 2, 3, 5)))
    rule = {key: "value" if key == "reset" else words[0] for key, words in CHOICES.items()}
    rule["reset"] = pick.choice(("value", "value", "subtract", "subtract", "none"))
    if model == "ternary":
        rule["reset"] = "value"
    elif not stock:
        rule |= {key: pick.choice(words) for key, words in CHOICES.items() if key != "reset"}
        if rule["reset_timing"] == "pending":
            rule |= {"reset": "subtract", "spikes_per_step": "one"}

    def parameter(*spans: tuple[int, int]) -> Ints:
        low, high = pick.choice(spans)
        return pick.integers(low, high, (pick.choice((1, size)),))

    # On the grid of thresholds every membrane is a multiple of 64, so some meet theirs exactly.
    if not stock and pick.choice((True, True, False)):
        parameters = {
            "du": np.array([4095]),
            "dv": parameter((0, 0), (4096, 4096)),
            "bias_mant": parameter((0, 0), (-3, 3)),
            "bias_exp": np.array([pick.choice((6, 7))]),
            "v_init": 64 * parameter((0, 0), (0, 9)),
        }
        thresholds = ((1, 4), (1, 60))
    else:
        decays = ((0, 0), (0, 4095), (0, 40), (100, 900), (4095, 4095))
        parameters = {
            "du": parameter((4095, 4095), (0, 4095), (0, 0), (2000, 3000)),
            "dv": parameter(*decays, *(() if stock else ((4096, 4096),))),
            "bias_mant": parameter((0, 0), (0, 0), (-4096, 4095), (-64, 64), (4000, 4095)),
            "bias_exp": np.array([pick.choice(BIAS_EXPONENTS)]),
            "v_init": parameter((0, 0), (0, 0), (-(2**23) + 1, 2**23 - 1), (-9999, 9999)),
        }
        thresholds = ((0, 3), (1, 60), (10, 400), (0, 131071), (131071, 131071))
    if model == "lif":
        least = int(rule["spikes_per_step"] == "floor")
        parameters["vth"] = np.maximum(parameter(*thresholds), least)
        if not stock and pick.choice((False, False, True)):
            parameters["v_min"] = parameter((-64, 0), (-9999, 9999), (0, 0), (-(2**23) + 1, 2**23 - 1))
    elif model == "ternary":
        high, low = (int(pick.integers(*pick.choice(thresholds), (1,))[0]) for _ in range(2))
        parameters |= {"vth_hi": np.array([high]), "vth_lo": np.array([-low])}
    elif not stock:
        parameters["message_shift"] = parameter((0, 0), (3, 12), (6, 6), (10, 23))
    return Population(name, (size,), model, parameters, start_step=pick.choice((0, 0, 1, 2, 3, 5)), **rule)


def registers(pick: Picker, size: int, **spans: tuple[tuple[int, int], ...]) -> dict[str, Ints]:
    """Make registers within one of their spans each, shared or per neuron (`size` 1: shared)."""
    return {
        key: pick.integers(*pick.choice(choices), (pick.choice((1, size)),)) for key, choices in spans.items()
    }


SHARES = ((400, 1800), (0, 0), (0, 4095), (4095, 4095), (1, 40))
THRESHOLDS = ((1, 60), (0, 3), (10, 400), (300, 9000), (131071, 131071))


def resonator(pick: Picker, size: int) -> dict[str, Ints]:
    """Make registers of a resonator: a turn of some steps with a loss, or anything."""
    bits = pick.choice((12, 12, 8, 3, 1))
    if pick.choice((True, True, False)):
        shape = (pick.choice((1, size)),)
        turn, length = (
            2 * np.pi / pick.integers(2, 17, shape),
            (1 << bits) * pick.integers(50, 100, shape) / 100,
        )
        found = {"cos_decay": np.fix(length * np.cos(turn)), "sin_decay": np.fix(length * np.sin(turn))}
        found = {key: value.astype(np.int64) for key, value in found.items()}
    else:
        span = ((-1 << bits, 1 << bits), (-4096, 4096), (-9, 9))
        found = registers(pick, size, cos_decay=span, sin_decay=span)
    shared = registers(pick, 1, vth=THRESHOLDS, state_exp=((6, 6), (0, 0), (1, 7)))
    return {**found, **shared, "decay_bits": np.array([bits])}


def adaptive(pick: Picker, size: int) -> dict[str, Ints]:
    """Make registers of neurons with adaptive threshold."""
    forgets = (*SHARES, (4096, 4096))
    return {
        **registers(pick, size, delta_i=SHARES, delta_v=forgets, delta_theta=forgets, delta_r=forgets),
        **registers(pick, size, theta_0=((1, 3000), (0, 0), (320, 320), (0, 8388544))),
        **registers(pick, 1, theta_step=((0, 0), (1, 900), (240, 240), (0, 8388544))),
        **registers(pick, size, bias_mant=((0, 0), (0, 0), (-4096, 4095), (0, 64)), bias_exp=((0, 7),)),
        **registers(pick, size, v_init=((0, 0), (0, 0), (-(2**23) + 1, 2**23 - 1))),
    }


def balanced(pick: Picker, size: int) -> dict[str, Ints]:
    """Make registers of balanced resonators: a turn of some steps with a loss, or anything."""
    found = resonator(pick, size)
    shift = 12 - int(found.pop("decay_bits")[0])
    found |= {key: np.clip(found[key] << shift, -4096, 4096) for key in ("cos_decay", "sin_decay")}
    del found["state_exp"]
    rises = ((64, 64 * 60), (0, 0), (1, 8388544), (0, 100))
    return {
        **found,
        **registers(pick, size, vth=THRESHOLDS, r_step=rises, delta_r=((300, 900), (0, 4096), (0, 0))),
        **registers(pick, size, refractory=((1, 1), (0, 1), (0, 0))),
        **registers(pick, size, damping=((500, 4095), (0, 0), (0, 4095)), damping_exp=((4, 12), (0, 31))),
    }


def adaptive_leaky(pick: Picker, size: int) -> dict[str, Ints]:
    """Make registers of adaptive leaky neurons."""
    forgets = (*SHARES, (4096, 4096))
    return {
        **registers(pick, size, delta_v=forgets, delta_theta=forgets),
        **registers(pick, size, theta_0=((1, 3000), (0, 0), (320, 320), (0, 8388544))),
        **registers(pick, size, theta_step=((0, 0), (1, 900), (240, 240), (0, 8388544))),
        **registers(pick, size, reset_exp=((0, 0), (0, 1), (1, 1))),
    }


def delta(pick: Picker, size: int) -> dict[str, Ints]:
    """Make registers of delta encoders."""
    shifts = registers(pick, 1, spike_exp=((0, 0), (6, 6), (0, 7)), state_exp=((0, 0), (6, 6), (0, 7)))
    top = (2**23 - 1) >> int(shifts["spike_exp"][0] + shifts["state_exp"][0])
    return {**shifts, **registers(pick, 1, vth=((0, min(9, top)), (0, 0), (0, top)), cum_error=((0, 1),))}


def sigma_delta(pick: Picker, size: int) -> dict[str, Ints]:
    """Make registers of sigma-delta neurons."""
    found = delta(pick, size)
    top = (2**23 - 1) >> int(found["spike_exp"][0] + found["state_exp"][0])
    near = min(30, top)
    bias = registers(pick, size, bias=((0, 0), (-near, near), (-top, top)))
    return {**found, **bias, **registers(pick, 1, relu=((0, 1),))}


def relay(pick: Picker, size: int) -> dict[str, Ints]:
    """Make the register of graded relays."""
    return registers(pick, 1, vth=((0, 3), (1, 60), (10, 4000)))


_REGISTERS = {
    "rf": resonator,
    "rf_iz": resonator,
    "atrlif": adaptive,
    "brf": balanced,
    "alif": adaptive_leaky,
    "sigma_delta": sigma_delta,
    "delta": delta,
    "sigma": lambda pick, size: {},
    "graded": relay,
    "graded_relu": relay,
}


def projection(
    pick: Picker,
    index: int,
    source: InputPort | Population,
    target: Population,
    limits: Limits,
    stock: bool = True,
) -> Projection:
    """Make an edge that reaches its target at or after the target's start step."""
    least = max(0, target.start_step - source.start_step - 1)
    delay = least + pick.choice((0, 0, 0, 0, 1, 1, 2, 3, pick.integer(0, max(0, limits.delay - least))))
    if isinstance(source, InputPort):
        graded, bits = source.kind == "graded", source.bits
    else:
        graded, bits = source.graded, min(24, source.largest_message.bit_length())
    message_bits = pick.choice((bits, bits, bits, 0) if graded else (0, 0, 0, 0, 0, 0, 0, bits))
    if isinstance(source, Population) and not source.spiking:
        message_bits = bits
    tables = tuple(
        table(pick, (target.size, source.size), message_bits, not stock and pick.choice((False, True)))
        for _ in range(pick.integer(1, limits.tables))
    )
    ports = len(target.kind.ports)
    port = pick.choice(range(ports)) if ports > 1 else 0
    edge = Projection(f"edge{index}", source.name, target.name, tables, delay, port)
    return sums_in_32_bits(edge, source.largest_message.bit_length()) if delay else edge


def sums_in_32_bits(edge: Projection, bits: int = 0) -> Projection:
    """Return the edge without right shifts of sums that may have left 32 bits.

    A chip takes these without a delay only, as in `edge_cases`: Lava's DelayDense adds in 64 bits where
    its Dense adds in 32.
    """
    tables = []
    for table in edge.tables:
        largest = np.abs(table.dense().astype(np.int64)).sum(axis=1).max() << max(bits, table.message_bits)
        wide = table.exponent < 0 and table.message_bits and largest >= 1 << 31
        tables.append(replace(table, exponent=0) if wide else table)
    return replace(edge, tables=tuple(tables))


def table(pick: Picker, shape: tuple[int, int], message_bits: int = 0, sparse: bool = False) -> WeightTable:
    """Make a weight table, dense or with zeros; `sparse`: stored sparsely."""
    bits, mode = pick.choice((8, 8, 7, 6, 4, 2, 1)), pick.choice(("mixed", "excitatory", "inhibitory"))
    low, high = weight_range(bits, mode)
    low, high = pick.choice(((low, high), (max(low, -20), min(high, 20))))
    raw = pick.integers(low, high, shape)
    if pick.choice((False, True)) or sparse:
        raw = raw * pick.integers(0, 1, shape)
    held = truncate_weights(raw, bits, mode)
    return WeightTable(
        csr_array(held) if sparse else held,
        pick.choice((0, 0, 7, 6, *WEIGHT_EXPONENTS)),
        bits,
        mode,
        message_bits,
    )


def output_port(pick: Picker, populations: list[Population]) -> OutputPort:
    """Make an output that reads any population."""
    read = pick.choice(populations)
    signal = pick.choice(("spikes", "membrane")) if read.spiking else "membrane"
    signal = signal if read.kind.membrane else "spikes"
    return OutputPort("out", read.name, signal, pick.choice(READOUTS), pick.choice(("classify", "regress")))


def data(pick: Picker, port: InputPort, samples: int, steps: int) -> Ints:
    """Make inputs (samples, steps, channels): dense, sparse, or constant over time (direct current)."""
    low, high = port.limits if port.kind == "graded" else (0, 1)
    held = pick.choice((False, False, True))
    rows = pick.integers(low, high, (samples, 1 if held else steps, *port.shape))
    if pick.choice((False, True)):
        rows = rows * pick.integers(0, 1, rows.shape)
    # A held input is switched off somewhere, else nothing tests what follows it.
    values = np.repeat(rows, steps, axis=1) if held else rows.copy()
    if held:
        values[:, pick.choice((steps, pick.integer(1, steps))) :] = 0
    return values


EDGE_SUMS = sorted(
    {
        sign * (turns * 2**17 + near)
        for sign in (1, -1)
        for near in (-1, 0, 1, 5)
        for turns in (0, 1, 2, 3, 4, 128, 256)
    }
)
"""Sums that arrive at, or next to, a full turn of u and a turn of 32 bits after the shift by 6."""

EDGE_BIASES = (0, 62, 63, 64, 65, -62, -63, -64, -65)
"""u is a multiple of 64; these take v to its bounds, and to the threshold, exactly and just beyond."""


def edge_cases() -> dict[str, Case]:
    """Return programs made by hand, by name."""
    edges = {f"edges {reset}": _edges(reset) for reset in ("value", "subtract", "none")}
    edges["edges by rule"] = _edges("subtract", reset_timing="pending")
    edges["edges at the threshold"] = _edges("value", comparison=">=", reset_timing="next_before")
    return {**edges, "held": _held(), "late": _late(), "ties": _ties(), "other ties": _other_ties()}


def _ties() -> Case:
    """Return neurons that lie exactly on a threshold, from one signed channel; and shifts that differ."""
    leaks = {"du": 4095, "dv": 0}
    pending = {"reset": "subtract", "reset_timing": "pending", "comparison": ">="}
    populations = (
        Population("pop0", (1,), "lif", leaks | {"vth": 10}, **pending),
        Population("pop1", (1,), "ternary", leaks | {"vth_hi": 20, "vth_lo": -4}),
        Population("pop2", (3,), "li", leaks | {"message_shift": [0, 6, 9]}),
        Population("pop3", (1,), "li", leaks),
    )
    wires = (WeightTable(np.ones((p.size, 1), np.int64), 0, 8, "excitatory", 24) for p in populations[:3])
    heard = WeightTable(np.array([[1, 20, 150]]), 0, 8, "excitatory", 24)
    edges = [Projection(f"edge{i}", "in0", f"pop{i}", (wire,)) for i, wire in enumerate(wires)]
    signs = WeightTable(np.array([[100]]), 0, 8, "mixed", 2)
    edges += [Projection("edge3", "pop2", "pop3", (heard,)), Projection("edge4", "pop1", "pop3", (signs,))]
    drive = np.array([20, 9, 1, -34, 20, -24, -3, -1, 20])
    return Case(
        Program(
            "loihi2",
            1,
            populations,
            tuple(edges),
            (InputPort("in0", (1,), kind="graded", bits=24, signed=True),),
            (OutputPort("out", "pop3", "membrane"),),
        ),
        {"in0": drive[None, :, None]},
    )


def _other_ties() -> Case:
    """Return neurons of the other models exactly at their thresholds, and a message of -2**31."""
    quarter = {"cos_decay": 0, "sin_decay": 4096, "state_exp": 0, "vth": 2}
    forgets = {"delta_i": 4095, "delta_v": 4096, "delta_theta": 4096, "delta_r": 4096}
    made = {
        "rf": quarter,
        "rf_iz": quarter,
        "atrlif": forgets | {"theta_0": 128, "theta_step": 0},
        "sigma_delta": {"vth": 3},
        "delta": {"vth": 3},
        "graded": {"vth": 3},
        "graded_relu": {"vth": 3},
    }
    populations = [Population(model, (1,), model, registers) for model, registers in made.items()]
    populations.append(Population("far", (1,), "graded", {}))
    wire = WeightTable(np.array([[1]]), 0, 8, "excitatory", 24)
    wide = WeightTable(np.array([[128]]), 1, 8, "excitatory", 24)
    edges = tuple(
        Projection(f"to {p.name}", "in0", p.name, (wide if p.name == "far" else wire,)) for p in populations
    )
    drive = np.array([2, 0, 0, 0, 0, 3, -5, 6, -3, 3, 1, 2, -(1 << 23), 0])
    ports = (InputPort("in0", (1,), kind="graded", bits=24, signed=True),)
    program = Program("loihi2", 1, tuple(populations), edges, ports, (OutputPort("out", "delta"),))
    return Case(program, {"in0": drive[None, :, None]})


def _late() -> Case:
    """Return neurons whose late reset takes them below the membrane's range, and just not below it."""
    populations = tuple(
        Population(
            f"pop{i}",
            (3,),
            "lif",
            {"du": 4095, "dv": 4096, "vth": [131071, 65535, 40], "bias_mant": [63, 0, -64]},
            "subtract",
            reset_timing="next_after",
            spikes_per_step=words,
        )
        for i, words in enumerate(CHOICES["spikes_per_step"])
    )
    wire = WeightTable(np.ones((3, 1), np.int64), 0, 8, "excitatory", 24)
    edges = tuple(Projection(f"edge{i}", "in0", p.name, (wire,)) for i, p in enumerate(populations))
    drive = np.array([131071, -131071, 65536, -65535, 81, -131071, 0, 131071, 131071, -65537])
    return Case(
        Program(
            "loihi2",
            1,
            populations,
            edges,
            (InputPort("in0", (1,), kind="graded", bits=24, signed=True),),
            (OutputPort("out", "pop1"),),
        ),
        {"in0": drive[None, :, None]},
    )


def _held() -> Case:
    """Return direct current that differs between samples only, or only in its last channel."""
    pick = SeededPicker(0)
    ports = (InputPort("in0", (3,), kind="graded", bits=8, signed=True),)
    leaks = {
        "du": np.array([1000]),
        "dv": np.array([100]),
        "bias_mant": np.array([3]),
        "bias_exp": np.array([2]),
        "v_init": np.array([5]),
    }
    populations = (
        Population("pop0", (4,), "lif", leaks | {"vth": np.array([300])}),
        Population("pop1", (2,), "li", leaks),
    )
    edges = tuple(
        Projection(f"edge{i}", "in0", p.name, (table(pick, (p.size, 3), 8),) * 2)
        for i, p in enumerate(populations)
    )
    held = np.repeat([[[90, 3, 5]], [[-7, 60, 9]], [[-7, 60, 99]]], 8, axis=1)
    held[:, 5, 2] += 1
    return Case(
        Program("loihi2", 1, populations, edges, ports, (OutputPort("out", "pop1", "membrane"),)),
        {"in0": np.concatenate([held, held[::-1]])},
    )


def _edges(reset: str, **rule: str) -> Case:
    """Return a program whose neurons meet the edges of wrap, saturation and threshold exactly."""
    sums, biases = (np.array(grid).reshape(-1) for grid in np.meshgrid(EDGE_SUMS, EDGE_BIASES, indexing="ij"))
    n = len(EDGE_SUMS)
    wires = np.repeat(np.eye(n, dtype=np.int64), len(EDGE_BIASES), axis=0)
    # Each sum is 4 * first + second message, since a message holds no more than 24 bits and a sign.
    table = WeightTable(np.hstack([4 * wires, wires]), 0, 8, "excitatory", 24)
    # Sums far beyond 32 bits, wrapped before the right shift: another table of the same edge.
    large = np.hstack([255 * np.tril(np.ones((n, n), np.int64)), np.zeros((n, n), np.int64)])
    wide = WeightTable(np.repeat(large, len(EDGE_BIASES), axis=0), -8, 8, "excitatory", 24)
    settings = {
        "turn": (4095, 0, np.array([131071])),
        "decay": (2047, 300, np.array([131071])),
        "threshold": (4095, 0, np.clip(sums, 0, 131071)),
        "wide": (0, 4095, np.array([0])),
    }
    populations = tuple(
        Population(
            name,
            (len(sums),),
            "lif",
            {
                "du": np.array([du]),
                "dv": np.array([dv]),
                "vth": vth,
                "bias_mant": biases,
                "bias_exp": np.array([0]),
                "v_init": np.array([0]),
            },
            reset,
            start_step=1,
            **rule,
        )
        for name, (du, dv, vth) in settings.items()
    )
    program = Program(
        "loihi2",
        1,
        populations,
        tuple(
            Projection(f"to {p.name}", "in0", p.name, (table, wide) if p.name == "wide" else (table,))
            for p in populations
        ),
        (InputPort("in0", (2 * n,), kind="graded", bits=24, signed=True),),
        (OutputPort("out", "turn"),),
    )
    row = np.concatenate([np.array(EDGE_SUMS) >> 2, np.array(EDGE_SUMS) & 3])
    return Case(program, {"in0": np.array([[row, 0 * row, row, row, 0 * row]])})


def custom_ties() -> Case:
    """Return resonators and adaptive leaky neurons at their thresholds and at the ends of 24 bits."""
    still = {"cos_decay": 4096, "sin_decay": 0, "vth": 2, "r_step": 64, "delta_r": 4096, "refractory": 1}
    turn = {"cos_decay": 0, "sin_decay": 4096, "vth": 131071, "r_step": 0}
    slow = {"delta_v": 0, "delta_theta": 0, "theta_0": 128, "theta_step": 64}
    top = (1 << 23) - 64
    made = {
        "still": ("brf", still),
        "turned": ("brf", turn),
        "risen": ("brf", still | {"delta_r": 0, "r_step": top, "refractory": 0}),
        "leaky": ("alif", slow),
        "doubled": ("alif", slow | {"reset_exp": 1}),
        "lifted": ("alif", slow | {"theta_0": 0, "theta_step": top}),
    }
    populations = [Population(name, (1,), model, registers) for name, (model, registers) in made.items()]
    one = WeightTable(np.array([[1]]), 0, 8, "excitatory", 24)
    edges = tuple(Projection(f"to {p.name}", "in0", p.name, (one,)) for p in populations)
    drive = np.array([2, 1, 0, -1, 131071, 131071, 0, -131071, -131071, -131071, 3, 131071, 1 << 22, 2, 0])
    ports = (InputPort("in0", (1,), kind="graded", bits=24, signed=True),)
    program = Program("loihi2", 1, tuple(populations), edges, ports, (OutputPort("out", "leaky"),))
    return Case(program, {"in0": drive[None, :, None]})
