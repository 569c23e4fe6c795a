"""Probed neurons (`probing/identify.py`) as NIR nodes and items of the contract.

    lif, if, cuba   LIF, IF, CubaLIF     tau = dt / decay, r = gain tau / dt, w_in = tau_syn / dt
    li, cuba_li     LI, CubaLI           v_leak = bias / decay
    alif            ALIF                 tau_adaptation and adaptation from the threshold's rise

A membrane that does not leak but has a bias is a LIF of a time constant without end.
"""

from __future__ import annotations

from typing import Any

import nir
import numpy as np

from snn_compile.compiler.frontends.nir_extensions import ALIF
from snn_compile.targets.errors import ExportError
from snn_compile.targets.program.rule import Rule
from snn_compile.train.export.snntorch import Float, Neuron, time_constant
from snn_compile.train.probing.identify import Identified


def probed_neuron(found: Identified, path: str, dt: float) -> Neuron:
    """Return the node of a probed neuron and what its contract says besides; `dt` in the graph's unit."""
    p = found.parameters
    tau = time_constant(1 - p["voltage_decay"], dt)
    leaky = {"tau": tau, "r": p["gain"] * tau / dt, "v_leak": p["bias"] * tau / dt}
    firing = {"v_threshold": p["threshold"], "v_reset": p["v_reset"]}
    node: Any
    if found.model == "alif":
        node = _adaptive(found, dt)
    elif found.model in ("cuba", "cuba_li"):
        tau_syn = time_constant(1 - p["current_decay"], dt)
        numbers = {"tau_syn": tau_syn, "w_in": tau_syn / dt, "tau_mem": tau}
        numbers |= {"r": leaky["r"], "v_leak": leaky["v_leak"]}
        node = nir.CubaLI(**numbers) if found.model == "cuba_li" else nir.CubaLIF(**numbers, **firing)
    elif found.model == "li":
        node = nir.LI(**leaky)
    elif found.model == "if" and not p["bias"].any():
        node = nir.IF(r=p["gain"] / dt, **firing)
    else:
        node = nir.LIF(**leaky, **firing)
    return Neuron(node, _items(found, path, leaky["v_leak"]), None)


def _adaptive(found: Identified, dt: float) -> Any:
    p = found.parameters
    tau = time_constant(1 - p["voltage_decay"], dt)
    forgets = time_constant(1 - p["adaptation_decay"], dt)
    return ALIF(
        tau=tau,
        r=p["gain"] * tau / dt,
        theta=p["threshold"],
        tau_adaptation=forgets,
        adaptation=p["adaptation_step"] * forgets / dt,
        reset=p["reset_size"],
    )


def _items(found: Identified, path: str, v_leak: Float) -> dict[str, Any]:
    """Return the items of the contract that differ from the defaults, and the rule of a spiking neuron."""
    rule, usual = found.rule, Rule()
    items: dict[str, Any] = {}
    if found.model in ("lif", "if", "cuba"):
        items = {"reset": rule.reset, "reset_timing": rule.reset_timing, "comparison": rule.comparison}
        if rule.spikes_per_step != usual.spikes_per_step:
            items["spikes_per_step"] = rule.spikes_per_step
        lowest = found.parameters["v_min"]
        if np.isfinite(lowest).any():
            items["v_min"] = _single(lowest, path, "lower bound of the membrane")
    if found.model in ("cuba", "cuba_li") and rule.update_order != usual.update_order:
        items["update_order"] = rule.update_order
    start = found.parameters["v_init"]
    if start.any():
        if np.allclose(start, v_leak, rtol=1e-9, atol=0):
            items["v_init"] = "v_leak"
        elif rule.reset == "value" and np.array_equal(start, found.parameters["v_reset"]):
            items["v_init"] = "v_reset"
        else:
            items["v_init"] = _single(start, path, "membrane before the first step")
    return items


def _single(values: Float, path: str, what: str) -> float:
    low, high = float(values.min()), float(values.max())
    if low != high:
        raise ExportError(
            f"{path}: its {what} differs from neuron to neuron ({low:g} to {high:g}); a node has one number",
            node=path,
        )
    return low
