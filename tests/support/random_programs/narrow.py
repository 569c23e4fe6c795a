"""Random programs of Loihi 2 brought to a chip of other widths."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from support.random_programs.programs import Case

from snn_compile.targets.chips.chip import Chip
from snn_compile.targets.chips.formats import LOIHI, Formats
from snn_compile.targets.program.population import Population


def narrowed(case: Case, chip: Chip) -> Case:
    """Return the case on a chip of narrower states and decays, its registers brought into that chip's ranges.

    Decays keep the share that they stand for; everything else keeps its value where the chip holds it.
    """
    program = replace(
        case.program,
        chip=chip.name,
        chip_version=chip.version,
        populations=tuple(_narrowed(p, chip.formats) for p in case.program.populations),
        formats=chip.formats,
        profile=chip,
    )
    return replace(case, program=program)


def _narrowed(p: Population, formats: Formats) -> Population:
    found = {key: array.astype(np.int64) for key, array in p.parameters.items()}
    fewer = LOIHI.decay_bits - formats.decay_bits
    if "decay_bits" in found:
        fewer = max(0, int(found["decay_bits"][0]) - formats.decay_bits)
        found["decay_bits"] = found["decay_bits"] - fewer
    for key in (
        "du",
        "dv",
        "delta_i",
        "delta_v",
        "delta_theta",
        "delta_r",
        "cos_decay",
        "sin_decay",
        "damping",
        "rates",
    ):
        if key in found:
            found[key] = np.sign(found[key]) * (np.abs(found[key]) >> fewer)
    turn = formats.decay_one
    top, threshold = formats.state_max, formats.threshold_max
    if "spike_exp" in found:
        top = threshold = top >> int(found["spike_exp"][0] + found["state_exp"][0])
    elif p.model in ("graded", "graded_relu"):
        threshold = top
    high = formats.threshold_max << formats.synaptic_shift
    spans = dict.fromkeys(("vth", "vth_hi"), (0, threshold)) | {"vth_lo": (-threshold, 0)}
    gates = ("membrane_bias", "adaptation_bias")
    spans |= dict.fromkeys(("v_init", "bias", *gates), (-top, top)) | dict.fromkeys(
        ("cos_decay", "sin_decay"), (-turn, turn)
    )
    spans |= dict.fromkeys(("theta_0", "theta_step", "r_step"), (0, high))
    shifts = dict.fromkeys(("message_shift", "rate_shift"), (0, formats.state_bits - 1))
    spans |= {**shifts, "v_min": (-LOIHI.state_max, top)}
    for key, (least, most) in spans.items():
        if key in found:
            found[key] = np.clip(found[key], least, most)
    return replace(p, parameters=found)
