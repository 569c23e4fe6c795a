"""Training of feedback networks by implicit differentiation at their equilibrium, with SGD.

Of one batch: simulate the network without a graph; take its rates for the equilibrium a = f(a); evaluate f
once more with a graph, whose batch normalisation learns; the gradient by the parameters follows from the
solution of one linear system (`implicit_gradient.py`). What is stored does not depend on the number of steps
(Xiao et al. 2021, algorithm 1). One seed fixes the initial weights, the order of the samples and the dropout.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from snn_compile.runtime.data.registry import Dataset, load_data
from snn_compile.targets.errors import SnnCompileError, TrainingDiverged, WrongInput
from snn_compile.train.algorithms.batches import (
    EVALUATED,
    Score,
    check_classes,
    labelled,
    mirrored,
    samples,
    tensors,
)
from snn_compile.train.algorithms.implicit_gradient import Settings, Solution, at_equilibrium
from snn_compile.train.algorithms.training import Keeper, Observe, Progress, Training, single_thread
from snn_compile.train.configs.equilibrium import EquilibriumConfig
from snn_compile.train.networks.feedback import FeedbackConfig, FeedbackLayer, FeedbackNetwork, Rates


@dataclass
class _Solves:
    """What the linear systems of an epoch took."""

    settings: Settings
    iterations: int = 0
    count: int = 0
    unsolved: int = 0
    residuals: list[float] = field(default_factory=list)

    def told(self, solution: Solution) -> None:
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


def fit(
    config: EquilibriumConfig, path: str | Path | None = None, observe: Observe | None = None
) -> Training:
    """Train as `config` says, keep the best epoch, measure it on the test split.

    With `path` the best checkpoint is always there. On KeyboardInterrupt the best so far is returned, marked
    `interrupted` and not measured on the test split; before the first epoch has ended the interrupt is raised
    again. Raises TrainingDiverged when the loss is not finite, WrongInput for data without labels. The
    metrics tell the norms on the cycle against the bound that makes the equilibrium unique
    (`one_equilibrium`), and what the linear systems of the best epoch took.
    """
    with single_thread():
        train = _classified(load_data(config.data, "train", **config.data_options()))
        validation = _classified(load_data(config.data, "validation", **config.data_options()))
        torch.manual_seed(config.seed)
        network = build_feedback(config, train)
        sample = torch.from_numpy(train.inputs[:1].copy()).float()
        settings = config.plain() | {"network": asdict(network.config)}
        keeper = Keeper(network, sample, settings, train.spec(), path)
        interrupted = False
        try:
            _epochs(config, network, train, validation, keeper, observe)
            keeper.restore()
            test = _classified(load_data(config.data, "test", **config.data_options()))
            keeper.metrics |= score(network, test).metrics("test")
        except KeyboardInterrupt:
            if not keeper.restore():
                raise
            interrupted = True
        keeper.write()
    return Training(network, keeper.metrics, keeper.epochs, interrupted)


def _classified(data: Dataset) -> Dataset:
    """Return data with a label a sample; raises WrongInput for others."""
    if labelled(data).labels.ndim != 1:  # type: ignore[union-attr]
        raise WrongInput(
            f"data {data.name}: has a label a step; an equilibrium has one, give labels (batch,)"
        )
    return data


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
    told: Callable[[Solution], None] | None = None,
) -> Tensor:
    """Return the last layer's rates (batch, *shape) of inputs (batch, steps, *shape), which learn implicitly.

    The network simulates, with dropout where its configuration has it, and the batch is learned from by its
    normalisation.
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
    return at_equilibrium(rates.weighted[-1].detach(), start, outcome, image, settings, told)


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
            told = network.classify(rates.weighted[-1])
            check_classes(data, labels[chosen], told.shape[1])
            loss += float(functional.cross_entropy(told, labels[chosen], reduction="sum"))
        right += int((told.argmax(dim=1) == labels[chosen]).sum())
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


def _epochs(
    config: EquilibriumConfig,
    network: FeedbackNetwork,
    train: Dataset,
    validation: Dataset,
    keeper: Keeper,
    observe: Observe | None,
) -> None:
    inputs, labels = tensors(train)
    if config.flip and inputs.ndim != 5:
        raise SnnCompileError("flip: only images (channels, height, width) can be mirrored; use layout=image")
    if len(inputs) < 2:
        raise WrongInput(f"data {train.name}: {len(inputs)} training sample; give at least 2")
    order = torch.Generator().manual_seed(config.seed)
    optimizer = torch.optim.SGD(
        network.parameters(),
        lr=config.learning_rate,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
    )
    batches = math.ceil(len(inputs) / config.batch_size)
    settings = Settings(config.solver, config.tolerance, config.iterations)
    for epoch in range(1, config.epochs + 1):
        total, solves = 0.0, _Solves(settings)
        shuffled = torch.randperm(len(inputs), generator=order)
        for step in range(batches):
            chosen = shuffled[step * config.batch_size : (step + 1) * config.batch_size]
            if len(chosen) == 1:  # of one sample normalisation learns nothing
                continue
            shown = samples(inputs, chosen)
            if config.flip:
                shown = mirrored(shown, torch.rand(len(chosen), generator=order) < 0.5)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(config, (epoch - 1) * batches + step, config.epochs * batches)
            rates = rates_with_gradient(network, shown, settings, solves.told)
            loss = functional.cross_entropy(network.classify(rates), labels[chosen])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            if not math.isfinite(float(loss.detach())):
                raise TrainingDiverged(
                    f"training: the loss is {float(loss.detach())} at epoch {epoch}, step {step}; try a "
                    f"learning_rate below {config.learning_rate:g}",
                    epoch=epoch,
                    step=step,
                )
            optimizer.step()
            network.restrict()
            total += float(loss.detach()) * len(chosen)
        found = score(network, validation)
        rank = (found.accuracy, -found.loss)
        improved = keeper.offer(epoch, rank, {**_measured(network, found), **solves.metrics()})
        if observe is not None:
            best, mean = float(keeper.metrics["validation_accuracy"]), total / len(inputs)
            observe(Progress(epoch, config.epochs, mean, "accuracy", found.accuracy, best, rank, improved))


def _measured(network: FeedbackNetwork, found: Score) -> dict[str, Any]:
    bound = network.restriction()
    return {
        **found.metrics("validation"),
        "validation_loss": found.loss,
        "norm_product": bound.product,
        "norm_bound": bound.bound,
        "one_equilibrium": bound.holds,
    }


def learning_rate(config: EquilibriumConfig, batch: int, batches: int) -> float:
    """Return the rate of a batch, counted from 0 over all epochs, of so many."""
    falls = sum(batch >= share * batches for share in config.rate_falls)
    rise = min(1.0, (batch + 1) / config.warmup) if config.warmup else 1.0
    return config.learning_rate * config.rate_factor**falls * rise
