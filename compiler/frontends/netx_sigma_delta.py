"""The sigma-delta layers of a lava-dl `.net` file, as netx reads them.

An input layer encodes the changes of weight x + bias; the others sum their input, add their bias, cut at
0 and send changes, or, with `sigma_output`, send the sum. States hold 2**12 units a unit of `vThMant`,
messages 2**6. Of the last layer the activation, or the sum, is read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from snn_compile.compiler.frontends.netx_file import NetxLayer, NetxNeuron
from snn_compile.compiler.network import Float, Population, Weight
from snn_compile.compiler.neurons.models import neuron_model
from snn_compile.compiler.neurons.sigma_delta import MESSAGE_UNITS, STATE_UNITS
from snn_compile.targets.errors import UnsupportedNode


def sigma_delta_population(
    layer: NetxLayer, neuron: NetxNeuron, shape: tuple[int, ...], bias: Float, last: bool
) -> Population:
    """Return a layer's neurons; raises UnsupportedNode on sums with targets or a bias."""
    model = "delta" if layer.kind == "input" else "sigma" if neuron.sums else "sigma_delta"
    if model == "sigma" and not last:
        layer.fail("its neurons send sums ('sigma_output'); it can only be the last", UnsupportedNode)
    if model == "sigma" and bias.any():
        layer.fail("a bias of neurons that send sums is not supported", UnsupportedNode)
    values: dict[str, Float] = {"input_bias": np.zeros(1), "offset": np.zeros(1)}
    if model != "sigma":
        values["threshold"] = neuron.threshold.astype(np.float64)
    if model == "sigma_delta":
        values["bias"] = bias
    if model == "delta":
        values["input_bias"] = bias
    return Population(layer.name, shape, model, values, fixed_scale=1.0)


def scaled_weight(
    layer: NetxLayer, models: Mapping[str, str], sources: Sequence[str], weight: Weight
) -> Weight:
    """Return a layer's weights per unit of its input messages; `models` of the layers before it.

    Messages of an input without an encoder are taken as they come. Raises UnsupportedNode where
    sigma-delta and other neurons meet.
    """
    sending = {models.get(source, "") for source in sources} - {""}
    numbers = {model for model in sending if model and neuron_model(model).sends_numbers}
    if layer.neuron is None or not layer.neuron.sigma_delta:
        if numbers:
            layer.fail("sigma-delta neurons before others are not supported", UnsupportedNode)
        return weight
    if sending - numbers:
        layer.fail("other neurons before sigma-delta neurons are not supported", UnsupportedNode)
    raw = [source == "input" for source in sources]
    if any(raw) and not all(raw):
        layer.fail("an input without an encoder beside sigma-delta neurons is not supported", UnsupportedNode)
    return weight / (STATE_UNITS if all(raw) else STATE_UNITS / MESSAGE_UNITS)
