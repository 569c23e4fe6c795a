"""Twenty kinds of fault, planted in programs of random networks: `PLANTS` maps a name to its planter.

A planter takes a seed and returns the broken program, the network it should be, data, and what has to be
found: the words a cause may have, its place, and the index within it where there is one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from snn_compile.compiler import Options, compile_graph
from snn_compile.compiler.contract.contract import Contract
from snn_compile.compiler.network import Network, Population, Port, Projection
from snn_compile.runtime import simulate
from snn_compile.targets.chips.chip import load_chip
from snn_compile.targets.chips.rounding import round_weights
from snn_compile.targets.integer import weight_range
from snn_compile.targets.program.program import InputPort, Program
from snn_compile.targets.program.weights import WeightTable

SAMPLES, STEPS = 16, 24


@dataclass(frozen=True, eq=False)
class Plant:
    """A broken program, and what is to be found."""

    program: Program
    network: Network
    data: np.ndarray
    kinds: tuple[str, ...]
    place: str
    index: tuple[int, ...] | None = None


def population(rng: np.random.Generator, name: str, size: int, **given: Any) -> Population:
    rule = {
        key: given.pop(key) for key in ("reset", "reset_timing", "comparison", "fixed_scale") if key in given
    }
    parameters = {
        "current_decay": np.ones(1),
        "voltage_decay": rng.uniform(0.15, 0.4, size),
        "threshold": rng.uniform(0.6, 0.9, size),
        "bias": np.zeros(1),
        "input_bias": np.zeros(1),
        "v_init": np.zeros(1),
        "offset": np.zeros(1),
    }
    return Population(name, (size,), "lif", {**parameters, **given}, **rule)


def chain(rng: np.random.Generator, graded: bool = False, **hidden: Any) -> tuple[Network, np.ndarray]:
    """in -> h -> o, often with a recurrent edge on h; `hidden` are items of h."""
    inputs, h, o = (int(rng.integers(low, high)) for low, high in ((5, 9), (8, 16), (3, 6)))
    if callable(hidden.get("make")):
        hidden = {**hidden.pop("make")(rng, h), **hidden}
    edges = [
        Projection("in/h", "in", "h", rng.normal(0, 1.0, (h, inputs)) * 1.6 / np.sqrt(inputs)),
        Projection("h/o", "h", "o", rng.normal(0.1, 1.0, (o, h)) * 1.8 / np.sqrt(h)),
    ]
    if rng.random() < 0.5:
        edges.append(Projection("h/h", "h", "h", rng.normal(0, 1.0, (h, h)) * 0.7 / np.sqrt(h), 1))
    populations = (population(rng, "h", h, **hidden), population(rng, "o", o))
    network = made(populations, edges, inputs, "o")
    shape = (SAMPLES, STEPS, inputs)
    return network, rng.uniform(0, 1, shape) if graded else (rng.random(shape) < 0.4).astype(float)


def made(populations: Any, edges: list[Projection], inputs: int, last: str) -> Network:
    shape = next(p.shape for p in populations if p.name == last)
    ports = (Port("in", (inputs,)),), (Port("out", shape, last),)
    return Network(tuple(populations), tuple(edges), *ports, Contract(dt=1.0))


def with_population(program: Program, name: str, **changed: Any) -> Program:
    """Change fields of a population, or its parameters."""

    def change(p: Any) -> Any:
        fields = {key: value for key, value in changed.items() if key not in p.parameters}
        parameters = {**p.parameters, **{k: v for k, v in changed.items() if k in p.parameters}}
        return replace(p, parameters=parameters, **fields)

    return replace(
        program, populations=tuple(change(p) if p.name == name else p for p in program.populations)
    )


def with_projection(program: Program, name: str, **changed: Any) -> Program:
    return replace(
        program,
        projections=tuple(replace(e, **changed) if e.name == name else e for e in program.projections),
    )


def projection(program: Program, name: str) -> Any:
    return next(e for e in program.projections if e.name == name)


def registers(program: Program, name: str) -> dict[str, np.ndarray]:
    """A population's parameters, one value a neuron, to be written to."""
    p = program.population(name)
    return {key: np.broadcast_to(value, (p.size,)).copy() for key, value in p.parameters.items()}


def total(program: Program, name: str) -> np.ndarray:
    """A projection's weights over all tables, exponents applied."""
    return sum(t.dense() * 2.0**t.exponent for t in projection(program, name).tables)


def one_table(program: Program, name: str, values: np.ndarray, bits: int | None = None) -> Program:
    """Replace a projection's tables by one that holds `values` as finely as they did, or in `bits`."""
    tables = projection(program, name).tables
    bits = bits or min(tables[0].bits + len(tables) - 1, 8)
    rounded = round_weights(values, bits, load_chip("loihi2").formats.weight_exponent)
    message_bits = projection(program, name).tables[0].message_bits
    table = WeightTable(rounded.weights, rounded.exponent, bits, rounded.sign_mode, message_bits)
    return with_projection(program, name, tables=(table,))


def compiled(rng: np.random.Generator, network: Network, data: np.ndarray) -> Program:
    options = Options(weight_bits=int(rng.integers(5, 9)), tables=str(rng.choice(["one", "sign"])))
    return compile_graph(network, options=options, calibration=data)


def reset_kind(rng: np.random.Generator) -> Plant:
    network, data = chain(rng)
    program = with_population(compiled(rng, network, data), "h", reset="subtract")
    return Plant(program, network, data, ("reset kind",), "h")


def reset_timing(rng: np.random.Generator) -> Plant:
    network, data = chain(rng, reset=str(rng.choice(["value", "subtract"])))
    program = with_population(compiled(rng, network, data), "h", reset_timing="next_after")
    return Plant(program, network, data, ("reset timing",), "h")


def comparison(rng: np.random.Generator) -> Plant:
    """Whole weights, thresholds and no memory, so that membranes lie on thresholds."""
    inputs, h = int(rng.integers(5, 9)), int(rng.integers(8, 14))
    exact = {"threshold": np.full(1, 64.0), "voltage_decay": np.ones(1), "fixed_scale": 1.0}
    populations = (population(rng, "h", h, **exact), population(rng, "o", 4))
    edges = [
        Projection("in/h", "in", "h", rng.integers(-1, 3, (h, inputs)) * 32.0),
        Projection("h/o", "h", "o", rng.normal(0.1, 1, (4, h)) * 1.5 / np.sqrt(h)),
    ]
    network = made(populations, edges, inputs, "o")
    data = (rng.random((SAMPLES, STEPS, inputs)) < 0.4).astype(float)
    program = with_population(compiled(rng, network, data), "h", comparison=">=")
    return Plant(program, network, data, ("comparison",), "h")


def clipped_weight(rng: np.random.Generator) -> Plant:
    """The network's largest weight is three times what the tables reach."""
    network, data = chain(rng)
    program = compiled(rng, network, data)
    edge = next(e for e in network.projections if e.name == "in/h")
    at = np.unravel_index(int(np.argmax(edge.weight)), edge.weight.shape)
    tables = []
    for table in projection(program, "in/h").tables:
        weights = table.dense().astype(np.int64)
        if table.sign_mode != "inhibitory":
            weights[at] = weight_range(table.bits, table.sign_mode)[1]
        tables.append(replace(table, weights=weights))
    weight = np.array(edge.weight)
    weight[at] *= 3
    edges = tuple(replace(e, weight=weight) if e is edge else e for e in network.projections)
    program = with_projection(program, "in/h", tables=tuple(tables))
    index = tuple(int(i) for i in at)
    return Plant(program, replace(network, projections=edges), data, ("clipped weight",), "in/h", index)


def flipped_sign(rng: np.random.Generator) -> Plant:
    network, data = chain(rng)
    program = compiled(rng, network, data)
    values = total(program, "h/o")
    at = np.unravel_index(int(np.argmax(np.abs(values))), values.shape)
    values[at] *= -1
    index = tuple(int(i) for i in at)
    return Plant(one_table(program, "h/o", values), network, data, ("flipped sign",), "h/o", index)


def dropped_bias(rng: np.random.Generator) -> Plant:
    network, data = chain(rng, make=lambda r, n: {"bias": r.normal(0, 0.2, n)})
    program = with_population(compiled(rng, network, data), "h", bias_mant=np.zeros(1, np.int64))
    return Plant(program, network, data, ("dropped bias",), "h")


def dropped_input_bias(rng: np.random.Generator) -> Plant:
    """A bias behind a synaptic filter goes through an always-on neuron; its weights are lost."""
    network, data = chain(
        rng, make=lambda r, n: {"input_bias": r.normal(0, 0.2, n), "current_decay": np.full(1, 0.6)}
    )
    program = compiled(rng, network, data)
    name = next(e.name for e in program.projections if e.source == "h.bias")
    program = one_table(program, name, np.zeros_like(total(program, name)))
    return Plant(program, network, data, ("dropped bias",), name)


def shifted_delay(rng: np.random.Generator) -> Plant:
    network, data = chain(rng)
    program = compiled(rng, network, data)
    name = str(rng.choice([e.name for e in program.projections if e.name != "in/h"]))
    late = projection(program, name).delay_steps + 1
    return Plant(with_projection(program, name, delay_steps=late), network, data, ("wrong delay",), name)


def misaligned_branch(rng: np.random.Generator) -> Plant:
    """in -> a -> o, two steps late, and in -> b -> c -> o: a starts one step later than it should."""
    inputs, n = int(rng.integers(5, 9)), int(rng.integers(6, 10))
    biased = {"bias": rng.normal(0.1, 0.1, n)}
    populations = [population(rng, name, n, **biased) for name in "abc"] + [population(rng, "o", 4)]

    def edge(a: str, b: str, rows: int, columns: int) -> Projection:
        return Projection(f"{a}/{b}", a, b, rng.normal(0.1, 1, (rows, columns)) * 1.6 / np.sqrt(columns))

    edges = [
        replace(edge("in", "a", n, inputs), delay_steps=2),
        edge("in", "b", n, inputs),
        edge("b", "c", n, n),
    ]
    edges += [edge("a", "o", 4, n), edge("c", "o", 4, n)]
    network = made(populations, edges, inputs, "o")
    data = (rng.random((SAMPLES, STEPS, inputs)) < 0.4).astype(float)
    program = compiled(rng, network, data)
    program = with_population(program, "a", start_step=program.start_step("a") + 1)
    return Plant(program, network, data, ("misaligned start",), "a")


def rescaled(program: Program, network: Network, name: str) -> Program:
    """Multiply everything in a population by the largest power of two that its registers hold.

    It is the same network, and its states leave 24 bits.
    """
    p = program.population(name)
    tables = [t for e in program.projections if e.target == name for t in e.tables]
    shift = min(int(np.log2(131071 / p.parameters["vth"].max())), 7 - max(t.exponent for t in tables))
    factor = 1 << shift
    scale = p.scale * factor
    exact = network.population(name).parameters["threshold"] * scale / 64
    vth = np.minimum(np.rint(exact), 131071).astype(int)
    program = with_population(program, name, vth=vth, scale=scale)
    for e in program.projections:
        if e.target == name:
            tables = tuple(replace(t, exponent=t.exponent + shift) for t in e.tables)
            program = with_projection(program, e.name, tables=tables)
    return program


def saturating(rng: np.random.Generator) -> Plant:
    """Membranes of many thresholds, which soft resets pay off when the input is over."""
    network, data = chain(rng, reset="subtract", voltage_decay=np.full(1, 0.02))
    data[:, STEPS // 2 :] = 0
    edges = tuple(
        replace(e, weight=np.abs(e.weight) * 1.2) if e.name == "in/h" else e
        for e in network.projections
        if e.name != "h/h"
    )
    network = replace(network, projections=edges)
    program = compiled(rng, network, data)
    return Plant(rescaled(program, network, "h"), network, data, ("v saturates high",), "h")


def wrapping(rng: np.random.Generator) -> Plant:
    """Currents that last and membranes that do not: u is larger than v."""
    network, data = chain(rng, current_decay=np.full(1, 0.1), voltage_decay=np.full(1, 0.95))
    edges = tuple(
        replace(e, weight=np.abs(e.weight)) if e.name == "in/h" else e
        for e in network.projections
        if e.name != "h/h"
    )
    network = replace(network, projections=edges)
    program = compiled(rng, network, data)
    return Plant(rescaled(program, network, "h"), network, data, ("u wraps",), "h")


def voltage_decay(rng: np.random.Generator) -> Plant:
    network, data = chain(rng)
    program = compiled(rng, network, data)
    dv = registers(program, "h")["dv"]
    return Plant(with_population(program, "h", dv=dv // 2), network, data, ("wrong voltage decay",), "h")


def current_decay(rng: np.random.Generator) -> Plant:
    network, data = chain(rng, make=lambda r, n: {"current_decay": r.uniform(0.3, 0.6, n)})
    program = compiled(rng, network, data)
    du = registers(program, "h")["du"]
    return Plant(
        with_population(program, "h", du=(du * 1.5).astype(int)), network, data, ("wrong current decay",), "h"
    )


def one_threshold(rng: np.random.Generator) -> Plant:
    network, data = chain(rng)
    program = compiled(rng, network, data)
    vth = registers(program, "h")["vth"]
    fired = simulate(program, data, record=("h",)).spikes("h").sum(axis=(0, 1))
    neuron = int(rng.choice(np.flatnonzero(fired > np.median(fired))))
    vth[neuron] = vth[neuron] * 0.6
    program = with_population(program, "h", vth=vth)
    return Plant(program, network, data, ("wrong threshold",), "h", (neuron,))


def dead(rng: np.random.Generator) -> Plant:
    network, data = chain(rng)
    program = with_population(compiled(rng, network, data), "h", vth=np.array([131071]))
    return Plant(program, network, data, ("wrong threshold",), "h")


def saturated(rng: np.random.Generator) -> Plant:
    """Drives above 0 and thresholds that few reach, until they are 0."""
    network, data = chain(rng, threshold=np.full(1, 4.0))
    edges = tuple(
        replace(e, weight=np.abs(e.weight)) if e.name == "in/h" else e
        for e in network.projections
        if e.name != "h/h"
    )
    network = replace(network, projections=edges)
    program = with_population(compiled(rng, network, data), "h", vth=np.array([0]))
    return Plant(program, network, data, ("wrong threshold",), "h")


def zeroed(rng: np.random.Generator) -> Plant:
    network, data = chain(rng)
    program = compiled(rng, network, data)
    name = str(rng.choice([e.name for e in program.projections]))
    return Plant(
        one_table(program, name, 0 * total(program, name)), network, data, ("zeroed projection",), name
    )


def input_scale(rng: np.random.Generator) -> Plant:
    network, data = chain(rng, graded=True)
    program = compiled(rng, network, data)
    port: InputPort = replace(program.inputs[0], scale=program.inputs[0].scale * 0.6)
    return Plant(replace(program, inputs=(port,)), network, data, ("input scale",), "in")


def initial_state(rng: np.random.Generator) -> Plant:
    network, data = chain(rng, make=lambda r, n: {"v_init": r.uniform(-0.6, 0.6, n)})
    program = with_population(compiled(rng, network, data), "h", v_init=np.array([0]))
    return Plant(program, network, data, ("dropped initial state",), "h")


def permuted(rng: np.random.Generator) -> Plant:
    network, data = chain(rng)
    program = compiled(rng, network, data)
    rows = projection(program, "in/h").tables[0].shape[0]
    a, b = sorted(int(i) for i in rng.choice(rows, 2, replace=False))
    order = np.arange(rows)
    order[[a, b]] = b, a
    tables = tuple(
        replace(t, weights=t.dense()[order].astype(np.int64)) for t in projection(program, "in/h").tables
    )
    program = with_projection(program, "in/h", tables=tables)
    return Plant(program, network, data, ("permuted weights",), "in/h", (a,))


def low_bits(rng: np.random.Generator) -> Plant:
    network, data = chain(rng)
    program = compiled(rng, network, data)
    values = one_table(program, "in/h", total(program, "in/h"), 2)
    return Plant(values, network, data, ("weight rounding", "coarse weights"), "in/h")


PLANTS: dict[str, Callable[[np.random.Generator], Plant]] = {
    "wrong reset kind": reset_kind,
    "wrong reset timing": reset_timing,
    "wrong comparison": comparison,
    "one clipped weight": clipped_weight,
    "one flipped sign": flipped_sign,
    "dropped bias": dropped_bias,
    "dropped bias behind a synaptic filter": dropped_input_bias,
    "shifted delay": shifted_delay,
    "misaligned branch": misaligned_branch,
    "saturating layer": saturating,
    "wrap of u": wrapping,
    "wrong voltage decay": voltage_decay,
    "wrong synaptic decay": current_decay,
    "threshold of one neuron": one_threshold,
    "dead population": dead,
    "saturated population": saturated,
    "zeroed projection": zeroed,
    "wrong input scale": input_scale,
    "lost initial state": initial_state,
    "permuted weights": permuted,
    "too few bits": low_bits,
}


def plant(name: str, seed: int) -> Plant:
    """Plant a fault by name in a random network."""
    return PLANTS[name](np.random.default_rng([seed, list(PLANTS).index(name)]))
