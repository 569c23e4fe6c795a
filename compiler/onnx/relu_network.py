"""ReLU networks: artificial neural networks with everything linear folded.

Every value is an affine expression of the input and of earlier ReLU layers,

    x = bias + sum over sources of weight @ source        weights (target, source), arrays flat in C order

so batch normalisation, average pooling, reshaping and residual additions are weights only. A layer's output
is clip(x, 0, ceiling). The network's output is one more expression.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf, prod

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array, diags_array, eye_array

from snn_compile.compiler.network import Float, Weight
from snn_compile.targets.errors import CompileError, WrongInput

VALUES_MAX = 1 << 22
"""Most values of a tensor; a chip has a million neurons."""

ENTRIES_MAX = 100_000_000
"""Most entries of a map: 1.2 GB, several times the synapses of a chip."""


@dataclass(frozen=True, eq=False)
class Affine:
    """An affine expression of `shape`, whose first axis is the batch axis of ONNX and always 1."""

    shape: tuple[int, ...]
    terms: Mapping[str, Weight]
    bias: Float

    @property
    def size(self) -> int:
        """Number of values."""
        return prod(self.shape)

    def mapped(self, matrix: Weight, shape: tuple[int, ...], node: str) -> Affine:
        """Return matrix @ x in another shape; raises CompileError if the maps grow too large."""
        terms = {name: _product(matrix, weight, node) for name, weight in self.terms.items()}
        return Affine(shape, terms, matrix @ self.bias)

    def taken(self, index: npt.NDArray[np.int64], node: str) -> Affine:
        """Return the values at flat places `index`, in its shape; -1 is a zero."""
        flat = index.reshape(-1)
        rows = np.flatnonzero(flat >= 0)
        matrix = csr_array((np.ones(rows.size), (rows, flat[rows])), shape=(flat.size, self.size))
        return self.mapped(matrix, index.shape, node)

    def reshaped(self, shape: tuple[int, ...]) -> Affine:
        """Return the same values in another shape."""
        return Affine(shape, self.terms, self.bias)

    def scaled(self, factor: npt.ArrayLike, node: str) -> Affine:
        """Return x times a factor for each value."""
        flat = np.broadcast_to(np.asarray(factor, np.float64), self.shape).reshape(-1)
        return self.mapped(csr_array(diags_array(flat)), self.shape, node)

    def shifted(self, offset: npt.ArrayLike) -> Affine:
        """Return x plus an offset for each value."""
        flat = np.broadcast_to(np.asarray(offset, np.float64), self.shape).reshape(-1)
        return Affine(self.shape, self.terms, self.bias + flat)

    def plus(self, other: Affine, sign: float = 1.0) -> Affine:
        """Return the sum (or with sign -1 the difference) of two expressions of one shape."""
        terms = dict(self.terms)
        for name, weight in other.terms.items():
            terms[name] = csr_array(terms[name] + sign * weight) if name in terms else sign * weight
        return Affine(self.shape, terms, self.bias + sign * other.bias)

    def value(self, sources: Mapping[str, Float]) -> Float:
        """Return the expression's value (batch, size) for sources (batch, size)."""
        batch = next(iter(sources.values())).shape[0]
        total = np.broadcast_to(self.bias, (batch, self.size))
        for name, weight in self.terms.items():
            total = total + (weight @ sources[name].T).T
        return total


def source(name: str, shape: tuple[int, ...]) -> Affine:
    """Return the expression that is a source itself."""
    size = prod(shape)
    return Affine(shape, {name: csr_array(eye_array(size))}, np.zeros(size))


def places(shape: tuple[int, ...]) -> npt.NDArray[np.int64]:
    """Return the flat place of every value of an array of `shape`."""
    return np.arange(prod(shape), dtype=np.int64).reshape(shape)


def _product(matrix: Weight, weight: Weight, node: str) -> Weight:
    entries = int(np.diff(weight.indptr)[matrix.indices].sum())
    if entries > ENTRIES_MAX:
        raise CompileError(
            f"node {node!r}: folded into what comes before it, it has up to {entries:,} connections, more "
            f"than {ENTRIES_MAX:,}",
            node=node,
            entries=entries,
        )
    product = csr_array(matrix @ weight)
    product.eliminate_zeros()
    return product


@dataclass(frozen=True, eq=False)
class Rectifiers:
    """A layer: clip(x, 0, ceiling) of its expression, under its name."""

    name: str
    value: Affine
    ceiling: float = inf

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape without the batch axis, channels first."""
        return self.value.shape[1:] or (1,)


@dataclass(frozen=True, eq=False)
class RectifierNetwork:
    """Layers in an order in which they can be computed; `notes` list what was dropped or replaced.

    `model` is the file that it was read from, for the float reference; `digest` is that file's SHA-256.
    """

    name: str
    input_name: str
    input_shape: tuple[int, ...]
    layers: tuple[Rectifiers, ...]
    output: Affine
    notes: tuple[str, ...] = ()
    model: bytes = b""
    digest: str = ""

    def flat(self, inputs: npt.ArrayLike) -> Float:
        """Return checked inputs (batch, *shape) as (batch, size); raises WrongInput."""
        data = np.asarray(inputs, np.float64)
        if data.shape[1:] != self.input_shape or 0 in data.shape or not np.isfinite(data).all():
            raise WrongInput(
                f"{self.name}: inputs of shape {data.shape}; the model takes (batch, "
                f"{', '.join(map(str, self.input_shape))}) of finite numbers",
                shape=data.shape,
            )
        return data.reshape(len(data), -1)

    def activations(self, inputs: npt.ArrayLike) -> dict[str, Float]:
        """Return the outputs (batch, size) of the input and every layer, for inputs (batch, *shape)."""
        sent = {self.input_name: self.flat(inputs)}
        for layer in self.layers:
            sent[layer.name] = np.clip(layer.value.value(sent), 0.0, layer.ceiling)
        return sent

    def scores(self, inputs: npt.ArrayLike, size: int = 256) -> Float:
        """Return the output (batch, outputs) for inputs (batch, *shape), computed `size` at a time."""
        data = np.asarray(inputs)
        parts = [self.output.value(self.activations(data[i : i + size])) for i in range(0, len(data), size)]
        return np.concatenate(parts) if parts else np.zeros((0, self.output.size))


def pruned(layers: Sequence[Rectifiers], output: Affine) -> tuple[Rectifiers, ...]:
    """Return the layers that the output depends on."""
    wanted, kept = set(output.terms), []
    for layer in reversed(layers):
        if layer.name in wanted:
            kept.append(layer)
            wanted |= set(layer.value.terms)
    return tuple(reversed(kept))
