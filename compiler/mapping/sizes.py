"""Cores that a network needs by its sizes alone, before any number is rounded."""

from __future__ import annotations

from math import ceil

import numpy as np

from snn_compile.compiler.network import Network, Projection
from snn_compile.targets.chips.chip import Chip
from snn_compile.targets.errors import DoesNotFit
from snn_compile.targets.program.kernels import shared_kernel

SMALLEST = 1 / 510
"""Weights below this share of their projection's largest may round to 0 and take no memory."""


def refuse_sizes(network: Network, chip: Chip) -> None:
    """Raise DoesNotFit if neurons or synapses fill more cores than the chip has, whatever the number of bits.

    Synapses count with a weight of one bit each, without delays and heads of rows; convolutions not at all.
    """
    if not chip.mapped:
        return
    neurons = {p.name: p.size / chip.core_neurons for p in network.populations}
    words = dict.fromkeys(neurons, 0.0)
    synapse_bits = 1 + (0 if chip.memory.dense_rows else chip.memory.index_bits)
    shapes = {node.name: node.shape for node in network.nodes}
    for edge in network.projections:
        if not (chip.memory.shared_kernels and _is_kernel(edge, shapes)):
            share = _kept(edge) * synapse_bits / chip.memory.word_bits / chip.memory.synapse_words
            words[edge.target] += share
    lines = []
    for name, shares in (("neurons", neurons), ("synapse_words", words)):
        if (least := ceil(sum(shares.values()))) > chip.all_cores:
            largest = sorted(shares, key=lambda key: -shares[key])[:4]
            text = ", ".join(f"{key} {shares[key]:,.0f}" for key in largest)
            lines.append(f"{name} alone fill {least:,} cores at least, at any number of bits ({text})")
    if lines:
        raise DoesNotFit(
            f"{chip.heading} has {chip.all_cores:,} cores: " + "; ".join(lines),
            violations=lines,
            least_cores=max(ceil(sum(neurons.values())), ceil(sum(words.values()))),
        )


def _is_kernel(edge: Projection, shapes: dict[str, tuple[int, ...]]) -> bool:
    return shared_kernel(edge.weight, shapes[edge.target], shapes[edge.source]) is not None


def _kept(edge: Projection) -> int:
    """Return the weights that no rounding makes zero."""
    values = np.abs(edge.values)
    return int(np.count_nonzero(values > SMALLEST * values.max(initial=0.0)))
