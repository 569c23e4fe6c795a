"""IDX files, the format of the MNIST family, plain or compressed by gzip.

A file is two zero bytes, a type code (8: unsigned bytes), the number of axes, the length of each axis as a
big-endian 32-bit number, and the values in C order (LeCun, Cortes and Burges, "The MNIST database").
"""

from __future__ import annotations

import gzip
import zlib
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from snn_compile.targets.errors import WrongInput

UNSIGNED_BYTES = 8
BYTES_MAX = 1 << 30
"""Largest number of values per file; headers that declare more are rejected."""


def read_images(folder: Path, part: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return images (count, height, width) and labels (count,) of `part`, "train" or "t10k".

    The files are `PART-images-idx3-ubyte` and `PART-labels-idx1-ubyte`, each with or without `.gz`.
    Raises WrongInput, naming the file, when one is missing, damaged, or does not fit the other.
    """
    images_path = _find(folder, f"{part}-images-idx3-ubyte")
    labels_path = _find(folder, f"{part}-labels-idx1-ubyte")
    images, labels = read_idx(images_path, 3), read_idx(labels_path, 1)
    if len(images) != len(labels):
        raise WrongInput(
            f"{labels_path}: {len(labels)} labels for the {len(images)} images of {images_path.name}",
            path=str(labels_path),
        )
    return images, labels.astype(np.int64)


def read_idx(path: Path, axes: int) -> NDArray[np.uint8]:
    """Return the unsigned bytes of an IDX file with `axes` axes; raises WrongInput, naming the file."""

    def wrong(reason: str) -> WrongInput:
        return WrongInput(f"{path}: {reason}", path=str(path))

    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            head = file.read(4 + 4 * axes)
            if len(head) < 4 or head[:2] != b"\0\0":
                raise wrong("not an IDX file; it does not start with two zero bytes")
            if head[2] != UNSIGNED_BYTES or head[3] != axes:
                raise wrong(
                    f"an IDX file of type {head[2]} with {head[3]} axes; unsigned bytes (type "
                    f"{UNSIGNED_BYTES}) with {axes} are supported"
                )
            shape = tuple(int(n) for n in np.frombuffer(head[4:], ">u4"))
            count = prod(shape)
            if len(shape) < axes or not 0 < count <= BYTES_MAX:
                raise wrong(f"its header declares {'x'.join(map(str, shape)) or 'no'} values")
            body = file.read(count + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise wrong(f"cannot be read ({' '.join(str(error).split())})") from error
    if len(body) != count:
        held = f"{len(body)}" if len(body) < count else "more"
        raise wrong(f"its header declares {count} values and it holds {held}")
    return np.frombuffer(body, np.uint8).reshape(shape)


def _find(folder: Path, name: str) -> Path:
    for path in (folder / f"{name}.gz", folder / name):
        if path.is_file():
            return path
    raise WrongInput(f"{folder / name}: no such file, neither plain nor as .gz", path=str(folder / name))
