"""Sensitivity to dt: a graph's equations at other steps, what they do to spikes, and the advised dt."""

from __future__ import annotations

import json
from fractions import Fraction
from math import log
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nir
import numpy as np
import pytest
from support import random_graphs, random_programs

from snn_compile.compiler.analysis.dt_refinement import inputs_at, network_at, tied_to_steps
from snn_compile.compiler.analysis.dt_sensitivity import Sensitivity, sensitivity
from snn_compile.compiler.analysis.mismatch import MismatchModel, fit_mismatch
from snn_compile.compiler.cli.main import main
from snn_compile.compiler.contract.contract import Contract, attach
from snn_compile.compiler.contract.resolve import resolve
from snn_compile.compiler.lowering.lower import lower
from snn_compile.compiler.reference import as_inputs, run_float
from snn_compile.targets.errors import CompileError, SnnCompileError

DT = 1e-3
CHANNELS = 6


def network(
    build: SimpleNamespace, seed: int, kind: str = "cuba", recurrent: float = 0.0, **items: Any
) -> nir.NIRGraph:
    """Return a two-layer network of 40 and 20 neurons with time constants of 10 to 25 ms."""
    rng = np.random.default_rng(seed)

    def neurons(size: int) -> Any:
        tau = rng.uniform(10e-3, 25e-3, size)
        if kind == "lif":
            return build.lif(size, tau=tau, r=1.0, v_threshold=1.0)
        return build.cuba(size, tau_mem=tau, tau_syn=5e-3, r=1.0, w_in=1.0, v_threshold=1.0)

    nodes = {
        "input": build.port(nir.Input, CHANNELS),
        "a": nir.Affine(rng.normal(0, 0.6, (40, CHANNELS)), rng.uniform(0.2, 0.9, 40)),
        "h": neurons(40),
        "b": nir.Affine(rng.normal(0, 1.5, (20, 40)), rng.uniform(0.3, 0.9, 20)),
        "o": neurons(20),
        "output": build.port(nir.Output, 20),
    }
    edges = list(zip(nodes, list(nodes)[1:], strict=False))
    delays = {}
    if recurrent:
        nodes["w"] = nir.Linear(rng.normal(0, recurrent, (40, 40)))
        edges += [("h", "w"), ("w", "h")]
        delays = {("w", "h"): 1}
    return build.graph(nodes, edges, Contract(dt=DT, delays=delays, **items))


def currents(seed: int, samples: int = 32, steps: int = 60) -> np.ndarray:
    """Return sine waves of periods from 33 to 200 ms around 1: (samples, steps, channels)."""
    rng = np.random.default_rng(seed)
    shape = (samples, 1, CHANNELS)
    rate, phase = rng.uniform(0.005, 0.03, shape), rng.random(shape)
    return 1 + np.sin(2 * np.pi * (np.arange(steps)[:, None] * rate + phase))


@pytest.mark.parametrize("seed", range(3))
def test_at_its_own_dt_a_graph_is_itself(build: SimpleNamespace, seed: int) -> None:
    graph = network(build, seed, recurrent=0.5)
    data = as_inputs(lower(graph), currents(seed, 4, 30))
    same = network_at(graph, resolve(graph)[0], Fraction(1))
    a, b = (run_float(n, data, ("h", "o"), ("o.v",)) for n in (lower(graph), same))
    assert b.messages["h"].sum() > 20
    for name in ("h", "o"):
        np.testing.assert_array_equal(a.messages[name], b.messages[name])
    np.testing.assert_array_equal(a.states["o.v"], b.states["o.v"])


def test_at_its_own_dt_any_random_graph_is_itself() -> None:
    compared = 0
    for seed in range(60):
        case = random_graphs.graph(seed, random_programs)
        contract = Contract(**case.contract)
        if case.timing != "open":
            attach(case.graph, contract)
            assert network_at(case.graph, contract, Fraction(1)).digest() == lower(case.graph).digest()
            compared += 1
    assert compared > 40


@pytest.mark.parametrize("k", [3, 8])
def test_finer_steps_are_the_equations_written_by_hand(build: SimpleNamespace, k: int) -> None:
    """Two current-based neurons, one drives the other through a delay, stepped at dt / k in plain numpy."""
    nodes = {
        "input": build.port(nir.Input, 1),
        "h": build.cuba(1, tau_mem=20e-3, tau_syn=5e-3, r=1.0, w_in=1.0, v_threshold=1.0),
        "w": nir.Linear(np.array([[30.0]])),
        "d": nir.Delay(np.array([2 * DT])),
        "o": build.lif(1, tau=15e-3, r=1.0, v_threshold=1.0),
        "output": build.port(nir.Output, 1),
    }
    edges = list(zip(nodes, list(nodes)[1:], strict=False))
    graph = build.graph(nodes, edges, Contract(dt=DT))
    x = currents(5, 1, 80)[:, :, :1] * 3
    h = DT / k
    i, v, w, spikes, driven = 0.0, 0.0, 0.0, [], []
    for t in range(80 * k):
        i += h / 5e-3 * (x[0, t // k, 0] - i)
        v += h / 20e-3 * (i - v)
        spikes.append(v > 1)
        v *= not spikes[-1]
        # A spike is a current of the charge that it has at dt: amplitude 1 for DT, here k for DT / k.
        arrived = 30.0 * k * spikes[t - 2 * k] if t >= 2 * k else 0.0
        w += h / 15e-3 * (arrived - w)
        driven.append(w > 1)
        w *= not driven[-1]
    ratio = Fraction(1, k)
    made = network_at(graph, resolve(graph)[0], ratio)
    run = run_float(made, inputs_at({"input": x}, ratio), ("h", "o"))
    assert sum(spikes) >= 3 and sum(driven) >= 2
    np.testing.assert_array_equal(run.messages["h"][0, :, 0], spikes)
    np.testing.assert_array_equal(run.messages["o"][0, :, 0], driven)


def test_inputs_keep_their_charge() -> None:
    x = {"input": np.random.default_rng(0).normal(size=(2, 12, 3))}
    for ratio in (Fraction(1, 4), Fraction(1), Fraction(3)):
        there = inputs_at(x, ratio)["input"]
        assert there.shape == (2, round(12 / ratio), 3)
        np.testing.assert_allclose(there.sum(1) * float(ratio), x["input"].sum(1), rtol=1e-12)


def test_delays_keep_their_time_but_for_the_step_of_a_cycle(build: SimpleNamespace) -> None:
    graph = network(build, 0, recurrent=0.5)
    contract = Contract(dt=DT, delays={("w", "h"): 1, ("a", "h"): 2, ("b", "o"): 1})
    made = network_at(graph, contract, Fraction(1, 3))
    assert {e.name: e.delay_steps for e in made.projections} == {"input/a/h": 6, "h/b/o": 3, "h/w/h": 1}
    with pytest.raises(CompileError, match=r"\('b', 'o'\) is 0.5 steps"):
        network_at(graph, contract, Fraction(2))


def test_ladder_reports_what_the_runs_show(build: SimpleNamespace) -> None:
    """Mismatch and spike times of every level, counted here from dense traces."""
    graph, x = network(build, 3), currents(3, 6, 24)
    found = sensitivity(graph, x)
    contract = resolve(graph)[0]
    trains = {}
    for level_dt in (found.reference_dt, *(level.dt for level in found.levels)):
        ratio = Fraction(level_dt / DT).limit_denominator(1000)
        run = run_float(network_at(graph, contract, ratio), inputs_at({"input": x}, ratio), ("h", "o"))
        trains[level_dt] = [
            (np.flatnonzero(run.messages[name][s, :, i]) + 1) * level_dt
            for s in range(6)
            for name, size in (("h", 40), ("o", 20))
            for i in range(size)
        ]
    exact = trains[found.reference_dt]
    assert found.crossings is not None and found.crossings.spikes == sum(map(len, exact)) > 100
    for level in found.levels:
        pairs = list(zip(trains[level.dt], exact, strict=True))
        late = np.concatenate([a - b for a, b in pairs if len(a) == len(b)])
        assert level.mismatch == np.mean([len(a) != len(b) for a, b in pairs])
        assert level.matched == len(late) and level.spikes == sum(map(len, trains[level.dt]))
        assert level.spike_time_rms == pytest.approx(np.sqrt(np.mean(late**2)), rel=1e-9)


def mismatch_on(graph: nir.NIRGraph, dt: float, x: np.ndarray) -> tuple[float, float]:
    """Return the share of neurons whose counts at `dt` differ from those at DT / 96, and its spread."""
    contract = resolve(graph)[0]
    counts = []
    for ratio in (Fraction(dt / DT).limit_denominator(1000), Fraction(1, 96)):
        run = run_float(network_at(graph, contract, ratio), inputs_at({"input": x}, ratio), ("h", "o"))
        counts.append(np.concatenate([run.messages[name].sum(1) for name in ("h", "o")], axis=1))
    differ = counts[0] != counts[1]
    return float(differ.mean()), float(np.sqrt(differ.mean() / differ.size))


@pytest.mark.parametrize(
    "seed, limit, items",
    [
        (0, 0.02, {}),
        (1, 0.04, {"kind": "lif"}),
        (2, 0.06, {"recurrent": 0.5}),
        (3, 0.03, {"rule": "exponential", "reset": "subtract"}),
    ],
    ids=["current-based", "lif", "recurrent", "soft-reset"],
)
def test_advised_dt_keeps_its_promise_on_other_data(
    build: SimpleNamespace, seed: int, limit: float, items: dict[str, Any]
) -> None:
    graph = network(build, seed, **items)
    advice = sensitivity(graph, currents(10 + seed), max_mismatch=limit).advice
    assert advice is not None and advice.dt is not None and advice.predicted is not None
    assert limit / 3 < advice.predicted <= limit and not advice.extrapolated
    measured, spread = mismatch_on(graph, advice.dt, currents(50 + seed))
    assert spread < measured / 4  # enough mismatches that a factor of 2 means something
    assert advice.predicted / 2 <= measured <= advice.predicted * 2
    assert advice.measured is not None
    assert advice.predicted / 2 <= advice.measured <= advice.predicted * 2


def test_order_is_one_and_crossings_are_counted(build: SimpleNamespace) -> None:
    found = sensitivity(network(build, 0), currents(1))
    assert 0.8 < found.orders["mismatch"].slope < 1.3
    assert found.orders["mismatch"].low < 1.1 and found.orders["mismatch"].high > 0.9
    assert 0.5 < found.orders["spike_time"].slope < 1.1
    crossed = found.crossings
    assert crossed is not None and 0 <= crossed.spikes - found.levels[0].matched < 0.05 * crossed.spikes
    # Currents are filtered twice, so every membrane is smooth; few crossings are slow.
    assert crossed.smooth > 0.95 * crossed.spikes
    assert 0 < crossed.tangential < 0.05 and 0.02 < crossed.median_speed < 0.5


def test_crossing_speed_of_a_constant_current(build: SimpleNamespace) -> None:
    """dv/dt = (2 - v) / tau crosses 1 at 1 / tau: dt / tau thresholds a dt."""
    graph = build.chain(1, build.lif(1, tau=20e-3, r=1.0, v_threshold=1.0), contract=Contract(dt=DT))
    found = sensitivity(graph, np.full((2, 100, 1), 2.0)).crossings
    assert found is not None and found.spikes == found.smooth == 14
    assert found.median_speed == pytest.approx(DT / 20e-3, rel=0.01)
    assert found.tangential == 0 and found.near_misses == 0


def test_a_limit_out_of_reach_is_said(build: SimpleNamespace) -> None:
    found = sensitivity(network(build, 2, recurrent=20.0), currents(2, 8), max_mismatch=1e-5, loops=20_000)
    assert found.advice is not None and found.advice.dt is None and found.advice.predicted is None
    assert found.levels[0].mismatch > 1e-3


def test_a_neuron_that_always_differs_has_no_order(build: SimpleNamespace) -> None:
    """Fast enough to spike in every step: each step length has its own number of spikes."""
    graph = build.chain(1, build.lif(1, tau=5e-3, r=1.0, v_threshold=1.0), contract=Contract(dt=DT))
    found = sensitivity(graph, np.full((2, 40, 1), 50.0))
    assert [level.mismatch for level in found.levels] == [1.0] * len(found.levels)
    assert np.isnan(found.orders["mismatch"].slope)
    assert found.levels[0].spikes > 1.5 * found.levels[-1].spikes > 0


def test_silence_and_coarse_data(build: SimpleNamespace) -> None:
    found = sensitivity(network(build, 0), np.zeros((2, 5, CHANNELS)))
    assert all(level.mismatch == 0 for level in found.levels)
    assert np.isnan(found.orders["mismatch"].slope)
    assert found.advice is not None and found.advice.dt == found.levels[-1].dt == 2 * DT
    text = json.dumps(found.json(), allow_nan=False)
    assert json.loads(text)["orders"]["mismatch"]["slope"] is None
    short = build.chain(1, build.lif(1, tau=1.5e-3, r=1.0, v_threshold=1.0), contract=Contract(dt=DT))
    found = sensitivity(short, np.full((1, 40, 1), 2.0))
    assert [level.dt for level in found.levels][-1] == DT
    assert any("2 dt" in note and "time constant" in note for note in found.notes)


def test_graphs_of_steps_say_why(build: SimpleNamespace) -> None:
    x = np.ones((1, 8, 2))

    def reasons(*layers: Any, **items: Any) -> str:
        found = sensitivity(build.chain(2, *layers, contract=Contract(**{"dt": DT, **items})), x)
        assert found.levels == () and found.advice is None and not found.json()["meaning"]
        return " / ".join(found.reasons)

    tau = 20e-3
    real = build.lif(2, tau=tau, r=1.0)
    assert "counted in steps" in reasons(real, time_unit="step")
    assert "gain unit" in reasons(real, gain="unit")
    assert "r = tau / dt" in reasons(build.lif(2, tau=tau, r=tau / DT))
    assert "r = tau / dt" in reasons(build.cuba(2, tau_mem=tau, tau_syn=tau, r=tau / DT, w_in=tau / DT))
    assert "next_after" in reasons(real, reset_timing="next_after")
    assert "pending" in reasons(real, reset="subtract", reset_timing="pending")
    assert "not reset" in reasons(real, reset="none")
    assert "more steps, more spikes" in reasons(build.li(2, tau=tau), nir.Threshold(np.ones(2)))
    assert "none of its nodes spikes" in reasons(build.li(2, tau=tau))
    graph = build.chain(2, real, contract=Contract(dt=DT))
    assert tied_to_steps(graph, resolve(graph)[0]) == []
    assert sensitivity(lower(graph), x).reasons


def test_mismatch_model_is_the_most_likely() -> None:
    steps = np.array([1.0, 2.0, 4.0]) * 1e-3
    true = MismatchModel(log(0.05) + 0.8 * log(1e3), 0.8)
    cases = np.full(3, 1e7)
    found = fit_mismatch(steps, np.array([true.share(h) for h in steps]) * cases, cases)
    assert found.order == pytest.approx(0.8, abs=1e-3)
    assert found.share(2e-3) == pytest.approx(true.share(2e-3), rel=1e-3)
    assert found.share(found.step_for(0.03)) == pytest.approx(0.03, rel=1e-9)
    none = fit_mismatch(steps, np.zeros(3), np.full(3, 100.0))
    assert none.share(4e-3) == pytest.approx(0.01, rel=0.01)


def test_a_limit_is_a_share(build: SimpleNamespace) -> None:
    with pytest.raises(SnnCompileError, match="it is a share"):
        sensitivity(network(build, 0), currents(0, 1, 8), max_mismatch=1.0)


def test_commands(build: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, data = str(tmp_path / "net.nir"), str(tmp_path / "data.npz")
    nir.write(file, network(build, 0))
    np.savez(data, inputs=currents(1, 8, 24))
    assert main(["inspect", file, "--data", data, "--max-mismatch", "0.05", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["sensitivity"]
    assert found["meaning"] and found["advice"]["max_mismatch"] == 0.05
    assert found["advice"]["dt"] in [DT / k for k in range(1, 9)] + [2 * DT, 3 * DT, 4 * DT]
    assert main(["inspect", file, "--calibrate", data]) == 0
    text = capsys.readouterr().out
    assert "Sensitivity to dt: 8 samples of 24 steps, 60 spiking neurons" in text and "advice: dt =" in text
    assert main([file, "--calibrate", data, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)["sensitivity"]
    assert [level["dt"] for level in report["levels"]] == [level["dt"] for level in found["levels"]]
    steps = str(tmp_path / "steps.nir")
    nir.write(steps, network(build, 0, time_unit="step"))
    assert main(["inspect", steps, "--data", data]) == 0
    assert "has no meaning for this network" in capsys.readouterr().out
    assert main(["inspect", file]) == 0
    assert "Sensitivity" not in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["inspect", file, "--data", data, "--max-mismatch", "2"])


def test_result_is_whole(build: SimpleNamespace) -> None:
    found = sensitivity(network(build, 1, "lif"), currents(4, 3, 16), samples=2)
    assert isinstance(found, Sensitivity) and found.samples == 2 and found.steps == 16
    assert found.notes == ("2 of 3 samples, 16 of 16 steps were run",)
