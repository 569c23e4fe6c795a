"""Building blocks of every training algorithm: progress reports, the best checkpoint, interrupts, threads."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from snn_compile.runtime.data.registry import Dataset
from snn_compile.train.checkpoints.checkpoint import save_checkpoint
from snn_compile.train.configs.config import RunConfig


@dataclass(frozen=True)
class Progress:
    """State of a training after one epoch, as passed to `observe`.

    `value` and `best` are values of `metric` on the validation split. Epochs are compared by `rank`: the
    best epoch has the largest.
    """

    epoch: int
    epochs: int
    train_loss: float
    metric: str
    value: float
    best: float
    rank: tuple[float, ...]
    improved: bool


@dataclass(frozen=True, eq=False)
class Training:
    """Result of a finished or interrupted training: the best network and its metrics.

    `metrics` holds `validation_NAME` and, unless the training was interrupted, `test_NAME` for the metric
    NAME given by `metric`.
    """

    network: nn.Module
    metrics: dict[str, Any]
    epochs: int
    interrupted: bool
    metric: str = "accuracy"


Observe = Callable[[Progress], None]


class BestCheckpoint:
    """Best state of a network so far, written to `path` (if any) each time it improves.

    `data` is the train split: its first sample is the example input of the checkpoint, its specification is
    saved with `config`.
    """

    def __init__(
        self,
        config: RunConfig,
        data: Dataset,
        network: nn.Module | None = None,
        path: str | Path | None = None,
    ) -> None:
        self.config, self.data, self.path = config, data.spec(), path
        self.sample = torch.from_numpy(data.inputs[:1].copy()).float()
        self.network: nn.Module = nn.Identity() if network is None else network
        self.state: dict[str, Tensor] | None = None
        self.metrics: dict[str, Any] = {}
        self.metric, self.epochs = "accuracy", 0
        self._rank: tuple[float, ...] = (-math.inf,)

    def offer(
        self,
        epoch: int,
        rank: tuple[float, ...],
        metrics: Mapping[str, Any],
        network: nn.Module | None = None,
    ) -> bool:
        """Keep the current state if `rank` exceeds all ranks before; return whether it does.

        `network` replaces the network where every epoch makes a new one; None is the network given before.
        """
        self.epochs = epoch
        if rank <= self._rank:
            return False
        self._rank = rank
        self.metrics = {"epoch": epoch, **metrics}
        self.network = self.network if network is None else network
        self.state = copy.deepcopy(self.network.state_dict())
        self.write()
        return True

    def end_epoch(
        self,
        epoch: int,
        rank: tuple[float, ...],
        metrics: Mapping[str, Any],
        train_loss: float,
        metric: str,
        observe: Observe | None,
        network: nn.Module | None = None,
    ) -> None:
        """Offer the state after an epoch and report it to `observe`; `metrics` holds `validation_METRIC`."""
        self.metric, key = metric, f"validation_{metric}"
        improved = self.offer(epoch, rank, metrics, network)
        if observe is not None:
            value, best = float(metrics[key]), float(self.metrics[key])
            observe(Progress(epoch, self.config.epochs, train_loss, metric, value, best, rank, improved))

    def restore(self) -> bool:
        """Load the best state into the network; return whether there is one."""
        if self.state is not None:
            self.network.load_state_dict(self.state)
        return self.state is not None

    def write(self) -> None:
        """Write a checkpoint of the network in its current state, with the metrics so far."""
        if self.path is not None:
            settings = self.config.plain() | {"network": asdict(self.network.config)}  # type: ignore[call-overload]
            save_checkpoint(
                self.path, self.network, self.sample, config=settings, metrics=self.metrics, data=self.data
            )

    def until_interrupted(self, run: Callable[[], None]) -> Training:
        """Call `run`, restore the best state, write it and return the training.

        After a KeyboardInterrupt the training is marked `interrupted`; if no epoch has ended by then, the
        interrupt is raised again.
        """
        interrupted = False
        try:
            run()
        except KeyboardInterrupt:
            if self.state is None:
                raise
            interrupted = True
        self.restore()
        self.write()
        return Training(self.network, self.metrics, self.epochs, interrupted, self.metric)


@contextmanager
def single_thread() -> Iterator[None]:
    """Run with one torch thread: small matrices gain nothing from more, and sums keep their order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
