"""Event files, each in the format of its data set. Sizes are bounded, and no code of a file is run.

N-MNIST        events of 40 bits: x, y, polarity (1 bit) and microseconds (23 bits); y = 240 is no event
               but adds 2^13 microseconds to all that follow (Orchard et al. 2015)
AEDAT 2.0      text lines that start with #, then 32-bit addresses and microseconds, big-endian; those of
               the DVS128 hold x in bits 1 to 7, y in bits 8 to 14 and 0 in bit 0 for brighter, with the
               origin at the lower right
AEDAT 3.1      text lines to #!END-HEADER, then packets with a header of 28 bytes, little-endian; of a
               polarity event bit 0 says whether it is valid, bit 1 is the polarity, bits 2 to 16 are y
               and bits 17 to 31 x
AEDAT 4        flat buffers, compressed or not; read by the package aedat
arrays         .npy of (events, 4): x, y, polarity, milliseconds, as tonic stores DVS-Gesture
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from snn_compile.runtime.data.formats.aedat4 import INSTALL, START, aedat4_events
from snn_compile.runtime.data.formats.events import Events
from snn_compile.targets.errors import WrongInput, one_line

FILE_MAX = 1 << 29
"""Largest file that is read, in bytes."""
_OVERFLOW_ROW, _OVERFLOW_US = 240, 1 << 13
_PACKET = struct.Struct("<hhiiiiii")
_POLARITY = 1
_MILLISECOND = 1000
_DVS128_LAST = 127


def wrong(path: Path, reason: str) -> WrongInput:
    """Return the error that names a file and what is wrong with it."""
    return WrongInput(f"{path}: {reason}", path=str(path))


def read_nmnist(path: Path) -> Events:
    """Return the events of a file of N-MNIST; raises WrongInput, naming it, for anything else."""
    body = _bytes(path)
    if not len(body) or len(body) % 5:
        raise wrong(path, f"holds {len(body)} bytes, not whole events of 5")
    x, y, *rest = np.frombuffer(body, np.uint8).reshape(-1, 5).T.astype(np.int64)
    time = ((rest[0] & 127) << 16) | (rest[1] << 8) | rest[2]
    overflow = y == _OVERFLOW_ROW
    time = time + _OVERFLOW_US * np.cumsum(overflow)
    kept = ~overflow
    return Events(str(path), time[kept], x[kept], y[kept], rest[0][kept] >> 7)


def read_array(path: Path) -> Events:
    """Return the events of an array (events, 4) of x, y, polarity and milliseconds.

    Raises WrongInput, naming the file, for anything else.
    """
    _size(path)
    try:
        held = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # numpy raises many classes on what is not an array
        raise wrong(path, f"cannot be read as an array ({one_line(error)})") from error
    if held.ndim != 2 or held.shape[1] != 4 or held.dtype.kind not in "iuf":
        raise wrong(
            path, f"holds {held.dtype} {held.shape}, not numbers (events, 4): x, y, polarity, milliseconds"
        )
    values = np.array(held, np.float64)
    if not np.isfinite(values).all() or np.abs(values).max(initial=0) > 2**40:
        raise wrong(path, "holds values that are not valid places and times")
    x, y, p, t = np.rint(values * (1, 1, 1, _MILLISECOND)).astype(np.int64).T
    return Events(str(path), t, x, y, p)


def read_aedat(path: Path) -> Events:
    """Return the events of an AEDAT file of version 2.0, 3.1 or 4.0 with the times it gives.

    Version 2.0 is read as of a DVS128. Raises WrongInput, naming the file, for anything else.
    """
    body = _bytes(path)
    for start, read in ((b"#!AER-DAT2", _aedat2), (b"#!AER-DAT3.1", _aedat3), (START, _aedat4)):
        if body.startswith(start):
            return read(path, body)
    raise wrong(path, f"starts with {body[:10]!r}; AEDAT files of version 2.0, 3.1 and 4.0 are read")


def _aedat2(path: Path, body: bytes) -> Events:
    place = 0
    while body[place : place + 1] == b"#":
        end = body.find(b"\n", place)
        if end < 0:
            raise wrong(path, "its header does not end")
        place = end + 1
    if (len(body) - place) % 8:
        raise wrong(path, f"holds {len(body) - place} bytes behind its header, not whole events of 8")
    address, time = np.frombuffer(body, ">u4", offset=place).reshape(-1, 2).T.astype(np.int64)
    x, y = _DVS128_LAST - (address >> 1 & 127), _DVS128_LAST - (address >> 8 & 127)
    return Events(str(path), time, x, y, 1 - (address & 1))


def _aedat3(path: Path, body: bytes) -> Events:
    mark = body.find(b"#!END-HEADER")
    place = body.find(b"\n", mark) + 1
    if mark < 0 or not place:
        raise wrong(path, "its header does not end with #!END-HEADER")
    parts: list[NDArray[np.int64]] = []
    while place < len(body):
        if place + _PACKET.size > len(body):
            raise wrong(path, f"is cut off in the header of a packet at byte {place}")
        kind, _, size, _, overflow, capacity, count, _ = _PACKET.unpack_from(body, place)
        first, place = place + _PACKET.size, place + _PACKET.size + size * capacity
        if size <= 0 or not 0 <= count <= capacity or overflow < 0 or place > len(body):
            raise wrong(
                path,
                f"a packet at byte {first - _PACKET.size} declares {count} of {capacity} events of {size} "
                f"bytes, and {len(body) - first} bytes follow",
            )
        if kind == _POLARITY:
            if size != 8:
                raise wrong(path, f"a packet of polarities has events of {size} bytes, not 8")
            words = np.frombuffer(body, "<u4", 2 * count, first).reshape(-1, 2).astype(np.int64)
            words[:, 1] += overflow << 31
            parts.append(words)
    data, time = np.concatenate([np.empty((0, 2), np.int64), *parts]).T
    valid = (data & 1) == 1
    data, time = data[valid], time[valid]
    return Events(str(path), time, data >> 17, data >> 2 & 0x7FFF, data >> 1 & 1)


def _aedat4(path: Path, body: bytes) -> Events:
    try:
        held = aedat4_events(body)
    except ModuleNotFoundError as error:
        raise wrong(path, f"is compressed and needs the package {error.name}; type: {INSTALL}") from error
    except Exception as error:  # decompression libraries raise classes of their own
        raise wrong(path, f"cannot be read as AEDAT 4: it {one_line(error)}") from error
    t, x, y, p = (held[name].astype(np.int64) for name in "txyp")
    return Events(str(path), t, x, y, (p != 0).astype(np.int64))


def _bytes(path: Path) -> bytes:
    """Return the content of a file."""
    size = _size(path)
    try:
        with path.open("rb") as file:
            return file.read(size)
    except OSError as error:
        raise wrong(path, f"cannot be read ({one_line(error)})") from error


def _size(path: Path) -> int:
    if not path.is_file():
        raise wrong(path, "no such file")
    size = path.stat().st_size
    if size > FILE_MAX:
        raise wrong(path, f"holds {size} bytes; at most {FILE_MAX} are read")
    return size
