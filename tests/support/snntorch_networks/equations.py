"""The equations of an exported graph, step by step."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F


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
