"""Training configurations: one flat frozen dataclass, presets by name, TOML files, typed overrides.

    read_config("digits", ["epochs=3", "hidden=64,64"])
    read_config("mine.toml")      keys of TrainConfig; `preset = "digits"` starts from a preset

Needs no torch, so that the command can check its arguments before it loads anything heavy.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, get_type_hints

from snn_compile.runtime.data import option_names
from snn_compile.targets.errors import SnnCompileError


@dataclass(frozen=True)
class TrainConfig:
    """Everything a training run depends on.

    `data` is a registry name or an `.npz`; coding to copies are the options of the registry's sets.
    `channels` lists the convolutions (of width `kernel`, padded by half of it, with `stride`, the later ones
    behind averages over `pool`), `hidden` the sizes of the dense layers behind them; decays are per step;
    `rate_target` is in spikes per neuron and step and acts with `rate_weight`; `logit_scale` multiplies the
    mean read-out membrane in the loss only; `weight_bits` above 0 trains in a chip's integers with tables
    of that many bits, one a projection or one a sign as `tables` says (see `integers`). `init` is a
    checkpoint of the same layers to start from, for example one trained in floats. `flip` mirrors half of the
    training images, left to right.

    Neurons rf to lstm make a recurrent layer with a read-out of its own (see `recurrent.RecurrentConfig`,
    which has the keys from `delta` to `adaptive_reset`). `loss` is that of the read-out's mean over steps, or
    the sum of those of all `steps` but the first `unscored`; labels of every step are always scored by step.
    `schedule` of the learning rate: one cycle, or `linear` to 0. `clip_norm` 0 clips nothing.
    """

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
    channels: tuple[int, ...] = ()
    kernel: int = 3
    stride: int = 2
    pool: int = 1
    hidden: tuple[int, ...] = (128,)
    neuron: str = "lif"
    recurrent: bool = False
    bias: bool = True
    alpha: float = 0.5
    beta: float = 0.9
    readout_decay: float = 0.9
    learn_decay: bool = False
    threshold: float = 1.0
    reset: str = "value"
    surrogate: str = "arctan"
    detach_reset: bool = True
    delta: float = 0.01
    omega: tuple[float, ...] = (15.0, 50.0)
    offset: tuple[float, ...] = (0.1, 1.0)
    refractory: bool = True
    smooth_reset: bool = True
    boundary: bool = True
    tau_membrane: tuple[float, ...] = (20.0, 5.0)
    tau_adaptation: tuple[float, ...] = (200.0, 50.0)
    tau_readout: tuple[float, ...] = (20.0, 5.0)
    adaptive_reset: str = "theta"
    loss: str = "mean"
    unscored: int = 0
    schedule: str = "one-cycle"
    epochs: int = 20
    batch_size: int = 64
    learning_rate: float = 0.003
    weight_decay: float = 0.0001
    clip_norm: float = 1.0
    logit_scale: float = 5.0
    rate_target: float = 0.1
    rate_weight: float = 0.0
    weight_bits: int = 0
    tables: str = "one"
    init: str = ""
    flip: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        """Raise SnnCompileError for a value out of its range."""
        for key in ("epochs", "batch_size", "steps", "repeat", "kernel", "stride", "pool", "shrink"):
            self._require(key, getattr(self, key) >= 1, "at least 1")
        for key in (
            "settle",
            "copies",
            "seed",
            "weight_decay",
            "rate_weight",
            "rate_target",
            "clip_norm",
            "unscored",
        ):
            self._require(key, getattr(self, key) >= 0, "at least 0")
        for key in ("learning_rate", "logit_scale", "threshold", "delta"):
            value = getattr(self, key)
            self._require(key, math.isfinite(value) and value > 0, "a positive number")
        for key in ("alpha", "beta", "readout_decay"):
            self._require(key, 0 < getattr(self, key) < 1, "between 0 and 1")
        for key in ("channels", "hidden"):
            self._require(key, all(size >= 1 for size in getattr(self, key)), "sizes of at least 1")
        self._require("weight_bits", self.weight_bits in (0, *range(2, 9)), "0, or from 2 to 8")
        for key in ("omega", "offset", "tau_membrane", "tau_adaptation", "tau_readout"):
            pair = getattr(self, key)
            self._require(key, len(pair) == 2 and all(map(math.isfinite, pair)), "two numbers")
        if self.neuron in RECURRENT:
            self._require("hidden", len(self.hidden) == 1, f"one size, for {self.neuron}")
            self._require("channels", not self.channels, f"empty, for {self.neuron}")
            self._require("weight_bits", not self.weight_bits, f"0, for {self.neuron}")
        for key, allowed in _CHOICES.items():
            self._require(key, getattr(self, key) in allowed, f"one of {', '.join(allowed)}")

    def _require(self, key: str, holds: bool, what: str) -> None:
        if not holds:
            raise SnnCompileError(f"training: {key} is {getattr(self, key)!r}; it must be {what}", key=key)

    def data_options(self) -> dict[str, Any]:
        """Return the options with which `runtime.data.load_data` loads the data set."""
        if self.data.endswith(".npz"):
            return {"partition": True}
        known = {f.name for f in fields(self)} - {"seed"}  # the seed is that of the training
        return {key: getattr(self, key) for key in option_names(self.data) if key in known}

    def plain(self) -> dict[str, Any]:
        """Return the configuration as plain values."""
        return asdict(self)


RECURRENT = ("rf", "brf", "rf_iz", "alif", "lstm")

_CHOICES = {
    "neuron": ("lif", "cuba_lif", *RECURRENT),
    "reset": ("value", "subtract"),
    "tables": ("one", "sign"),
    "adaptive_reset": ("theta", "2theta"),
    "loss": ("mean", "steps"),
    "schedule": ("one-cycle", "linear"),
    "surrogate": ("arctan", "multi-gaussian", "double-gaussian", "linear", "exponential"),
}

_SEQUENCE: dict[str, Any] = {
    "recurrent": True,
    "surrogate": "double-gaussian",
    "weight_decay": 0.0,
    "logit_scale": 1.0,
    "loss": "steps",
    "schedule": "linear",
}
_SMNIST14: dict[str, Any] = {
    "data": "mnist-10k",
    "layout": "pixels",
    "shrink": 2,
    "hidden": (128,),
    "epochs": 30,
    "batch_size": 256,
    **_SEQUENCE,
}
_BY_PIXEL = "MNIST's 10,000-digit subset at 14x14, one pixel a step"

PRESETS: dict[str, tuple[str, TrainConfig]] = {
    "digits": (
        "feed-forward LIF net on scikit-learn's 8x8 digits, each pixel a direct current",
        TrainConfig(preset="digits", copies=9, epochs=20, batch_size=128, learning_rate=0.006, weight_bits=8),
    ),
    "digits-recurrent": (
        "recurrent LIF net on the same digits, shown one 8-pixel row a step",
        TrainConfig(
            preset="digits-recurrent",
            layout="rows",
            settle=4,
            copies=9,
            hidden=(200,),
            recurrent=True,
            beta=0.7,
            readout_decay=0.5,
            learn_decay=True,
            epochs=20,
            batch_size=128,
            learning_rate=0.01,
            weight_bits=8,
        ),
    ),
    "fashion-conv": (
        "convolutional LIF net on Fashion-MNIST (28x28), each pixel a direct current",
        TrainConfig(
            preset="fashion-conv",
            data="fashion-mnist",
            layout="image",
            steps=4,
            channels=(16, 32),
            hidden=(128,),
            beta=0.5,
            readout_decay=0.5,
            epochs=20,
            batch_size=128,
            learning_rate=0.005,
            flip=True,
        ),
    ),
    "digits-brf": (
        "balanced resonate-and-fire net on the 8x8 digits, one pixel a step",
        TrainConfig(
            preset="digits-brf",
            neuron="brf",
            layout="pixels",
            hidden=(64,),
            delta=0.05,
            omega=(2.0, 16.0),
            epochs=20,
            learning_rate=0.05,
            **_SEQUENCE,
        ),
    ),
    "qt-ecg-brf": (
        "balanced resonate-and-fire net of 36 units on QT-ECG, a class at every step (Higuchi et al. 2024)",
        TrainConfig(
            preset="qt-ecg-brf",
            data="qt-ecg",
            neuron="brf",
            hidden=(36,),
            omega=(3.0, 5.0),
            tau_readout=(20.0, 1.0),
            epochs=60,
            batch_size=16,
            learning_rate=0.1,
            clip_norm=0.0,
            **_SEQUENCE,
        ),
    ),
    "smnist14-brf": (
        f"balanced resonate-and-fire net on {_BY_PIXEL}",
        TrainConfig(preset="smnist14-brf", neuron="brf", learning_rate=0.1, **_SMNIST14),
    ),
    "smnist14-rf": (
        f"plain resonate-and-fire net on {_BY_PIXEL}",
        TrainConfig(preset="smnist14-rf", neuron="rf", learning_rate=0.1, **_SMNIST14),
    ),
    "smnist14-alif": (
        f"adaptive LIF net on {_BY_PIXEL}",
        TrainConfig(preset="smnist14-alif", neuron="alif", learning_rate=0.01, **_SMNIST14),
    ),
    "smnist14-lstm": (
        f"LSTM, to compare with, on {_BY_PIXEL}",
        TrainConfig(preset="smnist14-lstm", neuron="lstm", learning_rate=0.01, **_SMNIST14),
    ),
}
"""The presets by name: a line that describes it, and the configuration."""


def read_config(name_or_path: str, overrides: Sequence[str] = ()) -> TrainConfig:
    """Return a preset, or the configuration in a TOML file, with `key=value` overrides applied.

    Raises SnnCompileError for an unknown preset or key, an unreadable file, and values of a wrong
    type.
    """
    if name_or_path in PRESETS:
        config = PRESETS[name_or_path][1]
    elif name_or_path.endswith(".toml"):
        config = _read_toml(Path(name_or_path))
    else:
        raise SnnCompileError(
            f"no preset {name_or_path!r} (known: {', '.join(PRESETS)}) and not a .toml file"
        )
    values: dict[str, Any] = {}
    for override in overrides:
        key, sign, text = override.partition("=")
        if not sign:
            raise SnnCompileError(f"--set {override}: write it as key=value")
        _check_key(key, "--set")
        values[key] = _parsed(key, text)
    return replace(config, **values)


def _read_toml(path: Path) -> TrainConfig:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise SnnCompileError(f"{path}: no such file", path=str(path)) from error
    except (OSError, ValueError) as error:
        raise SnnCompileError(f"{path}: cannot be read as TOML ({error})", path=str(path)) from error
    return config_from(table, str(path))


def config_from(table: Mapping[str, Any], where: str) -> TrainConfig:
    """Return the configuration of plain values; `where` names their source in errors."""
    base = TrainConfig()
    name = table.get("preset")
    if name is not None and name != base.preset:
        if name not in PRESETS:
            raise SnnCompileError(f"{where}: no preset {name!r}; known are {', '.join(PRESETS)}")
        base = PRESETS[name][1]
    values = {}
    for key, value in table.items():
        _check_key(key, where)
        values[key] = _typed(key, value, where)
    return replace(base, **values)


def _check_key(key: str, where: str) -> None:
    known = [f.name for f in fields(TrainConfig)]
    if key not in known:
        raise SnnCompileError(f"{where}: no key {key!r}; known are {', '.join(known)}", key=key)


def _typed(key: str, value: object, where: str) -> Any:
    kind = get_type_hints(TrainConfig)[key]
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


def _parsed(key: str, text: str) -> Any:
    kind = get_type_hints(TrainConfig)[key]
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
