"""Chips as data, the Program a chip is loaded with, the devices that execute one, and their records.

Names load on first use, so that a command's --help imports neither scipy nor a kernel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from snn_compile.targets.lazy import attach

if TYPE_CHECKING:
    from snn_compile.targets.chips.chip import Chip, chip_names, load_chip, target_names
    from snn_compile.targets.devices.device import Device, execute, open_device
    from snn_compile.targets.devices.record import DeviceRun, Overflow, RunRecord
    from snn_compile.targets.devices.registry import device_names
    from snn_compile.targets.errors import SnnCompileError
    from snn_compile.targets.lava.network import LavaNetwork
    from snn_compile.targets.program.file import load_program
    from snn_compile.targets.program.population import Population
    from snn_compile.targets.program.program import Core, InputPort, OutputPort, Program, Projection, Route
    from snn_compile.targets.program.rule import Rule
    from snn_compile.targets.program.weights import WeightTable
else:
    __getattr__, __dir__ = attach(
        __name__,
        {
            "chips.chip": ("Chip", "chip_names", "load_chip", "target_names"),
            "devices.device": ("Device", "execute", "open_device"),
            "devices.record": ("DeviceRun", "Overflow", "RunRecord"),
            "devices.registry": ("device_names",),
            "errors": ("SnnCompileError",),
            "program.file": ("load_program",),
            "program.population": ("Population",),
            "program.program": ("Core", "InputPort", "OutputPort", "Program", "Projection", "Route"),
            "program.rule": ("Rule",),
            "program.weights": ("WeightTable",),
        },
    )

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
    "Rule",
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
    from snn_compile.targets.lava.network import to_lava as connect

    return connect(program)
