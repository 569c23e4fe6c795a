"""Random parts of a program: ports, populations, projections, tables and data."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.sparse import csr_array
from support.random_programs.pickers import READOUTS, Ints, Limits, Picker

from snn_compile.targets.integer import truncate_weights, weight_range
from snn_compile.targets.program.program import InputPort, OutputPort, Population, Projection, WeightTable
from snn_compile.targets.program.rule import CHOICES

BIAS_EXPONENTS, WEIGHT_EXPONENTS = range(8), range(-8, 8)


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


def rates(pick: Picker) -> dict[str, Ints]:
    """Make a table of rates, of the logistic function or of anything, and the width of its steps."""
    size, shift = pick.choice((64, 256, 8, 2, 1024)), pick.choice((5, 9, 0, 12, 23))
    if pick.choice((True, True, False)):
        table = np.rint(4096 / (1 + np.exp(-16 * (np.arange(size) + 0.5 - size / 2) / size))).astype(np.int64)
    else:
        table = pick.integers(*pick.choice(((0, 4096), (4000, 4096), (0, 9))), (size,))
    return {"rates": table, "rate_shift": np.array([shift])}


def liquid(pick: Picker, size: int) -> dict[str, Ints]:
    """Make registers of liquid neurons."""
    gates = ((0, 0), (-9999, 9999), (-300, 300), (-(2**23) + 1, 2**23 - 1))
    biases = ((0, 0), (-900, 900), (0, 6000), (-(2**23) + 1, 2**23 - 1), (2**23 - 9, 2**23 - 1))
    return {
        **rates(pick),
        **registers(pick, size, theta_0=((1, 3000), (0, 0), (320, 320), (0, 8388544))),
        **registers(pick, size, theta_step=((0, 900), (0, 0), (1, 20000), (0, 8388544))),
        **registers(pick, size, bias=biases, membrane_bias=gates, adaptation_bias=gates),
    }


def liquid_membrane(pick: Picker, size: int) -> dict[str, Ints]:
    """Make registers of liquid neurons that send their membranes."""
    return liquid(pick, size) | registers(pick, 1, message_shift=((0, 0), (3, 12), (10, 23)))


def liquid_adaptation(pick: Picker, size: int) -> dict[str, Ints]:
    """Make registers of the adaptations of liquid neurons."""
    found = liquid(pick, size)
    kept = {key: found[key] for key in ("rates", "rate_shift", "adaptation_bias")}
    return kept | registers(pick, 1, message_shift=((0, 0), (3, 12), (10, 23)))


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
    "lsn": liquid,
    "lsn_membrane": liquid_membrane,
    "lsn_adaptation": liquid_adaptation,
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
