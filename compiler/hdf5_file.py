"""HDF5 files from strangers: what is in them is checked before it is read, and nothing is read without bound.

A file can declare terabytes in a few bytes, hold itself, point into other files, or have damaged strings that
HDF5 searches for ever. So every link must be a hard one, every data set of a plain type, in this file and
of a size that is allowed; a group cannot lie inside itself; what is read is counted over the whole file; and
strings of variable length are taken out of the file by the few lines of format that they need. Attributes
are not looked at. Every error names file and place.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any, NoReturn

import h5py
import numpy as np
import numpy.typing as npt

from snn_compile.targets.errors import CompileError, SnnCompileError, UnsupportedNode

Int = npt.NDArray[np.int32]

VALUES_MAX = 1 << 25
"""Values of a dataset: more 8-bit weights than a chip has memory."""

CHUNK_MAX = 1 << 20
"""Values of a chunk, which is read whole, where fewer are allowed."""

TOTAL_MAX = 1 << 27
"""Values of all datasets that are read."""

OBJECTS_MAX, DEPTH_MAX = 1 << 14, 40
"""Groups and datasets that are read, and groups inside groups."""

TEXT_MAX, HEAP_MAX, HEAPS_MAX = 1 << 10, 1 << 24, 1 << 26
"""Bytes of a string (unless the reader allows more), of the heap that it lies in, and of all heaps."""

NAME_MAX = 200
"""Characters of a name."""


@contextmanager
def opened(path: str | os.PathLike[str], what: str) -> Iterator[Hdf5Group]:
    """Open a file as `what` ("a NIR graph"); raises CompileError, naming it, for whatever goes wrong."""
    file = Path(path)
    if not file.is_file():
        raise CompileError(f"no file at {file}", path=str(file))
    try:
        with h5py.File(file, "r") as handle:
            yield Hdf5Group(handle, str(file), str(file))
    except SnnCompileError:
        raise
    except Exception as error:  # h5py raises whatever it stumbles over in a damaged file
        raise CompileError(
            f"{file} cannot be read as {what} ({type(error).__name__}: {one_line(error)}); is it complete, "
            "and is it one?",
            path=str(file),
        ) from error


def one_line(error: BaseException) -> str:
    """Return what an exception says, on one line and not without end."""
    return " ".join(str(error).split())[:200] or "no reason given"


@dataclass
class _Spent:
    """What has been read of one file, and its heaps of strings by address."""

    objects: int = 0
    values: int = 0
    heap_bytes: int = 0
    heaps: dict[int, dict[int, bytes]] = field(default_factory=dict)


class Hdf5Group:
    """An HDF5 group whose entries are read with their type and size checked first."""

    def __init__(
        self, group: Any, where: str, path: str, above: tuple[int, ...] = (), spent: _Spent | None = None
    ) -> None:
        self.group, self.where, self.path = group, where, path
        self._above = (*above, _address(group))
        self._spent = spent or _Spent()

    def fail(self, text: str, kind: type[CompileError] = CompileError) -> NoReturn:
        """Raise an error that names the file and this group."""
        raise kind(f"{self.where}: {text}", path=self.path, node=self.where.removeprefix(self.path)[2:])

    def keys(self) -> list[str]:
        """Return the names of the entries."""
        if len(self.group) > OBJECTS_MAX:
            self.fail(f"{len(self.group)} entries; at most {OBJECTS_MAX} are read")
        names = list(self.group.keys())
        if long := [name for name in names if len(name) > NAME_MAX]:
            self.fail(f"{long[0][:40] + '...'!r} is a name of {len(long[0])} characters; use {NAME_MAX}")
        return names

    def __contains__(self, key: str) -> bool:
        return self.group.get(key, getlink=True) is not None

    def _item(self, key: str, kind: type | tuple[type, ...], named: str) -> Any:
        link = self.group.get(key, getlink=True)
        if link is None:
            self.fail(f"{key!r} is missing")
        if not isinstance(link, h5py.HardLink):
            self.fail(f"{key!r} is a link to somewhere else, which is not followed")
        try:
            item = self.group[key]
        except Exception as error:  # a link into damaged bytes
            self.fail(f"{key!r} cannot be read ({one_line(error)})")
        if not isinstance(item, kind):
            self.fail(f"{key!r} is a {type(item).__name__.lower()}, not {named}")
        self._spent.objects += 1
        if self._spent.objects > OBJECTS_MAX:
            self.fail(f"more than {OBJECTS_MAX} groups and arrays up to {key!r}")
        return item

    def holds(self, key: str) -> bool:
        """Whether an entry is a group rather than an array."""
        return isinstance(self._item(key, (h5py.Group, h5py.Dataset), "a group or an array"), h5py.Group)

    def child(self, key: str, label: str | None = None) -> Hdf5Group:
        """Return a sub-group, which errors call `label` or by its path."""
        item = self._item(key, h5py.Group, "a group")
        if _address(item) in self._above:
            self.fail(f"{key!r} lies inside itself")
        if len(self._above) >= DEPTH_MAX:
            self.fail(f"{key!r} lies more than {DEPTH_MAX} groups deep")
        inside = f"{self.where}{': ' if self.where == self.path else '/'}{key}"
        where = inside if label is None else f"{self.path}: {label}"
        return Hdf5Group(item, where, self.path, self._above, self._spent)

    def only(self, known: set[str], what: str) -> None:
        """Refuse entries that have no meaning here."""
        if unknown := sorted(set(self.keys()) - known):
            self.fail(f"{what} with {', '.join(map(repr, unknown[:5]))} is not supported", UnsupportedNode)

    def _dataset(self, key: str, limit: int) -> Any:
        data = self._item(key, h5py.Dataset, "an array")
        try:
            shape, chunks, kind = data.shape, data.chunks, data.dtype
            elsewhere = data.is_virtual or data.external
        except Exception as error:  # a type that numpy has no word for, or damaged bytes
            self.fail(f"{key!r} cannot be read ({one_line(error)})")
        if shape is None:
            self.fail(f"{key!r} is empty")
        if elsewhere:
            self.fail(f"{key!r} lies in another file, which is not opened")
        # A chunk is read whole, so that its declared size counts too.
        size = prod(shape)
        if size > limit or prod(chunks or ()) > max(limit, CHUNK_MAX):
            self.fail(f"{key!r} declares {shape} values (chunks {chunks}); at most {limit} are read")
        self._spent.values += size * (1 if kind.kind in "biuf" else kind.itemsize)
        if self._spent.values > TOTAL_MAX:
            self.fail(f"{key!r} brings the file to more than {TOTAL_MAX} values; that is what is read")
        return data

    def _read(self, data: Any, key: str) -> Any:
        try:
            return data[()]
        except Exception as error:  # a damaged or missing chunk
            self.fail(f"{key!r} cannot be read ({one_line(error)}); the file is damaged or incomplete")

    def strings(self, key: str, limit: int, bytes_max: int = TEXT_MAX) -> npt.NDArray[np.object_]:
        """Return an array of up to `limit` strings, in its shape."""
        data = self._dataset(key, limit)
        kind = data.dtype.kind
        if kind not in "OS" or (kind == "O" and not h5py.check_string_dtype(data.dtype)):
            self.fail(f"{key!r} is {data.dtype}, not {'a string' if limit == 1 else 'strings'}")
        if kind == "S" and data.dtype.itemsize > bytes_max:
            self.fail(f"{key!r} is not a short string ({data.dtype.itemsize} bytes; {bytes_max} are read)")
        if kind == "S":
            raw = [bytes(item) for item in np.asarray(self._read(data, key)).reshape(-1)]
        else:
            raw = [self._heap_string(*place, key, bytes_max) for place in self._places(data, key)]
        found = np.empty(len(raw), object)
        found[:] = [item.rstrip(b"\0").decode("utf-8", "replace") for item in raw]
        return found.reshape(data.shape)

    def text(self, key: str, bytes_max: int = TEXT_MAX) -> str:
        """Return a short string."""
        found = self.strings(key, 1, bytes_max)
        if not found.size:
            self.fail(f"{key!r} is not a short string")
        return str(found.reshape(-1)[0])

    def is_text(self, key: str) -> bool:
        """Whether an entry holds strings."""
        try:
            return self.group[key].dtype.kind in "OSU"
        except Exception:  # not an array, or damaged: reading it says so
            return False

    def array(self, key: str, limit: int = VALUES_MAX) -> Any:
        """Return numbers as they are stored, an array or a scalar of numpy."""
        data = self._dataset(key, limit)
        if data.dtype.kind not in "biuf" or data.dtype.itemsize > 8:
            self.fail(f"{key!r} is {data.dtype}, not numbers")
        return self._read(data, key)

    def finite(self, key: str, limit: int = VALUES_MAX) -> Any:
        """Return numbers as they are stored; none is infinite or no number."""
        values = self.array(key, limit)
        if not np.isfinite(values).all():
            index = tuple(int(i) for i in np.argwhere(~np.isfinite(values))[0])
            self.fail(f"{key!r} holds {values[index]} at {index}; every value must be finite")
        return values

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

    def _places(self, data: Any, key: str) -> list[tuple[int, int, int]]:
        """Return (length, heap's address, index) of each string of variable length."""
        want, raw = 16 * data.size, b""
        if data.chunks is None and data.id.get_offset() is not None and data.id.get_storage_size() == want:
            with open(self.path, "rb") as file:
                file.seek(data.id.get_offset())
                raw = file.read(want)
        elif data.chunks == data.shape and not data.id.get_create_plist().get_nfilters():
            if data.id.get_num_chunks() == 1:
                raw = bytes(data.id.read_direct_chunk((0,) * data.ndim)[1])
        if len(raw) != want:
            self.fail(
                f"{key!r} is a string whose place in the file is not understood; write it with nir.write or "
                "as a string of fixed length"
            )
        return list(struct.iter_unpack("<IQI", raw))

    def _heap_string(self, length: int, heap: int, index: int, key: str, bytes_max: int) -> bytes:
        """Return a string from its heap, which HDF5 itself may search for ever if it is damaged."""
        if length > bytes_max:
            self.fail(f"{key!r} is not a short string ({length} bytes; {bytes_max} are read)")
        if not length:
            return b""
        if heap not in self._spent.heaps:
            self._spent.heaps[heap] = self._heap(heap, key)
        found = self._spent.heaps[heap].get(index)
        if found is None or len(found) < length:
            self.fail(f"{key!r} is a string whose place in the file is not understood; the file is damaged")
        return found[:length]

    def _heap(self, heap: int, key: str) -> dict[int, bytes]:
        """Return the objects of a global heap collection (HDF5 file format, III.E) by index."""
        start = heap + self.group.file.userblock_size
        with open(self.path, "rb") as file:
            body = b""
            if start + 16 <= os.path.getsize(self.path):
                file.seek(start)
                signature, size = struct.unpack("<4s4xQ", file.read(16))
                if signature == b"GCOL" and 16 < size <= HEAP_MAX:
                    body = file.read(size - 16)
        self._spent.heap_bytes += len(body)
        if self._spent.heap_bytes > HEAPS_MAX:
            self.fail(f"{key!r} brings the file's strings to more than {HEAPS_MAX} bytes")
        found: dict[int, bytes] = {}
        place = 0
        while place + 16 <= len(body):
            index, size = struct.unpack_from("<H6xQ", body, place)
            if index == 0 or size > len(body) - place - 16:
                break
            found.setdefault(index, body[place + 16 : place + 16 + size])
            place += 16 + (size + 7) // 8 * 8
        return found


def _address(group: Any) -> int:
    return int(h5py.h5o.get_info(group.id).addr)
