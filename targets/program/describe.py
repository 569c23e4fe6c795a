"""A program as text: what a person reads and a golden test holds."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from snn_compile.targets.program.population import Population
from snn_compile.targets.program.program import Program
from snn_compile.targets.program.rule import CHOICES, Rule


def describe(program: Program) -> str:
    """Return the whole program as text, without the values of large arrays and without provenance."""
    lines = [
        f"program for {program.chip} version {program.chip_version}, latency {program.latency_steps} steps"
        + (f", {program.period} device steps per logical step" if program.period > 1 else "")
    ]
    if program.mapping_note:
        lines.append(program.mapping_note)
    for port in program.inputs:
        coding = (
            f"{'signed ' if port.signed else ''}{port.bits} bits, scale {port.scale:.10g}"
            if port.kind == "graded"
            else "0 or 1"
        )
        lines.append(
            f"input {port.name} {_shape(port.shape)} {port.kind} ({coding}), start {port.start_step}"
        )
    for p in program.populations:
        lines.append(
            f"population {p.name} {_shape(p.shape)} {p.model}{_rule(p)}, "
            f"start {p.start_step}, scale {p.scale:.10g}"
        )
        lines += [f"    {key} {_values(array)}" for key, array in p.parameters.items()]
    for edge in program.projections:
        ports = program.population(edge.target).kind.ports
        reached = f" {ports[edge.port]}" if len(ports) > 1 else ""
        lines.append(
            f"projection {edge.name}: {edge.source} -> {edge.target}{reached}, delay {edge.delay_steps}"
        )
        for table in edge.tables:
            w = table.weights.data if table.sparse else table.weights
            stored = "sparse " if table.sparse else ""
            low, high = min(w.min(initial=0), 0), max(w.max(initial=0), 0)
            lines.append(
                f"    {table.shape[0]}x{table.shape[1]} {stored}{table.bits} bits {table.sign_mode}, "
                f"exponent {table.exponent}, messages of {table.message_bits} bits, "
                f"{table.synapses} non-zero, {low}..{high}, sum {int(w.sum())}"
            )
    lines += [
        f"output {port.name}: {port.signal} of {port.population}, {port.readout}, {port.task}"
        + (f", without the first {port.skip} steps" if port.skip else "")
        for port in program.outputs
    ]
    for core in program.cores:
        held = ", ".join(f"{name}[{start}:{stop}]" for name, start, stop in core.slices)
        used = ", ".join(f"{key} {value}" for key, value in core.use.items())
        chip = f" of chip {core.index // program.target.cores}" if program.chips > 1 else ""
        lines.append(f"core {core.index}{chip} at tile {core.tile[0]},{core.tile[1]}: {held} ({used})")
    for route in program.routes:
        origin = "host" if route.core < 0 else f"core {route.core}"
        lines.append(
            f"route {route.source}[{route.start}:{route.stop}] from {origin} to cores "
            + ", ".join(map(str, route.destinations))
        )
    return "\n".join(lines) + "\n"


def _rule(population: Population) -> str:
    """Return the kind of reset, and what else of the rule is not that of Lava's LIF; "" without a rule."""
    if not population.kind.ruled:
        return ""
    stock = Rule()
    other = [
        f"{key.replace('_', ' ')} {getattr(population, key)}"
        for key in CHOICES
        if key != "reset" and getattr(population, key) != getattr(stock, key)
    ]
    return ", ".join(["", f"reset {population.reset}", *other])


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _values(array: npt.NDArray[Any]) -> str:
    if array.size <= 4:
        return " ".join(map(str, array.tolist()))
    return f"{array.size} values, {array.min()}..{array.max()}, sum {int(array.sum())}"
