"""Imitation: a controller reconstructed from a teacher's actions, on the states that it meets itself.

Each round reconstructs a network of one hidden layer from all states kept so far (convex, over a dictionary
of neurons that grows; `convex/reconstruction.py`), lets it act, asks the teacher about the states it
met, and adds them: DAgger (Ross, Gordon, Bagnell 2011, section 3). A round starts from the neurons of the
one before, so that on the new states too it is no worse than they are. The round with the highest return
on the validation episodes is kept, of equal ones the latest: it knows the most states.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from snn_compile.runtime.data.cartpole import teacher_actions, teacher_gain, teacher_states
from snn_compile.runtime.data.registry import load_data
from snn_compile.runtime.execution.environments import DATA_SETS, Environment, run_side_by_side
from snn_compile.train.algorithms.reconstruction import network_of
from snn_compile.train.algorithms.training import BestCheckpoint, Observe, Training, single_thread
from snn_compile.train.configs.imitation import ImitationConfig
from snn_compile.train.convex.reconstruction import Reconstruction, reconstruct
from snn_compile.train.convex.witnesses import SpikingUnit
from snn_compile.train.networks.feedforward import SpikingNetwork

Float = npt.NDArray[np.float64]

TEST_EPISODES = 30
"""Episodes that the test counts; those of seed s begin at seeds 10**6 (s + 1)."""

SPLITS = {"test": 0, "validation": 1000, "train": 10_000}
"""Where the episodes of each split begin, after the seed's own first one."""


def fit(config: ImitationConfig, path: str | Path | None = None, observe: Observe | None = None) -> Training:
    """Make the controller that `config` asks for, keep the best round, measure it on the test episodes.

    `metrics` has the mean returns, and objective, gap and certificate of the kept round. On
    KeyboardInterrupt the best round so far is returned, marked `interrupted`. Raises WrongInput where
    gymnasium is not installed.
    """
    with single_thread():
        return _fit(config, path, observe)


def _fit(config: ImitationConfig, path: str | Path | None, observe: Observe | None) -> Training:
    data = load_data(config.data, "train", **config.data_options())
    environment = Environment(DATA_SETS[config.data], tuple(data.options["scale"]), config.steps)
    states = _States(config, environment)
    best = BestCheckpoint(config, data, path=path)

    def run() -> None:
        made: Reconstruction | None = None
        for number in range(1, config.epochs + 1):
            made = _reconstructed(config, environment, states, made, number)
            network = network_of(made, config.steps)
            first = SPLITS["train"] + number * config.episodes
            _, met = _act(network, environment, _seeds(config, first, config.episodes))
            score, _ = _act(network, environment, _seeds(config, SPLITS["validation"], config.episodes))
            rank = (score.mean, score.minimum, number)
            metrics = {"validation_return": score.mean, **_metrics(made, network, data.inputs)}
            states.add(met)
            loss = made.objective / len(states.seen)
            best.end_epoch(number, rank, metrics, loss, "return", observe, network)
        assert isinstance(best.network, SpikingNetwork)
        score, _ = _act(best.network, environment, _seeds(config, SPLITS["test"], TEST_EPISODES))
        best.metrics |= {
            "test_return": score.mean,
            "least_return": score.minimum,
            "test_episodes": TEST_EPISODES,
        }

    return best.until_interrupted(run)


class _States:
    """The states seen so far, and the teacher's actions there."""

    def __init__(self, config: ImitationConfig, environment: Environment) -> None:
        self.most = config.states
        self.rng = np.random.default_rng(config.seed)
        self.gain = teacher_gain(environment.make())
        seen, _ = teacher_states("train", config.seed)
        self.seen = self._some(seen, config.states // 2)

    def _some(self, states: Float, count: int) -> Float:
        return states[self.rng.permutation(len(states))[:count]]

    def add(self, states: Float) -> None:
        """Add states; beyond the limit a sample of the old and of the new ones is kept."""
        new = self._some(states, self.most // 2)
        self.seen = np.concatenate([self._some(self.seen, self.most - len(new)), new])

    def targets(self) -> Float:
        """Return 1/2 for the teacher's action and -1/2 for the other, (states, 2)."""
        return np.eye(2)[teacher_actions(self.gain, self.seen)] - 0.5


def _reconstructed(
    config: ImitationConfig,
    environment: Environment,
    states: _States,
    before: Reconstruction | None,
    number: int,
) -> Reconstruction:
    return reconstruct(
        environment.currents(states.seen),
        states.targets(),
        SpikingUnit(config.decay, config.reset, "leaky", config.readout_decay),
        config.penalty * len(states.seen),
        witnesses=None if before is None else before.witnesses,
        fresh=config.witnesses,
        rounds=config.generations,
        climbs=config.climbs,
        seed=config.seed * 1000 + number,
    )


def _act(network: SpikingNetwork, environment: Environment, seeds: range) -> tuple[Any, Float]:
    def decide(currents: Float) -> npt.NDArray[np.int64]:
        with torch.no_grad():
            answer: Tensor = network(torch.from_numpy(np.ascontiguousarray(currents)).float())
        return answer.mean(dim=1).argmax(dim=-1).numpy()

    return run_side_by_side(decide, environment, seeds)


def _seeds(config: ImitationConfig, first: int, count: int) -> range:
    start = 1_000_000 * (config.seed + 1) + first
    return range(start, start + count)


def _metrics(
    made: Reconstruction, network: SpikingNetwork, inputs: npt.NDArray[np.generic]
) -> dict[str, Any]:
    with torch.no_grad():
        run = network.run(torch.from_numpy(inputs[:500].astype(np.float32)))
    rates = {name: float(z.mean()) for name, z in run.spikes.items()}
    return {
        "spike_rate": float(np.mean(list(rates.values()))),
        "spike_rates": rates,
        "neurons": len(made.witnesses),
        "objective": made.objective,
        "gap": made.gap,
        "certificate": made.certificate,
    }
