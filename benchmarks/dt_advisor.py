"""The advised dt of four networks, and the mismatch that other data show at it.

    python benchmarks/dt_advisor.py [--limits 0.02 0.05 0.1]

Each network is advised on 32 samples of sine currents; the mismatch is then measured on 64 others, against
steps of dt / 96. Exits with 1 where prediction and measurement are more than a factor of 2 apart.
"""

from __future__ import annotations

import argparse
import sys
from fractions import Fraction
from typing import Any

import nir
import numpy as np

from snn_compile.compiler.analysis.dt_refinement import inputs_at, network_at
from snn_compile.compiler.analysis.dt_sensitivity import sensitivity
from snn_compile.compiler.contract.contract import Contract, attach
from snn_compile.compiler.contract.resolve import resolve
from snn_compile.compiler.reference import run_float

DT = 1e-3
NETWORKS: dict[str, dict[str, Any]] = {
    "current-based": {},
    "LIF": {"kind": "lif"},
    "current-based, recurrent": {"recurrent": 0.5},
    "current-based, soft reset, exponential": {"rule": "exponential", "reset": "subtract"},
}


def network(seed: int, kind: str = "cuba", recurrent: float = 0.0, **items: Any) -> nir.NIRGraph:
    """Return a network of 40 and 20 neurons with time constants of 10 to 25 ms."""
    rng = np.random.default_rng(seed)

    def neurons(size: int) -> Any:
        one, tau = np.ones(size), rng.uniform(10e-3, 25e-3, size)
        if kind == "lif":
            return nir.LIF(tau=tau, r=one, v_leak=0 * one, v_threshold=one)
        return nir.CubaLIF(tau_syn=5e-3 * one, tau_mem=tau, r=one, v_leak=0 * one, v_threshold=one, w_in=one)

    nodes: dict[str, Any] = {
        "input": nir.Input({"input": np.array([6])}),
        "a": nir.Affine(rng.normal(0, 0.6, (40, 6)), rng.uniform(0.2, 0.9, 40)),
        "h": neurons(40),
        "b": nir.Affine(rng.normal(0, 1.5, (20, 40)), rng.uniform(0.3, 0.9, 20)),
        "o": neurons(20),
        "output": nir.Output({"output": np.array([20])}),
    }
    edges = list(zip(nodes, list(nodes)[1:], strict=False))
    delays = {}
    if recurrent:
        nodes["w"] = nir.Linear(rng.normal(0, recurrent, (40, 40)))
        edges += [("h", "w"), ("w", "h")]
        delays = {("w", "h"): 1}
    graph = nir.NIRGraph(nodes, edges, type_check=False)
    attach(graph, Contract(dt=DT, delays=delays, **items))
    return graph


def currents(seed: int, samples: int, steps: int = 60) -> np.ndarray:
    """Return sine waves around 1 with periods of 33 to 200 ms: (samples, steps, 6)."""
    rng = np.random.default_rng(seed)
    rate, phase = rng.uniform(0.005, 0.03, (samples, 1, 6)), rng.random((samples, 1, 6))
    return 1 + np.sin(2 * np.pi * (np.arange(steps)[:, None] * rate + phase))


def mismatch(graph: nir.NIRGraph, dt: float, inputs: np.ndarray) -> float:
    """Return the share of neurons and samples whose spike count at `dt` is not that at DT / 96."""
    contract, counts = resolve(graph)[0], []
    for ratio in (Fraction(dt / DT).limit_denominator(1000), Fraction(1, 96)):
        run = run_float(network_at(graph, contract, ratio), inputs_at({"input": inputs}, ratio), ("h", "o"))
        counts.append(np.concatenate([run.messages[name].sum(1) for name in ("h", "o")], axis=1))
    return float((counts[0] != counts[1]).mean())


def main() -> int:
    """Run the benchmark and return its exit code."""
    parser = argparse.ArgumentParser(description="The advised dt, and what other data show at it.")
    parser.add_argument("--limits", type=float, nargs="+", default=[0.02, 0.05, 0.1])
    limits = parser.parse_args().limits
    heads = ("order", "at 1 ms", "limit", "advised", "predicted", "measured")
    print(f"{'network':40}" + "".join(f"{head:>11}" for head in heads))
    worst = 1.0
    for seed, (name, items) in enumerate(NETWORKS.items()):
        graph = network(seed, **items)
        for limit in limits:
            found = sensitivity(graph, currents(100 + seed, 32), max_mismatch=limit)
            advice = found.advice
            assert advice is not None and advice.dt is not None and advice.predicted is not None
            measured = mismatch(graph, advice.dt, currents(200 + seed, 64))
            now = next(level.mismatch for level in found.levels if level.dt == DT)
            print(
                f"{name:40}{found.orders['mismatch'].slope:>11.2f}{now:>11.2%}{limit:>11.0%}"
                f"{advice.dt * 1e3:>8.3f} ms{advice.predicted:>11.2%}{measured:>11.2%}"
            )
            worst = max(worst, advice.predicted / measured, measured / advice.predicted)
    print(f"largest factor between predicted and measured: {worst:.2f}")
    return int(worst > 2)


if __name__ == "__main__":
    sys.exit(main())
