"""What a step costs: time of neurons and synapses, messages of sources, from their rates.

A core's time per step is that of its synaptic operations and of its neurons, one after another, by the
chip's rates (`targets/costs/rates`). How often a neuron sends a message per step is 1 without data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from snn_compile.compiler.mapping.blocks import Block
from snn_compile.compiler.quantization.quantize import QuantizedNetwork
from snn_compile.targets.chips.chip import Chip

SYNOP_NS, NEURON_NS = 0.66, 4.0
"""Times of chips without rates: those of Loihi 2, whose ratio is what balances cores."""

Float = npt.NDArray[np.float64]

Rates = Mapping[str, npt.ArrayLike]
"""Messages per step and neuron of populations and inputs: one number, or one per neuron."""


class Work:
    """Time per step of each neuron, and the messages per step that each source sends.

    `rates`: where a source is left out, the mean of the others stands for it; without any, 1.
    """

    def __init__(self, network: QuantizedNetwork, chip: Chip, rates: Rates | None = None) -> None:
        stated = chip.step_rates
        synop = stated.synaptic_op_ns if stated else None
        neuron = stated.neuron_op_ns if stated else None
        synop_ns, neuron_ns = (synop or (SYNOP_NS,))[0], (neuron or (NEURON_NS,))[-1]
        sizes = {node.name: node.size for node in network.nodes}
        known = {
            name: np.broadcast_to(np.asarray(rate, np.float64), (sizes[name],))
            for name, rate in (rates or {}).items()
            if name in sizes and np.size(rate) in (1, sizes[name])
        }
        usual = float(np.mean([rate.mean() for rate in known.values()])) if known else 1.0
        self.rates: dict[str, Float] = {
            name: known.get(name, np.full(size, usual)) for name, size in sizes.items()
        }
        self.neuron_ns: dict[str, Float] = {p.name: np.full(p.size, neuron_ns) for p in network.populations}
        for edge in network.projections:
            for table in edge.tables:
                synops = table.nonzero @ self.rates[edge.source]
                self.neuron_ns[edge.target] = self.neuron_ns[edge.target] + synop_ns * synops

    def block_ns(self, block: Block) -> float:
        """Return the time per step of a block's neurons in ns."""
        cut = tuple(slice(*bounds) for bounds in block.ranges)
        return float(self.neuron_ns[block.population].reshape(block.shape)[cut].sum())

    @property
    def total_ns(self) -> float:
        """Time per step of all neurons, on one core."""
        return float(sum(array.sum() for array in self.neuron_ns.values()))


def labels(network: QuantizedNetwork, blocks: Sequence[Block]) -> dict[str, npt.NDArray[np.int32]]:
    """Return, by population, the number of the block that holds each neuron."""
    found = {p.name: np.full(p.size, -1, np.int32) for p in network.populations}
    for number, block in enumerate(blocks):
        cut = tuple(slice(*bounds) for bounds in block.ranges)
        found[block.population].reshape(block.shape)[cut] = number
    return found
