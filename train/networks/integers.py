"""Quantization-aware training: the forward pass computes the integers that the compiled program computes.

Each source of a population has one weight tensor T = gain w / (messages per unit of input). With the scale S
of the population, S T becomes tables of a few bits, and decays, thresholds and biases become registers
(`integer_formats.py`); states are stepped as on the chip (`kernels/sequence.py`). Gradients pass straight
through every rounding (straight-through estimator) to the float parameters.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from snn_compile.targets.chips.chip import Chip
from snn_compile.train.kernels.sequence import Numbers, Registers, Step
from snn_compile.train.networks.convolution import AvgPool2d, Conv2d, as_sequence, as_shape, each_step
from snn_compile.train.networks.integer_formats import (
    Exact,
    Format,
    IntegerConfig,
    WeightTensor,
    chip_of,
    choose_format,
    rounded,
    rounded_bias,
    rounded_decay,
    threshold_register,
)
from snn_compile.train.networks.layers import LI, CubaLIF, Decay, Spiking, run_steps

EXACT = 1 << 24
"""Integers below it are exact in float32 (24 bits of significand), and so are their sums."""


@dataclass(frozen=True, eq=False)
class Stage:
    """A population with its name, projection and pooling; the `first` one reads the network's input."""

    name: str
    pool: AvgPool2d | None
    projection: Conv2d | nn.Linear
    population: Spiking | LI
    first: bool


def formats_of(stages: Sequence[Stage], config: IntegerConfig) -> dict[str, Format]:
    """Return the formats of every population, a function of the parameters and the configuration."""
    chip = chip_of(config.chip)
    with torch.no_grad():
        return {s.name: choose_format(_exact(s, config, chip), config, chip) for s in stages}


def run_integers(
    stages: Sequence[Stage], config: IntegerConfig, inputs: Tensor, formats: dict[str, Format] | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the read-out's membranes, float64 in float units, and the spikes of every population.

    `formats` are those of `formats_of`, which may be some steps of training old; None makes new ones.
    """
    formats, chip = formats or formats_of(stages, config), chip_of(config.chip)
    x, sent = messages(inputs, config), {}
    for stage in stages:
        population, form = stage.population, formats[stage.name]
        exact = _exact(stage, config, chip)
        whole = [
            rounded(t, form.scale, e, config) for t, e in zip(exact.tensors, form.exponents, strict=True)
        ]
        step = _step(population, exact, form, chip)
        weight, back, constant = _parts(population, whole)
        incoming = as_sequence(_projected(stage, x, weight, back, constant, exact.tensors[0].top))
        back = None if back is None else back.to(incoming.dtype)
        decays = population.ordered(exact.alpha), population.ordered(exact.beta)
        x = as_shape(run_steps(incoming, decays, inputs.shape[1], step, back), population.shape)
        if isinstance(population, LI):
            x = x / (form.scale * chip.formats.threshold_unit)
        else:
            sent[stage.name] = x
    return x, sent


def messages(inputs: Tensor, config: IntegerConfig) -> Tensor:
    """Return inputs as integer messages in float32, encoded as by `InputPort.encode`."""
    if inputs.shape[1] > 1 and inputs.stride(1) == 0:
        return messages(inputs[:, :1], config).expand(inputs.shape)
    if not config.input_bits:
        return inputs.float()
    top = (1 << config.input_bits) - 1
    counts = (inputs.double() * config.input_scale).round()
    return counts.clamp(-top if config.input_signed else 0, top).float()


def deployed(network: nn.Module, stages: Sequence[Stage], config: IntegerConfig) -> nn.Module:
    """Return a float64 copy of a network with its parameters at their quantized values.

    `stages` are those of `network`.
    """
    formats, chip = formats_of(stages, config), chip_of(config.chip)
    twin = copy.deepcopy(network).double()
    beside = dict(zip(map(id, network.modules()), twin.modules(), strict=True))
    with torch.no_grad():
        for stage in stages:
            _fill(stage, beside, _exact(stage, config, chip), formats[stage.name], config, chip)
    return twin


def trained_integers(stages: Sequence[Stage], config: IntegerConfig) -> dict[str, dict[str, Any]]:
    """Return the scales and widths of a network's integers, for its contract."""
    found: dict[str, dict[str, Any]] = {
        name: {"scale": form.scale, "weight_bits": config.weight_bits}
        for name, form in formats_of(stages, config).items()
    }
    entry = {"message_bits": config.input_bits, "signed": config.input_signed}
    return {"input": {"scale": config.input_scale, **entry}} | found


def _fill(
    stage: Stage, beside: dict[int, Any], exact: Exact, form: Format, config: IntegerConfig, chip: Chip
) -> None:
    """Write the quantized values of a stage into the corresponding modules of the copy."""
    population, projection = beside[id(stage.population)], beside[id(stage.projection)]
    whole = [rounded(t, form.scale, e, config) for t, e in zip(exact.tensors, form.exponents, strict=True)]
    floats = [w / form.scale / t.factor for w, t in zip(whole, exact.tensors, strict=True)]
    weight, back, constant = _parts(stage.population, floats)
    projection.weight.copy_(weight)
    if back is not None:
        population.recurrent.weight.copy_(back)
    if constant is not None:
        projection.bias.copy_(constant)
    elif exact.bias is not None:
        unit = form.scale * chip.formats.threshold_unit
        projection.bias.copy_(rounded_bias(exact.bias, unit, chip) / unit / exact.bias.factor)
    if isinstance(stage.population, Spiking):
        kept = threshold_register(exact, form, chip) / form.scale
        population.firing = replace(population.firing, threshold=kept)
    for name, module in stage.population.named_children():
        if isinstance(module, Decay):
            setattr(population, name, Decay.of(exact.alpha if name == "alpha" else exact.beta))


def _exact(stage: Stage, config: IntegerConfig, chip: Chip) -> Exact:
    """Return a stage in floats, its decays rounded."""
    population, projection = stage.population, stage.projection
    one = torch.ones((), dtype=torch.float64)
    if isinstance(population, LI):
        alpha, beta = torch.zeros((), dtype=torch.float64), rounded_decay(population.decay(), 0, chip)
        gain, threshold = 1 - beta, 0.0
    else:
        given = population.decays()
        alpha, beta = rounded_decay(given[0], 1, chip), rounded_decay(given[1], 0, chip)
        gain, threshold = one * population.gain, population.firing.threshold
    rows = (-1, *([1] * (projection.weight.ndim - 1)))
    pooled = 1 if stage.pool is None else _width(stage.pool) ** 2
    scale, top = 1.0, 1.0
    if stage.first and config.input_bits:
        scale, top = config.input_scale, float((1 << config.input_bits) - 1)
    per_row = gain.view(rows) if gain.ndim else gain
    tensors = [WeightTensor(projection.weight, per_row / (scale * pooled), top * pooled)]
    if isinstance(population, Spiking) and population.recurrent is not None:
        tensors.append(WeightTensor(population.recurrent.weight, gain))
    bias = None if projection.bias is None else WeightTensor(projection.bias, gain)
    if bias is not None and isinstance(population, CubaLIF):
        # The bias passes through the current's filter: it becomes the weights of an always-on neuron.
        tensors, bias = [*tensors, bias], None
    return Exact(tuple(tensors), bias, alpha, beta, threshold)


def _width(pool: AvgPool2d) -> int:
    assert isinstance(pool.kernel_size, int)
    return pool.kernel_size


def _parts(
    population: Spiking | LI, tensors: Sequence[Tensor]
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Return of a population's tensors the projection's, the recurrent and the constant one."""
    rest = list(tensors[1:])
    back = rest.pop(0) if isinstance(population, Spiking) and population.recurrent is not None else None
    return tensors[0], back, rest.pop(0) if rest else None


def _step(population: Spiking | LI, exact: Exact, form: Format, chip: Chip) -> Step:
    """Return how a population steps in integers; arrays are in the order that memory has neurons."""
    formats, size = chip.formats, population.size
    unit = form.scale * formats.threshold_unit

    def registers(kept: Tensor) -> Numbers:
        ordered = population.ordered(kept.detach()) * formats.decay_one
        return np.ascontiguousarray(np.broadcast_to(np.rint(ordered.numpy()), (size,)))

    bias = torch.zeros(size, dtype=torch.float64)
    if exact.bias is not None:
        bias = rounded_bias(exact.bias, unit, chip)
        bias = bias.repeat(size // len(bias))  # channels are last in memory
    threshold = np.full(size, threshold_register(exact, form, chip) * formats.threshold_unit)
    chosen = Registers(registers(exact.alpha), registers(exact.beta), bias, threshold, unit, formats)
    if isinstance(population, LI):
        return Step(False, registers=chosen)
    return replace(population.step(), registers=chosen)


def _projected(
    stage: Stage, x: Tensor, weight: Tensor, back: Tensor | None, constant: Tensor | None, top: float
) -> Tensor:
    """Return the sums of weights times messages `x`, exact integers."""
    kind = _exact_type([(weight, top), (back, 1.0), (constant, 1.0)])
    weight, constant = weight.to(kind), None if constant is None else constant.to(kind)
    pool, projection = stage.pool, stage.projection

    def weighted(messages: Tensor) -> Tensor:
        if pool is not None:
            messages = nn.functional.avg_pool2d(messages, pool.kernel_size, divisor_override=1)
        messages = messages.to(kind)
        if isinstance(projection, Conv2d):
            return nn.functional.conv2d(
                messages,
                weight,
                constant,
                projection.stride,
                projection.padding,
                projection.dilation,
                projection.groups,
            )
        return nn.functional.linear(messages.flatten(1), weight, constant)

    return each_step(weighted, x)


def _exact_type(tensors: Sequence[tuple[Tensor | None, float]]) -> torch.dtype:
    """Return the type in which sums of the weights times messages up to `top` are exact."""
    total, common = 0.0, 0
    for tensor, top in tensors:
        if tensor is not None:
            whole = np.abs(tensor.detach().numpy()).astype(np.int64)
            common |= int(np.bitwise_or.reduce(whole, axis=None))
            total += float(whole.reshape(len(whole), -1).sum(1).max()) * top
    # Multiples of one power of two need as many bits less.
    return torch.float32 if total < EXACT * (common & -common or 1) else torch.float64
