"""Neurons as people write them by hand, each in its own way, and some that the compiler has none for."""

from collections import namedtuple

import torch
from torch import nn

N = 5


class Heaviside(torch.autograd.Function):
    @staticmethod
    def forward(ctx, v):
        ctx.save_for_backward(v)
        return (v > 0).float()

    @staticmethod
    def backward(ctx, grad):
        (v,) = ctx.saved_tensors
        return grad / (1 + 10 * v.abs()) ** 2


class SpikeModule(nn.Module):
    """A spike function as a module of its own."""

    def forward(self, v):
        return (v >= 0).to(v)


class SoftLIF(nn.Module):
    """Hidden state, autograd function, subtraction in the same step."""

    def __init__(self, beta=0.9, threshold=1.0):
        super().__init__()
        self.beta, self.threshold, self.mem = beta, threshold, None

    def reset(self):
        self.mem = None

    def forward(self, x):
        if self.mem is None:
            self.mem = torch.zeros_like(x)
        self.mem = self.beta * self.mem + x
        spikes = Heaviside.apply(self.mem - self.threshold)
        self.mem = self.mem - spikes * self.threshold
        return spikes


class HardLIF(nn.Module):
    """tau and >=, written with a spike module and a state in a buffer; the membrane is returned too."""

    def __init__(self, tau=2.5):
        super().__init__()
        self.tau, self.surrogate = tau, SpikeModule()
        self.register_buffer("v", torch.zeros(1), persistent=False)

    def forward(self, x):
        v = self.v if self.v.shape == x.shape else torch.zeros_like(x)
        v = v + (x - v) / self.tau
        spikes = self.surrogate(v - 0.75)
        self.v = torch.where(spikes > 0, torch.zeros_like(v), v)
        return spikes, self.v


class SoftIF(nn.Module):
    """No leak; the state lives in a dictionary and is changed in place."""

    def __init__(self):
        super().__init__()
        self.state = {}

    def forward(self, x):
        v = self.state.setdefault("v", torch.zeros_like(x))
        v.add_(x)
        fired = v.gt(0.5)
        v.sub_(fired * 0.5)
        return fired.to(x.dtype)


class HardIF(nn.Module):
    """The state is passed; reset below rest."""

    def forward(self, x, v=None):
        v = (0.0 if v is None else v) + x
        z = torch.heaviside(v - 1.5, torch.zeros(1, dtype=v.dtype))
        return z, torch.where(z.bool(), torch.full_like(v, -0.25), v)


class Synaptic(nn.Module):
    """spk, syn, mem = m(x, syn, mem), with the threshold taken off one step later, undecayed."""

    def __init__(self):
        super().__init__()
        self.alpha, self.beta = nn.Parameter(torch.tensor(0.8)), nn.Parameter(torch.tensor(0.95))

    def forward(self, x, syn, mem):
        reset = (mem > 1.0).to(x)
        syn = self.alpha * syn + x
        mem = self.beta * mem + 0.1 * syn - reset
        return (mem > 1.0).to(x), syn, mem


class CurrentSequence(nn.Module):
    """Batch first over all steps; the membrane takes the current of the step before."""

    def forward(self, x):
        v, i, out = torch.zeros_like(x[:, 0]), torch.zeros_like(x[:, 0]), []
        for t in range(x.shape[1]):
            v = 0.75 * v + i
            i = 0.5 * i + x[:, t]
            z = (v > 0.4).to(x)
            v = v * (1 - z)
            out.append(z)
        return torch.stack(out, 1)


class MixedLeaks(nn.Module):
    """The membrane leaks faster than the current in some neurons, and slower in others."""

    def __init__(self):
        super().__init__()
        self.alpha = nn.Parameter(torch.tensor([0.9, 0.3, 0.8, 0.5, 0.6]))
        self.beta = nn.Parameter(torch.tensor([0.4, 0.8, 0.0, 0.95, 0.6]))

    def forward(self, x, state=None):
        i, v = state if state is not None else (torch.zeros_like(x), torch.zeros_like(x))
        i = self.alpha * i + x
        v = self.beta * v + i
        z = (v > 2.0).to(x)
        return z, [i, v * (1 - z)]


class AdaptiveLIF(nn.Module):
    """The threshold rises with every spike; the reset takes off the threshold of the moment."""

    def forward(self, x, state=None):
        v, a = state if state is not None else (torch.zeros_like(x), torch.zeros_like(x))
        threshold = 1 + 0.5 * a
        v = 0.8 * v + 0.3 * x
        z = Heaviside.apply(v - threshold).to(x)
        return z, (v - z * threshold, 0.9 * a + z)


class LearnedSequence(nn.Module):
    """Time first over all steps; every neuron has learned its own leak and threshold."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        self.w = nn.Parameter(torch.randn(N, generator=generator) + 1.5)
        self.threshold = nn.Parameter(0.3 + torch.rand(N, generator=generator))

    def forward(self, x):
        decay, v, out = torch.sigmoid(self.w), torch.zeros_like(x[0]), []
        for current in x:
            v = decay * v + (1 - decay) * current
            z = (v >= self.threshold).to(x)
            v = v - z * self.threshold
            out.append(z)
        return torch.stack(out), v


class ResetFirst(nn.Module):
    """The reset of a spike happens at the beginning of the next step."""

    def __init__(self):
        super().__init__()
        self.v = self.z = None

    def forward(self, x):
        if self.v is None:
            self.v = self.z = torch.zeros_like(x)
        self.v = 0.6 * (self.v - self.z) + x
        self.z = (self.v > 1.0).to(x)
        return self.z


class ResetAfter(nn.Module):
    """The step after a spike ends at 0, whatever comes in."""

    def forward(self, x, state=None):
        v, z = (torch.zeros_like(x),) * 2 if state is None else state
        v = (0.85 * v + x) * (1 - z)
        z = (v > 0.9).to(x)
        return z, (v, z)


State = namedtuple("State", ["voltage"])


class LeakPotential(nn.Module):
    """A resting potential where the membrane also begins; a named tuple as state."""

    def forward(self, x, state=None):
        v = torch.full_like(x, 0.25) if state is None else state.voltage
        v = v + 0.125 * (0.25 - v + x)
        z = (v > 1.0).to(x)
        return z, State(v - z * (v - 0.1))


class MultiSpike(nn.Module):
    """Several spikes in one step, and a lower bound; batch first."""

    def forward(self, x):
        v, out = torch.zeros_like(x[:, 0]), []
        for t in range(x.shape[1]):
            v = 0.9 * v + x[:, t]
            z = torch.where(v >= 1.0, torch.div(v, 1.0, rounding_mode="floor"), torch.zeros_like(v))
            v = (v - z).clamp(min=-1.0)
            out.append(z)
        return torch.stack(out, 1)


class Channels(nn.Module):
    """Feature maps with one leak per channel; spikes weigh 2."""

    shape = (3, 2, 2)

    def __init__(self):
        super().__init__()
        self.register_buffer("beta", torch.tensor([0.5, 0.8, 0.95]).reshape(3, 1, 1))

    def forward(self, x, v=None):
        v = torch.zeros_like(x) if v is None else v
        v = self.beta * v + x
        z = (v > 1.0).to(x)
        return 2 * z, v - z * v


class Pending(nn.Module):
    """A membrane that stays above threshold after a spike must pass twice the threshold."""

    def forward(self, x, v=None):
        v = torch.zeros_like(x) if v is None else v
        again = (v > 1.0).to(x)
        v = 0.9 * v + x
        z = (v - again > 1.0).to(x)
        return z, v - z


class Single(nn.Module):
    """Casts what it gets to float32 whatever it is, with a leak and gain from a time constant."""

    def __init__(self, tau=17.3):
        super().__init__()
        self.tau, self.v = tau, None

    def forward(self, x):
        x = x.float()
        self.v = torch.zeros_like(x) if self.v is None else self.v
        decay = torch.exp(torch.tensor(-1 / self.tau))
        self.v = decay * self.v + (1 - decay) * x
        z = (self.v >= 0.3).float()
        self.v = self.v * (1 - z)
        return z


class Readout(nn.Module):
    """A leaky integrator without spikes."""

    def forward(self, x, v=None):
        v = torch.zeros_like(x) if v is None else v
        v = 0.9 * v + 0.1 * x
        return v, v


NEURONS = {
    "soft_lif": SoftLIF,
    "hard_lif": HardLIF,
    "soft_if": SoftIF,
    "hard_if": HardIF,
    "synaptic": Synaptic,
    "current_sequence": CurrentSequence,
    "mixed_leaks": MixedLeaks,
    "adaptive": AdaptiveLIF,
    "learned_sequence": LearnedSequence,
    "reset_first": ResetFirst,
    "reset_after": ResetAfter,
    "leak_potential": LeakPotential,
    "multi_spike": MultiSpike,
    "channels": Channels,
    "pending": Pending,
    "single": Single,
    "readout": Readout,
}


class Refractory(nn.Module):
    """Two silent steps after a spike."""

    def forward(self, x, state=None):
        v, rest = (torch.zeros_like(x),) * 2 if state is None else state
        v = torch.where(rest > 0, torch.zeros_like(x), 0.9 * v + x)
        z = (v > 1.0).to(x)
        return z, (v * (1 - z), torch.where(z > 0, torch.full_like(x, 2.0), rest - 1))


class SaturatingLeak(nn.Module):
    """A leak that is linear for small membranes only."""

    def forward(self, x, v=None):
        v = torch.zeros_like(x) if v is None else v
        v = v - 0.1 * torch.tanh(v) + x
        z = (v > 1.0).to(x)
        return z, v - z


class QuadraticThreshold(nn.Module):
    """The threshold falls with the square of the membrane a step ago."""

    def forward(self, x, v=None):
        v = torch.zeros_like(x) if v is None else v
        threshold = 1.0 - 0.1 * v**2
        v = 0.9 * v + x
        z = (v > threshold).to(x)
        return z, v * (1 - z)


class Stochastic(SoftLIF):
    def forward(self, x):
        return super().forward(x + 0.1 * torch.randn_like(x))


class BatchCoupled(SoftLIF):
    def forward(self, x):
        return super().forward(x - x.mean(0))


class Ordered(SoftLIF):
    """The first sample of a batch is treated otherwise."""

    def forward(self, x):
        weight = torch.ones(len(x), 1, dtype=x.dtype)
        weight[0] = 0.5
        return super().forward(x * weight)


class Lateral(SoftLIF):
    def forward(self, x):
        spikes = super().forward(x)
        self.mem = self.mem - 0.2 * spikes.sum(-1, keepdim=True)
        return spikes


class Stateless(nn.Module):
    def forward(self, x):
        return (x > 1.0).to(x)


class Anticipating(nn.Module):
    """Knows what is yet to come."""

    def forward(self, x):
        return (x.flip(0).cumsum(0) > 1.0).to(x)


class Mute(SoftLIF):
    def forward(self, x):
        return super().forward(x.clamp(max=0.5) * 0)


class Restless(SoftLIF):
    def forward(self, x):
        return super().forward(x + 1.2)
