"""Samples from an `.npz`: inputs and optional labels, plain arrays only."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snn_compile.targets.errors import WrongInput

_DAMAGED = (
    *(ValueError, OSError, EOFError, KeyError, AttributeError, TypeError, zipfile.BadZipFile, zlib.error),
    RuntimeError,  # an encrypted file, or an unknown compression
    MemoryError,  # a header that names more values than there is room for
)


def read_npz(name: str) -> dict[str, NDArray[Any]]:
    """Return the arrays `inputs` and, if present, `labels`; raises WrongInput for a file without inputs."""
    if not Path(name).is_file():
        raise WrongInput(f"data {name}: no such file", path=name)
    try:
        with open(name, "rb") as file, np.load(file, allow_pickle=False) as archive:
            keys = list(archive.files)
            arrays = {key: archive[key] for key in ("inputs", "labels") if key in keys}
    except _DAMAGED as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise WrongInput(
            f"data {name}: cannot be read as an .npz of plain arrays ({reason}); write it with numpy.savez",
            path=name,
        ) from error
    if "inputs" not in arrays:
        raise WrongInput(
            f"data {name}: holds no array 'inputs', only {', '.join(keys) or 'nothing'}; save "
            "inputs (batch, steps, *shape)",
            path=name,
        )
    return arrays
