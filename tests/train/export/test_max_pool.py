"""Max pooling of currents: the float reference's spikes are torch's, and integers are compared exactly."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest
import snntorch as snn
import torch
from torch import nn

from snn_compile.compiler import Options, compile_graph, lower
from snn_compile.compiler.frontends.nir_extensions import MaxPool
from snn_compile.compiler.frontends.read import read_graph
from snn_compile.compiler.pipeline import compile_stages
from snn_compile.compiler.quantization.relays import exact_formats
from snn_compile.compiler.quantization.scales import observe
from snn_compile.runtime import reference
from snn_compile.runtime.evaluation.mixed_precision import search_precision
from snn_compile.targets import execute
from snn_compile.targets.chips.chip import load_chip
from snn_compile.targets.errors import CompileError, PrecisionLost
from snn_compile.train import to_nir

STEPS, BATCH = 6, 3


def drawn(seed: int) -> tuple[nn.Module, tuple[int, ...], dict[str, Any]]:
    """Return a network that pools currents, the shape of its input, and the pool's settings."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    axes = int(rng.choice([1, 2, 2]))
    size, channels = int(rng.integers(7, 10)), int(rng.integers(1, 4))
    kernel = int(rng.integers(2, 4))
    settings: dict[str, Any] = {"kernel_size": kernel, "stride": int(rng.integers(1, kernel + 1))}
    settings["padding"] = int(rng.integers(0, kernel // 2 + 1))
    settings["ceil_mode"] = bool(rng.random() < 0.3)
    settings["dilation"] = int(rng.choice([1, 1, 2]))
    conv, pool = (nn.Conv1d, nn.MaxPool1d) if axes == 1 else (nn.Conv2d, nn.MaxPool2d)
    layers = [conv(channels, 3, 3, padding=1, bias=bool(rng.random() < 0.7)), pool(**settings)]
    if rng.random() < 0.3:
        layers.append(pool(2, 1))
    layers.append(snn.Leaky(beta=0.8, threshold=0.5, init_hidden=True))
    network = nn.Sequential(*layers)
    with torch.no_grad():
        layers[0].weight.copy_(torch.randn_like(layers[0].weight) * 0.4)
    return network, (channels, *[size] * axes), settings


def spikes_of_torch(network: nn.Module, data: np.ndarray) -> np.ndarray:
    network[-1].reset_mem()
    with torch.no_grad():
        steps = [network(torch.tensor(data[:, t], dtype=torch.float32)) for t in range(data.shape[1])]
    return torch.stack(steps, 1).numpy()


def data_for(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    rng = np.random.default_rng(seed + 1)
    if seed % 2:
        return np.round(rng.random((BATCH, STEPS, *shape)) * 15) / 16
    return (rng.random((BATCH, STEPS, *shape)) < 0.5).astype(float)


@pytest.mark.parametrize("seed", range(24))
def test_the_reference_gives_torchs_spikes_and_integers_are_compared_exactly(
    seed: int, tmp_path: Path
) -> None:
    network, shape, _ = drawn(seed)
    data = data_for(seed, shape)
    graph = to_nir(network, torch.zeros(1, *shape))
    nir.write(tmp_path / "net.nir", graph)
    lowered = lower(read_graph(tmp_path / "net.nir"))
    wanted = spikes_of_torch(network, data)
    record = reference(lowered, data)
    assert wanted.any() and np.array_equal(record.outputs, wanted)
    program = compile_graph(lowered, calibration=data)
    pools = [p.name for p in program.populations if f"{p.name}.in" in {q.name for q in program.populations}]
    names = [p.name for p in program.populations]
    made = {device: execute(program, data, device, record=names) for device in ("oracle", "loihi2-sim")}
    for name in names:
        assert np.array_equal(made["oracle"].spikes(name), made["loihi2-sim"].spikes(name)), name
    assert not any(made["oracle"].overflows.values())
    layers = [layer for layer in network if "MaxPool" in type(layer).__name__]
    assert len(pools) == len(layers)
    for name, layer in zip(pools, layers, strict=True):
        sums, winners = (made["oracle"].spikes(which) for which in (f"{name}.in", name))
        flat = torch.tensor(sums.reshape(-1, *sums.shape[2:]), dtype=torch.float64)
        assert np.array_equal(layer(flat).numpy().reshape(winners.shape), winners)
        assert len(np.unique(sums)) > 4


def test_the_stages_of_a_pool_are_aligned_with_what_goes_around_it() -> None:
    class Skip(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.around = nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(1, 2, 2, stride=2)
            self.pool, self.cell = nn.MaxPool2d(2), snn.Leaky(beta=0.8, threshold=0.6, init_hidden=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.cell(self.pool(self.conv(x)) + self.around(x))

    torch.manual_seed(3)
    network = Skip()
    data = (np.random.default_rng(0).random((BATCH, STEPS, 1, 6, 6)) < 0.5).astype(float)
    with torch.no_grad():
        wanted = torch.stack([network(torch.tensor(data[:, t]).float()) for t in range(STEPS)], 1).numpy()
    network.cell.reset_mem()
    graph = to_nir(network, torch.zeros(1, 1, 6, 6))
    assert wanted.any() and np.array_equal(reference(lower(graph), data).outputs, wanted)
    program = compile_graph(graph, calibration=data)
    assert np.mean(execute(program, data).outputs != wanted) < 0.1


def test_sums_that_a_message_does_not_hold_are_refused_with_their_bound() -> None:
    network = nn.Sequential(nn.Conv2d(8, 2, 5), nn.MaxPool2d(2), snn.Leaky(beta=0.8, init_hidden=True))
    data = np.random.default_rng(0).random((2, 3, 8, 8, 8))
    graph = to_nir(network, torch.zeros(1, 8, 8, 8))
    with pytest.raises(PrecisionLost, match=r"relays sums of up to [\d,]+, and a message holds 8,388,607"):
        compile_graph(graph, calibration=data)
    assert compile_graph(graph, calibration=data, options=Options(weight_bits=4, input_bits=5)).cores


@pytest.mark.parametrize("seed", range(6))
def test_without_data_a_pool_costs_its_neurons_no_precision(seed: int) -> None:
    """A maximum is bounded by the sums that it is taken of, however many levels its tournament has."""
    rng = np.random.default_rng(seed)
    kernel, weight = int(rng.integers(2, 6)), rng.normal(size=(2, 1, 3, 3))

    def bound(window: int) -> float:
        network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.MaxPool2d(window), snn.Leaky(0.8, init_hidden=True))
        with torch.no_grad():
            network[0].weight.copy_(torch.tensor(weight))
            network[0].bias.copy_(torch.tensor([0.3, -0.2]))
        lowered = lower(to_nir(network, torch.zeros(1, 1, 12, 12)))
        spiking = next(p.name for p in lowered.populations if p.spiking)
        return observe(lowered, None, load_chip("loihi2")).bounds[spiking].v

    assert bound(kernel) == pytest.approx(bound(1))


def test_a_search_leaves_the_tables_between_relays_alone() -> None:
    network, shape, _ = drawn(1)
    data = data_for(1, shape)
    graph = to_nir(network, torch.zeros(1, *shape))
    found = search_precision(graph, "loihi2", Options(), data, max_cores=4)
    retimed = compile_stages(graph, "loihi2", Options(), stop_after="retime").retimed
    assert retimed is not None
    exact = exact_formats(retimed.network)
    assert exact and all(not exact.keys() & point.plan.formats.keys() for point in found.points)


MALFORMED = {
    "a window larger than its input": ({"kernel_size": [9, 9]}, "a window of 9 and dilation 1 on 6 values"),
    "a stride of 0": ({"stride": [0, 1]}, "stride"),
    "padding beyond half a window": ({"padding": [2, 2]}, "padding 2"),
    "a negative padding": ({"padding": [-1, 0]}, "padding"),
    "three axes": ({"kernel_size": [2, 2, 2]}, "kernel_size of shape"),
    "one axis of two": ({"stride": [2]}, "stride"),
    "no channels": ({"input_shape": [6, 6]}, "input_shape"),
    "a window of half": ({"kernel_size": [1.5, 2]}, "integers are expected"),
    "not a number": ({"dilation": [np.nan, 1]}, "finite"),
    "another input than arrives": ({"input_shape": [2, 8, 8]}, "with a weight of shape"),
}


@pytest.mark.parametrize("what", MALFORMED)
def test_a_malformed_pool_is_one_clear_line(what: str, tmp_path: Path) -> None:
    changed, text = MALFORMED[what]
    network = nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1), nn.MaxPool2d(2), snn.Leaky(beta=0.8, init_hidden=True)
    )
    graph = to_nir(network, torch.zeros(1, 1, 6, 6))
    (pool,) = (node for node in graph.nodes.values() if isinstance(node, MaxPool))
    for key, value in changed.items():
        setattr(pool, key, np.array(value))
    graph.metadata.clear()
    nir.write(tmp_path / "net.nir", graph)
    with pytest.raises(CompileError, match=text) as error:
        lower(tmp_path / "net.nir", {"maker": "snntorch"})
    assert "\n" not in str(error.value) and "net.nir" in str(error.value)


def test_members_of_windows_are_those_of_torch() -> None:
    from snn_compile.compiler.lowering.max_pool import pool_members

    for kernel, stride, padding, dilation, ceil in itertools.product(
        (2, 3), (1, 2, 3), (0, 1), (1, 2), (0, 1)
    ):
        layer = nn.MaxPool2d(kernel, stride, padding, dilation, ceil_mode=bool(ceil))
        image = torch.randn(1, 2, 7, 8, dtype=torch.float64)
        pairs = [np.array([n, n]) for n in (kernel, stride, padding, dilation)]
        node = MaxPool(np.array([2, 7, 8]), *pairs, np.array([ceil]))
        before, after, members = pool_members("pool", node)
        wanted = layer(image)[0].numpy()
        assert before == (2, 7, 8) and after == wanted.shape
        assert np.array_equal(image.numpy().reshape(-1)[members].max(axis=0), wanted.reshape(-1))
