"""Programs made by hand that lie on thresholds, bounds and wraps exactly."""

from __future__ import annotations

import numpy as np
from support.random_programs.parts import table
from support.random_programs.pickers import SeededPicker
from support.random_programs.programs import Case

from snn_compile.targets.program.program import (
    InputPort,
    OutputPort,
    Population,
    Program,
    Projection,
    WeightTable,
)
from snn_compile.targets.program.rule import CHOICES

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
    program = Program("loihi2", 2, tuple(populations), edges, ports, (OutputPort("out", "delta"),))
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
        Program("loihi2", 2, populations, edges, ports, (OutputPort("out", "pop1", "membrane"),)),
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
    program = Program("loihi2", 2, tuple(populations), edges, ports, (OutputPort("out", "leaky"),))
    return Case(program, {"in0": drive[None, :, None]})


def liquid_ties() -> Case:
    """Return liquid neurons at their thresholds, at the ends of their tables and of 24 and 32 bits."""
    rates = {"rate_shift": 2, "rates": [0, 7, 1024, 2048, 4089, 11, 4090, 4096]}
    base = {"theta_0": 640, "theta_step": 257, "bias": -3, "adaptation_bias": 5, **rates}
    top = (1 << 23) - 1
    made = {
        "plain": ("lsn", base),
        "slow": ("lsn", base | {"theta_0": 8388544, "theta_step": 8388544}),
        "open": ("lsn", base | {"membrane_bias": top, "bias": top, "theta_step": 8388544}),
        "shut": ("lsn", base | {"membrane_bias": -top, "adaptation_bias": -top, "bias": -top}),
        "sent": ("lsn_membrane", base | {"message_shift": 4}),
        "kept": ("lsn_adaptation", {**rates, "message_shift": 3, "adaptation_bias": 5}),
    }
    populations = [Population(name, (1,), model, registers) for name, (model, registers) in made.items()]
    populations.append(Population("heard", (1,), "sigma", {}))
    one = WeightTable(np.array([[1]]), 0, 8, "excitatory", 24)
    wide = WeightTable(np.array([[128]]), 1, 8, "excitatory", 24)
    edges = []
    for p in populations[:-1]:
        for port in range(len(p.kind.ports)):
            tables = (one, wide) if p.name in ("open", "shut") and port < 2 else (one,)
            edges.append(Projection(f"in{port} to {p.name}", f"in{port}", p.name, tables, 0, port))
    for name in ("sent", "kept"):
        edges.append(Projection(f"{name} heard", name, "heard", (one,)))
    ports = tuple(InputPort(f"in{i}", (1,), kind="graded", bits=24, signed=True) for i in range(3))
    program = Program("loihi2", 1, tuple(populations), tuple(edges), ports, (OutputPort("out", "plain"),))
    # 257 times 8355000 is next to the end of 32 bits, which a gate's constant takes it beyond.
    rows = (
        [20, 20, 21, -20, 20, 131071, -131071, 131071, top, -top, 9000, 9000, 9000, 0, 30, 30, -1, 5, 9, 3],
        [0, -1, 4, 3, -16, -17, 15, 16, top, -top, 8355000, -8355000, 5, 0, 4, 3, -4, -9, 0, 1],
        [0, 3, -3, 9, 12, 11, -16, 15, -top, top, -99, -99, -99, 4, 0, 0, 1, -8, 8, 7],
    )
    return Case(program, {f"in{i}": np.array(row)[None, :, None] for i, row in enumerate(rows)})
