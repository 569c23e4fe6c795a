"""Meaning of each NIR node under a contract: one function per node type.

A node is a neuron, which becomes a population, or linear: a factor of the projections that pass through it.
With a = dt/tau (rule "euler") or 1 - exp(-dt/tau) ("exponential"):

    LIF      voltage_decay a, gain r a, bias v_leak a
    CubaLIF  current_decay a_syn, voltage_decay a_mem, gain w_in a_syn r a_mem, bias v_leak a_mem
    IF       voltage_decay 0, gain r dt
    LI, CubaLI, I   as LIF, CubaLIF, IF without a threshold
    Threshold       voltage_decay 1, gain 1, no reset

Binary fractions that a float32 file keeps within its last bit are restored (`binary_fractions.py`). The
contract's `gain` covers exporters that mean something else: "unit" adds the input as it is (not divided
by tau_syn in a CubaLIF), "norm" multiplies it by a alone, "decayed" lets a current's input decay once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import singledispatch
from math import prod
from typing import Any

import nir
import numpy as np

from snn_compile.compiler.contract.contract import Contract
from snn_compile.compiler.linear_maps import LinearMap, convolution_map, pair, pool_map, scale_map
from snn_compile.compiler.lowering.binary_fractions import Fractions
from snn_compile.compiler.lowering.liquid import Gates
from snn_compile.compiler.network import Float, Population
from snn_compile.targets.errors import CompileError, SnnCompileError, UnsupportedNode
from snn_compile.targets.program.rule import Rule

Shape = tuple[int, ...]

DELAY_MAX = 1 << 14
"""Most steps of a delay; relays implement delays longer than a chip's delay slots."""


@dataclass(frozen=True, eq=False)
class Neuron:
    """A neuron node lowered: its population and the gain of its synaptic input, (1,) or (size,).

    `gates`: those of liquid neurons. `restored`: decays and gains that are binary fractions again, by name.
    """

    population: Population
    gain: Float
    gates: Gates | None = None
    restored: Mapping[str, Float] = field(default_factory=dict)


Linear = Callable[[Shape], LinearMap]
"""A linear node lowered: a function from the input's shape to a map."""


@singledispatch
def lower_node(node: Any, name: str, contract: Contract) -> Neuron | Linear:
    """Return the meaning of a NIR node under a contract; raises UnsupportedNode for other nodes."""
    raise UnsupportedNode(
        f"node {name!r} is a {type(node).__name__}, which is not supported",
        node=name,
        type=type(node).__name__,
    )


def finite(value: Any, what: str, name: str) -> Float:
    """Return a parameter as float64; raises CompileError on values that are not finite numbers."""
    try:
        array = np.asarray(value, np.float64)
    except (TypeError, ValueError) as error:
        raise CompileError(f"node {name!r}: its {what} is not numeric", node=name) from error
    if not np.isfinite(array).all():
        first = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise CompileError(
            f"node {name!r}: its {what} holds {array[first]} at index {first}; every value must be finite",
            node=name,
            index=first,
        )
    return array


def share(tau: Any, contract: Contract, name: str, exact: Fractions | None = None, what: str = "") -> Float:
    """Return the fraction lost per step for a time constant in the contract's unit.

    `exact` notes under the name `what` if binary fractions were restored.
    """
    values = finite(tau, "time constant", name).reshape(-1)
    if not (values > 0).all():
        raise CompileError(
            f"node {name!r}: a time constant of {values[~(values > 0)][0]:g}; it must be positive", node=name
        )
    ratio = contract.dt / values
    lost = ratio if contract.rule == "euler" else -np.expm1(-ratio)
    return (exact or Fractions()).restored(what, lost, values)


def _gain(choices: Mapping[str, Callable[[], Float]], name: str, contract: Contract) -> Float:
    if contract.gain not in choices:
        raise UnsupportedNode(
            f"node {name!r}: gain {contract.gain!r} has no meaning for it; use one of {', '.join(choices)}",
            node=name,
        )
    return choices[contract.gain]()


def _population(
    node: Any, name: str, contract: Contract, model: str, current_decay: Float, voltage_decay: Float
) -> Population:
    flat = {
        key: finite(getattr(node, key), key, name).reshape(-1)
        for key in ("v_leak", "v_reset", "v_threshold")
        if getattr(node, key, None) is not None
    }
    sizes = {key: values.size for key, values in flat.items() if values.size != 1}
    if len(set(sizes.values())) > 1:
        told = ", ".join(f"{key} {size}" for key, size in sizes.items())
        raise CompileError(f"node {name!r}: its parameters have different sizes ({told})", node=name)
    if contract.v_reset is not None:
        flat["v_reset"] = np.full(1, float(contract.v_reset))
    leak = flat.get("v_leak", np.zeros(1))
    # Shifting v by v_reset makes every reset to a value a reset to 0.
    value = model == "lif" and contract.reset == "value"
    offset = flat.get("v_reset", np.zeros(1)) if value else np.zeros(1)
    if contract.spikes_per_step == "floor" and offset.any():
        raise UnsupportedNode(
            f"node {name!r}: floor(v / threshold) spikes per step with a reset to "
            f"{offset[offset != 0][0]:g}; a reset to 0 is supported",
            node=name,
        )
    parameters = {
        "current_decay": current_decay,
        "voltage_decay": voltage_decay,
        "bias": (leak - offset) * voltage_decay,
        "input_bias": np.zeros(1),
        "v_init": _initial(contract, flat) - offset,
        "offset": offset,
    }
    if model == "lif":
        parameters["threshold"] = flat["v_threshold"] - offset
        if contract.v_min is not None:
            parameters["v_min"] = np.asarray(contract.v_min, np.float64) - offset
    shape = tuple(int(n) for n in np.shape(getattr(node, "v_threshold", getattr(node, "r", 0.0)))) or (1,)
    rule: dict[str, Any] = dict(contract.rule_items())
    if model == "li":  # what a spike does has no meaning without spikes
        rule = {item: rule[item] for item in ("update_order", "current_decay")}
    try:
        Rule(**rule)
    except SnnCompileError as error:
        raise CompileError(f"node {name!r}: {error}", node=name) from error
    return Population(name, shape, model, parameters, **rule)


def _initial(contract: Contract, flat: Mapping[str, Float]) -> Float:
    if isinstance(contract.v_init, str):
        if contract.v_init not in ("v_leak", "v_reset"):
            raise CompileError(f"contract: v_init is {contract.v_init!r}; use a number, v_leak or v_reset")
        return flat.get(contract.v_init, np.zeros(1))
    return np.array([float(contract.v_init)])


def _without_current(contract: Contract) -> Contract:
    """Return the contract of a node without a synaptic current: items on currents get their defaults."""
    return replace(contract, update_order="synapse_first", current_decay="before")


def _leaky(node: Any, name: str, contract: Contract, model: str) -> Neuron:
    contract, exact = _without_current(contract), Fractions()
    decay = share(node.tau, contract, name, exact, "decay")
    r, tau = (finite(getattr(node, key), key, name).reshape(-1) for key in ("r", "tau"))
    choices = {
        "as_written": lambda: exact.restored("gain", r * decay, r, tau),
        "unit": lambda: np.ones(1),
        "norm": lambda: decay,
        "decayed": lambda: 1 - decay,
    }
    gain = _gain(choices, name, contract)
    return Neuron(_population(node, name, contract, model, np.ones(1), decay), gain, restored=exact.found)


def _current_based(node: Any, name: str, contract: Contract, model: str) -> Neuron:
    exact = Fractions()
    synapse = share(node.tau_syn, contract, name, exact, "decay of the current")
    membrane = share(node.tau_mem, contract, name, exact, "decay")
    w_in, r, tau_syn, tau_mem = (
        finite(getattr(node, key), key, name).reshape(-1) for key in ("w_in", "r", "tau_syn", "tau_mem")
    )

    def unit() -> Float:
        return exact.restored("gain", r * membrane, r, tau_mem)

    choices = {
        "as_written": lambda: exact.restored("gain of the current", w_in * synapse, w_in, tau_syn) * unit(),
        "unit": unit,
        "norm": lambda: synapse * membrane,
        "decayed": lambda: 1 - synapse,
    }
    gain = _gain(choices, name, contract)
    return Neuron(_population(node, name, contract, model, synapse, membrane), gain, restored=exact.found)


def _integrating(node: Any, name: str, contract: Contract, model: str) -> Neuron:
    contract, exact = _without_current(contract), Fractions()
    r = finite(node.r, "r", name).reshape(-1)
    choices = {
        "as_written": lambda: exact.restored("gain", r * contract.dt, r),
        "unit": lambda: np.ones(1),
        "norm": lambda: np.ones(1),
    }
    gain = _gain(choices, name, contract)
    return Neuron(
        _population(node, name, contract, model, np.ones(1), np.zeros(1)), gain, restored=exact.found
    )


@lower_node.register
def _(node: nir.LIF, name: str, contract: Contract) -> Neuron:
    return _leaky(node, name, contract, "lif")


@lower_node.register
def _(node: nir.LI, name: str, contract: Contract) -> Neuron:
    return _leaky(node, name, contract, "li")


@lower_node.register
def _(node: nir.CubaLIF, name: str, contract: Contract) -> Neuron:
    return _current_based(node, name, contract, "lif")


@lower_node.register
def _(node: nir.CubaLI, name: str, contract: Contract) -> Neuron:
    return _current_based(node, name, contract, "li")


@lower_node.register
def _(node: nir.IF, name: str, contract: Contract) -> Neuron:
    return _integrating(node, name, contract, "lif")


@lower_node.register
def _(node: nir.I, name: str, contract: Contract) -> Neuron:
    return _integrating(node, name, contract, "li")


@lower_node.register
def _(node: nir.Threshold, name: str, contract: Contract) -> Neuron:
    threshold = finite(node.threshold, "threshold", name)
    one, zero = np.ones(1), np.zeros(1)
    parameters = {
        "current_decay": one,
        "voltage_decay": one,
        "threshold": threshold.reshape(-1),
        "bias": zero,
        "input_bias": zero,
        "v_init": zero,
        "offset": zero,
    }
    population = Population(
        name, threshold.shape or (1,), "lif", parameters, "none", comparison=contract.comparison
    )
    return Neuron(population, one)


def _matrix(weight: Any, name: str) -> Float:
    matrix = finite(weight, "weight", name)
    if matrix.ndim != 2:
        raise CompileError(f"node {name!r}: a weight of shape {matrix.shape}; expected (out, in)", node=name)
    return matrix


@lower_node.register
def _(node: nir.Affine, name: str, contract: Contract) -> Linear:
    weight, bias = _matrix(node.weight, name), finite(node.bias, "bias", name).reshape(-1)
    if bias.size != weight.shape[0]:
        raise CompileError(
            f"node {name!r}: a bias of {bias.size} values and a weight of shape {weight.shape}", node=name
        )
    return lambda shape: LinearMap((weight.shape[0],), weight, bias)


@lower_node.register
def _(node: nir.Linear, name: str, contract: Contract) -> Linear:
    weight = _matrix(node.weight, name)
    return lambda shape: LinearMap((weight.shape[0],), weight)


@lower_node.register
def _(node: nir.Scale, name: str, contract: Contract) -> Linear:
    scale = finite(node.scale, "scale", name)
    return lambda shape: scale_map(scale, shape, name)


@lower_node.register
def _(node: nir.Flatten, name: str, contract: Contract) -> Linear:
    start, end = int(node.start_dim), int(node.end_dim)

    def mapped(shape: Shape) -> LinearMap:
        # Neurons are flat in C order already; only a convolution behind it needs the shape.
        first, stop = start % len(shape), end % len(shape) + 1
        if not (-len(shape) <= start < len(shape) and first < stop):
            return LinearMap((prod(shape),))  # an exporter that counts the batch
        return LinearMap((*shape[:first], prod(shape[first:stop]), *shape[stop:]))

    return mapped


@lower_node.register
def _(node: nir.Delay, name: str, contract: Contract) -> Linear:
    steps = finite(node.delay, "delay", name).reshape(-1) / contract.dt
    if (np.abs(steps - np.rint(steps)) > 1e-6 * np.maximum(1, steps)).any() or (steps < 0).any():
        raise CompileError(
            f"node {name!r}: a delay of {float(steps.max()):g} steps; it must be a whole number of steps of "
            f"{contract.dt:g}, 0 or more",
            node=name,
        )

    if steps.max() > DELAY_MAX:
        raise CompileError(
            f"node {name!r}: a delay of {steps.max():g} steps; at most {DELAY_MAX} are possible", node=name
        )

    def mapped(shape: Shape) -> LinearMap:
        if steps.size not in (1, prod(shape)):
            raise CompileError(
                f"node {name!r} delays {steps.size} values and receives {prod(shape)}", node=name
            )
        return LinearMap(shape, delays=np.broadcast_to(np.rint(steps), (prod(shape),)))

    return mapped


@lower_node.register
def _(node: nir.Conv2d, name: str, contract: Contract) -> Linear:
    kernel, bias = finite(node.weight, "weight", name), finite(node.bias, "bias", name)
    stride, dilation = pair(node.stride, name, "stride"), pair(node.dilation, name, "dilation")
    return lambda shape: convolution_map(
        kernel, shape, stride, node.padding, dilation, int(node.groups), bias, name
    )


@lower_node.register
def _(node: nir.Conv1d, name: str, contract: Contract) -> Linear:
    kernel, bias = finite(node.weight, "weight", name), finite(node.bias, "bias", name)
    stride, dilation = pair(node.stride, name, "stride")[0], pair(node.dilation, name, "dilation")[0]
    padding = (
        node.padding
        if isinstance(node.padding, (str, bytes))
        else (0, pair(node.padding, name, "padding")[0])
    )

    def mapped(shape: Shape) -> LinearMap:
        if len(shape) != 2 or kernel.ndim != 3:
            raise CompileError(
                f"node {name!r}: a kernel of shape {kernel.shape} on an input of shape {shape}; expected "
                "(out, in, length) on (channels, length)",
                node=name,
            )
        found = convolution_map(
            kernel[:, :, None],
            (shape[0], 1, shape[1]),
            (1, stride),
            padding,
            (1, dilation),
            int(node.groups),
            bias,
            name,
        )
        return LinearMap((found.shape[0], found.shape[2]), found.weight, found.bias)

    return mapped


def _pool(node: Any, name: str, average: bool) -> Linear:
    size, stride = pair(node.kernel_size, name, "kernel_size"), pair(node.stride, name, "stride")
    padding = pair(node.padding, name, "padding")
    if min(size) < 1:
        raise CompileError(f"node {name!r}: a window of {size}", node=name)
    value = 1.0 / prod(size) if average else 1.0
    return lambda shape: pool_map(shape, size, stride, padding, value, name)


@lower_node.register
def _(node: nir.SumPool2d, name: str, contract: Contract) -> Linear:
    return _pool(node, name, average=False)


@lower_node.register
def _(node: nir.AvgPool2d, name: str, contract: Contract) -> Linear:
    return _pool(node, name, average=True)
