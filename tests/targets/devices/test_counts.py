"""Counts against a count in plain loops, over random programs."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from support import random_programs

from snn_compile.targets.devices.device import execute
from snn_compile.targets.program.program import (
    InputPort,
    OutputPort,
    Population,
    Program,
    Projection,
    WeightTable,
)

PROGRAMS = range(7000, 7080)


def raster(program: Program, inputs: Any, device_steps: int, steps: int) -> dict[str, Any]:
    """Return messages and spikes over all device steps, from a run long enough to show them.

    A run of `device_steps` logical steps on inputs that end after `steps` shows what a run of `steps`
    does while it drains.
    """
    longer = {
        name: np.pad(array, ((0, 0), (0, device_steps - steps), (0, 0))) for name, array in inputs.items()
    }
    names = [p.name for p in program.senders]
    heard = [p.name for p in program.senders if not p.spiking]
    record = execute(
        program,
        longer,
        "oracle",
        record=[name for name in names if name not in heard],
        probes=[f"{name}.v" for name in heard],
    )
    sent = {name: record.spikes(name) for name in names if name not in heard}
    for name in heard:
        sent[name] = record.states(f"{name}.v") >> program.population(name).parameters["message_shift"]
    return {**longer, **{name: sent[name] for name in names}}


def brute_force(program: Program, inputs: Any) -> dict[str, Any]:
    """Count one event at a time. Steps are logical: those of a source are counted from its start."""
    batch, steps = next(iter(inputs.values())).shape[:2]
    end = program.latency_steps + (steps - 1) * program.period + 1
    found: dict[str, Any] = {
        "samples": batch,
        "steps": steps,
        "graded_synops": 0,
        "input_messages": 0,
        "drain_spikes": 0,
        "drain_synops": 0,
        "spikes": Counter(),
        "synops": Counter(),
        "drain_updates": 0,
        "neuron_spikes": {},
        "updates": {},
        "active_updates": {},
    }
    reached: dict[str, set[tuple[int, int, int]]] = {p.name: set() for p in program.populations}
    rasters = raster(program, inputs, end, steps)
    for name, sent in rasters.items():
        start, population = program.start_step(name), name not in inputs
        found["neuron_spikes"][name] = [0] * program.size(name)
        for sample, step, neuron in np.argwhere(sent).tolist():
            if population and start + step * program.period >= end:
                continue
            drain = step >= steps
            if not drain:
                found["neuron_spikes"][name][neuron] += 1
            if population:
                spiking = program.population(name).spiking
                found["drain_spikes"] += drain and spiking
                if spiking:
                    found["spikes"][name] += not drain
            else:
                found["input_messages"] += 1
            for edge in program.projections:
                for table in edge.tables if edge.source == name else ():
                    for target in np.flatnonzero(table.dense()[:, neuron]).tolist():
                        found["drain_synops"] += drain
                        found["synops"][edge.name] += not drain
                        found["graded_synops"] += not drain and any(t.message_bits for t in edge.tables)
                        at = start + step * program.period + 1 + edge.delay_steps
                        at = (at - program.start_step(edge.target)) / program.period
                        if not drain and at < steps:
                            reached[edge.target].add((sample, at, target))
    for p in program.populations:
        found["updates"][p.name] = batch * steps * p.size
        found["active_updates"][p.name] = len(reached[p.name])
        active = range(p.start_step, end, program.period)
        found["drain_updates"] += batch * p.size * (len(active) - steps)
        if p.spiking:
            found["spikes"][p.name] += 0
    for edge in program.projections:
        found["synops"][edge.name] += 0
    return found


def as_lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: as_lists(item) for key, item in value.items()}
    return value.tolist() if isinstance(value, np.ndarray) else value


@pytest.mark.parametrize("index", range(4))
def test_random_programs(index: int) -> None:
    totals: Counter[str] = Counter()
    for seed in PROGRAMS[index::4]:
        case = random_programs.case(seed, random_programs.SHORT)
        counts = execute(case.program, case.inputs, "loihi2-sim").counts
        wanted = brute_force(case.program, case.inputs)
        assert as_lists(vars(counts)) == as_lists(wanted), f"seed {seed}"
        totals.update({key: value if isinstance(value, int) else 0 for key, value in wanted.items()})
        totals["heard"] += any(not p.spiking for p in case.program.senders)
        totals["sparse"] += any(t.sparse for edge in case.program.projections for t in edge.tables)
        totals["several"] += any(p.spikes_per_step == "floor" for p in case.program.populations)
        totals["active"] += counts.total_active_updates
        totals["idle"] += counts.total_updates - counts.total_active_updates
    keys = ("graded_synops", "drain_spikes", "drain_synops", "drain_updates", "active", "idle")
    for key in (*keys, "heard", "sparse", "several"):
        assert totals[key] > 0, key


def test_a_program_counted_by_hand() -> None:
    registers = {"du": [4095], "dv": [0], "vth": [10], "bias_mant": [0], "bias_exp": [0], "v_init": [0]}
    values = {key: np.array(value) for key, value in registers.items()}
    weights = (np.array([[20, 0], [20, 20], [0, 2]]), np.array([[2, 0], [0, 0], [0, 0]]))
    program = Program(
        "loihi2",
        2,
        (
            Population("a", (3,), "lif", values, start_step=1),
            Population("b", (1,), "lif", values, start_step=2),
        ),
        (
            Projection("xa", "x", "a", tuple(WeightTable(w) for w in weights)),
            Projection("ab", "a", "b", (WeightTable(np.array([[20, 0, 20]])),)),
        ),
        (InputPort("x", (2,)),),
        (OutputPort("y", "b"),),
    )
    # x0 at step 0, both at step 3 of 4: neurons a0 and a1 spike at once, each time; b after a0.
    inputs = np.array([[[1, 0], [0, 0], [0, 0], [1, 1]]])
    counts = execute(program, inputs, "oracle").counts
    assert counts.spikes == {"a": 4, "b": 2}
    assert counts.synops == {"xa": 3 + 3 + 2, "ab": 2}
    assert counts.updates == {"a": 12, "b": 4}
    assert counts.active_updates == {"a": 2 + 3, "b": 2}
    assert {k: v.tolist() for k, v in counts.neuron_spikes.items()} == {"x": [2, 1], "a": [2, 2, 0], "b": [2]}
    assert (counts.input_messages, counts.graded_synops, counts.drain_spikes) == (3, 0, 0)
    assert (counts.drain_updates, counts.drain_synops) == (3, 0)
    assert (counts.total_spikes, counts.total_synops, counts.total_updates) == (6, 10, 16)
    assert counts.total_active_updates == 7
    assert counts.rates() == {"a": 4 / 12, "b": 2 / 4}


@pytest.mark.parametrize("size", [1, 63, 64, 65, 128, 130])
def test_active_updates_of_wide_populations(size: int) -> None:
    registers = {"du": 4095, "dv": 0, "vth": 131071, "bias_mant": 0, "bias_exp": 0, "v_init": 0}
    rng = np.random.default_rng(size)
    weights = rng.integers(-1, 2, (size, 3)) * 2
    program = Program(
        "loihi2",
        2,
        (Population("a", (size,), "lif", {k: np.array([v]) for k, v in registers.items()}, start_step=1),),
        (Projection("xa", "x", "a", (WeightTable(weights),)),),
        (InputPort("x", (3,)),),
        (OutputPort("y", "a"),),
    )
    inputs = rng.integers(0, 2, (4, 5, 3))
    hits = (inputs[..., None, :] * (weights != 0)).any(axis=-1).sum()
    assert execute(program, inputs, "loihi2-sim").counts.active_updates == {"a": hits}
