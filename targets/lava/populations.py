"""The Lava process of every population: stock where that is its meaning, else derived or custom.

`lif.py` has the leaky neurons that Lava's LIF does not express, `stock.py` Lava's other models, `custom.py`
every model that Lava has no process for. Importing this module also imports lava.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from snn_compile.targets.chips.formats import LOIHI, Formats
from snn_compile.targets.errors import DeviceError
from snn_compile.targets.integer import M
from snn_compile.targets.lava.compat import load_lava
from snn_compile.targets.lava.custom import custom_process
from snn_compile.targets.lava.lif import ProgramLIF
from snn_compile.targets.lava.stock import PROCESSES, is_active_without_input, registers, stock_process
from snn_compile.targets.program.population import Population

_lava = load_lava()

NEURON_FORMATS = ("state_bits", "decay_bits", "synaptic_shift")
"""The widths that a neuron's step depends on."""

NEVER = 1 << 17
"""A threshold that the saturating membrane cannot exceed: the stock LIF as a leaky integrator."""


def implementation_of(population: Population, sends: bool, period: int = 1) -> str:
    """Return what steps a population on the Lava devices; `sends`: its messages are read.

    "stock": one of Lava's processes. "derived (methods)": a process that derives Lava's and overrides these
    methods. "own": the oracle's class in a process, which is no independent implementation.
    """
    if population.kind.ruled:
        return _leaky_implementation(population, sends, period)
    if population.model not in PROCESSES:
        return "own"
    held = period > 1 or (population.start_step and is_active_without_input(population))
    return "derived (run_spk)" if held else "stock"


def check_synapses(formats: Formats) -> None:
    """Raise DeviceError where Lava's synapses do not have a program's formats."""
    if differences := _other_widths(formats, ("accumulator_bits",)):
        raise DeviceError(
            f"Lava's synapses have fixed formats, and the program's differ: {differences}; "
            "run it on oracle or loihi2-sim",
            device="lava",
        )


def _other_widths(formats: Formats, names: Sequence[str]) -> str:
    """Return which of the named widths are not Lava's, or ""."""
    pairs = [(name, getattr(formats, name), getattr(LOIHI, name)) for name in names]
    return ", ".join(f"{name} {found} (Lava: {fixed})" for name, found, fixed in pairs if found != fixed)


def _leaky_implementation(population: Population, sends: bool, period: int) -> str:
    rule, parameters = population.rule, population.parameters
    clipped = population.spiking and bool((parameters["v_min"] > 1 - M).any())
    messages = sends and not population.spiking
    other_dynamics = (rule.update_order, rule.current_decay) != ("synapse_first", "before")
    other_spikes = (rule.comparison, rule.spikes_per_step) != (">", "one") or rule.reset_timing == "pending"
    other_reset = (rule.reset, rule.reset_timing) != ("value", "same_step") or clipped
    # What a neuron without input would do before its start step.
    moves = population.bias.any() or parameters["v_init"].any()
    if population.spiking:
        moves |= (parameters["v_min"] > 0).any() or (rule.comparison == ">=" and not parameters["vth"].all())
        other_dynamics |= rule.reset_timing != "same_step"
    overridden = {
        "reset_voltage": messages or (population.spiking and (other_reset or rule.spikes_per_step != "one")),
        "run_spk": period > 1 or (population.start_step and moves),
        "spiking_activation": messages or (population.spiking and other_spikes),
        "subthr_dynamics": other_dynamics,
    }
    methods = [name for name, differs in overridden.items() if differs]
    return f"derived ({', '.join(methods)})" if methods else "stock"


def make_process(population: Population, sends: bool, period: int = 1, formats: Formats = LOIHI) -> Any:
    """Return the Lava process of a population; `sends`: its messages are read.

    Raises DeviceError for other formats than Loihi's where the process is Lava's own or derived.
    """
    implementation = implementation_of(population, sends, period)
    if implementation == "own":
        return custom_process(population, period, formats)
    if differences := _other_widths(formats, NEURON_FORMATS):
        raise DeviceError(
            f"population {population.name!r}: Lava's {population.model} neurons have fixed formats, and the "
            f"program's differ: {differences}; run it on oracle or loihi2-sim",
            device="lava",
            population=population.name,
        )
    if not population.kind.ruled:
        return stock_process(population, period, held=implementation != "stock")
    register = registers(population)
    parameters = {
        "shape": (population.size,),
        "u": 0,
        "v": register["v_init"],
        "du": register["du"],
        "dv": register["dv"],
        "bias_mant": register["bias_mant"],
        "bias_exp": register["bias_exp"],
        "name": population.name,
        "vth": register.get("vth", NEVER),
    }
    if implementation == "stock":
        return _lava.LIF(**parameters)
    return ProgramLIF(population=population, period=period, sends=sends, **parameters)
