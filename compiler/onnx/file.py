"""Reader of `.onnx` files: one checked protobuf message, with shapes inferred by onnx for a batch of one.

Only the file itself is read: weights in other files are refused. No code in it is executed.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from snn_compile.compiler.onnx.relu_network import VALUES_MAX
from snn_compile.targets.errors import CompileError, one_line

BYTES_MAX = 1 << 28
"""Largest file that is read; a chip holds 24 MB."""

OPSETS = (7, 26)
"""Versions of the standard operators that are read; 7 is the first with NumPy's broadcasting."""


@dataclass(frozen=True, eq=False)
class Node:
    """One node: its operator, the names it reads and writes ("" where left out), its attributes."""

    name: str
    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    proto: Any


@dataclass(frozen=True, eq=False)
class OnnxModel:
    """A checked model: its nodes in order, its constants, and the shapes of values where known.

    Shapes are for a batch of one; `input_shape` has its leading 1.
    """

    name: str
    opset: int
    input_name: str
    input_shape: tuple[int, ...]
    output_name: str
    nodes: tuple[Node, ...]
    constants: Mapping[str, npt.NDArray[Any]]
    shapes: Mapping[str, tuple[int, ...]]
    data: bytes
    digest: str


def read_model(path: str | os.PathLike[str]) -> OnnxModel:
    """Return the model in a file; raises CompileError, naming file and node, if it cannot be used."""
    import onnx

    file = Path(path)
    if not file.is_file():
        raise CompileError(f"no file at {file}", path=str(file))
    size = file.stat().st_size
    if size > BYTES_MAX:
        raise CompileError(f"{file} has {size:,} bytes, more than {BYTES_MAX:,}", path=str(file))
    data = file.read_bytes()
    try:
        proto = onnx.load_model_from_string(data)
    except Exception as error:  # whatever protobuf stumbles over
        raise CompileError(
            f"{file} cannot be read as an ONNX model ({one_line(error)})", path=str(file)
        ) from error
    try:
        return _model(file, proto, data)
    except CompileError as error:
        raise CompileError(f"{file}: {error}", path=str(file), **error.facts) from error


def _model(file: Path, proto: Any, data: bytes) -> OnnxModel:
    import onnx

    graph = proto.graph
    if not graph.node:
        raise CompileError("not an ONNX model, or one without nodes")
    opset = _opset(proto)
    _refuse_parts(proto)
    constants = {t.name: _array(t, f"initializer {t.name!r}") for t in graph.initializer}
    name, shape = _one_input(graph, constants)
    if len(graph.output) != 1:
        names = ", ".join(repr(o.name) for o in graph.output)
        raise CompileError(f"{len(graph.output)} outputs ({names}); a model with one is converted")
    try:
        onnx.checker.check_model(proto)
    except Exception as error:  # onnx raises errors of its own and of protobuf
        raise CompileError(f"onnx refuses it ({one_line(error)})") from error
    single = onnx.ModelProto()
    single.CopyFrom(proto)
    batch = next(i for i in single.graph.input if i.name == name).type.tensor_type.shape.dim[0]
    batch.Clear()
    batch.dim_value = 1
    for output in single.graph.output:  # what a file declares of them holds for its own batch size
        output.type.tensor_type.ClearField("shape")
    del single.graph.value_info[:]
    shapes = _shapes(single)
    nodes = tuple(_node(n, i) for i, n in enumerate(graph.node))
    return OnnxModel(
        file.name, opset, name, shape, graph.output[0].name, nodes, constants, shapes, data,
        hashlib.sha256(data).hexdigest(),
    )  # fmt: skip


def _opset(proto: Any) -> int:
    versions = {o.domain: o.version for o in proto.opset_import}
    opset = versions.get("", versions.get("ai.onnx"))
    low, high = OPSETS
    if opset is None or not low <= opset <= high:
        found = "no opset" if opset is None else f"opset {opset}"
        raise CompileError(
            f"{found} of the standard operators; {low} to {high} are read (see onnx.version_converter)",
            opset=opset,
        )
    return int(opset)


def _refuse_parts(proto: Any) -> None:
    """Refuse custom operators, and data outside the file."""
    for node in proto.graph.node:
        where = node_name(node)
        if node.domain not in ("", "ai.onnx"):
            raise CompileError(
                f"node {where!r}: operator {node.domain}.{node.op_type} is not a standard one", node=where
            )
        for attribute in node.attribute:
            if attribute.HasField("g") or attribute.graphs:
                raise CompileError(
                    f"node {where!r}: {node.op_type} has a graph inside; control flow is not converted",
                    node=where,
                )
    if proto.functions or proto.graph.sparse_initializer or proto.training_info:
        raise CompileError("model-local functions, sparse initializers and training graphs are not read")


def _one_input(graph: Any, constants: Mapping[str, Any]) -> tuple[str, tuple[int, ...]]:
    inputs = [i for i in graph.input if i.name not in constants]
    if len(inputs) != 1:
        names = ", ".join(repr(i.name) for i in inputs) or "none"
        raise CompileError(f"{len(inputs)} inputs ({names}); a model with one is converted")
    kind = inputs[0].type.tensor_type
    dims = [d.dim_value if d.HasField("dim_value") else None for d in kind.shape.dim]
    name = inputs[0].name
    if len(dims) < 2 or dims[0] not in (None, 1) or any(d is None or d < 1 for d in dims[1:]):
        raise CompileError(
            f"input {name!r} has shape {['?' if d is None else d for d in dims]}; expected (batch, *shape) "
            "with the batch size left open or 1 and the rest known",
            node=name,
        )
    shape = (1, *(int(d) for d in dims[1:] if d is not None))
    if prod(shape) > VALUES_MAX:
        raise CompileError(f"input {name!r} has {prod(shape):,} values, more than {VALUES_MAX:,}", node=name)
    return name, shape


def _array(tensor: Any, where: str) -> npt.NDArray[Any]:
    """Return a tensor of the file; raises CompileError if it is elsewhere, damaged or not finite."""
    import onnx

    if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
        raise CompileError(
            f"{where} is in another file; only one file is read: save the model with its weights inside",
            node=tensor.name,
        )
    if any(d < 0 for d in tensor.dims) or prod(tensor.dims) > BYTES_MAX:
        raise CompileError(f"{where} declares the shape {list(tensor.dims)}", node=tensor.name)
    try:
        array: npt.NDArray[Any] = onnx.numpy_helper.to_array(tensor)
    except Exception as error:
        raise CompileError(f"{where} cannot be read ({one_line(error)})", node=tensor.name) from error
    if array.dtype.kind not in "fiub":
        raise CompileError(f"{where} is of type {array.dtype}; numbers are read", node=tensor.name)
    if not np.isfinite(array).all():
        raise CompileError(f"{where} holds a value that is not finite", node=tensor.name)
    return array


def _shapes(model: Any) -> dict[str, tuple[int, ...]]:
    import onnx

    try:
        inferred = onnx.shape_inference.infer_shapes(model, True, True, True)
    except Exception as error:  # as above
        raise CompileError(f"onnx cannot infer its shapes ({one_line(error)})") from error
    found = {}
    for value in (*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output):
        kind = value.type.tensor_type
        dims = [d.dim_value if d.HasField("dim_value") else -1 for d in kind.shape.dim]
        if kind.HasField("shape") and min(dims, default=1) >= 0:
            found[value.name] = tuple(dims)
    return found


def _node(proto: Any, index: int) -> Node:
    import onnx

    name = node_name(proto) or f"{proto.op_type}.{index}"
    attributes = {}
    for a in proto.attribute:
        value = onnx.helper.get_attribute_value(a)
        if isinstance(value, onnx.TensorProto):
            value = _array(value, f"node {name!r}: attribute {a.name!r}")
        attributes[a.name] = value.decode("utf8", "replace") if isinstance(value, bytes) else value
    return Node(name, proto.op_type, tuple(proto.input), tuple(proto.output), attributes, proto)


def node_name(proto: Any) -> str:
    """Return a node's name in messages: its own, or that of its output."""
    return str(proto.name or next(iter(proto.output), ""))
