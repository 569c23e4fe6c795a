"""Kernels found in weight tables: every convolution is found, nothing else is taken for one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array

from snn_compile.compiler.linear_maps import convolution_map
from snn_compile.targets.program.kernels import Kernel, shared_kernel

Shape = tuple[int, int, int]


def applied(kernel: Kernel, source: np.ndarray, target: Shape) -> np.ndarray:
    """Correlate in plain loops."""
    found = np.zeros(target, np.int64)
    for o, y, x in np.ndindex(*target):
        for i, ky, kx in np.ndindex(*kernel.weights.shape[1:]):
            row = y * kernel.stride[0] + kernel.origin[0] + ky
            column = x * kernel.stride[1] + kernel.origin[1] + kx
            if 0 <= row < source.shape[1] and 0 <= column < source.shape[2]:
                found[o, y, x] += kernel.weights[o, i, ky, kx] * source[i, row, column]
    return found


@st.composite
def tables(draw: st.DrawFn) -> tuple[csr_array, Shape, Shape, np.ndarray]:
    """A random convolution as a sparse table, its shapes, and its kernel."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    channels, height, width = (draw(st.integers(1, high)) for high in (3, 9, 9))
    window = tuple(draw(st.integers(1, min(n, 4))) for n in (height, width))
    stride = (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    padding = tuple(draw(st.integers(0, n - 1)) for n in window)
    weights = rng.integers(-9, 10, (draw(st.integers(1, 3)), channels, *window)).astype(float)
    source = (channels, height, width)
    made = convolution_map(weights, source, stride, padding, (1, 1), 1, None, "conv")
    table = csr_array(made.weight).astype(np.int64)
    table.eliminate_zeros()
    shape = tuple(int(n) for n in made.shape)
    return table, (shape[0], shape[1], shape[2]), source, weights


@settings(max_examples=150, deadline=None)
@given(tables())
def test_the_kernel_of_a_convolution_is_found(case: tuple[csr_array, Shape, Shape, np.ndarray]) -> None:
    table, target, source, weights = case
    kernel = shared_kernel(table, target, source)
    assert kernel is not None or table.nnz <= np.count_nonzero(weights)
    if kernel is None:
        return
    assert shared_kernel(table.toarray(), target, source) is not None
    rows, columns = (np.append(index, [0, 0]) for index in table.nonzero())
    stored = np.append(table[table.nonzero()], [0, 0])
    columns[-2:] = [0, table.shape[1] - 1]
    zeros = csr_array((stored.astype(float), (rows, columns)), shape=table.shape)
    assert shared_kernel(zeros, target, source) is not None, "zeros that are stored are no synapses"
    assert zeros.nnz >= table.nnz
    image = np.random.default_rng(0).integers(0, 5, source)
    assert np.array_equal(applied(kernel, image, target).reshape(-1), table @ image.reshape(-1))
    # Taps that only ever fall on padding are not in the table.
    assert kernel.rows <= np.count_nonzero(weights.any(axis=0))


@settings(max_examples=60, deadline=None)
@given(tables(), st.integers(0, 2**32))
def test_a_table_with_one_other_weight_is_no_convolution(
    case: tuple[csr_array, Shape, Shape, np.ndarray], seed: int
) -> None:
    table, target, source, _ = case
    kernel = shared_kernel(table, target, source)
    if kernel is None:
        return
    other, at = table.copy(), np.random.default_rng(seed).integers(0, table.nnz)
    other.data[at] += 100
    found = shared_kernel(other, target, source)
    if found is not None:  # the weight stood alone in its tap
        image = np.random.default_rng(0).integers(0, 5, source)
        assert np.array_equal(applied(found, image, target).reshape(-1), other @ image.reshape(-1))
        assert found.rows >= kernel.rows - 1


@pytest.mark.parametrize("shapes", [((6,), (6,)), ((2, 3, 3), (18,)), ((18, 1, 1), (2, 3, 3))])
def test_vectors_have_no_kernel(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    target, source = shapes
    assert shared_kernel(np.ones((int(np.prod(target)), int(np.prod(source)))), target, source) is None


def test_a_random_matrix_between_images_has_no_kernel() -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        assert shared_kernel(rng.integers(1, 9, (32, 32)), (2, 4, 4), (2, 4, 4)) is None
