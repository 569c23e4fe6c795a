"""Layers of torch whose settings do not fit their input: one line that names the layer, never a traceback."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import snntorch as snn
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from snn_compile.targets.errors import ExportError
from snn_compile.train import LIF, Firing, to_nir
from snn_compile.train.networks.convolution import AvgPool2d

BROKEN: dict[str, nn.Module | Callable[[Tensor], Tensor]] = {
    "max window": nn.MaxPool2d(9),
    "max window one axis": nn.MaxPool2d((2, 9)),
    "max padding": nn.MaxPool2d(2, padding=2),
    "max stride 0": lambda x: F.max_pool2d(x, 2, stride=0),
    "max dilated": nn.MaxPool2d(3, dilation=5),
    "max dilation 0": lambda x: F.max_pool2d(x, 2, dilation=0),
    "max window 0": lambda x: F.max_pool2d(x, 0),
    "max window negative": lambda x: F.max_pool2d(x, -2),
    "max three axes": lambda x: F.max_pool2d(x, (2, 2, 2)),
    "max padding negative": lambda x: F.max_pool2d(x, 2, padding=-1),
    "max fraction": lambda x: F.max_pool2d(x, 2.5),
    "max text": lambda x: F.max_pool2d(x, "2"),
    "max of one axis": nn.MaxPool1d(2),
    "max of three axes": nn.MaxPool3d(2),
    "max ceil far": nn.MaxPool2d(20, 3, ceil_mode=True),
    "max indices": nn.MaxPool2d(2, return_indices=True),
    "average window": nn.AvgPool2d(9),
    "average padding": nn.AvgPool2d(2, padding=2),
    "average stride 0": lambda x: F.avg_pool2d(x, 2, stride=0),
    "average ceil far": nn.AvgPool2d(20, 3, ceil_mode=True),
    "adaptive 0": nn.AdaptiveAvgPool2d(0),
    "adaptive negative": nn.AdaptiveAvgPool2d((2, -1)),
    "adaptive max": nn.AdaptiveMaxPool2d(2),
    "kernel": nn.Conv2d(1, 2, 11),
    "channels": nn.Conv2d(3, 2, 3),
    "upsampled to nothing": nn.Upsample(scale_factor=0.01),
    "reflection": nn.ReflectionPad2d(9),
    "circle": nn.CircularPad2d(9),
    "negative padding": lambda x: F.pad(x, (-9, 0)),
    "transposed": nn.ConvTranspose2d(1, 2, 2, output_padding=2),
    "no channels": lambda x: F.pixel_unshuffle(x[:, 0], 2),
    "unflatten": nn.Unflatten(1, (2, 3)),
}


class Layer(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Looped(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer, self.neurons = layer, snn.Leaky(beta=0.5)

    def forward(self, x: Tensor) -> Tensor:
        state, spikes = self.neurons.init_leaky(), []
        for entry in x:
            spike, state = self.neurons(self.layer(entry), state)
            spikes.append(spike)
        return torch.stack(spikes)


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("image", [True, False])
def test_a_layer_that_does_not_fit_is_named_in_one_line(name: str, image: bool) -> None:
    found = BROKEN[name]
    layer = found if isinstance(found, nn.Module) else Layer(found)
    network = nn.Sequential(layer, snn.Leaky(beta=0.5, init_hidden=True)) if image else Looped(layer)
    with pytest.raises(ExportError) as caught:
        to_nir(network, torch.zeros(*([2] if image else [4, 2]), 1, 8, 8))
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("0: " if image else "layer: ")


def test_a_window_that_ceil_mode_lets_reach_over_the_edge_is_torchs() -> None:
    graph = to_nir(
        nn.Sequential(nn.MaxPool2d(9, ceil_mode=True), snn.Leaky(0.5, init_hidden=True)),
        torch.zeros(1, 1, 8, 8),
    )
    (pool,) = (node for node in graph.nodes.values() if type(node).__name__ == "MaxPool")
    assert tuple(pool.output_shape) == tuple(
        nn.MaxPool2d(9, ceil_mode=True)(torch.zeros(1, 1, 8, 8)).shape[1:]
    )


@pytest.mark.parametrize("settings", [(9, 9, 0), (2, 2, 2), (2, 0, 0), (0, 1, 0), (2, 2, -1)])
def test_average_pools_of_the_projects_own_networks(settings: tuple[int, int, int]) -> None:
    network = nn.Sequential(
        AvgPool2d(*settings), nn.Flatten(start_dim=2), nn.Linear(4, 2), LIF(2, firing=Firing())
    )
    with pytest.raises(ExportError, match="0: a window of .* does not fit"):
        to_nir(network, torch.zeros(1, 4, 1, 8, 8))
