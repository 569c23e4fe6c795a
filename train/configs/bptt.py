"""The configuration of backpropagation through time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from snn_compile.train.configs.config import GradientConfig
from snn_compile.train.configs.recurrent import RANGES, RECURRENT, Recurrence, range_fault
from snn_compile.train.configs.registry import register


@dataclass(frozen=True)
class TrainConfig(Recurrence, GradientConfig):
    """Everything a training by backpropagation through time depends on.

    `channels` lists the convolutions (of width `kernel`, padded by half of it, with `stride`, the later ones
    behind averages over `pool`), `hidden` the sizes of the dense layers behind them; decays are per step;
    `rate_target` is in spikes per neuron and step and acts with `rate_weight`; `logit_scale` multiplies the
    mean read-out membrane in the loss only; `weight_bits` above 0 trains in a chip's integers with tables
    of that many bits, one per projection or one per sign (`tables`). Non-spike input is encoded as
    `input_bits`-bit graded messages; use fewer bits if the current wraps.
    `init` is a checkpoint of the same layers to start from, for example one trained in floats. `flip` mirrors
    half of the training images, left to right.

    Neurons rf to lstm make a recurrent layer with a read-out of its own (see `Recurrence`). `loss` is that of
    the read-out's mean over steps, or the sum of those of all `steps` but the first `unscored`; labels of
    every step are always scored by step. `schedule` of the learning rate: one cycle, or `linear` to 0.
    `clip_norm` 0 clips nothing.
    """

    algorithm: ClassVar[str] = "bptt"
    choices: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "neuron": ("lif", "cuba_lif", *RECURRENT),
        "reset": ("value", "subtract"),
        "tables": ("one", "sign"),
        "adaptive_reset": ("theta", "2theta"),
        "loss": ("mean", "steps"),
        "schedule": ("one-cycle", "linear"),
        "surrogate": ("arctan", "multi-gaussian", "double-gaussian", "linear", "exponential"),
    }

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
    loss: str = "mean"
    unscored: int = 0
    schedule: str = "one-cycle"
    batch_size: int = 64
    learning_rate: float = 0.003
    weight_decay: float = 0.0001
    clip_norm: float = 1.0
    logit_scale: float = 5.0
    rate_target: float = 0.1
    rate_weight: float = 0.0
    weight_bits: int = 0
    input_bits: int = 8
    tables: str = "one"
    init: str = ""
    flip: bool = False

    def __post_init__(self) -> None:
        """Raise SnnCompileError for a value out of its range."""
        super().__post_init__()
        self.at_least(1, "batch_size", "kernel", "stride", "pool")
        self.at_least(0, "weight_decay", "rate_weight", "rate_target", "clip_norm", "unscored")
        self.positive("learning_rate", "logit_scale", "threshold", "delta")
        for key in ("alpha", "beta", "readout_decay"):
            self.require(key, 0 < getattr(self, key) < 1, "between 0 and 1")
        for key in ("channels", "hidden"):
            self.require(key, all(size >= 1 for size in getattr(self, key)), "sizes of at least 1")
        self.require("weight_bits", self.weight_bits in (0, *range(2, 9)), "0, or from 2 to 8")
        self.require("input_bits", 2 <= self.input_bits <= 8, "from 2 to 8")
        for key in RANGES:
            fault = range_fault(key, getattr(self, key))
            self.require(key, not fault, fault)
        if self.neuron in RECURRENT:
            self.require("hidden", len(self.hidden) == 1, f"one size, for {self.neuron}")
            self.require("channels", not self.channels, f"empty, for {self.neuron}")
            self.require("weight_bits", not self.weight_bits, f"0, for {self.neuron}")


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
"""A step of 14x14 is four of 28x28: four times the published delta, omega with the same angle per step."""
_BY_PIXEL = "MNIST's 10,000-digit subset at 14x14, one pixel a step"
_BY_PIXEL28 = "MNIST's 10,000-digit subset at 28x28, one pixel a step"
_PRESETS = {
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
}

register(TrainConfig, _PRESETS)
