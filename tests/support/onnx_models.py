"""ONNX models made by hand, and what onnxruntime says that they compute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 17


def node(kind: str, inputs: str, output: str = "y", **attributes: Any) -> Any:
    """Return a node; `inputs` are names apart by blanks, "-" one that is left out."""
    names = ["" if name == "-" else name for name in inputs.split()]
    return helper.make_node(kind, names, [output], name=f"{kind}_{output}", **attributes)


def model(
    nodes: Sequence[Any],
    shape: Sequence[int | None],
    constants: Mapping[str, Any] | None = None,
    opset: int = OPSET,
) -> onnx.ModelProto:
    """Return a model that reads "x" of `shape` (None: size left open) and writes "y"; floats are float32."""
    arrays = {name: np.asarray(value) for name, value in (constants or {}).items()}
    tensors = [
        numpy_helper.from_array(a.astype(np.float32) if a.dtype == np.float64 else a, name)
        for name, a in arrays.items()
    ]
    dims = ["batch" if d is None else d for d in shape]
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, dims)
    # onnx wants a shape of the output, and an output may have any number of axes: the shape is inferred.
    rank = 1
    while True:
        made = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * rank)
        graph = helper.make_graph(list(nodes), "made", [given], [made], tensors)
        whole = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
        try:
            return onnx.shape_inference.infer_shapes(whole, strict_mode=True, data_prop=True)
        except onnx.shape_inference.InferenceError:
            rank += 1
            if rank > 5:
                raise


def saved(made: onnx.ModelProto, folder: Path, name: str = "model.onnx") -> Path:
    """Write a model and return its path."""
    path = folder / name
    path.write_bytes(made.SerializeToString())
    return path


def onnxruntime_scores(made: onnx.ModelProto, inputs: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return the output of onnxruntime, (batch, outputs)."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    # Beyond the basic ones, a product with integer weights takes activations of 8 bits.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    session = onnxruntime.InferenceSession(
        made.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    out = session.run(None, {"x": inputs.astype(np.float32)})[0]
    return np.asarray(out, np.float64).reshape(len(inputs), -1)
