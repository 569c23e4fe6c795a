"""The configuration of forward propagation through time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from snn_compile.train.configs.config import GradientConfig
from snn_compile.train.configs.recurrent import range_fault
from snn_compile.train.configs.registry import register

LEAST_ALPHA, LARGEST_ALPHA = 1e-6, 1e6
ALPHA = f"0, or from {LEAST_ALPHA:g} to {LARGEST_ALPHA:g}"
"""The weight of FPTT's penalty: running means move by the stored gradient over it."""


@dataclass(frozen=True)
class FpttConfig(GradientConfig):
    """Everything a training by forward propagation through time depends on.

    Neurons: lsn (with `channels` of convolutions before the dense layers `hidden`), alif and lstm as in
    `online_networks.OnlineConfig`; brf as in `recurrent.RecurrentConfig` and lif as in
    `networks.NetworkConfig`, each with its own leaky read-out.

    The weights are updated after every `block` steps, or `parts` times a sequence if `block` is 0. `alpha` 0
    is truncated backpropagation, with one part backpropagation through time. `form`, `beta` and
    `block_weight` are those of `algorithms/fptt_regularizer.py` and `algorithms/fptt_losses.py`; `auxiliary`
    False leaves out the auxiliary loss of classes. `sequences` is the size of the train split of sets that
    are drawn (add), which `fresh` draws anew for every epoch. `schedule` of the learning rate: constant, or
    linear to 0.
    """

    algorithm: ClassVar[str] = "fptt"
    choices: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "neuron": ("lsn", "alif", "lstm", "brf", "lif"),
        "start": ("zero", "random"),
        "readout": ("membrane", "leaky", "liquid"),
        "form": ("public", "paper"),
        "block_weight": ("linear", "public"),
        "optimizer": ("adam", "adamax", "sgd"),
        "schedule": ("constant", "linear"),
    }

    neuron: str = "lsn"
    channels: tuple[int, ...] = ()
    kernel: int = 3
    stride: int = 2
    gate: int = 3
    hidden: tuple[int, ...] = (128,)
    recurrent: bool = True
    adaptive: bool = True
    start: str = "zero"
    readout: str = "membrane"
    tau_readout: tuple[float, ...] = (20.0, 5.0)
    block: int = 0
    parts: int = 10
    alpha: float = 0.5
    beta: float = 0.5
    form: str = "public"
    block_weight: str = "linear"
    auxiliary: bool = True
    optimizer: str = "adam"
    learning_rate: float = 0.003
    schedule: str = "constant"
    clip_norm: float = 1.0
    batch_size: int = 128
    flip: bool = False
    sequences: int = 12800
    fresh: bool = False

    def __post_init__(self) -> None:
        """Raise SnnCompileError for a value out of its range."""
        super().__post_init__()
        self.at_least(1, "kernel", "stride", "gate", "parts", "batch_size", "sequences")
        self.at_least(0, "block", "alpha", "clip_norm")
        self.positive("learning_rate")
        if self.alpha:
            self.require("alpha", LEAST_ALPHA <= self.alpha <= LARGEST_ALPHA, ALPHA)
        self.require("beta", 0 < self.beta <= 1, "above 0 and at most 1")
        for key in ("channels", "hidden"):
            self.require(key, all(size >= 1 for size in getattr(self, key)), "sizes of at least 1")
        self.require("hidden", len(self.hidden) >= 1, "at least one size")
        fault = range_fault("tau_readout", self.tau_readout)
        self.require("tau_readout", not fault, fault)
        if self.neuron != "lsn":
            self.require("channels", not self.channels, f"empty, for {self.neuron}")
            self.require("readout", self.readout == "membrane", f"membrane, for {self.neuron}")
        if self.neuron not in ("lsn", "lif"):
            self.require("hidden", len(self.hidden) == 1, f"one size, for {self.neuron}")

    def steps_of_block(self, steps: int) -> int:
        """Return how many steps of a sequence make a block."""
        return min(self.block or -(-steps // self.parts), steps)


_PRESETS = {
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

register(FpttConfig, _PRESETS)
