"""Both Lava devices against the oracle, bit for bit, and Lava's runtime when something goes wrong."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np
import pytest

from snn_compile.targets.devices.device import execute
from snn_compile.targets.errors import DeviceError
from snn_compile.targets.integer import truncate_weights
from snn_compile.targets.lava.device import Lava, time_limit
from snn_compile.targets.lava.stepped import LavaStepped
from snn_compile.targets.program.program import (
    InputPort,
    OutputPort,
    Population,
    Program,
    Projection,
    WeightTable,
)
from snn_compile.targets.program.rule import CHOICES

pytest.importorskip("lava", reason="lava-nc is not installed")

DEVICES = {"lava": Lava, "lava-stepped": LavaStepped}


def population(name, size, *, model="lif", start_step=0, **registers):
    rule = {key: registers.pop(key) for key in CHOICES if key in registers}
    parameters = {"du": 1000, "dv": 300, "bias_mant": 0, "bias_exp": 0, "v_init": 0, **registers}
    if model == "lif":
        parameters.setdefault("vth", 300)
    return Population(name, (size,), model, parameters, start_step=start_step, **rule)


def table(rng, target, source, mode="mixed", exponent=0, bits=8, message_bits=0):
    raw = rng.integers(-256, 256, (target, source))
    return WeightTable(truncate_weights(raw, bits, mode), exponent, bits, mode, message_bits)


def program(populations, projections, inputs, output=None):
    last = populations[-1]
    port = OutputPort("out", output or last.name, "spikes" if last.spiking else "membrane")
    return Program("loihi2", 2, tuple(populations), tuple(projections), tuple(inputs), (port,))


def signs_and_delays(rng):
    a = population("a", 7, vth=rng.integers(50, 900, 7), du=rng.integers(0, 4096, 7))
    b = population("b", 5, dv=rng.integers(0, 4096, 5))
    first = Projection(
        "in-a", "in", "a", (table(rng, 7, 6, "mixed", 2), table(rng, 7, 6, "excitatory", -1, bits=5))
    )
    second = Projection(
        "a-b", "a", "b", (table(rng, 5, 7, "excitatory", 3), table(rng, 5, 7, "inhibitory", -3, bits=2)), 2
    )
    skip = Projection("in-b", "in", "b", (table(rng, 5, 6, "inhibitory", 1),), 7)
    return program([a, b], [first, second, skip], [InputPort("in", (2, 3))])


def graded_input(rng):
    a = population("a", 6)
    out = population("out", 3, model="li", bias_mant=-7, bias_exp=2)
    port = InputPort("in", (4,), "graded", scale=100.0, bits=8, signed=True)
    first = Projection(
        "in-a",
        "in",
        "a",
        (table(rng, 6, 4, exponent=-3, message_bits=8), table(rng, 6, 4, exponent=1, message_bits=8)),
    )
    delayed = Projection("in-out", "in", "out", (table(rng, 3, 4, exponent=-5, message_bits=8),), 3)
    return program([a, out], [first, delayed, Projection("a-out", "a", "out", (table(rng, 3, 6),))], [port])


def recurrent_and_biased(rng):
    a = population("a", 6, start_step=1, bias_mant=rng.integers(-300, 300, 6), bias_exp=5)
    b = population("b", 5, start_step=3, reset="subtract", bias_mant=900, bias_exp=[0, 1, 2, 3, 4])
    out = population("out", 4, model="li", start_step=4, bias_mant=55, bias_exp=1, v_init=-20000)
    edges = [
        Projection("in-a", "in", "a", (table(rng, 6, 5, exponent=2),)),
        Projection("a-a", "a", "a", (table(rng, 6, 6, exponent=1),)),
        Projection("a-b", "a", "b", (table(rng, 5, 6, exponent=3),), 1),
        Projection("b-b", "b", "b", (table(rng, 5, 5, "inhibitory", -1),), 4),
        Projection("b-out", "b", "out", (table(rng, 4, 5),)),
    ]
    return program([a, b, out], edges, [InputPort("in", (5,))])


def resets_and_initial_states(rng):
    groups = [
        population(
            f"{reset}-{start}",
            4,
            reset=reset,
            start_step=start,
            vth=200,
            v_init=rng.integers(-30000, 30000, 4),
            dv=100,
        )
        for reset in ("value", "subtract", "none")
        for start in (0, 2)
    ]
    edges = [
        Projection(f"in-{g.name}", "in", g.name, (table(rng, 4, 3, exponent=2),), g.start_step)
        for g in groups
    ]
    return program(groups, edges, [InputPort("in", (3,))])


def wrapping_and_saturating(rng):
    a = population("a", 8, du=20, dv=3, vth=131071, bias_mant=[-4096, 4095] * 4, bias_exp=7)
    b = population("b", 8, du=0, dv=0, vth=60000, reset="subtract", bias_mant=4095, bias_exp=7)
    tables = (table(rng, 8, 8, exponent=7), table(rng, 8, 8, "excitatory", 7))
    return program(
        [a, b],
        [
            Projection("in-a", "in", "a", tables),
            Projection("in-b", "in", "b", (table(rng, 8, 8, exponent=7),)),
        ],
        [InputPort("in", (8,))],
    )


def unconnected_parts(rng):
    alone = population("alone", 3, bias_mant=500, bias_exp=4)
    return program(
        [alone, population("fed", 2, reset="none")],
        [Projection("in-fed", "in", "fed", (table(rng, 2, 4),))],
        [InputPort("in", (4,)), InputPort("unused", (2,))],
    )


BUILDERS = (
    signs_and_delays,
    graded_input,
    recurrent_and_biased,
    resets_and_initial_states,
    wrapping_and_saturating,
    unconnected_parts,
)


def random_program(seed):
    """A chain of two or three populations with feedback, everything else drawn."""
    rng = np.random.default_rng(seed)
    graded = bool(rng.integers(2))
    port = InputPort(
        "in",
        (int(rng.integers(1, 6)),),
        "graded" if graded else "spikes",
        scale=200.0,
        bits=8 if graded else 1,
        signed=graded,
    )
    populations, edges, before = [], [], port
    for index in range(int(rng.integers(2, 4))):
        size, start = int(rng.integers(1, 7)), index + int(rng.integers(2))

        def draw(low, high, size=size):
            return rng.integers(low, high, size if rng.integers(2) else 1)

        group = population(
            f"p{index}",
            size,
            reset=str(rng.choice(["value", "subtract", "none"])),
            start_step=start,
            du=draw(0, 4096),
            dv=draw(0, 4096),
            vth=draw(0, 3000),
            bias_mant=draw(-4096, 4096) * rng.integers(2),
            bias_exp=draw(0, 8),
            v_init=draw(-(2**23) + 1, 2**23) * rng.integers(2),
        )
        tables = tuple(
            table(
                rng,
                size,
                before.size,
                mode,
                int(rng.integers(-8, 8)),
                int(rng.integers(1, 9)),
                8 if graded and not index else 0,
            )
            for mode in rng.choice(["mixed", "excitatory", "inhibitory"], 2)
        )
        late = max(0, start - before.start_step - 1) + int(rng.integers(3))
        edges.append(Projection(f"e{index}", before.name, group.name, tables, late))
        again = (table(rng, size, size, exponent=int(rng.integers(-8, 8))),)
        edges.append(Projection(f"r{index}", group.name, group.name, again, int(rng.integers(3))))
        populations.append(group)
        before = group
    return program(populations, edges, [port])


def inputs_for(network, batch=3, steps=18):
    rng = np.random.default_rng(99)
    data = {}
    for port in network.inputs:
        shape = (batch, steps, *port.shape)
        data[port.name] = (
            rng.uniform(-1, 1, shape) if port.kind == "graded" else (rng.random(shape) < 0.5).astype(int)
        )
    return data


def run(network, device, data=None):
    names = [p.name for p in network.populations]
    return execute(
        network,
        data or inputs_for(network),
        device,
        record=[n for n in names if network.population(n).spiking],
        probes=[f"{n}.{state}" for n in names for state in "uv"],
    )


def assert_same(network, left, right):
    for group in network.populations:
        for state in ("u", "v"):
            probe = f"{group.name}.{state}"
            np.testing.assert_array_equal(left.states(probe), right.states(probe), probe)
        if group.spiking:
            np.testing.assert_array_equal(left.spikes(group.name), right.spikes(group.name))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("build", BUILDERS, ids=lambda build: build.__name__)
def test_equals_the_oracle(build, device):
    network = build(np.random.default_rng(5))
    expected = run(network, "oracle")
    assert_same(network, expected, run(network, device))
    if build is wrapping_and_saturating:
        overflow = expected.overflows["a"]
        assert overflow.u_wraps and overflow.v_high and overflow.v_low
    else:
        assert any(events.count for events in expected.spike_events.values())


@pytest.mark.parametrize("seed", range(40))
def test_random_programs_equal_the_oracle_when_stepped(seed):
    network = random_program(seed)
    assert_same(network, run(network, "oracle"), run(network, "lava-stepped"))


@pytest.mark.parametrize("seed", [3, 11])
def test_random_programs_equal_each_other_on_both_devices(seed):
    network = random_program(seed)
    assert_same(network, run(network, "lava"), run(network, "lava-stepped"))


def test_a_witness_says_what_is_stock():
    rng = np.random.default_rng(5)
    assert run(recurrent_and_biased(rng), "lava-stepped").witness == {
        "a": "derived (run_spk)",
        "b": "derived (reset_voltage, run_spk)",
        "out": "derived (run_spk)",
    }
    assert run(graded_input(rng), "lava-stepped").witness == {"a": "stock", "out": "stock"}
    resets = run(resets_and_initial_states(rng), "lava-stepped").witness
    assert resets["value-0"] == "stock" and resets["none-0"] == "derived (reset_voltage)"


@pytest.mark.parametrize("device", DEVICES)
def test_no_late_reset_reaches_the_next_sample(device):
    # The spikes of the last step would reset the first step of the next sample.
    network = program(
        [population("a", 2, vth=1, du=4095, dv=0, reset_timing="next_after")],
        [Projection("in-a", "in", "a", (WeightTable(np.full((2, 1), 20)),))],
        [InputPort("in", (1,))],
    )
    data = np.ones((2, 4, 1))
    record = run(network, device, {"in": data})
    assert record.spikes("a")[:, -1].any()
    np.testing.assert_array_equal(record.states("a.v")[0], record.states("a.v")[1])


@pytest.mark.parametrize("device", DEVICES)
def test_no_sample_hears_the_one_before(device):
    # Spikes up to the last step leave u, v, and the buffers of both synapse kinds full.
    rng = np.random.default_rng(1)
    network = program(
        [population("a", 5, vth=1, du=1), population("b", 4, reset="none", du=1)],
        [
            Projection("in-a", "in", "a", (table(rng, 5, 3, "excitatory", 4),)),
            Projection("a-b", "a", "b", (table(rng, 4, 5),), 5),
            Projection("b-b", "b", "b", (table(rng, 4, 4, "excitatory"),)),
        ],
        [InputPort("in", (3,))],
    )
    data = np.zeros((3, 12, 3))
    data[0] = data[2] = 1
    record = run(network, device, {"in": data})
    assert record.spikes("a")[0, -1].any() and record.spikes("b")[0, -1].any()
    for probe in ("a.u", "a.v", "b.u", "b.v"):
        states = record.states(probe)
        assert not states[1].any()
        np.testing.assert_array_equal(states[0], states[2])


def test_processes_are_stock_named_and_connected():
    network = signs_and_delays(np.random.default_rng(0))
    from snn_compile.targets.lava.network import to_lava

    processes = to_lava(network, {"in": np.ones((4, 6), np.int32)})
    assert {name: type(p).__name__ for name, p in processes.tables.items()} == {
        "in-a[0]": "Dense",
        "in-a[1]": "Dense",
        "a-b[0]": "DelayDense",
        "a-b[1]": "DelayDense",
        "in-b[0]": "DelayDense",
    }
    assert {type(p).__name__ for p in processes.populations.values()} == {"LIF"}
    assert processes.inputs["in"].data.init.shape == (6, 4)
    sources = {port.process for port in processes.populations["b"].a_in.get_src_ports()}
    assert sources == {processes.tables[key] for key in ("a-b[0]", "a-b[1]", "in-b[0]")}
    names = sorted(var.name for var, _ in processes.state())
    assert names == ["a_buff"] * 5 + ["u", "u", "v", "v"]


def test_an_exception_in_a_stepped_model_is_a_device_error(monkeypatch):
    from snn_compile.targets.lava.compat import load_lava

    def broken(self):
        raise ArithmeticError("planted fault")

    monkeypatch.setattr(load_lava().PyLifModelBitAcc, "spiking_activation", broken)
    network = graded_input(np.random.default_rng(0))
    with pytest.raises(DeviceError, match="ArithmeticError.*device step 0: planted fault"):
        run(network, "lava-stepped")


FAULTS = {
    "raise": ("raise ArithmeticError('planted fault')", "ArithmeticError: planted fault"),
    "die": ("os.kill(os.getpid(), 9)", "ended early, status 9"),
    "hang": ("time.sleep(600)", "did not finish within 4 s"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_a_lava_process_is_reported_and_leaves_nothing(fault, tmp_path, monkeypatch):
    statement, message = FAULTS[fault]
    # Python runs this module when the child process of the device starts.
    (tmp_path / "sitecustomize.py").write_text(f"""
import os, sys, time
if "snn_compile.targets.lava.child" in sys.orig_argv:
    from snn_compile.targets.lava.compat import load_lava
    model = load_lava().PyLifModelBitAcc
    original = model.spiking_activation
    def faulty(self):
        if self.time_step == 3:
            {statement}
        return original(self)
    model.spiking_activation = faulty
""")
    monkeypatch.syspath_prepend(tmp_path)
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(work))
    began = time.monotonic()
    with pytest.raises(DeviceError, match=message):
        run(signs_and_delays(np.random.default_rng(0)), Lava(time_limit_s=4))
    assert time.monotonic() - began < 20
    assert list(work.iterdir()) == []
    assert [line for line in command_lines() if str(work) in line] == []


def command_lines():
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            yield file.read_text(errors="replace")
        except OSError:  # it ended meanwhile
            continue


def test_a_run_that_takes_too_long_is_given_up():
    began = time.monotonic()
    with pytest.raises(DeviceError, match=r"did not finish within 0\.2 s; allow more") as caught:
        run(signs_and_delays(np.random.default_rng(0)), Lava(time_limit_s=0.2))
    assert caught.value.time_limit_s == 0.2 and time.monotonic() - began < 10


def test_the_default_limit_grows_with_the_work():
    network = signs_and_delays(np.random.default_rng(0))
    assert 60 < time_limit(network, 10) < time_limit(network, 10_000)


@pytest.mark.parametrize("limit", [0, -1.0, float("nan")])
def test_a_time_limit_that_is_none_is_refused(limit):
    with pytest.raises(DeviceError, match="must be above 0"):
        Lava(time_limit_s=limit)
