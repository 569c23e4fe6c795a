"""The configuration of training by implicit differentiation at the equilibrium."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from snn_compile.train.configs.config import GradientConfig
from snn_compile.train.configs.registry import register


@dataclass(frozen=True)
class EquilibriumConfig(GradientConfig):
    """Everything a training at the equilibrium depends on: a FeedbackNetwork, the solver, SGD.

    `channels` lists the convolutions, with the `kernels` and `strides` of each (one number holds for all),
    `hidden` the sizes of the dense layers behind them. `decay` 1 makes IF neurons. `steps` are those of the
    simulation. SGD with `momentum`; the rate is multiplied by `rate_factor` after each share of the training
    that `rate_falls` names, and rises over the first `warmup` batches. `flip` mirrors half of the training
    images.
    """

    algorithm: ClassVar[str] = "equilibrium"
    choices: ClassVar[Mapping[str, tuple[str, ...]]] = {"solver": ("fixed-point", "damped", "broyden")}

    steps: int = 5
    channels: tuple[int, ...] = ()
    kernels: tuple[int, ...] = (3,)
    strides: tuple[int, ...] = (2,)
    hidden: tuple[int, ...] = (400,)
    feedback_kernel: int = 3
    decay: float = 0.95
    threshold: float = 2.0
    scale_limit: float = 1.0
    batch_norm: bool = True
    dropout: float = 0.2
    solver: str = "broyden"
    tolerance: float = 1e-3
    iterations: int = 30
    batch_size: int = 128
    learning_rate: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 5e-4
    rate_falls: tuple[float, ...] = (0.3, 0.6, 0.9)
    rate_factor: float = 0.1
    warmup: int = 0
    flip: bool = False

    def __post_init__(self) -> None:
        """Raise SnnCompileError for a value out of its range."""
        super().__post_init__()
        self.at_least(1, "iterations", "feedback_kernel")
        self.at_least(2, "batch_size")
        self.at_least(0, "momentum", "weight_decay", "warmup", "dropout", "scale_limit")
        self.positive("learning_rate", "threshold", "tolerance", "rate_factor", "decay")
        for key in ("channels", "hidden", "kernels", "strides"):
            self.require(key, all(size >= 1 for size in getattr(self, key)), "sizes of at least 1")
        for key in ("kernels", "strides"):
            many = len(self.channels)
            self.require(key, len(getattr(self, key)) in (1, many), f"one size, or {many}, as channels")
        self.require("decay", self.decay <= 1, "above 0 and at most 1")
        for key in ("momentum", "dropout"):
            self.require(key, getattr(self, key) < 1, "below 1")
        self.require("rate_falls", all(0 < share < 1 for share in self.rate_falls), "shares between 0 and 1")
        self.require("hidden", bool(self.hidden or self.channels), "at least one size, without channels")


_AT_EQUILIBRIUM: dict[str, Any] = {"learning_rate": 0.1, "weight_decay": 1e-4, "rate_falls": (0.5, 0.8)}
_PRESETS = {
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
}

register(EquilibriumConfig, _PRESETS)
