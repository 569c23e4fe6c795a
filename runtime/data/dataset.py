"""Samples ready to run, and the fixed splits of every data set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snn_compile.targets.errors import WrongInput

SPLITS = ("train", "validation", "test", "calibration")
_SPLIT_SEED = 1797
_CALIBRATION_SAMPLES = 128


@dataclass(frozen=True, eq=False)
class Dataset:
    """Samples ready to run: `inputs` (batch, steps, *shape) and `labels` (batch,), (batch, steps) or None.

    `targets` (batch, size) are the target values where there are no classes.
    `options` are those of `load_data`, defaults included. Arrays are made read-only. Raises
    WrongInput when shapes, types or values do not fit each other.
    """

    name: str
    inputs: NDArray[np.float64]
    labels: NDArray[np.int64] | None
    coding: str
    split: str = "test"
    options: Mapping[str, Any] = field(default_factory=dict)
    targets: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        """Check the arrays and make them read-only."""
        inputs = _checked_inputs(self.name, self.inputs)
        labels = None if self.labels is None else _checked_labels(self.name, self.labels, inputs.shape[:2])
        targets = None if self.targets is None else np.array(self.targets, dtype=np.float64)
        if targets is not None and (targets.ndim != 2 or len(targets) != len(inputs)):
            raise WrongInput(
                f"data {self.name}: targets have shape {targets.shape} for {len(inputs)} samples; they must "
                f"be ({len(inputs)}, size)"
            )
        for array in (inputs, labels, targets):
            if array is not None:
                array.flags.writeable = False
        object.__setattr__(self, "inputs", inputs)
        object.__setattr__(self, "labels", labels)
        object.__setattr__(self, "targets", targets)
        object.__setattr__(self, "options", MappingProxyType(dict(self.options)))

    def spec(self) -> dict[str, Any]:
        """Return, as plain values, what `load_data` needs to give this data again."""
        return {"name": self.name, "options": dict(self.options)}


def split_indices(count: int, split: str) -> NDArray[np.int64]:
    """Return the samples of a split: every fifth for testing, a fixed tenth of the others for validation."""
    everything = np.arange(count)
    if split == "test":
        return np.flatnonzero(everything % 5 == 0)
    return of_training(np.flatnonzero(everything % 5), split)


def of_training(training: NDArray[np.int64], split: str) -> NDArray[np.int64]:
    """Return the training samples of a split: a fixed tenth is for validation."""
    rng = np.random.default_rng(_SPLIT_SEED)
    shuffled = rng.permutation(training)
    held_out = len(training) // 10
    if split == "validation":
        return np.sort(shuffled[:held_out])
    train = shuffled[held_out:]
    return np.sort(train[:_CALIBRATION_SAMPLES] if split == "calibration" else train)


def some_of(chosen: NDArray[np.int64], samples: int) -> NDArray[np.int64]:
    """Return a fixed random subset of `samples` of the chosen samples, in their order."""
    return np.sort(np.random.default_rng(_SPLIT_SEED).permutation(chosen)[:samples])


def _checked_inputs(name: str, inputs: NDArray[Any]) -> NDArray[np.float64]:
    inputs = np.asarray(inputs)
    if inputs.dtype.kind not in "buif":
        raise WrongInput(f"data {name}: inputs are of type {inputs.dtype}; they must be real numbers")
    if inputs.ndim < 3 or 0 in inputs.shape:
        raise WrongInput(
            f"data {name}: inputs have shape {inputs.shape}; they must be (batch, steps, *shape), "
            "none of it empty",
            shape=inputs.shape,
        )
    if inputs.shape[1] > 1 and inputs.strides[1] == 0:  # one frame presented at every step is stored once
        return np.broadcast_to(_checked_inputs(name, inputs[:, :1]), inputs.shape)
    with np.errstate(over="ignore"):  # what overflows is infinite, and refused
        values = np.array(inputs, dtype=np.float64, order="C")
    if not np.isfinite(values).all():
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(values))[0])
        raise WrongInput(
            f"data {name}: inputs{list(where)} is {values[where]}; every input must be finite", where=where
        )
    return values


def _checked_labels(name: str, labels: NDArray[Any], shape: tuple[int, ...]) -> NDArray[np.int64]:
    labels = np.asarray(labels)
    if labels.dtype.kind not in "bui":
        raise WrongInput(f"data {name}: labels are of type {labels.dtype}; they must be whole numbers")
    if labels.shape not in (shape[:1], shape):
        raise WrongInput(
            f"data {name}: labels have shape {labels.shape} for {shape[0]} samples of {shape[1]} steps; they "
            f"must be ({shape[0]},), or {shape} with one for every step",
            shape=labels.shape,
        )
    most = np.iinfo(np.int64).max
    for extreme in (labels.min(), labels.max()):
        if not 0 <= int(extreme) <= most:
            raise WrongInput(f"data {name}: a label is {extreme}; labels are class numbers from 0")
    return np.array(labels, dtype=np.int64)
