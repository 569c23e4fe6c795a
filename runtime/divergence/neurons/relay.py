"""Relays in `diverge`: neurons without memory or registers, whose message is off as their input is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from snn_compile.compiler.neurons.base import Neurons
from snn_compile.compiler.neurons.relay import RELAYS
from snn_compile.runtime.divergence.neurons.base import FollowedModel, Register
from snn_compile.runtime.divergence.pair import Float, Pair
from snn_compile.targets.chips.formats import Formats
from snn_compile.targets.program.population import Population as IntegerPopulation


def registers(
    p: Neurons, made: IntegerPopulation | None, scale: float, formats: Formats
) -> Iterator[tuple[str, Register]]:
    """Yield nothing: relays have no tensors."""
    yield from ()


class RelayErrors:
    """The error bound of relayed sums; see `Errors`."""

    def __init__(
        self, side: Pair, name: str, traces: Mapping[str, Float], slack: Mapping[str, Float], spikes: Float
    ) -> None:
        self.shape = spikes.shape[::2]

    def step(self, t: int, e_a: Any) -> Float:
        """Return the bound of what is sent at logical step t."""
        return np.broadcast_to(np.asarray(e_a, np.float64), self.shape)


MODELS = tuple(FollowedModel(name, registers, {}, RelayErrors) for name in RELAYS)
