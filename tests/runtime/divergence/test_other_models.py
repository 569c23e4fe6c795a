"""Checks, figures and energies of programs with other models than leaky neurons."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support import random_programs

from snn_compile.compiler.contract.contract import Contract
from snn_compile.compiler.network import Network, Port, Projection
from snn_compile.compiler.network import Population as FloatPopulation
from snn_compile.compiler.pipeline import compile_graph
from snn_compile.runtime.divergence.diverge import diverge
from snn_compile.runtime.evaluation.compare import check
from snn_compile.runtime.reports.energy import energy
from snn_compile.runtime.reports.figure import trace
from snn_compile.targets.devices.device import execute
from snn_compile.targets.errors import WrongInput
from snn_compile.targets.program.population import Population

RESONATOR = {"cos_decay": 1, "sin_decay": 2, "vth": 3}
ADAPTIVE = dict.fromkeys(("delta_i", "delta_v", "delta_theta", "delta_r"), 9) | {
    "theta_0": 1,
    "theta_step": 1,
}


@pytest.mark.parametrize(
    ("model", "registers", "products", "sums"),
    [
        ("rf", RESONATOR, 4, 5),
        ("rf_iz", RESONATOR, 4, 5),
        ("atrlif", ADAPTIVE, 4, 6),
        ("atrlif", ADAPTIVE | {"delta_theta": 4096, "delta_i": 4095, "bias_mant": 1}, 2, 4),
        ("delta", {"vth": 1}, 0, 4),
        ("sigma_delta", {"vth": 1}, 0, 6),
        ("sigma_delta", {"vth": 1, "relu": 0, "bias": [0, 2], "cum_error": 1}, 0, 6.5),
        ("sigma", {}, 0, 1),
        ("graded", {}, 0, 1),
    ],
)
def test_the_operations_of_an_update(model: str, registers: Any, products: float, sums: float) -> None:
    population = Population("n", (2,), model, registers)
    assert population.kind.operations(population.parameters, 4096) == (products, sums)


def test_divergence_does_not_follow_encoders() -> None:
    values = {"threshold": np.ones(1), "input_bias": np.zeros(1), "offset": np.zeros(1)}
    encoder = FloatPopulation("n", (1,), "delta", values, fixed_scale=1.0)
    edge = Projection("x/n", "x", "n", np.ones((1, 1)))
    ports = (Port("x", (1,)),), (Port("y", (1,), "n"),)
    network = Network((encoder,), (edge,), *ports, Contract(dt=1.0, time_unit="step"))
    with pytest.raises(
        WrongInput, match="'n' is of model delta; diverge supports ALIF, BRF, LI, LIF and LSN"
    ):
        diverge(compile_graph(network), network, np.ones((1, 3, 1)))


def test_random_programs_are_checked_drawn_and_priced() -> None:
    drawn = set()
    for seed in range(30):
        case = random_programs.case(seed, random_programs.SHORT_OTHERS)
        program = case.program
        done = check(program, case.inputs, "loihi2-sim", "oracle")
        assert done.difference is None, seed
        states = sum(p.size * (len(p.kind.states) + p.spiking) for p in program.populations)
        samples, steps = next(iter(case.inputs.values())).shape[:2]
        assert done.values == states * samples * steps
        counts = execute(program, case.inputs).counts
        assert counts is not None and all(
            np.isfinite(part) and part >= 0 for e in energy(program, counts) for part in e.parts_pj.values()
        )
        kept = trace(program, case.inputs)
        read = program.population(program.outputs[0].population)
        assert kept.membrane.shape == (steps, read.size)
        drawn.add(read.model)
    assert len(drawn) >= 8
