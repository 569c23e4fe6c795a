"""Small graphs of exact fractions, the same on every machine: each returns a graph and calibration data."""

from __future__ import annotations

from typing import Any

import nir
import numpy as np

from snn_compile.compiler.contract.contract import Contract, Readout
from snn_compile.compiler.frontends.nir_extensions import ALIF, BRF

ROW = np.array([0.5, -0.25, 0.125, 1.0, -0.75])


def rows(count: int, columns: int) -> np.ndarray:
    """Weights that are the same on every machine."""
    return np.resize(ROW, (count, columns)) * (1 + np.arange(count)[:, None] / 8)


def feed_forward(build):
    """Graded input, a biased layer, a read-out at latency 2."""
    layers = [nir.Affine(rows(4, 3), ROW[:4] / 4), build.lif(4, v_leak=0.25, v_threshold=0.5)]
    graph = build.chain(3, *layers, nir.Linear(rows(2, 4)), build.li(2))
    return graph, np.resize(np.arange(17) / 16, (2, 8, 3))


def recurrent(build):
    """Spike input, a recurrent current-based layer with a biased Affine in its cycle, soft reset."""
    nodes = {
        "input": build.port(nir.Input, 3),
        "fc": nir.Linear(rows(4, 3)),
        "cell": build.cuba(4, tau_mem=np.array([4.0, 5.0, 8.0, 16.0])),
        "back": nir.Affine(rows(4, 4) / 2, ROW[:4] / 8),
        "output": build.port(nir.Output, 4),
    }
    edges = [("input", "fc"), ("fc", "cell"), ("cell", "back"), ("back", "cell"), ("cell", "output")]
    contract = Contract(dt=1.0, reset="subtract", delays={("cell", "back"): 2})
    return build.graph(nodes, edges, contract), np.resize([0.0, 1.0, 1.0], (2, 8, 3))


def branches(build):
    """Two inputs, a skip connection that waits, a declared delay, two outputs."""
    nodes = {
        "left": build.port(nir.Input, 2),
        "right": build.port(nir.Input, 2, 2),
        "flat": nir.Flatten({"input": np.array([2, 2])}, start_dim=0),
        "first": build.lif(2),
        "fc": nir.Linear(rows(3, 2)),
        "fc2": nir.Linear(rows(3, 4)),
        "second": build.lif(3, v_reset=-0.125),
        "skip": nir.Linear(rows(3, 2)),
        "leak": build.li(3),
        "spikes": build.port(nir.Output, 3),
        "membrane": build.port(nir.Output, 3),
    }
    edges = [("left", "first"), ("first", "fc"), ("fc", "second"), ("right", "flat"), ("flat", "fc2")]
    edges += [("fc2", "second"), ("left", "skip"), ("skip", "leak"), ("second", "leak")]
    edges += [("second", "spikes"), ("leak", "membrane")]
    contract = Contract(
        dt=1.0, delays={("left", "skip"): 1}, readouts={"membrane": Readout("membrane", "last", "regress")}
    )
    data = {"left": np.resize([-1.0, 0.5, 0.25], (2, 6, 2)), "right": np.resize([0.0, 1.0], (2, 6, 2, 2))}
    return build.graph(nodes, edges, contract), data


def convolution(build):
    """Spike images, a convolution, its sums over squares, a read-out."""
    kernel = rows(3, 18).reshape(3, 2, 3, 3)
    layers = [
        nir.Conv2d((6, 6), kernel, 1, 0, 1, 1, ROW[:3] / 8),
        build.lif((3, 4, 4)),
        nir.SumPool2d(np.array([2, 2]), np.array([2, 2]), np.array([0, 0])),
        nir.Flatten({"input": np.array([3, 2, 2])}, start_dim=0),
        nir.Linear(rows(4, 12)),
        build.li(4),
    ]
    return build.chain((2, 6, 6), *layers), np.resize([0.0, 1.0, 1.0], (2, 8, 2, 6, 6))


def short_cycle(build):
    """Two layers that feed each other within one logical step: the chip needs two of its own for each."""
    nodes = {
        "input": build.port(nir.Input, 3),
        "fc": nir.Linear(rows(4, 3)),
        "first": build.lif(4),
        "up": nir.Linear(rows(2, 4)),
        "second": build.lif(2),
        "down": nir.Linear(rows(4, 2) / 2),
        "output": build.port(nir.Output, 2),
    }
    edges = [("input", "fc"), ("fc", "first"), ("first", "up"), ("up", "second"), ("second", "down")]
    edges += [("down", "first"), ("second", "output")]
    contract = Contract(dt=1.0, delays={("second", "down"): 1})
    return build.graph(nodes, edges, contract), np.resize([0.0, 1.0, 1.0], (2, 8, 3))


def long_delay(build):
    """A declared delay of more steps than the chip has slots, and a shorter one beside it."""
    nodes = {
        "input": build.port(nir.Input, 3),
        "early": nir.Linear(rows(4, 3)),
        "late": nir.Linear(rows(4, 3)[::-1] / 2),
        "cell": build.lif(4),
        "output": build.port(nir.Output, 4),
    }
    edges = [("input", "early"), ("input", "late"), ("early", "cell"), ("late", "cell"), ("cell", "output")]
    contract = Contract(dt=1.0, delays={("input", "late"): 80, ("input", "early"): 3})
    return build.graph(nodes, edges, contract), np.resize([0.0, 1.0, 1.0], (2, 8, 3))


def extension_neurons(build):
    """Balanced resonators into adaptive neurons, and a read-out."""
    delta, resonators, adaptive = 1 / 64, np.ones(3), np.ones(4)
    resonator = BRF(
        omega=np.array([4.0, 8.0, 16.0]),
        b_offset=resonators,
        gamma=resonators * 7 / 8,
        theta=resonators,
        delta=resonators * delta,
        smooth_reset=resonators,
        refractory=resonators,
    )
    neuron = ALIF(
        tau=adaptive / 4,
        tau_adaptation=adaptive * 2,
        r=adaptive,
        theta=adaptive / 16,
        adaptation=adaptive * 7 / 4,
        reset=adaptive,
    )
    layers = [nir.Linear(rows(3, 3) * 64), resonator, nir.Linear(rows(4, 3)), neuron]
    readout = build.li(2, tau=0.25)
    graph = build.chain(3, *layers, nir.Linear(rows(2, 4)), readout, dt=delta)
    return graph, np.resize([0.0, 1.0, 1.0], (2, 8, 3))


GRAPHS: dict[str, Any] = {
    "feed-forward": feed_forward,
    "recurrent": recurrent,
    "branches": branches,
    "convolution": convolution,
    "long-delay": long_delay,
    "extension-neurons": extension_neurons,
}
"""Graphs that compile under default options."""
