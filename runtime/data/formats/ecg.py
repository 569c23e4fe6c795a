"""ECG of the QT database as its level-crossing encoded MATLAB files, `QTDB_train.mat` and `QTDB_test.mat`.

    x  (sequences, steps, 4)   events of two leads, up and down: 0 or 1; the last step is padding, -1
    y  (sequences, steps, 6)   the class of every step, one-hot: P, PQ, QR, RS, ST, TP

As in the published work (Yin et al. 2021, Higuchi et al. 2024) the class is the arg-max, so that a step
without any counts as class 0. Only plain arrays are read; no code of the file is run.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from snn_compile.targets.errors import WrongInput


def read_ecg(folder: Path, part: str) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return events (sequences, steps, channels) and classes (sequences, steps) of `part`, "train" or "test".

    Steps that are padding in every sequence are left out at the end. Raises WrongInput, naming the file, when
    it is missing, not a MATLAB file of version 5, or holds other arrays.
    """
    from scipy.io import loadmat

    path = folder / f"QTDB_{part}.mat"
    if not path.is_file():
        raise WrongInput(f"{path}: no such file", path=str(path))
    try:
        held = loadmat(path, variable_names=("x", "y"))
    except Exception as error:  # scipy raises many classes on what is not a MATLAB file
        reason = " ".join(str(error).split()) or type(error).__name__
        raise WrongInput(f"{path}: cannot be read as a MATLAB file ({reason})", path=str(path)) from error
    x, y = held.get("x"), held.get("y")
    if x is None or y is None or x.ndim != 3 or y.ndim != 3 or x.shape[:2] != y.shape[:2] or 0 in x.shape:
        shapes = ", ".join(f"{k} {getattr(v, 'shape', 'missing')}" for k, v in (("x", x), ("y", y)))
        raise WrongInput(
            f"{path}: holds {shapes}; it must hold x (sequences, steps, channels) and y (sequences, steps, "
            "classes)",
            path=str(path),
        )
    if x.dtype.kind not in "iufb" or y.dtype.kind not in "iufb":
        raise WrongInput(f"{path}: x and y are of types {x.dtype} and {y.dtype}, not numbers", path=str(path))
    padded = (x == -1).any(axis=2).all(axis=0)
    steps = x.shape[1]
    while steps and padded[steps - 1]:
        steps -= 1
    if not steps or not np.isin(x[:, :steps], (0, 1)).all():
        raise WrongInput(f"{path}: x holds more than events, 0 and 1, before its padding", path=str(path))
    return x[:, :steps].astype(np.float64), np.argmax(y[:, :steps], axis=2).astype(np.int64)
