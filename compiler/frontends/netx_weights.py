"""Weight matrices of the layers of a lava-dl `.net` file, (neurons, values of the layer before)."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import numpy as np
from scipy.sparse import coo_array, csr_array

from snn_compile.compiler.frontends.checked import VALUES_MAX, Int
from snn_compile.compiler.frontends.netx_file import NetxLayer
from snn_compile.compiler.linear_maps import convolution_map
from snn_compile.compiler.network import Weight
from snn_compile.targets.errors import UnsupportedNode


def _size(layer: NetxLayer, key: str, expected: int) -> None:
    if key in layer.sizes and layer.sizes[key] != (expected,):
        layer.fail(f"{key!r} is {layer.sizes[key][0]}; its weights and shapes need {expected}")


def _pair(layer: NetxLayer, key: str, default: int) -> tuple[int, int]:
    found = layer.sizes.get(key, (default,))
    return found[0], found[-1]


def _dense(layer: NetxLayer, shape: tuple[int, ...]) -> Weight:
    assert layer.weight is not None
    rows, columns = prod(layer.shape), prod(shape)
    weight = layer.weight
    flat = weight.ndim > 1 and weight.shape != (rows, columns) + (1,) * (weight.ndim - 2)
    if weight.size != rows * columns or flat:
        layer.fail(f"a weight of shape {weight.shape}; {columns} values project to {rows} neurons")
    _size(layer, "inFeatures", columns)
    _size(layer, "outFeatures", rows)
    return weight.reshape(rows, columns)


def _conv(layer: NetxLayer, shape: tuple[int, ...]) -> Weight:
    kernel = _kernel(layer)
    groups = layer.sizes.get("groups", (1,))[0]
    _size(layer, "inChannels", kernel.shape[1] * groups)
    _size(layer, "outChannels", kernel.shape[0])
    return _correlation(layer, kernel, shape, groups)


def _pool(layer: NetxLayer, shape: tuple[int, ...]) -> Weight:
    """Return the sum over windows of each channel; lava-dl lays the channels below each other for it.

    It fills a height or width that is no multiple of the kernel with as many zeros as there are left
    over.
    """
    kernel = _kernel(layer)
    if len(shape) != 3 or kernel.shape[:2] != (1, 1):
        layer.fail(f"a kernel of shape {kernel.shape} on an input of shape {shape}; expected (1, 1, h, w)")
    padded = (shape[0], *(n + n % k for n, k in zip(shape[1:], kernel.shape[2:], strict=True)))
    stride = _pair(layer, "stride", 1)
    if _pair(layer, "padding", 0)[0] or padded[1] != stride[0] * layer.shape[1]:
        layer.fail(
            "its windows reach from one channel into the next, which is not supported", UnsupportedNode
        )
    kernels = np.repeat(kernel, shape[0], axis=0)
    weight = _correlation(layer, kernels, padded, shape[0])
    within = np.arange(prod(padded)).reshape(padded)[:, : shape[1], : shape[2]].reshape(-1)
    return weight if padded == shape else csr_array(weight[:, within])


def _kernel(layer: NetxLayer) -> Int:
    assert layer.weight is not None
    kernel = layer.weight
    if kernel.ndim == 5 and kernel.shape[4] == 1:
        kernel = kernel[..., 0]
    if kernel.ndim != 4 or not kernel.size:
        layer.fail(f"a kernel of shape {kernel.shape}; expected (out, in, height, width)")
    if "kernelSize" in layer.sizes and _pair(layer, "kernelSize", 1) != kernel.shape[2:]:
        layer.fail(f"'kernelSize' is {layer.sizes['kernelSize']}; the kernel is {kernel.shape[2:]}")
    return kernel


def _correlation(layer: NetxLayer, kernel: Int, shape: tuple[int, ...], groups: int) -> Weight:
    stride, padding = _pair(layer, "stride", 1), _pair(layer, "padding", 0)
    dilation = _pair(layer, "dilation", 1)
    if prod(layer.shape) * kernel[0].size > VALUES_MAX:
        layer.fail(f"{prod(layer.shape) * kernel[0].size} connections; at most {VALUES_MAX} are read")
    if len(shape) == 3:
        reach = [dilation[i] * (kernel.shape[2 + i] - 1) + 1 for i in range(2)]
        sides = [(shape[1 + i] + 2 * padding[i] - reach[i]) // stride[i] + 1 for i in range(2)]
        if (kernel.shape[0], *sides) != layer.shape:
            made = (kernel.shape[0], *sides)
            layer.fail(f"its shape {layer.shape}; its kernel makes {made} of an input of {shape}")
    correlation = convolution_map(
        kernel.astype(np.float64), shape, stride, padding, dilation, groups, None, layer.name
    )
    return correlation.weight


def _average(layer: NetxLayer, shape: tuple[int, ...]) -> Weight:
    outputs, size = prod(layer.shape), prod(shape)
    if size % outputs:
        layer.fail(f"the mean of {size} values in {outputs} groups, which are not of equal size")
    group = size // outputs
    places = (np.repeat(np.arange(outputs), group), np.arange(size))
    return csr_array((np.full(size, 1 / group), places), shape=(outputs, size))


_MAPS = {"dense": _dense, "dense_rec": _dense, "conv": _conv, "pool": _pool, "average": _average}


def recurrent_weight(layer: NetxLayer) -> Weight:
    """Return the weight of a recurrent layer's neurons to themselves; raises CompileError unless square."""
    assert layer.weight_rec is not None
    size, weight = prod(layer.shape), layer.weight_rec
    if weight.size != size**2 or weight.shape not in ((size, size), (size, size, 1, 1, 1), (size**2,)):
        layer.fail(f"a 'weight_rec' of shape {weight.shape}; {size} neurons need {(size, size)}")
    return weight.reshape(size, size)


def by_delay(weight: Weight, delays: Int) -> Iterator[tuple[int, Weight]]:
    """Yield each delay with the weights of the synapses that have it; `delays` broadcasts to the weight."""
    if delays.size == 1:
        yield int(delays.flat[0]), weight
        return
    table = coo_array(weight)
    late = np.broadcast_to(delays, table.shape)[table.coords]
    for delay in np.unique(late) if late.size else [0]:
        kept = late == delay
        places = tuple(axis[kept] for axis in table.coords)
        yield int(delay), csr_array((table.data[kept], places), shape=table.shape)


def layer_weight(layer: NetxLayer, shape: tuple[int, ...]) -> Weight:
    """Return the weight of a layer that receives values of a shape; raises CompileError where they differ."""
    return _MAPS[layer.kind](layer, shape)
