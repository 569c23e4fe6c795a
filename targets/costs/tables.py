"""Cost tables as data, read from a `.toml` file in this folder or from a user's."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

from snn_compile.targets.errors import ChipError
from snn_compile.targets.schema import entry, near, read_toml

ARITHMETIC, SYNOPS, SANAFE, LEMAIRE = "cmos45", "synops", "sanafe", "lemaire2022"
NO_CHIP = (ARITHMETIC, SYNOPS, SANAFE, LEMAIRE)
"""Tables in this folder that no chip file can name; all others price a chip's operations."""


@dataclass(frozen=True)
class CostTable:
    """Picojoules per operation of a neurocore and its routers, and where they are published.

    `name` is the file's. `proxy` is the name in reports (the table's by default), `hardware` and
    `publication` what the energies were given for and by whom (the table's name by default).
    """

    name: str = entry(None)
    source: str = entry()
    synaptic_op_pj: float = entry(low=0)
    neuron_update_active_pj: float = entry(low=0)
    neuron_update_inactive_pj: float = entry(low=0)
    spike_within_tile_pj: float = entry(low=0)
    hop_east_west_pj: float = entry(low=0)
    hop_north_south_pj: float = entry(low=0)
    proxy: str = entry(default="", optional=True)
    hardware: str = entry(default="", optional=True)
    publication: str = entry(default="", optional=True)

    def __post_init__(self) -> None:
        for key in ("proxy", "hardware", "publication"):
            if not getattr(self, key):
                object.__setattr__(self, key, self.name)


@dataclass(frozen=True)
class ArithmeticCosts:
    """Picojoules per integer addition and multiplication of 8 and 32 bits, and where they are published."""

    source: str = entry()
    add_int8_pj: float = entry(low=0)
    add_int32_pj: float = entry(low=0)
    multiply_int8_pj: float = entry(low=0)
    multiply_int32_pj: float = entry(low=0)


def costs_folder() -> Path:
    """Return the folder that holds the tables of this installation."""
    return Path(str(resources.files("snn_compile.targets.costs")))


def cost_table_names() -> list[str]:
    """Return the names of the cost tables that this installation knows, sorted."""
    return sorted(file.stem for file in costs_folder().glob("*.toml") if file.stem not in NO_CHIP)


def load_cost_table(name: str, beside: Path | None = None) -> CostTable:
    """Return a cost table by its name, or by a path ending in `.toml`, relative to the folder `beside`.

    Raises ChipError on an unknown name and on a file that is missing or wrong.
    """
    if name.endswith(".toml"):
        file = (beside or Path()) / name
        if not os.path.isfile(file):
            raise ChipError(f"no cost table at {file}", file=str(file))
        if file.stem in cost_table_names():
            raise ChipError(
                f"{file}: {file.stem!r} is a cost table of this installation; give the file another name",
                file=str(file),
            )
        return read_toml(CostTable, file, ChipError, {"name": file.stem})
    if name not in cost_table_names():
        raise ChipError(
            f"no cost table named {name!r}; there are: {', '.join(cost_table_names())}"
            f"{near(name, cost_table_names())}",
            name=name,
        )
    return _installed(name)


@cache
def _installed(name: str) -> CostTable:
    return read_toml(CostTable, costs_folder() / f"{name}.toml", ChipError, {"name": name})


@cache
def arithmetic_costs() -> ArithmeticCosts:
    """Return the energies of integer arithmetic in 45 nm CMOS."""
    return read_toml(ArithmeticCosts, costs_folder() / f"{ARITHMETIC}.toml", ChipError)
