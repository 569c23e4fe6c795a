"""NIR's equations, written out by hand in plain loops over a graph's own nodes: nothing folded, no
matrices multiplied together, no shifted membranes. Independent of the compiler but for reading results.
"""

from __future__ import annotations

from math import exp

import nir
import numpy as np

from snn_compile.compiler import lower
from snn_compile.compiler.reference import run_reference

SPIKING = (nir.LIF, nir.CubaLIF, nir.IF)
NEURONS = (nir.LIF, nir.CubaLIF, nir.LI, nir.CubaLI, nir.IF, nir.I)


class ByHand:
    """One sample of a graph, node by node and neuron by neuron, in float64."""

    def __init__(self, graph, contract, inputs):
        self.graph, self.contract, self.inputs = graph, contract, inputs
        self.out, self.v, self.current, self.last = {}, {}, {}, {}
        self.steps = len(next(iter(inputs.values())))
        self.sizes = {name: self.size(node) for name, node in graph.nodes.items()}
        for t in range(self.steps):
            for name in graph.nodes:
                self.value(name, t)

    def size(self, node):
        for kind in ("input_type", "output_type"):
            shape = (getattr(node, kind) or {}).get(kind.split("_")[0])
            if shape is not None:
                return int(np.prod(shape))
        return 0

    def outgoing(self, name):
        node = self.graph.nodes[name]
        return len(node.weight) if isinstance(node, (nir.Affine, nir.Linear)) else self.sizes[name]

    def arriving(self, name, t):
        """What arrives at a node at step t over all its edges."""
        total = None
        for a, b in self.graph.edges:
            if b != name:
                continue
            past = t - self.contract.delays.get((a, b), 0)
            y = self.value(a, past) if past >= 0 else [0.0] * self.outgoing(a)
            total = y if total is None else [p + q for p, q in zip(total, y, strict=True)]
        return [0.0] * self.sizes[name] if total is None else total

    def value(self, name, t):
        if (name, t) not in self.out:
            self.out[name, t] = self.compute(name, self.graph.nodes[name], t)
        return self.out[name, t]

    def compute(self, name, node, t):
        if isinstance(node, nir.Input):
            return [float(x) for x in self.inputs[name][t].reshape(-1)]
        if isinstance(node, nir.Delay):
            late = [round(float(d) / self.contract.dt) for d in np.ravel(node.delay)]
            return [self.arriving(name, t - n)[i] if t >= n else 0.0 for i, n in enumerate(late)]
        x = self.arriving(name, t)
        if isinstance(node, (nir.Affine, nir.Linear)):
            y = [sum(float(w) * a for w, a in zip(row, x, strict=True)) for row in node.weight]
            return [a + float(b) for a, b in zip(y, node.bias, strict=True)] if hasattr(node, "bias") else y
        if isinstance(node, nir.Scale):
            return [a * float(b) for a, b in zip(x, np.ravel(node.scale), strict=True)]
        if isinstance(node, nir.Threshold):
            self.v.update({(name, i, t): a for i, a in enumerate(x)})
            over = zip(x, np.ravel(node.threshold), strict=True)
            return [self.contract.spike_amplitude * (a > float(b)) for a, b in over]
        if isinstance(node, NEURONS):
            return [self.neuron(name, node, i, t, x[i]) for i in range(len(x))]
        return x

    def share(self, tau):
        ratio = self.contract.dt / float(tau)
        return ratio if self.contract.rule == "euler" else 1.0 - exp(-ratio)

    def neuron(self, name, node, i, t, x):
        """One step of one neuron: integration as NIR writes it, the spike as targets/rule.py orders it."""
        rule = self.contract.of(name)

        def of(key):
            return float(np.ravel(getattr(node, key))[i])

        start = (
            of(rule.v_init) if isinstance(rule.v_init, str) and hasattr(node, rule.v_init) else rule.v_init
        )
        v = self.v[name, i, t - 1] if t else 0.0 if isinstance(start, str) else start
        spiking = isinstance(node, SPIKING)
        began_past = spiking and self.past(rule, v, of("v_threshold"))
        if spiking and rule.reset_timing == "next_before":
            v = self.reset(rule, v, self.last.get((name, i), 0), of)
        v = self.integrate(rule, name, node, i, v, x, of)
        if not spiking:
            self.v[name, i, t] = v
            return v
        if rule.reset_timing == "next_after":
            v = self.reset(rule, v, self.last.get((name, i), 0), of)
        threshold, n = of("v_threshold"), 0
        if rule.spikes_per_step == "floor":
            while self.past(rule, v, (n + 1) * threshold):
                n += 1
        else:
            twice = rule.reset_timing == "pending" and began_past
            n = int(self.past(rule, v, 2 * threshold if twice else threshold))
        self.last[name, i] = n
        if rule.reset_timing in ("same_step", "pending"):
            v = self.reset(rule, v, n, of)
        self.v[name, i, t] = v if rule.v_min is None else max(v, rule.v_min)
        return rule.spike_amplitude * n

    def integrate(self, rule, name, node, i, v, x, of):
        if isinstance(node, (nir.IF, nir.I)):
            return v + self.contract.dt * of("r") * x
        if not isinstance(node, (nir.CubaLIF, nir.CubaLI)):
            return v + self.share(of("tau")) * (of("v_leak") - v + of("r") * x)
        old, lost = self.current.get((name, i), 0.0), self.share(of("tau_syn"))
        if rule.current_decay == "before":
            drive = new = old + lost * (-old + of("w_in") * x)
        else:
            drive = old + lost * of("w_in") * x
            new = drive - lost * drive
        self.current[name, i] = new
        drive = old if rule.update_order == "membrane_first" else drive
        return v + self.share(of("tau_mem")) * (of("v_leak") - v + of("r") * drive)

    def past(self, rule, v, threshold):
        return v > threshold if rule.comparison == ">" else v >= threshold

    def reset(self, rule, v, n, of):
        if rule.reset == "value":
            return of("v_reset") if n else v
        return v - n * of("v_threshold") if rule.reset == "subtract" else v


def agrees(graph, contract, inputs, least_spikes=1):
    """Assert equal spikes, and membranes equal to a part in 10**12, in every neuron node."""
    network = lower(graph, {f: getattr(contract, f) for f in contract.__dataclass_fields__})
    names = [p.name for p in network.populations]
    spiking = [p.name for p in network.populations if p.spiking]
    record = run_reference(network, inputs, record=spiking, probes=[f"{name}.v" for name in names])
    fired = 0
    for sample in range(len(next(iter(inputs.values())))):
        hand = ByHand(graph, contract, {name: data[sample] for name, data in inputs.items()})
        for name in [name for name in names if (name, 0, 0) in hand.v]:
            size = network.population(name).size
            wanted = np.array([[hand.v[name, i, t] for i in range(size)] for t in range(hand.steps)])
            found = record.states(f"{name}.v")[sample].reshape(wanted.shape)
            np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-12 * np.abs(wanted).max())
            if name in spiking:
                out = np.array([hand.out[name, t] for t in range(hand.steps)]) / contract.spike_amplitude
                np.testing.assert_array_equal(record.spikes(name)[sample].reshape(out.shape), np.rint(out))
                fired += (out != 0).sum()
    assert fired >= least_spikes
    return record


def per_neuron(rng, kind, size):
    """A neuron node of which no two neurons, and no two parameters, are alike, none at 0 or 1."""
    values = {"r": rng.uniform(1.2, 2.5, size)}
    if kind in (nir.CubaLIF, nir.CubaLI):
        values |= {"tau_syn": rng.uniform(2, 4, size), "tau_mem": rng.uniform(3, 8, size)}
        values |= {"w_in": rng.uniform(1.3, 2.2, size)}
    elif kind in (nir.LIF, nir.LI):
        values["tau"] = rng.uniform(3, 8, size)
    if kind not in (nir.IF, nir.I):
        values["v_leak"] = rng.uniform(0.05, 0.3, size)
    if kind in SPIKING:
        values |= {"v_threshold": rng.uniform(0.5, 0.8, size), "v_reset": rng.uniform(-0.4, 0.2, size)}
    return kind(**values)
