"""Training loop shared by the algorithms that learn by gradients: bptt, equilibrium and fptt.

An algorithm subclasses `GradientTraining`: it builds the network, updates it from a batch and evaluates it on
a split. `fit` loads the data, seeds, runs the epochs, keeps the best one and measures it on the test split.
One seed fixes the initial weights, the order of the samples and which of them are mirrored, so the same
configuration gives the same numbers.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

from snn_compile.runtime.data.registry import Dataset, load_data
from snn_compile.targets.errors import TrainingDiverged, WrongInput
from snn_compile.train.algorithms.batches import labelled, mirrored, samples, tensors
from snn_compile.train.algorithms.training import BestCheckpoint, Observe, Training, single_thread
from snn_compile.train.configs.config import GradientConfig

C = TypeVar("C", bound=GradientConfig)
N = TypeVar("N", bound=nn.Module)


class Evaluation(Protocol):
    """Metrics of a network on one split."""

    @property
    def metric(self) -> str:
        """Return the name of the metric by which the network is judged."""

    @property
    def value(self) -> float:
        """Return the value of that metric."""

    def metrics(self, split: str) -> dict[str, Any]:
        """Return the metrics under their names in a checkpoint."""

    def rank(self) -> tuple[float, ...]:
        """Return the rank by which epochs are compared; the best has the largest."""


E = TypeVar("E", bound=Evaluation)


class GradientTraining(ABC, Generic[C, N, E]):
    """One training of `network` on the train split by batches of `config.batch_size` samples.

    Subclasses create their optimizer when they are made. `order` draws the order of the samples;
    `smallest_batch` is the number of samples below which a last batch is skipped.
    """

    smallest_batch: ClassVar[int] = 1

    def __init__(self, config: C, network: N, train: Dataset) -> None:
        self.config, self.network, self.train = config, network, train
        self.order = torch.Generator().manual_seed(config.seed)
        self.batches = math.ceil(len(train.inputs) / config.batch_size)
        if config.flip and train.inputs.ndim != 5:
            raise WrongInput("flip: only images (channels, height, width) can be mirrored; use layout=image")

    @classmethod
    def load(cls, config: C, split: str) -> Dataset:
        """Return a split of the configuration's data; raises WrongInput if it cannot be learned from."""
        return labelled(load_data(config.data, split, **config.data_options()))

    @classmethod
    @abstractmethod
    def build(cls, config: C, train: Dataset) -> N:
        """Return the untrained network for the shapes and the targets of `train`."""

    def begin_epoch(self, epoch: int, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return inputs and targets of an epoch, given those of the last one; epochs count from 1."""
        return inputs, targets

    @abstractmethod
    def update(self, inputs: Tensor, targets: Tensor, epoch: int, batch: int) -> float:
        """Update the network from one batch and return its loss; batches of an epoch count from 0."""

    @abstractmethod
    def evaluate(self, data: Dataset) -> E:
        """Return the metrics of the network on a split."""

    def epoch_metrics(self, found: E) -> dict[str, Any]:
        """Return further metrics of an epoch, given those of the validation split."""
        return {}

    def tensors(self, data: Dataset) -> tuple[Tensor, Tensor]:
        """Return inputs (samples, steps, *shape) and targets of a split."""
        return tensors(data)

    def diverged(
        self, loss: float, epoch: int, batch: int, gradient: float | None = None
    ) -> TrainingDiverged:
        """Return the error that names the epoch and the step of a loss or gradient that is not finite."""
        norm = "" if gradient is None else f" and its gradient {gradient}"
        return TrainingDiverged(
            f"training: the loss is {loss}{norm} at epoch {epoch}, step {batch}; try a learning_rate below "
            f"{self.config.learning_rate:g}",
            epoch=epoch,
            step=batch,
        )

    def run(self, validation: Dataset, best: BestCheckpoint, observe: Observe | None = None) -> None:
        """Train all epochs; offer the network to `best` and report to `observe` after each."""
        inputs, targets = self.tensors(self.train)
        for epoch in range(1, self.config.epochs + 1):
            inputs, targets = self.begin_epoch(epoch, inputs, targets)
            loss = self._epoch(epoch, inputs, targets)
            found = self.evaluate(validation)
            metrics = {**found.metrics("validation"), **self.epoch_metrics(found)}
            best.end_epoch(epoch, found.rank(), metrics, loss, found.metric, observe)

    def _epoch(self, epoch: int, inputs: Tensor, targets: Tensor) -> float:
        """Train one epoch and return the mean loss per sample."""
        size, total = self.config.batch_size, 0.0
        shuffled = torch.randperm(len(inputs), generator=self.order)
        for batch in range(self.batches):
            chosen = shuffled[batch * size : (batch + 1) * size]
            if len(chosen) < self.smallest_batch:
                continue
            shown = samples(inputs, chosen)
            if self.config.flip:
                shown = mirrored(shown, torch.rand(len(chosen), generator=self.order) < 0.5)
            total += self.update(shown, targets[chosen], epoch, batch) * len(chosen)
        return total / len(inputs)


def fit(
    algorithm: type[GradientTraining[C, Any, Any]],
    config: C,
    path: str | Path | None = None,
    observe: Observe | None = None,
) -> Training:
    """Train by an algorithm as `config` says, keep the best epoch and measure it on the test split.

    With `path` the best checkpoint is written whenever it improves. After a KeyboardInterrupt the best epoch
    so far is returned, marked `interrupted` and not measured on the test split; if no epoch has ended by then
    the interrupt is raised again. Raises TrainingDiverged when a loss or a gradient is not finite, WrongInput
    for data without labels or targets.
    """
    with single_thread():
        train, validation = (algorithm.load(config, split) for split in ("train", "validation"))
        torch.manual_seed(config.seed)
        network = algorithm.build(config, train)
        training = algorithm(config, network, train)
        best = BestCheckpoint(config, train, network, path)

        def run() -> None:
            training.run(validation, best, observe)
            best.restore()
            best.metrics |= training.evaluate(algorithm.load(config, "test")).metrics("test")

        return best.until_interrupted(run)
