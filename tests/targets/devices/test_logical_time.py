"""Programs in device time against an independent integer network stepped in logical time.

The network below knows nothing of latencies, start steps or device delays: within a logical step its
layers follow each other, and an edge of logical delay D brings what its source sent D steps ago. It is
plain Python integers and shares no arithmetic with the devices.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from support import comparing, random_programs

from snn_compile.targets.program.program import OutputPort, Program

NETWORKS = 120
BLOCKS = 6


@dataclass(frozen=True, eq=False)
class Layers:
    """Populations in order of evaluation, edges with logical delays, and inputs: no device time."""

    ports: tuple[Any, ...]
    populations: tuple[Any, ...]
    edges: tuple[Any, ...]
    delays: tuple[int, ...]


def random_layers(seed: int) -> tuple[Layers, dict[str, Any]]:
    """Make a network with skips and cycles; edges back are late enough for some program, or c-slow."""
    pick, limits = random_programs.SeededPicker(seed), random_programs.SHORT
    ports = tuple(
        replace(random_programs.input_port(pick, f"in{i}", limits), start_step=0)
        for i in range(pick.integer(1, 2))
    )
    count = pick.integer(2, 5)
    populations = tuple(
        replace(
            random_programs.population(
                pick,
                f"pop{i}",
                pick.choice(("lif", "li") if i == count - 1 else ("lif",) * 4 + ("li", "ternary")),
                limits,
                stock=pick.choice((True, False)),
            ),
            start_step=0,
        )
        for i in range(count)
    )
    forward = []
    for i, target in enumerate(populations):
        earlier = [*ports, *populations[:i]]
        for source in {id(s): s for s in (earlier[-1], pick.choice(earlier))}.values():
            forward.append((source, target, pick.choice((0, 0, 0, 1, 2))))
    early = latencies(ports, populations, [(s.name, t.name, d) for s, t, d in forward])
    back, short = [], pick.choice((True, False, False))
    for i, target in enumerate(populations):
        for source in populations[i:]:
            if pick.choice((True, False, False)):
                stages = 1 if short else early[source.name] - early[target.name] + 1
                back.append((source, target, max(1, stages) + pick.choice((0, 0, 1, 3))))
    edges = tuple(
        random_programs.sums_in_32_bits(
            random_programs.projection(pick, i, s, t, limits, stock=pick.choice((True, False)))
        )
        for i, (s, t, _) in enumerate([*forward, *back])
    )
    data = {port.name: random_programs.data(pick, port, 2, pick.integer(8, 16)) for port in ports[:1]}
    steps = data[ports[0].name].shape[1]
    data |= {port.name: random_programs.data(pick, port, 2, steps) for port in ports[1:]}
    return Layers(ports, populations, edges, tuple(d for _, _, d in [*forward, *back])), data


def latencies(ports: Any, populations: Any, edges: list[tuple[str, str, int]]) -> dict[str, int]:
    """Return the least latency of each node: longest paths over edges (source, target, delay)."""
    least = {node.name: 0 for node in (*ports, *populations)}
    for _ in least:
        for source, target, delay in edges:
            least[target] = max(least[target], least[source] + 1 - delay)
    return least


def retimed(layers: Layers) -> Program:
    """Return the program of least period c, so that no device delay is negative: that is

    c * logical delay + latency(target) - latency(source) - 1.
    """
    for period in range(1, 9):
        ends = [(e.source, e.target, period * d) for e, d in zip(layers.edges, layers.delays, strict=True)]
        latency = latencies(layers.ports, layers.populations, ends)
        if all(delay + latency[b] - latency[a] > 0 for a, b, delay in ends):
            break
    edges = tuple(
        replace(edge, delay_steps=period * delay + latency[edge.target] - latency[edge.source] - 1)
        for edge, delay in zip(layers.edges, layers.delays, strict=True)
    )
    populations = tuple(replace(p, start_step=latency[p.name]) for p in layers.populations)
    output = OutputPort("out", populations[-1].name, "membrane")
    return Program("loihi2", 2, populations, edges, layers.ports, (output,), period=period)


def toward_zero(number: int) -> int:
    return number // 4096 if number >= 0 else -(-number // 4096)


def int32(number: int) -> int:
    return (number + 2**31) % 2**32 - 2**31


def step_logically(layers: Layers, data: dict[str, Any], sample: int) -> dict[str, list[list[int]]]:
    """Return "pop.u", "pop.v" and "pop.spikes" of one sample, a list of neurons a logical step."""
    steps = next(iter(data.values())).shape[1]
    sent = {port.name: data[port.name][sample].tolist() for port in layers.ports}
    sent |= {p.name: [] for p in layers.populations}
    u = {p.name: [0] * p.size for p in layers.populations}
    v = {
        p.name: [int(x) for x in np.broadcast_to(p.parameters["v_init"], p.size)] for p in layers.populations
    }
    last = {p.name: [0] * p.size for p in layers.populations}
    trace: dict[str, list[list[int]]] = {}
    for t in range(steps):
        for p in layers.populations:
            arriving = [0] * p.size
            for edge, delay in zip(layers.edges, layers.delays, strict=True):
                if edge.target == p.name and t >= delay:
                    add(arriving, edge, sent[edge.source][t - delay])
            spikes = [neuron(p, i, arriving[i], u[p.name], v[p.name], last[p.name][i]) for i in range(p.size)]
            last[p.name] = spikes
            sent[p.name].append(spikes)
            for state, now in (("u", u[p.name]), ("v", v[p.name]), ("spikes", spikes)):
                trace.setdefault(f"{p.name}.{state}", []).append(list(now))
    return trace


def add(arriving: list[int], edge: Any, messages: list[int]) -> None:
    for table in edge.tables:
        for i, row in enumerate(table.dense().tolist()):
            total = sum(
                w * (m if table.message_bits else (m != 0)) for w, m in zip(row, messages, strict=True)
            )
            total = int32(total)
            arriving[i] += (
                int32(total * 2**table.exponent) if table.exponent > 0 else total // 2**-table.exponent
            )


def neuron(p: Any, i: int, arriving: int, u: list[int], v: list[int], last: int) -> int:
    """Advance neuron i of population p in place and return what it sends; `last`: in the step before."""
    own = {key: int(array[i % len(array)]) for key, array in p.parameters.items()}
    theta = 64 * own.get("vth", 0)
    pending = p.reset_timing == "pending" and passed(p, v[i], theta) > 0
    kept = u[i] if p.current_decay == "after" else toward_zero(u[i] * (4095 - own["du"]))
    current = int32(kept + int32(int32(arriving) * 64))
    if current > 2**23:
        current -= 2**24
    elif current <= -(2**23):
        current += 2**24
    drive = u[i] if p.update_order == "membrane_first" else current
    u[i] = toward_zero(current * (4095 - own["du"])) if p.current_decay == "after" else current
    membrane = v[i]
    if p.reset_timing == "next_before":
        membrane = after_reset(p, membrane, last, theta)
    membrane = int32(
        toward_zero(membrane * (4096 - own["dv"])) + drive + own["bias_mant"] * 2 ** own["bias_exp"]
    )
    membrane = min(max(membrane, -(2**23) + 1), 2**23 - 1)
    if p.model == "li":
        v[i] = membrane
        return membrane >> own["message_shift"]
    if p.model == "ternary":
        sign = int(membrane > 64 * own["vth_hi"]) - int(membrane < 64 * own["vth_lo"])
        v[i] = 0 if sign else membrane
        return sign
    if p.reset_timing == "next_after":
        membrane = after_reset(p, membrane, last, theta)
    spikes = passed(p, membrane - theta * pending, theta)
    if p.reset_timing in ("same_step", "pending"):
        membrane = after_reset(p, membrane, spikes, theta)
    v[i] = max(membrane, own["v_min"])
    return spikes


def passed(p: Any, membrane: int, theta: int) -> int:
    """Return how many spikes leave, found by counting thresholds."""
    if p.model == "li":
        return 0
    n = 0
    while membrane > (n + 1) * theta or (p.comparison == ">=" and membrane == (n + 1) * theta):
        n += 1
        if p.spikes_per_step == "one":
            break
    return n


def after_reset(p: Any, membrane: int, spikes: int, theta: int) -> int:
    """Return the membrane after the reset that `spikes` spikes cause."""
    if p.model == "li" or not spikes or p.reset == "none":
        return membrane
    return 0 if p.reset == "value" else max(membrane - spikes * theta, -(2**23) + 1)


@pytest.mark.parametrize("device", ["oracle", "loihi2-sim"])
@pytest.mark.parametrize("index", range(BLOCKS))
def test_a_retimed_program_is_the_logical_network(index: int, device: str) -> None:
    for seed in range(index * NETWORKS // BLOCKS, (index + 1) * NETWORKS // BLOCKS):
        layers, data = random_layers(seed)
        record = comparing.run_all(retimed(layers), data, device)
        got = comparing.traces(record)
        for sample in range(record.samples):
            wanted = step_logically(layers, data, sample)
            for (name, state), array in got.items():
                assert array[sample].tolist() == wanted[f"{name}.{state}"], (seed, sample, name, state)


def test_the_networks_are_not_trivial() -> None:
    seen: Counter[str] = Counter()
    slow: Counter[str] = Counter()
    for seed in range(NETWORKS):
        layers, data = random_layers(seed)
        program = retimed(layers)
        record = comparing.run_all(program, data, "loihi2-sim")
        order = [node.name for node in (*layers.ports, *layers.populations)]
        at = {name: order.index(name) for name in order}
        kinds = {
            (
                "self" if e.source == e.target else "back" if at[e.source] > at[e.target] else "forward",
                bool(d),
            )
            for e, d in zip(layers.edges, layers.delays, strict=True)
        }
        seen.update(f"{kind} delay {late}" for kind, late in kinds)
        seen["latency >= 2"] += program.latency_steps >= 2
        seen["device delay"] += any(edge.delay_steps for edge in program.projections)
        slow["c-slow"] += program.period > 1
        slow["c > 2"] += program.period > 2
        seen["overflow"] += any(record.overflows.values())
        seen["biased late"] += any(p.start_step >= 2 and p.bias.any() for p in program.populations)
        seen["back edge used"] += any(
            record.counts.synops[e.name] for e in layers.edges if at[e.source] >= at[e.target]
        )
    assert set(seen) >= {"forward delay False", "forward delay True", "self delay True", "back delay True"}
    assert not {key: n for key, n in seen.items() if n < NETWORKS / 4 and "False" not in key}
    assert slow["c-slow"] >= NETWORKS / 8 and slow["c > 2"] >= NETWORKS / 20, slow
