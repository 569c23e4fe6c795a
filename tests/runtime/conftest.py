"""Programs small enough to follow by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from snn_compile.targets.program.program import (
    Core,
    InputPort,
    OutputPort,
    Population,
    Program,
    Projection,
    Route,
    WeightTable,
)

_LIF = {"du": 4095, "dv": 4095, "vth": 10, "bias_mant": 0, "bias_exp": 0, "v_init": 0}


@pytest.fixture
def lif() -> Callable[..., Population]:
    """Make a population that forgets everything between steps, unless told otherwise."""

    def make(
        name: str, size: int, start: int, *, reset: str = "value", scale: float = 1.0, **parameters: Any
    ) -> Population:
        return Population(name, (size,), "lif", {**_LIF, **parameters}, reset, start, scale)

    return make


@pytest.fixture
def relay(lif: Callable[..., Population]) -> Program:
    """Two populations that pass spikes on in their own step: a0 = in0, a1 = in1; b0 = a0, b1 = a0
    or a1, b2 never. Three cores on the tiles (0, 0) and (2, 1), one hop apart north-south.
    """
    into = WeightTable(np.array([[20, 0], [0, 20]]))
    onward = WeightTable(np.array([[20, 0], [20, 20], [0, 0]]))
    cores = (
        Core(0, (0, 0), (("a", 0, 2),), {}),
        Core(1, (2, 1), (("b", 0, 2),), {}),
        Core(2, (0, 0), (("b", 2, 3),), {}),
    )
    routes = (Route("in", 0, 2, -1, (0,)), Route("a", 0, 1, 0, (1, 2)), Route("a", 1, 2, 0, (1,)))
    return Program(
        "loihi2",
        2,
        (lif("a", 2, 1), lif("b", 3, 2)),
        (Projection("in-a", "in", "a", (into,)), Projection("a-b", "a", "b", (onward,))),
        (InputPort("in", (2,)),),
        (OutputPort("out", "b"),),
        cores,
        routes,
    )


@pytest.fixture
def relay_inputs() -> np.ndarray:
    """Two samples of three steps: in0, in1, nothing; then both, nothing, in0."""
    return np.array([[[1, 0], [0, 1], [0, 0]], [[1, 1], [0, 0], [1, 0]]])


@pytest.fixture
def chain(lif: Callable[..., Population]) -> Callable[..., Program]:
    """Make a chain of random populations of the given sizes behind 10 inputs."""

    def make(*sizes: int, graded: bool = False, names: str = "layer{}", **provenance: str) -> Program:
        rng = np.random.default_rng(7)
        edges, populations = [], []
        source, before = "in", 10
        for i, size in enumerate(sizes):
            name = names.format(i)
            bits = 6 if graded and not i else 0
            weights = WeightTable(
                rng.integers(-50, 90, (size, before)) * 2, -5 if bits else 0, message_bits=bits
            )
            populations.append(lif(name, size, i + 1, du=1000, dv=300, vth=400, scale=1000.0))
            edges.append(Projection(f"to {name}", source, name, (weights,)))
            source, before = name, size
        port = InputPort("in", (10,), "graded", 32.0, 6) if graded else InputPort("in", (10,))
        return Program(
            "loihi2",
            2,
            tuple(populations),
            tuple(edges),
            (port,),
            (OutputPort("out", source),),
            provenance=provenance,
        )

    return make


@pytest.fixture
def three(lif: Callable[..., Population]) -> Program:
    """a0 = in0, a1 = in0 or in1, b = a0; a on tile (0, 0), b on tile (2, 1)."""
    return Program(
        "loihi2",
        2,
        (lif("a", 2, 1), lif("b", 1, 2)),
        (
            Projection("in-a", "in", "a", (WeightTable(np.array([[20, 0], [20, 20]])),)),
            Projection("a-b", "a", "b", (WeightTable(np.array([[20, 4]])),)),
        ),
        (InputPort("in", (2,)),),
        (OutputPort("out", "b"),),
        (Core(0, (0, 0), (("a", 0, 2),), {}), Core(1, (2, 1), (("b", 0, 1),), {})),
        (Route("in", 0, 2, -1, (0,)), Route("a", 0, 2, 0, (1,))),
    )
