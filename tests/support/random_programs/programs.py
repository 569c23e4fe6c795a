"""Random programs with inputs, from a seed or from hypothesis."""

from __future__ import annotations

from dataclasses import dataclass, replace

from hypothesis import strategies as st
from support.random_programs.parts import (
    data,
    input_port,
    output_port,
    population,
    projection,
    sums_in_32_bits,
)
from support.random_programs.pickers import SMALL, DrawnPicker, Ints, Limits, Picker, SeededPicker

from snn_compile.targets.program.program import Population, Program


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
        "loihi2", 2, tuple(populations), tuple(projections), ports, (output_port(pick, populations),)
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
