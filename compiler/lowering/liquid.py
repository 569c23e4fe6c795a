"""A layer of liquid neurons as populations whose gates are ports that projections reach.

The rates of such a layer are sigma(A x + B v + c) and sigma(A' x + B' b + c') of the input x and the states
v and b of all its neurons. What reaches the input through weights W and biases, x = W y + w, reaches the
gates through A W and A' W, with constants A w + c: no message waits for another in the same step. The states
come as messages, a step late, of two more populations: NAME.membrane is the same neurons once more and sends
v; NAME.adaptation follows their spikes and sends b. A layer whose threshold never rises has none of these.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from scipy.sparse import csr_array, eye_array

from snn_compile.compiler.network import Float, Population, Projection, Weight
from snn_compile.compiler.neurons.lsn import ADAPTATION, MEMBRANE


@dataclass(frozen=True, eq=False)
class Gate:
    """The weights (neurons, neurons) of a gate: of the layer's input, and of one of its states."""

    input: Weight
    state: Weight


@dataclass(frozen=True, eq=False)
class Gates:
    """The gates of a layer of liquid neurons; `adaptation` is None where no threshold rises."""

    membrane: Gate
    adaptation: Gate | None


def unfold(
    population: Population, gates: Gates, incoming: Iterable[Projection]
) -> tuple[list[Population], list[Projection]]:
    """Return the populations of a layer, the neurons first, and all projections that reach them.

    `population` holds the constant input as `input_bias`, and `incoming` reaches its input.
    """
    name, own = population.name, tuple(incoming)
    constant = np.broadcast_to(population.parameters["input_bias"], (population.size,))
    parameters = {**population.parameters, "input_bias": np.zeros(1), "bias": constant}
    projections, adapting = list(own), []
    for kind, gate, port in (
        ("membrane", gates.membrane, MEMBRANE),
        ("adaptation", gates.adaptation, ADAPTATION),
    ):
        if gate is None:
            continue
        parameters[f"{kind}_bias"] = parameters[f"{kind}_bias"] + gate.input @ constant
        adapting = [replace(e, name=f"{e.name}.{kind}", weight=gate.input @ e.weight, port=port) for e in own]
        adapting.append(Projection(f"{name}.{kind}/{name}", f"{name}.{kind}", name, gate.state, 1, port))
        projections += adapting
    neurons = replace(population, parameters=parameters)
    membrane = f"{name}.membrane"
    states = [neurons, replace(neurons, name=membrane, model="lsn_membrane", copies=name)]
    copied = [replace(e, name=f"{e.name}|{membrane}", target=membrane) for e in projections]
    if gates.adaptation is None:
        return states, projections + copied
    target = f"{name}.adaptation"
    kept = {key: parameters[key] for key in ("adaptation_bias", "input_bias", "offset")}
    states.append(replace(population, name=target, model="lsn_adaptation", parameters=kept))
    spikes = Projection(f"{name}|{target}", name, target, csr_array(eye_array(population.size)), 1)
    gated = [replace(e, name=f"{e.name}|{target}", target=target, port=1) for e in adapting]
    return states, [*projections, *copied, spikes, *gated]


def dense_gate(weight: Float, size: int) -> Gate:
    """Return the gate of weights (size, 2 size) of [input; state], flat or not."""
    both = weight.reshape(size, 2 * size)
    return Gate(both[:, :size], both[:, size:])
