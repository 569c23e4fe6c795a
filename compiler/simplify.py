"""Rewrites of a Network that leave its spikes as they are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from snn_compile.compiler.network import Network, Population, Projection


def settle_input_bias(network: Network) -> Network:
    """Turn constant synaptic input into what a chip has.

    Without a synaptic state (current_decay 1) it is a bias of the membrane. Otherwise it would have to
    pass through the current's filter, which no bias does, so one always-on neuron delivers it: exact
    from the first step.
    """
    populations, projections = list(network.populations), list(network.projections)
    for index, population in enumerate(network.populations):
        constant = population.parameters["input_bias"]
        if not constant.any():
            continue
        parameters = {**population.parameters, "input_bias": np.zeros(1)}
        if (population.parameters["current_decay"] == 1).all():
            parameters["bias"] = population.parameters["bias"] + constant
        else:
            on = _always_on(f"{population.name}.bias")
            populations.append(on)
            weight = np.broadcast_to(constant, (population.size,))[:, None]
            projections.append(Projection(f"{on.name}/{population.name}", on.name, population.name, weight))
        populations[index] = replace(population, parameters=parameters)
    return replace(network, populations=tuple(populations), projections=tuple(projections))


def _always_on(name: str) -> Population:
    one, zero = np.ones(1), np.zeros(1)
    return Population(
        name,
        (1,),
        "lif",
        {
            "current_decay": one,
            "voltage_decay": zero + 0.5,  # any leak does: v starts each step at 0; it bounds v
            "threshold": zero + 0.5,
            "bias": one,
            "input_bias": zero,
            "v_init": zero,
            "offset": zero,
        },
    )


PASSES = (settle_input_bias,)


def simplify(network: Network) -> Network:
    """Apply every rewrite in turn."""
    for rewrite in PASSES:
        network = rewrite(network)
    return network
