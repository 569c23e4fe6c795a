"""Rules, sparse tables and membranes as messages on Lava: what is stock, and what a witness says."""

from __future__ import annotations

import types
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_array
from support import comparing, random_programs

from snn_compile.targets.integer import truncate_weights
from snn_compile.targets.program.population import Population
from snn_compile.targets.program.program import InputPort, OutputPort, Program, Projection
from snn_compile.targets.program.weights import WeightTable

pytest.importorskip("lava", reason="lava-nc is not installed")

WITNESSES: dict[str, tuple[dict[str, str], dict[str, Any], int, str]] = {
    # name: (rule, registers, start step), the methods that must be ours
    "stock": ({}, {}, 0, ""),
    "silent before its start": ({}, {}, 3, ""),
    "biased before its start": ({}, {"bias_mant": 1}, 3, "run_spk"),
    "charged before its start": ({}, {"v_init": 1}, 3, "run_spk"),
    "charged": ({}, {"v_init": 1, "bias_mant": 1}, 0, ""),
    "subtract": ({"reset": "subtract"}, {}, 0, "reset_voltage"),
    "none": ({"reset": "none"}, {}, 0, "reset_voltage"),
    "clipped": ({}, {"v_min": [0, -5]}, 0, "reset_voltage"),
    "lifted before its start": ({}, {"v_min": 1}, 1, "reset_voltage, run_spk"),
    "at the threshold": ({"comparison": ">="}, {}, 1, "spiking_activation"),
    "at 0 before its start": ({"comparison": ">="}, {"vth": [1, 0]}, 1, "run_spk, spiking_activation"),
    "several": ({"spikes_per_step": "floor"}, {}, 0, "reset_voltage, spiking_activation"),
    "next_before": ({"reset_timing": "next_before"}, {}, 0, "reset_voltage, subthr_dynamics"),
    "next_after": ({"reset_timing": "next_after"}, {}, 0, "reset_voltage, subthr_dynamics"),
    "pending": (
        {"reset": "subtract", "reset_timing": "pending"},
        {},
        0,
        "reset_voltage, spiking_activation, subthr_dynamics",
    ),
    "membrane first": ({"update_order": "membrane_first"}, {}, 0, "subthr_dynamics"),
    "decay after": ({"current_decay": "after"}, {}, 0, "subthr_dynamics"),
}


@pytest.mark.parametrize("name", WITNESSES)
def test_a_witness_of_every_rule(name: str) -> None:
    from snn_compile.targets.lava.populations import implementation_of

    rule, registers, start, methods = WITNESSES[name]
    neurons = Population("n", (2,), "lif", {"du": 9, "dv": 8, "vth": 7} | registers, start_step=start, **rule)
    assert implementation_of(neurons, sends=True) == (f"derived ({methods})" if methods else "stock")


def test_a_witness_of_integrators() -> None:
    from snn_compile.targets.lava.populations import implementation_of

    def integrator(start: int = 0, bias: int = 0, **rule: str) -> Population:
        registers = {"du": 9, "dv": 8, "bias_mant": bias}
        return Population("n", (2,), "li", registers, start_step=start, **rule)

    assert implementation_of(integrator(2, reset="none", comparison=">="), sends=False) == "stock"
    assert implementation_of(integrator(), sends=True) == "derived (reset_voltage, spiking_activation)"
    assert implementation_of(integrator(2, 1, reset_timing="next_after"), sends=False) == "derived (run_spk)"
    assert implementation_of(integrator(current_decay="after"), sends=False) == "derived (subthr_dynamics)"


@pytest.mark.parametrize("index", range(4))
def test_what_a_witness_does_not_name_is_lavas_own(monkeypatch: Any, index: int) -> None:
    """With every method that a witness does not name put back to Lava's, nothing changes."""
    from snn_compile.targets.lava import stepped as lava_stepped
    from snn_compile.targets.lava.compat import load_lava
    from snn_compile.targets.lava.lif import ProgramLIF
    from snn_compile.targets.lava.populations import implementation_of

    lava, put_back = load_lava(), set()
    build = lava_stepped._build

    def built(kind: Any, process: Any) -> Any:
        model = build(kind, process)
        if isinstance(process, ProgramLIF):
            given = process.proc_params
            witness = implementation_of(given["population"], given["sends"], given["period"])
            for name in ("run_spk", "subthr_dynamics", "spiking_activation", "reset_voltage"):
                if name not in witness:
                    stock = getattr(lava.PyLifModelBitAcc, name)
                    setattr(model, name, types.MethodType(stock, model))
                    put_back.add(name)
        return model

    monkeypatch.setattr(lava_stepped, "_build", built)
    for seed in range(4000 + index, 4080, 4):
        case = random_programs.case(seed, random_programs.SHORT)
        wanted = comparing.run_all(case.program, case.inputs, "oracle")
        got = comparing.run_all(case.program, case.inputs, "lava-stepped")
        assert not comparing.first_difference(wanted, got, overflows=False), f"seed {seed}"
    assert len(put_back) == 4


def sparse_and_delayed() -> Program:
    """Return sparse tables of every kind, some of them empty, and a population that sends its membrane."""
    rng = np.random.default_rng(3)

    def sparse(target: int, source: int, density: float = 0.4, mode: str = "mixed", **options: Any) -> Any:
        raw = truncate_weights(rng.integers(-256, 256, (target, source)), 8, mode)
        return WeightTable(csr_array(raw * (rng.random(raw.shape) < density)), sign_mode=mode, **options)

    shared = {"du": 1000, "dv": 300}
    populations = (
        Population("relay", (4,), "li", shared | {"message_shift": [3, 9, 0, 12]}),
        Population("out", (5,), "lif", shared | {"vth": 900}),
    )
    heard = tuple(sparse(5, 4, exponent=e, message_bits=24) for e in (-7, -8))
    projections = (
        Projection("in-relay", "in", "relay", (sparse(4, 6), sparse(4, 6, 0)), 3),
        Projection("in-out", "in", "out", (sparse(5, 6, mode="inhibitory"), sparse(5, 6, 0))),
        Projection("relay-out", "relay", "out", heard),
        Projection("out-out", "out", "out", (sparse(5, 5, mode="excitatory"),), 62),
    )
    return Program("loihi2", 2, populations, projections, (InputPort("in", (6,)),), (OutputPort("y", "out"),))


@pytest.mark.parametrize("device", ["lava", "lava-stepped"])
def test_sparse_tables_and_membranes_as_messages(device: str) -> None:
    network = sparse_and_delayed()
    data = {"in": np.random.default_rng(4).integers(0, 2, (2, 70, 6))}
    wanted = comparing.run_all(network, data, "oracle")
    assert wanted.run.spikes["relay"].values.min() < 0 < wanted.run.spikes["relay"].values.max()
    assert wanted.counts.spikes["out"] and wanted.counts.synops["out-out"]
    got = comparing.run_all(network, data, device)
    assert not comparing.first_difference(wanted, got, overflows=False)
    assert got.witness == {"relay": "derived (reset_voltage, spiking_activation)", "out": "stock"}


def test_sparse_processes_are_stock() -> None:
    from snn_compile.targets.lava.network import to_lava

    processes = to_lava(sparse_and_delayed())
    assert {name: type(p).__name__ for name, p in processes.tables.items()} == {
        "in-relay[0]": "DelaySparse",
        "in-relay[1]": "DelaySparse",
        "in-out[0]": "Sparse",
        "in-out[1]": "Sparse",
        "relay-out[0]": "Sparse",
        "relay-out[1]": "Sparse",
        "out-out[0]": "DelaySparse",
    }
    assert {type(p).__module__ for p in processes.tables.values()} == {"lava.proc.sparse.process"}


def test_ternary_neurons_are_stock_unless_they_must_be_held_still() -> None:
    from snn_compile.targets.lava.populations import implementation_of, make_process

    registers = {"du": 1, "dv": 2, "vth_hi": 3, "vth_lo": -4}
    still = Population("n", (2,), "ternary", registers, start_step=3)
    assert implementation_of(still, sends=True) == "stock"
    assert type(make_process(still, sends=True)).__module__ == "lava.proc.lif.process"
    biased = Population("n", (2,), "ternary", registers | {"bias_mant": 1}, start_step=3)
    assert implementation_of(biased, sends=True) == "derived (run_spk)"
