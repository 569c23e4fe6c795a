"""Metrics of NeuroBench (Yik et al. 2023, arXiv 2304.04640) of a counted run: counts, no energies.

An operation is effective if both its weight and its activation are other than zero. It is an accumulate
(AC) where activations are spikes, -1, 0 or 1, and a multiply-accumulate (MAC) where they are larger.
NeuroBench decides between the two by the values of a step; here the width of a message does.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from snn_compile.runtime.reports.layers import Layer, layers
from snn_compile.targets.devices.counts import Counts
from snn_compile.targets.program.program import Program


@dataclass(frozen=True)
class NeuroBench:
    """Operations per sample, sparsities between 0 and 1, and bytes.

    `dense`: operations if no weight and no activation were zero. `activation_sparsity`: share of neurons and
    steps without a message, over all populations that send any; None where none does.
    `connection_sparsity`: share of stored weights that are zero. `footprint_bytes`: weights at their width,
    every table of a split projection counted.
    """

    effective_macs: float
    effective_acs: float
    dense: float
    activation_sparsity: float | None
    connection_sparsity: float
    footprint_bytes: float

    def json(self) -> dict[str, Any]:
        """Return the metrics as plain values."""
        return asdict(self)


def neurobench(program: Program, counts: Counts) -> NeuroBench:
    """Return the metrics of a counted run."""
    found = layers(program)
    effective = {layer.name: int(counts.neuron_spikes[layer.source] @ layer.fan_out) for layer in found}
    macs = sum(effective[layer.name] for layer in found if _graded(program, layer))
    senders = [p for p in program.populations if p.name in counts.neuron_spikes]
    updates = sum(counts.updates[p.name] for p in senders)
    sent = sum(int(np.sum(counts.neuron_spikes[p.name])) for p in senders)
    return NeuroBench(
        macs / counts.samples,
        (sum(effective.values()) - macs) / counts.samples,
        float(sum(layer.connections for layer in found) * counts.steps),
        1 - sent / updates if updates else None,
        sum(layer.zeros for layer in found) / max(1, sum(layer.weights for layer in found)),
        sum(layer.storage_bits for layer in found) / 8,
    )


def _graded(program: Program, layer: Layer) -> bool:
    """Whether messages exceed 1; one bit and a sign are -1, 0 and 1."""
    signed = any(port.name == layer.source and port.signed for port in program.inputs)
    return layer.message_bits - signed > 1
