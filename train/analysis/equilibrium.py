"""How far feedback networks come towards their equilibrium, and what accuracy that takes.

The equations of the layers, a1 = f1(aN, x) and al = fl(a(l-1)), are held against simulated rates step by
step: the residual of a layer is the distance between both sides relative to the second. IF neurons leave one
of order 1 / T, LIF neurons a bounded one (Xiao et al. 2021, supplement, sections G.2 and H).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from snn_compile.runtime.data.registry import Dataset
from snn_compile.targets.errors import SnnCompileError, WrongInput
from snn_compile.train.algorithms.equilibrium import of_steps, score
from snn_compile.train.checkpoints.checkpoint import Checkpoint
from snn_compile.train.networks.feedback import FeedbackConfig, FeedbackNetwork


@dataclass(frozen=True, eq=False)
class Approach:
    """Convergence of the rates: per step the mean remaining distance over samples, (steps, layers).

    `residuals` are those of the layers' equations; `distances` are to the equilibrium that iteration of f
    finds, None if it finds none, and `missing` says why. Both are relative.
    """

    residuals: NDArray[np.float64]
    distances: NDArray[np.float64] | None
    missing: str = ""


@dataclass(frozen=True)
class Steps:
    """How a network does after so many steps: the accuracy (0-1) and its spikes per neuron and step."""

    steps: int
    accuracy: float
    spike_rate: float


def load_feedback(held: Checkpoint, name: str) -> FeedbackNetwork:
    """Return the feedback network of a checkpoint; raises SnnCompileError, naming it, for another network."""
    if held.config.get("algorithm") != "equilibrium" or "network" not in held.config:
        raise SnnCompileError(f"{name}: not a feedback network of snn-train (fashion-fsnn and its like)")
    network = FeedbackNetwork(FeedbackConfig.from_dict(held.config["network"]))
    network.load_state_dict(dict(held.state_dict))
    return network


@torch.no_grad()
def approach(network: FeedbackNetwork, inputs: Tensor, steps: int) -> Approach:
    """Return how a network's rates approach their equilibrium on still inputs (batch, steps, *shape)."""
    current = network.currents(of_steps(inputs, steps))
    still = current[:, 0]
    wanted: list[Tensor] | None = None
    missing = ""
    try:
        first = network.equilibrium(still)
        wanted = [first, *network.outcomes(first)]
    except SnnCompileError as error:
        missing = str(error)
    residuals, distances, total = [], [], 0.0
    for sums, _, _ in network.stepped(current, steps):
        total = network.config.decay * total + 1
        rates = [each / total for each in sums]
        sides = [network.image(rates[-1], still)]
        sides += [network.layer_image(at, rates[at - 1]) for at in range(1, len(rates))]
        residuals.append(_relative(rates, sides))
        if wanted is not None:
            distances.append(_relative(rates, wanted))
    return Approach(np.array(residuals), np.array(distances) if distances else None, missing)


def _relative(rates: Sequence[Tensor], others: Sequence[Tensor]) -> list[float]:
    """Return by layer the norm of the difference over that of the second, over all samples."""
    return [float((a - b).norm() / b.norm().clamp(min=1e-30)) for a, b in zip(rates, others, strict=True)]


def accuracy_by_steps(network: FeedbackNetwork, data: Dataset, steps: Sequence[int]) -> list[Steps]:
    """Return how a network does on labelled still data after each of some numbers of steps."""
    if not steps or min(steps) < 1:
        raise WrongInput(f"steps {list(steps)}: give numbers of steps of at least 1")
    found = []
    for count in steps:
        made = score(network, data, count)
        found.append(Steps(count, made.accuracy, made.spike_rate))
    return found
