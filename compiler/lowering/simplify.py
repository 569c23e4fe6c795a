"""Rewrites of a Network that preserve its spikes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from scipy.sparse import diags_array, eye_array

from snn_compile.compiler.network import Network, Population, Projection


def settle_relays(network: Network) -> Network:
    """Hand a relay's constant input on to what it reaches, where rectifiers of differences cancel it."""
    for relay in network.relays:
        constant = network.population(relay.name).parameters["input_bias"]
        if relay.model != "relay" or not constant.any():
            continue
        whole = np.broadcast_to(constant, (relay.size,))
        more = {relay.name: np.zeros(1)}
        for edge in network.projections:
            if edge.source == relay.name:
                before = more.get(edge.target, network.population(edge.target).parameters["input_bias"])
                more[edge.target] = before + edge.weight @ whole
        more[relay.name] = np.zeros(1)
        network = replace(
            network,
            populations=tuple(
                replace(p, parameters={**p.parameters, "input_bias": more[p.name]}) if p.name in more else p
                for p in network.populations
            ),
        )
    return network


def settle_input_bias(network: Network) -> Network:
    """Turn constant synaptic input into biases, or into the output of an always-on neuron.

    Without a synaptic state (current_decay 1) it is a bias of the membrane. Otherwise it would have to
    pass through the current's filter, which no bias does, so one always-on neuron delivers it: exact
    from the first step.
    """
    populations, projections, zero = list(network.populations), list(network.projections), np.zeros(1)
    for index, population in enumerate(network.populations):
        constant = population.parameters["input_bias"]
        if not constant.any():
            continue
        parameters = {**population.parameters, "input_bias": np.zeros(1)}
        if (population.parameters.get("current_decay", zero) == 1).all():
            parameters["bias"] = population.parameters["bias"] + constant
        else:
            on = _always_on(f"{population.name}.bias", population.fixed_scale is not None)
            populations.append(on)
            weight = np.broadcast_to(constant, (population.size,))[:, None]
            projections.append(Projection(f"{on.name}/{population.name}", on.name, population.name, weight))
        populations[index] = replace(population, parameters=parameters)
    return replace(network, populations=tuple(populations), projections=tuple(projections))


def fuse_thresholds(network: Network) -> Network:
    """Merge a leaky integrator with the Threshold node that alone receives its output into one neuron.

    The threshold compares the membrane in the same step, while a message would take a step, and would have to
    carry the membrane.
    """
    for edge in network.projections:
        source = next((p for p in network.populations if p.name == edge.source), None)
        target = network.population(edge.target)
        if source is None or source.spiking or not _is_comparison(network, target, edge):
            continue
        if sum(e.source == source.name for e in network.projections) > 1:
            continue
        parameters = {**source.parameters, "threshold": target.parameters["threshold"]}
        fused = replace(
            target,
            parameters={**parameters, "threshold": parameters["threshold"] - source.parameters["offset"]},
            update_order=source.update_order,
            current_decay=source.current_decay,
        )
        return fuse_thresholds(_merged(network, source, fused, edge))
    return network


def fuse_resonators(network: Network) -> Network:
    """Merge two leaky integrators that rotate each other, and the Threshold of one, into resonators.

    As integrators they would send each other their membranes, rounded to a message's bits, and the threshold
    would be one more synapse stage, for which the layer's recurrent edges have too little delay.
    """
    for target in network.populations:
        edges = [e for e in network.projections if e.target == target.name]
        if len(edges) != 1 or not _is_comparison(network, target, edges[0]) or target.comparison != ">":
            continue
        if (pair := _rotation(network, edges[0])) is None:
            continue
        u, v, sine = pair
        parameters = {
            "cosine": 1 - u.parameters["voltage_decay"],
            "sine": sine,
            "threshold": target.parameters["threshold"],
            "damping": np.zeros(1),
            "rise": np.zeros(1),
            "recovery": np.ones(1),
            "input_bias": u.parameters["input_bias"],
            "offset": np.zeros(1),
        }
        resonator = Population(target.name, target.shape, "brf", parameters)
        own = {u.name, v.name}
        kept = [e for e in network.projections if e.source not in own]
        return fuse_resonators(
            replace(
                network,
                populations=tuple(
                    resonator if p is target else p for p in network.populations if p.name not in own
                ),
                projections=tuple(
                    replace(e, target=resonator.name) if e.target == u.name else e for e in kept
                ),
            )
        )
    return network


def _rotation(network: Network, read: Projection) -> tuple[Population, Population, Any] | None:
    """Return the integrators u, which `read` reads, and v, and the sine by which they rotate each other.

    v receives input from u alone, and sends to u alone, one to one, by the negated weight of u to v; both
    edges have a delay of one step.
    """
    u = next((p for p in network.populations if p.name == read.source), None)
    others = [e for e in network.projections if e.source == read.source and e is not read]
    if u is None or len(others) != 1 or others[0].target == u.name or read.target == others[0].target:
        return None
    v, to_v = network.population(others[0].target), others[0]
    back = [e for e in network.projections if e.source == v.name]
    outputs = {p.population for p in network.outputs}
    if (
        [e for e in network.projections if e.target == v.name] != [to_v]
        or len(back) != 1
        or back[0].target != u.name
        or {to_v.delay_steps, back[0].delay_steps} != {1}
        or {u.name, v.name} & outputs
        or not (_integrates(u) and _integrates(v))
        or v.parameters["input_bias"].any()
        or not np.array_equal(u.parameters["voltage_decay"], v.parameters["voltage_decay"])
        or u.size != v.size
    ):
        return None
    sine = to_v.weight.diagonal()
    if abs(to_v.weight - diags_array(sine)).max() or abs(back[0].weight + to_v.weight).max():
        return None
    return u, v, sine


def _integrates(p: Population) -> bool:
    """Whether a population leaks and adds its input, and nothing else."""
    return (
        p.model == "li"
        and not any(p.parameters[key].any() for key in ("bias", "v_init", "offset"))
        and p.fixed_scale is None
        and p.update_order == "synapse_first"
        and bool((p.parameters["current_decay"] == 1).all())
    )


def _is_comparison(network: Network, target: Population, edge: Projection) -> bool:
    """Whether a population only compares the input of one one-to-one edge with its threshold."""
    p = target.parameters
    identity = (
        edge.weight.shape[0] == edge.weight.shape[1]
        and not abs(edge.weight - eye_array(edge.weight.shape[0])).max()
    )
    return (
        identity
        and edge.delay_steps == 0
        and target.spiking
        and target.reset == "none"
        and target.spikes_per_step == "one"
        and sum(e.target == target.name for e in network.projections) == 1
        and bool((p["voltage_decay"] == 1).all() and (p["current_decay"] == 1).all())
        and not (p["bias"].any() or p["input_bias"].any())
    )


def _merged(network: Network, source: Population, fused: Population, edge: Projection) -> Network:
    populations = [p for p in network.populations if p.name != source.name]
    populations[[p.name for p in populations].index(fused.name)] = fused
    projections = [
        replace(e, target=fused.name) if e.target == source.name else e
        for e in network.projections
        if e is not edge
    ]
    outputs = [
        replace(p, population=fused.name) if p.population == source.name else p for p in network.outputs
    ]
    return replace(
        network, populations=tuple(populations), projections=tuple(projections), outputs=tuple(outputs)
    )


def _always_on(name: str, fixed: bool) -> Population:
    """Return a neuron that fires at every step; `fixed` gives it a fixed scale."""
    one, zero = np.ones(1), np.zeros(1)
    return Population(
        name,
        (1,),
        "lif",
        {
            "current_decay": one,
            "voltage_decay": zero + 0.5,  # any leak will do, as v starts each step at 0; it bounds v
            "threshold": zero + 0.5,
            "bias": one,
            "input_bias": zero,
            "v_init": zero,
            "offset": zero,
        },
        fixed_scale=2.0 if fixed else None,
    )


PASSES = (settle_relays, fuse_resonators, fuse_thresholds, settle_input_bias)


def simplify(network: Network) -> Network:
    """Apply every rewrite in turn."""
    for rewrite in PASSES:
        network = rewrite(network)
    return network
