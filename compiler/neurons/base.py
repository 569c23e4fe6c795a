"""What every neuron model shares: the frame of its float step, and the facts that it registers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from snn_compile.compiler.neurons.arithmetic import FLOAT, Arithmetic, Float
from snn_compile.targets.chips.chip import Chip
from snn_compile.targets.chips.formats import Formats
from snn_compile.targets.chips.rounding import TensorError
from snn_compile.targets.program.population import Population as IntegerPopulation
from snn_compile.targets.program.rule import Rule

Bool = npt.NDArray[np.bool_]
Poles = tuple[complex, ...]
"""The poles of a filter, one behind the other."""
Integers = tuple[IntegerPopulation, list[TensorError], list[str]]
"""A population in integers, the rounding error of each register, and warnings."""


class Neurons(Protocol):
    """What a model reads of a population of the Network; `network.Population` is one."""

    @property
    def name(self) -> str:
        """The population's name."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the layer; neurons are flattened in C order."""

    @property
    def size(self) -> int:
        """Number of neurons."""

    @property
    def model(self) -> str:
        """The model's name."""

    @property
    def parameters(self) -> Mapping[str, Float]:
        """Per-step parameters of shape (1,) or (size,)."""

    @property
    def rule(self) -> Rule:
        """Order of a step, comparison and reset."""

    @property
    def spiking(self) -> bool:
        """Whether the population emits spikes."""


@dataclass(frozen=True)
class Peak:
    """Largest |u| and |v| that a population reached, and the largest v, before the reset."""

    u: float
    v: float
    v_high: float


class Group:
    """The state of one population over a batch, each state of shape (batch, size).

    `u` is the synaptic current, `v` the membrane after the reset, `reached` the membrane that was compared
    with the threshold; a model adds its own states in `begin`. `values` are the tensors of the step
    (`tensors`), in the units of `arithmetic`; None takes them from the population. `watched` groups keep
    track of their peaks. A group with several `ports` takes their inputs stacked, (ports, batch, size).
    """

    watched = True
    ports = 1

    def __init__(
        self,
        population: Neurons,
        batch: int,
        arithmetic: Arithmetic = FLOAT,
        values: Mapping[str, Float] | None = None,
        rule: Rule | None = None,
    ) -> None:
        self.size, self.spiking, self.model = population.size, population.spiking, population.model
        self.input_bias = population.parameters["input_bias"]
        self.rule, self.arithmetic = rule or population.rule, arithmetic
        self.values = self.tensors(population) if values is None else values
        self.u = self.v = self.reached = np.zeros((batch, self.size))
        self._peaks = [0.0, 0.0, 0.0]
        self.begin()

    @staticmethod
    def tensors(population: Neurons) -> Mapping[str, Float]:
        """Return the tensors of a step by name, in the network's units, of shape (1,) or (size,)."""
        return population.parameters

    def begin(self) -> None:
        """Set the model's own states and constants."""

    def step(self, x: Float) -> Float:
        """Advance by one logical step with synaptic input x (batch, size); return the messages."""
        raise NotImplementedError

    def peak(self) -> Peak:
        """Return the largest states so far."""
        return Peak(*self._peaks)

    def receive(self, x: Float) -> Float:
        """Return synaptic input in units of a state, for models without a synaptic state."""
        u = self.arithmetic.current(x)
        if u.shape != self.v.shape:
            u = np.broadcast_to(u, self.v.shape)
        self.u = self.arithmetic.wrapped_sum(u)
        return self.u

    def watch(self, current: Float, states: tuple[Float, ...], high: tuple[Float, ...] = ()) -> None:
        """Keep the peaks of the current, of the states, and of what is compared with a threshold."""
        if not self.watched:
            return
        peaks = self._peaks
        highest = max([_largest(part) for part in high or states[:1]])
        magnitudes = [_largest(np.abs(part)) for part in states]
        peaks[0] = max(peaks[0], _largest(np.abs(current)))
        peaks[1] = max(peaks[1], highest, *magnitudes)
        peaks[2] = max(peaks[2], highest)


def _largest(values: Float) -> float:
    return float(np.maximum.reduce(values, None))


def unbounded(population: Neurons, drive: Float, formats: Formats) -> Peak:
    """Return that states have no bound."""
    return Peak(np.inf, np.inf, np.inf)


def no_poles(population: Neurons) -> list[Poles]:
    """Return one filter without poles: a membrane is taken for its input."""
    return [()]


@dataclass(frozen=True)
class NeuronModel:
    """What the compiler asks of a neuron model; a file of this folder lists its own in `MODELS`.

    `parameters`: the names of a population's per-step parameters; those in `decays` are the share lost per
    step, from 0 to 1, and `defaults` may be left out. `group(population, batch)` steps the population.

    `integers(population, scale, latency, chip)` rounds it to a chip's registers; None leaves that to
    `quantization/registers.py`, which knows leaky neurons. `bound(population, drive, formats)` holds the
    largest states under inputs of at most `drive` (size,) at every step, with rounded decays.
    `poles(population)` are the poles of filters that stand for how a membrane responds to its input, a tuple
    per filter.

    A model with `message_units` (units of a message per unit of the threshold register) sends numbers and
    needs a fixed scale; `message_bits` are the bits of a message, and `input_units(population)` the units in
    which synaptic input is summed, per unit of the threshold register. A model that `sends_state` sends a
    state at every step, whatever its threshold is. A model that `relays` sends what it receives, without a
    state: on the chip undivided sums of integers.
    """

    name: str
    parameters: tuple[str, ...]
    group: type[Group]
    integers: Callable[[Neurons, float, int, Chip], Integers] | None = None
    bound: Callable[[Neurons, Float, Formats], Peak] = unbounded
    poles: Callable[[Neurons], list[Poles]] = no_poles
    decays: tuple[str, ...] = ()
    defaults: Mapping[str, float] = field(default_factory=dict)
    message_units: float | None = None
    message_bits: int = 0
    input_units: Callable[[Neurons], float] | None = None
    sends_state: bool = False
    relays: bool = False

    @property
    def spiking(self) -> bool:
        """Whether the neurons have a threshold and send what it decides."""
        return "threshold" in self.parameters and not self.sends_state

    @property
    def sends_numbers(self) -> bool:
        """Whether messages are numbers of a fixed scale, as those of sigma-delta neurons."""
        return self.message_units is not None
