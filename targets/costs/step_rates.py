"""Rates of a chip's operations as data, for a bound of the time of a step."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from snn_compile.targets.costs.tables import costs_folder
from snn_compile.targets.errors import ChipError
from snn_compile.targets.schema import Interval, entry, near, read_toml


@dataclass(frozen=True)
class StepRates:
    """Nanoseconds per operation of a core, bits per nanosecond of a link, static watts; None: not public.

    `synaptic_op_ns`, `neuron_op_ns`: operations of one core follow each other. `memory_word_ns`: one word of
    synapse memory is read. `mesh_link_bits_per_ns`: between neighbouring tiles; `chip_link_bits_per_ns`:
    between chips; `message_bits`: bits of a spike there. `barrier_ns`: every core has ended its step.
    """

    source: str = entry()
    hardware: str = entry()
    synaptic_op_ns: Interval | None = entry(low=0, default=None, optional=True)
    neuron_op_ns: Interval | None = entry(low=0, default=None, optional=True)
    memory_word_ns: Interval | None = entry(low=0, default=None, optional=True)
    mesh_link_bits_per_ns: Interval | None = entry(low=0, default=None, optional=True)
    chip_link_bits_per_ns: Interval | None = entry(low=0, default=None, optional=True)
    message_bits: int = entry(low=1, default=32, optional=True)
    barrier_ns: Interval | None = entry(low=0, default=None, optional=True)
    static_w: Interval | None = entry(low=0, default=None, optional=True)
    static_source: str = entry(default="", optional=True)


def rates_names() -> list[str]:
    """Return the names of the tables of rates that this installation knows, sorted."""
    return sorted(file.stem for file in (costs_folder() / "rates").glob("*.toml"))


def load_rates(name: str, beside: Path | None = None) -> StepRates:
    """Return rates by their name, or by a path ending in `.toml`, relative to the folder `beside`.

    Raises ChipError on an unknown name and on a file that is missing or wrong.
    """
    if name.endswith(".toml"):
        file = (beside or Path()) / name
        if not os.path.isfile(file):
            raise ChipError(f"no table of rates at {file}", file=str(file))
        return read_toml(StepRates, file, ChipError)
    if name not in rates_names():
        raise ChipError(
            f"no table of rates named {name!r}; there are: {', '.join(rates_names())}"
            f"{near(name, rates_names())}",
            name=name,
        )
    return _installed(name)


@cache
def _installed(name: str) -> StepRates:
    return read_toml(StepRates, costs_folder() / "rates" / f"{name}.toml", ChipError)
