"""Calibration data where only data to check on are given: a set's own split, or samples set aside.

Scales that are chosen on the samples that accuracy is then measured on flatter it. A file without splits
therefore gives up a random part of its samples, which the measurement leaves out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snn_compile.runtime.data.dataset import Dataset, some_of
from snn_compile.targets.errors import WrongInput

SHARE = 10
"""One in so many samples is set aside."""

LEAST, MOST = 32, 256
_SEED = 1797


@dataclass(frozen=True, eq=False)
class Division:
    """Data to calibrate on and data to check on, from one data set.

    `indices` are the file's samples that were set aside, None where the set has a calibration split of its
    own or none were. `note` says how the data were divided; it is a warning if there are no `calibration`
    data. `of` counts the samples of both.
    """

    calibration: Dataset | None
    checked: Dataset
    note: str
    of: int
    indices: NDArray[np.int64] | None = None

    def json(self) -> dict[str, Any]:
        """Return the division as plain values."""
        samples = 0 if self.calibration is None else len(self.calibration.inputs)
        return {
            "data": self.checked.name,
            "samples": samples,
            "of": self.of,
            "indices": None if self.indices is None else [int(index) for index in self.indices],
        }


def divide(name: str, own_split: bool, load: Callable[[str], Dataset], number: int | None = None) -> Division:
    """Divide the data set `name`; `load` returns a split of it.

    `own_split`: whether it has a calibration split. `number` of samples for calibration, by default all of
    that split, or of a file a tenth: 32 to 256 samples, at most half, and none of fewer than 64. Raises
    WrongInput for more samples than there are.
    """
    checked = load("test")
    if own_split:
        calibration = load("calibration")
        count = len(calibration.inputs)
        if number is not None and number > count:
            raise WrongInput(
                f"data {name}: --holdout {number}, and its calibration split has {count} samples; give at "
                f"most {count}",
                samples=count,
            )
        if number is not None:
            calibration = _part(calibration, some_of(np.arange(count), number), {})
        used = len(calibration.inputs)
        note = (
            f"no --calibrate DATA: calibrated on {used} sample(s) of the calibration split of {name} "
            "(--holdout N takes N, 0 none)"
        )
        return Division(calibration, checked, note, used + len(checked.inputs))
    count = len(checked.inputs)
    if number is None and count < 2 * LEAST:
        note = (
            f"data {name}: {count} samples are too few to set some aside for calibration; give --calibrate "
            "DATA, or --holdout N to set N aside"
        )
        return Division(None, checked, note, count)
    number = default_size(count) if number is None else number
    indices = chosen(checked, number)
    calibration, rest = set_aside(checked, number)
    how = "" if _classes(checked) is None else ", drawn class by class"
    note = (
        f"no --calibrate DATA: {number} of the {count} samples of {name}{how}, are set aside to calibrate "
        f"on, and the other {count - number} are run (--holdout N sets N aside, 0 none)"
    )
    return Division(calibration, rest, note, count, indices)


def default_size(count: int) -> int:
    """Return how many of `count` samples are set aside: a tenth, 32 to 256, at most half."""
    return min(max(count // SHARE, LEAST), MOST, count // 2)


def set_aside(data: Dataset, number: int) -> tuple[Dataset, Dataset]:
    """Return `number` samples of `data` for calibration, the same ones every time, and the rest.

    Where every sample has one label, each class gives its share. Raises WrongInput unless some samples are
    set aside and some are left.
    """
    indices, options = chosen(data, number), {"holdout": number}
    rest = np.setdiff1d(np.arange(len(data.inputs)), indices)
    return replace(_part(data, indices, options), split="calibration"), _part(data, rest, options)


def chosen(data: Dataset, number: int) -> NDArray[np.int64]:
    """Return the samples that are set aside, in their order; raises as `set_aside`."""
    count = len(data.inputs)
    if not 0 < number < count:
        raise WrongInput(
            f"data {data.name}: a holdout of {number} out of {count} samples; "
            + (f"give 1 to {count - 1}" if count > 1 else "one sample cannot be divided"),
            samples=count,
        )
    classes = _classes(data)
    if classes is None:
        return some_of(np.arange(count), number)
    names, members = np.unique(classes, return_inverse=True)
    wanted = number * np.bincount(members) / count
    each = np.floor(wanted).astype(int)
    each[np.argsort(each - wanted, kind="stable")[: number - each.sum()]] += 1
    rng = np.random.default_rng(_SEED)
    found = [rng.permutation(np.flatnonzero(members == k))[: each[k]] for k in range(len(names))]
    return np.sort(np.concatenate(found))


def _classes(data: Dataset) -> NDArray[np.int64] | None:
    return data.labels if data.labels is not None and data.labels.ndim == 1 else None


def _part(data: Dataset, indices: NDArray[np.int64], options: dict[str, Any]) -> Dataset:
    """Return some samples; one frame that is presented at every step stays stored once."""
    inputs, steps = data.inputs, data.inputs.shape[1]
    if steps > 1 and inputs.strides[1] == 0:
        shape = (len(indices), *inputs.shape[1:])
        inputs = np.broadcast_to(inputs[:, :1][indices], shape)
    else:
        inputs = inputs[indices]
    labels = None if data.labels is None else data.labels[indices]
    targets = None if data.targets is None else data.targets[indices]
    return replace(data, inputs=inputs, labels=labels, targets=targets, options={**data.options, **options})
