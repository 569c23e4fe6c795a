"""Random graphs that keep the relations of an exporter's files, written with numpy and nir alone.

Layer kinds, sizes, options, shapes of parameters, names and number types are drawn; the relations are those
that docs/interop.md and the exporters' sources state, written here once more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import nir
import numpy as np

Rng = np.random.Generator

EXPORTERS = ("norse", "rockpool", "sinabs", "snntorch", "spikingjelly")
WORDS = ("fc", "conv", "lif", "layer", "block", "spk", "hidden", "head", "enc", "cell")
ROCKPOOL = {"Linear": "LinearTorch", "Affine": "LinearTorch", "CubaLIF": "LIFTorch", "LIF": "LIFNeuronTorch"}


def affine(rng: Rng, out: int, size: int, bias: bool) -> Any:
    weight = rng.normal(size=(out, size)).astype(np.float32)
    return nir.Affine(weight, rng.normal(size=out).astype(np.float32)) if bias else nir.Linear(weight)


def conv(rng: Rng, out: int, shape: tuple[int, ...], known: bool = True) -> Any:
    kernel = rng.normal(size=(out, shape[0], 3, 3)).astype(np.float32)
    more = ((1, 1), (1, 1), (1, 1), 1, np.zeros(out, np.float32))
    return nir.Conv2d(shape[1:] if known else None, kernel, *more)


def uniform(rng: Rng, low: float, high: float, shape: tuple[int, ...]) -> Any:
    return rng.uniform(low, high, shape)


class Drawing:
    """One random network of an exporter: its layers one after the other, then its graph."""

    def __init__(self, exporter: str, rng: Rng) -> None:
        self.exporter, self.rng = exporter, rng
        self.image = exporter != "rockpool" and bool(rng.random() < 0.4)
        self.single = np.float32 if rng.random() < 0.5 else np.float64
        self.dt = 1e-4
        if exporter == "spikingjelly":
            self.dt = float(rng.choice([1e-4, 1e-4, 1e-3, 5e-4]))
        if exporter == "rockpool":
            self.dt = float(rng.choice([1e-3, 1e-3, 5e-4, 2e-3]))
        self.shape: tuple[int, ...] = (2, 6, 6) if self.image else (int(rng.integers(2, 7)),)
        self.start = self.shape
        self.layers: list[Any] = []
        self.kinds = {
            "norse": ["LIF", "CubaLIF", "IF"],
            "rockpool": ["CubaLIF", "CubaLIF", "LIF"],
            "sinabs": ["LIF", "IF"],
            "snntorch": ["LIF", "CubaLIF"],
            "spikingjelly": ["IF", "LIF", "CubaLIF"],
        }[exporter]
        if rng.random() < 0.6:  # mostly one kind of neuron, as people build networks
            self.kinds = [str(rng.choice(self.kinds))]
        depth = int(rng.integers(1, 5))
        for index in range(depth):
            self.linear()
            last = index == depth - 1 and exporter in ("norse", "sinabs", "rockpool") and rng.random() < 0.25
            self.layers.append(self.neuron("LI" if last else str(rng.choice(self.kinds))))

    def linear(self) -> None:
        rng, kinds = self.rng, {"snntorch": "Avg", "spikingjelly": "Avg", "sinabs": "Sum"}
        if self.image and rng.random() < 0.6:
            channels = int(rng.integers(1, 4))
            self.layers.append(conv(rng, channels, self.shape))
            self.shape = (channels, *self.shape[1:])
            if self.shape[1] > 3 and self.exporter in kinds and rng.random() < 0.4:
                pool = nir.AvgPool2d if kinds[self.exporter] == "Avg" else nir.SumPool2d
                self.layers.append(pool(np.array((2, 2)), np.array((2, 2)), np.array((0, 0))))
                self.shape = (channels, self.shape[1] // 2, self.shape[2] // 2)
            return
        if self.image and self.exporter == "norse":  # its exporter has no Flatten
            self.layers.append(conv(rng, 2, self.shape))
            self.shape = (2, *self.shape[1:])
            return
        if self.image:
            flatten = nir.Flatten({"input": np.array(self.shape)}, 0, -1)
            self.layers.append(flatten)
            self.shape, self.image = (int(np.prod(self.shape)),), False
        size = int(rng.integers(2, 7))
        bias = self.exporter in ("norse", "sinabs") or bool(rng.random() < 0.5)
        self.layers.append(affine(rng, size, self.shape[0], bias))
        self.shape = (size,)

    def neuron(self, kind: str) -> Any:
        shape = self.shape
        if self.exporter in ("norse", "snntorch") and self.rng.random() < 0.3:
            shape = () if self.rng.random() < 0.5 else (1,)
        made: dict[str, Callable[[str, tuple[int, ...]], Any]] = {
            "norse": self.norse,
            "rockpool": self.rockpool,
            "sinabs": self.sinabs,
            "snntorch": self.snntorch,
            "spikingjelly": self.spikingjelly,
        }
        node = made[self.exporter](kind, shape)
        for key, value in vars(node).items():
            if isinstance(value, np.ndarray) and key not in ("input_type", "output_type"):
                setattr(
                    node, key, value.astype(np.float64 if self.exporter == "spikingjelly" else self.single)
                )
        return node

    def norse(self, kind: str, shape: tuple[int, ...]) -> Any:
        rng, one = self.rng, np.ones(shape)
        leak = np.full(shape, rng.choice([0.0, 0.0, 0.1]))
        tau, th = 1e-3 / uniform(rng, 20, 500, shape), uniform(rng, 0.3, 1, shape)
        if kind == "IF":
            return nir.IF(one, th, np.zeros(shape))
        if kind == "LI":
            return nir.LI(tau, one, leak)
        if kind == "LIF":
            return nir.LIF(tau, one, leak, th, np.zeros(shape))
        return nir.CubaLIF(1e-3 / uniform(rng, 100, 900, shape), tau, one, leak, th, np.zeros(shape), one)

    def sinabs(self, kind: str, shape: tuple[int, ...]) -> Any:
        rng, zero, one = self.rng, np.zeros(shape), np.ones(shape)
        tau = uniform(rng, 2, 40, shape) if rng.random() < 0.5 else np.full(shape, rng.uniform(2, 40))
        th = np.full(shape, rng.choice([1.0, 0.5]))
        if kind == "IF":
            return nir.IF(one, th, zero)
        return nir.LI(tau, one, zero) if kind == "LI" else nir.LIF(tau, one, zero, th, zero)

    def snntorch(self, kind: str, shape: tuple[int, ...]) -> Any:
        rng, zero = self.rng, np.zeros(shape)
        even = rng.random() < 0.5
        beta = np.full(shape, rng.uniform(0.1, 0.99)) if even else uniform(rng, 0.1, 0.99, shape)
        alpha = np.full(shape, rng.uniform(0.1, 0.99)) if even else uniform(rng, 0.1, 0.99, shape)
        tau, syn, th = 1e-4 / (1 - beta), 1e-4 / (1 - alpha), np.full(shape, rng.choice([1.0, 0.5]))
        if kind == "LIF":
            return nir.LIF(tau, tau / 1e-4, zero, th, zero)
        return nir.CubaLIF(syn, tau, tau / 1e-4, zero, th, zero, syn / 1e-4)

    def spikingjelly(self, kind: str, shape: tuple[int, ...]) -> Any:
        rng, dt = self.rng, self.dt
        reset, th = float(rng.choice([0.0, 0.0, -0.1])), float(rng.choice([1.0, 0.7]))
        full = [np.full(shape, value) for value in (reset, th)]
        if kind == "IF":
            return nir.IF(np.full(shape, 1 / dt), full[1], full[0])
        if kind == "LIF":
            tau = float(rng.choice([2.0, 1.5, 4.0, rng.uniform(1.1, 8)]))
            r = 1.0 if rng.random() < 0.5 else tau
            return nir.LIF(np.full(shape, tau * dt), np.full(shape, r), full[0], full[1], full[0])
        syn, mem = (dt / (1 - float(rng.uniform(0.1, 0.95))) for _ in range(2))
        numbers = [np.full(shape, value) for value in (syn, mem, mem / dt, 0.0)]
        return nir.CubaLIF(*numbers, full[1], full[0], np.full(shape, syn / dt))

    def rockpool(self, kind: str, shape: tuple[int, ...]) -> Any:
        rng, dt, zero = self.rng, self.dt, np.zeros(shape)
        even = rng.random() < 0.5
        tau = np.full(shape, rng.choice([0.02, 0.01, 0.05])) if even else uniform(rng, 5e-3, 0.1, shape)
        r, th = tau / dt * np.exp(-dt / tau), uniform(rng, 0.5, 1, shape)
        if kind == "LI":
            return nir.LI(tau, r, zero)
        if kind == "LIF":
            return nir.LIF(tau, r, zero, th, zero)
        syn = uniform(rng, 5e-3, 0.1, shape)
        return nir.CubaLIF(syn, tau, r, zero, th, zero, np.ones(shape))

    def names(self) -> list[str]:
        """Names of the layers, as modules of a Sequential or of one's own class are called."""
        rng, many = self.rng, len(self.layers)
        if self.exporter == "rockpool" and rng.random() < 0.6:
            return [f"{i}_{ROCKPOOL.get(type(x).__name__, 'ExpSynTorch')}" for i, x in enumerate(self.layers)]
        style = rng.choice(["numbers", "words", "nested"])
        traced = self.exporter == "spikingjelly"
        if style == "numbers":
            return [f"_{i}" if traced else str(i) for i in range(many)]
        stem = [f"{rng.choice(WORDS)}{i}" for i in range(many)]
        return stem if style == "words" else [f"net{'_' if traced else '.'}{name}" for name in stem]

    def graph(self) -> nir.NIRGraph:
        """The network as one chain of nodes between the ports."""
        rng = self.rng
        lead = {"norse": 0.7, "rockpool": 1.0, "sinabs": 0.5, "snntorch": 0.2, "spikingjelly": 0.0}
        front = (1,) if rng.random() < lead[self.exporter] else ()
        first = str(rng.choice(["input_1", "x", "x_seq"])) if self.exporter == "spikingjelly" else "input"
        names = self.names()
        nodes = dict(zip(names, self.layers, strict=True))
        nodes[first] = nir.Input({"input": np.array((*front, *self.start))})
        nodes["output"] = nir.Output({"output": np.array((*front, *self.shape))})
        order = [first, *names, "output"]
        edges = list(zip(order, order[1:], strict=False))
        if self.exporter == "snntorch" and rng.random() < 0.3:
            self.recur(nodes, edges)
        return nir.NIRGraph(nodes, edges, type_check=False)

    def recur(self, nodes: dict[str, Any], edges: list[tuple[str, str]]) -> None:
        """Make one layer recurrent, as snnTorch's exporter flattens RLeaky and RSynaptic."""
        cells = [
            n for n, x in nodes.items() if hasattr(x, "v_threshold") and np.shape(x.v_threshold)[1:] == ()
        ]
        cells = [n for n in cells if np.size(nodes[n].v_threshold) > 1]
        if not cells:
            return
        name = cells[0]
        size = nodes[name].v_threshold.size
        inner, back = f"{name}.lif", f"{name}.w_rec"
        nodes[inner], nodes[back] = nodes.pop(name), affine(self.rng, size, size, True)
        edges[:] = [(inner if a == name else a, inner if b == name else b) for a, b in edges]
        edges += [(inner, back), (back, inner)]


def drawn(exporter: str, seed: int) -> nir.NIRGraph:
    """Return the network of an exporter that a seed gives."""
    return Drawing(exporter, np.random.default_rng([seed, EXPORTERS.index(exporter)])).graph()


def renamed(graph: nir.NIRGraph, rng: Rng, ports: bool = True) -> nir.NIRGraph:
    """Return a graph with random names, its nodes and edges in random order."""
    keep = set() if ports else {n for n, x in graph.nodes.items() if isinstance(x, (nir.Input, nir.Output))}
    letters = np.array(list("abcdefghijklmnopqrstuvwyz"))
    new = {n: n if n in keep else "".join(rng.choice(letters, 6)) + str(i) for i, n in enumerate(graph.nodes)}
    names = [str(n) for n in rng.permutation(list(graph.nodes))]
    edges = [graph.edges[i] for i in rng.permutation(len(graph.edges))]
    nodes = {new[n]: graph.nodes[n] for n in names}
    return nir.NIRGraph(nodes, [(new[a], new[b]) for a, b in edges], type_check=False)


def other_input(graph: nir.NIRGraph, rng: Rng) -> nir.NIRGraph:
    """Return a graph whose input alone has another name, one that other exporters give."""
    first = next(n for n, x in graph.nodes.items() if isinstance(x, nir.Input))
    name = str(rng.choice(["x", "input", "input_1", "data"]))
    nodes = {name if n == first else n: x for n, x in graph.nodes.items()}
    edges = [(name if a == first else a, b) for a, b in graph.edges]
    return nir.NIRGraph(nodes, edges, type_check=False)


def padded(graph: nir.NIRGraph, rng: Rng) -> nir.NIRGraph:
    """Return a graph with a convolution or a pool of one pixel put on a random edge."""
    a, b = graph.edges[int(rng.integers(len(graph.edges)))]
    one = np.array((1, 1))
    zero = np.array((0, 0))
    what = [
        nir.Conv2d(None, rng.normal(size=(2, 2, 3, 3)), 1, 1, 1, 1, np.zeros(2)),
        nir.AvgPool2d(one, one, zero),
        nir.SumPool2d(one, one, zero),
        nir.Flatten({"input": np.array((4,))}, 0, -1),
    ][int(rng.integers(4))]
    edges = [e for e in graph.edges if e != (a, b)] + [(a, "added"), ("added", b)]
    return nir.NIRGraph({**graph.nodes, "added": what}, edges, type_check=False)


def by_hand(seed: int) -> nir.NIRGraph:
    """Return a graph as somebody writes it by hand: numbers of no relation, or the textbook's r = 1.

    Time constants are seconds or, unless the nodes are numbered as in a file of sinabs, steps.
    """
    rng = np.random.default_rng(seed)
    size = int(rng.integers(1, 6))
    shape = (size,) if rng.random() < 0.8 else (1,)
    textbook = bool(rng.random() < 0.5)

    def number(low: float, high: float) -> Any:
        value = np.exp(rng.uniform(np.log(low), np.log(high), shape))
        return value if rng.random() < 0.5 else np.full(shape, float(f"{value.flat[0]:.2g}"))

    names = [["input", "output"], ["in", "out"], ["x", "y"]][int(rng.integers(3))]
    nodes: dict[str, Any] = {names[0]: nir.Input({"input": np.array([3])})}
    order, width = [names[0]], 3
    steps, numbered = bool(rng.random() < 0.3), bool(rng.random() < 0.3)
    for index in range(int(rng.integers(1, 4))):
        style = 0 if numbered else rng.integers(1, 3)
        label = [str(2 * index), f"fc{index}", f"w{index}"][style]
        cell = [str(2 * index + 1), f"lif{index}", f"n{index}"][style]
        nodes[label] = affine(rng, size, width, bool(rng.random() < 0.5))
        r = np.ones(shape) if textbook else number(0.1, 100)
        leak = np.zeros(shape) if textbook or rng.random() < 0.5 else number(0.01, 1)
        th, zero = number(0.1, 2), np.zeros(shape)
        low, high = (1.5, 40) if steps and not numbered else (1e-3, 0.5)
        tau, syn = number(low, high), number(low, high)
        nodes[cell] = [
            nir.LIF(tau, r, leak, th, zero),
            nir.CubaLIF(syn, tau, r, leak, th, zero, np.ones(shape) if textbook else number(0.1, 100)),
            nir.IF(r, th, zero),
            nir.LI(tau, r, leak),
        ][int(rng.integers(4))]
        order += [label, cell]
        width = size
    nodes[names[1]] = nir.Output({"output": np.array([size])})
    order.append(names[1])
    return nir.NIRGraph(nodes, list(zip(order, order[1:], strict=False)), type_check=False)
