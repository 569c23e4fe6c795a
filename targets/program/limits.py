"""What a chip refuses: every limit of it that a program breaks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from snn_compile.targets.chips.chip import Chip
from snn_compile.targets.chips.formats import LOIHI
from snn_compile.targets.program.models.brf import DAMPING_EXPONENT_MAX

if TYPE_CHECKING:
    from snn_compile.targets.program.population import Population
    from snn_compile.targets.program.program import Program, Projection


def _outside(array: npt.NDArray[Any], low: int, high: int) -> str | None:
    if array.size and (array.min() < low or array.max() > high):
        return f"spans {array.min()}..{array.max()}, the chip holds {low}..{high}"
    return None


def chip_violations(program: Program, chip: Chip) -> list[str]:
    """Return every limit of the chip that the program breaks, one line each."""
    formats = program.formats
    mantissa, state = formats.bias_mantissa_max, (-formats.state_max, formats.state_max)
    decay, threshold = (0, formats.decay_max), (0, formats.threshold_max)
    voltage_decay = (0, chip.voltage_decay_max)
    # Thresholds of some models are registers in membrane units.
    fine_threshold = (0, formats.threshold_max << formats.synaptic_shift)
    fraction = (-formats.decay_one, formats.decay_one)
    ranges = {
        "du": decay,
        "dv": voltage_decay,
        "vth": threshold,
        "vth_hi": threshold,
        "vth_lo": (-formats.threshold_max, 0),
        "bias_mant": (-mantissa - 1, mantissa),
        "bias_exp": formats.bias_exponent,
        "v_init": state,
        # Its default lies below every state.
        "v_min": (min(-formats.state_max, -LOIHI.state_max), formats.state_max),
        "message_shift": (0, formats.state_bits - 1),
        "cos_decay": fraction,
        "sin_decay": fraction,
        "decay_bits": (1, formats.decay_bits),
        "state_exp": (0, 7),
        "spike_exp": (0, 7),
        "delta_i": decay,
        "delta_v": voltage_decay,
        "delta_theta": voltage_decay,
        "delta_r": voltage_decay,
        "theta_0": fine_threshold,
        "theta_step": fine_threshold,
        "bias": state,
        "relu": (0, 1),
        "cum_error": (0, 1),
        "r_step": fine_threshold,
        "refractory": (0, 1),
        "damping": decay,
        "damping_exp": (0, DAMPING_EXPONENT_MAX),
        "reset_exp": (0, 1),
        "rates": (0, formats.decay_one),
        "rate_shift": (0, formats.state_bits - 1),
    }
    found = []
    for population in program.populations:
        if population.kind.programmable and not chip.programmable_neurons:
            found.append(
                f"population {population.name!r}: model {population.model}; {chip.title} has leaky neurons "
                "only"
            )
        # Thresholds of numbers are as wide as a state.
        wide = {"vth": (0, formats.state_max)} if population.kind.programmable and population.graded else {}
        for key, array in population.parameters.items():
            # A register that no chip knows is its model's own, and may be as wide as a state.
            low, high = (ranges | wide).get(key, (-formats.state_max, formats.state_max))
            if text := _outside(array, low, high):
                found.append(f"population {population.name!r}: {key} {text}")
        found += _beyond_the_state(population, formats.state_max)
    for edge in program.projections:
        if edge.delay_steps > chip.delay_max:
            found.append(
                f"projection {edge.name!r}: delay {edge.delay_steps} steps, the chip has {chip.delay_max}"
            )
        for table in edge.tables:
            if text := _outside(np.array([table.exponent]), *formats.weight_exponent):
                found.append(f"projection {edge.name!r}: weight exponent {text}")
            if text := _outside(np.array([table.bits]), *formats.weight_bits):
                found.append(f"projection {edge.name!r}: weight bits {text}")
        found += _wrapping(program, edge)
        for table in edge.tables:
            if text := _outside(np.array([table.message_bits]), 0, chip.message_bits_max):
                found.append(f"projection {edge.name!r}: message bits {text}")
        source = next((p for p in program.populations if p.name == edge.source), None)
        if source and source.graded and not chip.graded_messages:
            found.append(
                f"projection {edge.name!r}: {edge.source!r} sends numbers; {chip.title} has spikes "
                "without payload"
            )
    for port in program.inputs:
        if port.kind == "graded" and not chip.graded_messages:
            found.append(f"input {port.name!r} is graded; {chip.title} has spikes without payload")
        elif port.bits > chip.message_bits_max:
            found.append(
                f"input {port.name!r}: {port.bits} bits a message, the chip has {chip.message_bits_max}"
            )
    # A mapping made under an older version of the chip is reported as such, not checked against this one.
    if len(program.cores) > chip.all_cores and program.chip_version == chip.version:
        found.append(
            f"cores: {len(program.cores)} needed, {chip.all_cores} available{_filled(program, chip)}"
        )
    return found


def _beyond_the_state(population: Population, state_max: int) -> list[str]:
    """Find thresholds and biases of sigma-delta neurons that, shifted, are more than a state holds."""
    if "spike_exp" not in population.parameters:
        return []
    shift = int(population.parameters["spike_exp"][0] + population.parameters["state_exp"][0])
    return [
        f"population {population.name!r}: {key} * 2**{shift} {text}"
        for key in ("vth", "bias")
        if key in population.parameters
        and (
            text := _outside(
                population.parameters[key].astype(np.int64) << min(shift, 14), -state_max, state_max
            )
        )
    ]


def _filled(program: Program, chip: Chip) -> str:
    """Return what the cores are needed for: how many each resource alone would fill, and of whom."""
    limits = {
        "words": chip.memory.words,
        "synapse_words": chip.memory.synapse_words,
        "in_axons": chip.core_in_axons,
        "out_axons": chip.core_out_axons,
        "neurons": chip.core_neurons,
    }
    fill = {key: sum(core.use.get(key, 0) for core in program.cores) / limit for key, limit in limits.items()}
    held: dict[str, int] = {}
    for core in program.cores:
        for name in {name for name, _, _ in core.slices}:
            held[name] = held.get(name, 0) + 1
    most = sorted(held, key=lambda name: -held[name])[:4]
    alone = ", ".join(f"{key} {value:.0f}" for key, value in sorted(fill.items(), key=lambda item: -item[1]))
    largest = ", ".join(f"{name} on {held[name]}" for name in most)
    return f" (each resource alone would fill: {alone}; largest are {largest})"


def _wrapping(program: Program, edge: Projection) -> list[str]:
    """Find delayed graded tables whose sums may leave 32 bits before a right shift.

    Lava wraps the sum of a Dense there but each product of a DelayDense, so such a table has no one
    meaning; nothing sensible needs it.
    """
    if not edge.delay_steps:
        return []
    source = next(node for node in program.nodes if node.name == edge.source)
    largest = source.largest_message
    return [
        f"projection {edge.name!r}: delayed messages of {largest.bit_length()} bits can leave 32 bits "
        f"before the right shift by {-table.exponent}"
        for table in edge.tables
        if table.message_bits and table.exponent < 0 and table.largest_sum * largest >= 1 << 31
    ]
