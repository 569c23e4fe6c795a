"""Networks drawn at random to be mapped: perceptrons, convolutional ones and recurrent ones, with rates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import nir
import numpy as np
import numpy.typing as npt

from snn_compile.compiler.contract.contract import Contract, attach
from snn_compile.compiler.mapping.work import Rates
from snn_compile.compiler.pipeline import compile_stages
from snn_compile.compiler.quantization.quantize import QuantizedNetwork
from snn_compile.targets.chips.chip import Chip, load_chip
from snn_compile.targets.errors import CompileError

Float = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Drawn:
    """A network of integers, its chip, and messages per step of its neurons."""

    kind: str
    network: QuantizedNetwork
    chip: Chip
    rates: Rates


class _Chain:
    """Layers one after another, the last of which is the output's."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.nodes: dict[str, nir.NIRNode] = {"input": nir.Input({"input": np.array(shape)})}
        self.edges: list[tuple[str, str]] = []
        self.shape, self.last = shape, "input"

    def add(self, name: str, node: nir.NIRNode, shape: tuple[int, ...]) -> None:
        self.nodes[name] = node
        self.edges.append((self.last, name))
        self.shape, self.last = shape, name

    def neurons(self, name: str) -> None:
        tau, one = np.full(self.shape, 4.0), np.ones(self.shape)
        lif = nir.LIF(tau=tau, r=tau, v_leak=0 * one, v_threshold=one, v_reset=0 * one)
        self.add(name, lif, self.shape)

    def dense(self, rng: np.random.Generator, number: int, size: int, density: float = 1.0) -> None:
        if len(self.shape) > 1:
            self.add(f"flat{number}", nir.Flatten(_sized(self.shape), 0, -1), (int(np.prod(self.shape)),))
        weight = _weights(rng, (size, self.shape[0]), density)
        self.add(f"fc{number}", nir.Linear(weight), (size,))
        self.neurons(f"lif{number}")

    def convolve(self, rng: np.random.Generator, number: int, channels: int, stride: int) -> None:
        before, height, width = self.shape
        weight = _weights(rng, (channels, before, 3, 3), 1.0)
        node = nir.Conv2d((height, width), weight, stride, 1, 1, 1, np.zeros(channels))
        self.add(f"conv{number}", node, (channels, -(-height // stride), -(-width // stride)))
        self.neurons(f"lif{number}")

    def pool(self, number: int) -> None:
        channels, height, width = self.shape
        node = nir.AvgPool2d(np.array([2, 2]), np.array([2, 2]), np.array([0, 0]))
        self.add(f"pool{number}", node, (channels, height // 2, width // 2))

    def recurrent(self, rng: np.random.Generator, number: int, density: float) -> None:
        """Connect the last neurons to themselves."""
        neurons = self.last
        delay = nir.Delay(np.ones(self.shape))
        weight = _weights(rng, (self.shape[0], self.shape[0]), density)
        self.nodes |= {f"back{number}": nir.Linear(0.5 * weight), f"late{number}": delay}
        path = [neurons, f"back{number}", f"late{number}", neurons]
        self.edges += list(pairwise(path))

    def graph(self) -> nir.NIRGraph:
        self.add("output", nir.Output({"output": np.array(self.shape)}), self.shape)
        graph = nir.NIRGraph(self.nodes, self.edges)
        attach(graph, Contract(dt=1.0, time_unit="step", reset="subtract"))
        return graph


def _sized(shape: tuple[int, ...]) -> dict[str, npt.NDArray[np.int64]]:
    return {"input": np.array(shape)}


def _weights(rng: np.random.Generator, shape: tuple[int, ...], density: float) -> Float:
    fan_in = max(density * np.prod(shape[1:]), 1)
    found: Float = rng.normal(0.2, 1.0, shape) / np.sqrt(fan_in) * (rng.random(shape) < density)
    return found


def _perceptron(rng: np.random.Generator) -> nir.NIRGraph:
    chain = _Chain((int(rng.integers(50, 1500)),))
    density = float(rng.choice([1.0, 1.0, 0.3, 0.1]))
    for number in range(int(rng.integers(2, 6))):
        chain.dense(rng, number, int(rng.integers(20, 1200)), density)
    return chain.graph()


def _convolutional(rng: np.random.Generator) -> nir.NIRGraph:
    side = int(rng.integers(12, 29))
    chain = _Chain((int(rng.integers(1, 4)), side, side))
    for number in range(int(rng.integers(1, 4))):
        chain.convolve(rng, number, int(rng.choice([8, 12, 16, 24, 32])), int(rng.choice([1, 2])))
        if chain.shape[1] > 7 and rng.random() < 0.4:
            chain.pool(number)
    for number in range(4, 4 + int(rng.integers(1, 3))):
        chain.dense(rng, number, int(rng.integers(10, 200)))
    return chain.graph()


def _recurrent(rng: np.random.Generator) -> nir.NIRGraph:
    chain = _Chain((int(rng.integers(20, 400)),))
    for number in range(int(rng.integers(1, 4))):
        density = float(rng.choice([0.02, 0.1, 0.5]))
        chain.dense(rng, number, int(rng.integers(200, 1600)), min(4 * density, 1.0))
        chain.recurrent(rng, number, density)
    return chain.graph()


KINDS: dict[str, Callable[[np.random.Generator], nir.NIRGraph]] = {
    "perceptron": _perceptron,
    "convolutional": _convolutional,
    "recurrent": _recurrent,
}


def draw(seed: int, chip: str) -> Drawn | None:
    """Return the network of a seed, None where it does not compile for the chip at all.

    Rates are log-normal within a population, about a mean of 0.01 to 0.3 messages per step and neuron.
    """
    rng = np.random.default_rng(seed)
    kind = list(KINDS)[seed % len(KINDS)]
    graph = KINDS[kind](rng)
    try:
        done = compile_stages(graph, chip, stop_after="quantize")
    except CompileError:
        return None
    assert done.precision is not None
    network = done.precision.quantized
    rates: dict[str, Any] = {}
    for node in network.nodes:
        mean = np.exp(rng.uniform(np.log(0.01), np.log(0.3)))
        rates[node.name] = np.minimum(mean * np.exp(rng.normal(-0.5, 1.0, node.size)), 1.0)
    return Drawn(kind, network, replace(load_chip(chip)), rates)
