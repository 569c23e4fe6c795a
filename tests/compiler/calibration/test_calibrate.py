"""What quantization chooses on calibration data: on recurrent networks whose weights have outliers, two
tables, larger scales with saturating membranes and reconstructed rounding; elsewhere nothing of the kind."""

from __future__ import annotations

from dataclasses import replace

import nir
import numpy as np
import pytest

from snn_compile.compiler import Options, compile_stages, lower
from snn_compile.compiler.calibration.calibrate import HARMLESS
from snn_compile.compiler.contract.contract import Contract
from snn_compile.compiler.reference import run_reference
from snn_compile.runtime import check
from snn_compile.targets.devices.device import execute

CHANNELS, HIDDEN, CLASSES, STEPS = 8, 28, 5, 160
RATES = (0.05, 0.1, 0.2)


def outliers(build, seed: int, reset: str) -> nir.NIRGraph:
    """Recurrent current-based neurons, some of them deeply inhibited by few large weights."""
    rng = np.random.default_rng(seed)

    def weights(targets: int, sources: int, gain: float, large: int) -> np.ndarray:
        found = rng.normal(0.0, gain, (targets, sources))
        found.flat[rng.choice(found.size, large, replace=False)] -= rng.uniform(6, 12, large) * gain
        return found

    nodes = {
        "input": build.port(nir.Input, CHANNELS),
        "fc": nir.Affine(weights(HIDDEN, CHANNELS, 0.35, 8), rng.normal(0.0, 0.02, HIDDEN)),
        "cell": build.cuba(HIDDEN, tau_mem=10.0, tau_syn=2.2, r=10.0, w_in=2.2, v_threshold=1.0),
        "back": nir.Linear(weights(HIDDEN, HIDDEN, 0.25, 30)),
        "out_fc": nir.Linear(weights(CLASSES, HIDDEN, 0.6, 8)),
        "out": build.cuba(CLASSES, tau_mem=2.2, tau_syn=2.0, r=2.2, w_in=2.0, v_threshold=1.0),
        "output": build.port(nir.Output, CLASSES),
    }
    edges = [("input", "fc"), ("fc", "cell"), ("cell", "back"), ("back", "cell"), ("cell", "out_fc")]
    edges += [("out_fc", "out"), ("out", "output")]
    return build.graph(nodes, edges, Contract(dt=1.0, reset=reset, delays={("cell", "back"): 1}))


def bernoulli(seed: int, samples: int) -> np.ndarray:
    """Random spikes, `samples` at each rate."""
    rng = np.random.default_rng(seed)
    rates = np.repeat(RATES, samples)[:, None, None]
    return (rng.random((len(rates), STEPS, CHANNELS)) < rates).astype(np.float64)


def agreement(program, network, inputs) -> tuple[float, float]:
    """Shares of samples with the float network's class, and with all of its output counts."""
    ideal, record = run_reference(network, inputs), execute(program, inputs)
    counts = [r.outputs.sum(axis=1).reshape(len(inputs), -1) for r in (ideal, record)]
    return float((ideal.predictions == record.predictions).mean()), float(
        (counts[0] == counts[1]).all(axis=1).mean()
    )


@pytest.fixture(
    scope="module", params=[(1, "value"), (1, "subtract"), (7, "value"), (7, "subtract")], ids=str
)
def case(request, build):
    """A network compiled by default, its float form, and test inputs that are not the calibration's."""
    graph = outliers(build, *request.param)
    return graph, compile_stages(graph, calibration=bernoulli(1, 16)), bernoulli(2, 50)


def test_the_default_follows_the_float_network_where_one_table_does_not(case):
    graph, done, test = case
    plain = Options(tables="one", rounding="nearest")
    one = compile_stages(graph, options=plain, calibration=bernoulli(1, 16)).program
    classes, counts = agreement(done.program, done.network, test)
    coarse_classes, coarse_counts = agreement(one, done.network, test)
    assert classes >= 0.92 and counts >= 0.3
    assert coarse_classes <= classes - 0.04 and coarse_counts <= 0.02
    tables = [len(edge.tables) for edge in done.program.projections]
    assert max(tables) == 2


def test_currents_never_wrap_and_membranes_saturate_only_where_it_is_said(case):
    _, done, test = case
    allowed = {item.population for item in done.precision.saturations}
    assert allowed == {"cell"} or allowed == {"cell", "out"}
    for data in (test, bernoulli(1, 16)):
        found = execute(done.program, data).overflows
        assert not any(overflow.u_wraps or overflow.v_high for overflow in found.values())
        assert {name for name, overflow in found.items() if overflow.v_low} <= allowed
    for item in done.precision.saturations:
        assert item.times == found[item.population].v_low
        assert item.of == len(data) * STEPS * done.program.population(item.population).size
    assert found["cell"].v_low > 0 and done.precision.saturations[0].gain > 1.4


def test_saturation_is_shown_to_be_harmless_in_the_float_network(case):
    _, done, _ = case
    data, flat = bernoulli(1, 16), lower(case[0])
    floors = {
        i.population: (2**23 - 1) / done.program.population(i.population).scale
        for i in done.precision.saturations
    }
    clipped = replace(
        flat,
        populations=tuple(
            replace(p, parameters={**p.parameters, "v_min": np.array([-floors[p.name]])})
            if p.name in floors
            else p
            for p in flat.populations
        ),
    )
    names = ["cell", "out"]
    free, held = (run_reference(n, data, record=names) for n in (flat, clipped))
    spikes = [r.spikes(name).astype(int) for name in names for r in (free, held)]
    changed = np.abs(spikes[0] - spikes[1]).sum() + np.abs(spikes[2] - spikes[3]).sum()
    # The always-on neuron of the bias spikes at every step of every sample.
    total = spikes[0].sum() + spikes[2].sum() + data.shape[0] * STEPS
    share = done.precision.saturations[0].spikes_changed
    assert share == pytest.approx(changed / total, abs=1e-12) and share <= HARMLESS


def test_devices_agree_with_saturating_membranes(case):
    _, done, test = case
    for device in ("oracle", "lava-stepped"):
        if device == "lava-stepped":
            pytest.importorskip("lava")
        found = check(done.program, test[[0, 60, 120]], device)
        assert found.difference is None, str(found)


def test_trials_tell_what_was_kept_and_its_price(case):
    _, done, _ = case
    trials = done.precision.trials
    (kept,) = (t for t in trials if t.kept)
    assert kept.fidelity.cores == len(done.program.cores)
    assert kept.fidelity.synapse_bits == sum(core.use["synapse_bits"] for core in done.program.cores)
    record = execute(done.program, bernoulli(1, 16))
    ideal = run_reference(done.network, bernoulli(1, 16))
    assert kept.fidelity.disagreements == np.count_nonzero(record.predictions != ideal.predictions)
    assert kept.fidelity.changed < trials[0].fidelity.changed / 2
    assert trials[0].name == "tables by sign"
    assert kept.fidelity.synapse_bits > trials[0].fidelity.synapse_bits


def test_weights_that_one_table_holds_are_left_alone(build):
    rng = np.random.default_rng(0)
    weights = rng.integers(-127, 128, (6, CHANNELS)) / 32.0
    weights[0, 0] = 127 / 32
    graph = build.chain(CHANNELS, nir.Linear(weights), build.lif(6, v_threshold=2.0, tau=4.0, r=4.0))
    done = compile_stages(graph, calibration=bernoulli(1, 16))
    assert [t.name for t in done.precision.trials] == ["tables by sign"]
    assert not done.precision.saturations and done.precision.plan.rounding == "nearest"
    error = next(e for e in done.quantized.errors if e.tensor.startswith("input/"))
    assert error.max_lsb < 1e-9


@pytest.mark.parametrize("tables", ["one", "sign", "group", "residual"])
def test_tables_on_request(case, tables):
    graph, _, _ = case
    options = Options(tables=tables, rounding="nearest")
    done = compile_stages(graph, options=options, calibration=bernoulli(1, 4))
    counts = {edge.name: len(edge.tables) for edge in done.program.projections}
    large = [counts["cell/back/cell"], counts["input/fc/cell"]]
    assert {"one": large == [1, 1], "sign": large == [2, 2], "residual": large == [2, 2]}.get(
        tables, min(large) > 1
    )
    assert done.precision.plan.rounding == "nearest"


def test_reconstruction_on_request_and_compared_with_nearest(case):
    graph, _, _ = case
    for rounding in ("nearest", "reconstruct"):
        options = Options(tables="one", rounding=rounding)
        done = compile_stages(graph, options=options, calibration=bernoulli(1, 4))
        assert done.precision.plan.rounding == rounding
        names = [t.name.strip() for t in done.precision.trials]
        assert ("calibrated rounding" in names) == (rounding == "reconstruct")
    worst = max(e.max_lsb for e in done.quantized.errors if "/" in e.tensor and not e.clipped)
    assert 0.5 < worst < 1


def test_what_is_too_large_to_reconstruct_is_named(case, monkeypatch):
    monkeypatch.setattr("snn_compile.compiler.quantization.rounding.WORK", 20 * HIDDEN**2)
    done = compile_stages(case[0], options=Options(tables="one"), calibration=bernoulli(1, 4))
    assert done.precision.too_large == ("cell",) and case[1].precision.too_large == ()


@pytest.mark.parametrize("tau, warned", [(900.0, True), (6000.0, True), (100.0, False), (64.0, False)])
def test_time_constants_that_rounding_changes_are_reported(build, tau, warned):
    """A leak of 4096/tau steps of 1/4096 becomes a whole number of them: tau changes by the ratio."""
    data = bernoulli(1, 2)[:, :, :3]
    done = compile_stages(build.chain(3, build.lif(3, tau=tau, r=tau)), calibration=data)
    found = [text for text in done.quantized.warnings if "time constant" in text]
    assert len(found) == warned
    if warned:
        share = 4096 / tau
        for words in ("'n0'", "voltage", f"{share / round(share) - 1:+.1%}", "3 neuron(s)"):
            assert words in found[0]


def test_a_current_that_never_leaks_is_told(build):
    data = bernoulli(1, 2)[:, :20, :3]
    done = compile_stages(build.chain(3, build.cuba(3, tau_syn=1e9, v_threshold=50.0)), calibration=data)
    assert any("time constant of the current" in text for text in done.quantized.warnings)
