"""Networks of class A, reconstructed exactly, as NIR's own nodes: Affine, LI, Threshold, Affine, LI."""

from __future__ import annotations

from typing import Any

import nir
import numpy as np
import pytest

from snn_compile.compiler import compile_graph, lower
from snn_compile.compiler.contract.contract import Contract, Readout, attach
from snn_compile.runtime import reference, simulate
from snn_compile.train.convex.reconstruction import Reconstruction, reconstruct
from snn_compile.train.convex.witnesses import SpikingUnit

STEPS = 6


def graph_of(made: Reconstruction) -> Any:
    """Return the graph of a reconstruction whose units have no reset and are read by their mean."""
    neurons, outputs = len(made.weights), len(made.readout)
    tau = 1 / (1 - made.unit.decay)
    nodes = {
        "input": nir.Input({"input": np.array([made.weights.shape[1]])}),
        "fc1": nir.Affine(made.weights, made.bias),
        "membrane": nir.LI(tau=np.full(neurons, tau), r=np.full(neurons, tau), v_leak=np.zeros(neurons)),
        "hidden": nir.Threshold(threshold=made.threshold),
        "fc2": nir.Affine(made.readout, made.offset),
        "readout": nir.LI(tau=np.ones(outputs), r=np.ones(outputs), v_leak=np.zeros(outputs)),
        "output": nir.Output({"output": np.array([outputs])}),
    }
    row = list(nodes)
    graph = nir.NIRGraph(nodes, list(zip(row[:-1], row[1:], strict=True)))
    attach(graph, Contract(dt=1.0, readouts={"output": Readout("membrane", "mean", "classify")}))
    return graph


@pytest.mark.parametrize("seed", range(3))
def test_it_says_what_was_reconstructed_and_runs_on_every_device(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = (rng.random((80, STEPS, 5)) < 0.4).astype(np.float64)
    y = np.eye(2)[(x[:, :3].sum((1, 2)) > x[:, 3:].sum((1, 2))).astype(int)] - 0.5
    unit = SpikingUnit(decay=0.75, reset="none", readout="mean")
    made = reconstruct(x, y, unit, 1.0, fresh=60, rounds=3, climbs=10, seed=seed)
    assert made.certificate == "dictionary" and len(made.weights) > 3
    # Thresholds at quantiles of the data lie on membranes; a hair lower they lie between them.
    lowered = Reconstruction(**{**vars(made), "threshold": made.threshold * (1 - 1e-6)})
    graph = graph_of(lowered)
    record = reference(lower(graph), x)
    told = record.outputs.mean(axis=1)
    assert np.abs(told - lowered.predict(x)).max() < 1e-9
    program = compile_graph(graph, target="loihi2-sim", calibration=x)
    assert len(program.populations) <= 4
    found = simulate(program, x)
    for device in ("oracle", "lava-stepped"):
        other = simulate(program, x[:20], device=device)
        assert np.array_equal(other.outputs, found.outputs[:20])
    agree = (found.predictions == lowered.predict(x).argmax(axis=1)).mean()
    assert agree > 0.9
