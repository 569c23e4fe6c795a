"""Files that are damaged, or hold what is not converted: one clear line, naming file and node."""
# ruff: noqa: E501 - a case is a line

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from support import onnx_models

from snn_compile.compiler import compile_graph, lower
from snn_compile.compiler.onnx.graph import read_onnx
from snn_compile.targets.errors import CompileError, UnsupportedNode

W = np.arange(12, dtype=np.float32).reshape(3, 4) / 10
IMAGE = (None, 2, 5, 5)


def good() -> Any:
    """Return a model of two layers."""
    nodes = [
        onnx_models.node("Gemm", "x w", "a"),
        onnx_models.node("Relu", "a", "r"),
        onnx_models.node("MatMul", "r v"),
    ]
    return onnx_models.model(nodes, (None, 3), {"w": W, "v": W.T})


def changed(change: Callable[[Any], None]) -> Callable[[Any], Any]:
    def build() -> Any:
        model = good()
        change(model)
        return model

    return build


def one(
    kind: str, inputs: str = "x", shape: Any = IMAGE, constants: Any = None, opset: int = 17, **items: Any
):
    """Return a function that builds a model of one node, valid or not."""

    def build() -> Any:
        model = onnx_models.model([onnx_models.node("Identity", "x")], shape, constants, opset)
        model.graph.node[0].CopyFrom(onnx_models.node(kind, inputs, **items))
        model.graph.output[0].type.tensor_type.shape.Clear()
        for _ in shape:
            model.graph.output[0].type.tensor_type.shape.dim.add()
        return model

    return build


def external(model: Any) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="secret.bin")


def with_nan(model: Any) -> None:
    model.graph.initializer[0].raw_data = np.full((3, 4), np.nan, np.float32).tobytes()


def branch(model: Any) -> None:
    inner = helper.make_graph([], "inner", [], [])
    model.graph.node[0].CopyFrom(
        helper.make_node("If", ["x"], ["a"], name="choice", then_branch=inner, else_branch=inner)
    )


def second_input(model: Any) -> None:
    model.graph.input.add().CopyFrom(helper.make_tensor_value_info("z", 1, [1, 3]))


def second_output(model: Any) -> None:
    model.graph.output.add().CopyFrom(helper.make_tensor_value_info("a", 1, [None, 4]))


def dims(*sizes: int | str) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        model.graph.input[0].CopyFrom(helper.make_tensor_value_info("x", 1, list(sizes)))

    return change


def swapped(model: Any) -> None:
    nodes = list(model.graph.node)[::-1]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def opset(version: int) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        model.opset_import[0].version = version

    return change


def attribute(index: int, **items: Any) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        for key, value in items.items():
            setattr(model.graph.node[index], key, value)

    return change


S = {k: np.ones(2, np.float32) for k in "sbmv"}
KERNEL = {"w": np.ones((2, 2, 3, 3), np.float32)}
# name: (builder, the message)
CASES: dict[str, tuple[Callable[[Any], Any], str]] = {
    "weights in another file": (changed(external), "'w' is in another file"),
    "not a number among the weights": (changed(with_nan), "'w' holds a value that is not finite"),
    "fewer bytes than its shape": (changed(lambda m: setattr(m.graph.initializer[0], "raw_data", b"\0" * 8)), "'w'"),
    "a shape of a terabyte": (changed(lambda m: m.graph.initializer[0].dims.append(1 << 40)), "'w' declares"),
    "a negative shape": (changed(lambda m: m.graph.initializer[0].dims.append(-1)), "'w'"),
    "text as weights": (changed(lambda m: m.graph.initializer[0].CopyFrom(
        helper.make_tensor("w", TensorProto.STRING, [3, 4], [b"a"] * 12))), "'w'"),
    "no nodes": (changed(lambda m: m.graph.ClearField("node")), "without nodes"),
    "an opset too old": (changed(opset(6)), "opset 6"),
    "an opset too new": (changed(opset(999)), "opset 999"),
    "no opset": (changed(lambda m: m.ClearField("opset_import")), "no opset"),
    "an operator of another domain": (changed(attribute(1, domain="com.example")), "com.example"),
    "an unknown operator": (changed(attribute(1, op_type="Frobnicate")), "Frobnicate"),
    "control flow": (changed(branch), "'choice'.*graph inside"),
    "a function": (changed(lambda m: m.functions.add(name="f", domain="")), "functions"),
    "two inputs": (changed(second_input), "2 inputs"),
    "two outputs": (changed(second_output), "2 outputs"),
    "no input": (changed(lambda m: m.graph.ClearField("input")), "0 inputs"),
    "a batch of four": (changed(dims(4, 3)), "expected .batch"),
    "an open shape": (changed(dims("n", "m")), "expected .batch"),
    "a huge input": (changed(dims(1, 1 << 30)), "values"),
    "nodes out of order": (changed(swapped), "onnx refuses"),
    "a name that nobody writes": (changed(lambda m: m.graph.node[1].input.__setitem__(0, "ghost")), "ghost"),
    "two nodes of one output": (changed(lambda m: m.graph.node[1].output.__setitem__(0, "a")), "onnx refuses"),
    "an output that nobody writes": (changed(lambda m: setattr(m.graph.output[0], "name", "ghost")), "ghost"),
    "shapes that do not fit": (changed(dims(1, 5)), "infer|multiplies"),
    "an output without the input": (one("Identity", "k", constants={"k": np.ones((1, 2, 5, 5), np.float32)}), "does not depend"),
    "sigmoid": (one("Sigmoid"), "Sigmoid_y.*not converted"),
    "a product of activations": (one("Mul", "x x"), "Mul_y.*constant"),
    "a matrix of activations": (one("MatMul", "x x"), "MatMul_y.*constant"),
    "division by activations": (one("Div", "x x"), "Div_y.*constant"),
    "division by zero": (one("Div", "x k", constants={"k": np.zeros(1, np.float32)}), "divides by 0"),
    "a pool of maxima": (one("MaxPool", kernel_shape=[2, 2]), "MaxPool_y.*--max-pool rectify"),
    "a transposed batch": (one("Transpose", perm=[1, 0, 2, 3]), "batch axis"),
    "a reduced batch": (one("ReduceMean", axes=[0, 2], keepdims=1), "batch axis"),
    "a reshaped batch": (one("Reshape", "x s", constants={"s": np.array([2, 25])}), "stay the batch"),
    "flattened with its batch": (one("Flatten", axis=0), "mixes the samples"),
    "a batch joined to itself": (one("Concat", "x x", axis=0), "batch axis"),
    "batch statistics": (one("BatchNormalization", "x s b m v", constants=S, training_mode=1), "training mode|outputs|infer"),
    "negative variances": (one("BatchNormalization", "x s b m v", constants={**S, "v": -S["v"]}), "variance"),
    "softmax over pixels": (one("Softmax", axis=3), "over all outputs"),
    "softmax in the middle": (changed(attribute(1, op_type="Softmax")), "only at the end"),
    "a clip of nothing": (one("Clip", "x a b", constants={"a": np.float32(2), "b": np.float32(1)}), "bounds 2 and 1"),
    "a clip of its own input": (one("Clip", "x x"), "Clip_y|infer"),
    "negative pads": (one("Conv", "x w", constants=KERNEL, pads=[-1, 0, 0, 0]), "pads|infer"),
    "enormous pads": (one("Conv", "x w", constants=KERNEL, pads=[1 << 40] * 4), "pads"),
    "three pads": (one("Conv", "x w", constants=KERNEL, pads=[1, 1, 1]), "pads|infer"),
    "strides of zero": (one("Conv", "x w", constants=KERNEL, strides=[0, 1]), "strides|infer"),
    "an unknown auto_pad": (one("Conv", "x w", constants=KERNEL, auto_pad="SOME"), "auto_pad"),
    "groups that do not fit": (one("Conv", "x w", constants=KERNEL, group=3), "group"),
    "a kernel larger than its image": (one("Conv", "x w", constants={"w": np.ones((2, 2, 9, 9), np.float32)}), "Conv_y|infer"),
    "three spatial axes": (one("Conv", "x w", (None, 1, 3, 3, 3), {"w": np.ones((1, 1, 2, 2, 2), np.float32)}), "one or two spatial axes"),
    "a transposed kernel of another rank": (one("ConvTranspose", "x w", constants={"w": np.ones((3, 2, 2))}), "with a kernel|infer"),
    "a transposed convolution of a stated shape": (one("ConvTranspose", "x w", constants={"w": np.ones((3, 2, 2, 2))}, output_shape=[9, 9]), "output_shape"),
    "dropout in training": (one("Dropout", "x r t", constants={"r": np.float32(0.5), "t": np.array(True)}), "training mode"),
    "activations as integers": (one("Cast", to=7), "integers|infer"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_broken_file_is_one_clear_error(case: str, tmp_path: Path) -> None:
    build, says = CASES[case]
    path = onnx_models.saved(build(), tmp_path, "broken.onnx")
    with pytest.raises(CompileError, match=says) as caught:
        read_onnx(path)
    text = str(caught.value)
    assert "\n" not in text and text.startswith(f"{path}: ") and len(text) < 900


def test_files_that_are_no_model(tmp_path: Path) -> None:
    whole = good().SerializeToString()
    contents = {
        "empty": b"",
        "text": b"not a model at all",
        "zeros": bytes(300),
        "cut": whole[: len(whole) // 2],
    }
    for name, content in contents.items():
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(content)
        with pytest.raises(CompileError, match=name):
            read_onnx(path)
    for path in (tmp_path, tmp_path / "nowhere.onnx"):
        with pytest.raises(CompileError, match="no file"):
            read_onnx(path)


def test_a_file_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = onnx_models.saved(good(), tmp_path)
    monkeypatch.setattr("snn_compile.compiler.onnx.file.BYTES_MAX", os.path.getsize(path) - 1)
    with pytest.raises(CompileError, match="bytes, more than"):
        read_onnx(path)


def test_no_other_file_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights' file exists and would be read by onnx.load."""
    model = good()
    weights = model.graph.initializer[0].raw_data
    (tmp_path / "secret.bin").write_bytes(weights)
    external(model)
    path = onnx_models.saved(model, tmp_path)
    assert onnx.load(path).graph.initializer[0].raw_data == weights
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CompileError, match="another file"):
        read_onnx(path)


def test_damaged_bytes_never_raise_anything_else(tmp_path: Path) -> None:
    whole = np.frombuffer(good().SerializeToString(), np.uint8)
    rng = np.random.default_rng(0)
    path = tmp_path / "damaged.onnx"
    refused = 0
    for _ in range(400):
        bytes_ = whole.copy()
        where = rng.integers(0, len(bytes_), int(rng.integers(1, 4)))
        bytes_[where] = rng.integers(0, 256, len(where))
        path.write_bytes(bytes_[: int(rng.integers(1, len(bytes_) + 1))] if rng.random() < 0.1 else bytes_)
        try:
            read_onnx(path)
        except CompileError:
            refused += 1
    assert refused > 100


def test_an_unsupported_operator_says_which_are(tmp_path: Path) -> None:
    path = onnx_models.saved(one("Tanh")(), tmp_path)
    with pytest.raises(UnsupportedNode, match="AveragePool") as caught:
        read_onnx(path)
    assert caught.value.facts["node"] == "Tanh_y" and caught.value.facts["type"] == "Tanh"


def test_a_model_that_was_not_converted_is_not_lowered(tmp_path: Path) -> None:
    path = onnx_models.saved(good(), tmp_path)
    for use in (lower, compile_graph):
        with pytest.raises(CompileError, match="calibration data"):
            use(path)


def test_max_pool_has_three_words(tmp_path: Path) -> None:
    with pytest.raises(CompileError, match="rectify"):
        read_onnx(onnx_models.saved(good(), tmp_path), max_pool="largest")
