"""Why resonators converge: spectral radius over the (omega, b) plane, gradients through time, epochs needed.

The state of a resonator between spikes is multiplied by 1 + delta (b + i omega) each step; so is a gradient
on its way back (Higuchi et al. 2025, section 3.2).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from snn_compile.targets.errors import TrainingDiverged
from snn_compile.train.algorithms.bptt import fit
from snn_compile.train.algorithms.training import Observe, Progress
from snn_compile.train.configs.bptt import TrainConfig
from snn_compile.train.neurons.rf_brf import Resonance, resonator_step

Numbers = npt.NDArray[np.float64]


def spectral_radius(omega: npt.ArrayLike, b: npt.ArrayLike, delta: float) -> Numbers:
    """Return |1 + delta (b + i omega)|, elementwise; 1 on the divergence boundary."""
    angle = delta * np.asarray(omega, dtype=np.float64)
    return np.asarray(np.hypot(1 + delta * np.asarray(b, dtype=np.float64), angle))


def gradient_norms(omega: npt.ArrayLike, b: npt.ArrayLike, delta: float, steps: int) -> Numbers:
    """Return |d s(t) / d s(0)|, t = 0 to `steps`, (steps + 1, neurons), by autograd, without spikes.

    The norm is the spectral one of the 2 x 2 derivative of (u, v).
    """
    frequencies = torch.tensor(np.atleast_1d(np.asarray(omega, dtype=np.float64)))
    dampings = torch.tensor(np.broadcast_to(np.asarray(b, dtype=np.float64), frequencies.shape).copy())
    kind = Resonance(False, False, False, delta=delta)
    u, v, zero = (torch.zeros_like(frequencies) for _ in range(3))
    through = torch.eye(2, dtype=torch.float64).expand(len(frequencies), 2, 2)
    found = [torch.linalg.matrix_norm(through, 2)]
    for _ in range(steps):
        before = (u.requires_grad_(), v.requires_grad_())
        _, (u, v, _) = resonator_step(zero, (*before, zero), frequencies, dampings, kind)
        rows = [torch.stack(torch.autograd.grad(s.sum(), before, retain_graph=True), -1) for s in (u, v)]
        through = torch.stack(rows, -2) @ through
        found.append(torch.linalg.matrix_norm(through, 2))
        u, v = u.detach(), v.detach()
    return torch.stack(found).numpy()


@dataclass(frozen=True)
class Convergence:
    """One training: its name, learning rate and seed, and the validation accuracy after every epoch.

    One that `diverged` has those of the epochs before.
    """

    name: str
    learning_rate: float
    seed: int
    accuracies: tuple[float, ...]
    diverged: bool = False

    def epochs_to(self, level: float) -> int | None:
        """Return the first epoch that reached an accuracy, or None; None where it diverged afterwards."""
        if self.diverged:
            return None
        return next((n for n, a in enumerate(self.accuracies, start=1) if a >= level), None)


Watch = Callable[[str, float, int], AbstractContextManager[Observe]]
"""What makes an observer of the training of a name, with a learning rate and a seed."""


def convergence(
    configs: dict[str, TrainConfig],
    seeds: Sequence[int],
    learning_rates: dict[str, Sequence[float]],
    observe: Callable[[Convergence], None] | None = None,
    watch: Watch | None = None,
) -> list[Convergence]:
    """Train every configuration with every learning rate of its grid (its own if it has none) and seed.

    `observe` receives every finished training, `watch` makes an observer of the epochs of each. Raises
    KeyboardInterrupt when one is interrupted; it counts as none.
    """
    made = []
    for name, config in configs.items():
        for rate in learning_rates.get(name) or (config.learning_rate,):
            for seed in seeds:
                chosen = replace(config, learning_rate=rate, seed=seed)
                with nullcontext() if watch is None else watch(name, rate, seed) as shown:
                    made.append(_train(name, chosen, shown))
                if observe is not None:
                    observe(made[-1])
    return made


def _train(name: str, config: TrainConfig, shown: Observe | None) -> Convergence:
    seen: list[float] = []

    def note(progress: Progress) -> None:
        seen.append(progress.value)
        if shown is not None:
            shown(progress)

    diverged = False
    try:
        if fit(config, observe=note).interrupted:
            raise KeyboardInterrupt
    except TrainingDiverged:
        diverged = True
    return Convergence(name, config.learning_rate, config.seed, tuple(seen), diverged)


def best_rates(runs: Sequence[Convergence], level: float) -> dict[str, tuple[float, list[int | None]]]:
    """Return for each name the learning rate that reached `level` soonest, and its epochs by seed.

    A seed that never reached it, or diverged, counts as one epoch more than was trained; ties go to the
    higher accuracy in the end, which is 0 for one that diverged.
    """
    best: dict[str, tuple[float, list[int | None]]] = {}
    ranks: dict[str, tuple[float, float]] = {}
    for name, rate in dict.fromkeys((run.name, run.learning_rate) for run in runs):
        mine = [run for run in runs if (run.name, run.learning_rate) == (name, rate)]
        trained = max(len(run.accuracies) for run in runs if run.name == name)
        needed = [run.epochs_to(level) for run in mine]
        counted = [trained + 1 if n is None else n for n in needed]
        ends = [0.0 if run.diverged or not run.accuracies else run.accuracies[-1] for run in mine]
        rank = (float(np.mean(counted)), -float(np.mean(ends)))
        if name not in ranks or rank < ranks[name]:
            ranks[name], best[name] = rank, (rate, needed)
    return best
