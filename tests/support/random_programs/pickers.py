"""Where random choices come from, and how large programs get."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

Ints = npt.NDArray[np.int64]
READOUTS = ("count", "mean", "last", "max", "per_step")


class Picker(Protocol):
    """Where choices come from."""

    def integer(self, low: int, high: int) -> int: ...

    def choice(self, values: Sequence[Any]) -> Any: ...

    def integers(self, low: int, high: int, shape: tuple[int, ...]) -> Ints: ...


class SeededPicker:
    """Choices of a seeded numpy generator."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def integer(self, low: int, high: int) -> int:
        return int(self.rng.integers(low, high + 1))

    def choice(self, values: Sequence[Any]) -> Any:
        return values[int(self.rng.integers(len(values)))]

    def integers(self, low: int, high: int, shape: tuple[int, ...]) -> Ints:
        return self.rng.integers(low, high + 1, shape)


class DrawnPicker:
    """Choices of hypothesis; they shrink to the first value or to the one nearest zero."""

    def __init__(self, draw: Any) -> None:
        self.draw = draw

    def integer(self, low: int, high: int) -> int:
        return int(self.draw(st.integers(low, high)))

    def choice(self, values: Sequence[Any]) -> Any:
        return self.draw(st.sampled_from(values))

    def integers(self, low: int, high: int, shape: tuple[int, ...]) -> Ints:
        return np.asarray(self.draw(hnp.arrays(np.int64, shape, elements=st.integers(low, high))))


@dataclass(frozen=True)
class Limits:
    """How large programs get."""

    neurons: int = 40
    populations: int = 4
    inputs: int = 2
    channels: int = 8
    steps: int = 40
    samples: int = 4
    tables: int = 3
    delay: int = 62
    models: tuple[str, ...] = ()
    """Models that are drawn besides the leaky ones."""


SMALL = Limits(neurons=4, populations=3, channels=3, steps=12, samples=2, tables=2)
TINY = Limits(neurons=5, populations=3, channels=3, steps=8, samples=3, tables=2, delay=3)
OTHERS = ("rf", "rf_iz", "atrlif", "sigma_delta", "delta", "sigma", "graded", "graded_relu")
OWN = ("brf", "alif")
LIQUID = ("lsn", "lsn", "lsn_membrane", "lsn_adaptation")
SHORT = Limits(neurons=12, populations=3, channels=10, steps=10, samples=5, tables=2, delay=4)
SMALL_OTHERS, SHORT_OTHERS, TINY_OTHERS = (replace(each, models=OTHERS) for each in (SMALL, SHORT, TINY))
SMALL_OWN, SHORT_CUSTOM, TINY_OWN = (replace(each, models=OWN) for each in (SMALL, SHORT, TINY))
SMALL_LIQUID, SHORT_LIQUID, TINY_LIQUID = (replace(each, models=LIQUID) for each in (SMALL, SHORT, TINY))
