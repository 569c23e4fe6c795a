"""Published tables that belong to no chip file: SynOps alone, SANA-FE's Loihi 1, Lemaire et al. 2022.

An interval (low, high) stands where sources differ; one number is an interval of equal ends.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from snn_compile.targets.costs.tables import LEMAIRE, SANAFE, SYNOPS, costs_folder
from snn_compile.targets.errors import ChipError
from snn_compile.targets.schema import Interval, entry, read_toml


@dataclass(frozen=True)
class SynopCosts:
    """Picojoules per synaptic operation of a kind of hardware, and nothing else."""

    source: str = entry()
    hardware: str = entry()
    synaptic_op_pj: Interval = entry(low=0)


@dataclass(frozen=True)
class SanaFeCosts:
    """Picojoules per event of SANA-FE's units; synapses by how the table of weights is stored."""

    source: str = entry()
    hardware: str = entry()
    synapse_dense_pj: Interval = entry(low=0)
    synapse_sparse_pj: Interval = entry(low=0)
    synapse_convolution_pj: Interval = entry(low=0)
    neuron_access_pj: Interval = entry(low=0)
    neuron_update_pj: Interval = entry(low=0)
    spike_pj: Interval = entry(low=0)
    message_out_pj: Interval = entry(low=0)
    message_in_pj: Interval = entry(low=0)
    hop_east_west_pj: Interval = entry(low=0)
    hop_north_south_pj: Interval = entry(low=0)


@dataclass(frozen=True)
class LemaireCosts:
    """Picojoules per integer operation and per access to a memory of some size (Lemaire et al. 2022)."""

    source: str = entry()
    add_pj: float = entry(low=0)
    multiply_pj: float = entry(low=0)
    memory_bytes_small: int = entry(low=1)
    memory_bytes_middle: int = entry(low=1)
    memory_bytes_large: int = entry(low=1)
    access_small_pj: float = entry(low=0)
    access_middle_pj: float = entry(low=0)
    access_large_pj: float = entry(low=0)
    access_base_pj: float = entry(low=0)
    access_per_bit_pj: float = entry(low=0)

    def access_pj(self, bits: float) -> Interval:
        """Return picojoules of one access to a memory of so many bits: by interpolation, and by the line.

        Memories below the smallest or above the largest stated one take that one's energy when
        interpolated.
        """
        sizes = [
            8.0 * n for n in (self.memory_bytes_small, self.memory_bytes_middle, self.memory_bytes_large)
        ]
        costs = [self.access_small_pj, self.access_middle_pj, self.access_large_pj]
        between = costs[0] if bits <= sizes[0] else costs[-1]
        for i in range(2):
            if sizes[i] < bits <= sizes[i + 1]:
                share = (bits - sizes[i]) / (sizes[i + 1] - sizes[i])
                between = costs[i] + share * (costs[i + 1] - costs[i])
        line = self.access_base_pj + self.access_per_bit_pj * bits
        return min(between, line), max(between, line)


@cache
def synop_costs() -> SynopCosts:
    """Return the energy of a synaptic operation, alone."""
    return read_toml(SynopCosts, costs_folder() / f"{SYNOPS}.toml", ChipError)


@cache
def sanafe_costs() -> SanaFeCosts:
    """Return SANA-FE's energies of Loihi 1."""
    return read_toml(SanaFeCosts, costs_folder() / f"{SANAFE}.toml", ChipError)


@cache
def lemaire_costs() -> LemaireCosts:
    """Return the energies of Lemaire et al. 2022."""
    return read_toml(LemaireCosts, costs_folder() / f"{LEMAIRE}.toml", ChipError)
