"""The integer arithmetic against Python's own integers and against values measured on Lava."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snn_compile.targets import integer

INT32 = st.integers(-(2**31), 2**31 - 1)
WIDE = st.integers(-(2**55), 2**55)


def one(function: Callable[..., Any], value: int, *arguments: Any) -> int:
    result = function(np.array([value], np.int64), *arguments)
    assert result.dtype == np.int64
    return int(result[0])


@given(WIDE, st.integers(0, 40))
def test_shift_toward_zero(x: int, bits: int) -> None:
    magnitude = abs(x) // 2**bits
    assert one(integer.shift_toward_zero, x, bits) == (magnitude if x >= 0 else -magnitude)


@given(WIDE)
def test_wrap32_is_the_one_congruent_32_bit_number(x: int) -> None:
    wrapped = one(integer.wrap32, x)
    assert -(2**31) <= wrapped < 2**31
    assert (wrapped - x) % 2**32 == 0


@given(INT32)
def test_wrap_state_turns_once(x: int) -> None:
    wrapped = one(integer.wrap_state, x)
    if -(2**23) < x <= 2**23:
        assert wrapped == x
    else:
        assert wrapped == x + (2**24 if x < 0 else -(2**24))


@pytest.mark.parametrize(
    ("x", "u"),
    [
        (2**23, 2**23),
        (2**23 + 1, -(2**23) + 1),
        (-(2**23), 2**23),
        (-(2**23) + 1, -(2**23) + 1),
        (2**24, 0),
        (3 * 2**23, 2**23),
        (3 * 2**23 + 1, 2**23 + 1),
        (-(2**25), -(2**24)),
    ],
)
def test_wrap_state_at_its_edges(x: int, u: int) -> None:
    assert one(integer.wrap_state, x) == u


@given(st.integers(-(2**24), 2**24))
def test_saturate(v: int) -> None:
    assert one(integer.saturate, v) == max(-8388607, min(8388607, v))


@given(WIDE, st.integers(-8, 7))
def test_shift_sum_shifts_the_32_bit_sum(total: int, exponent: int) -> None:
    wrapped = (total + 2**31) % 2**32 - 2**31
    if exponent <= 0:
        assert one(integer.shift_sum, total, exponent) == wrapped // 2**-exponent
    else:
        shifted = one(integer.shift_sum, total, exponent)
        assert -(2**31) <= shifted < 2**31
        assert (shifted - total * 2**exponent) % 2**32 == 0


@given(st.lists(st.tuples(st.integers(-4096, 4095), st.integers(-3, 7)), min_size=1))
def test_effective_bias_of_each_neuron(pairs: list[tuple[int, int]]) -> None:
    mantissas, exponents = np.array(pairs, np.int64).T
    wanted = [int(m * 2**e) if e >= 0 else m // 2**-e for m, e in pairs]
    assert integer.effective_bias(mantissas, exponents).tolist() == wanted
    assert integer.effective_bias(mantissas[:1], int(exponents[0])).tolist() == wanted[:1]


@pytest.mark.parametrize(
    ("bits", "mode", "given_weights", "stored"),
    [
        (8, "mixed", [-1, 1, 255, -256, 2, -3, 0], [-2, 0, 254, -256, 2, -4, 0]),
        (8, "mixed", [7, 101, 255], [6, 100, 254]),
        (8, "mixed", [999, -999], [254, -256]),
        (8, "excitatory", [0, 1, 255, 256, -5], [0, 1, 255, 255, 0]),
        (8, "inhibitory", [0, -1, -255, -256, 5], [0, -1, -255, -255, 0]),
        (5, "excitatory", [7, 8, 255], [0, 8, 248]),
        (5, "inhibitory", [-7, -8, -9, -255], [0, -8, -8, -248]),
        (5, "mixed", [-1, 15, 16, 255], [-16, 0, 16, 240]),
        (1, "mixed", [-1, 255], [-256, 0]),
        (1, "excitatory", [127, 128, 255], [0, 128, 128]),
    ],
)
def test_truncate_weights_as_measured(
    bits: int, mode: str, given_weights: list[int], stored: list[int]
) -> None:
    assert integer.truncate_weights(np.array(given_weights), bits, mode).tolist() == stored


@pytest.mark.parametrize("mode", integer.SIGN_MODES)
@pytest.mark.parametrize("bits", range(1, 9))
def test_range_and_step_are_those_of_what_is_stored(bits: int, mode: str) -> None:
    everything = np.arange(-600, 601)
    stored = integer.truncate_weights(everything, bits, mode)
    low, high = integer.weight_range(bits, mode)
    assert np.unique(stored).tolist() == list(range(low, high + 1, integer.weight_step(bits, mode)))
    assert len(np.unique(stored)) == 2**bits
    assert np.array_equal(integer.truncate_weights(stored, bits, mode), stored)
    inside = (everything >= low) & (everything <= high)
    assert (np.abs(stored - everything)[inside] < integer.weight_step(bits, mode)).all()
