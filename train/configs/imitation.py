"""The configuration of imitation: a controller of an environment from a teacher's actions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from snn_compile.train.configs.config import RunConfig
from snn_compile.train.configs.registry import register


@dataclass(frozen=True)
class ImitationConfig(RunConfig):
    """Everything a controller made by imitation depends on.

    An observation is shown for `steps` steps; hidden neurons keep `decay` of their membrane a step, the
    read-out `readout_decay`. `epochs` counts rounds: reconstruct from the states seen so far, act in
    `episodes` episodes, ask the teacher about the states met there. `penalty` is the weight of the group
    Lasso's penalty for each state; `witnesses` random neurons and `climbs` searches for better ones join a
    dictionary `generations` times a round. No more than `states` states are kept, the latest and a sample of
    the others.
    """

    algorithm: ClassVar[str] = "imitation"

    data: str = "cartpole"
    steps: int = 8
    epochs: int = 5
    decay: float = 0.8
    reset: str = "value"
    readout_decay: float = 0.8
    penalty: float = 0.003
    witnesses: int = 256
    climbs: int = 64
    generations: int = 3
    episodes: int = 20
    states: int = 6000

    choices: ClassVar[dict[str, tuple[str, ...]]] = {"data": ("cartpole",), "reset": ("value", "subtract")}

    def __post_init__(self) -> None:
        """Raise SnnCompileError for a value out of its range."""
        super().__post_init__()
        self.at_least(1, "witnesses", "generations", "episodes", "states")
        self.at_least(0, "climbs")
        self.positive("penalty")
        for key in ("decay", "readout_decay"):
            self.require(key, 0 < getattr(self, key) < 1, "between 0 and 1")


_PRESETS = {
    "cartpole-reconstruct": (
        "LIF controller of CartPole, reconstructed from a teacher's actions where it goes itself",
        ImitationConfig(preset="cartpole-reconstruct"),
    )
}

register(ImitationConfig, _PRESETS)
