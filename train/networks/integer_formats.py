"""Rounding to a chip's formats in training: scales, tables, biases and decays, gradients straight through.

The scale of a population depends on its parameters alone: the upper bound is the largest scale that keeps
states within their width in the worst case (or, if that is larger, that gives weights all their bits); in the
octave below it the scale with the least error of the weights is chosen. The exponents of the tables are
chosen alike and may clip a few weights to represent the others finer. Every weight, exponent applied, is an
integer: the chip's shift of a table's sum loses nothing, and any tables with these weights give these sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import log2
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from snn_compile.targets.chips.chip import Chip, load_chip
from snn_compile.targets.chips.rounding import RoundedWeights, round_bias, round_decay, round_weights
from snn_compile.targets.errors import SnnCompileError
from snn_compile.targets.integer import weight_range, weight_step
from snn_compile.train.kernels.sequence import Numbers

Exponents = tuple[int, ...]

SCALES_TRIED = 16
SAMPLED = 4096
"""Weights of a larger tensor that are sampled to compare scales."""

CLIPS = 3
"""Exponents tried per table: from the smallest that clips no weight downwards."""

MARGIN = 1.05
"""Factor on the worst case, for the growth that rounding adds."""

TABLES = ("one", "sign")


@dataclass(frozen=True)
class IntegerConfig:
    """Formats shared by all populations: bits of a weight, one table or one per sign, the input's encoding.

    `input_bits` 0: the input is spikes. Otherwise it is round(x * input_scale), of so many bits.
    """

    weight_bits: int = 8
    tables: str = "one"
    input_scale: float = 1.0
    input_bits: int = 0
    input_signed: bool = False
    chip: str = "loihi2"

    def __post_init__(self) -> None:
        """Raise SnnCompileError for values out of range."""
        if not 2 <= self.weight_bits <= 8 or self.tables not in TABLES:
            raise SnnCompileError(
                f"weight_bits {self.weight_bits}, tables {self.tables!r}; use 2 to 8 bits, and one of "
                f"{', '.join(TABLES)}"
            )


@dataclass(frozen=True)
class Format:
    """The scale of a population, and the table exponents of each of its incoming weight tensors."""

    scale: float
    exponents: tuple[Exponents, ...]


@dataclass(frozen=True, eq=False)
class WeightTensor:
    """Incoming weights of a population: a message m adds m `factor` parameter; `top` is the largest m."""

    parameter: Tensor
    factor: Tensor
    top: float = 1.0

    def values(self) -> Tensor:
        """Return the membrane's increment per unit of a message, in float units."""
        return self.parameter.double() * self.factor


@dataclass(frozen=True, eq=False)
class Exact:
    """A population before scaling: incoming weights, bias of the membrane, and decays, rounded already."""

    tensors: tuple[WeightTensor, ...]
    bias: WeightTensor | None
    alpha: Tensor
    beta: Tensor
    threshold: float


def choose_format(exact: Exact, config: IntegerConfig, chip: Chip) -> Format:
    """Choose scale and exponents with the least squared error of sampled weights times their messages."""
    values = [tensor.values().flatten().numpy() for tensor in exact.tensors]
    largest = _largest_scale(exact, values, config, chip)
    sampled = [_sample(v) for v in values]
    best, least = None, np.inf
    for k in range(SCALES_TRIED):
        scale = largest * 2.0 ** (-k / SCALES_TRIED)
        total, exponents = 0.0, []
        for sample, tensor in zip(sampled, exact.tensors, strict=True):
            error, chosen = _exponents(sample * scale, config, chip)
            total += error * (tensor.top / scale) ** 2 * tensor.parameter.numel()
            exponents.append(chosen)
        if total < least:
            best, least = Format(scale, tuple(exponents)), total
    assert best is not None
    return best


def _largest_scale(exact: Exact, values: Sequence[Numbers], config: IntegerConfig, chip: Chip) -> float:
    """Return the largest scale that states and registers allow, or that holds all bits of the weights."""
    drive = 0.0
    for tensor in exact.tensors:
        rows = (
            tensor.values().abs().flatten(1) if tensor.parameter.ndim > 1 else tensor.values().abs()[:, None]
        )
        drive += float(rows.sum(1).max()) * tensor.top
    u = drive / float((1 - exact.alpha).min())
    bias = 0.0 if exact.bias is None else float(exact.bias.values().abs().max())
    formats = chip.formats
    v = (u + bias) / max(float((1 - exact.beta).min()), 1 / formats.decay_one)
    unit = formats.threshold_unit
    most = max((float(np.abs(v).max()) for v in values), default=0.0)
    mode = "excitatory" if config.tables == "sign" else "mixed"
    step, top = weight_step(config.weight_bits, mode), weight_range(config.weight_bits, mode)[1]
    soft = formats.state_max / (unit * MARGIN * v) if v else 1.0
    full = 2 * top / step / most if most else 0.0
    bounds = [max(soft, full)]
    if drive:  # sums of weights wrap around, which training does not model
        bounds.append(formats.accumulator_half / (unit * MARGIN * drive))
    if exact.threshold:
        bounds.append(formats.threshold_max / exact.threshold)
    if most:
        bounds.append(top * 2.0 ** formats.weight_exponent[1] / most)
    if bias:
        bounds.append(formats.bias_mantissa_max * 2.0 ** formats.bias_exponent[1] / (unit * bias))
    return min(bounds)


def _sample(values: Numbers) -> Numbers:
    """Return weights that stand for all, the extremes among them."""
    step = max(1, len(values) // SAMPLED)
    return np.concatenate([values[::step], [values.min(), values.max()]])


def _split(values: Numbers, config: IntegerConfig) -> list[Numbers]:
    """Return the values of each table."""
    if config.tables == "sign":
        return [np.maximum(values, 0), np.minimum(values, 0)]
    return [values]


def _mode(values: Numbers, config: IntegerConfig) -> str:
    """Return the sign mode of a table, as `round_weights` finds it."""
    if np.min(values, initial=0.0) >= 0:
        return "excitatory"
    return "inhibitory" if np.max(values, initial=0.0) <= 0 else "mixed"


def _table(values: Numbers, config: IntegerConfig, chip: Chip, highest: int) -> RoundedWeights:
    """Round to one table whose exponent is at most `highest`, and never so small that weights break."""
    finest = -int(log2(weight_step(config.weight_bits, _mode(values, config))))
    low = max(finest, chip.formats.weight_exponent[0])
    return round_weights(values, config.weight_bits, (low, max(low, highest)))


def _exponents(values: Numbers, config: IntegerConfig, chip: Chip) -> tuple[float, Exponents]:
    """Return the mean squared error of the best exponents for values at a scale, and those."""
    total, chosen = 0.0, []
    for part in _split(values, config):
        best, least = chip.formats.weight_exponent[1], np.inf
        for clip in range(CLIPS):
            made = _table(part, config, chip, best - bool(clip))
            error = float(np.mean((made.values() - part) ** 2))
            if error >= least:
                break
            best, least = made.exponent, error
        total += least
        chosen.append(best)
    return total, tuple(chosen)


def rounded(tensor: WeightTensor, scale: float, exponents: Exponents, config: IntegerConfig) -> Tensor:
    """Return the whole numbers that a tensor becomes, exponents applied."""
    exact, chip = tensor.values() * scale, chip_of(config.chip)
    parts = _split(exact.detach().numpy(), config)
    kept = sum(_table(v, config, chip, e).values() for v, e in zip(parts, exponents, strict=True))
    return _straight(exact, kept)


def rounded_bias(bias: WeightTensor, unit: float, chip: Chip) -> Tensor:
    """Return a bias in units of the chip's membrane, as mantissa and exponent hold it."""
    exact = bias.values() * unit
    mantissa, exponent, _ = round_bias(exact.detach().numpy(), chip, "bias")
    return _straight(exact, mantissa * 2.0**exponent)


def rounded_decay(factor: Tensor, offset: int, chip: Chip) -> Tensor:
    """Return the factor that a decay register leaves, 1 - (register + offset) / decay_one."""
    exact = factor.double()
    register, _ = round_decay(1 - exact.detach().numpy(), offset, chip, "decay")
    return _straight(exact, 1 - (register + offset) / chip.formats.decay_one)


def threshold_register(exact: Exact, form: Format, chip: Chip) -> float:
    """Return the threshold register at a scale."""
    return float(np.clip(np.rint(exact.threshold * form.scale), 0, chip.formats.threshold_max))


class _Straight(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, exact: Tensor, kept: Tensor) -> Tensor:
        return kept

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


def _straight(exact: Tensor, kept: npt.ArrayLike) -> Tensor:
    """Return `kept` with the gradient of `exact`."""
    values = torch.from_numpy(np.array(kept, np.float64))
    made: Tensor = _Straight.apply(exact, values)  # type: ignore[no-untyped-call]
    return made


@cache
def chip_of(name: str) -> Chip:
    """Return a chip by name, read once."""
    return load_chip(name)
