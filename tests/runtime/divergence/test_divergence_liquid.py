"""Liquid neurons in `diverge`: the emulation is the device, faults are named, rounding is rounding."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from support import planted_faults

from snn_compile.compiler import Options, compile_graph
from snn_compile.compiler.lowering.liquid import Gates, dense_gate, unfold
from snn_compile.compiler.lowering.simplify import simplify
from snn_compile.compiler.network import Network, Population, Projection
from snn_compile.compiler.reference import run_float
from snn_compile.runtime import diverge, reference, simulate
from snn_compile.runtime.divergence.emulator import NETWORK, PROGRAM, emulate
from snn_compile.runtime.divergence.near_threshold import first_differences, rounding_bound
from snn_compile.runtime.divergence.neurons.models import MODELS
from snn_compile.runtime.divergence.pairing import pair
from snn_compile.targets.errors import WrongInput
from snn_compile.targets.program.program import Program

SAMPLES, STEPS = 8, 25


def network(rng: np.random.Generator, rises: bool = True) -> tuple[Network, Any]:
    """Return in -> h -> o, often recurrent on h, and numbers or spikes for it."""
    inputs, h, o = (int(rng.integers(low, high)) for low, high in ((4, 7), (6, 11), (3, 5)))
    edges = [Projection("in/h", "in", "h", rng.normal(0.3, 1, (h, inputs)) * 1.5 / np.sqrt(inputs))]
    if rng.random() < 0.6:
        edges.append(Projection("h/h", "h", "h", rng.normal(0, 0.5, (h, h)) / np.sqrt(h), 1))
    parameters = {
        "threshold": rng.uniform(0.1, 0.3, h),
        "rise": rng.uniform(0.5, 1.8, h) * rises,
        "membrane_bias": rng.normal(0, 1, h),
        "adaptation_bias": rng.normal(1, 1, h),
        "input_bias": rng.uniform(-0.1, 0.2, h),
        **dict.fromkeys(("bias", "offset"), np.zeros(1)),
    }
    weights = (rng.normal(0, 1, (h, 2 * h)) / np.sqrt(h) for _ in range(2))
    gates = [dense_gate(weight, h) for weight in weights]
    layer = Population("h", (h,), "lsn", parameters)
    populations, projections = unfold(layer, Gates(gates[0], gates[1] if rises else None), edges)
    projections.append(Projection("h/o", "h", "o", rng.normal(0.1, 1, (o, h)) * 1.8 / np.sqrt(h)))
    last = planted_faults.population(rng, "o", o)
    found = planted_faults.made((*populations, last), projections, inputs, "o")
    shape = SAMPLES, STEPS, inputs
    numbers = rng.random() < 0.5
    return found, rng.uniform(0, 0.7, shape) if numbers else (rng.random(shape) < 0.3).astype(float)


def compiled(rng: np.random.Generator, net: Network, data: Any) -> Program:
    options = Options(weight_bits=int(rng.integers(6, 9)), tables=str(rng.choice(["sign", "residual"])))
    return compile_graph(net, options=options, calibration=data)


@pytest.mark.parametrize("seed", range(6))
def test_nothing_selected_is_the_network_everything_the_program_and_the_bound_holds(seed: int) -> None:
    rng = np.random.default_rng([11, seed])
    net, data = network(rng, seed % 3 != 2)
    program = compiled(rng, net, data)
    side = pair(program, net)
    names = [f"{p.name}.{s}" for p in side.network.populations for s in MODELS[p.model].traces]
    ideal, mine = (emulate(side, chosen, {"in": data}, names) for chosen in (NETWORK, PROGRAM))
    run = run_float(simplify(net), {"in": data}, ("h", "o"), ("h.reached", "h.limit", "h.m"))
    for name in ("h", "o"):
        np.testing.assert_array_equal(ideal.messages[name], run.messages[name])
    for probe, state in (("h.v", "h.reached"), ("h.limit", "h.limit"), ("h.m", "h.m")):
        np.testing.assert_array_equal(ideal.probes[probe], run.states[state])
    record = simulate(program, data, record=("h", "o"), probes=("h.b", "h.membrane.v"))
    for name in ("h", "o"):
        np.testing.assert_array_equal(mine.messages[name], record.spikes(name))
    held = mine.probes["h.b"] * side.scale["h"]
    np.testing.assert_array_equal(held.reshape(SAMPLES, STEPS, -1), record.states("h.b"))
    bound = rounding_bound(side, {"in": data}, ideal)["h"] / side.scale["h"]
    until = np.full(SAMPLES, STEPS)
    for d in first_differences(side, "", ideal.messages, mine.messages):
        until[d.sample] = d.step + 1
    same = np.arange(STEPS) < until[:, None]
    gaps = [run.probes["h.v"] - run.probes["h.limit"] for run in (ideal, mine)]
    assert (np.abs(gaps[1] - gaps[0])[same] <= bound[same]).all()


FAULTS = {
    "theta_0": ("wrong threshold", 0.6),
    "theta_step": ("wrong threshold rise", 0.3),
    "bias": ("wrong bias", -3.0),
    "membrane_bias": ("wrong membrane gate bias", -2.0),
    "adaptation_bias": ("wrong adaptation gate bias", -2.0),
}


@pytest.mark.parametrize("key", FAULTS)
def test_a_wrong_register_is_named(key: str) -> None:
    rng = np.random.default_rng([12, list(FAULTS).index(key)])
    net, data = network(rng)
    program = compiled(rng, net, data)
    assert reference(net, data, record=("h",)).spikes("h").any()
    kind, factor = FAULTS[key]
    held = program.population("h").parameters[key]
    changed = np.rint(held * factor).astype(np.int64)
    result = diverge(planted_faults.with_population(program, "h", **{key: changed}), net, data)
    cause = result.cause
    assert cause is not None and (cause.kind, cause.place) == (kind, "h"), result.verdict()
    assert result.stages[-1].differing == 0


@pytest.mark.parametrize("seed", range(3))
def test_a_wrong_table_of_rates_and_a_wrong_gate_are_named(seed: int) -> None:
    rng = np.random.default_rng([13, seed])
    net, data = network(rng)
    program = compiled(rng, net, data)
    table = program.population("h").parameters["rates"]
    result = diverge(planted_faults.with_population(program, "h", rates=table[::-1]), net, data)
    assert result.cause is not None and (result.cause.kind, result.cause.place) == ("wrong rates", "h")
    assert result.stages[-1].differing == 0
    values = planted_faults.total(program, "in/h.membrane")
    at = np.unravel_index(int(np.abs(values).argmax()), values.shape)
    flipped = values.copy()
    flipped[at] *= -1
    result = diverge(planted_faults.one_table(program, "in/h.membrane", flipped), net, data)
    kinds = [(f.cause.kind, f.cause.place) for f in result.causes if f.cause.kind not in ("clipped weight",)]
    assert ("flipped sign", "in/h.membrane") in kinds, result.verdict()
    moved = planted_faults.with_projection(program, "in/h.membrane", port=2)
    with pytest.raises(
        WrongInput, match="projection 'in/h.membrane': it reaches port 2 in the program, not 1"
    ):
        diverge(moved, net, data)


def test_a_projection_that_the_program_lacks_is_named() -> None:
    rng = np.random.default_rng(15)
    net, data = network(rng)
    program = compiled(rng, net, data)
    kept = tuple(e for e in program.projections if e.name != "in/h.membrane")
    found = diverge(replace(program, projections=kept), net, data).cause
    assert found is not None and (found.kind, found.place) == ("zeroed projection", "in/h.membrane")
    assert found.detail == "the program has no such projection"
    other = Projection("other", "in", "h", np.ones((net.size("h"), net.size("in"))))
    with pytest.raises(WrongInput, match="projections .*in/h.*the network has none of these names"):
        less = tuple(e for e in net.projections if e.name != "in/h")
        diverge(program, replace(net, projections=(*less, other)), data)


def test_only_rounding_is_found_where_nothing_was_planted() -> None:
    judged = 0
    for seed in range(5):
        rng = np.random.default_rng([14, seed])
        net, data = network(rng)
        result = diverge(compiled(rng, net, data), net, data)
        assert {f.cause.kind for f in result.faults} <= {"clipped weight"}, result.verdict()
        assert result.flips == result.judged, result.beyond
        assert result.stages[-1].differing == 0
        judged += result.judged
    assert judged >= 5
