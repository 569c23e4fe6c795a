"""Output types of convolutions: nir 1.0.8 takes a kernel's height for its width as well."""

from __future__ import annotations

from typing import Any

import nir
import numpy as np

from snn_compile.compiler.linear_maps import convolution_size, pair
from snn_compile.targets.errors import CompileError


def with_output_type(node: Any) -> Any:
    """Return the node; the output type of a Conv2d with a rectangular kernel is corrected in place."""
    if not isinstance(node, nir.Conv2d) or node.input_shape is None or np.ndim(node.weight) != 4:
        return node
    kernel = np.shape(node.weight)
    try:
        sides = convolution_size(
            pair(node.input_shape, "", "input_shape"),
            kernel[2:],
            pair(node.stride, "", "stride"),
            node.padding,
            pair(node.dilation, "", "dilation"),
            "",
        )
    except CompileError:
        return node  # lowering names the node and what is wrong with it
    if kernel[2] != kernel[3] and min(sides) > 0:
        node.output_type = {"output": np.array([kernel[0], *sides])}
    return node
