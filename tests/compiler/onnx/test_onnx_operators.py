"""Every operator that is read, one at a time and in random graphs, against onnxruntime."""
# ruff: noqa: E501 - a case is a line

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import onnx_models

from snn_compile.compiler.onnx.graph import read_onnx
from snn_compile.compiler.onnx.operators import OPERATORS

R = np.random.default_rng(5)
IMAGE = (None, 3, 7, 6)
SIGNAL = (None, 4, 11)
VECTOR = (None, 6)


def n(*shape: int) -> Any:
    return R.normal(size=shape)


def positive(*shape: int) -> Any:
    return R.uniform(0.3, 2.0, shape)


# name: (operator, inputs, attributes, shape of x, constants, opset)
CASES: dict[str, tuple[str, str, dict[str, Any], Any, dict[str, Any], int]] = {
    "gemm": ("Gemm", "x w c", {}, VECTOR, {"w": n(6, 5), "c": n(5)}, 17),
    "gemm transB alpha beta": ("Gemm", "x w c", {"transB": 1, "alpha": 0.7, "beta": -1.3}, VECTOR, {"w": n(5, 6), "c": n(1, 5)}, 13),
    "gemm scalar c": ("Gemm", "x w c", {"beta": 0.5}, VECTOR, {"w": n(6, 5), "c": n()}, 13),
    "gemm without c": ("Gemm", "x w", {}, VECTOR, {"w": n(6, 5)}, 13),
    "gemm of opset 7": ("Gemm", "x w c", {}, VECTOR, {"w": n(6, 5), "c": n(5)}, 7),
    "matmul": ("MatMul", "x w", {}, VECTOR, {"w": n(6, 5)}, 17),
    "matmul over the last axis": ("MatMul", "x w", {}, SIGNAL, {"w": n(11, 3)}, 17),
    "matmul from the left": ("MatMul", "w x", {}, SIGNAL, {"w": n(5, 4)}, 17),
    "add": ("Add", "x b", {}, IMAGE, {"b": n(3, 1, 1)}, 17),
    "add from the left": ("Add", "b x", {}, VECTOR, {"b": n(1, 6)}, 7),
    "add widens": ("Add", "x b", {}, (None, 1, 4), {"b": n(3, 4)}, 17),
    "add itself": ("Add", "x x", {}, IMAGE, {}, 17),
    "sub": ("Sub", "b x", {}, IMAGE, {"b": n(6)}, 17),
    "sum": ("Sum", "x b x", {}, IMAGE, {"b": n(3, 1, 1)}, 17),
    "mul": ("Mul", "x b", {}, IMAGE, {"b": n(3, 1, 1)}, 17),
    "mul widens": ("Mul", "b x", {}, (None, 1, 4), {"b": n(3, 4)}, 17),
    "div": ("Div", "x b", {}, IMAGE, {"b": positive(7, 1)}, 17),
    "neg": ("Neg", "x", {}, VECTOR, {}, 17),
    "conv": ("Conv", "x w b", {}, IMAGE, {"w": n(4, 3, 3, 3), "b": n(4)}, 17),
    "conv without bias": ("Conv", "x w", {}, IMAGE, {"w": n(4, 3, 2, 3)}, 17),
    "conv strides pads": ("Conv", "x w b", {"strides": [2, 3], "pads": [1, 0, 2, 3]}, IMAGE, {"w": n(4, 3, 3, 2), "b": n(4)}, 17),
    "conv pads beyond its kernel": ("Conv", "x w", {"pads": [3, 2, 4, 2]}, IMAGE, {"w": n(2, 3, 2, 1)}, 17),
    "conv dilations": ("Conv", "x w", {"dilations": [2, 3], "pads": [1, 1, 1, 1]}, IMAGE, {"w": n(4, 3, 3, 2)}, 17),
    "conv groups": ("Conv", "x w b", {"group": 3}, IMAGE, {"w": n(6, 1, 3, 3), "b": n(6)}, 17),
    "conv same upper": ("Conv", "x w", {"auto_pad": "SAME_UPPER", "strides": [2, 2]}, IMAGE, {"w": n(4, 3, 4, 3)}, 17),
    "conv same lower": ("Conv", "x w", {"auto_pad": "SAME_LOWER"}, IMAGE, {"w": n(4, 3, 4, 2)}, 17),
    "conv valid": ("Conv", "x w", {"auto_pad": "VALID", "strides": [2, 1]}, IMAGE, {"w": n(4, 3, 3, 3)}, 17),
    "conv transpose": ("ConvTranspose", "x w b", {}, IMAGE, {"w": n(3, 2, 2, 3), "b": n(2)}, 17),
    "conv transpose strides pads": ("ConvTranspose", "x w", {"strides": [2, 3], "pads": [1, 0, 1, 1]}, IMAGE, {"w": n(3, 2, 3, 3)}, 17),
    "conv transpose groups": ("ConvTranspose", "x w", {"group": 3, "output_padding": [1, 1], "strides": [2, 2]}, IMAGE, {"w": n(3, 2, 2, 2)}, 17),
    "conv transpose 1d": ("ConvTranspose", "x w", {"strides": [2]}, SIGNAL, {"w": n(4, 2, 3)}, 17),
    "resize nearest": ("Resize", "x - s", {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}, IMAGE, {"s": np.array([1, 1, 2, 2], np.float32)}, 17),
    "resize linear": ("Resize", "x - s", {"mode": "linear"}, IMAGE, {"s": np.array([1, 1, 2, 1.5], np.float32)}, 17),
    "depth to space": ("DepthToSpace", "x", {"blocksize": 2}, (None, 4, 3, 2), {}, 17),
    "space to depth": ("SpaceToDepth", "x", {"blocksize": 2}, (None, 1, 6, 4), {}, 17),
    "pad reflect": ("Pad", "x p", {"mode": "reflect"}, IMAGE, {"p": np.array([0, 0, 1, 2, 0, 0, 2, 1])}, 17),
    "pad edge": ("Pad", "x p", {"mode": "edge"}, IMAGE, {"p": np.array([0, 0, 1, 0, 0, 0, 0, 3])}, 17),
    "conv 1d": ("Conv", "x w b", {"strides": [2], "pads": [2, 1], "dilations": [2]}, SIGNAL, {"w": n(6, 4, 3), "b": n(6)}, 17),
    "conv 1d groups same": ("Conv", "x w", {"group": 2, "auto_pad": "SAME_LOWER", "strides": [3]}, SIGNAL, {"w": n(6, 2, 4)}, 17),
    "batch normalization": ("BatchNormalization", "x s b m v", {"epsilon": 0.02}, IMAGE, {"s": n(3), "b": n(3), "m": n(3), "v": positive(3)}, 17),
    "batch normalization of vectors": ("BatchNormalization", "x s b m v", {}, VECTOR, {"s": n(6), "b": n(6), "m": n(6), "v": positive(6)}, 9),
    "relu": ("Relu", "x", {}, IMAGE, {}, 17),
    "clip": ("Clip", "x a b", {}, IMAGE, {"a": np.float32(0), "b": np.float32(0.6)}, 17),
    "clip with attributes": ("Clip", "x", {"min": 0.0, "max": 0.5}, IMAGE, {}, 7),
    "clip from below zero": ("Clip", "x a b", {}, IMAGE, {"a": np.float32(-0.4), "b": np.float32(0.7)}, 17),
    "clip from above alone": ("Clip", "x - b", {}, IMAGE, {"b": np.float32(0.3)}, 17),
    "clip from below alone": ("Clip", "x a", {}, IMAGE, {"a": np.float32(0.2)}, 13),
    "average pool": ("AveragePool", "x", {"kernel_shape": [2, 3], "strides": [2, 2]}, IMAGE, {}, 17),
    "average pool pads": ("AveragePool", "x", {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 2, 1, 0]}, IMAGE, {}, 17),
    "average pool counts pads": ("AveragePool", "x", {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1], "count_include_pad": 1}, IMAGE, {}, 17),
    "average pool ceil": ("AveragePool", "x", {"kernel_shape": [2, 3], "strides": [2, 2], "ceil_mode": 1}, IMAGE, {}, 19),
    "average pool ceil pads": ("AveragePool", "x", {"kernel_shape": [3, 3], "strides": [3, 3], "pads": [1, 1, 1, 1], "ceil_mode": 1}, IMAGE, {}, 19),
    "average pool ceil counts pads": ("AveragePool", "x", {"kernel_shape": [3, 3], "strides": [3, 3], "pads": [1, 1, 1, 1], "ceil_mode": 1, "count_include_pad": 1}, IMAGE, {}, 19),
    "average pool dilations": ("AveragePool", "x", {"kernel_shape": [2, 2], "dilations": [2, 3]}, IMAGE, {}, 19),
    "average pool same": ("AveragePool", "x", {"kernel_shape": [3, 2], "strides": [2, 2], "auto_pad": "SAME_UPPER"}, IMAGE, {}, 17),
    "average pool 1d": ("AveragePool", "x", {"kernel_shape": [3], "strides": [2], "pads": [1, 1]}, SIGNAL, {}, 17),
    "global average pool": ("GlobalAveragePool", "x", {}, IMAGE, {}, 17),
    "reduce mean": ("ReduceMean", "x", {"axes": [2, 3], "keepdims": 0}, IMAGE, {}, 17),
    "reduce mean with an input": ("ReduceMean", "x a", {"keepdims": 1}, IMAGE, {"a": np.array([-1])}, 18),
    "reduce sum": ("ReduceSum", "x a", {"keepdims": 0}, IMAGE, {"a": np.array([1])}, 17),
    "flatten": ("Flatten", "x", {}, IMAGE, {}, 17),
    "reshape": ("Reshape", "x s", {}, IMAGE, {"s": np.array([0, 3, -1])}, 17),
    "reshape open batch": ("Reshape", "x s", {}, IMAGE, {"s": np.array([-1, 126])}, 17),
    "squeeze": ("Squeeze", "x a", {}, (None, 1, 5, 1), {"a": np.array([1, 3])}, 17),
    "squeeze with attributes": ("Squeeze", "x", {"axes": [1]}, (None, 1, 5), {}, 11),
    "unsqueeze": ("Unsqueeze", "x a", {}, VECTOR, {"a": np.array([1])}, 17),
    "transpose": ("Transpose", "x", {"perm": [0, 2, 3, 1]}, IMAGE, {}, 17),
    "concat": ("Concat", "x b x", {"axis": 1}, (1, 3, 2), {"b": n(1, 2, 2)}, 17),
    "pad": ("Pad", "x p v", {}, IMAGE, {"p": np.array([0, 1, 0, 2, 0, 0, 1, 3]), "v": np.float32(0.7)}, 17),
    "pad with attributes": ("Pad", "x", {"pads": [0, 0, 1, 2, 0, 0, 0, 1], "value": -0.5}, IMAGE, {}, 7),
    "identity": ("Identity", "x", {}, IMAGE, {}, 17),
    "dropout": ("Dropout", "x", {}, IMAGE, {}, 17),
    "dropout with ratio": ("Dropout", "x r", {}, IMAGE, {"r": np.float32(0.4)}, 13),
    "cast": ("Cast", "x", {"to": 1}, IMAGE, {}, 17),
}  # fmt: skip
POOLED = {
    "max pool": ("MaxPool", {"kernel_shape": [2, 2], "strides": [2, 2]}, IMAGE),
    "max pool overlaps": ("MaxPool", {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}, IMAGE),
    "max pool ceil": ("MaxPool", {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}, IMAGE),
    "max pool dilations": ("MaxPool", {"kernel_shape": [2, 2], "dilations": [2, 2]}, IMAGE),
    "max pool 1d": ("MaxPool", {"kernel_shape": [3], "auto_pad": "SAME_UPPER"}, SIGNAL),
    "global max pool": ("GlobalMaxPool", {}, IMAGE),
}  # fmt: skip


def agrees(model: Any, folder: Path, batch: int = 3, **options: Any) -> None:
    """The folded network in float64 equals onnxruntime to float32 accuracy, on inputs of both signs."""
    path = onnx_models.saved(model, folder)
    network = read_onnx(path, **options)
    inputs = np.random.default_rng(1).normal(size=(batch, *network.input_shape)).astype(np.float32)
    expected = onnx_models.onnxruntime_scores(model, inputs)
    assert expected.std() > 0
    np.testing.assert_allclose(
        network.scores(inputs), expected, rtol=1e-5, atol=2e-6 * np.abs(expected).max()
    )


@pytest.mark.parametrize("case", CASES)
def test_operator_equals_onnxruntime(case: str, tmp_path: Path) -> None:
    kind, inputs, attributes, shape, constants, opset = CASES[case]
    model = onnx_models.model([onnx_models.node(kind, inputs, **attributes)], shape, constants, opset)
    agrees(model, tmp_path, batch=3 if shape[0] is None else 1)


@pytest.mark.parametrize("case", POOLED)
def test_pool_of_maxima_rectified_equals_onnxruntime(case: str, tmp_path: Path) -> None:
    kind, attributes, shape = POOLED[case]
    model = onnx_models.model([onnx_models.node(kind, "x", **attributes)], shape)
    agrees(model, tmp_path, max_pool="rectify")


@pytest.mark.parametrize("kind", ["Softmax", "LogSoftmax"])
@pytest.mark.parametrize("opset", [11, 17])
def test_softmax_at_the_end_is_dropped(kind: str, opset: int, tmp_path: Path) -> None:
    nodes = [onnx_models.node("MatMul", "x w", "z"), onnx_models.node(kind, "z", axis=1)]
    model = onnx_models.model(nodes, VECTOR, {"w": R.normal(size=(6, 4))}, opset)
    network = read_onnx(onnx_models.saved(model, tmp_path))
    inputs = R.normal(size=(5, 6)).astype(np.float32)
    probable = onnx_models.onnxruntime_scores(model, inputs)
    log = probable if kind == "LogSoftmax" else np.log(probable)
    scores = network.scores(inputs)
    np.testing.assert_allclose(np.diff(scores, axis=1), np.diff(log, axis=1), rtol=1e-4, atol=1e-5)
    assert any(kind in note for note in network.notes)


def test_every_operator_of_the_table_has_a_case() -> None:
    tested = {case[0] for case in CASES.values()} | {case[0] for case in POOLED.values()}
    assert set(OPERATORS) <= tested | {"Softmax", "LogSoftmax", "QuantizeLinear", "DequantizeLinear"}


def random_graph(seed: int) -> Any:
    """Return a random convolutional network with residual additions, pools and every kind of rectifier."""
    rng = np.random.default_rng(seed)
    nodes: list[Any] = []
    constants: dict[str, Any] = {}
    count = 0

    def add(kind: str, inputs: str, values: dict[str, Any] | None = None, **attributes: Any) -> str:
        nonlocal count
        count += 1
        names = inputs
        for key, value in (values or {}).items():
            constants[f"{key}{count}"] = value
            names += f" {key}{count}"
        nodes.append(onnx_models.node(kind, names, f"t{count}", **attributes))
        return f"t{count}"

    channels, side, x = 2, 8, "x"
    for _ in range(int(rng.integers(2, 5))):
        choice = rng.choice(["conv", "residual", "pool", "norm"])
        if choice == "conv":
            after = int(rng.integers(2, 5))
            stride = int(rng.integers(1, 3)) if side > 3 else 1
            values = {"w": rng.normal(size=(after, channels, 3, 3)) / 3, "b": rng.normal(size=after) / 3}
            x = add("Conv", x, values, strides=[stride] * 2, pads=[1] * 4)
            channels, side = after, (side - 1) // stride + 1
        elif choice == "residual":
            kernel = {"w": rng.normal(size=(channels, channels, 3, 3)) / 3}
            body = add("Relu", add("Conv", x, kernel, auto_pad="SAME_UPPER"))
            x = add("Add", f"{body} {x}")
        elif choice == "pool" and side > 3:
            x = add("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2])
            side //= 2
        else:
            s, b, m = rng.normal(size=(3, channels))
            x = add("BatchNormalization", x, {"s": s, "b": b, "m": m, "v": rng.uniform(0.5, 2, channels)})
        x = (
            add("Clip", x, {"a": np.float32(0), "c": np.float32(0.8)})
            if rng.random() < 0.5
            else add("Relu", x)
        )
    x = add("GlobalAveragePool", x) if rng.random() < 0.5 else x
    size = channels * (1 if nodes[-1].op_type == "GlobalAveragePool" else side * side)
    x = add("Gemm", add("Flatten", x), {"w": rng.normal(size=(size, 4)), "b": rng.normal(size=4)})
    nodes.append(onnx_models.node("Identity", x))
    return onnx_models.model(nodes, (None, 2, 8, 8), constants)


@pytest.mark.parametrize("seed", range(25))
def test_random_graph_equals_onnxruntime(seed: int, tmp_path: Path) -> None:
    agrees(random_graph(seed), tmp_path)
