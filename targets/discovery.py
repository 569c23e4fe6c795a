"""Plug-ins by their place: importing every module of a folder, so that each can register itself."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules


def import_modules(package: str) -> None:
    """Import every module of a package (dotted name), in the order of their names.

    A module that is being imported already is left alone, so a module of the package may call this.
    """
    for name in sorted(module.name for module in iter_modules(import_module(package).__path__)):
        import_module(f"{package}.{name}")
