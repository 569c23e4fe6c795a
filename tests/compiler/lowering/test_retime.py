"""Device time: d = D + r(target) - r(source) - 1 >= 0, of least total delay, or a cycle that proves that
no latencies exist. Both are compared with independent searches that enumerate."""

from __future__ import annotations

from itertools import product

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snn_compile.compiler.contract.contract import Contract
from snn_compile.compiler.lowering.retime import retime
from snn_compile.compiler.network import Network, Population, Port, Projection
from snn_compile.targets.errors import CompileError, TimingInfeasible
from snn_compile.targets.program.program import PERIOD_MAX

ONE, ZERO = np.ones(1), np.zeros(1)
LIF = {
    "current_decay": ONE,
    "voltage_decay": ONE / 4,
    "threshold": ONE,
    "bias": ZERO,
    "input_bias": ZERO,
    "v_init": ZERO,
    "offset": ZERO,
}


def network(count: int, edges: list[tuple[int, int, int]]) -> Network:
    """Populations p0.. of one neuron; edges (source, target, delay), where source -1 is the input."""
    populations = tuple(Population(f"p{i}", (1,), "lif", LIF) for i in range(count))
    projections = tuple(
        Projection(f"e{i}", "in" if s < 0 else f"p{s}", f"p{t}", np.ones((1, 1)), delay)
        for i, (s, t, delay) in enumerate(edges)
    )
    return Network(
        populations, projections, (Port("in", (1,)),), (Port("out", (1,), "p0"),), Contract(dt=1.0)
    )


@st.composite
def networks(draw: st.DrawFn, largest: int, delay: int) -> tuple[int, list[tuple[int, int, int]]]:
    """Edges forward with any delay, backward and to itself with at least one: a step can be computed."""
    count = draw(st.integers(1, largest))
    edges = [(-1, draw(st.integers(0, count - 1)), draw(st.integers(0, delay)))]
    for _ in range(draw(st.integers(0, 2 * largest))):
        s, t = draw(st.integers(-1, count - 1)), draw(st.integers(0, count - 1))
        edges.append((s, t, draw(st.integers(0 if s < t else 1, delay))))
    return count, edges


def missing_steps(edges: list[tuple[int, int, int]]) -> int:
    """Return the most steps that any simple cycle lacks, by enumerating all of them."""
    least: dict[tuple[int, int], int] = {}
    for s, t, delay in edges:
        least[s, t] = min(least.get((s, t), delay), delay)
    worst = 0
    for cycle in nx.simple_cycles(nx.DiGraph(list(least))):
        steps = sum(least[a, b] for a, b in zip(cycle, [*cycle[1:], cycle[0]], strict=True))
        worst = max(worst, len(cycle) - steps)
    return worst


@settings(max_examples=150, deadline=None)
@given(networks(largest=8, delay=5))
def test_latencies_exist_exactly_when_no_cycle_is_short(case):
    count, edges = case
    worst, made = missing_steps(edges), network(count, edges)
    if worst > 0:
        with pytest.raises(TimingInfeasible) as error:
            retime(made)
        cycle, missing = error.value.cycle, error.value.missing_steps
        assert cycle[0] == cycle[-1] and 0 < missing <= worst
        pairs = [(int(a[1:]), int(b[1:])) for a, b in zip(cycle, cycle[1:], strict=False)]
        steps = sum(min(d for s, t, d in edges if (s, t) == pair) for pair in pairs)
        assert missing == len(pairs) - steps
        text = str(error.value)
        assert " -> ".join(cycle) in text and f"({missing} missing)" in text and "\n" not in text
        return
    found = retime(made)
    assert min(found.latency.values()) >= 0
    for e in made.projections:
        delay = found.delay_steps[e.name]
        assert delay == e.delay_steps + found.latency[e.target] - found.latency[e.source] - 1 >= 0


@settings(max_examples=80, deadline=None)
@given(networks(largest=3, delay=2))
def test_the_total_delay_is_least_and_then_the_latencies(case):
    count, edges = case
    if missing_steps(edges) > 0:
        return
    found = retime(network(count, edges))
    names = ["in", *(f"p{i}" for i in range(count))]
    best = None
    for r in product(range(7), repeat=count + 1):
        delays = [delay + r[t + 1] - r[s + 1] - 1 for s, t, delay in edges]
        if min(delays) >= 0:
            best = min(best or (sum(delays), sum(r)), (sum(delays), sum(r)))
    assert (sum(found.delay_steps.values()), sum(found.latency[name] for name in names)) == best


def test_a_chain_takes_a_step_a_layer():
    found = retime(network(3, [(-1, 0, 0), (0, 1, 0), (1, 2, 0)]))
    assert dict(found.latency) == {"in": 0, "p0": 1, "p1": 2, "p2": 3}
    assert set(found.delay_steps.values()) == {0}


def test_a_skip_connection_waits():
    found = retime(network(3, [(-1, 0, 0), (0, 1, 0), (1, 2, 0), (0, 2, 0), (-1, 2, 0)]))
    assert dict(found.delay_steps) == {"e0": 0, "e1": 0, "e2": 0, "e3": 1, "e4": 2}


def test_a_recurrent_layer_has_no_slack():
    found = retime(network(1, [(-1, 0, 0), (0, 0, 1)]))
    assert found.delay_steps["e1"] == 0


def test_the_message_of_a_short_cycle():
    with pytest.raises(TimingInfeasible) as error:
        retime(network(3, [(-1, 0, 0), (0, 1, 0), (1, 2, 0), (2, 0, 1)]))
    assert error.value.missing_steps == 2 and set(error.value.cycle) == {"p0", "p1", "p2"}
    text = str(error.value)
    assert "at least 3 steps of delay" in text and "but has 1 (2 missing)" in text
    assert "--c-slow spends 3 device steps" in text and "--relax-timing" in text


def least_period(edges: list[tuple[int, int, int]]) -> int:
    """Return the least c for which no simple cycle lacks device steps, by enumerating all of them."""
    return next(c for c in range(1, 99) if missing_steps([(s, t, c * d) for s, t, d in edges]) <= 0)


@settings(max_examples=150, deadline=None)
@given(networks(largest=7, delay=4), st.integers(0, 4))
def test_c_slow_takes_the_least_period_that_every_cycle_has(case, extra):
    count, edges = case
    least, made = least_period(edges), network(count, edges)
    found = retime(made, c_slow=None)
    assert found.period == least and not found.relaxed
    slower = retime(made, c_slow=least + extra)
    for c, timing in ((least, found), (least + extra, slower)):
        assert min(timing.latency.values()) >= 0
        for e in made.projections:
            delay = timing.delay_steps[e.name]
            assert delay == c * e.delay_steps + timing.latency[e.target] - timing.latency[e.source] - 1 >= 0
    if least > 1:
        with pytest.raises(TimingInfeasible, match=f"--c-slow spends {least} device steps"):
            retime(made, c_slow=least - 1)
        relaxed = retime(made, relax=True, c_slow=least - 1)
        assert relaxed.period == least - 1 and relaxed.relaxed and min(relaxed.delay_steps.values()) >= 0


def test_a_short_cycle_beside_one_that_is_just_long_enough():
    # networkx names the harmless loop p0 -> p0 here.
    with pytest.raises(TimingInfeasible) as error:
        retime(network(2, [(-1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 0, 1)]))
    assert set(error.value.cycle) == {"p0", "p1"} and error.value.missing_steps == 1


def test_a_network_without_edges():
    assert dict(retime(network(2, [])).latency) == {"in": 0, "p0": 0, "p1": 0}


def test_parallel_edges_of_unlike_delay():
    found = retime(network(2, [(-1, 0, 0), (0, 1, 0), (0, 1, 3), (1, 0, 2)]))
    assert found.delay_steps["e2"] - found.delay_steps["e1"] == 3
    with pytest.raises(TimingInfeasible):
        retime(network(2, [(-1, 0, 0), (0, 1, 0), (0, 1, 3), (1, 0, 1)]))


def test_a_long_chain_is_solved_exactly():
    edges = [(-1, 0, 0), *((i, i + 1, 0) for i in range(199))]
    edges += [(i, i + 7, 0) for i in range(0, 190, 3)]
    found = retime(network(200, edges))
    assert [found.latency[f"p{i}"] for i in range(200)] == list(range(1, 201))


@settings(max_examples=100, deadline=None)
@given(networks(largest=5, delay=14), st.integers(0, 4), st.integers(1, 7))
def test_a_chip_with_few_delay_slots(case, slots, period):
    """Every device delay fits, and over relays each edge still takes as long as it did."""
    count, edges = case
    if missing_steps([(s, t, period * delay) for s, t, delay in edges]) > 0:
        return
    given_network = network(count, edges)
    found = retime(given_network, delay_max=slots, c_slow=period)
    arriving: dict[str, list[Projection]] = {}
    for e in found.network.projections:
        arriving.setdefault(e.target, []).append(e)
        delay = found.delay_steps[e.name]
        assert delay == period * e.delay_steps + found.latency[e.target] - found.latency[e.source] - 1
        assert 0 <= delay <= slots
    relays = {p.name for p in found.network.populations} - {p.name for p in given_network.populations}
    assert relays == {name for name in arriving if ".relay" in name}
    for e in given_network.projections:
        last = next(other for other in found.network.projections if other.name == e.name)
        steps, source = last.delay_steps, last.source
        while source in relays:
            (before,) = arriving[source]
            steps, source = steps + before.delay_steps, before.source
        assert (steps, source, last.target) == (e.delay_steps, e.source, e.target)


@settings(max_examples=80, deadline=None)
@given(networks(largest=6, delay=3))
def test_relaxed_timing_adds_what_cycles_miss_and_tells_where(case):
    count, edges = case
    given_network = network(count, edges)
    found = retime(given_network, relax=True)
    assert min(found.delay_steps.values()) >= 0
    before = {e.name: e.delay_steps for e in given_network.projections}
    added = {e.name: e.delay_steps - before[e.name] for e in found.network.projections}
    assert dict(found.relaxed) == {name: steps for name, steps in added.items() if steps}
    assert bool(found.relaxed) == (missing_steps(edges) > 0)
    assert max(added.values()) <= sum(range(count + 2))


def test_a_logical_step_has_an_end():
    made = network(2, [(-1, 0, 0), (0, 1, 0), (1, 0, 1)])
    assert retime(made, c_slow=PERIOD_MAX).period == PERIOD_MAX
    with pytest.raises(CompileError, match=f"at most {PERIOD_MAX} are possible, and 2 are enough"):
        retime(made, c_slow=PERIOD_MAX + 1)
