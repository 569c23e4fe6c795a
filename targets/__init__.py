"""Chips as data, the Program a chip is loaded with, the devices that execute one, and their records.

Names load on first use, so that a command's --help imports neither scipy nor a kernel.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from snn_compile.targets.chips.chip import Chip, chip_names, load_chip, target_names
    from snn_compile.targets.devices.device import Device, device_names, execute, open_device
    from snn_compile.targets.devices.record import DeviceRun, Overflow, RunRecord
    from snn_compile.targets.errors import SnnCompileError
    from snn_compile.targets.lava.network import LavaNetwork
    from snn_compile.targets.program.file import load_program
    from snn_compile.targets.program.population import Population
    from snn_compile.targets.program.program import Core, InputPort, OutputPort, Program, Projection, Route
    from snn_compile.targets.program.rule import Rule
    from snn_compile.targets.program.weights import WeightTable

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

_MODULES = {
    "chips.chip": ("Chip", "chip_names", "load_chip", "target_names"),
    "devices.device": ("Device", "device_names", "execute", "open_device"),
    "errors": ("SnnCompileError",),
    "program.population": ("Population",),
    "program.program": ("Core", "InputPort", "OutputPort", "Program", "Projection", "Route"),
    "program.file": ("load_program",),
    "devices.record": ("DeviceRun", "Overflow", "RunRecord"),
    "program.rule": ("Rule",),
    "program.weights": ("WeightTable",),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}


def to_lava(program: Program) -> LavaNetwork:
    """Return the program as connected lava-nc processes with named ports; imports lava."""
    from snn_compile.targets.lava.network import to_lava as connect

    return connect(program)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
