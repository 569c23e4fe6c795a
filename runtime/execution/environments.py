"""Gymnasium environments with discrete actions: observations as currents, and episodes.

An observation is divided by its `scale`, clipped to -1..1 and shown as a direct current for `steps` steps;
the action is the class that the program predicts. A program compiled for the data of an environment carries
its scales and steps; for others they must be given.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite, prod
from typing import Any

import numpy as np
import numpy.typing as npt

from snn_compile.runtime.execution.session import Session
from snn_compile.targets.errors import WrongInput
from snn_compile.targets.program.program import Program

DATA_SETS = {"cartpole": "CartPole-v1"}
"""Registered data sets whose samples are observations of an environment."""

Decide = Callable[[npt.NDArray[np.float64]], npt.NDArray[np.generic]]
"""From currents (batch, steps, n) to classes (batch,)."""

Observer = Callable[[int, int], None]
"""Called with (episodes done, total episodes) after each."""


@dataclass(frozen=True)
class Environment:
    """A gymnasium environment, and the encoding of its observations.

    `scale`: observation value that maps to a current of 1; one number, or one per dimension. `steps`: logical
    steps per observation. Raises WrongInput for values that are not positive.
    """

    name: str
    scale: tuple[float, ...]
    steps: int

    def __post_init__(self) -> None:
        """Check the values."""
        if not self.scale or not all(isfinite(each) and each > 0 for each in self.scale):
            raise WrongInput(f"environment {self.name}: scales {self.scale}; they must be positive numbers")
        if self.steps < 1:
            raise WrongInput(f"environment {self.name}: {self.steps} steps per decision; give at least 1")

    def make(self) -> Any:
        """Return the environment, ready for `reset`.

        Raises WrongInput where gymnasium is missing, the name is unknown, actions are not discrete,
        observations are not one array of numbers, or scales do not fit them.
        """
        try:
            import gymnasium
        except ModuleNotFoundError as error:
            raise WrongInput(
                f"environment {self.name}: needs gymnasium, which is not installed; "
                "pip install 'snn-compile[train]', or pip install gymnasium"
            ) from error
        try:
            made: Any = gymnasium.make(self.name)
        except (gymnasium.error.Error, ModuleNotFoundError) as error:
            reason = " ".join(str(error).split())
            raise WrongInput(f"environment {self.name}: gymnasium cannot make it ({reason})") from error
        if not isinstance(made.action_space, gymnasium.spaces.Discrete):
            raise WrongInput(f"environment {self.name}: its actions are {made.action_space}, not discrete")
        if not isinstance(made.observation_space, gymnasium.spaces.Box):
            raise WrongInput(
                f"environment {self.name}: its observations are {made.observation_space}, not one array"
            )
        size = prod(made.observation_space.shape)
        if len(self.scale) not in (1, size):
            raise WrongInput(
                f"environment {self.name}: {len(self.scale)} scales for {size} observation values; give "
                "one, or one per value"
            )
        return made

    def currents(self, observations: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Return observations (batch, n) as currents (batch, steps, n) in -1..1."""
        flat = np.asarray(observations, np.float64)
        shown = np.clip(flat / np.asarray(self.scale), -1.0, 1.0)
        return np.broadcast_to(shown[:, None], (len(shown), self.steps, shown.shape[1]))


@dataclass(frozen=True)
class Episodes:
    """Returns of consecutive episodes, and the number of decisions they took."""

    returns: tuple[float, ...]
    decisions: int

    @property
    def mean(self) -> float:
        """The mean return."""
        return float(np.mean(self.returns))

    @property
    def deviation(self) -> float:
        """The sample standard deviation of the returns; 0 for a single episode."""
        return float(np.std(self.returns, ddof=1)) if len(self.returns) > 1 else 0.0

    @property
    def minimum(self) -> float:
        """The least return."""
        return min(self.returns)


def environment_of(
    program: Program, name: str | None = None, scale: Sequence[float] | None = None, steps: int | None = None
) -> Environment:
    """Return the environment given, or else the one that the program was compiled for.

    Raises WrongInput, naming what is missing, where neither is known.
    """
    known = _compiled_for(program)
    if name is not None and known.get("name") != name:
        known = {"name": name}
    name = name or known.get("name")
    scale = scale or known.get("scale")
    steps = steps or known.get("steps")
    missing = [
        option
        for option, value in (("--environment NAME", name), ("--scale S,...", scale), ("--steps N", steps))
        if value is None
    ]
    if name is None or scale is None or steps is None:
        raise WrongInput(
            f"the program was not compiled for the data of {name or 'an environment'}: add "
            f"{' and '.join(missing)}",
            missing=missing,
        )
    return Environment(name, tuple(float(each) for each in scale), int(steps))


def _compiled_for(program: Program) -> dict[str, Any]:
    try:
        spec = json.loads(program.provenance.get("data") or "{}")
        name = DATA_SETS.get(spec.get("name", ""))
        return {} if name is None else {"name": name, **spec["options"]}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def run_episodes(
    session: Session,
    environment: Environment,
    episodes: int = 30,
    seed: int = 0,
    observe: Observer | None = None,
) -> Episodes:
    """Let a program act in an environment; episode i starts from seed + i, the session from its reset.

    Raises WrongInput where the program does not fit: it must have one input of the size of an
    observation, and one class per action.
    """
    made = environment.make()
    shape = _check_fit(session.program, environment, made)
    first = int(made.action_space.start)
    returns, decisions = [], 0
    for episode in range(episodes):
        observation, _ = made.reset(seed=seed + episode)
        session.reset()
        total, over = 0.0, False
        while not over:
            currents = environment.currents(np.reshape(observation, (1, -1)))[0]
            answer = session.step(currents.reshape(environment.steps, *shape))
            action = first + int(np.ravel(answer.prediction)[-1])
            observation, reward, terminated, truncated, _ = made.step(action)
            total += float(reward)
            decisions += 1
            over = terminated or truncated
        returns.append(total)
        if observe:
            observe(episode + 1, episodes)
    session.reset()
    made.close()
    return Episodes(tuple(returns), decisions)


def run_side_by_side(
    decide: Decide, environment: Environment, seeds: Sequence[int]
) -> tuple[Episodes, npt.NDArray[np.float64]]:
    """Let a policy act in one episode per seed, all of them in parallel.

    Return the episodes and the observation at every decision, (decisions, n), in the order of time.
    """
    made = [environment.make() for _ in seeds]
    first = int(made[0].action_space.start)
    latest = [each.reset(seed=int(seed))[0] for each, seed in zip(made, seeds, strict=True)]
    returns, going = np.zeros(len(made)), list(range(len(made)))
    seen = []
    while going:
        observed = np.array([np.ravel(latest[index]) for index in going], np.float64)
        seen.append(observed)
        still = []
        for index, action in zip(going, decide(environment.currents(observed)), strict=True):
            latest[index], reward, terminated, truncated, _ = made[index].step(first + int(action))
            returns[index] += float(reward)
            if not (terminated or truncated):
                still.append(index)
        going = still
    for each in made:
        each.close()
    states = np.concatenate(seen)
    return Episodes(tuple(map(float, returns)), len(states)), states


def _check_fit(program: Program, environment: Environment, made: Any) -> tuple[int, ...]:
    """Return the shape of the program's input if the program can act in the environment."""
    port, output = program.inputs[0], program.outputs[0]
    if len(program.inputs) > 1 or port.size != prod(made.observation_space.shape):
        sizes = ", ".join(f"{each.name} of {each.size}" for each in program.inputs)
        raise WrongInput(
            f"environment {environment.name} has observations of {prod(made.observation_space.shape)} "
            f"values; the program takes {sizes}"
        )
    classes, actions = program.population(output.population).size, int(made.action_space.n)
    if output.task != "classify" or classes != actions:
        raise WrongInput(
            f"environment {environment.name} has {actions} actions; the program's output {output.name} has "
            f"{classes} values to {output.task}"
        )
    return port.shape
