"""Training of feedback networks by implicit differentiation at their equilibrium, with SGD.

Of one batch: simulate the network without a graph; take its rates for the equilibrium a = f(a); evaluate f
once more with a graph, whose batch normalisation learns; the gradient by the parameters follows from the
solution of one linear system (`implicit_gradient.py`). What is stored does not depend on the number of steps
(Xiao et al. 2021, algorithm 1). One seed fixes the initial weights, the order of the samples and the dropout.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from snn_compile.runtime.data.registry import Dataset
from snn_compile.targets.errors import SnnCompileError, WrongInput
from snn_compile.train.algorithms import gradient_training
from snn_compile.train.algorithms.batches import EVALUATED, Score, check_classes, labelled, samples, tensors
from snn_compile.train.algorithms.gradient_training import GradientTraining
from snn_compile.train.algorithms.implicit_gradient import Settings, Solution, at_equilibrium
from snn_compile.train.algorithms.training import Observe, Training
from snn_compile.train.configs.equilibrium import EquilibriumConfig
from snn_compile.train.networks.feedback import FeedbackConfig, FeedbackLayer, FeedbackNetwork, Rates


class _Solves:
    """Iterations and residuals of the linear systems of an epoch."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.iterations = self.count = self.unsolved = 0
        self.residuals: list[float] = []

    def add(self, solution: Solution) -> None:
        self.iterations += solution.iterations
        self.count += 1
        self.unsolved += not solution.converged(self.settings)
        self.residuals.append(solution.residual)

    def metrics(self) -> dict[str, Any]:
        return {
            "solver_iterations": self.iterations / max(1, self.count),
            "solver_residual": max(self.residuals, default=0.0),
            "unsolved_batches": self.unsolved,
        }


class _Equilibrium(GradientTraining[EquilibriumConfig, FeedbackNetwork, Score]):
    """Training with SGD on the implicit gradient; batch normalisation needs at least two samples."""

    smallest_batch = 2

    def __init__(self, config: EquilibriumConfig, network: FeedbackNetwork, train: Dataset) -> None:
        super().__init__(config, network, train)
        if len(train.inputs) < 2:
            raise WrongInput(f"data {train.name}: {len(train.inputs)} training sample; give at least 2")
        self.optimizer = torch.optim.SGD(
            network.parameters(),
            lr=config.learning_rate,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
        )
        self.settings = Settings(config.solver, config.tolerance, config.iterations)
        self.solves = _Solves(self.settings)

    @classmethod
    def load(cls, config: EquilibriumConfig, split: str) -> Dataset:
        """Return a split with one label per sample; raises WrongInput for others."""
        data = super().load(config, split)
        assert data.labels is not None
        if data.labels.ndim != 1:
            raise WrongInput(
                f"data {data.name}: has one label per step; an equilibrium has one, give labels (batch,)"
            )
        return data

    @classmethod
    def build(cls, config: EquilibriumConfig, train: Dataset) -> FeedbackNetwork:
        """Return the untrained feedback network."""
        return build_feedback(config, train)

    def begin_epoch(self, epoch: int, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Count the linear systems of each epoch anew."""
        self.solves = _Solves(self.settings)
        return inputs, targets

    def update(self, inputs: Tensor, targets: Tensor, epoch: int, batch: int) -> float:
        """Make one step of SGD and restrict the weights on the feedback cycle."""
        number = (epoch - 1) * self.batches + batch
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.config, number, self.config.epochs * self.batches)
        rates = rates_with_gradient(self.network, inputs, self.settings, self.solves.add)
        loss = functional.cross_entropy(self.network.classify(rates), targets)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        value = float(loss.detach())
        if not math.isfinite(value):
            raise self.diverged(value, epoch, batch)
        self.optimizer.step()
        self.network.restrict()
        return value

    def evaluate(self, data: Dataset) -> Score:
        """Return the score of the network on labelled data."""
        return score(self.network, data)

    def epoch_metrics(self, found: Score) -> dict[str, Any]:
        """Return the loss, the norms against their bound, and the cost of the linear systems."""
        bound = self.network.restriction()
        return {
            "validation_loss": found.loss,
            "norm_product": bound.product,
            "norm_bound": bound.bound,
            "one_equilibrium": bound.holds,
            **self.solves.metrics(),
        }


def fit(
    config: EquilibriumConfig, path: str | Path | None = None, observe: Observe | None = None
) -> Training:
    """Train as `config` says, keep the best epoch and measure it on the test split.

    Paths, interrupts and errors are those of `bptt.fit`. `metrics` also holds the product of the norms on the
    feedback cycle, its bound below which the equilibrium is unique (`one_equilibrium`), and the iterations
    and residuals of the linear systems in the best epoch.
    """
    return gradient_training.fit(_Equilibrium, config, path, observe)


def build_feedback(config: EquilibriumConfig, data: Dataset) -> FeedbackNetwork:
    """Return the untrained network that `config` asks for on the shapes and classes of `data`."""
    many = len(config.channels)
    kernels, strides = (
        values * many if len(values) == 1 else values for values in (config.kernels, config.strides)
    )
    layers = [FeedbackLayer(*window) for window in zip(config.channels, kernels, strides, strict=False)]
    layers += [FeedbackLayer(size) for size in config.hidden]
    assert labelled(data).labels is not None
    return FeedbackNetwork(
        FeedbackConfig(
            tuple(data.inputs.shape[2:]),
            tuple(layers),
            1 + int(data.labels.max()),  # type: ignore[union-attr]
            config.feedback_kernel,
            config.decay,
            config.threshold,
            config.scale_limit,
            config.batch_norm,
            config.dropout,
        )
    )


def rates_with_gradient(
    network: FeedbackNetwork,
    inputs: Tensor,
    settings: Settings | None = None,
    observe: Callable[[Solution], None] | None = None,
) -> Tensor:
    """Return the last layer's rates (batch, *shape), implicitly differentiable, of (batch, steps, *shape).

    Dropout of the configuration is applied, and batch normalisation updates its statistics.
    """
    network.feedback.iterate()
    steps = inputs.shape[1]
    mean = network.weigh(inputs, steps)[:, None]
    current = network.currents(mean)
    masks = network.masks(len(inputs), current)
    with torch.no_grad():
        still = inputs.stride(1) == 0
        rates = network.simulate(current if still else network.currents(inputs), steps, masks)
    start = rates.weighted[0].requires_grad_()
    outcome = network.outcome(start, learning=True, masks=masks)
    image = network.image(outcome, current[:, 0], learning=True, masks=masks)
    return at_equilibrium(rates.weighted[-1].detach(), start, outcome, image, settings, observe)


def score(network: FeedbackNetwork, data: Dataset, steps: int | None = None) -> Score:
    """Return the score of a network on labelled data, after so many steps (those of the data if None)."""
    inputs, labels = tensors(labelled(data))
    if steps is not None:
        inputs = of_steps(inputs, steps)
    right, loss = 0, 0.0
    sent = torch.zeros(len(network.shapes), dtype=torch.float64)
    for first in range(0, len(inputs), EVALUATED):
        chosen = slice(first, first + EVALUATED)
        rates = simulated(network, samples(inputs, chosen))
        with torch.no_grad():
            predicted = network.classify(rates.weighted[-1])
            check_classes(data, labels[chosen], predicted.shape[1])
            loss += float(functional.cross_entropy(predicted, labels[chosen], reduction="sum"))
        right += int((predicted.argmax(dim=1) == labels[chosen]).sum())
        sent += torch.stack([mean.double().sum() for mean in rates.means])
    sizes = torch.tensor([math.prod(shape) for shape in network.shapes])
    found = (sent / (sizes * len(inputs))).tolist()
    return Score(
        right / len(inputs),
        loss / len(inputs),
        float(sent.sum() / (sizes.sum() * len(inputs))),
        dict(zip(network.layer_names, found, strict=True)),
    )


def simulated(network: FeedbackNetwork, inputs: Tensor) -> Rates:
    """Return the rates of a network at rest after inputs (batch, steps, *shape)."""
    with torch.no_grad():
        return network.simulate(network.currents(inputs), inputs.shape[1])


def of_steps(inputs: Tensor, steps: int) -> Tensor:
    """Return still inputs shown for so many steps; raises SnnCompileError where steps differ."""
    if inputs.shape[1] > 1 and inputs.stride(1) != 0:
        raise SnnCompileError(
            f"{steps} steps: the inputs change from step to step and have {inputs.shape[1]}"
        )
    return inputs[:, :1].expand(-1, steps, *inputs.shape[2:])


def learning_rate(config: EquilibriumConfig, batch: int, batches: int) -> float:
    """Return the rate of a batch, counted from 0 over all epochs, of so many."""
    falls = sum(batch >= share * batches for share in config.rate_falls)
    rise = min(1.0, (batch + 1) / config.warmup) if config.warmup else 1.0
    return config.learning_rate * config.rate_factor**falls * rise
