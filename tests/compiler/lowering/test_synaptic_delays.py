"""Delay nodes with a matrix in the shape of the weight beside them: one delay per synapse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest

from snn_compile import runtime
from snn_compile.compiler import lower
from snn_compile.compiler.pipeline import compile_graph
from snn_compile.targets.devices.device import execute
from snn_compile.targets.errors import CompileError

STATED = {"dt": 1.0, "time_unit": "step", "rule": "euler", "comparison": ">", "reset": "value"}
STATED |= {"reset_timing": "same_step"}
STEPS = 30


def lif(size: int, tau: float) -> nir.LIF:
    one = np.ones(size)
    return nir.LIF(tau=tau * one, r=tau * one, v_leak=0 * one, v_threshold=one, v_reset=0 * one)


def graph(nodes: dict[str, Any]) -> nir.NIRGraph:
    """Return nodes in a row; types are not checked, since a matrix is no elementwise delay."""
    names = list(nodes)
    return nir.NIRGraph(nodes, list(zip(names[:-1], names[1:], strict=True)), type_check=False)


def row(weight: np.ndarray, delays: np.ndarray, before: bool, tau: float, bias: np.ndarray | None) -> Any:
    dense = nir.Linear(weight) if bias is None else nir.Affine(weight, bias)
    pair = {"d": nir.Delay(delays), "w": dense} if before else {"w": dense, "d": nir.Delay(delays)}
    ends = {"input": nir.Input(np.array([weight.shape[1]])), "n": lif(len(weight), tau)}
    return graph(
        {"input": ends["input"], **pair, "n": ends["n"], "output": nir.Output(np.array([len(weight)]))}
    )


def by_hand(
    weight: np.ndarray, delays: np.ndarray, tau: float, bias: np.ndarray, x: np.ndarray
) -> np.ndarray:
    v, spikes = np.zeros(len(weight)), np.zeros((len(x), len(weight)))
    for t in range(len(x)):
        total = bias.copy()
        for (i, j), w in np.ndenumerate(weight):
            total[i] += w * x[t - delays[i, j], j] if t >= delays[i, j] else 0.0
        v = (1 - 1 / tau) * v + total
        spikes[t] = v > 1
        v = np.where(spikes[t], 0, v)
    return spikes


@pytest.mark.parametrize("seed", range(20))
def test_every_synapse_has_its_delay(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    outputs, inputs = (int(n) for n in rng.integers(2, 6, 2))
    weight = rng.integers(-8, 40, (outputs, inputs)) / 32
    delays, tau = rng.integers(0, 9, (outputs, inputs)), float(rng.choice([1, 2, 4, 8]))
    bias = rng.integers(0, 10, outputs) / 64 if rng.random() < 0.5 else None
    made = row(weight, delays.astype(float), bool(rng.random() < 0.5), tau, bias)
    path = tmp_path / "a.nir"
    nir.write(path, made)
    x = (rng.random((2, STEPS, inputs)) < 0.4).astype(float)
    constant = np.zeros(outputs) if bias is None else bias
    wanted = np.stack([by_hand(weight, delays, tau, constant, sample) for sample in x])
    assert wanted.any()
    for source in (made, path):
        network = lower(source, STATED)
        assert {e.delay_steps for e in network.projections} == set(np.unique(delays))
        assert np.array_equal(runtime.reference(network, x, record=["n"]).spikes("n"), wanted)
    record = execute(compile_graph(network, calibration=x), x, record=["n"])
    assert np.array_equal(record.spikes("n"), wanted)


def test_a_matrix_that_fits_no_weight_or_two_is_refused() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(CompileError, match="'d' delays 6 values and receives 2"):
        lower(row(rng.random((3, 2)), np.ones((2, 3)), True, 2.0, None), STATED)
    for broken, text in ((-np.ones((3, 2)), "-1 steps"), (np.full((3, 2), 0.5), "0.5 steps")):
        with pytest.raises(CompileError, match=text):
            lower(row(rng.random((3, 2)), broken, True, 2.0, None), STATED)
    square = {"input": nir.Input(np.array([3])), "w": nir.Linear(np.eye(3)), "d": nir.Delay(np.ones((3, 3)))}
    more = {"again": nir.Linear(np.eye(3)), "n": lif(3, 2.0), "output": nir.Output(np.array([3]))}
    with pytest.raises(CompileError, match="fit the synapses of 'w' and of 'again'"):
        lower(graph({**square, **more}), STATED)
