"""Chips as data, the Program a chip is loaded with, the devices that execute one, and their records.

Names load on first use, so that a command's --help imports neither scipy nor a kernel.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from snn_compile.targets.chip import Chip, chip_names, load_chip, target_names
    from snn_compile.targets.device import Device, device_names, execute, open_device
    from snn_compile.targets.errors import SnnCompileError
    from snn_compile.targets.lava_processes import LavaNetwork
    from snn_compile.targets.population import Population
    from snn_compile.targets.program import Core, InputPort, OutputPort, Program, Projection, Route
    from snn_compile.targets.program_file import load_program
    from snn_compile.targets.record import DeviceRun, Overflow, RunRecord
    from snn_compile.targets.rule import Rule
    from snn_compile.targets.weights import WeightTable

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
    "chip": ("Chip", "chip_names", "load_chip", "target_names"),
    "device": ("Device", "device_names", "execute", "open_device"),
    "errors": ("SnnCompileError",),
    "population": ("Population",),
    "program": ("Core", "InputPort", "OutputPort", "Program", "Projection", "Route"),
    "program_file": ("load_program",),
    "record": ("DeviceRun", "Overflow", "RunRecord"),
    "rule": ("Rule",),
    "weights": ("WeightTable",),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}


def to_lava(program: Program) -> LavaNetwork:
    """Return the program as connected lava-nc processes with named ports; imports lava."""
    from snn_compile.targets.lava_processes import to_lava as connect

    return connect(program)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
