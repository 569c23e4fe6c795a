"""Meaning of each extension node under a contract; `nodes.py` has NIR's own.

BRF    cosine 1 + delta b, sine delta omega, gain delta; a step of the contract is a step of the node
RF_IZ  the same, with b as given
ALIF   voltage_decay a, gain r a, adaptation_decay a', adaptation_step adaptation a', where a = dt/tau
LSN    parameters as given; a step of the contract is a step of the node; LSNConv2d likewise
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from snn_compile.compiler.contract.contract import Contract
from snn_compile.compiler.frontends.nir_extensions import ALIF, BRF, LSN, RF_IZ, LSNConv2d, SparseLinear
from snn_compile.compiler.linear_maps import LinearMap, convolution_map
from snn_compile.compiler.lowering.liquid import Gate, Gates, dense_gate
from snn_compile.compiler.lowering.nodes import Linear, Neuron, finite, lower_node, share
from snn_compile.compiler.network import Float, Population
from snn_compile.targets.errors import CompileError

STEP_NOISE = 1e-6
"""Relative difference up to which a contract's dt equals a node's step; files hold float32."""


def _values(node: Any, name: str) -> dict[str, Float]:
    found = {
        key: finite(value, key, name).reshape(-1)
        for key, value in vars(node).items()
        if key not in ("metadata", "input_type", "output_type")
    }
    return found


def _shape(node: Any) -> tuple[int, ...]:
    return tuple(int(n) for n in np.shape(node.theta)) or (1,)


def _check_step(delta: Float, name: str, contract: Contract) -> None:
    if contract.time_unit == "s" and (np.abs(delta / contract.dt - 1) > STEP_NOISE).any():
        raise CompileError(
            f"node {name!r}: its resonators are defined for steps of {delta[0]:g} s, and dt is "
            f"{contract.dt:g}; state dt={delta[0]:g}",
            node=name,
        )


@lower_node.register
def _(node: SparseLinear, name: str, contract: Contract) -> Linear:
    before, after = (tuple(int(n) for n in shape) for shape in (node.input_shape, node.output_shape))
    values, bias = finite(node.values, "values", name), finite(node.bias, "bias", name)
    index = (np.asarray(node.rows, np.int64), np.asarray(node.columns, np.int64))
    weight = csr_array((values, index), shape=(prod(after), prod(before)))

    def map_of(shape: tuple[int, ...]) -> LinearMap:
        if prod(shape) != prod(before):
            raise CompileError(f"node {name!r} takes {before} and receives {shape}", node=name)
        return LinearMap(after, weight, bias if bias.any() else None)

    return map_of


@lower_node.register
def _(node: BRF, name: str, contract: Contract) -> Neuron:
    given = _values(node, name)
    delta, omega = given["delta"], given["omega"]
    _check_step(delta, name, contract)
    if not (np.abs(delta * omega) < 1).all() or not (delta > 0).all():
        raise CompileError(
            f"node {name!r}: delta omega is {np.abs(delta * omega).max():g}; it must be below 1, as "
            "there is no divergence boundary from 1 on",
            node=name,
        )
    parts = np.concatenate([given["smooth_reset"], given["refractory"]])
    if not np.isin(parts, (0.0, 1.0)).all() or not ((given["gamma"] >= 0) & (given["gamma"] <= 1)).all():
        raise CompileError(
            f"node {name!r}: smooth_reset and refractory must be 0 or 1, and gamma from 0 to 1", node=name
        )
    parameters = {
        "cosine": np.sqrt(1 - (delta * omega) ** 2) - delta * given["b_offset"],
        "sine": delta * omega,
        "threshold": given["theta"],
        "damping": delta * given["smooth_reset"],
        "rise": given["refractory"],
        "recovery": 1 - given["gamma"],
        "input_bias": np.zeros(1),
        "offset": np.zeros(1),
    }
    return Neuron(Population(name, _shape(node), "brf", parameters), delta)


@lower_node.register
def _(node: RF_IZ, name: str, contract: Contract) -> Neuron:
    given = _values(node, name)
    delta = given["delta"]
    _check_step(delta, name, contract)
    if not (delta > 0).all() or not (given["theta"] > 0).all():
        raise CompileError(f"node {name!r}: delta and theta must be positive", node=name)
    parameters = {
        "cosine": 1 + delta * given["b"],
        "sine": delta * given["omega"],
        "threshold": given["theta"],
        "input_bias": np.zeros(1),
        "offset": np.zeros(1),
    }
    return Neuron(Population(name, _shape(node), "rf_iz", parameters), delta)


@lower_node.register
def _(node: ALIF, name: str, contract: Contract) -> Neuron:
    given = _values(node, name)
    decay, forgets = share(given["tau"], contract, name), share(given["tau_adaptation"], contract, name)
    if not np.isin(given["reset"], (1.0, 2.0)).all() or (given["adaptation"] < 0).any():
        raise CompileError(
            f"node {name!r}: reset must be 1 or 2 thresholds, and adaptation 0 or more", node=name
        )
    parameters = {
        "voltage_decay": decay,
        "threshold": given["theta"],
        "adaptation_decay": forgets,
        "adaptation_step": given["adaptation"] * forgets,
        "reset_size": given["reset"],
        "input_bias": np.zeros(1),
        "offset": np.zeros(1),
    }
    return Neuron(Population(name, _shape(node), "alif", parameters), given["r"] * decay)


@lower_node.register
def _(node: LSN, name: str, contract: Contract) -> Neuron:
    given = _values(node, name)
    shape = _shape(node)
    dense = {key: dense_gate(given[f"w_{key}"], prod(shape)) for key in ("membrane", "adaptation")}
    return _liquid(name, shape, given, dense["membrane"], dense["adaptation"])


@lower_node.register
def _(node: LSNConv2d, name: str, contract: Contract) -> Neuron:
    given, shape = _values(node, name), _shape(node)
    gates = {}
    for key in ("membrane", "adaptation"):
        kernel = finite(getattr(node, f"w_{key}"), f"w_{key}", name)
        padding = tuple(n // 2 for n in kernel.shape[2:])
        weight = convolution_map(kernel, shape, (1, 1), padding, (1, 1), 1, None, name).weight
        gates[key] = Gate(weight, weight)
        given[f"b_{key}"] = np.repeat(given[f"b_{key}"], prod(shape[1:]))
    return _liquid(name, shape, given, gates["membrane"], gates["adaptation"])


def _liquid(
    name: str, shape: tuple[int, ...], given: dict[str, Float], membrane: Gate, adaptation: Gate
) -> Neuron:
    """Return a layer of liquid neurons with its gates."""
    if (given["rise"] < 0).any():
        raise CompileError(f"node {name!r}: rise must be 0 or more", node=name)
    parameters = {
        "threshold": given["theta"],
        "rise": given["rise"],
        "membrane_bias": given["b_membrane"],
        "adaptation_bias": given["b_adaptation"],
        **dict.fromkeys(("bias", "input_bias", "offset"), np.zeros(1)),
    }
    gates = Gates(membrane, adaptation if given["rise"].any() else None)
    return Neuron(Population(name, shape, "lsn", parameters), np.ones(1), gates)
