"""What the extension nodes mean under a contract, as `nodes.py` says it of NIR's own.

BRF    cosine 1 + delta b, sine delta omega, gain delta; a step of the contract is one of the node
RF_IZ  the same, with b as it is given
ALIF   voltage_decay a, gain r a, adaptation_decay a', adaptation_step adaptation a', a = dt/tau as of a LIF
LSN    its own numbers; a step of the contract is one of the node
"""

from __future__ import annotations

from typing import Any

import numpy as np

from snn_compile.compiler.contract.contract import Contract
from snn_compile.compiler.frontends.nir_extensions import ALIF, BRF, LSN, RF_IZ
from snn_compile.compiler.lowering.nodes import Neuron, finite, lower_node, share
from snn_compile.compiler.network import Float, Population
from snn_compile.targets.errors import CompileError

STEP_NOISE = 1e-6
"""Relative difference up to which a contract's dt is a node's step, float32 files in mind."""


def _values(node: Any, name: str) -> dict[str, Float]:
    found = {
        key: finite(value, key, name).reshape(-1)
        for key, value in vars(node).items()
        if key not in ("metadata", "input_type", "output_type")
    }
    return found


def _shape(node: Any) -> tuple[int, ...]:
    return tuple(int(n) for n in np.shape(node.theta)) or (1,)


def _own_steps(delta: Float, name: str, contract: Contract) -> None:
    if contract.time_unit == "s" and (np.abs(delta / contract.dt - 1) > STEP_NOISE).any():
        raise CompileError(
            f"node {name!r}: its resonators are defined by steps of {delta[0]:g} s, and dt is "
            f"{contract.dt:g}; a step of them cannot be another",
            node=name,
        )


@lower_node.register
def _(node: BRF, name: str, contract: Contract) -> Neuron:
    held = _values(node, name)
    delta, omega = held["delta"], held["omega"]
    _own_steps(delta, name, contract)
    if not (np.abs(delta * omega) < 1).all() or not (delta > 0).all():
        raise CompileError(
            f"node {name!r}: delta omega is {np.abs(delta * omega).max():g}; there is no divergence boundary "
            "from 1 on",
            node=name,
        )
    parts = np.concatenate([held["smooth_reset"], held["refractory"]])
    if not np.isin(parts, (0.0, 1.0)).all() or not ((held["gamma"] >= 0) & (held["gamma"] <= 1)).all():
        raise CompileError(
            f"node {name!r}: smooth_reset and refractory are 0 or 1, and gamma is from 0 to 1", node=name
        )
    parameters = {
        "cosine": np.sqrt(1 - (delta * omega) ** 2) - delta * held["b_offset"],
        "sine": delta * omega,
        "threshold": held["theta"],
        "damping": delta * held["smooth_reset"],
        "rise": held["refractory"],
        "recovery": 1 - held["gamma"],
        "input_bias": np.zeros(1),
        "offset": np.zeros(1),
    }
    return Neuron(Population(name, _shape(node), "brf", parameters), delta)


@lower_node.register
def _(node: RF_IZ, name: str, contract: Contract) -> Neuron:
    held = _values(node, name)
    delta = held["delta"]
    _own_steps(delta, name, contract)
    if not (delta > 0).all() or not (held["theta"] > 0).all():
        raise CompileError(f"node {name!r}: delta and theta are more than 0", node=name)
    parameters = {
        "cosine": 1 + delta * held["b"],
        "sine": delta * held["omega"],
        "threshold": held["theta"],
        "input_bias": np.zeros(1),
        "offset": np.zeros(1),
    }
    return Neuron(Population(name, _shape(node), "rf_iz", parameters), delta)


@lower_node.register
def _(node: ALIF, name: str, contract: Contract) -> Neuron:
    held = _values(node, name)
    decay, forgets = share(held["tau"], contract, name), share(held["tau_adaptation"], contract, name)
    if not np.isin(held["reset"], (1.0, 2.0)).all() or (held["adaptation"] < 0).any():
        raise CompileError(
            f"node {name!r}: a reset takes 1 or 2 thresholds, and adaptation is 0 or more", node=name
        )
    parameters = {
        "voltage_decay": decay,
        "threshold": held["theta"],
        "adaptation_decay": forgets,
        "adaptation_step": held["adaptation"] * forgets,
        "reset_size": held["reset"],
        "input_bias": np.zeros(1),
        "offset": np.zeros(1),
    }
    return Neuron(Population(name, _shape(node), "alif", parameters), held["r"] * decay)


@lower_node.register
def _(node: LSN, name: str, contract: Contract) -> Neuron:
    held = _values(node, name)
    if (held["rise"] < 0).any():
        raise CompileError(f"node {name!r}: rise is 0 or more", node=name)
    parameters = {key: held[key] for key in held if key != "theta"}
    parameters |= {"threshold": held["theta"], "input_bias": np.zeros(1), "offset": np.zeros(1)}
    return Neuron(Population(name, _shape(node), "lsn", parameters), np.ones(1))
