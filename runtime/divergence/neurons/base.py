"""What `diverge` asks of a neuron model, and what the models share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from snn_compile.compiler.neurons.base import Neurons
from snn_compile.compiler.neurons.models import neuron_model
from snn_compile.runtime.divergence.pair import Float, Pair, Tensor
from snn_compile.targets.chips.formats import Formats
from snn_compile.targets.program.population import Population as IntegerPopulation

WITHIN = 1.0 + 1e-6
"""Last bits by which rounding may move a value, whichever way it is chosen."""


@dataclass(frozen=True, eq=False)
class Register:
    """The program's side of one tensor of a step.

    `gain`: program units per unit of the network's values. `kept`: the program's values, None where the
    program has no such population. `lsb`: the last bit of the format. `least`: the lowest value that the
    register holds.
    """

    gain: float
    kept: Any
    lsb: Any = 1.0
    least: float = -np.inf


@dataclass(frozen=True)
class Item:
    """A tensor in reports: the kind of its rounding, and what a fault calls it."""

    rounding: str
    words: str


class Errors(Protocol):
    """Error bounds of one population's states along a run, in the program's units.

    Made from (pair, population's name, the network's traces by state, slack by tensor, the network's
    messages); a slack is the error of a tensor where it is rounding, and 0 where it is a fault.
    """

    def step(self, t: int, e_a: Any) -> Float:
        """Advance to logical step t, whose synaptic input is off by up to `e_a`; return the bound of v.

        Of a model with several ports `e_a` is a list, one per port.
        """


@dataclass(frozen=True)
class FollowedModel:
    """A neuron model as `diverge` follows it.

    `registers(population, made, scale, formats)` yields the program's side of the tensors that the model's
    step has (`compiler.neurons.base.Group.tensors`). `items` names them in reports. `errors` bounds what
    rounding can do to the membrane, along `traces`, which are states of the group. With `moving_threshold`
    the trace "limit" is the threshold of a step. `causes(pair, name, rounded)` yields the fields of causes
    that single tensors do not show; tensors in `together` are reported there alone.
    """

    name: str
    registers: Callable[[Neurons, IntegerPopulation | None, float, Formats], Iterator[tuple[str, Register]]]
    items: Mapping[str, Item]
    errors: Callable[[Pair, str, Mapping[str, Float], Mapping[str, Float], Float], Errors]
    traces: tuple[str, ...] = ("u", "v")
    moving_threshold: bool = False
    together: tuple[str, ...] = ()
    causes: (
        Callable[[Pair, str, Callable[[Tensor], npt.NDArray[np.bool_]]], Iterator[dict[str, Any]]] | None
    ) = None

    def tensors(
        self, population: Neurons, made: IntegerPopulation | None, scale: float, formats: Formats
    ) -> dict[str, Tensor]:
        """Return the tensors of a population from both sides, by item, of shape (size,)."""
        network = neuron_model(self.name).group.tensors(population)
        found = {}
        for item, register in self.registers(population, made, scale, formats):
            ideal = np.maximum(network[item] * register.gain, register.least)
            kept = ideal if register.kept is None else register.kept
            flat = (network[item], ideal, kept, register.lsb, 1 / register.gain)
            found[item] = Tensor(*(np.broadcast_to(np.asarray(x, float), (population.size,)) for x in flat))
        return found


def slack_of(tensor: Tensor) -> Float:
    """Return the errors of a tensor that are rounding, and 0 where a value contradicts the network."""
    error = np.abs(tensor.kept - tensor.ideal)
    return np.where(error <= WITHIN * tensor.lsb, error, 0.0)
