"""Resonators and adaptive leaky neurons in `diverge`: faults by name and place, rounding as rounding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from support import planted_faults

from snn_compile.compiler import Options, compile_graph, compile_stages
from snn_compile.compiler.lowering.simplify import simplify
from snn_compile.compiler.network import Network, Population, Projection
from snn_compile.compiler.reference import run_float
from snn_compile.runtime import diverge, reference
from snn_compile.runtime.divergence.emulator import NETWORK, PROGRAM, emulate
from snn_compile.runtime.divergence.near_threshold import first_differences, rounding_bound
from snn_compile.runtime.divergence.neurons.models import MODELS
from snn_compile.runtime.divergence.pairing import pair
from snn_compile.targets.program.program import Program

SAMPLES, STEPS, DELTA = 10, 40, 0.02
KINDS = ("brf", "rf", "alif")
SEEDS = (0, 1)


def neurons(rng: np.random.Generator, kind: str, size: int) -> Population:
    """A population "h"; `rf` is `brf` without refractoriness, what a native RF is rewritten as."""
    shared = {"input_bias": np.zeros(1), "offset": np.zeros(1)}
    if kind == "alif":
        own = {
            "voltage_decay": rng.uniform(0.1, 0.4, size),
            "threshold": rng.uniform(0.5, 0.9, size),
            "adaptation_decay": rng.uniform(0.01, 0.1, size),
            "adaptation_step": rng.uniform(0.05, 0.3, size),
            "reset_size": np.full(1, float(rng.integers(1, 3))),
        }
        return Population("h", (size,), "alif", own | shared)
    sine = DELTA * rng.uniform(3, 20, size)
    own = {
        "cosine": np.sqrt(1 - sine**2) - DELTA * rng.uniform(0.5, 3, size),
        "sine": sine,
        "threshold": rng.uniform(0.8, 1.2, size),
        "damping": np.full(1, DELTA if kind == "brf" else 0.0),
        "rise": np.full(1, float(kind == "brf")),
        "recovery": rng.uniform(0.05, 0.15, size) if kind == "brf" else np.ones(1),
    }
    return Population("h", (size,), "brf", own | shared)


def network(kind: str, rng: np.random.Generator) -> tuple[Network, Any]:
    """Return in -> h -> o, often recurrent on h, sometimes delayed, and spikes or numbers for it."""
    inputs, h, o = (int(rng.integers(low, high)) for low, high in ((5, 9), (8, 14), (3, 6)))
    scale = 1.6 if kind == "alif" else 2.0
    edges = [
        Projection("in/h", "in", "h", rng.normal(0.1, 1, (h, inputs)) * scale / np.sqrt(inputs)),
        Projection("h/o", "h", "o", rng.normal(0.1, 1, (o, h)) * 1.8 / np.sqrt(h), int(rng.integers(3))),
    ]
    if rng.random() < 0.6:
        edges.append(Projection("h/h", "h", "h", rng.normal(0, 0.5, (h, h)) / np.sqrt(h), 1))
    populations = neurons(rng, kind, h), planted_faults.population(rng, "o", o)
    found = planted_faults.made(populations, edges, inputs, "o")
    shape = SAMPLES, STEPS, inputs
    return found, (rng.random(shape) < 0.3).astype(float) if rng.random() < 0.7 else rng.uniform(
        0, 0.7, shape
    )


@dataclass(frozen=True, eq=False)
class Fault:
    """A kind of cause, and registers to be changed for every neuron, or for the busiest one alone."""

    kind: str
    change: Callable[[dict[str, Any]], dict[str, Any]]
    models: tuple[str, ...]
    single: bool = False


def _turned(r: dict[str, Any]) -> dict[str, Any]:
    """A frequency 1.6 times as high, at the same damping b."""
    sine = r["sin_decay"] / 4096
    b = np.sqrt(1 - sine**2) - r["cos_decay"] / 4096
    return {"sin_decay": 1.6 * sine * 4096, "cos_decay": (np.sqrt(1 - (1.6 * sine) ** 2) - b) * 4096}


def _times(key: str, factor: float) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda r: {key: r[key] * factor}


FAULTS = {
    "omega": Fault("wrong omega", _turned, ("brf", "rf")),
    "omega of one": Fault("wrong omega", _turned, ("brf", "rf"), True),
    "b": Fault("wrong b", lambda r: {"cos_decay": r["cos_decay"] - 160}, ("brf", "rf")),
    "b of one": Fault("wrong b", lambda r: {"cos_decay": r["cos_decay"] - 240}, ("brf", "rf"), True),
    "radius": Fault("wrong b", lambda r: {k: r[k] * 0.93 for k in ("cos_decay", "sin_decay")}, ("brf", "rf")),
    "threshold": Fault("wrong threshold", _times("vth", 0.7), ("brf", "rf")),
    "threshold of one": Fault("wrong threshold", _times("vth", 0.5), ("brf", "rf"), True),
    "rise": Fault("wrong refractory rise", _times("r_step", 0.4), ("brf",)),
    "refractory": Fault("wrong refractoriness", _times("refractory", 0), ("brf",)),
    "recovery": Fault("wrong refractory decay", _times("delta_r", 5), ("brf",)),
    "damping": Fault("wrong smooth reset", _times("damping", 0), ("brf",)),
    "leak": Fault("wrong voltage decay", _times("delta_v", 0.5), ("alif",)),
    "leak of one": Fault("wrong voltage decay", _times("delta_v", 0.2), ("alif",), True),
    "base": Fault("wrong threshold", _times("theta_0", 0.7), ("alif",)),
    "base of one": Fault("wrong threshold", _times("theta_0", 0.5), ("alif",), True),
    "adaptation": Fault("wrong adaptation step", _times("theta_step", 0.4), ("alif",)),
    "forgetting": Fault("wrong adaptation decay", _times("delta_theta", 4), ("alif",)),
    "reset": Fault("wrong reset size", lambda r: {"reset_exp": 1 - r["reset_exp"]}, ("alif",)),
}
PLANTED = [(name, kind) for name, fault in FAULTS.items() for kind in fault.models]


def compiled(rng: np.random.Generator, net: Network, data: Any) -> Program:
    options = Options(weight_bits=int(rng.integers(6, 9)), tables=str(rng.choice(["sign", "residual"])))
    return compile_graph(net, options=options, calibration=data)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("name", "kind"), PLANTED)
def test_a_wrong_register_is_named(name: str, kind: str, seed: int) -> None:
    rng, fault = np.random.default_rng([seed, PLANTED.index((name, kind))]), FAULTS[name]
    net, data = network(kind, rng)
    program = compiled(rng, net, data)
    spikes = reference(net, data, record=("h",)).spikes("h").sum(axis=(0, 1))
    busiest = int(spikes.argmax())
    assert spikes[busiest] > SAMPLES
    held = planted_faults.registers(program, "h")
    where = np.arange(len(held[next(iter(held))])) == busiest if fault.single else np.True_
    changed = {key: np.rint(np.where(where, new, held[key])) for key, new in fault.change(held).items()}
    changed = {key: new.astype(np.int64) for key, new in changed.items()}
    changed = {k: new[:1] if k.endswith("_exp") else new for k, new in changed.items()}
    result = diverge(planted_faults.with_population(program, "h", **changed), net, data)
    cause = result.cause
    assert cause is not None and (cause.kind, cause.place) == (fault.kind, "h"), result.verdict()
    assert cause.index == ((busiest,) if fault.single else cause.index)
    assert [f.cause.kind for f in result.faults] == [fault.kind]
    assert result.beyond is not None and result.stages[-1].differing == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_wrong_projection_is_named(kind: str) -> None:
    rng = np.random.default_rng(KINDS.index(kind))
    net, data = network(kind, rng)
    program = compiled(rng, net, data)
    values = planted_faults.total(program, "in/h")
    at = np.unravel_index(int(np.abs(values).argmax()), values.shape)
    flipped = values.copy()
    flipped[at] *= -1
    index = tuple(int(i) for i in at)
    found = diverge(planted_faults.one_table(program, "in/h", flipped), net, data).cause
    assert found is not None and (found.kind, found.place, found.index) == ("flipped sign", "in/h", index)
    found = diverge(planted_faults.one_table(program, "in/h", 0 * values), net, data).cause
    assert found is not None and (found.kind, found.place) == ("zeroed projection", "in/h")
    late = planted_faults.projection(program, "h/o").delay_steps + 1
    found = diverge(planted_faults.with_projection(program, "h/o", delay_steps=late), net, data).cause
    assert found is not None and (found.kind, found.place, found.size) == ("wrong delay", "h/o", 1)


@pytest.mark.parametrize("kind", KINDS)
def test_only_rounding_is_found_where_nothing_was_planted(kind: str) -> None:
    judged = different = 0
    for seed in range(8):
        rng = np.random.default_rng([7, seed])
        net, data = network(kind, rng)
        options = Options(
            weight_bits=int(rng.integers(4, 9)), tables=str(rng.choice(["one", "sign", "residual"]))
        )
        done = compile_stages(net, options=options, calibration=data)
        assert done.program is not None and done.quantized is not None
        result = diverge(done.program, net, data)
        clipped = {("clipped weight", e.tensor) for e in done.quantized.errors if e.clipped}
        found = {(f.cause.kind, f.cause.place) for f in result.faults}
        assert found <= clipped, f"network {seed}: {result.verdict()}"
        assert result.flips == result.judged, f"network {seed}: {result.beyond}"
        assert result.stages[-1].differing == 0
        judged += result.judged
        different += result.totals["signal"] > 0
    assert judged >= 10 and different >= 6


@pytest.mark.parametrize("kind", KINDS)
def test_the_ends_of_24_and_32_bits_are_the_device_s(kind: str) -> None:
    """With weights far too large the emulation is still the program, and says what left its range."""
    rng = np.random.default_rng(3)
    net, data = network(kind, rng)
    program = compiled(rng, net, data)
    shift = 7 - max(t.exponent for e in program.projections if e.target == "h" for t in e.tables)
    for e in program.projections:
        if e.target == "h":
            tables = tuple(replace(t, exponent=t.exponent + shift) for t in e.tables)
            program = planted_faults.with_projection(program, e.name, tables=tables)
    held = {
        "brf": {"r_step": 8388544, "delta_r": 0, "refractory": 0},
        "alif": {"theta_step": 8388544, "delta_v": 0},
    }
    registers = {key: np.array([value]) for key, value in held.get(kind, {}).items()}
    program = planted_faults.with_population(program, "h", **registers)
    result = diverge(program, net, data)
    assert result.stages[-1].differing == 0
    assert "v saturates high" in {f.cause.kind for f in result.causes if f.cause.place == "h"}


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_selected_is_the_network_and_the_bound_holds(kind: str) -> None:
    """Before its first difference no neuron is further from its threshold than the bound of rounding says."""
    least = 1.0
    for seed in range(4):
        rng = np.random.default_rng([9, seed])
        net, data = network(kind, rng)
        side = pair(compiled(rng, net, data), net)
        names = [f"{p.name}.{s}" for p in side.network.populations for s in MODELS[p.model].traces]
        ideal, mine = (emulate(side, chosen, {"in": data}, names) for chosen in (NETWORK, PROGRAM))
        run = run_float(simplify(net), {"in": data}, (), ("h.reached", "h.limit", "o.reached"))
        spikes = reference(net, data, record=("h", "o"))
        for name in ("h", "o"):
            np.testing.assert_array_equal(ideal.messages[name], spikes.spikes(name))
            np.testing.assert_array_equal(ideal.probes[f"{name}.v"], run.states[f"{name}.reached"])
        np.testing.assert_array_equal(ideal.probes["h.limit"], run.states["h.limit"])
        bound = rounding_bound(side, {"in": data}, ideal)["h"] / side.scale["h"]
        until = np.full(SAMPLES, STEPS)
        for d in first_differences(side, "", ideal.messages, mine.messages):
            until[d.sample] = d.step + 1
        same = np.arange(STEPS) < until[:, None]
        gaps = [run.probes["h.v"] - run.probes["h.limit"] for run in (ideal, mine)]
        error = np.abs(gaps[1] - gaps[0])[same]
        assert (error <= bound[same]).all()
        least = min(least, 1 - float((error / bound[same]).max()))
    assert least < 0.9  # it is no bound that anything would keep
