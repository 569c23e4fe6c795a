"""Random NIR graphs, lowered, retimed, quantized and run on every device.

Each graph's float reference is compared with NIR's equations (tests/conformance/equations.py), each
program with an integer network stepped in logical time (logical.py), and every device with the oracle: u,
v and messages of every population, bit for bit.
"""

from __future__ import annotations

import importlib.util
from collections import Counter
from dataclasses import replace

import nir
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from support import by_hand, comparing, logical, random_graphs, random_programs

from snn_compile.compiler import Options, compile_stages, lower
from snn_compile.compiler.contract.contract import Contract
from snn_compile.compiler.lowering.retime import retime
from snn_compile.compiler.lowering.simplify import simplify
from snn_compile.targets.devices.device import open_device
from snn_compile.targets.errors import AmbiguousConvention, PrecisionLost, TimingInfeasible
from snn_compile.targets.program.program import Program
from snn_compile.targets.program.rule import CHOICES

BLOCKS, A_BLOCK = 20, 26
LAVA_GROUPS, A_GROUP = 13, 5

needs_lava = pytest.mark.skipif(
    importlib.util.find_spec("lava.magma") is None, reason="lava-nc is not installed; the README says how"
)


@pytest.fixture(scope="module")
def devices():
    """The devices that every graph runs on; Lava's only if it is there."""
    found = {"loihi2-sim": open_device("loihi2-sim", threads=1)}
    if importlib.util.find_spec("lava.magma") is not None:
        found["lava-stepped"] = open_device("lava-stepped")
    return found


@pytest.fixture(scope="module")
def check():
    """Return run(graph, c_slow, relax): compiled and compared with the equations and in logical time."""

    def run(case, c_slow=None, relax=False):
        """Return what compiling made and the oracle's record; nothing for a graph without a meaning."""
        contract, title = Contract(**case.contract), f"graph {case.seed}"
        if case.timing == "open":
            with pytest.raises(AmbiguousConvention, match="has no delay"):
                lower(case.graph, by_hand.stated(contract))
            return None, None
        by_hand.agrees(case.graph, contract, case.inputs, 0)
        options = Options(
            weight_bits=4 + case.seed % 5,
            tables=("one", "sign")[case.seed % 2],
            c_slow=c_slow,
            relax_timing=relax,
            conventions=by_hand.stated(contract),
        )
        done = compile_stages(case.graph, options=options, calibration=case.inputs)
        simple = simplify(done.network)
        period = random_graphs.least_period(case.graph, case.contract)
        timed_as_its_edges_say(simple, period, len(simple.populations) < len(done.network.populations), title)
        assert c_slow is not None or done.program.period <= period, title
        messages = {port.name: port.encode(case.inputs[port.name])[0] for port in done.program.inputs}
        network = done.retimed.network if done.retimed.relaxed else simple
        wanted = logical.step_logically(network, done.quantized, messages)
        record = comparing.run_all(done.program, case.inputs, open_device("oracle", strict=True))
        found = comparing.traces(record)
        assert {name for name, _ in found} >= wanted.keys(), title
        for (name, state), values in found.items():
            if name in wanted:
                np.testing.assert_array_equal(values, wanted[name][state[0]], f"{title}, {name}.{state}")
        return done, record

    return run


def timed_as_its_edges_say(simple, period, merged, title):
    """Assert that one device step a step is refused, and the least c found, as the graph's edges say.

    Where a threshold has `merged` with the integrator before it there is a stage less.
    """
    found = retime(simple, c_slow=None).period
    assert found == period or (merged and found < period), title
    if found > 1:
        with pytest.raises(TimingInfeasible) as error:
            retime(simple)
        assert error.value.facts["missing_steps"] > 0 and error.value.facts["c_slow"] == found, title


@pytest.mark.parametrize("block", range(BLOCKS))
def test_graphs(check, devices, block):
    fired = 0
    for seed in range(block * A_BLOCK, (block + 1) * A_BLOCK):
        case = random_graphs.graph(seed, random_programs)
        # Mostly the least c that the cycles need; some slower, some with delay added to them.
        c_slow, relax = {1: (2, True), 2: (1, True)}.get(seed % 7, (None, False))
        done, wanted = check(case, c_slow, relax)
        if done is None:
            continue
        for name, device in devices.items():
            got = comparing.run_all(done.program, case.inputs, device)
            difference = comparing.first_difference(wanted, got, overflows=name == "loihi2-sim")
            assert not difference, f"graph {seed}: {difference}"
        fired += any(wanted.counts.spikes.values())
    assert fired >= 0.7 * A_BLOCK


@settings(max_examples=50, suppress_health_check=list(HealthCheck))
@given(drawn=st.data())
def test_a_graph_that_fails_shrinks(check, devices, drawn):
    case = drawn.draw(random_graphs.graphs(random_programs))
    assume(case.timing != "open")
    try:
        done, wanted = check(case)
    except PrecisionLost:
        assume(False)
    got = comparing.run_all(done.program, case.inputs, devices["loihi2-sim"])
    assert not comparing.first_difference(wanted, got)


def joined(parts):
    """Return programs side by side as one, and their inputs, filled up to the same number of steps."""
    steps = max(data.shape[1] for _, inputs in parts for data in inputs.values())
    fields = {"populations": [], "projections": [], "inputs": [], "outputs": []}
    together = {}
    for i, (program, inputs) in enumerate(parts):
        for field, items in fields.items():
            for item in getattr(program, field):
                named = {k: f"{i}.{getattr(item, k)}" for k in NAMES if getattr(item, k, None)}
                items.append(replace(item, **named))
        for name, data in inputs.items():
            together[f"{i}.{name}"] = np.pad(
                data, [(0, 0), (0, steps - data.shape[1])] + [(0, 0)] * (data.ndim - 2)
            )
    return Program("loihi2", 2, *map(tuple, fields.values()), period=parts[0][0].period), together


NAMES = ("name", "source", "target", "population")


@needs_lava
@pytest.mark.parametrize("group", range(LAVA_GROUPS))
def test_lava(check, group):
    """Under Lava's own runtime, several graphs side by side in one run of it."""
    limits = random_graphs.Limits(populations=3, size=4, steps=6, samples=1)
    parts, records, seed = [], [], 10_000 + 100 * group
    while len(parts) < A_GROUP:
        case = random_graphs.graph(seed, random_programs, limits)
        # Programs in one run of a device share the number of its steps a logical step.
        done, record = check(case, c_slow=1 + group % 2, relax=True)
        if done is not None:
            parts.append((done.program, case.inputs))
            records.append(record)
        seed += 1
    program, inputs = joined(parts)
    wanted = comparing.run_all(program, inputs, "oracle")
    got = comparing.run_all(program, inputs, "lava")
    assert not comparing.first_difference(wanted, got, overflows=False)
    together = comparing.traces(got)
    for i, record in enumerate(records):
        for (name, state), values in comparing.traces(record).items():
            np.testing.assert_array_equal(together[f"{i}.{name}", state][:, : record.steps], values)


def features(case, random_graphs):
    """Return what a graph has, in words."""
    nodes = {name: random_graphs.core(node) for name, node in case.graph.nodes.items()}
    found = {type(node).__name__ for node in nodes.values()} | {f"timing {case.timing}"}
    found |= {"nested"} if any(isinstance(n, nir.NIRGraph) for n in case.graph.nodes.values()) else set()
    for items in case.contract["nodes"].values():
        found |= {f"{key} {items[key]}" for key in CHOICES if key in items}
        found |= {"clip"} if items.get("v_min") is not None else set()
        found |= {f"v_init {items['v_init']}"} if "v_init" in items else set()
    leaving = Counter(a for a, _ in case.graph.edges)
    arriving = Counter(b for _, b in case.graph.edges)
    found |= {"branch"} if max(leaving.values()) > 1 else set()
    found |= {"sum"} if max(arriving.values()) > 1 else set()
    weighted = {name for name, node in nodes.items() if hasattr(node, "weight")}
    found |= {"shared weights"} if any(arriving[name] > 1 for name in weighted) else set()
    count = Counter(type(node).__name__ for node in nodes.values())
    found |= {f"several {kind}s" for kind in ("Input", "Output") if count[kind] > 1}
    wires = random_graphs.wires(case.graph, case.contract)
    found |= {"self"} if any(a == b for a, b, _ in wires) else set()
    later = {(a, b) for a, b, _ in wires if a != b}
    found |= {"mutual"} if any((b, a) in later for a, b in later) else set()
    found |= {"delay"} if case.contract["delays"] else set()
    found |= {"real input"} if any((data % 1).any() for data in case.inputs.values()) else set()
    return found | {f"dt {case.contract['dt']}", f"rule {case.contract['rule']}"}


def test_the_graphs_show_everything():
    seen = Counter()
    for seed in range(BLOCKS * A_BLOCK):
        seen.update(features(random_graphs.graph(seed, random_programs), random_graphs))
    kinds = {kind.__name__ for kind in nir.NIRNode.__subclasses__() if hasattr(nir, kind.__name__)}
    kinds -= {"NIRGraph"}
    assert len(kinds) == 18
    wanted = {name: 30 for name in (*kinds, "nested", "mutual")} | {"self": 50}
    wanted |= {f"{key} {word}": 50 for key, words in CHOICES.items() for word in words}
    wanted |= {f"v_init {start}": 20 for start in (0.0, 0.1, "v_leak", "v_reset")}
    wanted |= {"clip": 50, "branch": 50, "sum": 50, "shared weights": 20, "several Inputs": 50}
    wanted |= {"several Outputs": 50, "delay": 50, "real input": 50, "rule euler": 50, "rule exponential": 50}
    wanted |= {"timing short": 50, "timing open": 5}
    assert not {name: seen[name] for name, least in wanted.items() if seen[name] < least}
    assert seen["timing fine"] + seen["timing short"] >= 500


@pytest.mark.parametrize("c_slow, relays", [(1, 2), (3, 7)])
def test_delays_beyond_the_chips_slots_go_through_relays(build, check, rng, c_slow, relays):
    nodes = {
        "in0": build.port(nir.Input, 3),
        "fc": build.affine(rng, 4, 3),
        "p0": build.cuba(4, v_leak=0.3),
        "back": build.linear(rng, 4, 4),
        "out": build.port(nir.Output, 4),
    }
    edges = [("in0", "fc"), ("fc", "p0"), ("p0", "back"), ("back", "p0"), ("p0", "out")]
    contract = {"dt": 1.0, "delays": {("p0", "back"): 150}}
    data = {"in0": (rng.random((2, 170, 3)) < 0.3).astype(float)}
    graph = build.graph(nodes, edges, no_contract=True)
    done, record = check(random_graphs.Graph(graph, contract, data, "fine"), c_slow)
    assert sum("relay" in p.name for p in done.program.populations) == relays
    assert max(e.delay_steps for e in done.program.projections) <= 62
    assert record.spikes("p0").any()
