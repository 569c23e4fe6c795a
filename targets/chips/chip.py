"""A chip as data: limits, number formats and cost table, read from a `.toml` file.

Files in this folder are chips by name; any other file is one by its path. Passes ask the chip; they do not
know it.
"""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from snn_compile.targets.chips.formats import LOIHI, Formats
from snn_compile.targets.chips.older import upgraded_keys
from snn_compile.targets.costs.step_rates import StepRates, load_rates
from snn_compile.targets.costs.tables import CostTable, load_cost_table
from snn_compile.targets.errors import ChipError
from snn_compile.targets.schema import build, entry, near, read_toml

_SUFFIX = ".toml"
CHIPS_MAX = 4096
"""More chips than any board has."""


@dataclass(frozen=True)
class CoreMemory:
    """Memory of a neurocore, in words of `word_bits`.

    `words` hold neurons, synapses and axons; `synapse_words` caps the synapses among them. A row holds the
    synapses of one axon: a head of `row_bits`, and per synapse its weight, its delay if it has one, and
    `index_bits` that name the target; with `dense_rows` a row may hold all targets of the core instead, none
    of them named. With `shared_kernels` a convolution stores one row per tap and in channel for all positions
    of a core, of weights alone and `kernel_words` more.
    """

    words: int = entry("memory.words", 1)
    synapse_words: int = entry("memory.synapse_words", 1)
    word_bits: int = entry("memory.word_bits", 1)
    neuron_words: float = entry("memory.neuron_words", 0)
    in_axon_words: float = entry("memory.in_axon_words", 0)
    out_axon_words: float = entry("memory.out_axon_words", 0)
    index_bits: int = entry("memory.index_bits", 0, 64)
    row_bits: int = entry("memory.row_bits", 0)
    kernel_words: int = entry("memory.kernel_words", 0)
    dense_rows: bool = entry("memory.dense_rows")
    shared_kernels: bool = entry("memory.shared_kernels")
    delay_bits: int = entry("memory.delay_bits", 0, 62)

    def __post_init__(self) -> None:
        if self.synapse_words > self.words:
            raise ChipError(
                f"synapse_words is {self.synapse_words}; a core has {self.words} words", key="synapse_words"
            )


@dataclass(frozen=True)
class Chip:
    """Limits and formats of one chip; delays in steps. Sources stand in its file.

    `costs` is None where `energy_table` names a cost table of this installation, and `rates` where
    `rates_table` names rates of it, or "". `mapped`: whether programs are put on cores at all. `chips`: how
    many of the chip there are; core i is on chip i // `cores`.
    """

    name: str = entry()
    version: int = entry(low=1)
    title: str = entry()
    default_device: str = entry()
    cores: int = entry("cores.count", 1, 1 << 20)
    core_neurons: int = entry("cores.neurons", 1)
    core_groups: int = entry("cores.groups", 1)
    core_in_axons: int = entry("cores.in_axons", 1)
    core_out_axons: int = entry("cores.out_axons", 1)
    grid: tuple[int, int] = entry("cores.grid", 1, 1 << 20)
    cores_per_tile: int = entry("cores.cores_per_tile", 1)
    programmable_neurons: bool = entry("neuron.programmable")
    voltage_decay_max: int = entry("neuron.voltage_decay_max", 1)
    delay_max: int = entry("synapse.delay_max", 0, 62)
    graded_messages: bool = entry("messages.graded")
    message_bits_max: int = entry("messages.bits_max", 1, 24)
    energy_table: str = entry("energy.table")
    memory: CoreMemory = entry()
    formats: Formats = LOIHI
    costs: CostTable | None = entry(None, default=None)
    mapped: bool = entry("cores.mapped", default=True, optional=True, later=True)
    chips: int = entry(None, 1, CHIPS_MAX, default=1, later=True)
    rates_table: str = entry("time.rates", default="", optional=True, later=True)
    rates: StepRates | None = entry(None, default=None, later=True)

    def __post_init__(self) -> None:
        columns, rows = self.grid
        if self.cores > columns * rows * self.cores_per_tile:
            raise ChipError(
                f"cores is {self.cores}; {columns} x {rows} tiles of {self.cores_per_tile} cores hold fewer",
                key="cores",
            )
        if self.delay_max >= 1 << self.memory.delay_bits:
            raise ChipError(
                f"delay_max is {self.delay_max}; {self.memory.delay_bits} bits per delay hold less",
                key="delay_max",
            )
        if self.voltage_decay_max > self.formats.decay_one:
            raise ChipError(
                f"voltage_decay_max is {self.voltage_decay_max}; it must be at most "
                f"{self.formats.decay_one}, a decay of 1 in {self.formats.decay_bits} bits",
                key="voltage_decay_max",
            )

    @property
    def profile(self) -> Chip | None:
        """One chip itself if this installation does not know it by name, else None."""
        return None if self.name in chip_names() else self.times(1)

    @property
    def all_cores(self) -> int:
        """Number of cores of all chips."""
        return self.cores * self.chips

    @property
    def heading(self) -> str:
        """The title, with the number of chips where there are several."""
        return (
            self.title if self.chips == 1 else f"{self.title.removesuffix(', one chip')}, {self.chips} chips"
        )

    def times(self, chips: int) -> Chip:
        """Return so many of this chip; raises ChipError on a number that is not possible."""
        if not 1 <= chips <= CHIPS_MAX:
            raise ChipError(f"{chips} chips; 1 to {CHIPS_MAX} are possible", key="chips")
        return self if chips == self.chips else replace(self, chips=chips)

    @property
    def cost_table(self) -> CostTable:
        """Energies per operation that reports apply; raises ChipError if the table is not there."""
        return self.costs or load_cost_table(self.energy_table)

    @property
    def step_rates(self) -> StepRates | None:
        """Times per operation that reports apply, None where none are stated."""
        return self.rates or (load_rates(self.rates_table) if self.rates_table else None)


def _folder() -> Path:
    return Path(str(resources.files("snn_compile.targets.chips")))


def chip_names() -> list[str]:
    """Return the names of the chips this installation knows, sorted."""
    return sorted(file.stem for file in _folder().glob(f"*{_SUFFIX}"))


@dataclass(frozen=True)
class Board:
    """A board that holds several chips of one kind."""

    chip: str = entry()
    chips: int = entry("", 1, CHIPS_MAX)
    source: str = entry()


@cache
def boards() -> dict[str, Board]:
    """Return the boards that this installation knows, by name."""
    found = tomllib.loads((_folder().parent / "boards.toml").read_text(encoding="utf-8"))
    return {name: build(Board, values, f"boards.toml: {name}", ChipError) for name, values in found.items()}


def target_names() -> dict[str, str]:
    """Return `--target` names and the chip each means; `<chip>-sim` is a chip and its simulator."""
    chips = {name: name for name in chip_names()} | {name: board.chip for name, board in boards().items()}
    return {f"{name}-sim": chip for name, chip in chips.items()} | chips


def load_chip(target: str) -> Chip:
    """Return the chip behind a target, chip or board, or the path of a `.toml` file.

    Raises ChipError on an unknown name, and on a file that is missing or wrong.
    """
    if target.endswith(_SUFFIX):
        return _outside(Path(target))
    targets = target_names()
    if target not in targets:
        names = ", ".join(f"{name}-sim" for name in (*chip_names(), *boards()))
        raise ChipError(
            f"unknown target {target!r}; targets are: {names}, or the path of a chip's {_SUFFIX} file"
            f"{near(target, targets)}",
            target=target,
        )
    board = boards().get(target.removesuffix("-sim"))
    return _installed(targets[target]).times(board.chips if board else 1)


@cache
def _installed(name: str) -> Chip:
    return _read(_folder() / f"{name}{_SUFFIX}")


def _outside(file: Path) -> Chip:
    """Return the chip of a user's file, which may name a cost table by a path beside it."""
    if not os.path.isfile(file):
        raise ChipError(f"no chip file at {file}", file=str(file))
    chip = _read(file)
    if chip.name in chip_names():
        raise ChipError(
            f"{file.name}: name is {chip.name!r}, which is a chip of this installation; give it another",
            file=str(file),
            key="name",
        )
    return chip


def _read(file: Path) -> Chip:
    chip = read_toml(Chip, file, ChipError, upgrade=upgraded_keys)
    values: dict[str, Any] = dict(vars(chip))
    try:
        table = load_cost_table(chip.energy_table, file.parent)
    except ChipError as error:
        raise _beside(error, file, "energy.table") from error
    if chip.energy_table.endswith(_SUFFIX):
        values |= {"energy_table": table.name, "costs": table}
    if chip.rates_table:
        try:
            rates = load_rates(chip.rates_table, file.parent)
        except ChipError as error:
            raise _beside(error, file, "time.rates") from error
        if chip.rates_table.endswith(_SUFFIX):
            values |= {"rates_table": Path(chip.rates_table).stem, "rates": rates}
    return Chip(**values)


def _beside(error: ChipError, file: Path, key: str) -> ChipError:
    """Return the error of a table that a chip's file names under a key."""
    facts = {"file": str(file), "key": key, **error.facts}
    return ChipError(f"{file.name}: {key}: {error}", **facts)
