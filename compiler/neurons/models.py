"""Neuron models beyond the leaky ones: by model what steps it in float64, and what makes integers of it.

The equations stand in the module of each. Such a population has a threshold, sends spikes, and takes its
input at once (no synaptic state).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from snn_compile.compiler.network import Float, Population
from snn_compile.compiler.neurons.alif import AdaptiveGroup, adaptive_bound, adaptive_integers, adaptive_poles
from snn_compile.compiler.neurons.brf import (
    ResonatorGroup,
    resonator_bound,
    resonator_integers,
    resonator_poles,
)
from snn_compile.compiler.neurons.rf_iz import IzhikevichGroup, izhikevich_bound, izhikevich_integers
from snn_compile.targets.chips.chip import Chip
from snn_compile.targets.chips.rounding import TensorError
from snn_compile.targets.program.population import Population as IntegerPopulation

Integers = tuple[IntegerPopulation, list[TensorError], list[str]]


@dataclass(frozen=True)
class NeuronProgram:
    """What the stages ask of a model.

    `group(population, batch)` steps in float64; `integers(population, scale, latency, chip)` are the chip's,
    with errors and warnings; `bound(population, drive)`: the largest state under inputs of that size at every
    step; `poles`: of the filters that stand for how a membrane sees its input.
    """

    group: Callable[[Population, int], Any]
    integers: Callable[[Population, float, int, Chip], Integers]
    bound: Callable[[Population, Float], Float]
    poles: Callable[[Population], list[complex]]


NEURON_PROGRAMS = {
    "brf": NeuronProgram(ResonatorGroup, resonator_integers, resonator_bound, resonator_poles),
    "rf_iz": NeuronProgram(IzhikevichGroup, izhikevich_integers, izhikevich_bound, resonator_poles),
    "alif": NeuronProgram(AdaptiveGroup, adaptive_integers, adaptive_bound, adaptive_poles),
}
"""The models, by the names that the Network and the Program have for them."""
