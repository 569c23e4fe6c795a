"""The configuration of imitation in an environment by reconstruction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from snn_compile.train.config import RunConfig


@dataclass(frozen=True)
class ImitationConfig(RunConfig):
    """Everything that imitating a teacher depends on; `epochs` counts reconstruction rounds.

    `hidden` neurons at most, without reset, leak `beta` a step, and a leaky read-out of `readout_decay`.
    `witnesses` neurons are drawn at random in each round, and join those that the rounds before kept;
    `regularization` is the weight of the group norms for each sample. A round lets the network act in
    `episodes` episodes, whose states, at most `samples` in all, join the data with the teacher's actions.
    """

    algorithm: ClassVar[str] = "imitation"

    data: str = "cartpole"
    steps: int = 8
    epochs: int = 4
    hidden: int = 64
    beta: float = 0.8
    readout_decay: float = 0.8
    witnesses: int = 400
    regularization: float = 0.001
    samples: int = 4000
    episodes: int = 20

    def __post_init__(self) -> None:
        """Raise SnnCompileError for a value out of its range."""
        super().__post_init__()
        self.at_least(1, "hidden", "witnesses", "samples", "episodes")
        self.positive("regularization")
        for key in ("beta", "readout_decay"):
            self.require(key, 0 < getattr(self, key) < 1, "between 0 and 1")
