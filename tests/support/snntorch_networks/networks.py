"""Networks of snnTorch by name, and how they are built and run."""

from __future__ import annotations

import snntorch as snn
import torch
from support.snntorch_networks.modules import (
    BATCH,
    STEPS,
    ConvNet,
    Feedback,
    MembraneOnly,
    OneStep,
    Recurrent,
    Remembers,
    Residual,
    Shared,
    TimeLoop,
    dense,
    hidden,
    lif,
    mlp,
    neuron,
    sequential,
    step,
)
from torch import nn


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
