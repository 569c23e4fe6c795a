"""Layers of torch with settings drawn at random: torch's spikes, or one line that names the layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import snntorch as snn
import torch
from snntorch import utils
from torch import Tensor, nn
from torch.nn import functional as F

from snn_compile.compiler import lower
from snn_compile.runtime import reference
from snn_compile.targets.errors import ExportError
from snn_compile.train import to_nir

STEPS, BATCH = 5, 3
Make = Callable[[np.random.Generator, str], nn.Module]


class Layer(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def whole(rng: np.random.Generator, low: int, high: int) -> int:
    return int(rng.integers(low, high))


def either(rng: np.random.Generator, *choices: Any) -> Any:
    return choices[whole(rng, 0, len(choices))]


def window(rng: np.random.Generator, low: int = 1) -> dict[str, Any]:
    return {
        "kernel_size": whole(rng, low, either(rng, 4, 11)),
        "stride": either(rng, 1, whole(rng, low, 4)),
        "padding": whole(rng, 0, 3),
    }


def pool(kind: str, rng: np.random.Generator, end: str) -> nn.Module:
    settings = {**window(rng, either(rng, 0, 1)), "ceil_mode": either(rng, True, False)}
    if kind == "Max":
        settings["dilation"] = whole(rng, 1, 3)
    else:
        settings["count_include_pad"] = either(rng, True, False)
        if end == "2d" and either(rng, True, False):
            settings["divisor_override"] = whole(rng, 1, 5)
    function = getattr(F, f"{kind.lower()}_pool{end}")
    return either(rng, getattr(nn, f"{kind}Pool{end}")(**settings), Layer(lambda x: function(x, **settings)))


def convolution(rng: np.random.Generator, end: str) -> nn.Module:
    mode = either(rng, "zeros", "circular", "reflect", "replicate")
    settings = {
        **window(rng),
        "dilation": whole(rng, 1, 3),
        "groups": either(rng, 1, 2),
        "padding_mode": mode,
    }
    return getattr(nn, f"Conv{end}")(either(rng, 2, 2, 2, 4), 2, **settings)


def transposed(rng: np.random.Generator, end: str) -> nn.Module:
    settings = {**window(rng), "output_padding": whole(rng, 0, 2), "dilation": whole(rng, 1, 3)}
    return getattr(nn, f"ConvTranspose{end}")(2, 2, **settings)


def padded(rng: np.random.Generator, end: str) -> nn.Module:
    sides = tuple(whole(rng, -4, 5) for _ in range(whole(rng, 1, 7)))
    mode = either(rng, "constant", "reflect", "replicate", "circular")
    kind = either(rng, "ZeroPad", "ReflectionPad", "ReplicationPad", "CircularPad")
    return either(rng, getattr(nn, kind + end)(whole(rng, -4, 5)), Layer(lambda x: F.pad(x, sides, mode)))


def adaptive(rng: np.random.Generator, end: str) -> nn.Module:
    return getattr(nn, f"AdaptiveAvgPool{end}")(either(rng, whole(rng, 0, 9), (None,) * int(end[0])))


def resized(rng: np.random.Generator, end: str) -> nn.Module:
    mode = either(rng, "nearest", "nearest-exact", "linear" if end == "1d" else "bilinear", "bicubic")
    return nn.Upsample(**either(rng, {"size": whole(rng, 0, 9)}, {"scale_factor": 1.5}), mode=mode)


MAKERS: dict[str, Make] = {
    "max": lambda rng, end: pool("Max", rng, end),
    "average": lambda rng, end: pool("Avg", rng, end),
    "convolution": convolution,
    "transposed": transposed,
    "padding": padded,
    "adaptive": adaptive,
    "resized": resized,
    "normalised": lambda rng, end: getattr(nn, f"BatchNorm{end}")(whole(rng, 1, 4)),
    "flatten": lambda rng, end: nn.Flatten(whole(rng, 1, 6), whole(rng, -6, 6)),
    "unflatten": lambda rng, end: nn.Unflatten(
        whole(rng, 1, 6), either(rng, (1, 2), (2, -1), (3, 2), (-1, -1))
    ),
    "pixels": lambda rng, end: either(rng, nn.PixelShuffle, nn.PixelUnshuffle)(whole(rng, 1, 3)),
}


@pytest.mark.parametrize("kind", MAKERS)
def test_torchs_spikes_or_one_line(kind: str) -> None:
    exported = 0
    for seed in range(14):
        rng = np.random.default_rng([list(MAKERS).index(kind), seed])
        torch.manual_seed(seed)
        end = either(rng, "1d", "2d", "2d")
        shape = (2, *(whole(rng, 3, 9) for _ in range(int(end[0]))))
        layer, first = MAKERS[kind](rng, end), either(rng, True, False)
        neurons = [snn.Leaky(beta, threshold=0.2917, init_hidden=True) for beta in (0.6131, 0.7731)]
        network = nn.Sequential(*([] if first else neurons[:1]), layer, neurons[1]).eval()
        x = torch.tensor(rng.standard_normal((STEPS, BATCH, *shape)), dtype=torch.float32)
        try:
            graph = to_nir(network, torch.zeros(2, *shape))
        except ExportError as error:
            assert "\n" not in str(error)
            assert str(error).startswith("0: " if first else "1: "), seed
            continue
        utils.reset(network)
        with torch.no_grad():
            wanted = torch.stack([network(entry) for entry in x]).transpose(0, 1).flatten(2).numpy()
        found = reference(lower(graph), x.transpose(0, 1).numpy()).outputs
        assert np.array_equal(np.reshape(found, wanted.shape), wanted), seed
        exported += 1
    assert exported


@pytest.mark.parametrize("error", [KeyError, AttributeError, IndexError, AssertionError, OSError])
def test_what_a_forward_raises_is_one_line(error: type[Exception]) -> None:
    def stop(x: Tensor) -> Tensor:
        raise error("two\nlines")

    network = nn.Sequential(nn.Sequential(nn.Flatten(), Layer(stop)), snn.Leaky(0.5, init_hidden=True))
    with pytest.raises(
        ExportError, match=rf"^0\.1: forward stops with {error.__name__}: .*two.*lines"
    ) as caught:
        to_nir(network, torch.zeros(1, 4))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("axis", [1, 2, 3])
def test_a_new_axis_is_a_reshape(axis: int) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.neurons = nn.Conv2d(1 if axis == 1 else 6, 2, 1), snn.Leaky(0.77)

        def forward(self, x: Tensor) -> Tensor:
            state, spikes = self.neurons.init_leaky(), []
            for _ in range(STEPS):
                spike, state = self.neurons(self.conv(x.unsqueeze(axis)), state)
                spikes.append(spike)
            return torch.stack(spikes)

    torch.manual_seed(axis)
    network, images = Net(), np.random.default_rng(axis).random((BATCH, 6, 5))
    with torch.no_grad():
        network.conv.weight.mul_(4)
        wanted = network(torch.tensor(images, dtype=torch.float32)).transpose(0, 1).flatten(2).numpy()
    record = reference(lower(to_nir(network, torch.zeros(1, 6, 5))), np.repeat(images[:, None], STEPS, 1))
    assert wanted.any()
    assert np.array_equal(record.outputs.reshape(wanted.shape), wanted)
