"""The chip's number formats, one rounding function each, and the error a tensor takes from it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil, log2
from typing import Any

import numpy as np
import numpy.typing as npt

from snn_compile.targets.chips.chip import Chip
from snn_compile.targets.errors import PrecisionLost
from snn_compile.targets.integer import weight_range, weight_step

Float = npt.NDArray[np.float64]

FLOAT_NOISE = 1e-3
"""Of a last bit: whole numbers that were stored as floats of another unit come back so close to whole."""


@dataclass(frozen=True)
class TensorError:
    """What rounding did to one tensor; errors in units of the format's last bit (LSB).

    `clipped` counts values beyond the format's range, `relative` is the root mean square error over the
    root mean square value.
    """

    tensor: str
    format: str
    values: int
    max_lsb: float
    rms_lsb: float
    relative: float
    clipped: int = 0


def tensor_error(
    name: str, text: str, exact: Float, kept: Float, lsb: float | Float, clipped: int | None = None
) -> TensorError:
    """Compare exact values with what the format kept; both in the same unit, `lsb` its last bit.

    `clipped` None counts values more than half a last bit off.
    """
    if not np.size(exact):
        return TensorError(name, text, 0, 0.0, 0.0, 0.0)
    error = np.abs(np.asarray(kept, np.float64) - exact) / lsb
    size = float(np.sqrt(np.mean(np.square(exact / lsb))))
    rms = float(np.sqrt(np.mean(np.square(error))))
    if clipped is None:
        # To the nearest value, more than half a step off can only come from the end of the range.
        clipped = int(np.count_nonzero(error > 0.5 + 1e-9))
    return TensorError(
        name, text, int(error.size), float(error.max()), rms, rms / size if size else 0.0, clipped
    )


def refuse_rounding(errors: Iterable[TensorError], owner: str) -> None:
    """Raise PrecisionLost if a tensor that has to stay as it is was rounded, by more than float noise."""
    for error in errors:
        if error.max_lsb > FLOAT_NOISE:
            raise PrecisionLost(
                f"{error.tensor!r} holds the chip's integers already, and {error.format} do not hold them: "
                f"up to {error.max_lsb:g} last bits are lost in {owner!r}",
                tensor=error.tensor,
                error=error.max_lsb,
                allowed=0.0,
            )


@dataclass(frozen=True, eq=False)
class RoundedWeights:
    """Integers of one weight table with their exponent and sign mode."""

    weights: npt.NDArray[np.int64]
    exponent: int
    sign_mode: str
    bits: int

    @property
    def step(self) -> float:
        """Distance between neighbouring weights, exponent applied."""
        return float(weight_step(self.bits, self.sign_mode) * 2.0**self.exponent)

    def values(self) -> Float:
        """The weights with the exponent applied."""
        return self.weights * np.float64(2.0**self.exponent)


def round_weights(exact: Float, bits: int, exponents: tuple[int, int], clip: int = 0) -> RoundedWeights:
    """Round weights to one table: the sign mode from their signs, the least exponent that clips none.

    `clip` takes that much off the exponent: a finer step, and weights beyond the range become its end.
    """
    low, high = float(np.min(exact, initial=0.0)), float(np.max(exact, initial=0.0))
    mode = "excitatory" if low >= 0 else "inhibitory" if high <= 0 else "mixed"
    bottom, top = weight_range(bits, mode)
    step = weight_step(bits, mode)
    # Half a step above the top still rounds onto it.
    needs = [high / (top + step / 2 - 1e-9)] if high > 0 else []
    needs += [low / (bottom - step / 2 + 1e-9)] if low < 0 else []
    exponent = ceil(log2(max(needs))) - clip if needs else 0
    exponent = min(max(exponent, exponents[0]), exponents[1])
    steps = np.rint(exact / (step * 2.0**exponent)) * step
    return RoundedWeights(np.clip(steps, bottom, top).astype(np.int64), exponent, mode, bits)


def round_decay(
    decay: Float, offset: int, chip: Chip, name: str
) -> tuple[npt.NDArray[np.int64], TensorError]:
    """Return the decay register; the share lost per step is (register + offset) / decay_one."""
    formats = chip.formats
    largest = formats.decay_max if offset else chip.voltage_decay_max
    exact = decay * formats.decay_one
    register = np.clip(np.rint(exact) - offset, 0, largest).astype(np.int64)
    kept = (register + offset).astype(np.float64)
    return register, tensor_error(name, f"{formats.decay_bits} bits", exact, kept, 1.0)


def round_bias(exact: Float, chip: Chip, name: str) -> tuple[npt.NDArray[Any], int, TensorError]:
    """Return mantissa and the least shared exponent; `exact` in membrane units."""
    formats = chip.formats
    (low, high), limit = formats.bias_exponent, formats.bias_mantissa_max
    largest = float(np.abs(exact).max())
    needed = ceil(log2(largest / (limit + 0.5))) if largest > 0 else low
    exponent = min(max(needed, low), high)
    mantissa = np.clip(np.rint(exact / 2.0**exponent), -limit, limit).astype(np.int64)
    return (
        mantissa,
        exponent,
        tensor_error(
            name,
            f"{formats.bias_mantissa_bits} bits, exponent {exponent}",
            exact,
            mantissa * np.float64(2.0**exponent),
            2.0**exponent,
        ),
    )
