"""The float reference against NIR's equations as tests/conformance/equations.py writes them out."""

from __future__ import annotations

import nir
import numpy as np
from conformance.equations import Equations

from snn_compile.compiler import lower
from snn_compile.compiler.reference import run_reference

SPIKING = (nir.LIF, nir.CubaLIF, nir.IF)


def stated(contract):
    """A Contract as the plain mapping that the equations and `lower` take."""
    items = {key: getattr(contract, key) for key in contract.__dataclass_fields__}
    return items | {"delays": [[a, b, int(n)] for (a, b), n in contract.delays.items()]}


def run(graph, contract, inputs):
    """The equations' run of a graph: `sent` and `v` by node, (batch, steps, *shape)."""
    return Equations(graph, stated(contract), inputs)


def agrees(graph, contract, inputs, least_spikes=1):
    """Assert equal spikes, and membranes equal to a part in 10**12, in every neuron node."""
    network = lower(graph, stated(contract))
    names = [p.name for p in network.populations]
    spiking = [p.name for p in network.populations if p.spiking]
    record = run_reference(network, inputs, record=spiking, probes=[f"{name}.v" for name in names])
    hand = run(graph, contract, inputs)
    assert hand.v.keys() >= set(names)
    fired = 0
    for name in names:
        wanted = hand.v[name].reshape(*hand.v[name].shape[:2], -1)
        found = record.states(f"{name}.v").reshape(wanted.shape)
        np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-12 * np.abs(wanted).max(), err_msg=name)
        if name in spiking:
            sent = hand.sent[name].reshape(wanted.shape) / contract.spike_amplitude
            np.testing.assert_array_equal(record.spikes(name).reshape(wanted.shape), np.rint(sent), name)
            fired += (sent != 0).sum()
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
