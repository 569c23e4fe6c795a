"""What a NIR graph and a contract mean, step by step, in plain numpy over the graph's own nodes.

Nothing is folded, multiplied together or reordered, and nothing of snn-compile is imported: only numpy and
nir, for its node types. Values are float64 of shape (batch, *shape). A step goes through the graph from
its outputs back: what a node sends at step t is a function of what arrives at it at step t over all its
edges, an edge of delay D bringing what its source sent at t - D. Before step 0 inputs and neurons send 0,
and linear nodes do to that what they always do, so that a bias is there from the first step. A neuron
that hears itself over a path without delay hears its step before.

The contract is a mapping (as in a case's JSON file): `dt`, and where they differ from DEFAULTS its items;
`delays` lists [source, target, steps]; `nodes` maps a node's name to items that hold for it alone. Nodes
inside nested graphs are named "outer.inner"; an edge to a nested graph goes to its Input node.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import nir
import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.float64]

SPIKING = (nir.LIF, nir.CubaLIF, nir.IF, nir.Threshold)
NEURONS = (*SPIKING, nir.LI, nir.CubaLI, nir.I)

DEFAULTS: dict[str, Any] = {
    "rule": "euler",
    "gain": "as_written",
    "spike_amplitude": 1.0,
    "comparison": ">",
    "reset": "value",
    "reset_timing": "same_step",
    "update_order": "synapse_first",
    "current_decay": "before",
    "spikes_per_step": "one",
    "v_min": None,
    "v_init": 0.0,
    "delays": (),
    "nodes": {},
}


def inlined(graph: nir.NIRGraph, prefix: str = "") -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """Return nodes by full name and edges, nested graphs replaced by what is in them."""
    nodes, edges = {}, []
    ends: dict[str, tuple[str, str]] = {}
    for name, node in graph.nodes.items():
        if isinstance(node, nir.NIRGraph):
            inner, inside = inlined(node, f"{prefix}{name}.")
            nodes |= inner
            edges += inside
            entry = next(n for n, item in node.nodes.items() if isinstance(item, nir.Input))
            leave = next(n for n, item in node.nodes.items() if isinstance(item, nir.Output))
            ends[name] = (f"{prefix}{name}.{entry}", f"{prefix}{name}.{leave}")
        else:
            nodes[prefix + name] = node
    for a, b in graph.edges:
        edges.append((ends[a][1] if a in ends else prefix + a, ends[b][0] if b in ends else prefix + b))
    return nodes, edges


class Equations:
    """A run of a graph: `sent[node]` and, of neurons and outputs, `v[node]`, (batch, steps, *shape).

    `inputs`: Input node to (batch, steps, *shape). `v` is the membrane at the end of a step, after the
    reset and the clip; of an Output node what arrives at it. `sent` of a spiking neuron is its number of
    spikes times spike_amplitude.
    """

    def __init__(self, graph: nir.NIRGraph, contract: Mapping[str, Any], inputs: Mapping[str, Any]) -> None:
        self.nodes, edges = inlined(graph)
        self.contract = {**DEFAULTS, **contract}
        late = {(a, b): int(steps) for a, b, steps in self.contract["delays"]}
        self.sources: dict[str, list[tuple[str, int]]] = {name: [] for name in self.nodes}
        for a, b in dict.fromkeys(edges):
            self.sources[b].append((a, late.get((a, b), 0)))
        self.inputs = {name: np.asarray(data, np.float64) for name, data in inputs.items()}
        self.batch, self.steps = next(iter(self.inputs.values())).shape[:2]
        self._state: dict[str, dict[str, Any]] = {}
        self._known: dict[tuple[str, int, str], Float] = {}
        self.sent: dict[str, Any] = {}
        self.v: dict[str, Any] = {}
        watched = [n for n, node in self.nodes.items() if isinstance(node, (*NEURONS, nir.Output))]
        watched = [n for n in watched if "." not in n or isinstance(self.nodes[n], NEURONS)]
        for t in range(self.steps):
            self._now = t
            for name in watched:
                value = self._leaving(name, t, name)
                self.sent.setdefault(name, []).append(value)
                membrane = self._state[name]["v"] if name in self._state else value
                self.v.setdefault(name, []).append(membrane)
        self.sent = {name: np.stack(values, axis=1) for name, values in self.sent.items()}
        self.v = {name: np.stack(values, axis=1) for name, values in self.v.items()}

    def items(self, name: str) -> dict[str, Any]:
        """Return the contract as it holds for a node."""
        return {**self.contract, **self.contract["nodes"].get(name, {})}

    def _leaving(self, name: str, t: int, listener: str) -> Float:
        """Return what a node sends at step t, as the neuron `listener` hears it."""
        node = self.nodes[name]
        neuron = isinstance(node, NEURONS)
        listener = name if neuron else listener if t == self._now else ""
        if name in self.inputs or (neuron and t < 0):
            shape = np.atleast_1d(node.input_type["input"])
            return self.inputs[name][:, t] if t >= 0 else np.zeros((self.batch, *shape))
        if (name, t, listener) not in self._known:
            if isinstance(node, nir.Delay):
                value = self._delayed(name, node, t, listener)
            elif neuron:
                x = self._arriving(name, t, listener, np.shape(first_parameter(node)))
                value = self._neuron(name, node, x)
            else:
                value = linear(node, self._arriving(name, t, listener))
            self._known[name, t, listener] = value
        return self._known[name, t, listener]

    def _arriving(self, name: str, t: int, listener: str, shape: tuple[int, ...] | None = None) -> Float:
        """Return the sum over a node's edges, in a shape or in that of the first."""
        x = [self._heard(source, t - late, listener) for source, late in self.sources[name]]
        total = np.zeros((self.batch, *(x[0].shape[1:] if shape is None else shape or (1,))))
        for value in x:
            total = total + value.reshape(total.shape)
        return total

    def _heard(self, source: str, t: int, listener: str) -> Float:
        own = source == listener and (source, t, listener) not in self._known and t >= 0
        return self._leaving(source, t - 1 if own else t, listener)

    def _delayed(self, name: str, node: nir.Delay, t: int, listener: str) -> Float:
        """Return x_i(t - n_i) for every element i."""
        late = np.rint(np.ravel(node.delay) / self.contract["dt"]).astype(int)
        value = None
        for steps in np.unique(late):
            arriving = self._arriving(name, t - int(steps), listener)
            chosen = np.broadcast_to(late == steps, arriving[0].size).reshape(arriving.shape[1:])
            value = np.where(chosen, arriving, np.zeros_like(arriving) if value is None else value)
        assert value is not None
        return value

    def _neuron(self, name: str, node: Any, x: Float) -> Float:
        """Advance a neuron node by one step with input x; return what it sends."""
        rule = self.items(name)
        if isinstance(node, nir.Threshold):
            self._state[name] = {"v": x}
            return rule["spike_amplitude"] * past(rule, x, node.threshold)
        state = self._state.setdefault(
            name, {"v": initial(rule, node, x), "i": np.zeros_like(x), "n": np.zeros_like(x)}
        )
        v, last = state["v"], state["n"]
        spiking = isinstance(node, SPIKING)
        began_past = past(rule, v, node.v_threshold) if spiking else None
        if spiking and rule["reset_timing"] == "next_before":
            v = reset(rule, node, v, last)
        v = v + self._change(rule, node, v, x, state)
        if not spiking:
            state["v"] = v
            return v
        if rule["reset_timing"] == "next_after":
            v = reset(rule, node, v, last)
        n = spikes(rule, node, v, began_past)
        if rule["reset_timing"] in ("same_step", "pending"):
            v = reset(rule, node, v, n)
        state["v"] = v if rule["v_min"] is None else np.maximum(v, rule["v_min"])
        state["n"] = n
        return rule["spike_amplitude"] * n

    def _change(self, rule: Mapping[str, Any], node: Any, v: Float, x: Float, state: dict[str, Any]) -> Float:
        """Return what a step adds to the membrane, and update the synaptic current."""
        gain = rule["gain"]
        if isinstance(node, (nir.IF, nir.I)):
            return rule["dt"] * node.r * x if gain == "as_written" else x
        if isinstance(node, (nir.LIF, nir.LI)):
            lost = share(rule, node.tau)
            drive = {"as_written": lost * node.r * x, "unit": x, "norm": lost * x, "decayed": (1 - lost) * x}
            return lost * (node.v_leak - v) + drive[gain]
        kept, lost = 1 - share(rule, node.tau_syn), share(rule, node.tau_mem)
        old = state["i"]
        if gain == "decayed":  # the input decays with the current once, and neither r nor tau_mem acts on it
            enters, acts = kept * x, 1.0
        else:
            enters = {"as_written": (1 - kept) * node.w_in * x, "unit": x, "norm": (1 - kept) * x}[gain]
            acts = lost if gain == "norm" else lost * node.r
        if rule["current_decay"] == "before":
            state["i"] = drive_now = kept * old + enters
        else:
            drive_now = old + enters
            state["i"] = kept * drive_now
        drive_now = old if rule["update_order"] == "membrane_first" else drive_now
        return lost * (node.v_leak - v) + acts * drive_now


def first_parameter(node: Any) -> Any:
    """Return a parameter that has the node's shape."""
    return node.threshold if isinstance(node, nir.Threshold) else node.r


def share(rule: Mapping[str, Any], tau: Any) -> Any:
    """Return what is lost a step: dt/tau (euler) or 1 - exp(-dt/tau) (exponential)."""
    ratio = rule["dt"] / np.asarray(tau, np.float64)
    return ratio if rule["rule"] == "euler" else 1.0 - np.exp(-ratio)


def initial(rule: Mapping[str, Any], node: Any, x: Float) -> Float:
    """Return the membrane before the first step: a number, v_leak or v_reset (0 where there is none)."""
    start = rule["v_init"]
    return np.zeros_like(x) + (getattr(node, start, 0.0) if isinstance(start, str) else start)


def past(rule: Mapping[str, Any], v: Float, height: Any) -> Any:
    """Return whether a membrane is past a height."""
    return v > height if rule["comparison"] == ">" else v >= height


def spikes(rule: Mapping[str, Any], node: Any, v: Float, began_past: Any) -> Float:
    """Return how many spikes leave: one, or as many as there are thresholds that v has passed."""
    threshold = node.v_threshold
    if rule["reset_timing"] == "pending":  # a membrane that began the step past it has to pass two
        return np.asarray(past(rule, v, np.where(began_past, 2 * threshold, threshold)), np.float64)
    n = np.asarray(past(rule, v, threshold), np.float64)
    while rule["spikes_per_step"] == "floor" and (more := past(rule, v, (n + 1) * threshold) & (n > 0)).any():
        n = n + more
    return n


def reset(rule: Mapping[str, Any], node: Any, v: Float, n: Float) -> Float:
    """Return the membrane after the reset that n spikes cause."""
    if rule["reset"] == "value":
        return np.where(n > 0, node.v_reset, v)
    return v - n * node.v_threshold if rule["reset"] == "subtract" else v


def linear(node: Any, x: Float) -> Float:
    """Return what a node without memory makes of x (batch, *shape)."""
    if isinstance(node, (nir.Affine, nir.Linear)):
        y = x.reshape(len(x), -1) @ np.asarray(node.weight, np.float64).T
        return y + node.bias if isinstance(node, nir.Affine) else y
    if isinstance(node, nir.Scale):
        return x * (node.scale if np.size(node.scale) == 1 else np.reshape(node.scale, x.shape[1:]))
    if isinstance(node, nir.Flatten):
        first, last = int(node.start_dim), int(node.end_dim)
        shape = x.shape[1:]
        stop = last + 1 if last >= 0 else len(shape) + last + 1
        return x.reshape(len(x), *shape[:first], -1, *shape[stop:])
    if isinstance(node, nir.Conv2d):
        return correlation(x, node.weight, two(node.stride), node.padding, two(node.dilation), node.groups,
                           node.bias)  # fmt: skip
    if isinstance(node, nir.Conv1d):
        padding = (
            node.padding if isinstance(node.padding, (str, bytes)) else (0, int(np.ravel(node.padding)[0]))
        )
        y = correlation(x[:, :, None], node.weight[:, :, None], (1, int(np.ravel(node.stride)[0])), padding,
                        (1, int(np.ravel(node.dilation)[0])), node.groups, node.bias)  # fmt: skip
        return y[:, :, 0]
    if isinstance(node, (nir.SumPool2d, nir.AvgPool2d)):
        size = two(node.kernel_size)
        value = 1.0 if isinstance(node, nir.SumPool2d) else 1.0 / (size[0] * size[1])
        kernel = np.full((x.shape[1], 1, *size), value)
        return correlation(x, kernel, two(node.stride), two(node.padding), (1, 1), x.shape[1], 0.0)
    assert isinstance(node, (nir.Input, nir.Output)), node
    return x


def two(value: Any) -> tuple[int, int]:
    """Return one number or two as two."""
    values = [int(n) for n in np.ravel(value)]
    return values[0], values[-1]


def correlation(x: Float, kernel: Any, stride: tuple[int, int], padding: Any, dilation: tuple[int, int],
                groups: Any, bias: Any) -> Float:  # fmt: skip
    """Correlate x (batch, channels, height, width) with kernel (out, channels / groups, height, width)."""
    kernel, groups = np.asarray(kernel, np.float64), int(groups)
    reach = [dilation[i] * (kernel.shape[2 + i] - 1) for i in range(2)]
    name = padding.decode() if isinstance(padding, bytes) else padding
    if isinstance(name, str):
        pads = [(n // 2, n - n // 2) if name == "same" else (0, 0) for n in reach]
    else:
        pads = [(n, n) for n in two(padding)]
    x = np.pad(x, [(0, 0), (0, 0), *pads])
    out = [(x.shape[2 + i] - reach[i] - 1) // stride[i] + 1 for i in range(2)]
    y = np.zeros((len(x), len(kernel), *out))
    ins, outs = x.shape[1] // groups, len(kernel) // groups
    for g in range(groups):
        part, own = x[:, g * ins : (g + 1) * ins], kernel[g * outs : (g + 1) * outs]
        for row in range(out[0]):
            for column in range(out[1]):
                top, left = row * stride[0], column * stride[1]
                seen = part[
                    :, :, top : top + reach[0] + 1 : dilation[0], left : left + reach[1] + 1 : dilation[1]
                ]
                y[:, g * outs : (g + 1) * outs, row, column] = np.einsum("bcij,ocij->bo", seen, own)
    return y + np.broadcast_to(np.asarray(bias, np.float64), len(kernel))[:, None, None]
