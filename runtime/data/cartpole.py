"""CartPole-v1: a teacher that balances it, and states with the teacher's actions as a data set.

The teacher is linear: force to the right where -K s > 0, with K the gain of the linear-quadratic regulator
of the environment's own Euler step, linearized about the upright pole at rest (gymnasium's equations, after
Florian 2005: the cart without friction). Observations are s = (x, dx/dt, angle, d angle/dt) in metres,
radians and seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from snn_compile.runtime.data.dataset import Dataset

NAME = "CartPole-v1"
SCALE = (2.4, 3.0, 0.21, 3.0)
"""Observation that maps to a current of 1: the track's end in m, 3 m/s, a fall's angle in rad, 3 rad/s."""

EPISODES = {"train": 100, "validation": 20, "test": 40}
LONGEST = 100
"""Steps of an episode of the data set."""

SPREAD = 0.15
"""Episodes of the data set start within this of 0 in every coordinate, three times the default range."""

CALIBRATION = 128
"""Observations of training that the calibration split takes, evenly over all of its episodes."""

STRAYING = 0.25
"""Share of random actions in the data set, which reach states off the teacher's path."""


def linearized(environment: Any) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return A (4, 4) and B (4, 1) of one step s' = A s + B a near s = 0, a of -1 or 1 the full force.

    The physics come from the attributes of gymnasium's CartPole.
    """
    physics = environment.unwrapped
    inertia = physics.length * (4 / 3 - physics.masspole / physics.total_mass)
    coupling = physics.polemass_length / physics.total_mass
    push = physics.force_mag / physics.total_mass
    rates = np.zeros((4, 4))
    rates[0, 1] = rates[2, 3] = 1.0
    rates[3, 2] = physics.gravity / inertia
    rates[1, 2] = -coupling * rates[3, 2]
    forced = np.array([0.0, push * (1 + coupling / inertia), 0.0, -push / inertia])
    return np.eye(4) + physics.tau * rates, physics.tau * forced[:, None]


def teacher_gain(environment: Any) -> npt.NDArray[np.float64]:
    """Return the gain K (4,) for gymnasium's CartPole.

    The cost is the square of the states relative to `SCALE` plus the square of the action relative to
    the full force; K solves the discrete algebraic Riccati equation of `linearized`.
    """
    from scipy.linalg import solve_discrete_are

    step, kick = linearized(environment)
    cost, price = np.diag(np.square(SCALE) ** -1.0), np.eye(1)
    value = solve_discrete_are(step, kick, cost, price)
    gain: npt.NDArray[np.float64] = np.linalg.solve(price + kick.T @ value @ kick, kick.T @ value @ step)[0]
    return gain


def teacher_actions(gain: npt.NDArray[np.float64], states: npt.NDArray[np.floating]) -> npt.NDArray[np.int64]:
    """Return the teacher's actions (n,), 1 to the right and 0 to the left, for states (n, 4)."""
    actions: npt.NDArray[np.int64] = (-(states @ gain) > 0).astype(np.int64)
    return actions


def teacher_states(split: str, seed: int = 0) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Return states (n, 4) of straying episodes of one split, and the teacher's actions (n,) there.

    Raises WrongInput where gymnasium is not installed.
    """
    from snn_compile.runtime.execution.environments import Environment

    made = Environment(NAME, SCALE, 1).make()
    gain = teacher_gain(made)
    rng = np.random.default_rng([seed, list(EPISODES).index(split)])
    states = []
    for _ in range(EPISODES[split]):
        state, _ = made.reset(seed=int(rng.integers(1 << 31)), options={"low": -SPREAD, "high": SPREAD})
        for _ in range(LONGEST):
            states.append(np.asarray(state, np.float64))
            action = int(teacher_actions(gain, states[-1][None])[0])
            if rng.random() < STRAYING:
                action = int(rng.integers(2))
            state, _, fallen, _, _ = made.step(action)
            if fallen:
                break
    made.close()
    seen = np.array(states)
    return seen, teacher_actions(gain, seen)


def cartpole(name: str, split: str, steps: int = 8, scale: Sequence[float] = SCALE, seed: int = 0) -> Dataset:
    """Load observations of CartPole as direct currents for `steps` steps; labels are a teacher's actions."""
    from snn_compile.runtime.execution.environments import Environment

    environment = Environment(NAME, tuple(float(each) for each in scale), steps)
    states, actions = teacher_states("train" if split == "calibration" else split, seed)
    if split == "calibration":
        chosen = np.linspace(0, len(states) - 1, CALIBRATION).astype(int)
        states, actions = states[chosen], actions[chosen]
    options = {"steps": steps, "scale": list(environment.scale), "seed": seed}
    return Dataset(name, environment.currents(states), actions, "direct", split, options)
