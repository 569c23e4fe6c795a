"""Named entries from a stranger's file, read with type, size and values checked: what every format shares.

A format says what entries there are and hands out numbers and strings within limits (`hdf5.py` for
HDF5, `train/checkpoints/checkpoint.py` for what torch stores); the checks that build on that stand here once.
Every error names file and place.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Set
from typing import Any, NoReturn, Self

import numpy as np
import numpy.typing as npt

from snn_compile.targets.errors import CompileError, UnsupportedNode

Int = npt.NDArray[np.int32]

VALUES_MAX = 1 << 25
"""Values of an array: more 8-bit weights than a chip has memory."""

TOTAL_MAX = 1 << 27
"""Values of all arrays that are read of a file."""

OBJECTS_MAX, DEPTH_MAX = 1 << 14, 40
"""Groups and arrays that are read, and groups inside groups."""

TEXT_MAX = 1 << 10
"""Bytes of a string, unless the reader allows more."""

NAME_MAX = 200
"""Characters of a name."""


class Entries(ABC):
    """A group of named entries; `where` is what errors call it, file first."""

    def __init__(self, where: str, path: str) -> None:
        self.where, self.path = where, path

    @abstractmethod
    def keys(self) -> list[str]:
        """Return the names of the entries."""

    @abstractmethod
    def __contains__(self, key: str) -> bool: ...

    @abstractmethod
    def holds(self, key: str) -> bool:
        """Whether an entry is a group rather than an array."""

    @abstractmethod
    def is_text(self, key: str) -> bool:
        """Whether an entry holds strings."""

    @abstractmethod
    def child(self, key: str, label: str | None = None) -> Self:
        """Return a sub-group, which errors call `label` or by its path."""

    @abstractmethod
    def array(self, key: str, limit: int = VALUES_MAX) -> Any:
        """Return up to `limit` numbers as they are stored."""

    @abstractmethod
    def strings(self, key: str, limit: int, bytes_max: int = TEXT_MAX) -> npt.NDArray[np.object_]:
        """Return an array of up to `limit` strings, in its shape."""

    def fail(self, text: str, kind: type[CompileError] = CompileError) -> NoReturn:
        """Raise an error that names the file and this group."""
        raise kind(f"{self.where}: {text}", path=self.path, node=self.where.removeprefix(self.path)[2:])

    def below(self, key: str, label: str | None) -> str:
        """Return what errors call a sub-group."""
        inside = f"{self.where}{': ' if self.where == self.path else '/'}{key}"
        return inside if label is None else f"{self.path}: {label}"

    def only(self, known: Set[str], what: str) -> None:
        """Refuse entries that have no meaning here."""
        if unknown := sorted(set(self.keys()) - known):
            self.fail(f"{what} with {', '.join(map(repr, unknown[:5]))} is not supported", UnsupportedNode)

    def text(self, key: str, bytes_max: int = TEXT_MAX) -> str:
        """Return a short string."""
        found = self.strings(key, 1, bytes_max)
        if not found.size:
            self.fail(f"{key!r} is not a short string")
        return str(found.reshape(-1)[0])

    def finite(self, key: str, limit: int = VALUES_MAX) -> Any:
        """Return numbers as they are stored; none is infinite or no number."""
        stored = self.array(key, limit)
        values = np.asarray(stored)
        if not np.isfinite(values).all():
            index = tuple(int(i) for i in np.argwhere(~np.isfinite(values))[0])
            self.fail(f"{key!r} holds {values[index]} at {index}; every value must be finite")
        return stored

    def numbers(self, key: str, limit: int, low: int, high: int) -> Int:
        """Return whole numbers within low..high."""
        values = np.asarray(self.finite(key, limit))
        values = values.astype(np.int32) if values.dtype.kind == "b" else values
        if values.dtype.kind == "f" and (broken := values != np.rint(values)).any():
            index = tuple(int(i) for i in np.argwhere(broken)[0])
            self.fail(f"{key!r} holds {values[index]:g} at {index}; whole numbers are expected")
        if values.size and (values.min() < low or values.max() > high):
            self.fail(f"{key!r} spans {values.min():g}..{values.max():g}; {low}..{high} is possible")
        return values.astype(np.int32)

    def few(self, key: str, count: int, low: int, high: int) -> tuple[int, ...]:
        """Return up to `count` whole numbers, at least one."""
        values = self.numbers(key, count, low, high).reshape(-1)
        if not values.size:
            self.fail(f"{key!r} is empty")
        return tuple(int(n) for n in values)

    def number(self, key: str, low: int, high: int) -> int:
        """Return one whole number."""
        return self.few(key, 1, low, high)[0]
