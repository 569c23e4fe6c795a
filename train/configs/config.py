"""Base configuration of every run of snn-train, and how its values are read from text.

Each algorithm has a configuration of its own, a flat frozen dataclass made from `RunConfig`. Needs no torch,
so that the command can check its arguments before it loads anything heavy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, get_type_hints

from snn_compile.runtime.data.registry import option_names
from snn_compile.targets.errors import SnnCompileError

LEAST, LARGEST = 1e-30, 1e30
"""Range of the numbers in a configuration: float32 represents them, and products of a few."""


@dataclass(frozen=True)
class RunConfig:
    """The data of a run, how long it lasts and its seed.

    `data` is a registry name or an `.npz`; coding to samples are the options of the registry's sets.
    `algorithm` is the module of `train/algorithms` whose `fit(config, path, observe)` trains, and `choices`
    are the values that a text key may have.
    """

    algorithm: ClassVar[str] = ""
    choices: ClassVar[Mapping[str, tuple[str, ...]]] = {}

    preset: str = "custom"
    data: str = "digits"
    coding: str = "direct"
    layout: str = "flat"
    steps: int = 16
    repeat: int = 1
    settle: int = 0
    copies: int = 0
    shrink: int = 1
    permuted: bool = False
    dt: float = 0.0
    polarity: bool = True
    counts: bool = False
    samples: int = 0
    epochs: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        """Raise SnnCompileError for a value out of its range."""
        self.at_least(1, "epochs", "steps", "repeat", "shrink")
        self.at_least(0, "settle", "copies", "dt", "samples", "seed")
        for key, allowed in self.choices.items():
            self.require(key, getattr(self, key) in allowed, f"one of {', '.join(allowed)}")

    def require(self, key: str, holds: bool, what: str) -> None:
        """Raise SnnCompileError with `what` the value of a key must be, unless `holds`."""
        if not holds:
            raise SnnCompileError(f"training: {key} is {getattr(self, key)!r}; it must be {what}", key=key)

    def at_least(self, least: float, *keys: str) -> None:
        """Raise SnnCompileError for the first key whose value is below `least` or beyond LARGEST."""
        for key in keys:
            fits = least <= getattr(self, key) <= LARGEST
            self.require(key, fits, f"at least {least:g} and at most {LARGEST:g}")

    def positive(self, *keys: str) -> None:
        """Raise SnnCompileError for the first key whose value is not a positive number of float32."""
        for key in keys:
            fits = LEAST <= getattr(self, key) <= LARGEST
            self.require(key, fits, f"a positive number, from {LEAST:g} to {LARGEST:g}")

    def data_options(self) -> dict[str, Any]:
        """Return the options with which `runtime.data.load_data` loads the data set."""
        if self.data.endswith(".npz"):
            return {"partition": True}
        known = {f.name for f in fields(self)} - {"seed"}  # the seed is that of the training
        return {key: getattr(self, key) for key in option_names(self.data) if key in known}

    def plain(self) -> dict[str, Any]:
        """Return the configuration as plain values, with its algorithm."""
        return {"algorithm": self.algorithm, **asdict(self)}


class GradientConfig(RunConfig):
    """Configuration of an algorithm that learns by gradients from batches; each sets its own defaults."""

    batch_size: int
    learning_rate: float
    flip: bool


def check_key(kind: type[RunConfig], key: str, where: str) -> None:
    """Raise SnnCompileError for a key that a configuration of this kind does not have."""
    known = [f.name for f in fields(kind)]
    if key not in known:
        raise SnnCompileError(f"{where}: no key {key!r}; known are {', '.join(known)}", key=key)


def typed(config: type[RunConfig], key: str, value: object, where: str) -> Any:
    """Return a plain value as its key has it; raises SnnCompileError for one of another kind."""
    kind = get_type_hints(config)[key]
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind == tuple[int, ...]:
        if isinstance(value, (list, tuple)) and all(type(item) is int for item in value):
            return tuple(value)
    elif kind == tuple[float, ...]:
        if isinstance(value, (list, tuple)) and all(type(item) in (int, float) for item in value):
            return tuple(float(item) for item in value)
    elif type(value) is kind:
        return value
    raise SnnCompileError(f"{where}: {key} is {value!r}; it must be {_KINDS[kind]}", key=key)


def parsed(config: type[RunConfig], key: str, text: str) -> Any:
    """Return the value that a text stands for; raises SnnCompileError for a text that stands for none."""
    kind = get_type_hints(config)[key]
    try:
        if kind is bool:
            return {"true": True, "false": False}[text.lower()]
        if kind == tuple[int, ...]:
            return tuple(int(part) for part in text.split(",") if part.strip())
        if kind == tuple[float, ...]:
            return tuple(float(part) for part in text.split(",") if part.strip())
        return kind(text)
    except (ValueError, KeyError) as error:
        raise SnnCompileError(f"--set {key}={text}: it must be {_KINDS[kind]}", key=key) from error


_KINDS: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    tuple[int, ...]: "whole numbers with commas between them",
    tuple[float, ...]: "numbers with commas between them",
}
