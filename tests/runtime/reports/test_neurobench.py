"""NeuroBench's metrics of programs, against loops, hooks in torch, and NeuroBench's package."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import snntorch
import torch
from snntorch.utils import reset
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from snn_compile import train
from snn_compile.compiler.pipeline import compile_graph
from snn_compile.runtime.execution.run import simulate
from snn_compile.runtime.reports.layers import layers
from snn_compile.runtime.reports.neurobench import NeuroBench, neurobench
from snn_compile.targets.program.program import InputPort, OutputPort, Population, Program, Projection
from snn_compile.targets.program.weights import WeightTable

STEPS, SAMPLES = 12, 5


def _leaky(last: bool = False) -> snntorch.Leaky:
    return snntorch.Leaky(0.5, init_hidden=True, output=last, reset_mechanism="zero")


def _dense() -> tuple[nn.Module, tuple[int, ...]]:
    return nn.Sequential(
        nn.Linear(14, 11, bias=False), _leaky(), nn.Linear(11, 7, bias=False), _leaky(True)
    ), (14,)


def _convolution() -> tuple[nn.Module, tuple[int, ...]]:
    return nn.Sequential(
        nn.Conv2d(2, 3, 3, stride=2, padding=1, bias=False),
        _leaky(),
        nn.Conv2d(3, 4, 2, bias=False),
        _leaky(),
        nn.Flatten(),
        nn.Linear(36, 5, bias=False),
        _leaky(True),
    ), (2, 8, 7)


def _drawn(build: Callable[[], tuple[nn.Module, tuple[int, ...]]], seed: int) -> tuple[nn.Module, Any]:
    """Return a network with weights of sixteenths, a fifth of them zero, and spikes for it."""
    rng = np.random.default_rng(seed)
    module, shape = build()
    for parameter in module.parameters():
        drawn = rng.integers(1, 15, parameter.shape) * rng.choice([-1, 1, 1], parameter.shape) / 16
        parameter.data = torch.tensor(drawn * (rng.random(parameter.shape) > 0.2), dtype=torch.float32)
    return module, (rng.random((SAMPLES, STEPS, *shape)) < 0.4).astype(np.float32)


def _hooked(module: nn.Module, data: Any) -> dict[str, float]:
    """Return the operations of a run in torch, counted at each layer's input."""
    found = {"effective": 0.0, "dense": 0.0, "spikes": 0.0, "neurons": 0.0}

    def count(layer: Any, inputs: Any, _: Any) -> None:
        spikes = (inputs[0] != 0).float()
        reached = {"effective": ((layer.weight != 0).float(), spikes)}
        reached["dense"] = (torch.ones_like(layer.weight), torch.ones_like(spikes))
        for name, (weight, x) in reached.items():
            if isinstance(layer, nn.Linear):
                total = nn.functional.linear(x, weight)
            else:
                total = nn.functional.conv2d(x, weight, None, layer.stride, layer.padding)
            found[name] += float(total.sum()) / SAMPLES

    def spikes(_: Any, __: Any, output: Any) -> None:
        sent = output[0] if isinstance(output, tuple) else output
        found["spikes"] += float((sent != 0).sum())
        found["neurons"] += sent.numel()

    hooks = [
        m.register_forward_hook(spikes if isinstance(m, snntorch.Leaky) else count)
        for m in module
        if not isinstance(m, nn.Flatten)
    ]
    reset(module)
    with torch.no_grad():
        for t in range(STEPS):
            module(torch.tensor(data[:, t]))
    for hook in hooks:
        hook.remove()
    return found


def _ours(module: nn.Module, data: Any) -> NeuroBench:
    graph = train.to_nir(module, torch.tensor(data[:, 0]))
    program = compile_graph(graph, calibration=data)
    counts = simulate(program, data).counts
    assert counts is not None
    return neurobench(program, counts)


@pytest.mark.parametrize("build", [_dense, _convolution])
@pytest.mark.parametrize("seed", [0, 1])
def test_operations_are_those_of_torch(build: Any, seed: int) -> None:
    module, data = _drawn(build, seed)
    torch_counts, ours = _hooked(module, data), _ours(module, data)
    assert torch_counts["effective"] > 0 and ours.effective_macs == 0
    assert ours.effective_acs == pytest.approx(torch_counts["effective"])
    assert ours.dense == pytest.approx(torch_counts["dense"])
    assert ours.activation_sparsity == pytest.approx(1 - torch_counts["spikes"] / torch_counts["neurons"])
    weights = torch.cat([p.reshape(-1) for p in module.parameters()])
    assert ours.connection_sparsity == pytest.approx(float((weights == 0).float().mean()))


@pytest.mark.parametrize("build", [_dense, _convolution])
def test_operations_are_those_of_the_package(build: Any) -> None:
    reason = "NeuroBench's package is not installed (pip install neurobench)"
    workload = pytest.importorskip("neurobench.metrics.workload", reason=reason)
    static = pytest.importorskip("neurobench.metrics.static", reason=reason)
    models = pytest.importorskip("neurobench.models", reason=reason)
    benchmarks = pytest.importorskip("neurobench.benchmarks", reason=reason)
    module, data = _drawn(build, 2)
    ours = _ours(module, data)
    batch = DataLoader(TensorDataset(torch.tensor(data), torch.zeros(SAMPLES)), batch_size=SAMPLES)
    metrics = [[static.ConnectionSparsity], [workload.SynapticOperations, workload.ActivationSparsity]]
    theirs = benchmarks.Benchmark(models.SNNTorchModel(module), batch, [], [], metrics).run(quiet=True)
    operations = theirs["SynapticOperations"]
    assert operations["Effective_ACs"] == pytest.approx(ours.effective_acs)
    assert operations["Effective_MACs"] == ours.effective_macs == 0
    assert operations["Dense"] == pytest.approx(ours.dense)
    assert theirs["ActivationSparsity"] == pytest.approx(ours.activation_sparsity)
    assert theirs["ConnectionSparsity"] == pytest.approx(ours.connection_sparsity, abs=5e-5)


def test_graded_messages_are_multiplied(lif: Callable[..., Population]) -> None:
    def found(bits: int, signed: bool) -> NeuroBench:
        table = WeightTable(np.array([[4, 0, 6], [0, 8, 10]]), message_bits=bits)
        port = InputPort("in", (3,), "graded", 1.0, bits, signed)
        population = lif("a", 2, 1)
        edges = (Projection("in-a", "in", "a", (table,)),)
        program = Program("loihi2", 2, (population,), edges, (port,), (OutputPort("out", "a"),))
        counts = simulate(program, np.array([[[1, 0, 1], [0, 1, 1]]])).counts
        assert counts is not None
        return neurobench(program, counts)

    # in0, in1 once and in2 twice, of one, one and two weights.
    assert (found(2, False).effective_macs, found(2, False).effective_acs) == (6, 0)
    assert (found(1, True).effective_macs, found(1, True).effective_acs) == (0, 6)


def test_layers_of_random_convolutions(lif: Callable[..., Population]) -> None:
    rng, found = np.random.default_rng(7), 0
    for _ in range(40):
        channels, outputs = (int(n) for n in rng.integers(1, 4, 2))
        kernel, stride, padding = (int(n) for n in rng.integers([1, 1, 0], [4, 3, 2]))
        height, width = (int(n) for n in rng.integers(5, 9, 2))
        weights = 2 * rng.integers(1, 60, (outputs, channels, kernel, kernel))
        weights[..., 0, 0] = np.where(rng.random(weights.shape[:2]) < 0.3, 0, weights[..., 0, 0])
        down, across = ((n + 2 * padding - kernel) // stride + 1 for n in (height, width))
        table = np.zeros((outputs, down, across, channels, height, width), np.int64)
        products = 0
        for y, x, ky, kx in np.ndindex(down, across, kernel, kernel):
            row, column = y * stride + ky - padding, x * stride + kx - padding
            if 0 <= row < height and 0 <= column < width:
                table[:, y, x, :, row, column] = weights[:, :, ky, kx]
                products += outputs * channels
        if kernel > 1 and weights.any(axis=(0, 1)).all() and down > 1 and across > 1:
            flat = table.reshape(outputs * down * across, -1)
            program = Program(
                "loihi2",
                2,
                (_image("a", (outputs, down, across), lif),),
                (Projection("in-a", "in", "a", (WeightTable(flat),)),),
                (InputPort("in", (channels, height, width)),),
                (OutputPort("out", "a"),),
            )
            (layer,) = layers(program)
            assert (layer.kind, layer.connections) == ("convolution", products)
            assert (layer.weights, layer.zeros) == (weights.size, int((weights == 0).sum()))
            assert layer.storage_bits == 8 * weights.size and not layer.recurrent
            found += 1
    assert found > 10


def _image(name: str, shape: tuple[int, ...], lif: Callable[..., Population]) -> Population:
    flat = lif(name, int(np.prod(shape)), 1)
    return Population(name, shape, flat.model, flat.parameters, flat.reset, flat.start_step)
