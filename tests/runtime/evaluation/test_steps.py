"""The float reference of converted models, and the search for a number of steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import onnx_models

from snn_compile.compiler import ConversionOptions, compile_graph, convert, read_onnx
from snn_compile.runtime.evaluation.conversion import Prepared, prepare
from snn_compile.runtime.evaluation.step_curve import float_record, lowering_error, step_curve
from snn_compile.targets.errors import WrongInput


def weights() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "w": rng.normal(size=(6, 20)) / 2,
        "b": rng.normal(size=20) / 3,
        "v": rng.normal(size=(20, 4)) / 4,
    }


def layers() -> list[Any]:
    return [
        onnx_models.node("Gemm", "x w b", "a"),
        onnx_models.node("Relu", "a", "r"),
        onnx_models.node("MatMul", "r v"),
    ]


def samples(count: int) -> Any:
    return np.random.default_rng(1).random((count, 6))


@pytest.mark.parametrize("batch", [None, 1])
def test_scores_are_onnxruntimes(batch: int | None, tmp_path: Path) -> None:
    model = onnx_models.model(layers(), (batch, 6), weights())
    network, x = read_onnx(onnx_models.saved(model, tmp_path)), samples(5)
    record = float_record(network, x)
    assert record.device.startswith("onnxruntime")
    expected = np.concatenate([onnx_models.onnxruntime_scores(model, x[i : i + 1]) for i in range(5)])
    np.testing.assert_allclose(record.outputs[:, 0], expected, rtol=1e-5)
    np.testing.assert_array_equal(record.predictions, expected.argmax(axis=1))


def test_a_model_that_reshapes_to_one_sample_runs_one_by_one(tmp_path: Path) -> None:
    nodes = [onnx_models.node("Reshape", "x s", "flat"), *layers()]
    nodes[1].input[0] = "flat"
    model = onnx_models.model(nodes, (None, 2, 3), {**weights(), "s": np.array([1, 6])})
    network, x = read_onnx(onnx_models.saved(model, tmp_path)), samples(5).reshape(5, 2, 3)
    record = float_record(network, x)
    assert record.device.startswith("onnxruntime")
    np.testing.assert_allclose(record.outputs[:, 0], network.scores(x), rtol=1e-5, atol=1e-6)


def test_what_onnxruntime_cannot_run_is_evaluated_here_and_said_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = read_onnx(onnx_models.saved(onnx_models.model(layers(), (None, 6), weights()), tmp_path))
    import onnxruntime

    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("no kernel")

    monkeypatch.setattr(onnxruntime, "InferenceSession", broken)
    record = float_record(network, samples(5))
    assert "onnxruntime fails: no kernel" in record.device
    np.testing.assert_array_equal(record.outputs[:, 0], network.scores(samples(5)))


def test_the_lowering_error_is_measured(tmp_path: Path) -> None:
    nodes = [
        onnx_models.node("MaxPool", "x", "m", kernel_shape=[2], strides=[2]),
        onnx_models.node("Flatten", "m", "f"),
        onnx_models.node("MatMul", "f v"),
    ]
    model = onnx_models.model(nodes, (None, 3, 8), {"v": np.random.default_rng(2).normal(size=(12, 4))})
    path, x = onnx_models.saved(model, tmp_path), np.random.default_rng(3).normal(size=(50, 3, 8))
    exact = lowering_error(read_onnx(path, max_pool="rectify"), x)
    assert exact["relative"] < 1e-6 and exact["agreement"] == 1
    averaged = read_onnx(path, max_pool="average")
    other = lowering_error(averaged, x)
    scores = onnx_models.onnxruntime_scores(model, x)
    expected = np.sqrt(np.mean((averaged.scores(x) - scores) ** 2) / np.mean(scores**2))
    assert other["relative"] == pytest.approx(expected, rel=1e-4) and other["relative"] > 0.1
    assert other["agreement"] == (averaged.scores(x).argmax(1) == scores.argmax(1)).mean() < 1


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = onnx_models.saved(
        onnx_models.model(layers(), (None, 6), weights()), tmp_path_factory.mktemp("steps")
    )
    network = read_onnx(path)
    conversion = convert(network, samples(60), ConversionOptions(20))
    return conversion, compile_graph(conversion.network, calibration=conversion.shown_calibration())


def test_every_point_is_a_run_of_its_own(converted: Any) -> None:
    from snn_compile.compiler.onnx.rate_coding import shown
    from snn_compile.runtime.execution.run import simulate
    from snn_compile.runtime.reports.energy import energy

    conversion, program = converted
    x = samples(40)
    labels = conversion.source.scores(x).argmax(axis=1)
    curve, record, ideal = step_curve(program, conversion, x, labels)
    assert (ideal.predictions == labels).all() and curve.chosen == 20 and record.steps == 20
    assert [p.steps for p in curve.points] == [1, 2, 4, 6, 8, 12, 16, 20]
    for point in curve.points:
        alone = simulate(program, shown(x, point.steps))
        assert point.accuracy is not None
        assert point.accuracy.deployed == (alone.predictions == labels).mean() == point.agreement
        assert alone.counts is not None
        costs = {e.name: e.per_sample_pj for e in energy(program, alone.counts)}
        assert dict(point.energy_pj) == pytest.approx(costs)


def test_without_labels_there_is_agreement_and_no_search(converted: Any) -> None:
    conversion, program = converted
    curve, _, _ = step_curve(program, conversion, samples(10))
    assert all(p.accuracy is None for p in curve.points) and curve.points[-1].agreement > 0.8
    assert curve.png().startswith(b"\x89PNG") and curve.json()["points"][0]["drop"] is None
    with pytest.raises(WrongInput, match="labels"):
        step_curve(program, conversion, samples(10), max_drop=1.0)


def test_preparing_without_data_to_check(converted: Any, tmp_path: Path) -> None:
    conversion, program = converted
    file = tmp_path / "still.npz"
    np.savez(file, inputs=samples(30))
    prepared = prepare(conversion.source, str(file), None, ConversionOptions(5))
    assert isinstance(prepared, Prepared) and prepared.provenance() == {"steps": "5"}
    with pytest.raises(WrongInput, match="no data"):
        prepared.measure(program, None)
