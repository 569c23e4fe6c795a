"""Integers that training chose already: how they come back from the floats that a graph holds of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import floor, log2
from typing import Any

import numpy as np

from snn_compile.compiler.network import Float, Network, Population, Port, Weight, weight_values, with_values
from snn_compile.targets.chips.rounding import FLOAT_NOISE
from snn_compile.targets.program.program import InputPort

Known = Mapping[str, Mapping[str, Any]]
"""What a contract says of nodes whose integers were trained; see `Contract.integers`."""


def apply_fixed_scale(population: Population, integers: Known) -> Population:
    """Return a population with the scale and bits that a contract gives it."""
    if not (known := integers.get(population.name)):
        return population
    return replace(population, fixed_scale=float(known["scale"]), weight_bits=known.get("weight_bits"))


def apply_fixed_encoding(port: Port, integers: Known) -> Port:
    """Return an input with the encoding that a contract gives it."""
    if not (known := integers.get(port.name)):
        return port
    bits, signed = known.get("message_bits", 0), known.get("signed", False)
    return replace(port, fixed_scale=float(known["scale"]), message_bits=bits, signed=signed)


def whole(weight: Weight) -> Weight:
    """Return weights that are whole numbers but for float noise as just those; any others as they are."""
    exact = weight_values(weight)
    rounded = np.rint(exact)
    near = np.max(np.abs(rounded - exact), initial=0.0) < FLOAT_NOISE
    return with_values(weight, rounded) if near else weight


def trained_bits(network: Network) -> int:
    """Return the bits of the weights that training chose, 0 where it chose none."""
    return max((p.weight_bits or 0 for p in network.populations), default=0)


def release_fixed_integers(network: Network, weight_bits: int | None) -> tuple[Network, tuple[str, ...]]:
    """Return a network whose integers are free again where fewer bits are asked for than they were trained
    with, or where a search chooses them (None), and a line that says so; any other network as it is.
    """
    trained = trained_bits(network)
    if not trained or (weight_bits is not None and trained <= weight_bits):
        return network, ()
    populations = tuple(
        replace(p, fixed_scale=None, weight_bits=None) if p.weight_bits else p for p in network.populations
    )
    inputs = tuple(replace(p, fixed_scale=None) for p in network.inputs)
    asked = "bits searched for" if weight_bits is None else f"{weight_bits} bits"
    note = (
        f"the network was trained as integers with weights of {trained} bits; with {asked} "
        "they are chosen anew, and its spikes are not those of the training"
    )
    return replace(network, populations=populations, inputs=inputs), (note,)


def ignored_options(network: Network, asked: Mapping[str, str]) -> tuple[str, ...]:
    """Return a line for what is asked of integers, option to word, that training chose already."""
    words = [f"{option} {word}" for option, word in asked.items() if word != "auto"]
    if not words or not trained_bits(network):
        return ()
    return (
        f"the network was trained as integers, which stay as they are: {', '.join(words)} changes nothing; "
        "fewer bits choose them anew",
    )


def trained_input(port: Port, start_step: int) -> InputPort | None:
    """Return how an input is encoded if training settled that, else None."""
    if port.fixed_scale is None:
        return None
    if not port.message_bits:
        return InputPort(port.name, port.shape, start_step=start_step)
    return InputPort(
        port.name, port.shape, "graded", port.fixed_scale, port.message_bits, port.signed, start_step
    )


def message_scale(data: Float, bits: int) -> float:
    """Return the messages a unit of graded input.

    Of the two scales that fill the range, the largest value on the highest message or a power of two,
    the one with the smaller error is taken: images of k/16 are exact with the second, k/255 with the
    first.
    """
    top, largest = (1 << bits) - 1, float(np.abs(data).max())
    values = np.unique(np.abs(data))
    scales = [top / largest, 2.0 ** floor(log2(top / largest))]
    error = [float(np.mean((np.rint(values * s) / s - values) ** 2)) for s in scales]
    return scales[1] if error[1] <= error[0] else scales[0]
