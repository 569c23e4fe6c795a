"""The Add task (Hochreiter and Schmidhuber 1997): the sum of two marked numbers of a sequence."""

from __future__ import annotations

from typing import Any

import numpy as np

from snn_compile.runtime.data.dataset import SPLITS, Dataset
from snn_compile.targets.errors import WrongInput

HELD_OUT = {"validation": 1000, "test": 2000}
CALIBRATION = 128


def add_task(name: str, split: str, steps: int = 100, sequences: int = 12800, seed: int = 0) -> Dataset:
    """Draw sequences of `steps` steps (value, marker), with their sums as targets (batch, 1).

    Values are uniform in [0, 1), one marker of 1 stands in each half. The train split has
    `sequences` of them; each split has random numbers of its own, fixed by `seed`. Predicting the mean, 1,
    has a mean squared error of 1/6.
    """
    options: dict[str, Any] = {"steps": steps, "sequences": sequences, "seed": seed}
    if steps < 2 or sequences < 1 or seed < 0:
        raise WrongInput(
            f"data {name}: steps {steps}, sequences {sequences}, seed {seed}; give at least 2 steps, one "
            "sequence, and no negative seed"
        )
    drawn = "train" if split == "calibration" else split
    count = HELD_OUT.get(drawn, sequences)
    rng = np.random.default_rng([seed, SPLITS.index(drawn)])
    inputs = np.zeros((count, steps, 2))
    inputs[..., 0] = rng.random((count, steps))
    half, rows = steps // 2, np.arange(count)
    marked = rng.integers(0, half, count), rng.integers(half, steps, count)
    for place in marked:
        inputs[rows, place, 1] = 1
    targets = np.stack([inputs[rows, place, 0] for place in marked]).sum(0)[:, None]
    if split == "calibration":
        inputs, targets = inputs[:CALIBRATION], targets[:CALIBRATION]
    return Dataset(name, inputs, None, "none", split, options, targets)
