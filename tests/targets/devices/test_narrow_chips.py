"""A chip of other widths: every model on `oracle` and `loihi2-sim`, and what the Lava devices say of it."""

from __future__ import annotations

import importlib.util
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from support import comparing, random_programs

from snn_compile.targets.chips.chip import Chip, load_chip
from snn_compile.targets.chips.formats import Formats
from snn_compile.targets.errors import DeviceError
from snn_compile.targets.program.models import MODELS
from snn_compile.targets.program.population import Population

PROGRAMS, BLOCKS = 240, 3
EVERY_MODEL = (*random_programs.OTHERS, *random_programs.OWN, *random_programs.LIQUID)

needs_lava = pytest.mark.skipif(
    importlib.util.find_spec("lava.magma") is None, reason="lava-nc is not installed; the README says how"
)


def chip(**widths: int) -> Chip:
    """Return a chip of 16-bit states and 10-bit decays, otherwise Loihi 2's; `widths` replace more."""
    formats = Formats(state_bits=16, decay_bits=10, threshold_bits=9)
    return replace(
        load_chip("loihi2"), name="narrow", voltage_decay_max=1024, formats=replace(formats, **widths)
    )


def case(seed: int, **widths: int) -> random_programs.Case:
    """Return a random program on a narrow chip, every third one of leaky neurons only."""
    models = () if seed % 3 == 0 else EVERY_MODEL
    limits = random_programs.Limits(neurons=16, steps=25, models=models)
    return random_programs.narrowed(random_programs.case(seed, limits), chip(**widths))


@pytest.mark.parametrize("index", range(BLOCKS))
def test_random_programs_are_equal(index: int) -> None:
    for seed in range(index, PROGRAMS, BLOCKS):
        # Every fifth with a shorter accumulator and another shift as well.
        widths = {"accumulator_bits": 20, "synaptic_shift": 4} if seed % 5 == 0 else {}
        made = case(seed, **widths)
        wanted = comparing.run_all(made.program, made.inputs, "oracle")
        got = comparing.run_all(made.program, made.inputs, "loihi2-sim", threads=1)
        assert not comparing.first_difference(wanted, got), f"seed {seed}"


def test_states_of_every_model_meet_the_ends_of_their_range() -> None:
    seen: Counter[str] = Counter()
    largest: Counter[str] = Counter()
    for seed in range(PROGRAMS):
        made = case(seed)
        record = comparing.run_all(made.program, made.inputs, "loihi2-sim", threads=1)
        for p in made.program.populations:
            found = record.overflows[p.name]
            seen[f"{p.model} wraps"] += bool(found.u_wraps)
            seen[f"{p.model} saturates"] += bool(found.v_high and found.v_low)
            seen[f"{p.model} sends"] += bool(
                record.run.spikes.get(p.name) and record.run.spikes[p.name].count
            )
            if p.kind.membrane == "v":
                states = record.states(f"{p.name}.v")
                largest[p.model] = max(largest[p.model], int(np.abs(states.astype(np.int64)).max()))
    for model, kind in MODELS.items():
        assert seen[f"{model} sends"] >= 2, (model, seen)
        # An adaptation moves between 0 and 1.
        assert seen[f"{model} saturates"] >= 2 or model in ("sigma", "lsn_adaptation"), (model, seen)
        # Of the others, only an input beyond 32 bits counts as a wrap.
        sums = {"u", "i", "sigma"} & set(kind.states) or model == "delta"
        assert seen[f"{model} wraps"] >= 2 or not sums, (model, seen)
    assert {largest[model] for model in ("lif", "li", "atrlif")} == {(1 << 15) - 1}


def test_a_strict_oracle_names_the_width() -> None:
    made = next(c for c in map(case, range(PROGRAMS)) if overflows(c))
    with pytest.raises(DeviceError, match="left its 16-bit range"):
        comparing.run_all(made.program, made.inputs, "oracle", strict=True)


def overflows(made: Any) -> bool:
    return any(comparing.run_all(made.program, made.inputs, "loihi2-sim", threads=1).overflows.values())


@needs_lava
def test_lavas_own_processes_refuse_and_custom_ones_follow() -> None:
    leaky = case(0).program
    with pytest.raises(DeviceError, match=r"state_bits 16 \(Lava: 24\), decay_bits 10 \(Lava: 12\)"):
        comparing.run_all(leaky, case(0).inputs, "lava-stepped")
    with pytest.raises(DeviceError, match=r"accumulator_bits 20 \(Lava: 32\)"):
        comparing.run_all(case(0, accumulator_bits=20).program, case(0).inputs, "lava-stepped")
    custom = random_programs.narrowed(random_programs.custom_ties(), chip())
    wanted = comparing.run_all(custom.program, custom.inputs, "oracle")
    got = comparing.run_all(custom.program, custom.inputs, "lava-stepped")
    assert not comparing.first_difference(wanted, got, overflows=False)
    assert set(got.witness.values()) == {"own"}


def test_the_default_of_v_min_clips_nothing() -> None:
    neurons = Population("n", (1,), "lif", {"du": 1023, "dv": 0, "vth": 511})
    assert int(neurons.parameters["v_min"][0]) < -chip().formats.state_max
