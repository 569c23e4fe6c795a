"""NIR nodes of linear and convolution weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import nir
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from snn_compile.compiler.frontends.nir_types import with_output_type
from snn_compile.targets.errors import ExportError

Array = NDArray[Any]


def numbers(tensor: Tensor, path: str, what: str) -> Array:
    """Return a tensor's numbers; raises ExportError, naming the first, where they are not finite."""
    array: Array = tensor.detach().cpu().numpy().copy()
    if not np.isfinite(array).all():
        where = [int(i) for i in np.argwhere(~np.isfinite(array))[0]]
        raise ExportError(f"{path}: {what}{where} is {array[tuple(where)]}; it must be finite", node=path)
    return array


def linear_node(weight: Tensor, bias: Tensor | None, path: str) -> Any:
    """Return Linear, or Affine with a bias."""
    if bias is None:
        return nir.Linear(weight=numbers(weight, path, "weight"))
    return nir.Affine(weight=numbers(weight, path, "weight"), bias=numbers(bias, path, "bias"))


def convolution_node(
    weight: Tensor, bias: Tensor | None, shape: tuple[int, ...], settings: Mapping[str, Any], path: str
) -> Any:
    """Return Conv1d or Conv2d for an input of `shape` (channels, ...).

    Groups become zeros of a full kernel: nir 1.0.8 takes the kernel's second axis for the input's channels.
    """
    dimensions = weight.ndim - 2
    kernel = _without_groups(numbers(weight, path, "weight"), int(settings["groups"]))
    offset = np.zeros(len(kernel), kernel.dtype) if bias is None else numbers(bias, path, "bias")
    padding = settings["padding"]
    common = {"weight": kernel, "bias": offset, "groups": 1}
    sizes = {key: tuple(int(n) for n in settings[key]) for key in ("stride", "dilation")}
    padding = padding if isinstance(padding, str) else tuple(int(n) for n in padding)
    if dimensions == 2:
        return with_output_type(nir.Conv2d(input_shape=tuple(shape[1:]), padding=padding, **sizes, **common))
    single = {key: value[0] for key, value in sizes.items()}
    padding = padding if isinstance(padding, str) else padding[0]
    return nir.Conv1d(input_shape=shape[1], padding=padding, **single, **common)


def _without_groups(kernel: Array, groups: int) -> Array:
    outputs, inputs = kernel.shape[0] // groups, kernel.shape[1]
    full = np.zeros((len(kernel), inputs * groups, *kernel.shape[2:]), kernel.dtype)
    for group in range(groups):
        rows = slice(group * outputs, (group + 1) * outputs)
        full[rows, group * inputs : (group + 1) * inputs] = kernel[rows]
    return full
