"""Devices by name: built in, of other distributions by entry point, or `package.module:Class`.

A distribution declares its devices in the entry point group `snn_compile.devices`; they are listed without
being imported and loaded when they are named. A built-in name cannot be taken by another distribution.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from snn_compile.targets.errors import DeviceError, SnnCompileError, one_line
from snn_compile.targets.schema import near

GROUP = "snn_compile.devices"


@dataclass(frozen=True)
class Listing:
    """A device by name: where its class is ("package.module:Class") and what lists say of it."""

    place: str
    text: str


BUILT_IN = {
    "oracle": Listing(
        "snn_compile.targets.oracle.device:Oracle", "the definition of a program in plain integers, slow"
    ),
    "loihi2-sim": Listing(
        "snn_compile.targets.loihi2_sim.device:Loihi2Sim",
        "fast simulator of the integer program, the default",
    ),
    "lava": Listing(
        "snn_compile.targets.lava.device:Lava",
        "Lava's fixed-point processes under Lava's own runtime, in a child process",
    ),
    "lava-stepped": Listing(
        "snn_compile.targets.lava.stepped:LavaStepped",
        "Lava's fixed-point process models, stepped in this process",
    ),
}


def _declared() -> dict[str, list[tuple[str, str]]]:
    """Return the devices of other distributions: name to (distribution, place), one for each claim."""
    found: dict[str, list[tuple[str, str]]] = {}
    for point in sorted(entry_points(group=GROUP), key=lambda one: (one.name, one.value)):
        owner = f"{point.dist.name} {point.dist.version}" if point.dist else "an unknown distribution"
        if (owner, point.value) not in found.setdefault(point.name, []):
            found[point.name].append((owner, point.value))
    return found


def listings() -> dict[str, Listing]:
    """Return every device that can be opened by name, built-in ones first; imports none of them."""
    others = {
        name: Listing(claims[0][1], f"of {' and '.join(owner for owner, _ in claims)}")
        for name, claims in _declared().items()
        if name not in BUILT_IN
    }
    return {**BUILT_IN, **others}


def conflicts() -> list[str]:
    """Return one line for each entry point that claims the name of a built-in device."""
    return [
        f"device {name!r} of {owner} is ignored: {name} is a built-in name; it needs another"
        for name, claims in _declared().items()
        if name in BUILT_IN
        for owner, _ in claims
    ]


def device_names() -> list[str]:
    """Return the names that `open_device` knows besides `package.module:Class`."""
    return list(listings())


def opened(name: str, options: dict[str, Any]) -> Any:
    """Return the device of a name; raises DeviceError if there is none or it cannot be loaded."""
    if name in BUILT_IN:
        for line in conflicts():
            if line.startswith(f"device {name!r} "):
                warnings.warn(line, stacklevel=3)
        module, _, attribute = BUILT_IN[name].place.partition(":")
        return getattr(import_module(module), attribute)(**options)
    claims = _declared().get(name, [])
    if len(claims) > 1:
        owners = " and ".join(owner for owner, _ in claims)
        raise DeviceError(f"device {name!r} is declared by {owners}; uninstall all but one", device=name)
    place = claims[0][1] if claims else name
    module, colon, attribute = place.partition(":")
    if not (colon and module and attribute):
        raise DeviceError(
            f"unknown device {name!r}; devices are: {', '.join(device_names())}, or package.module:Class"
            f"{near(name, device_names())}",
            device=name,
        )
    return _made(name, module, attribute, options)


def _made(name: str, module: str, attribute: str, options: dict[str, Any]) -> Any:
    """Import a class that is not this package's and make a device of it."""
    try:
        with _current_folder_last():
            loaded = import_module(module)
        kind = loaded
        for part in attribute.split("."):
            kind = getattr(kind, part, None)  # type: ignore[assignment]
        device: Any = None if kind is None else kind(**options)  # type: ignore[operator]
        named = isinstance(getattr(device, "name", None), str)
    except SnnCompileError:
        raise
    except (Exception, SystemExit) as error:  # a script without a guard exits when it is imported
        raise DeviceError(
            f"device {name!r} cannot be loaded from {module}:{attribute} "
            f"({type(error).__name__}: {one_line(error)})",
            device=name,
        ) from error
    if device is None:
        raise DeviceError(
            f"device {name!r}: module {module} has no {attribute}{near(attribute, dir(loaded))}", device=name
        )
    if not named:
        raise DeviceError(f"device {name!r}: {attribute} is no device: it has no text `name`", device=name)
    if not callable(getattr(device, "run", None)):
        raise DeviceError(f"device {name!r}: {attribute} is no device: it has no method `run`", device=name)
    return device


@contextmanager
def _current_folder_last() -> Iterator[None]:
    """Search the current folder after all others, so that no file in it hides a module; it stays listed."""
    here = os.getcwd()
    before = list(sys.path)
    sys.path[:] = [path for path in before if path not in ("", here)] + [here]
    try:
        yield
    finally:
        sys.path[:] = before if here in before or "" in before else [*before, here]
