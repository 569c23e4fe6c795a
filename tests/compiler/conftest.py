"""What the compiler's tests share: small NIR nodes and graphs, as fixtures."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import nir
import numpy as np
import pytest

from snn_compile.compiler.contract.contract import Contract, attach

Edges = list[tuple[str, str]]


def node(kind: type, size: int | tuple[int, ...], **values: Any) -> Any:
    """Return a neuron node; numbers are spread over `size` neurons."""
    return kind(**{key: np.zeros(size) + value for key, value in values.items()})


def lif(size: int | tuple[int, ...], **values: Any) -> nir.LIF:
    return node(nir.LIF, size, **{"tau": 4.0, "r": 1.5, "v_leak": 0.0, "v_threshold": 0.7, **values})


def cuba(size: int, **values: Any) -> nir.CubaLIF:
    given = {"tau_syn": 3.0, "tau_mem": 5.0, "r": 1.5, "v_leak": 0.0, "v_threshold": 0.7, "w_in": 2.0}
    return node(nir.CubaLIF, size, **{**given, **values})


def li(size: int, **values: Any) -> nir.LI:
    return node(nir.LI, size, **{"tau": 6.0, "r": 2.0, "v_leak": 0.0, **values})


def affine(rng: np.random.Generator, rows: int, columns: int, scale: float = 1.0) -> nir.Affine:
    return nir.Affine(rng.normal(size=(rows, columns)) * scale, rng.normal(size=rows) * scale * 0.2)


def linear(rng: np.random.Generator, rows: int, columns: int, scale: float = 1.0) -> nir.Linear:
    return nir.Linear(rng.normal(size=(rows, columns)) * scale)


def port(kind: type, *shape: int) -> Any:
    return kind({"input" if kind is nir.Input else "output": np.array(shape)})


def graph(
    nodes: Mapping[str, Any], edges: Edges, contract: Contract | None = None, /, **items: Any
) -> nir.NIRGraph:
    """Return a graph with a contract of dt 1; items change it, `no_contract` leaves it out."""
    made = nir.NIRGraph(nodes=dict(nodes), edges=list(edges), type_check=False)
    contract = items.pop("contract", contract)
    if not items.pop("no_contract", False):
        attach(made, contract or Contract(**{"dt": 1.0, **items}))
    return made


def chain(inputs: int | tuple[int, ...], *layers: Any, **items: Any) -> nir.NIRGraph:
    """Return input -> n0 -> n1 ... -> output."""
    nodes = {
        "input": port(nir.Input, *np.atleast_1d(inputs)),
        **{f"n{i}": layer for i, layer in enumerate(layers)},
    }
    size = int(np.prod(layers[-1].output_type["output"]))
    nodes["output"] = port(nir.Output, size)
    names = list(nodes)
    return graph(nodes, list(zip(names, names[1:], strict=False)), **items)


@pytest.fixture(scope="session")
def build() -> SimpleNamespace:
    """Makers of nodes and graphs: lif, cuba, li, affine, linear, port, graph, chain."""
    return SimpleNamespace(
        lif=lif, cuba=cuba, li=li, affine=affine, linear=linear, port=port, graph=graph, chain=chain
    )


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(11)


@pytest.fixture
def spikes() -> np.ndarray:
    """Random spikes for three channels, (batch, steps, channel)."""
    return np.random.default_rng(3).integers(0, 2, (3, 25, 3)).astype(float)
