"""Restore quantized integers from a graph trained with quantization-aware training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from snn_compile.compiler.network import Network, Population, Port

Known = Mapping[str, Mapping[str, Any]]
"""Integers that were trained, by node; see `Contract.integers`."""


def apply_fixed_scale(population: Population, integers: Known) -> Population:
    """Return a population with its trained scale and bits, if the contract has them."""
    if not (known := integers.get(population.name)):
        return population
    return replace(population, fixed_scale=float(known["scale"]), weight_bits=known.get("weight_bits"))


def apply_fixed_encoding(port: Port, integers: Known) -> Port:
    """Return an input with its trained encoding, if the contract has one."""
    if not (known := integers.get(port.name)):
        return port
    bits, signed = known.get("message_bits", 0), known.get("signed", False)
    return replace(port, fixed_scale=float(known["scale"]), message_bits=bits, signed=signed)


def trained_bits(network: Network) -> int:
    """Return the width of trained integer weights in bits, 0 if there are none."""
    return max((p.weight_bits or 0 for p in network.populations), default=0)


def release_fixed_integers(network: Network, weight_bits: int | None) -> tuple[Network, tuple[str, ...]]:
    """Free trained integers where fewer `weight_bits` are requested than they were trained with, or where a
    search chooses the bits (None); return the network and a warning of that.
    """
    trained = trained_bits(network)
    if not trained or (weight_bits is not None and trained <= weight_bits):
        return network, ()
    populations = tuple(
        replace(p, fixed_scale=None, weight_bits=None) if p.weight_bits else p for p in network.populations
    )
    inputs = tuple(replace(p, fixed_scale=None) for p in network.inputs)
    requested = "bits searched for" if weight_bits is None else f"{weight_bits} bits"
    note = (
        f"the network was trained as integers with weights of {trained} bits; with {requested} "
        "they are chosen again, so its spikes differ from those in training"
    )
    return replace(network, populations=populations, inputs=inputs), (note,)


def ignored_options(network: Network, options: Mapping[str, str]) -> tuple[str, ...]:
    """Return a warning of options (name to value) that have no effect on trained integers."""
    words = [f"{option} {word}" for option, word in options.items() if word != "auto"]
    if not words or not trained_bits(network):
        return ()
    return (
        f"the network was trained as integers, which are kept: {', '.join(words)} has no effect; "
        "fewer bits choose them again",
    )
