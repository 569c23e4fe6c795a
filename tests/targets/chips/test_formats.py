"""Formats: Loihi's by default, and refused outside the ranges that devices can compute with."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest

from snn_compile.targets.chips.formats import LOIHI, Formats
from snn_compile.targets.errors import ChipError
from snn_compile.targets.integer import DECAY_ONE, STATE_SHIFT, M


def test_the_defaults_are_the_constants_of_the_integer_arithmetic() -> None:
    assert (LOIHI.state_half, LOIHI.state_max, LOIHI.decay_one) == (M, M - 1, DECAY_ONE)
    assert (LOIHI.synaptic_shift, LOIHI.threshold_unit, LOIHI.accumulator_half) == (STATE_SHIFT, 64, 1 << 31)
    assert (LOIHI.threshold_max, LOIHI.decay_max, LOIHI.bias_mantissa_max) == (131071, 4095, 4095)


def test_derived_widths_follow() -> None:
    formats = Formats(
        state_bits=16, decay_bits=10, synaptic_shift=4, threshold_bits=11, bias_mantissa_bits=10
    )
    assert (formats.state_half, formats.state_max, formats.decay_one) == (32768, 32767, 1024)
    assert (formats.threshold_unit, formats.threshold_max, formats.bias_mantissa_max) == (16, 2047, 511)


@pytest.mark.parametrize("key", [item.name for item in fields(Formats)])
def test_a_width_outside_its_range(key: str) -> None:
    value = getattr(LOIHI, key)
    wrong: list[Any] = [None, 8.0, True, "8", 1000, -1000, (1, 2, 3)]
    wrong += [8] if isinstance(value, tuple) else [(1, 2)]
    wrong += [(value[1], value[0]), (-1000, value[1])] if isinstance(value, tuple) else []
    for one in wrong:
        with pytest.raises(
            ChipError, match=f"^{key} is .*; it must be .* from -?[0-9]+ to [0-9]+$"
        ) as caught:
            replace(LOIHI, **{key: one})
        assert caught.value.key == key


def test_a_threshold_must_fit_a_state() -> None:
    with pytest.raises(
        ChipError, match="^threshold_bits is 18: shifted left by 6, .* wider than the 23 bits"
    ):
        Formats(threshold_bits=18)
