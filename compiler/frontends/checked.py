"""Named entries of an untrusted file, read with type, size and values checked; shared by all formats.

A format lists its entries and returns numbers and strings within limits (`hdf5.py` for HDF5,
`train/checkpoints/checkpoint.py` for torch files); the checks here build on that. Every error names file and
place.
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
"""Most values of an array: more 8-bit weights than fit a chip."""

TOTAL_MAX = 1 << 27
"""Most values of all arrays read from a file."""

OBJECTS_MAX, DEPTH_MAX = 1 << 14, 40
"""Most groups and arrays that are read, and the deepest nesting of groups."""

TEXT_MAX = 1 << 10
"""Bytes of a string, unless the reader allows more."""

NAME_MAX = 200
"""Characters of a name."""


class Entries(ABC):
    """A group of named entries; `where` names it in errors, file first."""

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
        """Return a sub-group, named `label`, or by its path, in errors."""

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
        """Return the name of a sub-group in errors."""
        inside = f"{self.where}{': ' if self.where == self.path else '/'}{key}"
        return inside if label is None else f"{self.path}: {label}"

    def only(self, known: Set[str], what: str) -> None:
        """Raise UnsupportedNode for entries other than `known`."""
        if unknown := sorted(set(self.keys()) - known):
            self.fail(f"{what} with {', '.join(map(repr, unknown[:5]))} is not supported", UnsupportedNode)

    def text(self, key: str, bytes_max: int = TEXT_MAX) -> str:
        """Return a short string."""
        found = self.strings(key, 1, bytes_max)
        if not found.size:
            self.fail(f"{key!r} is not a short string")
        return str(found.reshape(-1)[0])

    def finite(self, key: str, limit: int = VALUES_MAX) -> Any:
        """Return numbers as they are stored; raises CompileError unless all are finite."""
        stored = self.array(key, limit)
        values = np.asarray(stored)
        if not np.isfinite(values).all():
            index = tuple(int(i) for i in np.argwhere(~np.isfinite(values))[0])
            self.fail(f"{key!r} holds {values[index]} at {index}; every value must be finite")
        return stored

    def numbers(self, key: str, limit: int, low: int, high: int) -> Int:
        """Return integers within low..high."""
        values = np.asarray(self.finite(key, limit))
        values = values.astype(np.int32) if values.dtype.kind == "b" else values
        if values.dtype.kind == "f" and (broken := values != np.rint(values)).any():
            index = tuple(int(i) for i in np.argwhere(broken)[0])
            self.fail(f"{key!r} holds {values[index]:g} at {index}; integers are expected")
        if values.size and (values.min() < low or values.max() > high):
            self.fail(f"{key!r} spans {values.min():g}..{values.max():g}; {low}..{high} is possible")
        return values.astype(np.int32)

    def few(self, key: str, count: int, low: int, high: int) -> tuple[int, ...]:
        """Return one to `count` integers."""
        values = self.numbers(key, count, low, high).reshape(-1)
        if not values.size:
            self.fail(f"{key!r} is empty")
        return tuple(int(n) for n in values)

    def number(self, key: str, low: int, high: int) -> int:
        """Return one integer."""
        return self.few(key, 1, low, high)[0]
