"""The configuration of backpropagation through time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from snn_compile.train.configs.config import GradientConfig
from snn_compile.train.configs.recurrent import RANGES, Recurrence, range_fault

RECURRENT = ("rf", "brf", "rf_iz", "alif", "lstm")


@dataclass(frozen=True)
class TrainConfig(Recurrence, GradientConfig):
    """Everything a training by backpropagation through time depends on.

    `channels` lists the convolutions (of width `kernel`, padded by half of it, with `stride`, the later ones
    behind averages over `pool`), `hidden` the sizes of the dense layers behind them; decays are per step;
    `rate_target` is in spikes per neuron and step and acts with `rate_weight`; `logit_scale` multiplies the
    mean read-out membrane in the loss only; `weight_bits` above 0 trains in a chip's integers with tables
    of that many bits, one a projection or one a sign as `tables` says (see `integers`); input that is no
    spikes becomes messages of `input_bits`, fewer of which keep the current of many inputs from wrapping.
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
