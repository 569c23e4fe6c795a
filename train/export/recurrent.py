"""Networks of one recurrent layer as NIR: plain resonators as its own nodes, others as extension nodes.

`rf` becomes two layers of leaky integrators coupled with each other:

    u   LI, tau = -1 / b, r = tau      inputs W_in x, W_rec z and -omega v, the latter two one step old
    v   LI, the same                   input omega u, one step old
    z   Threshold at 1 of u

A forward Euler step of length delta is then the layer's step: both integrators read the old state of the
other. A balanced neuron multiplies its state by q, and an adaptive one is reset by a threshold that moves:
`brf` becomes a BRF node, `rf_iz` a RF_IZ node, `alif` an ALIF node with tau = dt / (1 - alpha)
(`compiler/frontends/nir_extensions.py`). The read-out is an LI with tau = dt / (1 - a), r = 1, of W_out z.
"""

from __future__ import annotations

from typing import Any

import nir
import numpy as np
import torch
from torch import Tensor

from snn_compile.compiler.contract.contract import Contract, Readout, attach
from snn_compile.compiler.frontends.nir_extensions import ALIF, BRF, RF_IZ
from snn_compile.targets.errors import ExportError
from snn_compile.train.export.nodes import linear_node, numbers
from snn_compile.train.export.registry import exporter
from snn_compile.train.networks.recurrent import RecurrentNetwork
from snn_compile.train.neurons.alif import RESETS, Adaptation
from snn_compile.train.neurons.rf_brf import THRESHOLD, damping, divergence_boundary

EXPORTED = ("rf", "brf", "rf_iz", "alif")
"""Kinds of neurons that have nodes."""


def without_nodes(module: RecurrentNetwork) -> str:
    """Return why a recurrent network has no graph, or ""."""
    kind, delta = module.config.neuron, module.config.delta
    if kind not in EXPORTED:
        return (
            f"neither NIR nor an extension of it has a node for neurons of the kind {kind}, and no other "
            "computes the same"
        )
    with torch.no_grad():
        if (
            kind == "brf"
            and float(angle := delta * module.omega.abs().max()) >= 1
            and not module.config.boundary
        ):
            return f"hidden: delta omega reaches {angle:.3g}; from 1 on a BRF node has no divergence boundary"
        if kind != "rf":
            return ""
        leak = -delta * damping(module.omega, module.offset, module.config.resonance())[1]
    if bool(((leak > 0) & (leak < 1)).all()):
        return ""
    return (
        f"hidden: delta |b| reaches from {float(leak.min()):.3g} to {float(leak.max()):.3g}; it must lie "
        "between 0 and 1 to be the leak of an integrator"
    )


@exporter(RecurrentNetwork, unexportable=without_nodes)
def recurrent_to_nir(module: RecurrentNetwork, sample_input: Tensor, dt: float | None) -> Any:
    """Return the graph of a network of `rf`, `brf`, `rf_iz` or `alif` neurons.

    A step of resonators is the network's own delta; one of adaptive neurons is `dt` seconds, or has no unit
    (None). Raises ExportError for another dt, for what has no nodes, and for values that are not finite.
    """
    config, shape = module.config, tuple(sample_input.shape[2:])
    if reason := without_nodes(module):
        raise ExportError(reason, node="hidden")
    if config.neuron == "alif":
        step, unit = dt or 1.0, "s" if dt else "step"
    elif dt is not None and dt != config.delta:
        raise ExportError(f"dt is {dt}, and the network was made for steps of {config.delta:g} s", dt=dt)
    else:
        step, unit = config.delta, "s"
    with torch.no_grad():
        shares = torch.exp(-1 / module.readout.tau.double().abs())
    tau_out = step / (1 - numbers(shares, "readout", "decay"))
    rest = np.zeros(config.classes)
    nodes = {
        "input": nir.Input({"input": np.array(shape)}),
        "fc1": linear_node(module.weight_in, None, "fc1"),
        "hidden_recurrent": linear_node(module.weight_rec, None, "hidden_recurrent"),
        "fc2": linear_node(module.readout.weight, None, "fc2"),
        "readout": nir.LI(tau=tau_out, r=np.ones(config.classes), v_leak=rest),
        "output": nir.Output({"output": np.array((config.classes,))}),
    }
    hidden, delays, edges = _HIDDEN[config.neuron](module, step)
    nodes |= hidden
    entry = "hidden_u" if config.neuron == "rf" else "hidden"
    row = ["input", "fc1", entry, *(["hidden"] if entry != "hidden" else []), "fc2", "readout", "output"]
    if len(shape) > 1:
        nodes["flatten"] = nir.Flatten({"input": np.array(shape)}, start_dim=0, end_dim=-1)
        row.insert(1, "flatten")
    delays = {**delays, ("hidden", "hidden_recurrent"): 1}
    back = [*edges, ("hidden_recurrent", entry)]
    graph = nir.NIRGraph(nodes=nodes, edges=[*zip(row[:-1], row[1:], strict=True), *delays, *back])
    contract = Contract(
        dt=step,
        time_unit=unit,
        rule="euler",
        comparison=">",
        update_order="synapse_first",
        current_decay="before",
        delays=delays,
        readouts={"output": Readout("membrane", config.readout, config.task, config.skip)},
    )
    attach(graph, contract)
    return graph


Part = tuple[dict[str, Any], dict[tuple[str, str], int], list[tuple[str, str]]]
"""Nodes of a layer, edges with a delay, and other edges."""


def _integrators(module: RecurrentNetwork, step: float) -> Part:
    omega, b = _parameters(module)
    tau, rest = -1 / b, np.zeros(module.config.hidden)
    nodes = {
        "hidden_u": nir.LI(tau=tau, r=tau.copy(), v_leak=rest),
        "hidden_v": nir.LI(tau=tau.copy(), r=tau.copy(), v_leak=rest.copy()),
        "hidden_from_v": nir.Scale(scale=-omega),
        "hidden_from_u": nir.Scale(scale=omega.copy()),
        "hidden": nir.Threshold(threshold=np.full(module.config.hidden, THRESHOLD)),
    }
    delays = {("hidden_u", "hidden_from_u"): 1, ("hidden_v", "hidden_from_v"): 1}
    return nodes, delays, [("hidden_from_u", "hidden_v"), ("hidden_from_v", "hidden_u")]


def _parameters(module: RecurrentNetwork) -> list[Any]:
    with torch.no_grad():
        held = damping(module.omega.double(), module.offset.double(), module.config.resonance())
    return [numbers(p, "hidden", name) for p, name in zip(held, ("omega", "b"), strict=True)]


def _balanced(module: RecurrentNetwork, step: float) -> Part:
    omega, b = _parameters(module)
    kind = module.config.resonance()

    def each(value: float) -> Any:
        return np.full(module.config.hidden, float(value))

    node = BRF(
        omega=omega,
        b_offset=divergence_boundary(omega, kind.delta) - b,
        gamma=each(kind.gamma),
        theta=each(THRESHOLD),
        delta=each(kind.delta),
        smooth_reset=each(kind.smooth_reset),
        refractory=each(kind.refractory),
    )
    return {"hidden": node}, {}, []


def _izhikevich(module: RecurrentNetwork, step: float) -> Part:
    omega, b = _parameters(module)
    theta, delta = (np.full(module.config.hidden, value) for value in (THRESHOLD, step))
    return {"hidden": RF_IZ(omega=omega, b=b, theta=theta, delta=delta)}, {}, []


def _adaptive(module: RecurrentNetwork, step: float) -> Part:
    kind = Adaptation(module.config.adaptive_reset)
    with torch.no_grad():
        decays = [torch.exp(-1 / t.double().abs()) for t in (module.tau_membrane, module.tau_adaptation)]
    alpha, rho = (numbers(d, "hidden", name) for d, name in zip(decays, ("alpha", "rho"), strict=True))
    size = np.ones(module.config.hidden)
    node = ALIF(
        tau=step / (1 - alpha),
        r=size,
        theta=kind.base * size,
        tau_adaptation=step / (1 - rho),
        adaptation=kind.scale * size,
        reset=RESETS[kind.reset] * size,
    )
    return {"hidden": node}, {}, []


_HIDDEN = {"rf": _integrators, "brf": _balanced, "rf_iz": _izhikevich, "alif": _adaptive}
