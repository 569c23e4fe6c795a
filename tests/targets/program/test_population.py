"""Populations: defaults, what they send, and how much."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from snn_compile.targets.errors import WrongProgram
from snn_compile.targets.program.models import MODELS
from snn_compile.targets.program.population import Population

NEEDED = {"du": 1, "dv": 2, "vth": 3}


def lif(**options: Any) -> Population:
    registers = NEEDED | {key: options.pop(key) for key in list(options) if key in MODELS["lif"].registers}
    return Population("n", (2, 3), "lif", registers, **options)


def li(**registers: Any) -> Population:
    return Population("n", (4,), "li", {"du": 1, "dv": 2, **registers})


def test_what_is_not_given_has_its_default() -> None:
    shown = {key: array.tolist() for key, array in lif().parameters.items()}
    defaults = {"bias_mant": [0], "bias_exp": [0], "v_init": [0], "v_min": [1 - 2**23]}
    assert shown == {"du": [1], "dv": [2], "vth": [3], **defaults}
    assert li().parameters["message_shift"].tolist() == [0]


@pytest.mark.parametrize("missing", NEEDED)
def test_what_has_no_default_must_be_given(missing: str) -> None:
    registers = {key: value for key, value in NEEDED.items() if key != missing}
    with pytest.raises(WrongProgram, match=rf"model lif has .* and \['{missing}'\] must be given"):
        Population("n", (1,), "lif", registers)


def test_what_a_model_does_not_have_is_refused() -> None:
    for name, model in (("message_shift", "lif"), ("v_min", "li"), ("vth", "li")):
        with pytest.raises(WrongProgram, match=f"model {model} has"):
            Population(
                "n", (1,), model, {key: NEEDED.get(key, 0) for key in (*MODELS[model].registers, name)}
            )


@pytest.mark.parametrize(
    ("options", "plain", "graded", "largest"),
    [
        ({}, True, False, 1),
        ({"reset": "subtract"}, True, False, 1),
        ({"v_min": 1 - 2**23}, True, False, 1),
        ({"v_min": [1 - 2**23] * 5 + [0]}, False, False, 1),
        ({"comparison": ">="}, False, False, 1),
        ({"current_decay": "after"}, False, False, 1),
        ({"spikes_per_step": "floor", "vth": [7, 3, 9, 9, 9, 9]}, False, True, (2**23 - 1) // (3 * 64)),
    ],
)
def test_what_a_population_is(options: Any, plain: bool, graded: bool, largest: int) -> None:
    made = lif(**options)
    assert (made.plain, made.graded, made.largest_message) == (plain, graded, largest)


@pytest.mark.parametrize("shift", [0, 1, 6, 22, 23])
def test_the_largest_message_of_an_integrator(shift: int) -> None:
    made = li(message_shift=[23, shift, 23, 23])
    ends = (2**23 - 1) >> shift, (1 - 2**23) >> shift
    assert made.largest_message == max(abs(end) for end in ends)
    assert made.graded and made.plain and not made.spiking


def test_an_integrator_is_plain_whatever_its_reset() -> None:
    registers = {"du": 1, "dv": 2}
    assert Population("n", (1,), "li", registers, "none", comparison=">=", reset_timing="next_after").plain
    for rule in ({"update_order": "membrane_first"}, {"current_decay": "after"}):
        assert not Population("n", (1,), "li", registers, **rule).plain


def test_several_spikes_need_a_threshold() -> None:
    for threshold in (0, [1, 1, 1, 0, 1, 1]):
        with pytest.raises(WrongProgram, match=r"'n': floor\(v / threshold\) needs thresholds from 1 on"):
            lif(spikes_per_step="floor", vth=threshold)
        lif(vth=threshold)


def test_a_wrong_rule_names_its_population() -> None:
    with pytest.raises(WrongProgram, match="population 'n': reset_timing is 'later'; use one of same_step, "):
        lif(reset_timing="later")
    with pytest.raises(WrongProgram, match="population 'n': reset timing 'pending' exists for single"):
        lif(reset_timing="pending")


def ternary(high: Any = 5, low: Any = -7, **rule: Any) -> Population:
    return Population("n", (2,), "ternary", {"du": 1, "dv": 2, "vth_hi": high, "vth_lo": low}, **rule)


def test_ternary_neurons_send_signs() -> None:
    made = ternary()
    assert (made.spiking, made.graded, made.plain, made.largest_message) == (True, True, False, 1)
    for key in ("vth_hi", "vth_lo"):
        with pytest.raises(WrongProgram, match=f"'n': ternary neurons share {key}"):
            ternary(**{"high" if key == "vth_hi" else "low": [0, 0]})
    for rule in ({"reset": "subtract"}, {"comparison": ">="}, {"current_decay": "after"}):
        with pytest.raises(WrongProgram, match="'n': ternary neurons have Lava's rule and no other"):
            ternary(**rule)


def test_bias() -> None:
    assert lif(bias_mant=[1, 2, 3, -4, 5, 6], bias_exp=[0, 1, 2, 3, 4, 5]).bias.tolist() == [
        1,
        4,
        12,
        -32,
        80,
        192,
    ]
    assert np.array_equal(li(bias_mant=-3, bias_exp=7).bias, [-384])
