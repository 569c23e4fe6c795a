"""Every device executes random programs exactly as the oracle does: u, v, messages, overflows, counts."""

from __future__ import annotations

import importlib.util
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import comparing, random_programs

from snn_compile.targets.devices.device import open_device
from snn_compile.targets.errors import DeviceError
from snn_compile.targets.loihi2_sim import device as loihi2_sim
from snn_compile.targets.oracle.lif import LeakyNeurons
from snn_compile.targets.program.file import load_program
from snn_compile.targets.program.rule import CHOICES

PROGRAMS = 320
BLOCKS = 16
TINY_SEEDS = range(1000, 1044)

needs_lava = pytest.mark.skipif(
    importlib.util.find_spec("lava.magma") is None, reason="lava-nc is not installed; the README says how"
)


def block(index: int) -> range:
    """Return the seeds of one block; blocks are tests of their own so that they run in parallel."""
    return range(index * PROGRAMS // BLOCKS, (index + 1) * PROGRAMS // BLOCKS)


@pytest.fixture(scope="module")
def oracle() -> Any:
    """Return run(seed): the case of a seed and the oracle's record of it, made once."""
    kept: dict[int, Any] = {}

    def run(seed: int) -> Any:
        if seed not in kept:
            case = random_programs.case(seed)
            kept[seed] = case, comparing.run_all(case.program, case.inputs, "oracle")
        return kept[seed]

    return run


@pytest.mark.parametrize("index", range(BLOCKS))
@pytest.mark.parametrize("threads", [1, 2])
def test_loihi2_sim(oracle: Any, index: int, threads: int) -> None:
    for seed in block(index):
        case, wanted = oracle(seed)
        got = comparing.run_all(case.program, case.inputs, "loihi2-sim", threads=threads)
        assert not comparing.first_difference(wanted, got), f"seed {seed}"


@pytest.mark.parametrize("device", ["oracle", "loihi2-sim"])
def test_a_saved_program_runs_the_same(oracle: Any, tmp_path: Any, device: str) -> None:
    for seed in range(0, PROGRAMS, 4):
        case, wanted = oracle(seed)
        case.program.save(tmp_path / "program")
        loaded = load_program(tmp_path / "program")
        got = comparing.run_all(loaded, case.inputs, device)
        assert not comparing.first_difference(wanted, got), f"seed {seed}"


EDGES = (
    "edges value",
    "edges subtract",
    "edges none",
    "edges by rule",
    "edges at the threshold",
    "held",
    "late",
    "ties",
    "other ties",
)


@pytest.mark.parametrize("name", EDGES)
@pytest.mark.parametrize(
    "device",
    ["loihi2-sim", pytest.param("lava-stepped", marks=needs_lava), pytest.param("lava", marks=needs_lava)],
)
def test_edges(device: str, name: str) -> None:
    case = random_programs.edge_cases()[name]
    wanted = comparing.run_all(case.program, case.inputs, "oracle")
    if name == "late":
        # The membrane update itself stays in range: it is the reset that leaves it.
        assert wanted.overflows["pop0"].v_low and not wanted.overflows["pop0"].v_high
    elif name == "ties":
        assert not any(wanted.overflows.values()) and set(wanted.spikes("pop1").flat) == {-1, 0, 1}
    elif name == "other ties":
        assert all(wanted.counts.spikes[p.name] for p in case.program.populations if p.name != "far")
        assert wanted.spikes("far")[0, :, 0].tolist()[11:] == [256, 512, 0]  # the last would be -2**31
    elif name != "held":
        assert set(np.abs(wanted.states("turn.u")).flat) >= {1 << 23, (1 << 23) - 64, 1 << 24}
        assert all(count > 0 for count in vars(wanted.overflows["turn"]).values())
    if name == "edges none":
        low = 1 - (1 << 23)
        assert set(wanted.states("turn.v").flat) >= {low, low + 1, -low, -low - 1}
    got = comparing.run_all(case.program, case.inputs, device)
    assert not comparing.first_difference(wanted, got, overflows="lava" not in device)


def test_full_event_buffers_change_nothing(oracle: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # The kernel then returns after nearly every step and goes on where it stopped.
    monkeypatch.setattr(loihi2_sim, "EVENT_BUFFER", 1)
    for seed in range(0, PROGRAMS, 4):
        case, wanted = oracle(seed)
        got = comparing.run_all(case.program, case.inputs, "loihi2-sim", threads=1)
        assert not comparing.first_difference(wanted, got), f"seed {seed}"


@pytest.mark.parametrize("device", ["oracle", "loihi2-sim"])
def test_a_sample_alone_runs_as_in_a_batch(oracle: Any, device: str) -> None:
    several = 0
    for seed in range(0, PROGRAMS, 8):
        case, wanted = oracle(seed)
        batch = comparing.traces(wanted)
        several += wanted.samples > 1
        for sample in range(wanted.samples):
            inputs = {name: array[sample : sample + 1] for name, array in case.inputs.items()}
            alone = comparing.traces(comparing.run_all(case.program, inputs, device))
            for key, array in alone.items():
                assert np.array_equal(array[0], batch[key][sample]), (seed, sample, key)
    assert several > PROGRAMS // 8 / 2


@settings(max_examples=200, suppress_health_check=list(HealthCheck))
@given(drawn=st.data())
def test_loihi2_sim_shrinks_to_a_small_program(drawn: st.DataObject) -> None:
    case = drawn.draw(random_programs.cases())
    wanted = comparing.run_all(case.program, case.inputs, "oracle")
    got = comparing.run_all(case.program, case.inputs, "loihi2-sim", threads=1)
    assert not comparing.first_difference(wanted, got)


def rule_properties(p: Any, events: Any, traces: dict[tuple[str, str], Any]) -> set[str]:
    """Return what the rule of a population showed in a run with these messages."""
    seen = {f"{key} {getattr(p, key)}" for key in CHOICES if events is not None and events.count}
    if 4096 in p.parameters["dv"]:
        seen |= {"dv 4096"}
    if p.model == "ternary":
        return seen | {"ternary"} if events.count and (events.values < 0).any() else seen
    if not p.spiking:
        return {"integrator is heard"} | seen if events is not None and events.count else seen
    if (p.parameters["v_min"] > -(2**23) + 1).any() and (traces[p.name, "v"] == p.parameters["v_min"]).any():
        seen |= {"clipped at v_min"}
    if events.values is not None and (events.values > 1).any():
        seen |= {"several spikes a step", f"several spikes a step, {p.reset_timing}"}
    return seen


def properties(case: Any, record: Any, traces: dict[tuple[str, str], Any]) -> set[str]:
    """Return what a program and its run show."""
    program, seen = case.program, set()
    if all(p.plain and (p.spiking or p not in program.senders) for p in program.populations) and not any(
        table.sparse for edge in program.projections for table in edge.tables
    ):
        seen |= {"stock"}
    for p in program.populations:
        seen |= rule_properties(p, record.run.spikes.get(p.name), traces)
        overflow = record.overflows[p.name]
        seen |= {key for key in ("u_wraps", "v_high", "v_low") if getattr(overflow, key)}
        if p.spiking and record.counts.spikes[p.name]:
            seen |= {f"spikes with reset {p.reset}"}
            seen |= {"spikes after a wrap"} if overflow.u_wraps else set()
        if not p.spiking:
            seen |= {"li"}
        if p.start_step >= 2 and p.parameters["bias_mant"].any():
            seen |= {"biased layer at latency >= 2"}
        if any(len(array) > 1 for array in p.parameters.values()):
            seen |= {"per-neuron parameters"}
        for key, ends in (("du", (0, 4095)), ("dv", (0, 4095)), ("vth", (0, 131071))):
            seen |= {f"{key} {end}" for end in ends if end in p.parameters.get(key, ())}
        # One turn of 24 bits did not bring u back: the shifted sum came near or past 32 bits.
        if np.abs(traces[p.name, "u"]).max() > 1 << 23:
            seen |= {"u beyond one turn"}
    order = [node.name for node in (*program.inputs, *program.populations)]
    for edge in program.projections:
        if order.index(edge.source) >= order.index(edge.target):
            seen |= {"self loop" if edge.source == edge.target else "longer cycle"}
        seen |= {f"delay {edge.delay_steps}"}
        seen |= {"several tables"} if len(edge.tables) > 1 else set()
        for table in edge.tables:
            if table.synapses and record.counts.synops[edge.name]:
                seen |= {table.sign_mode, f"bits {table.bits}", f"exponent {table.exponent}"}
                if table.sparse:
                    seen |= {f"sparse {table.sign_mode}", "sparse"}
                    seen |= {"sparse and delayed"} if edge.delay_steps else set()
                    seen |= {"sparse and graded"} if table.message_bits else set()
                if table.message_bits and edge.source in record.run.spikes:
                    seen |= {"graded between populations"}
    if record.counts.graded_synops:
        seen |= {"graded"}
    if any(
        port.signed and (array < 0).any()
        for port, array in zip(program.inputs, case.inputs.values(), strict=True)
    ):
        seen |= {"negative messages"}
    return seen


@pytest.fixture
def ties(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Return what is seen of membranes exactly at (the n-th multiple of) a threshold from now on."""
    seen: set[str] = set()
    original = LeakyNeurons._spikes

    def spikes(self: Any, pending: Any) -> Any:
        held = pending if self.rule.reset_timing == "pending" else np.zeros_like(pending)
        many = self.rule.spikes_per_step == "floor"
        for n in (1, 2) if many else (1,):
            meets = self.v == (n + held) * self.threshold
            if meets.any():
                seen.add(f"tie {n} {self.rule.comparison}")
                seen.add(f"tie {self.rule.comparison} {self.rule.reset_timing}")
            if (meets & held).any():
                seen.add("tie while pending")
        if held.any():
            seen.add("pending")
        return original(self, pending)

    monkeypatch.setattr(LeakyNeurons, "_spikes", spikes)
    return seen


SHARES = {
    0.25: [
        "u_wraps",
        "v_high",
        "v_low",
        "per-neuron parameters",
        "several tables",
        "graded",
        "spikes with reset value",
        "spikes with reset subtract",
        "mixed",
        "excitatory",
        "inhibitory",
        "biased layer at latency >= 2",
        "self loop",
        "stock",
        "sparse",
        "graded between populations",
        *(f"{key} {word}" for key, words in CHOICES.items() for word in words[:1]),
    ],
    0.10: [
        "spikes with reset none",
        "spikes after a wrap",
        "u beyond one turn",
        "li",
        "negative messages",
        "longer cycle",
        "du 0",
        "du 4095",
        "dv 0",
        "dv 4095",
        *(f"bits {bits}" for bits in (1, 2, 4, 6, 7, 8)),
        "vth 0",
        "vth 131071",
        *(f"{key} {word}" for key, words in CHOICES.items() for word in words[1:]),
        "dv 4096",
        "integrator is heard",
        "clipped at v_min",
        "several spikes a step",
        "sparse and delayed",
        "sparse and graded",
        *(f"sparse {mode}" for mode in ("mixed", "excitatory", "inhibitory")),
        "tie 1 >",
        "pending",
    ],
    0.01: [
        *(f"tie 2 {comparison}" for comparison in (">", ">=")),
        *(f"tie {c} {timing}" for c in (">", ">=") for timing in CHOICES["reset_timing"]),
        *(f"several spikes a step, {timing}" for timing in CHOICES["reset_timing"][:3]),
        "tie while pending",
    ],
    0.03: ["ternary", "tie 1 >="],
    0.04: [*(f"exponent {e}" for e in range(-8, 8)), *(f"delay {d}" for d in range(4))],
}
"""What at least so many of the random programs have to show."""


def test_the_random_programs_show_everything(ties: set[str]) -> None:
    seen: Counter[str] = Counter()
    for seed in range(PROGRAMS):
        case = random_programs.case(seed)
        ties.clear()
        record = comparing.run_all(case.program, case.inputs, "oracle")
        seen.update(properties(case, record, comparing.traces(record)) | ties)
    short = {
        name: seen[name] for least, names in SHARES.items() for name in names if seen[name] < least * PROGRAMS
    }
    assert not short
    assert max(int(name.split()[1]) for name in seen if name.startswith("delay")) >= 60


@needs_lava
@pytest.mark.parametrize("index", range(BLOCKS))
def test_lava_stepped(oracle: Any, index: int) -> None:
    device = open_device("lava-stepped")
    for seed in block(index):
        case, wanted = oracle(seed)
        got = comparing.run_all(case.program, case.inputs, device)
        assert not comparing.first_difference(wanted, got, overflows=False), f"seed {seed}"
        assert got.witness.keys() == wanted.shapes.keys(), f"seed {seed}"


@needs_lava
@pytest.mark.parametrize("seed", TINY_SEEDS)
def test_lava(seed: int) -> None:
    case = random_programs.case(seed, random_programs.TINY)
    wanted = comparing.run_all(case.program, case.inputs, "oracle")
    got = comparing.run_all(case.program, case.inputs, "lava")
    assert not comparing.first_difference(wanted, got, overflows=False)


@needs_lava
def test_the_programs_for_lava_show_everything() -> None:
    from snn_compile.targets.lava.populations import implementation_of

    seen: Counter[str] = Counter()
    for seed in TINY_SEEDS:
        program = random_programs.case(seed, random_programs.TINY).program
        found = {
            f"{key} {getattr(p, key)}" for p in program.populations for key in CHOICES if p.model == "lif"
        }
        found |= {p.model for p in program.populations}
        for p in program.populations:
            witness = implementation_of(p, p in program.senders)
            found |= set(witness.removeprefix("derived (").removesuffix(")").split(", "))
            found |= {"integrator is heard"} if p in program.senders and not p.spiking else set()
        for edge in program.projections:
            if any(table.sparse for table in edge.tables):
                found |= {"delayed" if edge.delay_steps else "sparse"}
        seen.update(found)
    methods = ("stock", "reset_voltage", "run_spk", "spiking_activation", "subthr_dynamics")
    wanted = [*methods, *(f"{key} {word}" for key, words in CHOICES.items() for word in words)]
    wanted += ["integrator is heard", "sparse", "delayed", "ternary"]
    assert not {name: seen[name] for name in wanted if seen[name] < 4}


def test_strict_oracle_refuses_exactly_what_overflows(oracle: Any) -> None:
    outcomes: Counter[bool] = Counter()
    for seed in range(PROGRAMS):
        case, wanted = oracle(seed)
        overflows = any(wanted.overflows.values())
        outcomes[overflows] += 1
        if overflows:
            with pytest.raises(DeviceError, match="left its 24-bit range"):
                comparing.run_all(case.program, case.inputs, "oracle", strict=True)
        else:
            got = comparing.run_all(case.program, case.inputs, "oracle", strict=True)
            assert not comparing.first_difference(wanted, got), f"seed {seed}"
    assert min(outcomes.values()) >= PROGRAMS / 10
