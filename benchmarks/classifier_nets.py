"""Seven snnTorch classifiers of 8x8 digits as users write them; each factory returns the module alone.

`benchmarks/classifiers.py` trains them and compiles each by the plain command.
"""

from __future__ import annotations

from typing import Any

import snntorch as snn
import torch
from snntorch import surrogate
from torch import nn
from torch.nn import functional

STEPS = 16
GRAD = surrogate.fast_sigmoid(slope=25)


class Loop(nn.Module):
    """An explicit loop over time, states passed by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.lif1 = nn.Linear(64, 96), snn.Leaky(beta=0.9, spike_grad=GRAD)
        self.fc2, self.lif2 = nn.Linear(96, 10), snn.Leaky(beta=0.9, spike_grad=GRAD)

    def forward(self, x: Any) -> Any:
        """Take (steps, batch, 64), return spikes (steps, batch, 10)."""
        mem1, mem2, out = self.lif1.init_leaky(), self.lif2.init_leaky(), []
        for step in range(x.size(0)):
            spk1, mem1 = self.lif1(self.fc1(x[step]), mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            out.append(spk2)
        return torch.stack(out)


def make_loop() -> nn.Module:
    """Return the network with an explicit loop."""
    return Loop()


def make_sequential() -> nn.Module:
    """Return a Sequential whose neurons keep their states, called once per step."""
    hidden = {"init_hidden": True, "spike_grad": GRAD}
    return nn.Sequential(
        nn.Linear(64, 96), snn.Leaky(beta=0.8, **hidden), nn.Linear(96, 10), snn.Leaky(beta=0.8, **hidden)
    )


class Normalised(nn.Module):
    """Batch normalisation and dropout, on an image that is shown at every step."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 12, 3, padding=1), nn.BatchNorm2d(12)
        self.lif1 = snn.Leaky(beta=0.85, spike_grad=GRAD)
        self.pool, self.drop = nn.AvgPool2d(2), nn.Dropout(0.2)
        self.fc, self.lif2 = nn.Linear(12 * 16, 10), snn.Leaky(beta=0.85, spike_grad=GRAD)

    def forward(self, x: Any) -> Any:
        """Take (steps, batch, 1, 8, 8), return spikes (steps, batch, 10)."""
        mem1, mem2, out = self.lif1.init_leaky(), self.lif2.init_leaky(), []
        for now in x:
            spk1, mem1 = self.lif1(self.norm(self.conv(now)), mem1)
            spk2, mem2 = self.lif2(self.fc(self.drop(self.pool(spk1).flatten(1))), mem2)
            out.append(spk2)
        return torch.stack(out, dim=0)


def make_normalised() -> nn.Module:
    """Return the network with BatchNorm and Dropout."""
    return Normalised()


class Pooled(nn.Module):
    """Max pooling of currents, before the neurons, as in snnTorch's tutorial of convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.lif1 = nn.Conv2d(1, 8, 3, padding=1), snn.Leaky(beta=0.8, spike_grad=GRAD)
        self.conv2, self.lif2 = nn.Conv2d(8, 16, 3, padding=1), snn.Leaky(beta=0.8, spike_grad=GRAD)
        self.fc, self.lif3 = nn.Linear(64, 10), snn.Leaky(beta=0.8, spike_grad=GRAD)

    def forward(self, x: Any) -> Any:
        """Take (steps, batch, 1, 8, 8), return spikes (steps, batch, 10)."""
        mem1, mem2, mem3 = self.lif1.init_leaky(), self.lif2.init_leaky(), self.lif3.init_leaky()
        out = []
        for step in range(x.shape[0]):
            spk1, mem1 = self.lif1(functional.max_pool2d(self.conv1(x[step]), 2), mem1)
            spk2, mem2 = self.lif2(functional.max_pool2d(self.conv2(spk1), 2), mem2)
            spk3, mem3 = self.lif3(self.fc(spk2.flatten(1)), mem3)
            out.append(spk3)
        return torch.stack(out)


def make_pooled() -> nn.Module:
    """Return the network that pools currents."""
    return Pooled()


class Recurrent(nn.Module):
    """Current-based recurrent neurons, row by row."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(8, 64)
        self.rnn = snn.RSynaptic(alpha=0.6, beta=0.8, linear_features=64, spike_grad=GRAD)
        self.fc2, self.out = nn.Linear(64, 10), snn.Leaky(beta=0.9, spike_grad=GRAD)

    def forward(self, x: Any) -> Any:
        """Take (steps, batch, 8), return spikes (steps, batch, 10)."""
        spk, syn, mem = self.rnn.init_rsynaptic()
        mem2, found = self.out.init_leaky(), []
        for now in x:
            spk, syn, mem = self.rnn(self.fc1(now), spk, syn, mem)
            spk2, mem2 = self.out(self.fc2(spk), mem2)
            found.append(spk2)
        return torch.stack(found)


def make_recurrent() -> nn.Module:
    """Return the network of RSynaptic."""
    return Recurrent()


class Elementwise(nn.Module):
    """Neurons that each feed back to themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(64, 80)
        self.rnn = snn.RLeaky(beta=0.8, V=0.3 * torch.ones(80), all_to_all=False, spike_grad=GRAD)
        self.fc2, self.out = nn.Linear(80, 10), snn.Leaky(beta=0.9, spike_grad=GRAD)

    def forward(self, x: Any) -> Any:
        """Take (steps, batch, 64), return spikes (steps, batch, 10)."""
        spk, mem = self.rnn.init_rleaky()
        mem2, found = self.out.init_leaky(), []
        for step in range(x.size(0)):
            spk, mem = self.rnn(self.fc1(x[step]), spk, mem)
            spk2, mem2 = self.out(self.fc2(spk), mem2)
            found.append(spk2)
        return torch.stack(found)


def make_elementwise() -> nn.Module:
    """Return the network of elementwise RLeaky."""
    return Elementwise()


class Learned(nn.Module):
    """Decays and thresholds of each neuron, learned."""

    def __init__(self) -> None:
        super().__init__()
        own = {"learn_beta": True, "learn_threshold": True, "spike_grad": GRAD}
        self.fc1 = nn.Linear(64, 96)
        self.lif1 = snn.Leaky(beta=torch.rand(96) * 0.4 + 0.5, threshold=torch.rand(96) * 0.5 + 0.75, **own)
        self.fc2 = nn.Linear(96, 10)
        self.lif2 = snn.Leaky(beta=torch.rand(10) * 0.3 + 0.6, threshold=torch.ones(10), **own)

    def forward(self, x: Any) -> Any:
        """Take (steps, batch, 64), return spikes (steps, batch, 10)."""
        mem1, mem2, found = self.lif1.init_leaky(), self.lif2.init_leaky(), []
        for step in range(x.size(0)):
            spk1, mem1 = self.lif1(self.fc1(x[step]), mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            found.append(spk2)
        return torch.stack(found)


def make_learned() -> nn.Module:
    """Return the network of learned decays and thresholds."""
    return Learned()


NETS: dict[str, tuple[Any, str]] = {
    "explicit loop": (make_loop, "flat"),
    "Sequential with init_hidden": (make_sequential, "flat"),
    "BatchNorm and Dropout": (make_normalised, "image"),
    "max pooling of currents": (make_pooled, "image"),
    "RSynaptic": (make_recurrent, "rows"),
    "RLeaky, elementwise": (make_elementwise, "flat"),
    "learned decays and thresholds": (make_learned, "flat"),
}
"""Factories by what their network shows, and the form of the data."""
