"""Restore quantized integers from a graph trained with quantization-aware training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from snn_compile.compiler.network import Network, Population, Port

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
