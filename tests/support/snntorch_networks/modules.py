"""Modules of snnTorch in the forms that people write."""

from __future__ import annotations

import snntorch as snn
import torch
import torch.nn.functional as F
from torch import nn

STEPS, BATCH = 20, 3


def step(x):
    """Heaviside step that keeps float64, unlike snnTorch's own."""
    return (x > 0).to(x.dtype)


def neuron(kind, *args, **options):
    return getattr(snn, kind)(*args, spike_grad=step, **options)


def leaky(beta=0.85, **options):
    return neuron("Leaky", beta, init_hidden=True, **options)


def sequential(*layers, shape=(12,), binary=False):
    def make():
        return nn.Sequential(*[layer() for layer in layers]), shape, True, binary

    return make


def dense(a, b, **options):
    return lambda: nn.Linear(a, b, **options)


def lif(*args, **options):
    return lambda: leaky(*args, **options)


def hidden(kind, *args, **options):
    return lambda: neuron(kind, *args, init_hidden=True, **options)


def mlp(middle, width=16, last=None):
    return sequential(dense(12, width), middle, dense(width, 5), last or lif(0.8, output=True))


class TimeLoop(nn.Module):
    """The tutorials' style: a loop over time, states passed by hand, records stacked."""

    def __init__(self, first, second, static=False, width=14):
        super().__init__()
        self.steps = STEPS
        self.fc1, self.fc2 = nn.Linear(12, width), nn.Linear(width, 6)
        self.lif1, self.lif2, self.static = first, second, static

    def forward(self, x):
        mem1, mem2 = self.lif1.init_leaky(), self.lif2.init_leaky()
        spk2_rec, mem2_rec = [], []
        for t in range(self.steps):
            cur1 = self.fc1(x if self.static else x[t])
            spk1, mem1 = self.lif1(cur1, mem1)
            cur2 = self.fc2(spk1)
            spk2, mem2 = self.lif2(cur2, mem2)
            spk2_rec.append(spk2)
            mem2_rec.append(mem2)
        return torch.stack(spk2_rec, dim=0), torch.stack(mem2_rec, dim=0)


class Feedback(nn.Module):
    """Two layers, the second feeds the first one step later."""

    def __init__(self, reset="subtract", bias=True):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(12, 14), nn.Linear(14, 9)
        self.back = nn.Linear(9, 14, bias=bias)
        self.lif1 = neuron("Leaky", 0.8, reset_mechanism=reset)
        self.lif2 = neuron("Synaptic", 0.6, 0.7, reset_mechanism=reset)

    def forward(self, x):
        mem1, (syn2, mem2) = self.lif1.init_leaky(), self.lif2.init_synaptic()
        spk2, record = torch.zeros(x.shape[1], 9, dtype=x.dtype), []
        for x_t in x:
            spk1, mem1 = self.lif1(self.fc1(x_t) + self.back(spk2), mem1)
            spk2, syn2, mem2 = self.lif2(self.fc2(spk1), syn2, mem2)
            record.append(spk2)
        return torch.stack(record)


class Residual(nn.Module):
    """A step with a branch around a layer, and another from two steps back."""

    def __init__(self):
        super().__init__()
        self.fc1, self.fc2, self.fc3 = nn.Linear(12, 10), nn.Linear(10, 10), nn.Linear(10, 10)
        self.lif1, self.lif2, self.lif3 = leaky(), leaky(0.7), leaky(0.9)

    def forward(self, x):
        a = self.lif1(self.fc1(x))
        b = self.lif2(self.fc2(a))
        return self.lif3(self.fc3(a + b) + 0.4 * a)


class ConvNet(nn.Module):
    """The convolutional tutorial with pooling after the spikes."""

    def __init__(self, pool, batch_norm=False):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(2, 6, 3, padding=1), nn.Conv2d(6, 4, 3, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(4) if batch_norm else nn.Identity()
        self.pool, self.fc = pool, nn.Linear(4 * 2 * 2 if pool else 4 * 4 * 4, 5)
        self.lif1 = neuron("Leaky", 0.8)
        self.lif2 = neuron("Leaky", 0.7, reset_mechanism="zero")
        self.lif3 = neuron("Leaky", 0.9)

    def forward(self, x):
        mem1 = mem2 = mem3 = None
        self.lif1.reset_mem(), self.lif2.reset_mem(), self.lif3.reset_mem()
        total = 0
        for t in range(x.size(0)):
            spk, mem1 = self.lif1(self.conv1(x[t]), mem1)
            spk = self.pool(spk) if self.pool else spk
            spk, mem2 = self.lif2(self.norm(self.conv2(spk)), mem2)
            spk, mem3 = self.lif3(self.fc(spk.view(spk.size(0), -1)), mem3)
            total = total + spk
        return total


class Recurrent(nn.Module):
    """A recurrent neuron whose spikes and states are passed by hand."""

    def __init__(self, kind, reset, **options):
        super().__init__()
        shares = (0.6, 0.75) if kind == "RSynaptic" else (0.75,)
        self.fc1, self.fc2 = nn.Linear(12, 10), nn.Linear(10, 4)
        self.rlif = neuron(kind, *shares, reset_mechanism=reset, **options)
        self.lif = neuron("Leaky", 0.8)

    def forward(self, x):
        zeros = torch.zeros(x.size(1), 10, dtype=x.dtype)
        states = (zeros, zeros, zeros) if hasattr(self.rlif, "syn") else self.rlif.init_rleaky()
        mem, record = self.lif.init_leaky(), []
        for t in range(len(x)):
            spk, *rest = self.rlif(self.fc1(x[t]), *states)
            states = (spk, *rest)
            spk2, mem = self.lif(self.fc2(spk), mem)
            record.append(spk2)
        return torch.stack(record)


class Shared(nn.Module):
    """One neuron module for two layers of different width, a layer applied to all steps at once."""

    def __init__(self):
        super().__init__()
        self.fc1, self.fc2, self.lif = nn.Linear(12, 10), nn.Linear(10, 6), neuron("Leaky", 0.8)

    def forward(self, x):
        x = x.transpose(0, 1).transpose(1, 0)
        currents, mem, first = self.fc1(x), torch.zeros(x.size(1), 10, dtype=x.dtype), []
        for t in range(x.size(0)):
            spk, mem = self.lif(currents[t], mem)
            first.append(spk)
        mem = torch.zeros(x.size(1), 6, dtype=x.dtype)
        out = torch.zeros(x.size(0), x.size(1), 6, dtype=x.dtype)
        for t, current in enumerate(self.fc2(torch.stack(first)).unbind(0)):
            out[t], mem = self.lif(current, mem)
        return out


class MembraneOnly(TimeLoop):
    """The time loop, of which only the membranes are returned."""

    def __init__(self, **options):
        super().__init__(neuron("Leaky", 0.9), neuron("Leaky", 0.95, **options))

    def forward(self, x):
        return super().forward(x)[1]


class OneStep(nn.Module):
    """A forward of one step that takes its states and returns them."""

    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(12, 10), nn.Linear(10, 6)
        self.lif1, self.lif2 = neuron("Leaky", 0.8), neuron("Synaptic", 0.5, 0.8, reset_delay=False)

    def forward(self, x, mem1, syn2, mem2):
        spk, mem1 = self.lif1(self.fc1(x), mem1)
        spk, syn2, mem2 = self.lif2(self.fc2(spk), syn2, mem2)
        return spk, mem1, syn2, mem2


class Remembers(nn.Module):
    """A step that keeps the spikes of the step before in an attribute, and joins two branches."""

    def __init__(self):
        super().__init__()
        self.fc1, self.fc2, self.rec = nn.Linear(12, 10), nn.Linear(12, 7), nn.Linear(17, 10, bias=False)
        self.lif1, self.lif2, self.last = leaky(0.8), leaky(0.6, reset_mechanism="zero"), None

    def forward(self, x):
        current = self.fc1(x)
        if self.last is not None:
            current += self.rec(self.last)
        a, b = self.lif1(current), self.lif2(self.fc2(F.dropout(x, training=self.training)))
        self.last = torch.cat([a, b], dim=1)
        return self.last - 0.5 * self.last
