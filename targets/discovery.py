"""Plug-ins by their place: importing every module of a folder, so that each can register itself."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType


def import_modules(package: str) -> list[ModuleType]:
    """Import and return every module of a package (dotted name), in the order of their names.

    A module that is being imported already is returned as it is, so a module of the package may call this.
    """
    names = sorted(module.name for module in iter_modules(import_module(package).__path__))
    return [import_module(f"{package}.{name}") for name in names]
