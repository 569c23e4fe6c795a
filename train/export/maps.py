"""Affine maps of traced values as matrices: SparseLinear nodes, from what a map makes of unit vectors."""

from __future__ import annotations

from math import prod
from typing import Any

import nir
import numpy as np
import torch
from numpy.typing import NDArray

from snn_compile.compiler.frontends.nir_extensions import SparseLinear
from snn_compile.compiler.linear_maps import MATRIX_MAX
from snn_compile.targets.errors import ExportError
from snn_compile.train.export.nodes import numbers
from snn_compile.train.tracing.values import Value

AT_ONCE = 1 << 24
"""Most numbers of the results of unit vectors that are held at a time."""

DENSE_MAX = 1 << 16
"""Most entries of a matrix that is written whole."""

SIZE_MAX = 1 << 16
"""Most values of a map's input."""


def mapped_node(value: Value, before: tuple[int, ...]) -> Any:
    """Return the node of an affine map of signals of shape `before`; raises ExportError beyond `SIZE_MAX`."""
    size, after = prod(before), value.shape[1:]
    if size > SIZE_MAX or prod(after) > SIZE_MAX:
        raise ExportError(
            f"{value.path}: maps {before} to {tuple(after)}; at most {SIZE_MAX:,} values are possible for a "
            f"{value.attrs.get('function', value.op)}",
            node=value.path,
        )
    assert value.replay is not None
    rows, columns, values = [], [], []
    with torch.no_grad():
        zero = value.replay(torch.zeros(1, *before, dtype=torch.float64)).reshape(1, -1)
        chunk = max(1, AT_ONCE // max(prod(after), 1))
        for first in range(0, size, chunk):
            count = min(chunk, size - first)
            units = torch.zeros(count, size, dtype=torch.float64)
            units[torch.arange(count), first + torch.arange(count)] = 1
            made = value.replay(units.reshape(count, *before)).reshape(count, -1) - zero
            unit, target = torch.nonzero(made, as_tuple=True)
            rows.append(target.numpy())
            columns.append(unit.numpy() + first)
            values.append(made[unit, target].numpy())
            if sum(map(len, rows)) > MATRIX_MAX:
                raise ExportError(f"{value.path}: more than {MATRIX_MAX:,} connections", node=value.path)
    bias = numbers(zero[0], value.path, "result")
    row, column = np.concatenate(rows), np.concatenate(columns)
    return affine_node(row, column, np.concatenate(values), bias, before, after)


def affine_node(
    rows: NDArray[np.integer],
    columns: NDArray[np.integer],
    values: NDArray[np.float64],
    bias: NDArray[np.float64],
    before: tuple[int, ...],
    after: tuple[int, ...],
) -> Any:
    """Return the node of a matrix given by its entries, NIR's own between short vectors."""
    index = rows.astype(np.int64), columns.astype(np.int64)
    if len(before) == len(after) == 1 and before[0] * after[0] <= DENSE_MAX:
        weight = np.zeros((*after, *before))
        np.add.at(weight, index, values)
        return nir.Affine(weight, bias) if bias.any() else nir.Linear(weight)
    return SparseLinear(*index, values.astype(np.float64), bias, np.array(before), np.array(after))
