"""The configuration of reconstruction: hidden neurons and read-out from a convex program."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from snn_compile.train.configs.config import RunConfig
from snn_compile.train.configs.registry import register


@dataclass(frozen=True)
class ReconstructionConfig(RunConfig):
    """Everything a reconstruction depends on.

    Hidden neurons keep `decay` of their membrane a step, the read-out `readout_decay`. `epochs` counts
    rounds: the read-out of all candidates is solved for, those it needs are kept, and the best of `climbs`
    searches for what the residual lacks join them. The first round begins with `witnesses` random neurons
    and, if `start_epochs` is not 0 (hybrid), with the `hidden` neurons of a network that so many epochs of
    surrogate gradients have trained; after each round but the last, `tune_epochs` of them train the network
    further and its neurons join too. `penalty` is the weight of the group Lasso's penalty for each sample,
    `tolerance` the duality gap to reach as a share of the objective. `hidden` of several sizes makes a deep
    network: its lower layers stay as surrogate gradients have trained them.
    """

    algorithm: ClassVar[str] = "reconstruction"

    steps: int = 8
    epochs: int = 8
    hidden: tuple[int, ...] = (128,)
    decay: float = 0.8
    reset: str = "value"
    readout_decay: float = 0.9
    penalty: float = 1e-3
    tolerance: float = 1e-6
    witnesses: int = 256
    climbs: int = 64
    start_epochs: int = 0
    tune_epochs: int = 0
    batch_size: int = 128
    learning_rate: float = 0.003

    choices: ClassVar[Mapping[str, tuple[str, ...]]] = {"reset": ("value", "subtract")}

    def __post_init__(self) -> None:
        """Raise SnnCompileError for a value out of its range."""
        super().__post_init__()
        self.at_least(1, "batch_size")
        self.at_least(0, "witnesses", "climbs", "start_epochs", "tune_epochs")
        self.positive("penalty", "tolerance", "learning_rate")
        for key in ("decay", "readout_decay"):
            self.require(key, 0 < getattr(self, key) < 1, "between 0 and 1")
        sizes = bool(self.hidden) and min(self.hidden) >= 1
        self.require("hidden", sizes, "sizes of at least 1")
        self.require(
            "witnesses", bool(self.witnesses or self.start_epochs), "at least 1 without start_epochs"
        )
        hybrid = "at least 1 with several hidden layers, or with tune_epochs"
        alone = len(self.hidden) == 1 and not self.tune_epochs
        self.require("start_epochs", bool(alone or self.start_epochs), hybrid)


_PRESETS = {
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
}

register(ReconstructionConfig, _PRESETS)
