"""CIFAR-10 in its binary version (Krizhevsky 2009): `data_batch_1.bin` to `data_batch_5.bin` and
`test_batch.bin`.

A record is a class, 0 to 9, in one byte, and the red, green and blue values of 32 x 32 pixels, a byte each.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from snn_compile.targets.errors import WrongInput, one_line

SHAPE = (3, 32, 32)
CLASSES = 10
RECORDS_MAX = 100_000
_RECORD = 1 + 3 * 32 * 32


def read_cifar(folder: Path, part: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return images (count, 3, 32, 32) and classes (count,) of `part`, "train" or "test".

    `folder` has the files, or the folder cifar-10-batches-bin with them. Raises WrongInput, naming the file,
    when one is missing or does not hold whole records.
    """
    inner = folder / "cifar-10-batches-bin"
    folder = inner if inner.is_dir() else folder
    names = ["test_batch.bin"] if part == "test" else [f"data_batch_{n}.bin" for n in range(1, 6)]
    records = np.concatenate([_records(folder / name) for name in names])
    return records[:, 1:].reshape(-1, *SHAPE), records[:, 0].astype(np.int64)


def _records(path: Path) -> NDArray[np.uint8]:
    try:
        size = path.stat().st_size
        if not size or size % _RECORD or size > RECORDS_MAX * _RECORD:
            raise WrongInput(f"{path}: holds {size} bytes, not whole records of {_RECORD}", path=str(path))
        with path.open("rb") as file:
            records = np.frombuffer(file.read(size), np.uint8).reshape(-1, _RECORD)
    except FileNotFoundError as error:
        raise WrongInput(f"{path}: no such file", path=str(path)) from error
    except (OSError, ValueError) as error:
        raise WrongInput(f"{path}: cannot be read ({one_line(error)})", path=str(path)) from error
    if records[:, 0].max() >= CLASSES:
        raise WrongInput(f"{path}: holds class {records[:, 0].max()}; they are 0 to 9", path=str(path))
    return records
