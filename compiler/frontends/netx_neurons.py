"""Neurons of the layers of a lava-dl `.net` file, in units of the threshold register."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array, diags_array, issparse

from snn_compile.compiler.frontends.netx_file import NEVER, NetxLayer
from snn_compile.compiler.frontends.netx_sigma_delta import sigma_delta_population
from snn_compile.compiler.network import Float, Population, Weight
from snn_compile.targets.errors import UnsupportedNode
from snn_compile.targets.integer import DECAY_ONE

log = logging.getLogger(__name__)


def plain(
    name: str, shape: tuple[int, ...], model: str, values: Mapping[str, float | Float], scale: float = 1.0
) -> Population:
    """Return a population whose other parameters are 0."""
    given: dict[str, Any] = dict.fromkeys(("bias", "input_bias", "v_init", "offset"), 0.0) | dict(values)
    parameters = {key: np.atleast_1d(np.asarray(value, np.float64)) for key, value in given.items()}
    return Population(name, shape, model, parameters, fixed_scale=scale)


def population_of(layer: NetxLayer, last: bool) -> Population:
    """Return the neurons of a layer; bias and threshold in units of the threshold register."""
    shape = (prod(layer.shape),) if layer.dense else layer.shape
    bias: Float = np.zeros(1) if layer.bias is None else layer.spread(layer.bias, "'bias'").astype(np.float64)
    neuron = layer.neuron
    if neuron is not None and neuron.sigma_delta:
        return sigma_delta_population(layer, neuron, shape, bias, last)
    if neuron is None:
        # netx gives it a current that never leaks and a membrane that is the current plus the bias.
        if not last:
            layer.fail("a layer without a neuron never spikes; it can only be the last")
        log.warning(
            "%s: no neuron in the file; its input is summed without a leak, as netx does, while the "
            "trainer's Affine block leaks by decays that the file does not hold, or does not sum at all",
            layer.where,
        )
        values = {"current_decay": np.ones(1), "voltage_decay": np.zeros(1), "v_init": bias}
        return plain(layer.name, shape, "li", values)
    threshold = layer.spread(neuron.threshold, "'vThMant'").astype(np.float64)
    decay = layer.spread(neuron.current_decay, "'iDecay'")
    deaf, read = deaf_neurons(layer, last), last and bool((threshold >= NEVER).all())
    if (decay == 0).any():
        layer.fail(
            "iDecay 0 is not supported: the chip's current leaks at least 1/4096 per step", UnsupportedNode
        )
    values = {
        "current_decay": decay / DECAY_ONE,
        "voltage_decay": layer.spread(neuron.voltage_decay, "'vDecay'") / DECAY_ONE,
        "bias": np.where(deaf, 0.0, bias),
    }
    if not read:
        values["threshold"] = np.minimum(threshold, NEVER - 1)
    return plain(layer.name, shape, "li" if read else "lif", values)


def deaf_neurons(layer: NetxLayer, last: bool) -> npt.NDArray[np.bool_]:
    """Return which neurons never spike, one value or one per neuron: they receive nothing, so that no
    membrane reaches the largest threshold. Of a last layer that never spikes the membrane is read.
    """
    if layer.neuron is None or layer.neuron.sigma_delta:
        return np.zeros(1, np.bool_)
    never = layer.spread(layer.neuron.threshold, "'vThMant'") >= NEVER
    return np.zeros(1, np.bool_) if last and never.all() else never


def received_weight(layer: NetxLayer, weight: Weight, last: bool) -> Weight:
    """Return a layer's weights, those of neurons that never spike set to zero."""
    if not (deaf := deaf_neurons(layer, last)).any():
        return weight
    keep = np.broadcast_to(~deaf, (weight.shape[0],)).astype(np.float64)
    return csr_array(diags_array(keep) @ weight) if issparse(weight) else weight * keep[:, None]
