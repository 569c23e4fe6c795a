"""What every algorithm of snn-train shares: progress, the best state so far on disk, one thread."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from snn_compile.train.checkpoints.checkpoint import save_checkpoint


@dataclass(frozen=True)
class Progress:
    """What `observe` is told after each epoch.

    `value` and `best` are of `metric` on the validation split; epochs are ordered by `rank`, the best has
    the largest.
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
    """A finished or interrupted training: the best network and what was measured on it.

    `metrics` has `validation_NAME` and, unless it was interrupted, `test_NAME` of the metric by that name.
    """

    network: nn.Module
    metrics: dict[str, Any]
    epochs: int
    interrupted: bool
    metric: str = "accuracy"


Observe = Callable[[Progress], None]


class Keeper:
    """Holds the best state of a network so far and writes it, if there is a path to write to.

    `sample` is what the network's forward takes, `config` and `data` are plain values for the checkpoint.
    """

    def __init__(
        self,
        network: nn.Module,
        sample: Tensor,
        config: Mapping[str, Any],
        data: Mapping[str, Any] | None,
        path: str | Path | None,
    ) -> None:
        self.network, self.sample, self.config, self.data, self.path = network, sample, config, data, path
        self.state: dict[str, Tensor] | None = None
        self.metrics: dict[str, Any] = {}
        self.epochs = 0
        self._rank: tuple[float, ...] = (-math.inf,)

    def offer(self, epoch: int, rank: tuple[float, ...], metrics: Mapping[str, Any]) -> bool:
        """Keep the network's present state if it ranks above all before; return whether it does."""
        self.epochs = epoch
        if rank <= self._rank:
            return False
        self._rank = rank
        self.metrics = {"epoch": epoch, **metrics}
        self.state = copy.deepcopy(self.network.state_dict())
        self.write()
        return True

    def restore(self) -> bool:
        """Load the best state into the network; return whether there is one."""
        if self.state is not None:
            self.network.load_state_dict(self.state)
        return self.state is not None

    def write(self) -> None:
        """Write the checkpoint of the network as it is, with the metrics so far."""
        if self.path is not None:
            save_checkpoint(
                self.path, self.network, self.sample, config=self.config, metrics=self.metrics, data=self.data
            )


@contextmanager
def single_thread() -> Iterator[None]:
    """Run with one torch thread: small matrices gain nothing from more, sums keep their order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
