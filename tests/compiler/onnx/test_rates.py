"""Rate-coded conversion: what rates stand for, how they approach the activations, how ranges are chosen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import onnx_models

from snn_compile.compiler.onnx.graph import read_onnx
from snn_compile.compiler.onnx.rate_coding import ConversionOptions, conversion_options, convert, shown
from snn_compile.compiler.onnx.relu_network import RectifierNetwork
from snn_compile.compiler.reference import run_float
from snn_compile.targets.errors import CompileError, WrongInput


def deep(folder: Path, seed: int = 0, ceiling: float | None = None) -> RectifierNetwork:
    """Return a convolution, a residual block, an average pool and a dense read-out, all random."""
    rng = np.random.default_rng(seed)
    nodes = [
        onnx_models.node("Conv", "x w1 b1", "a", pads=[1] * 4),
        onnx_models.node("Relu", "a", "b"),
        onnx_models.node("Conv", "b w2 b2", "c", pads=[1] * 4),
        onnx_models.node("Relu", "c", "d")
        if ceiling is None
        else onnx_models.node("Clip", "d0 low high", "d"),
        onnx_models.node("Conv", "d w3", "e", pads=[1] * 4),
        onnx_models.node("Add", "e b", "f"),
        onnx_models.node("Relu", "f", "g"),
        onnx_models.node("AveragePool", "g", "h", kernel_shape=[2, 2], strides=[2, 2]),
        onnx_models.node("Flatten", "h", "i"),
        onnx_models.node("Gemm", "i w4 b4", "y"),
    ]
    if ceiling is not None:
        nodes[2] = onnx_models.node("Conv", "b w2 b2", "d0", pads=[1] * 4)
    constants: dict[str, Any] = {
        "w1": rng.normal(size=(3, 2, 3, 3)) / 3,
        "b1": rng.normal(size=3) / 3,
        "w2": rng.normal(size=(3, 3, 3, 3)) / 4,
        "b2": rng.normal(size=3) / 3,
        "w3": rng.normal(size=(3, 3, 3, 3)) / 4,
        "w4": rng.normal(size=(27, 4)) / 4,
        "b4": rng.normal(size=4),
    }
    if ceiling is not None:
        constants |= {"low": np.float32(0), "high": np.float32(ceiling)}
    return read_onnx(onnx_models.saved(onnx_models.model(nodes, (None, 2, 6, 6), constants), folder))


def images(count: int, seed: int = 1) -> Any:
    return np.random.default_rng(seed).random((count, 2, 6, 6))


def rates(conversion: Any, inputs: Any, steps: int) -> tuple[dict[str, Any], Any]:
    """Return every layer's activations as its rates tell them, and the scores of the float network."""
    network = conversion.network
    names = [p.name for p in network.populations if p.spiking]
    output = network.outputs[0].population
    data = {network.inputs[0].name: shown(inputs.reshape(len(inputs), -1), steps)}
    run = run_float(network, data, names, [f"{output}.v"])
    decoded = {name: run.messages[name].mean(axis=1) * conversion.ranges[name] for name in names}
    return decoded, run.states[f"{output}.v"][:, -1] / steps


@pytest.mark.parametrize("steps", [1, 7, 64])
def test_a_constant_drive_is_rounded_to_the_nearest_number_of_spikes(steps: int, tmp_path: Path) -> None:
    nodes = [onnx_models.node("Relu", "x", "r"), onnx_models.node("MatMul", "r w")]
    network = read_onnx(
        onnx_models.saved(onnx_models.model(nodes, (None, 40), {"w": np.ones((40, 1))}), tmp_path)
    )
    x = np.random.default_rng(2).uniform(-1.0, 2.0, (30, 40))
    conversion = convert(network, x, ConversionOptions(steps, "percentile", 60.0, "layer", correct=0))
    top = np.percentile(np.maximum(x, 0), 60.0)
    decoded, _ = rates(conversion, x, steps)
    counts = np.rint(decoded["Relu_r"] / top * steps)
    # v passes the threshold k times within n steps where k < n x / top + 1/2: the nearest whole number.
    np.testing.assert_array_equal(counts, np.clip(np.ceil(steps * x / top - 0.5), 0, steps))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("ceiling", [None, 0.4])
def test_rates_converge_to_the_activations(seed: int, ceiling: float | None, tmp_path: Path) -> None:
    network = deep(tmp_path, seed, ceiling)
    x = images(12)
    ideal, scores = network.activations(x), network.scores(x)
    conversion = convert(network, x, ConversionOptions(64, "percentile", 100.0, correct=0))

    def errors(steps: int) -> list[float]:
        decoded, read = rates(conversion, x, steps)
        found = [float(np.sqrt(np.mean((decoded[n] - ideal[n]) ** 2)) / ideal[n].std()) for n in decoded]
        return [*found, float(np.sqrt(np.mean((read - scores) ** 2)) / scores.std())]

    short, long = errors(16), errors(256)
    assert len(short) == len(network.layers) + 1
    # What is left is a bounded number of spikes, so the error falls as 1 / steps: 16 times the steps.
    assert all(b < a / 6 for a, b in zip(short, long, strict=True))
    assert max(long) < 0.03


def test_residual_additions_are_projections_into_one_population(tmp_path: Path) -> None:
    network = convert(deep(tmp_path), images(8), ConversionOptions(8, correct=0)).network
    into = [e for e in network.projections if e.target == "Relu_g"]
    assert sorted(e.source for e in into) == ["Relu_b", "Relu_d"]


def test_a_ceiling_bounds_the_range(tmp_path: Path) -> None:
    network = deep(tmp_path, ceiling=0.25)
    clipped = next(layer for layer in network.layers if np.isfinite(layer.ceiling))
    for balance in ("error", "percentile"):
        made_of = convert(network, images(20), ConversionOptions(16, balance, 100.0))
        assert made_of.ranges[clipped.name].max() == pytest.approx(0.25)


def test_percentiles_by_channel_and_by_layer(tmp_path: Path) -> None:
    network, x = deep(tmp_path), images(30)
    sent = network.activations(x)["Relu_b"]
    by_channel = convert(network, x, ConversionOptions(8, "percentile", 97.0, "channel", 0)).ranges["Relu_b"]
    channels = sent.reshape(30, 3, 36).transpose(1, 0, 2).reshape(3, -1)
    expected = np.percentile(channels, 97.0, axis=1)
    silent = expected == 0
    expected[silent] = np.where(channels.max(axis=1) > 0, channels.max(axis=1), sent.max())[silent]
    np.testing.assert_allclose(by_channel.reshape(3, 36), np.repeat(expected[:, None], 36, axis=1))
    by_layer = convert(network, x, ConversionOptions(8, "percentile", 97.0, "layer", 0)).ranges["Relu_b"]
    np.testing.assert_allclose(by_layer, np.percentile(sent, 97.0))


@pytest.mark.parametrize("steps", [4, 32])
def test_least_error_is_no_worse_than_any_percentile(steps: int, tmp_path: Path) -> None:
    network, x = deep(tmp_path), images(40)
    sent = network.activations(x)

    def error(options: ConversionOptions, name: str) -> float:
        top = convert(network, x, options).ranges[name]
        kept = np.minimum(np.rint(sent[name] * steps / top), steps) * top / steps
        return float(np.mean((kept - sent[name]) ** 2))

    for name in (layer.name for layer in network.layers):
        least = error(ConversionOptions(steps, "error", per="layer", correct=0), name)
        for percentile in (90.0, 99.0, 99.9, 100.0):
            other = error(ConversionOptions(steps, "percentile", percentile, "layer", 0), name)
            assert least <= other * 1.02  # the ranges tried are a grid


def test_correction_takes_the_mean_error_off(tmp_path: Path) -> None:
    network, x = deep(tmp_path), images(64)

    def bias(correct: int) -> float:
        conversion = convert(network, x, ConversionOptions(8, correct=correct))
        decoded, _ = rates(conversion, x, 8)
        sent = network.activations(x)
        wrong = [
            np.minimum(sent[n], conversion.ranges[n]).mean(axis=0) - decoded[n].mean(axis=0) for n in decoded
        ]
        return float(np.abs(np.concatenate([w.reshape(3, -1).mean(axis=1) for w in wrong])).max())

    before, once, more = bias(0), bias(1), bias(4)
    assert more < once < before
    assert more < before / 2


def test_a_silent_layer_has_a_range(tmp_path: Path) -> None:
    nodes = [
        onnx_models.node("Gemm", "x w b", "a"),
        onnx_models.node("Relu", "a", "r"),
        onnx_models.node("MatMul", "r v"),
    ]
    constants = {"w": np.zeros((3, 2)), "b": np.array([-1.0, -2.0]), "v": np.ones((2, 2))}
    network = read_onnx(onnx_models.saved(onnx_models.model(nodes, (None, 3), constants), tmp_path))
    conversion = convert(network, np.ones((4, 3)))
    assert np.isfinite(conversion.ranges["Relu_r"]).all() and (conversion.ranges["Relu_r"] > 0).all()
    assert not rates(conversion, np.ones((4, 3)), 20)[0]["Relu_r"].any()


def test_data_of_another_shape_is_refused(tmp_path: Path) -> None:
    network = deep(tmp_path)
    with pytest.raises(WrongInput, match="takes"):
        convert(network, np.zeros((3, 2, 6)))
    with pytest.raises(WrongInput, match="finite"):
        convert(network, np.full((3, 2, 6, 6), np.nan))


@pytest.mark.parametrize(
    "options", [{"steps": 0}, {"balance": "max"}, {"per": "neuron"}, {"percentile": 0.0}, {"correct": -1}]
)
def test_options_that_mean_nothing_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(CompileError):
        ConversionOptions(**options)


def test_options_of_the_command() -> None:
    assert conversion_options(None, None) == ConversionOptions()
    assert conversion_options("auto", "error").steps == ConversionOptions().steps
    stated = conversion_options(9, "99.5")
    assert (stated.steps, stated.balance, stated.percentile) == (9, "percentile", 99.5)
    with pytest.raises(CompileError, match="percentile such as"):
        conversion_options(9, "largest")


def test_a_pool_of_maxima_converges(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    nodes = [
        onnx_models.node("Conv", "x w", "a"),
        onnx_models.node("MaxPool", "a", "b", kernel_shape=[2, 2], strides=[2, 2]),
        onnx_models.node("Flatten", "b", "c"),
        onnx_models.node("MatMul", "c v"),
    ]
    constants = {"w": rng.normal(size=(3, 2, 3, 3)), "v": rng.normal(size=(12, 5))}
    path = onnx_models.saved(onnx_models.model(nodes, (None, 2, 6, 6), constants), tmp_path)
    network = read_onnx(path, max_pool="rectify")
    assert any("36 neurons more" in note for note in network.notes)
    x = images(10)
    conversion = convert(network, x, ConversionOptions(128, "percentile", 100.0))
    _, read = rates(conversion, x, 128)
    assert np.sqrt(np.mean((read - network.scores(x)) ** 2)) < 0.05 * network.scores(x).std()
    averaged = read_onnx(path, max_pool="average")
    assert not averaged.layers and any("average" in note for note in averaged.notes)
    assert np.corrcoef(averaged.scores(x).ravel(), network.scores(x).ravel())[0, 1] < 0.99
