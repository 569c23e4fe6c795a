"""Compiled programs against an integer network that knows no device time.

The interpreter below takes the quantized integers and the float network's logical delays, and steps in
logical time with arithmetic of its own, in plain Python integers. It knows nothing of latencies, start
steps, device delays, cores or routes; the compiled program, run on the devices, must be the same bit for
bit in u, v and spikes of every population.
"""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from math import floor, trunc

import nir
import numpy as np
import pytest

from snn_compile.compiler import Options, compile_stages
from snn_compile.compiler.retime import retime
from snn_compile.compiler.simplify import simplify
from snn_compile.targets.device import execute
from snn_compile.targets.rule import CHOICES as RULE_CHOICES

BLOCKS, A_BLOCK = 16, 10
SAMPLES, STEPS = 2, 14


def random_rule(rng):
    """Contract items of one population: half of them Lava's rule, the others any rule of a step."""
    items = {"reset": str(rng.choice(["value", "subtract", "none"]))}
    if rng.random() < 0.5:
        return items
    items |= {key: str(rng.choice(words)) for key, words in RULE_CHOICES.items()}
    if items["reset_timing"] == "pending":
        items |= {"reset": "subtract", "spikes_per_step": "one"}
    return items | {"v_min": None if rng.random() < 0.5 else float(rng.uniform(-0.5, -0.3))}


def random_graph(build, rng):
    """Populations in a row with skips, branches, delays, biases and edges back that are late enough."""
    count, short = int(rng.integers(2, 6)), rng.random() < 0.5
    inputs = {f"in{i}": int(rng.integers(1, 6)) for i in range(rng.integers(1, 3))}
    nodes = {name: build.port(nir.Input, size) for name, size in inputs.items()}
    sizes, edges, delays, rules = dict(inputs), [], {}, {}

    def connect(source, target, delay, strength=1.6):
        name, scale = f"{source}_{target}_{len(nodes)}", strength / np.sqrt(sizes[source])
        make = build.affine if rng.random() < 0.4 else build.linear
        nodes[name] = make(rng, sizes[target], sizes[source], scale)
        edges.extend([(source, name), (name, target)])
        if delay:
            delays[source, name] = delay

    for i in range(count):
        name, size = f"p{i}", int(rng.integers(1, 8))
        values = {"v_leak": rng.normal(0, 0.15, size), "v_threshold": rng.uniform(0.2, 0.6, size)}
        values["v_reset"] = rng.uniform(-0.2, 0.1, size)
        kind = rng.choice(["lif", "cuba", "lif", "cuba", "li"])
        rules[name] = random_rule(rng)
        if rules[name].get("spikes_per_step") == "floor":
            values["v_reset"] = 0.0
        if kind == "cuba":
            values |= {"tau_syn": rng.uniform(1.5, 6), "tau_mem": rng.uniform(2, 20, size)}
        else:
            values["tau"] = rng.uniform(1.5, 20, size)
        if kind == "li":
            values = {key: values[key] for key in ("tau", "v_leak")}
        nodes[name], sizes[name] = getattr(build, kind)(size, **values), size
        earlier = [*inputs, *(f"p{k}" for k in range(i))]
        for source in dict.fromkeys([earlier[-1], str(rng.choice(earlier))]):
            connect(source, name, int(rng.choice([0, 0, 0, 1, 4])))
    for i in range(count):
        for k in range(i, count):
            if rng.random() < 0.3:
                # A membrane fed back on itself without loss grows beyond every format.
                strength = 0.4 if isinstance(nodes[f"p{k}"], nir.LI) else 1.6
                stages = 1 if short else k - i + 1
                connect(f"p{k}", f"p{i}", stages + int(rng.choice([0, 0, 1, 3])), strength)
    nodes["out"] = build.port(nir.Output, sizes[f"p{count - 1}"])
    edges.append((f"p{count - 1}", "out"))
    rule = str(rng.choice(["euler", "exponential"]))
    graph = build.graph(nodes, edges, delays=delays, nodes=rules, rule=rule, v_init=float(rng.normal(0, 0.1)))
    data = {}
    for name, size in inputs.items():
        values = rng.random((SAMPLES, STEPS, size)) < 0.5 if rng.random() < 0.5 else None
        data[name] = rng.normal(size=(SAMPLES, STEPS, size)) if values is None else values.astype(float)
    return graph, data


def at(values, i):
    return int(values[i if len(values) > 1 else 0])


def step_logically(network, quantized, messages, steps):
    """Return u, v and spikes by population and logical step, as lists of Python integers."""
    integer = {p.name: p for p in quantized.populations if p.name in network.order}
    tables = {e.name: e.tables for e in quantized.projections}
    u = {name: [0] * p.size for name, p in integer.items()}
    v = {name: [at(p.parameters["v_init"], i) for i in range(p.size)] for name, p in integer.items()}
    sent = {name: [list(map(int, row)) for row in rows] for name, rows in messages.items()}
    sent |= {name: [] for name in integer}
    last = {name: [0] * p.size for name, p in integer.items()}
    traces = {name: {"u": [], "v": [], "s": []} for name in integer}
    for t in range(steps):
        for name in network.order:
            p, messages_out = integer[name], []
            for i in range(p.size):
                a = 0
                for edge in network.projections:
                    if edge.target != name or t < edge.delay_steps:
                        continue
                    heard = sent[edge.source][t - edge.delay_steps]
                    for table in tables[edge.name]:
                        total = sum(int(w) * x for w, x in zip(dense(table)[i], heard, strict=True))
                        a += floor(total * Fraction(2) ** table.exponent)
                register = {key: at(values, i) for key, values in p.parameters.items()}
                u[name][i], v[name][i], n = neuron(p, register, u[name][i], v[name][i], last[name][i], a)
                last[name][i] = n if p.spiking else 0
                messages_out.append(n)
            sent[name].append(messages_out)
            for key, value in (("u", u[name]), ("v", v[name]), ("s", messages_out)):
                traces[name][key].append(list(value))
    return traces


def dense(table):
    weights = table.weights
    return weights.toarray() if hasattr(weights, "toarray") else weights


def neuron(p, register, u, v, last, a):
    """One step of one neuron as targets/rule.py words it; return u, v and the message."""
    lose_u = lambda x: trunc(Fraction(x * (4095 - register["du"]), 4096))  # noqa: E731
    if p.current_decay == "before":
        old, u = u, lose_u(u) + 64 * a
        drive = u
    else:
        old, drive = u, u + 64 * a
        u = lose_u(drive)
    drive = old if p.update_order == "membrane_first" else drive
    theta = 64 * register.get("vth", 0)

    def reset(v, n):
        return {"value": 0 if n else v, "subtract": v - n * theta, "none": v}[p.reset]

    def past(v, height):
        return v > height if p.comparison == ">" else v >= height

    began_past = past(v, theta)
    if p.spiking and p.reset_timing == "next_before":
        v = reset(v, last)
    v = (
        trunc(Fraction(v * (4096 - register["dv"]), 4096))
        + drive
        + register["bias_mant"] * 2 ** register["bias_exp"]
    )
    if not p.spiking:
        return u, v, floor(Fraction(v, 2 ** register["message_shift"]))
    if p.reset_timing == "next_after":
        v = reset(v, last)
    if p.spikes_per_step == "floor":
        n = 0
        while past(v, (n + 1) * theta):
            n += 1
    else:
        n = int(past(v, theta + (theta if p.reset_timing == "pending" and began_past else 0)))
    if p.reset_timing in ("same_step", "pending"):
        v = reset(v, n)
    return u, max(v, register["v_min"]), n


def compare(build, seed):
    """Compile one random network, compare both devices with the interpreter, and tell if anything fired."""
    rng = np.random.default_rng(seed)
    return check(*random_graph(build, rng), rng, f"network {seed}")


def check(graph, data, rng, title):
    tables = str(rng.choice(["one", "sign"]))
    options = Options(weight_bits=int(rng.integers(4, 9)), tables=tables, c_slow=None)
    done = compile_stages(graph, options=options, calibration=data)
    program, network = done.program, simplify(done.network)
    steps = next(iter(data.values())).shape[1]
    messages = {port.name: port.encode(data[port.name])[0] for port in program.inputs}
    spiking = [p.name for p in program.populations if p.spiking]
    probes = [f"{p.name}.{key}" for p in program.populations for key in "uv"]
    records = {
        device: execute(program, data, device, record=spiking, probes=probes, **more)
        for device, more in (("oracle", {"strict": True}), ("loihi2-sim", {}))
    }
    for sample in range(SAMPLES):
        logical = step_logically(
            network, done.quantized, {name: array[sample] for name, array in messages.items()}, steps
        )
        for p in [p for p in program.populations if p.name in logical]:
            for device, record in records.items():
                where = f"{title}, {device}, population {p.name}"
                for key in "uv":
                    found = record.states(f"{p.name}.{key}")[sample]
                    np.testing.assert_array_equal(found, logical[p.name][key], f"{where}, {key}")
                if p.spiking:
                    found = record.spikes(p.name)[sample]
                    np.testing.assert_array_equal(found, logical[p.name]["s"], f"{where}, spikes")
    return any(records["oracle"].spikes(name).any() for name in spiking)


@pytest.mark.parametrize("block", range(BLOCKS))
def test_programs_equal_the_integer_network_in_logical_time(build, block):
    seeds = range(block * A_BLOCK, (block + 1) * A_BLOCK)
    assert sum(compare(build, seed) for seed in seeds) >= 0.6 * A_BLOCK


def test_the_networks_have_what_is_to_be_compared(build):
    seen: Counter[str] = Counter()
    for seed in range(40):
        graph, data = random_graph(build, np.random.default_rng(seed))
        network = simplify(compile_stages(graph, stop_after="lower").network)
        rank = {name: i for i, name in enumerate(network.order)}
        back = [e for e in network.projections if rank.get(e.source, -1) >= rank[e.target]]
        seen["recurrent"] += any(e.source == e.target for e in back)
        seen["long cycle"] += any(e.source != e.target for e in back)
        seen["bias"] += any(p.parameters["bias"].any() for p in network.populations)
        seen["graded"] += any((array % 1).any() for array in data.values())
        seen["always-on"] += any(p.name.endswith(".bias") for p in network.populations)
        seen["read-out"] += any(not p.spiking for p in network.populations)
        seen["three or more"] += len(rank) >= 3
        heard = {e.source for e in network.projections}
        seen["membranes sent"] += any(not p.spiking and p.name in heard for p in network.populations)
        seen["numbers of spikes"] += any(p.spikes_per_step == "floor" for p in network.populations)
        seen["late resets"] += any(p.reset_timing != "same_step" for p in network.populations)
        seen["c-slow"] += retime(network, c_slow=None).period > 1
        seen["clipped"] += any(p.spiking and p.parameters["v_min"].max() > -9 for p in network.populations)
    assert min(seen.values()) >= 8, seen


def test_delays_beyond_the_chips_slots_go_through_relays(build, rng):
    nodes = {
        "in0": build.port(nir.Input, 3),
        "p0": build.cuba(4, v_leak=0.3),
        "back": build.linear(rng, 4, 4),
        "out": build.port(nir.Output, 4),
    }
    edges = [("in0", "fc"), ("fc", "p0"), ("p0", "back"), ("back", "p0"), ("p0", "out")]
    nodes["fc"] = build.affine(rng, 4, 3)
    graph = build.graph(nodes, edges, delays={("p0", "back"): 150})
    data = {"in0": (rng.random((SAMPLES, 170, 3)) < 0.3).astype(float)}
    done = compile_stages(graph, calibration=data)
    assert sum("relay" in p.name for p in done.program.populations) == 2
    assert max(e.delay_steps for e in done.program.projections) <= 62
    assert check(graph, data, rng, "relays")
