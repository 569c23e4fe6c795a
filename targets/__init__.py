"""Chips as data, the Program a chip is loaded with, the devices that execute one, and their records."""

from __future__ import annotations

from typing import TYPE_CHECKING

from snn_compile.targets.chip import Chip, chip_names, load_chip, target_names
from snn_compile.targets.device import Device, device_names, execute, open_device
from snn_compile.targets.errors import SnnCompileError
from snn_compile.targets.program import (
    Core,
    InputPort,
    OutputPort,
    Population,
    Program,
    Projection,
    Route,
    WeightTable,
)
from snn_compile.targets.program_file import load_program
from snn_compile.targets.record import DeviceRun, Overflow, RunRecord

if TYPE_CHECKING:
    from snn_compile.targets.lava_processes import LavaNetwork

__all__ = [
    "Chip",
    "Core",
    "Device",
    "DeviceRun",
    "InputPort",
    "OutputPort",
    "Overflow",
    "Population",
    "Program",
    "Projection",
    "Route",
    "RunRecord",
    "SnnCompileError",
    "WeightTable",
    "chip_names",
    "device_names",
    "execute",
    "load_chip",
    "load_program",
    "open_device",
    "target_names",
    "to_lava",
]


def to_lava(program: Program) -> LavaNetwork:
    """Return the program as connected lava-nc processes with named ports; imports lava."""
    from snn_compile.targets.lava_processes import to_lava as connect

    return connect(program)
