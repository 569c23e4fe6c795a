"""Quantized ONNX models: integer weights as onnxruntime reads them, ranges of activations as clips."""
# ruff: noqa: E501 - a case is a line

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from support import onnx_models

from snn_compile.compiler.onnx.graph import read_onnx
from snn_compile.compiler.onnx.relu_network import RectifierNetwork
from snn_compile.targets.errors import CompileError


class Graph:
    """Nodes and constants that are added one after the other."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng, self.nodes, self.constants, self.count = rng, [], {}, 0

    def add(self, kind: str, inputs: str, output: str = "", **attributes: Any) -> str:
        self.count += 1
        name = output or f"t{self.count}"
        self.nodes.append(onnx_models.node(kind, inputs, name, **attributes))
        return name

    def keep(self, value: Any) -> str:
        self.count += 1
        self.constants[f"k{self.count}"] = value
        return f"k{self.count}"

    def integers(
        self, values: np.ndarray, dtype: str, axis: int | None, zeros: bool
    ) -> tuple[str, np.ndarray]:
        """Add values as integers behind DequantizeLinear; return its output, and the values that it gives."""
        ends, lanes = np.iinfo(dtype), 1 if axis is None else values.shape[axis]
        there = [1] * values.ndim
        if axis is not None:
            there[axis] = lanes
        span = min(ends.max - ends.min, 1 << 20)
        scale = (np.abs(values).max() / span * 2 * self.rng.uniform(0.8, 2, lanes)).astype(np.float32)
        zero = self.rng.integers(ends.min // 4, ends.max // 4 + 1, lanes) if zeros else np.zeros(lanes, int)
        if ends.min == 0:
            zero = np.full(lanes, ends.max // 2 + 1)
        steps, offsets = scale.reshape(there), zero.reshape(there)
        q = np.clip(np.rint(values / steps) + offsets, ends.min, ends.max).astype(dtype)
        if axis is None and self.rng.random() < 0.5:
            scale, zero = scale.reshape(()), zero.reshape(())
        names = f"{self.keep(q)} {self.keep(scale)}"
        if zeros or ends.min == 0:
            names += f" {self.keep(zero.astype(dtype))}"
        attributes = {} if axis is None else {"axis": axis}
        exact = ((q.astype(np.int64) - offsets).astype(np.float32) * steps).astype(np.float32)
        return self.add("DequantizeLinear", names, **attributes), exact

    def pair(self, x: str, scale: float, zero: int, dtype: str) -> str:
        """Add QuantizeLinear and DequantizeLinear around activations."""
        names = f"{self.keep(np.float32(scale))} {self.keep(np.dtype(dtype).type(zero))}"
        q = self.add("QuantizeLinear", f"{x} {names}")
        return self.add("DequantizeLinear", f"{q} {names}")


def loaded(model: Any, folder: Path) -> RectifierNetwork:
    return read_onnx(onnx_models.saved(model, folder))


@pytest.mark.parametrize("seed", range(40))
def test_integer_weights_equal_onnxruntime(seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    g, x, channels = Graph(rng), "x", 3
    for _ in range(int(rng.integers(1, 3))):
        after = int(rng.integers(2, 5))
        dtype = str(rng.choice(["int8", "uint8"]))
        axis = 0 if rng.random() < 0.6 else None
        w, _ = g.integers(rng.normal(size=(after, channels, 3, 3)) / 3, dtype, axis, rng.random() < 0.3)
        b, _ = g.integers(rng.normal(size=after) / 3, "int32", 0 if rng.random() < 0.5 else None, False)
        x, channels = g.add("Relu", g.add("Conv", f"{x} {w} {b}", pads=[1] * 4)), after
    transposed = bool(rng.random() < 0.5)
    shape = (4, channels * 30) if transposed else (channels * 30, 4)
    axis = None if rng.random() < 0.4 else int(rng.integers(-2, 2))
    w, _ = g.integers(rng.normal(size=shape) / 5, "int8", axis, bool(rng.random() < 0.3))
    b, _ = g.integers(rng.normal(size=4), "int32", None, False)
    g.add("Gemm", f"{g.add('Flatten', x)} {w} {b}", "y", transB=int(transposed))
    model = onnx_models.model(g.nodes, (None, 3, 5, 6), g.constants, int(rng.choice([13, 17, 21])))
    inputs = rng.normal(size=(4, 3, 5, 6)).astype(np.float32)
    wanted = onnx_models.onnxruntime_scores(model, inputs)
    network = loaded(model, tmp_path)
    assert wanted.std() > 0 and not network.notes
    np.testing.assert_allclose(network.scores(inputs), wanted, rtol=1e-5, atol=3e-6 * np.abs(wanted).max())


def quantized_mlp(seed: int) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, int]:
    """Return a model with quantized weights and activations, inputs, what it gives with clips alone, a bound
    of what its rounding changes, and the number of its pairs.
    """
    rng = np.random.default_rng(seed)
    g, pairs = Graph(rng), 0
    sizes = [int(n) for n in rng.integers(3, 9, int(rng.integers(3, 5)))]
    inputs = rng.uniform(-1, 1, (6, sizes[0])).astype(np.float32)
    value, error, x = inputs.astype(np.float64), np.zeros(sizes[0]), "x"

    def span(values: np.ndarray, signed: bool, share: float = 1.0) -> tuple[float, int, str]:
        """Return scale, zero point and type of a range of activations that holds `share` of the largest."""
        dtype = str(rng.choice(["int8", "uint8"]))
        top = float(np.abs(values).max()) * share * 1.02 + 1e-3
        scale = float(np.float32(top / (127 if signed else 255)))
        return scale, (0 if dtype == "int8" else 128) if signed else np.iinfo(dtype).min, dtype

    def bounds(scale: float, zero: int, dtype: str) -> tuple[float, float]:
        return (np.iinfo(dtype).min - zero) * scale, (np.iinfo(dtype).max - zero) * scale

    if rng.random() < 0.7:
        form = span(value, True, 1.3)
        x, pairs, error = g.pair(x, *form), pairs + 1, error + form[0] / 2
    for index, (before, after) in enumerate(zip(sizes[:-1], sizes[1:], strict=True)):
        w, exact = g.integers(rng.normal(size=(before, after)) / np.sqrt(before), "int8", 1, False)
        b, bias = g.integers(rng.normal(size=after) / 3, "int32", None, False)
        x = g.add("Gemm", f"{x} {w} {b}")
        value, error = value @ exact + bias, error @ np.abs(exact)
        if index == len(sizes) - 2:
            break
        kind = int(rng.integers(0, 4))
        if kind == 0:  # the rectifier is the range's own lower end
            form = span(value, False, 0.7)
            x, value = g.pair(x, *form), np.clip(value, *bounds(*form))
        elif kind == 1:  # a signed range before the rectifier
            form = span(value, True, 0.7)
            x = g.add("Relu", g.pair(x, *form))
            value = np.clip(value, 0, bounds(*form)[1])
        else:
            x, form = g.add("Relu", x), span(value, kind == 2, 0.7)
            value = np.clip(np.maximum(value, 0), *bounds(*form))
            x = g.pair(x, *form) if kind == 2 else g.add("Transpose", g.add("Transpose", g.pair(x, *form)))
            if kind == 3:
                g.nodes[-2].attribute.extend([onnx.helper.make_attribute("perm", [0, 1])])
                g.nodes[-1].attribute.extend([onnx.helper.make_attribute("perm", [0, 1])])
        pairs, error = pairs + 1, error + form[0] / 2
    if rng.random() < 0.5:
        form = span(value, True, 1.5)
        x, pairs, error = g.pair(x, *form), pairs + 1, error + form[0] / 2
    g.add("Identity", x, "y")
    return onnx_models.model(g.nodes, (None, sizes[0]), g.constants), inputs, value, error, pairs


@pytest.mark.parametrize("seed", range(60))
def test_activations_are_clipped_and_not_rounded(seed: int, tmp_path: Path) -> None:
    model, inputs, clipped, error, pairs = quantized_mlp(seed)
    network = loaded(model, tmp_path)
    scores = network.scores(inputs)
    np.testing.assert_allclose(scores, clipped, rtol=1e-6, atol=1e-6)
    wanted = onnx_models.onnxruntime_scores(model, inputs)
    assert (np.abs(scores - wanted) <= error + 1e-4).all()
    assert [f"{pairs} QuantizeLinear" in line for line in network.notes] == [True] * bool(pairs)


def test_ranges_bound_neurons_and_cost_none(tmp_path: Path) -> None:
    bounded = 0
    for seed in range(60):
        model, inputs, _, _, _ = quantized_mlp(seed)
        network = loaded(model, tmp_path)
        kinds = [node.op_type for node in model.graph.node]
        assert len(network.layers) == kinds.count("Gemm") - 1, seed
        bounded += sum(np.isfinite(layer.ceiling) for layer in network.layers)
    assert bounded > 60


def test_places_may_move_between_the_two(tmp_path: Path) -> None:
    g = Graph(np.random.default_rng(0))
    names = f"{g.keep(np.float32(0.01))} {g.keep(np.uint8(0))}"
    q = g.add("QuantizeLinear", f"{g.add('Relu', 'x')} {names}")
    moved = g.add("Flatten", g.add("Transpose", q, perm=[0, 2, 1]))
    d = g.add("DequantizeLinear", f"{moved} {names}")
    g.add("MatMul", f"{d} {g.keep(np.random.default_rng(1).normal(size=(12, 3)))}", "y")
    model = onnx_models.model(g.nodes, (None, 3, 4), g.constants)
    inputs = (np.random.default_rng(2).integers(-100, 400, (5, 3, 4)) / 100).astype(np.float32)
    network = loaded(model, tmp_path)
    wanted = onnx_models.onnxruntime_scores(model, inputs)
    np.testing.assert_allclose(network.scores(inputs), wanted, rtol=1e-4, atol=1e-4)
    assert [layer.ceiling for layer in network.layers] == [pytest.approx(2.55)]


def test_the_files_of_onnxruntimes_quantizer(tmp_path: Path) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    rng, node = np.random.default_rng(0), onnx_models.node
    nodes = [
        node("Conv", "x k kb", "a", pads=[1] * 4),
        node("Relu", "a", "r"),
        node("AveragePool", "r", "p", kernel_shape=[2, 2], strides=[2, 2]),
        node("Flatten", "p", "f"),
        node("Gemm", "f w wb", "g"),
        node("Relu", "g", "h"),
        node("Gemm", "h v vb", "y"),
    ]
    shapes = {"k": (4, 1, 3, 3), "kb": (4,), "w": (36, 7), "wb": (7,), "v": (7, 3), "vb": (3,)}
    constants = {name: rng.normal(size=shape) / 2 for name, shape in shapes.items()}
    plain = onnx_models.saved(onnx_models.model(nodes, (None, 1, 6, 6), constants), tmp_path, "plain.onnx")
    data = rng.uniform(0, 1, (50, 1, 6, 6)).astype(np.float32)

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = iter({"x": data[i : i + 1]} for i in range(len(data)))

        def get_next(self) -> Any:
            return next(self.left, None)

    wanted = read_onnx(plain).scores(data)
    for activation, weight, channels in (
        ("QUInt8", "QInt8", True),
        ("QInt8", "QInt8", False),
        ("QUInt8", "QUInt8", False),
    ):
        path = tmp_path / f"{activation}-{weight}.onnx"
        quantize_static(
            str(plain), str(path), Reader(), quant_format=QuantFormat.QDQ, per_channel=channels,
            activation_type=getattr(QuantType, activation), weight_type=getattr(QuantType, weight),
        )  # fmt: skip
        network = read_onnx(path)
        assert len(network.layers) == 2  # those of the plain model
        scores, runtime = network.scores(data), onnx_models.onnxruntime_scores(onnx.load(path), data)
        spread = wanted.std()
        assert np.abs(scores - runtime).mean() < 0.03 * spread > np.abs(scores - wanted).mean()


def test_constants_that_are_quantized_in_the_file(tmp_path: Path) -> None:
    g, rng = Graph(np.random.default_rng(0)), np.random.default_rng(3)
    form = f"{g.keep(np.full(3, 0.02, np.float32))} {g.keep(np.zeros(3, np.int8))}"
    q = g.add("QuantizeLinear", f"{g.keep(rng.normal(size=(6, 3)))} {form}", axis=1)
    g.add("MatMul", f"x {g.add('DequantizeLinear', f'{q} {form}', axis=1)}", "y")
    model = onnx_models.model(g.nodes, (None, 6), g.constants)
    inputs = rng.normal(size=(5, 6)).astype(np.float32)
    wanted = onnx_models.onnxruntime_scores(model, inputs)
    np.testing.assert_allclose(loaded(model, tmp_path).scores(inputs), wanted, rtol=1e-5, atol=1e-5)


Q, S, Z = np.arange(24, dtype=np.int8).reshape(6, 4), np.full(4, 0.1, np.float32), np.zeros(4, np.int8)
STEP, ZERO = np.float32(0.1), np.uint8(3)


def weights(q: Any = Q, s: Any = S, z: Any = Z, **attributes: Any) -> Any:
    """Return a model of a product with integer weights, valid or not; None leaves an input out."""
    given = {name: value for name, value in (("q", q), ("s", s), ("z", z)) if value is not None}
    nodes = [
        onnx_models.node("DequantizeLinear", " ".join(given), "d", **{"axis": 1} | attributes),
        onnx_models.node("MatMul", "x d"),
    ]
    return _unchecked(nodes, given)


def activations(written: dict[str, Any], read: dict[str, Any], between: Any = None, **attributes: Any) -> Any:
    """Return a model of a pair around activations; `written` and `read` hold scale and zero point of each."""
    given = {f"w{k}": v for k, v in written.items()} | {f"r{k}": v for k, v in read.items()}
    names = [" ".join(name for name in given if name[0] == letter) for letter in "wr"]
    nodes = [onnx_models.node("QuantizeLinear", f"x {names[0]}", "q", **attributes)]
    if between is not None:
        nodes.append(between)
    last = onnx_models.node("DequantizeLinear", f"{'q' if between is None else 'b'} {names[1]}")
    return _unchecked([*nodes, last], given)


def _unchecked(nodes: list[Any], constants: dict[str, Any]) -> Any:
    """Return a model whose nodes need not fit each other."""
    made = onnx_models.model([onnx_models.node("Identity", "x")], (None, 6), {}, 21)
    del made.graph.node[:]
    made.graph.node.extend(nodes)
    for name, value in constants.items():
        tensor = value if isinstance(value, onnx.TensorProto) else onnx.numpy_helper.from_array(value, name)
        made.graph.initializer.append(tensor)
    made.graph.output[0].type.tensor_type.ClearField("shape")
    made.graph.output[0].type.tensor_type.shape.dim.add()
    made.graph.output[0].type.tensor_type.shape.dim.add()
    return made


def _tensor(name: str, kind: int, shape: list[int]) -> Any:
    return onnx.helper.make_tensor(name, kind, shape, [1] * int(np.prod(shape)))


KINDS = onnx.TensorProto
PAIR = {"s": STEP, "z": ZERO}
BROKEN: dict[str, tuple[Any, str]] = {
    "weights of int4": (weights(_tensor("q", KINDS.INT4, [6, 4]), z=None), "'q' is of type int4"),
    "weights of uint4": (weights(_tensor("q", KINDS.UINT4, [6, 4]), z=None), "'q' is of type uint4"),
    "weights of float8": (weights(_tensor("q", KINDS.FLOAT8E4M3FN, [6, 4]), z=None), "'q' is of type float8"),
    "weights that are no integers": (weights(Q.astype(np.float32), z=None), "onnx|of float32"),
    "a scale of zero": (weights(s=np.float32([0.1, 0, 0.1, 0.1])), "d'.* a scale of 0; positive"),
    "a negative scale": (weights(s=-S), "a scale of -0.1"),
    "a scale of NaN": (weights(s=S * np.float32(np.nan)), "'s' holds a value that is not finite"),
    "an integer scale": (weights(s=np.ones(4, np.int32)), "onnx|infer"),
    "scales of another number": (weights(s=S[:3], z=Z[:3]), "3 scales for axis 1|infer"),
    "scales of another axis": (weights(axis=0), "4 scales for axis 0|infer"),
    "an axis out of range": (weights(axis=2), "axis 2"),
    "an axis below its range": (weights(axis=-3), "axis -3|infer"),
    "a matrix of scales": (weights(s=np.ones((6, 4), np.float32), z=None), "a scale of shape .6, 4."),
    "blocks": (weights(s=np.ones((3, 4), np.float32), z=None, axis=0, block_size=2), "blocks"),
    "zero points of another type": (weights(z=Z.astype(np.uint8)), "zero point of uint8|onnx|infer"),
    "zero points of another shape": (weights(z=Z[:2]), "zero points of shape .2.|infer"),
    "one zero point for all": (weights(z=np.int8(0)), "zero points of shape .. and scales of .4."),
    "a zero point of int32": (
        weights(Q.astype(np.int32), z=np.full(4, 3, np.int32)),
        "zero point 3 for values of int32",
    ),
    "no scale": (weights(s=None, z=None), "onnx|constant scale"),
    "a scale that depends on the input": (
        _unchecked(
            [onnx_models.node("DequantizeLinear", "q x", "d"), onnx_models.node("MatMul", "x d")], {"q": Q}
        ),
        "constant scale|infer",
    ),
    "read with another scale": (
        activations(PAIR, {"s": np.float32(0.2), "z": ZERO}),
        "scale 0.2 .*written with 0.1",
    ),
    "read with another zero point": (
        activations(PAIR, {"s": STEP, "z": np.uint8(4)}),
        "zero point 4 .*and 3",
    ),
    "read as another type": (
        activations(PAIR, {"s": STEP, "z": np.int8(3)}),
        "zero point of int8 for values of uint8|infer|onnx",
    ),
    "activations per channel": (
        activations({"s": np.full(6, 0.1, np.float32), "z": np.zeros(6, np.uint8)}, PAIR, axis=1),
        "of activations per channel",
    ),
    "activations of int4": (
        activations({"s": STEP, "z": _tensor("wz", KINDS.INT4, [])}, PAIR),
        "'wz' is of type int4",
    ),
    "a sum of quantized activations": (
        activations(PAIR, PAIR, onnx_models.node("Add", "q q", "b")),
        "Add of quantized activations",
    ),
    "a pool of quantized activations": (
        activations(PAIR, PAIR, onnx_models.node("Relu", "q", "b")),
        "Relu of quantized activations|infer|onnx",
    ),
    "quantized and never read": (
        _unchecked([onnx_models.node("QuantizeLinear", "x s z")], PAIR),
        "output 'y' is of quantized|infer|QuantizeLinear",
    ),
    "an integer product": (
        _unchecked(
            [onnx_models.node("QuantizeLinear", "x s z", "q"), onnx_models.node("MatMulInteger", "q w")],
            PAIR | {"w": Q},
        ),
        "MatMulInteger of quantized activations|MatMulInteger.*infer|infer.*MatMulInteger",
    ),
    "a block of activations": (activations(PAIR, PAIR, block_size=2), "blocks|infer|onnx"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_quantized_model_is_one_clear_error(case: str, tmp_path: Path) -> None:
    model, says = BROKEN[case]
    path = onnx_models.saved(model, tmp_path, "broken.onnx")
    with pytest.raises(CompileError, match=says) as caught:
        read_onnx(path)
    text = str(caught.value)
    assert "\n" not in text and text.startswith(f"{path}: ") and len(text) < 900


def test_the_models_of_that_list_are_read_if_nothing_is_broken(tmp_path: Path) -> None:
    for model in (weights(), weights(z=None), weights(s=S[0], z=Z[0]), activations(PAIR, PAIR)):
        loaded(model, tmp_path)
