"""The presets, and how a configuration is read: by name, from a TOML file, with typed overrides.

read_config("digits", ["epochs=3", "hidden=64,64"])
read_config("mine.toml")      keys of the configuration; `preset = "digits"` starts from a preset, otherwise
                              `algorithm = "..."` says of which algorithm it is (bptt if it does not)
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from snn_compile.targets.errors import SnnCompileError
from snn_compile.train.configs.bptt import TrainConfig
from snn_compile.train.configs.config import RunConfig, check_key, parsed, typed
from snn_compile.train.configs.equilibrium import EquilibriumConfig
from snn_compile.train.configs.fptt import FpttConfig
from snn_compile.train.configs.imitation import ImitationConfig
from snn_compile.train.configs.reconstruction import ReconstructionConfig

CONFIGS: dict[str, type[RunConfig]] = {
    kind.algorithm: kind
    for kind in (TrainConfig, EquilibriumConfig, ImitationConfig, ReconstructionConfig, FpttConfig)
}
"""The configuration of each algorithm."""

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
    "batch_size": 32,
    **_SEQUENCE,
}
_SMNIST28: dict[str, Any] = {**_SMNIST14, "shrink": 1, "learning_rate": 0.1}
_RESONATORS14: dict[str, Any] = {"delta": 0.04, "omega": (3.75, 12.5), "learning_rate": 0.1, **_SMNIST14}
"""A step of 14x14 is four of 28x28: four times the published delta, and an omega that turns as far a step."""

_AT_EQUILIBRIUM: dict[str, Any] = {"learning_rate": 0.1, "weight_decay": 1e-4, "rate_falls": (0.5, 0.8)}
_BY_PIXEL = "MNIST's 10,000-digit subset at 14x14, one pixel a step"
_BY_PIXEL28 = "MNIST's 10,000-digit subset at 28x28, one pixel a step"

PRESETS: dict[str, tuple[str, RunConfig]] = {
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
            batch_size=8,
            learning_rate=0.1,
            clip_norm=0.0,
            **_SEQUENCE,
        ),
    ),
    "shd-brf": (
        "balanced resonate-and-fire net on spoken digits, 250 steps of 4 ms (Higuchi et al. 2024)",
        TrainConfig(
            preset="shd-brf",
            data="shd",
            steps=250,
            dt=0.004,
            neuron="brf",
            hidden=(128,),
            omega=(5.0, 10.0),
            offset=(2.0, 3.0),
            epochs=20,
            batch_size=32,
            learning_rate=0.075,
            clip_norm=0.0,
            **_SEQUENCE,
        ),
    ),
    "smnist14-brf": (
        f"balanced resonate-and-fire net on {_BY_PIXEL}",
        TrainConfig(preset="smnist14-brf", neuron="brf", **_RESONATORS14),
    ),
    "smnist28-brf": (
        f"balanced resonate-and-fire net on {_BY_PIXEL28}",
        TrainConfig(preset="smnist28-brf", neuron="brf", **_SMNIST28),
    ),
    "smnist28-rf": (
        f"plain resonate-and-fire net on {_BY_PIXEL28}",
        TrainConfig(preset="smnist28-rf", neuron="rf", **_SMNIST28),
    ),
    "smnist14-rf": (
        f"plain resonate-and-fire net on {_BY_PIXEL}",
        TrainConfig(preset="smnist14-rf", neuron="rf", **_RESONATORS14),
    ),
    "smnist14-alif": (
        f"adaptive LIF net on {_BY_PIXEL}",
        TrainConfig(preset="smnist14-alif", neuron="alif", learning_rate=0.01, **_SMNIST14),
    ),
    "smnist14-lstm": (
        f"LSTM, to compare with, on {_BY_PIXEL}",
        TrainConfig(preset="smnist14-lstm", neuron="lstm", learning_rate=0.01, **_SMNIST14),
    ),
    "digits-reconstruct": (
        "LIF net on the 8x8 digits, hidden neurons and read-out from a convex program",
        ReconstructionConfig(preset="digits-reconstruct", copies=9, penalty=2e-4),
    ),
    "fashion-reconstruct": (
        "LIF net on Fashion-MNIST, trained with surrogate gradients and reconstructed from its 512 neurons",
        ReconstructionConfig(
            preset="fashion-reconstruct",
            data="fashion-mnist",
            steps=4,
            epochs=3,
            hidden=(512,),
            decay=0.5,
            readout_decay=0.5,
            penalty=2e-4,
            witnesses=0,
            climbs=32,
            start_epochs=8,
            tune_epochs=1,
        ),
    ),
    "cartpole-reconstruct": (
        "LIF controller of CartPole, reconstructed from a teacher's actions where it goes itself",
        ImitationConfig(preset="cartpole-reconstruct"),
    ),
    "fashion-fsnn": (
        "feedback LIF net of 400 neurons on Fashion-MNIST, trained at its equilibrium (Xiao et al. 2021)",
        EquilibriumConfig(
            preset="fashion-fsnn",
            data="fashion-mnist",
            layout="flat",
            hidden=(400,),
            epochs=30,
            **_AT_EQUILIBRIUM,
        ),
    ),
    "fashion-conv-fsnn": (
        "convolutional feedback LIF net of three layers on Fashion-MNIST, trained at its equilibrium",
        EquilibriumConfig(
            preset="fashion-conv-fsnn",
            data="fashion-mnist",
            layout="image",
            steps=8,
            channels=(16, 32),
            kernels=(5, 3),
            strides=(2, 2),
            hidden=(256,),
            flip=True,
            epochs=20,
            **_AT_EQUILIBRIUM,
        ),
    ),
    "add-task-fptt": (
        "liquid spiking net on the Add task of `steps` steps, forward propagation through time; an epoch is "
        "100 batches of new sequences",
        FpttConfig(
            preset="add-task-fptt",
            data="add",
            steps=100,
            epochs=4,
            fresh=True,
            block_weight="public",
            schedule="linear",
        ),
    ),
    "fashion-lsn-fptt": (
        "convolutional liquid spiking net on Fashion-MNIST (28x28), the image shown at every step, forward "
        "propagation through time",
        FpttConfig(
            preset="fashion-lsn-fptt",
            data="fashion-mnist",
            layout="image",
            steps=8,
            channels=(16, 32),
            hidden=(128,),
            recurrent=False,
            readout="liquid",
            block=1,
            alpha=0.1,
            epochs=8,
            optimizer="adamax",
            schedule="linear",
            batch_size=64,
            flip=True,
        ),
    ),
}
"""The presets by name: a line that describes it, and the configuration."""


def read_config(name_or_path: str, overrides: Sequence[str] = ()) -> RunConfig:
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
        check_key(type(config), key, "--set")
        values[key] = parsed(type(config), key, text)
    return replace(config, **values)


def _read_toml(path: Path) -> RunConfig:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise SnnCompileError(f"{path}: no such file", path=str(path)) from error
    except (OSError, ValueError) as error:
        raise SnnCompileError(f"{path}: cannot be read as TOML ({error})", path=str(path)) from error
    return config_from(table, str(path))


def config_from(table: Mapping[str, Any], where: str) -> RunConfig:
    """Return the configuration of plain values; `where` names their source in errors."""
    algorithm = table.get("algorithm", TrainConfig.algorithm)
    if algorithm not in CONFIGS:
        raise SnnCompileError(f"{where}: no algorithm {algorithm!r}; known are {', '.join(CONFIGS)}")
    base = CONFIGS[algorithm]()
    name = table.get("preset")
    if name is not None and name != base.preset:
        if name not in PRESETS:
            raise SnnCompileError(f"{where}: no preset {name!r}; known are {', '.join(PRESETS)}")
        base = PRESETS[name][1]
        if algorithm not in (base.algorithm, TrainConfig.algorithm):
            raise SnnCompileError(f"{where}: preset {name} is trained by {base.algorithm}, not {algorithm}")
    values = {}
    for key, value in table.items():
        if key != "algorithm":
            check_key(type(base), key, where)
            values[key] = typed(type(base), key, value, where)
    return replace(base, **values)
