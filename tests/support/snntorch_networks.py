"""Networks of snnTorch with random weights, and what they do by themselves: spikes of every layer.

Everything is in float64 (with a spike function that keeps the type), so that spikes can be compared one by
one. `NETWORKS` maps a name to a function that returns module, inputs (steps, batch, *shape) and whether the
forward is one step; `run` steps the module as its author would.
"""

from __future__ import annotations

import numpy as np
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


def module_of(make, shape=(12,), one_step=False, binary=False):
    return lambda: (make(), shape, one_step, binary)


def vector(n, low, high):
    return torch.linspace(low, high, n)


IMAGE = (2, 10, 10)
NETWORKS = {
    "leaky subtract": mlp(lif()),
    "leaky zero": mlp(lif(0.9, reset_mechanism="zero")),
    "leaky none": mlp(lif(0.6, reset_mechanism="none")),
    "leaky subtract, no reset delay": mlp(lif(0.9, reset_delay=False, threshold=0.4)),
    "leaky zero, no reset delay": mlp(lif(reset_mechanism="zero", reset_delay=False)),
    "leaky per neuron, learnt": mlp(
        lif(vector(16, 0.3, 1.2), threshold=vector(16, 0.5, 1.5), learn_beta=True, learn_threshold=True)
    ),
    "leaky without leak": mlp(lif(1.0), last=lif(0.0, output=True)),
    "leaky graded": mlp(lif(0.8, graded_spikes_factor=0.6)),
    "leaky graded per neuron": mlp(lif(0.8, graded_spikes_factor=vector(16, -0.5, 1.5), reset_delay=False)),
    "lapicque": mlp(hidden("Lapicque", 0.8), last=hidden("Lapicque", False, 4.0, 1.25, output=True)),
    "lapicque zero": mlp(hidden("Lapicque", R=5, C=1.5, time_step=1.0, reset_mechanism="zero")),
    "synaptic subtract": mlp(hidden("Synaptic", 0.6, 0.8)),
    "synaptic zero": mlp(hidden("Synaptic", 0.7, 0.6, reset_mechanism="zero")),
    "synaptic none": mlp(hidden("Synaptic", 0.4, 0.5, reset_mechanism="none")),
    "synaptic, no reset delay": mlp(hidden("Synaptic", vector(16, 0.1, 0.7), 0.8, reset_delay=False)),
    "synaptic zero, no reset delay": mlp(
        hidden("Synaptic", 0.6, 0.8, reset_mechanism="zero", reset_delay=False)
    ),
    "rleaky subtract": mlp(hidden("RLeaky", 0.8, linear_features=16)),
    "rleaky zero": mlp(hidden("RLeaky", 0.8, linear_features=16, reset_mechanism="zero")),
    "rleaky elementwise": mlp(hidden("RLeaky", 0.8, V=vector(16, -0.9, 0.9), all_to_all=False)),
    "rleaky, no reset delay": mlp(hidden("RLeaky", 0.7, linear_features=16, reset_delay=False)),
    "rleaky by hand": module_of(lambda: Recurrent("RLeaky", "zero", linear_features=10)),
    "rsynaptic subtract": mlp(hidden("RSynaptic", 0.5, 0.7, linear_features=16)),
    "rsynaptic zero": mlp(hidden("RSynaptic", 0.5, 0.7, linear_features=16, reset_mechanism="zero")),
    "rsynaptic by hand": module_of(lambda: Recurrent("RSynaptic", "zero", V=0.4, all_to_all=False)),
    "rsynaptic by hand, no reset delay": module_of(
        lambda: Recurrent("RSynaptic", "subtract", linear_features=10, reset_delay=False)
    ),
    "flatten, mlp": sequential(
        nn.Flatten, dense(18, 14), lif(), dense(14, 5, bias=False), lif(0.7, output=True), shape=(2, 3, 3)
    ),
    "mlp, batch norm, dropout": sequential(
        dense(12, 16), lambda: nn.BatchNorm1d(16), lif(), nn.Dropout, nn.Identity, dense(16, 5), lif(0.7)
    ),
    "batch norm of the input": sequential(
        lambda: nn.BatchNorm1d(12), nn.Dropout, dense(12, 16), lif(), lambda: nn.BatchNorm1d(16), lif(0.6)
    ),
    "time loop": module_of(lambda: TimeLoop(neuron("Leaky", 0.9), neuron("Leaky", 0.8))),
    "time loop, static input": module_of(
        lambda: TimeLoop(neuron("Leaky", 0.9, reset_mechanism="zero"), neuron("Leaky", 0.8), static=True)
    ),
    "time loop, no reset delay": module_of(
        lambda: TimeLoop(neuron("Leaky", 0.9, reset_delay=False), neuron("Leaky", 0.8, reset_delay=False))
    ),
    "two-layer feedback": module_of(Feedback),
    "two-layer feedback, zero": module_of(lambda: Feedback("zero", bias=False)),
    "residual": module_of(Residual, one_step=True),
    "one neuron module, two layers": module_of(Shared),
    "one step, states by hand": module_of(OneStep, one_step=True),
    "one step, remembered spikes": module_of(Remembers, one_step=True),
    "conv, max pool": module_of(lambda: ConvNet(nn.MaxPool2d(2)), IMAGE, binary=True),
    "conv, average pool": module_of(lambda: ConvNet(nn.AvgPool2d(2)), IMAGE, binary=True),
    "conv, batch norm": module_of(lambda: ConvNet(None, batch_norm=True), IMAGE, binary=True),
    "conv, groups, dilation, same": sequential(
        lambda: nn.Conv2d(2, 6, (3, 2), padding="same", groups=2, dilation=(1, 2)),
        lif(vector(6, 0.5, 0.9).reshape(6, 1, 1)),
        lambda: nn.MaxPool2d(3, stride=2, padding=1),
        lambda: nn.Conv2d(6, 4, 3, stride=(2, 1), padding=(0, 1), bias=False),
        lambda: nn.BatchNorm2d(4),
        lif(0.6, reset_mechanism="zero"),
        lambda: nn.AdaptiveAvgPool2d(1),
        nn.Flatten,
        dense(4, 5),
        lif(0.9),
        shape=IMAGE,
    ),
    "conv1d": sequential(
        lambda: nn.Conv1d(3, 6, 3, stride=2, padding=1),
        lambda: nn.BatchNorm1d(6),
        lif(),
        lambda: nn.MaxPool1d(2),
        lambda: nn.Conv1d(6, 4, 2, dilation=2, groups=2),
        lif(0.7),
        lambda: nn.AvgPool1d(2),
        nn.Flatten,
        dense(4, 4),
        lif(0.9),
        shape=(3, 16),
    ),
    "conv recurrent": sequential(
        lambda: nn.Conv2d(2, 3, 3, stride=2),
        hidden("RLeaky", 0.7, conv2d_channels=3, kernel_size=3, reset_mechanism="zero"),
        nn.Flatten,
        dense(48, 4),
        lif(0.7),
        shape=IMAGE,
        binary=True,
    ),
    "membrane read-out of spiking neurons": module_of(MembraneOnly),
    "membrane read-out without spikes": module_of(lambda: MembraneOnly(reset_mechanism="none")),
    "spikes and membranes, no reset": mlp(
        lif(0.9), last=hidden("Synaptic", 0.5, 0.9, reset_mechanism="none", output=True)
    ),
}


def states_of(module, batch):
    """Return zero states for the networks whose step takes them."""
    return (
        tuple(torch.zeros(batch, n, dtype=torch.float64) for n in (10, 6, 6))
        if isinstance(module, OneStep)
        else ()
    )


def sample_of(module, inputs, one_step, static=False):
    """Return what forward takes."""
    if one_step:
        states = states_of(module, inputs.shape[1])
        return (inputs[0], *states) if states else inputs[0]
    return inputs[0] if static else inputs


def neurons_of(module):
    """Return path and module of every neuron."""
    return [(path, layer) for path, layer in module.named_modules() if isinstance(layer, snn.SpikingNeuron)]


def as_released(module):
    """Return the network in float32 with snnTorch's own spike function."""
    for _, layer in neurons_of(module):
        layer.spike_grad = snn.surrogate.atan()
    return module.float()


def in_float64(module):
    """Return the network in float64, its states forgotten."""
    for _, layer in neurons_of(module):
        layer.spike_grad = step
        layer.reset_mem()
    return module.double()


def trainable():
    """Return a time loop with snnTorch's own surrogates and learnable decays."""
    first = snn.Leaky(0.9, learn_beta=True, learn_threshold=True, reset_mechanism="zero")
    module = TimeLoop(first, snn.Leaky(0.8, learn_beta=True))
    module.steps = 15
    return randomised(module, 2.0)


def build(name, seed=0):
    """Return module, inputs (steps, batch, *shape) and whether forward is a step; all layers are lively."""
    static = "static" in name
    for attempt in range(60):
        torch.manual_seed(1000 * seed + attempt)
        module, shape, one_step, binary = NETWORKS[name]()
        gain = 1.0 + 0.15 * (attempt % 20)
        module = randomised(module, gain).double()
        inputs = torch.rand(STEPS, BATCH, *shape, dtype=torch.float64)
        inputs = (inputs < 0.4).double() if binary else 2 * inputs - 0.6
        inputs = inputs[:1].expand(STEPS, *inputs.shape[1:]).contiguous() if static else inputs
        _, spikes = run(module, inputs, one_step, static)
        if all(0.02 < layer.mean() < 0.6 for layer in spikes.values()):
            return module, inputs, one_step
    raise AssertionError(f"{name}: no lively weights; { ({n: float(s.mean()) for n, s in spikes.items()}) }")


def randomised(module, gain):
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, (nn.Linear, nn.Conv1d, nn.Conv2d)):
                layer.weight.mul_(gain)
                if layer.bias is not None:
                    layer.bias.add_(0.1 * torch.rand_like(layer.bias))
            elif isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)):
                layer.running_mean.uniform_(-0.2, 0.2)
                layer.running_var.uniform_(0.1, 0.4)
                layer.weight.uniform_(0.5, 1.5)
                layer.bias.uniform_(0.0, 0.4)
    return module


def run(module, inputs, one_step, static=False):
    """Return what forward gives and the spikes of every neuron module by path (batch, steps, *shape)."""
    record, handles = {}, []
    for path, layer in module.named_modules():
        if isinstance(layer, snn.SpikingNeuron):
            layer.reset_mem()
            calls = record.setdefault(path, [])
            handles.append(
                layer.register_forward_hook(
                    lambda _m, _x, y, calls=calls: calls.append(y[0] if isinstance(y, tuple) else y)
                )
            )
    if hasattr(module, "last"):
        module.last = None
    module.eval()
    with torch.no_grad():
        if one_step:
            states, steps = states_of(module, inputs.shape[1]), []
            for x in inputs:
                returned = module(x, *states)
                if states:
                    returned, *states = returned
                steps.append(returned[0] if isinstance(returned, tuple) else returned)
            outputs = torch.stack(steps)
        else:
            outputs = module(inputs[0] if static else inputs)
            outputs = outputs[0] if isinstance(outputs, tuple) else outputs
    for handle in handles:
        handle.remove()
    spikes = {}
    for path, calls in record.items():
        shapes = list(dict.fromkeys(tuple(c.shape) for c in calls))
        for number, shape in enumerate(shapes):
            layer = [c for c in calls if tuple(c.shape) == shape]
            spikes[path + ("" if number == 0 else f"_{number + 1}")] = torch.stack(layer, 1).numpy()
    return outputs.numpy(), spikes


def node_name(module, path):
    """Return the name that the export gives to the node of a module."""
    modules = dict(module.named_modules())
    if path not in modules:  # the second layer of a shared module
        return path
    return f"{type(modules[path]).__name__.lower()}_{path}" if path.isdigit() else path


def simulate(graph, inputs, contract):
    """Step NIR's equations under the contract, written from the contract alone; returns spikes by node."""
    dt, out, state, last = contract.dt, {}, {}, {}
    order = _order(graph, contract.delays)
    for t in range(inputs.shape[1]):
        for name in order:
            node = graph.nodes[name]
            x = 0.0
            for a, b in graph.edges:
                past = t - contract.delays.get((a, b), 0)
                if b == name:
                    x = x + (out[a][past] if past >= 0 else np.zeros((len(inputs), *_shape(graph, a))))
            y = inputs[:, t] if name == "input" else _apply(name, node, x, state, last, contract, dt)
            out.setdefault(name, []).append(y)
    return {name: np.stack(steps, 1) for name, steps in out.items()}


def _shape(graph, name):
    return tuple(np.atleast_1d(graph.nodes[name].output_type["output"]))


def _order(graph, delays):
    order, left = [], dict(graph.nodes)
    while left:
        ready = [n for n in left if all(a in order or delays.get((a, b)) for a, b in graph.edges if b == n)]
        assert ready, "a cycle without a delay"
        order += ready
        left = {n: node for n, node in left.items() if n not in ready}
    return order


def _apply(name, node, x, state, last, contract, dt):
    kind = type(node).__name__
    if kind in ("Linear", "Affine"):
        return x @ np.asarray(node.weight, float).T + getattr(node, "bias", 0.0)
    if kind in ("Conv1d", "Conv2d"):
        function = F.conv1d if kind == "Conv1d" else F.conv2d
        weight, bias = (torch.as_tensor(np.asarray(a, float)) for a in (node.weight, node.bias))
        geometry = [
            g if isinstance(g, str) else tuple(int(n) for n in np.atleast_1d(g))
            for g in (node.stride, node.padding, node.dilation)
        ]
        return function(torch.as_tensor(x), weight, bias, *geometry, node.groups).numpy()
    if kind in ("AvgPool2d", "SumPool2d"):
        size, stride, padding = (
            tuple(int(n) for n in a) for a in (node.kernel_size, node.stride, node.padding)
        )
        mean = F.avg_pool2d(torch.as_tensor(x), size, stride, padding).numpy()
        return mean * (size[0] * size[1] if kind == "SumPool2d" else 1)
    if kind == "Flatten":
        return x.reshape(len(x), *np.atleast_1d(node.output_type["output"]))
    if kind == "Scale":
        return x * node.scale
    if kind == "Threshold":
        return (x > node.threshold).astype(float)
    return x if kind == "Output" else _neuron(name, node, kind, x, state, last, contract.of(name), dt)


def _neuron(name, node, kind, x, state, last, rule, dt):
    i, v = state.get(name, (np.zeros_like(x), np.zeros_like(x)))
    if kind.startswith("Cuba"):
        i = i + dt / node.tau_syn * (node.w_in * x - i)
        drive, tau = i, node.tau_mem
    else:
        drive, tau = x, getattr(node, "tau", None)
    fired_before, pending = last.get(name, np.zeros(x.shape, bool)), None
    theta = getattr(node, "v_threshold", np.inf)
    if rule.reset_timing == "next_before":
        v = np.where(fired_before, 0.0, v) if rule.reset == "value" else v - theta * fired_before
    if rule.reset_timing == "pending":
        pending = v > theta
    v = v + dt * node.r * drive if kind == "IF" else v + dt / tau * (node.v_leak - v + node.r * drive)
    if kind in ("LI", "CubaLI"):
        state[name] = (i, v)
        return v
    if rule.reset_timing == "next_after":
        v = np.where(fired_before, 0.0, v) if rule.reset == "value" else v - theta * fired_before
    fired = v - theta * pending > theta if pending is not None else v > theta
    if rule.reset_timing in ("same_step", "pending") and rule.reset != "none":
        v = np.where(fired, 0.0, v) if rule.reset == "value" else v - theta * fired
    state[name], last[name] = (i, v), fired
    return fired.astype(float)
