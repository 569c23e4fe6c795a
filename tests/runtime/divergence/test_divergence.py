"""Planted faults are found by name and place, rounding is called rounding, shares are what they say."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import planted_faults, random_networks

from snn_compile.compiler import Options, compile_graph, compile_stages
from snn_compile.compiler.cli.arguments import compile_parser
from snn_compile.compiler.network import Network, Projection
from snn_compile.runtime import diverge, reference, simulate
from snn_compile.runtime.divergence import lockstep
from snn_compile.runtime.divergence.diverge import Divergence
from snn_compile.targets.devices.record import DeviceRun
from snn_compile.targets.errors import WrongInput
from snn_compile.targets.loihi2_sim.device import Loihi2Sim

SEEDS = (0, 1)


@pytest.fixture(scope="module")
def hits() -> dict[tuple[str, int], tuple[bool, Any, Divergence]]:
    """Every plant with every seed: whether the first cause is the one planted, at its place."""
    found = {}
    for name in planted_faults.PLANTS:
        for seed in SEEDS:
            plant = planted_faults.plant(name, seed)
            result = diverge(plant.program, plant.network, plant.data)
            cause = result.cause
            hit = cause is not None and cause.kind in plant.kinds and cause.place == plant.place
            hit = hit and (plant.index is None or cause.index == plant.index)
            found[name, seed] = (hit, plant, result)
    return found


@pytest.mark.parametrize("seed", SEEDS)
def test_planted_faults_are_found(hits: Any, seed: int) -> None:
    missed = [
        f"{name}: {result.verdict()}" for (name, s), (hit, _, result) in hits.items() if s == seed and not hit
    ]
    sys.stdout.write("".join(f"missed {line}\n" for line in missed))
    kinds = len(hits) // len(SEEDS)
    assert kinds >= 20
    assert len(missed) <= kinds / 20, missed


def test_faults_are_told_from_rounding(hits: Any) -> None:
    wrong = [key for key, (_, _, result) in hits.items() if bool(result.faults) == (key[0] == "too few bits")]
    assert not wrong


def test_a_dead_population_is_named_with_its_cause(hits: Any) -> None:
    for seed in SEEDS:
        result = hits["dead population", seed][2]
        first = result.symptoms[0]
        assert (first.kind, first.population, first.because) == ("dead", "h", "wrong threshold in h")
        assert result.verdict().startswith("dead population 'h': wrong threshold in h")


def test_a_saturated_population_is_named_with_its_cause(hits: Any) -> None:
    for seed in SEEDS:
        found = [s for s in hits["saturated population", seed][2].symptoms if s.population == "h"]
        assert [(s.kind, s.because) for s in found] == [("saturated", "wrong threshold in h")]


def test_delays_part_at_mapping(hits: Any) -> None:
    for name in ("shifted delay", "misaligned branch"):
        stages = {s.name: s for s in hits[name, 0][2].stages}
        assert stages["mapped"].differing > stages["device"].differing == 0
        assert stages["mapped"].first is not None and stages["device"].first is None
    stages = {s.name: s for s in hits["wrong reset kind", 0][2].stages}
    assert stages["quantized"].differing > stages["mapped"].differing == 0


def test_only_rounding_is_found_where_nothing_was_planted() -> None:
    judged = different = 0
    for seed in range(14):
        case = random_networks.random_network(seed)
        rng = np.random.default_rng(seed)
        options = Options(
            weight_bits=int(rng.integers(3, 9)), tables=str(rng.choice(["one", "sign", "group", "residual"]))
        )
        done = compile_stages(case.network, options=options, calibration=case.data)
        result = diverge(done.program, case.network, case.data)
        # Of few bits the quantizer clips by choice, and says so.
        clipped = {("clipped weight", e.tensor) for e in done.quantized.errors if e.clipped}
        found = {(f.cause.kind, f.cause.place) for f in result.faults}
        assert found <= clipped, f"network {seed}: {result.verdict()}"
        assert result.flips == result.judged, f"network {seed}: {result.beyond}"
        judged += result.judged
        different += result.totals["signal"] > 0
    assert judged >= 10 and different >= 7


def distance(network: Network, a: Any, b: Any) -> float:
    """The mean over populations of the share of neuron-steps that differ."""
    names = [p.name for p in network.populations if p.spiking]
    return float(np.mean([np.mean(a.spikes(n) != b.spikes(n)) for n in names]))


def test_shares_are_runs_of_their_own() -> None:
    """Alone: the float network without its bias. Last: the program with it."""
    rng = np.random.default_rng(5)
    network, data = planted_faults.chain(rng, make=lambda r, n: {"bias": r.normal(0, 0.2, n)})
    whole = compile_graph(network, options=Options(weight_bits=4), calibration=data)
    broken = planted_faults.with_population(whole, "h", bias_mant=np.zeros(1, np.int64))
    names = ("h", "o")
    ideal = reference(network, data, record=names)
    h = network.population("h")
    bare = replace(h, parameters={**h.parameters, "bias": np.zeros(1)})
    without = replace(network, populations=(bare, network.population("o")))
    labels = np.random.default_rng(1).integers(0, network.outputs[0].shape[0], len(data))
    result = diverge(broken, network, data, labels)
    shares = result.causes[0].shares
    assert result.cause is not None and result.cause.kind == "dropped bias" and shares is not None
    alone = reference(without, data, record=names)
    runs = [simulate(p, data, record=names) for p in (broken, whole)]
    total, rest = (distance(network, ideal, run) for run in runs)
    assert result.totals["signal"] == pytest.approx(total) and total > rest > 0
    # A bias of small neurons that rounding alone moves is rounding's, in both runs.
    assert shares["signal"].alone == pytest.approx(distance(network, ideal, alone), abs=1e-12)
    assert shares["signal"].last == pytest.approx(total - rest, abs=1e-12)
    right = [float(np.mean(run.predictions == labels)) for run in (ideal, alone, *runs)]
    assert result.totals["drop"] == pytest.approx(100 * (right[0] - right[2]))
    assert shares["drop"].alone == pytest.approx(100 * (right[0] - right[1]))
    assert shares["drop"].last == pytest.approx(100 * (right[3] - right[2]))
    assert result.accuracy is not None and result.accuracy.drop == pytest.approx(result.totals["drop"])


def test_shares_add_up_and_leave_nothing_with_one_cause(hits: Any) -> None:
    for key, (_, _, result) in hits.items():
        for item, total in result.totals.items():
            parts = sum(f.shares[item].share for f in result.causes if f.shares is not None)
            assert parts + result.remainder[item] == pytest.approx(total), key
    exact = hits["wrong comparison", 0][2]
    ((only, *others),) = [exact.causes]
    assert only.shares["signal"].alone > 0
    h = [f for f in others if f.cause.kind == "weight rounding"]
    assert all("in/h" not in {place for _, place in f.cause.effects} for f in h)  # it holds its integers


def test_batches_change_nothing(hits: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    _, plant, whole = hits["one flipped sign", 0]
    monkeypatch.setattr(lockstep, "MEMORY_BYTES", 1 << 15)
    parts = diverge(plant.program, plant.network, plant.data)
    a, b = whole.json(), parts.json()
    assert a["totals"] == pytest.approx(b["totals"])
    assert a["first"] == b["first"] and a["verdict"] == b["verdict"]
    for key in ("differing", "spikes"):
        np.testing.assert_allclose(a["over_time"]["h"][key], b["over_time"]["h"][key])
    assert [c["kind"] for c in a["causes"]] == [c["kind"] for c in b["causes"]]


class _Lying:
    """A device that keeps back every message of one population's neuron at one step."""

    name = "lying"

    def run(self, *arguments: Any) -> DeviceRun:
        run = Loihi2Sim().run(*arguments)
        events = run.spikes["h"]
        dense = np.array(events.dense())
        dense[:, 9, 2] = 1 - dense[:, 9, 2]
        return replace(run, spikes={**run.spikes, "h": type(events).from_dense(dense)})


def test_a_device_that_errs_is_found(hits: Any) -> None:
    plant = hits["wrong comparison", 0][1]
    program = compile_graph(plant.network, calibration=plant.data)
    result = diverge(program, plant.network, plant.data, device=_Lying())
    device = next(s for s in result.stages if s.name == "device")
    assert device.first is not None
    where = (device.first.step, device.first.population, device.first.neuron)
    assert where == (9 - program.start_step("h"), "h", 2)
    assert device.differing == len(plant.data)
    assert "device lying differs" in result.verdict()
    assert result.verdict().endswith(
        "a fault of the device, unless the oracle differs as well (--device oracle)"
    )
    assert "; a fault of the emulation: " in replace(result, device="oracle").verdict()


def test_relaxed_timing_is_named() -> None:
    case = random_networks.random_network(2, any_rule=False)
    edges = [e for e in case.network.projections if e.source.startswith("p")]
    back = replace(
        edges[0],
        name="back",
        source=edges[0].target,
        target=edges[0].source,
        weight=edges[0].weight.T,
        delay_steps=1,
    )
    first = replace(edges[0], delay_steps=0)
    others = tuple(first if e is edges[0] else e for e in case.network.projections)
    network = replace(case.network, projections=(*others, back))
    program = compile_graph(network, options=Options(relax_timing=True), calibration=case.data)
    result = diverge(program, network, case.data)
    assert "--c-slow" in result.advice()[0]
    slow = diverge(
        compile_graph(network, options=Options(c_slow=2), calibration=case.data), network, case.data
    )
    assert not slow.faults and all(s.differing == 0 for s in slow.stages[1:])
    coarse = compile_graph(network, options=Options(4, "one", c_slow=2), calibration=case.data)
    advice = diverge(coarse, network, case.data).advice()
    assert advice and all("--c-slow 2 " in line for line in advice)
    kinds = {f.cause.kind: f.cause for f in result.causes}
    assert kinds["relaxed timing"].place in ("back", first.name) and kinds["relaxed timing"].size == 1
    assert "wrong delay" not in kinds and "misaligned start" not in kinds


def test_relays_are_understood() -> None:
    case = random_networks.random_network(2, any_rule=False, steps=90)
    own = Projection(
        "late", "p0", "p0", np.random.default_rng(0).normal(size=(case.network.size("p0"),) * 2), 80
    )
    network = replace(case.network, projections=(*case.network.projections, own))
    program = compile_graph(network, calibration=case.data)
    assert any("relay" in p.name for p in program.populations)
    result = diverge(program, network, case.data)
    assert not result.faults and all(s.differing == 0 for s in result.stages[1:])
    edges = tuple(
        replace(e, delay_steps=e.delay_steps - 1) if e.name == "late" else e for e in program.projections
    )
    wrong = diverge(replace(program, projections=edges), network, case.data).cause
    assert wrong is not None and (wrong.kind, wrong.place, wrong.size) == ("wrong delay", "late", -1)


def test_another_model_is_refused(hits: Any) -> None:
    plant = hits["wrong reset kind", 0][1]
    other = replace(
        plant.network, populations=tuple(replace(p, name=p.name) for p in plant.network.populations)
    )
    h = other.population("h")
    named = replace(h, name="k")
    edges = tuple(
        replace(
            e,
            source=e.source.replace("h", "k") if e.source == "h" else e.source,
            target="k" if e.target == "h" else e.target,
        )
        for e in other.projections
    )
    network = replace(other, populations=(named, other.population("o")), projections=edges)
    with pytest.raises(WrongInput, match="compiled from this model"):
        diverge(plant.program, network, plant.data)


def test_advice_is_a_command_that_parses(hits: Any) -> None:
    seen = set()
    for _, _, result in hits.values():
        for line in result.advice("model.nir", "data.npz"):
            words = shlex.split(line)
            assert words[0] == "snn-compile"
            seen.add(vars(compile_parser().parse_args(words[1:]))["model"])
    assert seen == {"model.nir"}
    reset = hits["wrong reset kind", 0][2].advice()
    assert "--convention reset=value" in reset[0]
    said = hits["wrong reset kind", 0][2].advice("m.nir", "d.npz", ["--convention", "dt=1e-4"])
    assert "--convention dt=1e-4" in said[0]
    bits = hits["too few bits", 0][2].advice()
    assert "--bits 8" in bits[0]


def test_advice_is_never_what_was_done_already() -> None:
    """Tables of 8 bits: by sign, then residual, then nothing finer is left to try."""
    network, data = planted_faults.chain(np.random.default_rng(6), graded=True)
    for tables, said in (("one", "sign"), ("sign", "residual"), ("group", "residual"), ("residual", None)):
        options = Options(tables=tables, rounding="nearest")
        result = diverge(compile_graph(network, options=options, calibration=data), network, data)
        assert not result.faults and result.totals["signal"] > 0
        commands = result.advice()
        assert [shlex.split(line)[-3] for line in commands] == ([said] if said else [])


def test_data_beyond_the_largest_message_is_more_than_rounding() -> None:
    network, data = planted_faults.chain(np.random.default_rng(1), graded=True)
    program = compile_graph(network, calibration=data)
    assert not diverge(program, network, data).faults
    wide = np.where(data > 0.9, 3 * data, data)
    result = diverge(program, network, wide)
    cause = result.cause
    assert cause is not None and (cause.kind, cause.place) == ("clipped input", "in")
    assert cause.values == np.count_nonzero(data > 0.9) and result.beyond is not None
    assert result.verdict().startswith(f"clipped input in in ({cause.values} values")
    assert "input coding" not in {f.cause.kind for f in result.causes}


def test_clipping_by_choice_does_not_hide_what_rounding_does() -> None:
    network, data = planted_faults.chain(np.random.default_rng(6))
    coarse = Options(3, "one", rounding="nearest")
    result = diverge(compile_graph(network, options=coarse, calibration=data), network, data)
    shares = {f.cause.kind: f.shares["signal"].share for f in result.causes if f.shares}
    assert [f.cause.kind for f in result.faults] == ["clipped weight"]
    assert shares["weight rounding"] > shares["clipped weight"]
    assert result.verdict().startswith("mostly weight rounding; beyond it, clipped weight in in/h")


def test_text_json_and_files(hits: Any, tmp_path: Path) -> None:
    plant, result = hits["one clipped weight", 0][1:]
    text = result.text("model.nir", "data.npz")
    assert "clipped weight" in text and "remainder" in text and "try: snn-compile model.nir" in text
    assert f"{len(plant.data)} samples" in text
    long = result.text("a/folder/with/a/long/name/" * 5 + "model.nir")
    assert f"try: {result.advice('a/folder/with/a/long/name/' * 5 + 'model.nir')[0]}" in long.splitlines()
    for suffix in ("json", "html", "png"):
        result.save(tmp_path / f"found.{suffix}")
    body = json.loads((tmp_path / "found.json").read_text())
    assert body["schema"] == {"name": "snn-run-diverge", "version": 1}
    assert body["causes"][0]["kind"] == "clipped weight" and body["causes"][0]["fault"]
    assert body["causes"][0]["index"] == list(plant.index)
    assert (tmp_path / "found.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    html = (tmp_path / "found.html").read_text()
    assert "data:image/png;base64," in html and "clipped weight in in/h" in html


def test_a_fault_without_effect_is_named_all_the_same() -> None:
    network, data = planted_faults.chain(np.random.default_rng(3))
    program = compile_graph(network, calibration=data)
    loose = planted_faults.with_population(program, "h", comparison=">=")  # no membrane lies on a threshold
    result = diverge(loose, network, data)
    assert (
        not result.faults
        and "without effect on this data, the program has comparison in h" in result.verdict()
    )


def test_sparse_projections() -> None:
    rng = np.random.default_rng(0)
    weight = rng.normal(0.1, 1, (80, 70)) * (rng.random((80, 70)) < 0.1)
    edges = [Projection("in/h", "in", "h", weight), Projection("h/o", "h", "o", rng.normal(size=(4, 80)) / 5)]
    neurons = (planted_faults.population(rng, "h", 80), planted_faults.population(rng, "o", 4))
    network = planted_faults.made(neurons, edges, 70, "o")
    data = (rng.random((6, 12, 70)) < 0.3).astype(float)
    for tables in ("one", "sign"):
        program = compile_graph(network, options=Options(tables=tables), calibration=data)
        assert all(t.sparse for t in planted_faults.projection(program, "in/h").tables)
        clean = diverge(program, network, data)
        assert not clean.faults and clean.stages[-1].differing == 0
        values = planted_faults.total(program, "in/h")
        for kind, change in (
            ("flipped sign", lambda v: v * np.where(np.abs(v) == np.abs(v).max(), -1, 1)),
            ("permuted weights", lambda v: v[[1, 0, *range(2, 80)]]),
            ("permuted weights", lambda v: v[:, [1, 0, *range(2, 70)]]),
            ("zeroed projection", lambda v: 0 * v),
            ("scaled weights", lambda v: 2 * v),
            ("other weights", lambda v: v * rng.normal(size=v.shape)),
        ):
            cause = diverge(planted_faults.one_table(program, "in/h", change(values)), network, data).cause
            assert cause is not None and (cause.kind, cause.place) == (kind, "in/h")


def test_tables_by_group_have_each_their_last_bit() -> None:
    """Small weights of some targets in a table of their own: rounded finely, and no fault."""
    rng = np.random.default_rng(1)
    network, data = planted_faults.chain(rng)
    program = compile_graph(network, options=Options(tables="one"), calibration=data)
    ((wide,), values) = (
        planted_faults.projection(program, "in/h").tables,
        planted_faults.total(program, "in/h"),
    )
    low = np.arange(len(values)) < 4
    coarse = replace(wide, weights=np.where(low[:, None], 0, wide.weights).astype(np.int64))
    fine = planted_faults.one_table(program, "in/h", np.where(low[:, None], values, 0))
    parts = (coarse, *planted_faults.projection(fine, "in/h").tables)
    assert parts[1].exponent <= coarse.exponent
    split = planted_faults.with_projection(program, "in/h", tables=parts)
    assert not diverge(split, network, data).faults


def test_samples_are_numbered_over_all(hits: Any) -> None:
    first = hits["dropped bias", 0][2].beyond
    plant = hits["dropped bias", 0][1]
    assert first is not None and first.near_threshold is False
    ideal = reference(plant.network, plant.data, record=(first.population,)).spikes(first.population)
    made = simulate(plant.program, plant.data, record=(first.population,)).spikes(first.population)
    at = (first.sample, first.step, first.neuron)
    assert (float(ideal[at]), float(made[at])) == first.messages
    assert np.array_equal(ideal[first.sample, : first.step], made[first.sample, : first.step])
