"""Files of the Spiking Heidelberg Digits (Cramer et al. 2020), `shd_train.h5` and `shd_test.h5`.

spikes/units   one row per recording: the channels of its spikes, 0 to 699
spikes/times   one row per recording: their times in seconds
labels         the class of each recording, 0 to 19
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from snn_compile.compiler.frontends.hdf5 import opened
from snn_compile.runtime.data.formats.event_files import wrong
from snn_compile.runtime.data.formats.events import MICROSECONDS, Events
from snn_compile.targets.errors import CompileError, WrongInput

CHANNELS, CLASSES = 700, 20
ROWS_MAX = 1 << 20


def read_labels(path: Path) -> NDArray[np.int64]:
    """Return the class of every recording; raises WrongInput, naming the file, for anything else."""
    try:
        with opened(path, "spiking digits") as file:
            labels = np.asarray(file.array("labels", ROWS_MAX))
    except CompileError as error:
        raise WrongInput(str(error), path=str(path)) from error
    if labels.ndim != 1 or not labels.size or labels.dtype.kind not in "iu":
        raise wrong(path, f"its labels are {labels.dtype} {labels.shape}, not whole numbers in a list")
    if labels.min() < 0 or labels.max() >= CLASSES:
        raise wrong(path, f"its labels are from {labels.min()} to {labels.max()}; they must be from 0 to 19")
    return labels.astype(np.int64)


def read_spikes(path: Path, chosen: NDArray[np.int64]) -> Iterator[Events]:
    """Yield the chosen recordings; raises WrongInput, naming file and recording, for invalid ones."""
    try:
        with opened(path, "spiking digits") as file:
            spikes = file.child("spikes")
            rows = (spikes.rows(key, chosen, ROWS_MAX) for key in ("units", "times"))
            for number, units, times in zip(chosen, *rows, strict=True):
                yield _events(path, int(number), units, times)
    except CompileError as error:
        raise WrongInput(str(error), path=str(path)) from error


def _events(path: Path, number: int, units: NDArray[np.uint16], times: NDArray[np.float16]) -> Events:
    where = f"{path}, recording {number}"
    if units.shape != times.shape or units.dtype.kind not in "iu":
        raise wrong(path, f"recording {number} has {len(times)} times, {len(units)} channels ({units.dtype})")
    seconds = times.astype(np.float64)
    if not np.isfinite(seconds).all() or np.abs(seconds).max(initial=0) > 2**20:
        raise wrong(path, f"recording {number} has times that are not valid seconds")
    t = np.rint(seconds * MICROSECONDS).astype(np.int64)
    none = np.zeros_like(t)
    return Events(where, t, units.astype(np.int64), none, none)
