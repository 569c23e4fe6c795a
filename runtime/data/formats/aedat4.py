"""AEDAT 4 files: packets of flat buffers, each compressed or not, here those that hold events.

    #!AER-DAT4.0\\r\\n, then a flat buffer behind its size (compression, where the index of packets begins,
    -1 for none, and a description of the streams), then packets: stream, size, body. The body of events is
    a flat buffer behind its size, named EVTS, whose one field is a vector of structures of 16 bytes: t
    (int64, microseconds), x, y (int16), brighter (bool).

Every offset in a buffer is checked before it is read, and the decompressed size of packets is bounded.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

START = b"#!AER-DAT4.0\r\n"
INSTALL = "pip install 'snn-compile[events]'"
DECOMPRESSED_MAX = 1 << 28
"""Total bytes of the decompressed packets of a file: 16 million events."""
EVENT = np.dtype({"names": "txyp", "formats": ["<i8", "<i2", "<i2", "u1"], "itemsize": 16})
_COMPRESSION, _INDEX = 0, 1


class Damaged(Exception):
    """The file does not hold what it declares."""


def aedat4_events(body: bytes) -> NDArray[np.void]:
    """Return the events of the first stream that has any, fields t, x, y and p, of a whole file.

    Raises Damaged for anything else, ModuleNotFoundError where the package of a compression is missing.
    """
    place = len(START)
    size = _number(body, "<i", place)
    header = _part(body, place, size + 4)
    root = _table(header)
    field = _field(header, root, _COMPRESSION)
    decompress = _decompressor(_number(header, "<i", field) if field else 0)
    field = _field(header, root, _INDEX)
    index = _number(header, "<q", field) if field else -1
    place += size + 4
    end = len(body) if index < 0 else min(index, len(body))
    found: dict[int, list[NDArray[np.void]]] = {}
    left = DECOMPRESSED_MAX
    while place < end:
        stream, size = _number(body, "<i", place), _number(body, "<i", place + 4)
        packet = decompress(_part(body, place + 8, size), left)
        left -= len(packet)
        if left < 0:
            raise Damaged(f"decompresses to more than {DECOMPRESSED_MAX} bytes")
        if packet[8:12] == b"EVTS":
            found.setdefault(stream, []).append(_events(packet))
        place += 8 + size
    if not found:
        raise Damaged("has no stream of events")
    return np.concatenate(found[min(found)])


def _events(packet: bytes) -> NDArray[np.void]:
    field = _field(packet, _table(packet), 0)
    if not field:
        return np.empty(0, EVENT)
    vector = field + _number(packet, "<I", field)
    count = _number(packet, "<I", vector)
    return np.frombuffer(_part(packet, vector + 4, count * EVENT.itemsize), EVENT)


def _table(buffer: bytes) -> int:
    """Return the place of the root table of a flat buffer behind its size."""
    return 4 + _number(buffer, "<I", 4)


def _field(buffer: bytes, table: int, number: int) -> int:
    """Return the place of a field of a table, or 0 where it has its default."""
    fields = table - _number(buffer, "<i", table)
    entry = 4 + 2 * number
    if entry + 2 > _number(buffer, "<H", fields):
        return 0
    offset = _number(buffer, "<H", fields + entry)
    return table + offset if offset else 0


def _number(buffer: bytes, form: str, place: int) -> int:
    return int(struct.unpack(form, _part(buffer, place, struct.calcsize(form)))[0])


def _part(buffer: bytes, place: int, size: int) -> bytes:
    if place < 0 or size < 0 or place + size > len(buffer):
        raise Damaged(f"is cut off or damaged: {size} bytes at {place} of {len(buffer)}")
    return buffer[place : place + size]


def _decompressor(compression: int) -> Callable[[bytes, int], bytes]:
    """Return a function (body, bytes left) that decompresses to at most one byte more than are left."""
    if compression == 0:
        return lambda body, left: body
    if compression in (1, 2):
        from lz4.frame import LZ4FrameDecompressor

        return lambda body, left: bytes(LZ4FrameDecompressor().decompress(body, left + 1))
    if compression in (3, 4):
        from zstandard import ZstdDecompressor

        def decompress(body: bytes, left: int) -> bytes:
            with ZstdDecompressor().stream_reader(body) as reader:
                return reader.read(left + 1)

        return decompress
    raise Damaged(f"declares compression {compression}; 0 to 4 are known")
