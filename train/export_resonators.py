"""Plain resonate-and-fire networks as NIR's own nodes: two layers of leaky integrators that hear each other.

    u   LI, tau = -1 / b, r = tau      hears W_in x, W_rec z and -omega v, the latter two one step old
    v   LI, the same                   hears omega u, one step old
    z   Threshold at 1 of u
    y   LI, tau = dt / (1 - a), r = 1  hears W_out z

A forward Euler step of length delta is then the layer's step: both integrators read the old state of the
other. The balanced neuron multiplies its state by q and has no such form.
"""

from __future__ import annotations

from typing import Any

import nir
import numpy as np
import torch
from torch import Tensor

from snn_compile.compiler.conventions import Contract, Readout, attach
from snn_compile.targets.errors import ExportError
from snn_compile.train.export_layers import linear_node, numbers
from snn_compile.train.recurrent import RecurrentNetwork
from snn_compile.train.resonators import THRESHOLD, damping


def not_integrators(module: RecurrentNetwork) -> str:
    """Return why the resonators are not leaky integrators, or ""."""
    with torch.no_grad():
        leak = -module.config.delta * damping(module.omega, module.offset, module.config.resonance())[1]
    if bool(((leak > 0) & (leak < 1)).all()):
        return ""
    return (
        f"hidden: delta |b| reaches from {float(leak.min()):.3g} to {float(leak.max()):.3g}; it must lie "
        "between 0 and 1 to be the leak of an integrator"
    )


def resonators_to_nir(module: RecurrentNetwork, sample_input: Tensor, dt: float | None) -> Any:
    """Return the graph of a network of `rf` neurons; its step is the network's own delta.

    Raises ExportError for another dt, for damping that leaves no leaky integrator (delta |b| outside of 0 to
    1), and for values that are not finite.
    """
    config, shape = module.config, tuple(sample_input.shape[2:])
    if dt is not None and dt != config.delta:
        raise ExportError(f"dt is {dt}, and the network was made for steps of {config.delta:g} s", dt=dt)
    if reason := not_integrators(module):
        raise ExportError(reason, node="hidden")
    with torch.no_grad():
        parameters = damping(module.omega.double(), module.offset.double(), config.resonance())
        shares = torch.exp(-1 / module.readout.tau.double().abs())
    omega, b = (numbers(p, "hidden", name) for p, name in zip(parameters, ("omega", "b"), strict=True))
    decay = numbers(shares, "readout", "decay")
    tau, rest = -1 / b, np.zeros(config.hidden)
    tau_out = config.delta / (1 - decay)
    nodes = {
        "input": nir.Input({"input": np.array(shape)}),
        "fc1": linear_node(module.weight_in, None, "fc1"),
        "hidden_u": nir.LI(tau=tau, r=tau.copy(), v_leak=rest),
        "hidden_v": nir.LI(tau=tau.copy(), r=tau.copy(), v_leak=rest.copy()),
        "hidden_from_v": nir.Scale(scale=-omega),
        "hidden_from_u": nir.Scale(scale=omega.copy()),
        "hidden": nir.Threshold(threshold=np.full(config.hidden, THRESHOLD)),
        "hidden_recurrent": linear_node(module.weight_rec, None, "hidden_recurrent"),
        "fc2": linear_node(module.readout.weight, None, "fc2"),
        "readout": nir.LI(tau=tau_out, r=np.ones(config.classes), v_leak=np.zeros(config.classes)),
        "output": nir.Output({"output": np.array((config.classes,))}),
    }
    row = ["input", "fc1", "hidden_u", "hidden", "fc2", "readout", "output"]
    if len(shape) > 1:
        nodes["flatten"] = nir.Flatten({"input": np.array(shape)}, start_dim=0, end_dim=-1)
        row.insert(1, "flatten")
    delays = {
        ("hidden_u", "hidden_from_u"): 1,
        ("hidden_v", "hidden_from_v"): 1,
        ("hidden", "hidden_recurrent"): 1,
    }
    back = [("hidden_from_u", "hidden_v"), ("hidden_from_v", "hidden_u"), ("hidden_recurrent", "hidden_u")]
    graph = nir.NIRGraph(nodes=nodes, edges=[*zip(row[:-1], row[1:], strict=True), *delays, *back])
    contract = Contract(
        dt=config.delta,
        time_unit="s",
        rule="euler",
        comparison=">",
        update_order="synapse_first",
        current_decay="before",
        delays=delays,
        readouts={"output": Readout("membrane", "mean", "classify")},
    )
    attach(graph, contract)
    return graph
