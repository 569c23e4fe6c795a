"""Untrusted HDF5 files: entries are checked before they are read, and reading is bounded.

A file can declare terabytes in a few bytes, contain itself, point into other files, or have damaged strings
for which HDF5 searches for ever. So every link must be hard, every data set of a plain type, in this file and
of an allowed size; a group cannot lie inside itself; reads are counted over the whole file; and strings of
variable length are parsed here, from the few lines of the format that they need. Attributes are ignored.
Every error names file and place.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from snn_compile.compiler.frontends.checked import (
    DEPTH_MAX,
    NAME_MAX,
    OBJECTS_MAX,
    TEXT_MAX,
    TOTAL_MAX,
    VALUES_MAX,
    Entries,
)
from snn_compile.targets.errors import CompileError, SnnCompileError, one_line

CHUNK_MAX = 1 << 20
"""Most values of a chunk, which is read whole even where fewer values are allowed."""

HEAP_MAX, HEAPS_MAX = 1 << 24, 1 << 26
"""Most bytes of one heap of strings, and of all heaps."""

HEAPS_HELD, HEAP_READS = 32, 4
"""Heaps in memory while rows are read, and the most bytes read of heaps, in file sizes."""

_PLACE = struct.calcsize("<IQI")


@contextmanager
def opened(path: str | os.PathLike[str], what: str) -> Iterator[Hdf5Group]:
    """Open a file as `what` ("a NIR graph"); raises CompileError, naming it, on any failure."""
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


@dataclass
class _Spent:
    """Counts of reads of one file, and its heaps of strings by address."""

    objects: int = 0
    values: int = 0
    heap_bytes: int = 0
    heaps: dict[int, dict[int, bytes]] = field(default_factory=dict)


class Hdf5Group(Entries):
    """An HDF5 group whose entries are checked for type and size before they are read."""

    def __init__(
        self, group: Any, where: str, path: str, above: tuple[int, ...] = (), spent: _Spent | None = None
    ) -> None:
        super().__init__(where, path)
        self.group = group
        self._above = (*above, _address(group))
        self._spent = spent or _Spent()

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
        """Return a sub-group, named `label`, or by its path, in errors."""
        item = self._item(key, h5py.Group, "a group")
        if _address(item) in self._above:
            self.fail(f"{key!r} lies inside itself")
        if len(self._above) >= DEPTH_MAX:
            self.fail(f"{key!r} lies more than {DEPTH_MAX} groups deep")
        return Hdf5Group(item, self.below(key, label), self.path, self._above, self._spent)

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

    def rows(self, key: str, chosen: npt.NDArray[np.int64], limit: int) -> Iterator[npt.NDArray[Any]]:
        """Yield the chosen ones of up to `limit` rows of numbers, each of its own length.

        A few heaps of the file are held at a time, and all that is read is at most some times the file.
        """
        data = self._dataset(key, limit)
        kind = h5py.check_vlen_dtype(data.dtype)
        if not isinstance(kind, np.dtype) or kind.kind not in "biuf" or kind.itemsize > 8 or data.ndim != 1:
            self.fail(f"{key!r} is {data.dtype} {data.shape}, not rows of numbers")
        places, left = self._places(data, key), HEAP_READS * os.path.getsize(self.path)
        heaps: dict[int, dict[int, bytes]] = {}
        for row in chosen:
            length, heap, index = places[row]
            if length and heap not in heaps:
                body = self._heap_body(heap)
                left -= len(body)
                if left < 0:
                    self.fail(f"the rows of {key!r} lie all over the file; it is damaged")
                heaps = dict([*heaps.items(), (heap, _objects(body))][-HEAPS_HELD:])
            found = heaps[heap].get(index, b"") if length else b""
            if len(found) < length * kind.itemsize:
                self.fail(f"row {row} of {key!r} is not at its declared place; the file is damaged")
            yield np.frombuffer(found, kind, length)

    def _places(self, data: Any, key: str) -> list[tuple[int, int, int]]:
        """Return (length, heap's address, index) of each entry of variable length."""
        want, raw = _PLACE * data.size, b""
        if data.chunks is None and data.id.get_offset() is not None and data.id.get_storage_size() == want:
            with open(self.path, "rb") as file:
                file.seek(data.id.get_offset())
                raw = file.read(want)
        elif data.chunks is not None and data.ndim == 1:
            raw = b"".join(self._chunks(data, key))[:want]
        elif data.chunks == data.shape and not data.id.get_create_plist().get_nfilters():
            if data.id.get_num_chunks() == 1:
                raw = bytes(data.id.read_direct_chunk((0,) * data.ndim)[1])
        if len(raw) != want:
            self.fail(
                f"the place of {key!r} in the file is not understood; write it with nir.write, or strings "
                "with a fixed length and rows without a filter"
            )
        return list(struct.iter_unpack("<IQI", raw))

    def _chunks(self, data: Any, key: str) -> Iterator[bytes]:
        """Yield the chunks of places of a list, in order, as they are without shuffling and gzip."""
        (length,), plist = data.chunks, data.id.get_create_plist()
        filters = [plist.get_filter(number)[0] for number in range(plist.get_nfilters())]
        whole, first = _PLACE * length, 0
        while first < data.size:
            mask, body = data.id.read_direct_chunk((first,))
            for number in reversed(range(len(filters))):
                if mask >> number & 1:
                    continue
                if filters[number] == h5py.h5z.FILTER_DEFLATE:
                    body = zlib.decompressobj().decompress(bytes(body), whole + 1)
                elif filters[number] == h5py.h5z.FILTER_SHUFFLE and len(body) == whole:
                    body = np.frombuffer(body, np.uint8).reshape(_PLACE, -1).T.tobytes()
                else:
                    self.fail(f"{key!r} is stored with a filter that is not read; write it with gzip")
            if len(body) != whole:
                self.fail(f"{key!r} has a chunk of {len(body)} bytes, not {whole}; the file is damaged")
            yield bytes(body)
            first += length

    def _heap_string(self, length: int, heap: int, index: int, key: str, bytes_max: int) -> bytes:
        """Return a string from its heap; on a damaged one HDF5 itself may search for ever."""
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
        """Return the objects of a heap by index, counting what has been read of all."""
        body = self._heap_body(heap)
        self._spent.heap_bytes += len(body)
        if self._spent.heap_bytes > HEAPS_MAX:
            self.fail(f"{key!r} brings the file's strings to more than {HEAPS_MAX} bytes")
        return _objects(body)

    def _heap_body(self, heap: int) -> bytes:
        """Return a global heap collection (HDF5 file format, III.E) without its header, or nothing."""
        start = heap + self.group.file.userblock_size
        if start + 16 > os.path.getsize(self.path):
            return b""
        with open(self.path, "rb") as file:
            file.seek(start)
            signature, size = struct.unpack("<4s4xQ", file.read(16))
            return file.read(size - 16) if signature == b"GCOL" and 16 < size <= HEAP_MAX else b""


def _objects(body: bytes) -> dict[int, bytes]:
    """Return the objects of a global heap collection by index."""
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
