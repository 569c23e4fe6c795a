"""Labelled samples as tensors and batches, and the metrics of a network on a split."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from snn_compile.runtime.data.registry import Dataset
from snn_compile.targets.errors import WrongInput

EVALUATED = 500
"""Samples evaluated at a time."""


@dataclass(frozen=True)
class Score:
    """Metrics of a network on one split: accuracy, mean loss, spikes per neuron and step."""

    metric: ClassVar[str] = "accuracy"

    accuracy: float
    loss: float
    spike_rate: float
    spike_rates: dict[str, float]

    @property
    def value(self) -> float:
        """Return the accuracy."""
        return self.accuracy

    def rank(self) -> tuple[float, ...]:
        """Return the rank among epochs: the accuracy, then the lower loss."""
        return (self.accuracy, -self.loss)

    def metrics(self, split: str) -> dict[str, Any]:
        """Return the accuracy under the name of its split, and the spike rates."""
        rates = {"spike_rate": self.spike_rate, "spike_rates": self.spike_rates}
        return {f"{split}_accuracy": self.accuracy, **rates}


def labelled(data: Dataset) -> Dataset:
    """Return data that has labels; raises WrongInput for others."""
    if data.labels is None:
        raise WrongInput(
            f"data {data.name}: holds no labels, and training needs them; add an array 'labels' (batch,)"
        )
    return data


def check_classes(data: Dataset, labels: Tensor, classes: int) -> None:
    """Raise WrongInput if a split has a class that the network, of so many, does not."""
    if int(labels.max()) >= classes:
        raise WrongInput(
            f"data {data.name}: its {data.split} split has class {int(labels.max())} and the network, made "
            f"for those of the training split, {classes} classes; train on more samples"
        )


def tensors(data: Dataset) -> tuple[Tensor, Tensor]:
    """Return inputs and labels; an input that is the same at every step is stored once."""
    assert data.labels is not None
    values, labels = data.inputs, torch.from_numpy(data.labels.copy())
    if values.strides[1] == 0:
        first = torch.from_numpy(values[:, :1].astype(np.float32))
        return first.expand(values.shape), labels
    return torch.from_numpy(values.astype(np.float32)), labels


def samples(inputs: Tensor, chosen: Tensor | slice) -> Tensor:
    """Return some samples of inputs (batch, steps, *shape); an input stored once stays so."""
    if inputs.stride(1) == 0:
        return inputs[:, :1][chosen].expand(-1, *inputs.shape[1:])
    return inputs[chosen]


def mirrored(images: Tensor, which: Tensor) -> Tensor:
    """Return images (batch, steps, channels, height, width), those of `which` mirrored left to right."""
    if images.shape[1] > 1 and images.stride(1) == 0:
        return mirrored(images[:, :1], which).expand(images.shape)
    return torch.where(which[:, None, None, None, None], images.flip(-1), images)
