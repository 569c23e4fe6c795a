"""Data sets and results of the runtime, as far as the command uses them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from snn_compile.compiler.onnx.rate_coding import Conversion
from snn_compile.targets.program.program import Program


class Dataset(Protocol):
    """Samples: `inputs` (batch, steps, *shape), and `labels` (batch,), (batch, steps) or None."""

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def split(self) -> str: ...  # noqa: D102

    @property
    def inputs(self) -> npt.NDArray[np.float64]: ...  # noqa: D102

    @property
    def labels(self) -> npt.NDArray[np.int64] | None: ...  # noqa: D102

    def spec(self) -> dict[str, Any]:
        """Return, as plain values, what it takes to load the data set again."""


class Division(Protocol):
    """Data to calibrate on and data to check on, from one data set."""

    @property
    def calibration(self) -> Dataset | None: ...  # noqa: D102

    @property
    def checked(self) -> Dataset: ...  # noqa: D102

    @property
    def note(self) -> str: ...  # noqa: D102

    def json(self) -> dict[str, Any]:
        """Return the division as plain values."""


class Accuracy(Protocol):
    """Accuracy of a program; `drop` in percentage points, None without a float network to compare with."""

    @property
    def drop(self) -> float | None: ...  # noqa: D102


class Report(Protocol):
    """What a run of a program measured."""

    @property
    def accuracy(self) -> Accuracy | None: ...  # noqa: D102

    def json(self) -> dict[str, Any]:
        """Return the report as plain values."""

    def text(self) -> str:
        """Return the report as tables."""

    def warnings(self) -> list[str]:
        """Return a line for each population whose states left their range."""


class Curve(Protocol):
    """Accuracy and energy of a converted model against steps per sample."""

    def save(self, path: str) -> None:
        """Draw the curve to a file."""


class Converted(Protocol):
    """An ONNX model converted to rates, with the data set to check it on."""

    @property
    def conversion(self) -> Conversion: ...  # noqa: D102

    @property
    def checked(self) -> Dataset | None: ...  # noqa: D102

    @property
    def division(self) -> Division | None: ...  # noqa: D102

    def provenance(self) -> Mapping[str, str]:
        """Return what the program stores about the conversion."""

    def json(self, curve: Any) -> dict[str, Any]:
        """Return the result's entries on the conversion and on its `Curve`, if there is one."""

    def measure(self, program: Program, max_drop: float | None) -> tuple[Program, Report, Curve]:
        """Run the check data; with `max_drop`, for the fewest steps that meet it."""
