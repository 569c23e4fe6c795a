"""A chip as data: limits, number formats and cost tables, read from a `.toml` file in this folder.

Passes ask the chip; they do not know it. A new file is a new `--target`.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from snn_compile.targets.chips.formats import LOIHI, Formats
from snn_compile.targets.errors import ChipError


@dataclass(frozen=True)
class Chip:
    """Limits and formats of one chip; memory in bits, delays in steps. Sources stand in its file."""

    name: str
    version: int
    title: str
    default_device: str
    cores: int
    core_neurons: int
    core_memory_bits: int
    core_in_axons: int
    core_out_axons: int
    grid: tuple[int, int]
    cores_per_tile: int
    neuron_state_bits: int
    programmable_neurons: bool
    axon_bits: int
    delay_bits: int
    voltage_decay_max: int
    delay_max: int
    graded_messages: bool
    message_bits_max: int
    energy_table: str
    formats: Formats = LOIHI


def _read(name: str) -> dict[str, Any]:
    file = resources.files("snn_compile.targets.chips").joinpath(f"{name}.toml")
    if not file.is_file():
        raise ChipError(f"no chip named {name!r}; there are: {', '.join(chip_names())}", name=name)
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ChipError(f"chip file {name}.toml: {error}", file=name) from error


def chip_names() -> list[str]:
    """Return the names of the chips this installation knows, sorted."""
    files = resources.files("snn_compile.targets.chips").iterdir()
    names = [f.name for f in files if f.name.endswith(".toml") and f.name != "costs.toml"]
    return sorted(name.removesuffix(".toml") for name in names)


def target_names() -> dict[str, str]:
    """Return `--target` names and the chip each means; `<chip>-sim` is a chip and its simulator."""
    return {f"{name}-sim": name for name in chip_names()} | {name: name for name in chip_names()}


@cache
def load_chip(target: str) -> Chip:
    """Return the chip behind a target or chip name; raises ChipError on an unknown name or bad file."""
    targets = target_names()
    if target not in targets:
        names = ", ".join(f"{chip}-sim" for chip in chip_names())
        raise ChipError(f"unknown target {target!r}; targets are: {names}", target=target)
    table = _read(targets[target])
    try:
        cores, memory, neuron = table["cores"], table["memory"], table["neuron"]
        synapse, messages = table["synapse"], table["messages"]
        return Chip(
            name=table["name"],
            version=table["version"],
            title=table["title"],
            default_device=table["default_device"],
            cores=cores["count"],
            core_neurons=cores["neurons"],
            core_memory_bits=cores["memory_bits"],
            core_in_axons=cores["in_axons"],
            core_out_axons=cores["out_axons"],
            grid=(cores["grid"][0], cores["grid"][1]),
            cores_per_tile=cores["cores_per_tile"],
            programmable_neurons=neuron["programmable"],
            neuron_state_bits=memory["neuron_state_bits"],
            axon_bits=memory["axon_bits"],
            delay_bits=memory["delay_bits"],
            voltage_decay_max=neuron["voltage_decay_max"],
            delay_max=synapse["delay_max"],
            graded_messages=messages["graded"],
            message_bits_max=messages["bits_max"],
            energy_table=table["energy"]["table"],
            formats=Formats(
                state_bits=neuron["state_bits"],
                decay_bits=neuron["decay_bits"],
                accumulator_bits=synapse["accumulator_bits"],
                synaptic_shift=synapse["shift"],
                threshold_bits=neuron["threshold_bits"],
                bias_mantissa_bits=neuron["bias_mantissa_bits"],
                bias_exponent=tuple(neuron["bias_exponent"]),
                weight_bits=tuple(synapse["weight_bits"]),
                weight_exponent=tuple(synapse["weight_exponent"]),
            ),
        )
    except KeyError as error:
        raise ChipError(f"chip file of {target}: key {error} is missing", key=str(error)) from error


@cache
def energy_coefficients(table: str) -> dict[str, Any]:
    """Return a table of energies per operation (picojoules) with its `source`, by name."""
    tables = _read("costs")
    if table not in tables:
        raise ChipError(f"no energy table named {table!r}; there are: {', '.join(sorted(tables))}")
    return dict(tables[table])
