"""Layers that are affine maps: whatever their shape and options, the float reference's spikes are torch's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest
import snntorch as snn
import torch
from torch import nn
from torch.nn import functional

from snn_compile.compiler import compile_graph, lower
from snn_compile.compiler.frontends.nir_extensions import SparseLinear
from snn_compile.runtime import reference
from snn_compile.targets import execute
from snn_compile.targets.errors import CompileError, ExportError
from snn_compile.train import to_nir

BATCH, STEPS = 2, 5
Shape = tuple[int, ...]


def leaky() -> nn.Module:
    return snn.Leaky(beta=0.8, threshold=0.4, init_hidden=True)


class Applied(nn.Module):
    """A function as a layer."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x)


def several(rng: np.random.Generator, axes: int, low: int, high: int) -> Any:
    found = tuple(int(n) for n in rng.integers(low, high, axes))
    return found if axes > 1 else found[0]


def image_layer(rng: np.random.Generator, shape: Shape) -> nn.Module:
    """Return a random layer that keeps signals (channels, *image)."""
    axes, channels = len(shape) - 1, shape[0]
    conv, transposed, average, adaptive = (
        (nn.Conv1d, nn.ConvTranspose1d, nn.AvgPool1d, nn.AdaptiveAvgPool1d)
        if axes == 1
        else (nn.Conv2d, nn.ConvTranspose2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d)
    )
    out, bias = int(rng.integers(1, 4)), bool(rng.random() < 0.5)
    kernel = several(rng, axes, 1, 4)
    mode = str(rng.choice(["circular", "reflect", "replicate", "zeros"]))
    group = channels if rng.random() < 0.3 else 1
    sides = tuple(int(n) for n in rng.integers(0, 2, 2 * axes))
    pads = several(rng, axes, 0, 2)
    size, stride = several(rng, axes, 2, 4), several(rng, axes, 1, 3)
    kinds: list[Callable[[], nn.Module]] = [
        lambda: conv(channels, out * group, kernel, padding=pads, padding_mode=mode, groups=group, bias=bias),
        lambda: transposed(channels, out, kernel, stride=several(rng, axes, 1, 3), bias=bias),
        lambda: average(size, stride, 1, True, False),
        lambda: average(size, stride, 0, True),
        lambda: adaptive(several(rng, axes, 2, 5)),
        lambda: nn.Upsample(scale_factor=2),
        lambda: nn.Upsample(size=several(rng, axes, 5, 9)),
        lambda: Applied(lambda x: functional.pad(x, sides)),
        lambda: Applied(lambda x: functional.pad(x, sides, value=0.25)),
        lambda: Applied(lambda x: x + 0.1 * torch.arange(shape[-1])),
        lambda: Applied(lambda x: torch.cat([x, 0.3 * torch.ones(x.shape[0], 1, *shape[1:])], 1)),
        lambda: Applied(lambda x: torch.cat([x, 2 * x[:, :]], 1)),
    ]
    return kinds[int(rng.integers(len(kinds)))]()


def drawn(seed: int) -> tuple[nn.Module, Shape]:
    """Return a network of random layers, and the shape of its input."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    axes = int(rng.integers(1, 3))
    start = shape = (int(rng.integers(1, 3)), *(int(n) for n in rng.integers(4, 8, axes)))
    layers: list[nn.Module] = []
    for _ in range(int(rng.integers(1, 4))):
        layer = image_layer(rng, shape)
        shape = tuple(layer(torch.zeros(1, *shape)).shape[1:])
        layers.append(layer)
        if rng.random() < 0.4:
            layers.append(leaky())
    if rng.random() < 0.5:
        layers += [nn.Flatten(), nn.Linear(int(np.prod(shape)), 6)]
        if rng.random() < 0.5:
            layers += [nn.Unflatten(1, (2, 3)), nn.Conv1d(2, 2, 2)]
    layers.append(leaky())
    return nn.Sequential(*layers), start


def torch_spikes(network: nn.Module, data: np.ndarray) -> np.ndarray:
    for module in network.modules():
        if isinstance(module, snn.Leaky):
            module.reset_mem()
    with torch.no_grad():
        steps = [network(torch.tensor(data[:, t], dtype=torch.float32)) for t in range(data.shape[1])]
    return torch.stack(steps, 1).numpy()


@pytest.mark.parametrize("seed", range(40))
def test_the_references_spikes_are_torchs(seed: int, tmp_path: Path) -> None:
    network, shape = drawn(seed)
    data = (np.random.default_rng(seed).random((BATCH, STEPS, *shape)) < 0.6).astype(float)
    wanted = torch_spikes(network, data)
    for module in network.modules():
        if isinstance(module, snn.Leaky):
            module.reset_mem()
    nir.write(tmp_path / "net.nir", to_nir(network, torch.zeros(1, *shape)))
    network_lowered = lower(tmp_path / "net.nir")
    assert np.array_equal(reference(network_lowered, data).outputs, wanted)
    if seed % 8 == 0:
        program = compile_graph(network_lowered, calibration=data)
        runs = [execute(program, data, device).outputs for device in ("oracle", "loihi2-sim")]
        assert np.array_equal(*runs)


def test_random_networks_hold_every_kind_and_spike() -> None:
    kinds, active = set(), 0
    for seed in range(40):
        network, shape = drawn(seed)
        kinds |= {type(module).__name__ for module in network}
        active += torch_spikes(network, np.ones((1, STEPS, *shape))).any()
    assert active > 25
    assert kinds >= {"Conv2d", "ConvTranspose2d", "AvgPool2d", "AdaptiveAvgPool2d", "Upsample", "Applied"}


REFUSED = {
    "a product of signals": (lambda x: torch.cat([x, x * x], 1), "multiplies two signals"),
    "a map too large": (lambda x: functional.interpolate(x, size=(300, 300)), "at most 65,536 values"),
    "padding larger than the image": (lambda x: functional.pad(x, (9, 9), mode="reflect"), "[Pp]adding"),
    "a weight from the data": (lambda x: functional.conv_transpose2d(x, x), "constant"),
    "an image that is no image": (
        lambda x: functional.conv_transpose2d(x.flatten(1), torch.ones(4, 1, 2, 2)),
        "batch and channels",
    ),
    "reshaping samples together": (lambda x: x.reshape(-1), "axis 0"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_map_is_one_clear_line(what: str) -> None:
    function, text = REFUSED[what]
    network = nn.Sequential(nn.Conv2d(1, 1, 1), Applied(function), leaky())
    with pytest.raises(ExportError, match=text) as error:
        to_nir(network, torch.zeros(2, 1, 4, 4))
    assert "\n" not in str(error.value)


BROKEN = {
    "a row beyond the output": ({"rows": [0, 4]}, "rows span 0..4; 0..1 is possible"),
    "a negative column": ({"columns": [-1, 0]}, "columns span -1..0"),
    "a part of a row": ({"rows": [0.5, 1]}, "rows span"),
    "lengths that differ": ({"values": [1.0, 2.0, 3.0]}, "have one length"),
    "a short bias": ({"bias": [1.0]}, "a bias of 1 values"),
    "a value that is not finite": ({"values": [1.0, np.inf]}, "finite"),
    "a matrix of indices": (
        {"rows": [[0, 1]], "columns": [[0, 1]], "values": [[1.0, 2.0]]},
        "have one length",
    ),
    "no output": ({"output_shape": [0]}, "output_shape|bias"),
    "another input": ({"input_shape": [5]}, "receives"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_map_is_one_clear_line(what: str, tmp_path: Path) -> None:
    changed, text = BROKEN[what]
    given = {"rows": [0, 1], "columns": [0, 2], "values": [1.0, 2.0], "bias": [0.0, 0.0]}
    given |= {"input_shape": [3], "output_shape": [2]}
    made = SparseLinear(**{key: np.array(value) for key, value in given.items()})
    for key, value in changed.items():
        setattr(made, key, np.array(value))
    nodes = {
        "input": nir.Input({"input": np.array([3])}),
        "map": made,
        "cell": nir.LIF(*[np.full(2, x) for x in (2e-3, 1.0, 0.0, 1.0)]),
        "output": nir.Output({"output": np.array([2])}),
    }
    edges = [("input", "map"), ("map", "cell"), ("cell", "output")]
    nir.write(tmp_path / "net.nir", nir.NIRGraph(nodes, edges, type_check=False))
    stated = {"dt": 1e-3, "rule": "euler", "reset": "value", "reset_timing": "same_step", "comparison": ">"}
    with pytest.raises(CompileError, match=text) as error:
        lower(tmp_path / "net.nir", stated)
    assert "\n" not in str(error.value) and "net.nir" in str(error.value)
