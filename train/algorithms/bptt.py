"""Backpropagation through time: AdamW on the cross-entropy of the read-out's mean or of its every step.

The best epoch, by validation accuracy and then by validation loss, is kept. Labels are one per sample or one
per step; recurrent layers, convolutions and training in a chip's integers are options of TrainConfig.
"""

from __future__ import annotations

import math
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from snn_compile.compiler.quantization.inputs import message_scale
from snn_compile.runtime.data.registry import Dataset
from snn_compile.targets.errors import SnnCompileError
from snn_compile.train.algorithms import gradient_training
from snn_compile.train.algorithms.batches import EVALUATED, Score, check_classes, labelled, samples, tensors
from snn_compile.train.algorithms.gradient_training import GradientTraining
from snn_compile.train.algorithms.training import BestCheckpoint, Observe, Training
from snn_compile.train.checkpoints.checkpoint import load_checkpoint
from snn_compile.train.configs.bptt import TrainConfig
from snn_compile.train.configs.recurrent import RECURRENT, Recurrence
from snn_compile.train.networks.feedforward import LayerConfig, NetworkConfig, Run, SpikingNetwork
from snn_compile.train.networks.integer_formats import IntegerConfig
from snn_compile.train.networks.recurrent import RecurrentConfig, RecurrentNetwork

Network = SpikingNetwork | RecurrentNetwork

SCALED = 1000
"""Samples from which the scale of graded input is chosen."""

FORMATS_EVERY = 20
"""Batches after which the scales of a network in integers are chosen anew."""


class _Bptt(GradientTraining[TrainConfig, Network, Score]):
    """Training by backpropagation through time with AdamW and a schedule of the learning rate."""

    def __init__(self, config: TrainConfig, network: Network, train: Dataset) -> None:
        super().__init__(config, network, train)
        self.optimizer = torch.optim.AdamW(
            network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        self.schedule = _schedule(config, self.optimizer, config.epochs * self.batches + 1)
        unrecorded = isinstance(network, RecurrentNetwork) and not config.rate_weight
        self.options = {"spikes": False} if unrecorded else {}

    @classmethod
    def build(cls, config: TrainConfig, train: Dataset) -> Network:
        """Return the untrained network, or with `init` that of a checkpoint."""
        _check_scored(config, train)
        network = build_network(config, train)
        if config.init:
            _start_from(network, config.init)
        return network

    def update(self, inputs: Tensor, targets: Tensor, epoch: int, batch: int) -> float:
        """Make one step of the optimizer; formats of integers are chosen anew every FORMATS_EVERY batches."""
        if batch % FORMATS_EVERY == 0:
            self.formats = self.network.formats()
        loss = _loss(self.config, self.network.run(inputs, self.formats, **self.options), targets)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        most = self.config.clip_norm or math.inf
        norm = float(nn.utils.clip_grad_norm_(self.network.parameters(), most))
        value = float(loss.detach())
        if not math.isfinite(norm) or not math.isfinite(value):
            raise self.diverged(value, epoch, batch, norm)
        self.optimizer.step()
        self.schedule.step()
        return value

    def evaluate(self, data: Dataset) -> Score:
        """Return the score of the network on labelled data."""
        return evaluate(self.network, data, self.config)

    def epoch_metrics(self, found: Score) -> dict[str, Any]:
        """Return the loss and, for recurrent networks, the number of neurons at the divergence boundary."""
        network = self.network
        clamped = {"clamped_neurons": network.clamped()} if isinstance(network, RecurrentNetwork) else {}
        return {"validation_loss": found.loss, **clamped}


def fit(config: TrainConfig, path: str | Path | None = None, observe: Observe | None = None) -> Training:
    """Train as `config` says, keep the best epoch and measure it on the test split.

    With `path` the best checkpoint is written whenever it improves. After a KeyboardInterrupt the best epoch
    so far is returned, marked `interrupted` and not measured on the test split; if no epoch has ended by then
    the interrupt is raised again. Raises TrainingDiverged when the loss is not finite, WrongInput for data
    without labels.
    """
    return gradient_training.fit(_Bptt, config, path, observe)


def _check_scored(config: TrainConfig, data: Dataset) -> None:
    if config.unscored >= data.inputs.shape[1]:
        raise SnnCompileError(
            f"training: unscored is {config.unscored}, and {data.name} has {data.inputs.shape[1]} steps: "
            "none is left to be scored; take fewer",
            key="unscored",
        )


def refined(config: TrainConfig, network: Network, train: Dataset, validation: Dataset) -> Network:
    """Train a network further, as `config` says, and return it in the state of the best of these epochs."""
    best = BestCheckpoint(config, train, network)
    _Bptt(config, network, train).run(validation, best)
    best.restore()
    return network


def build_network(config: TrainConfig, data: Dataset) -> Network:
    """Return the untrained network that `config` asks for on the shapes and classes of `data`."""
    if config.neuron in RECURRENT:
        return RecurrentNetwork(recurrent_config(config, data))
    return SpikingNetwork(network_config(config, data))


def recurrent_config(config: TrainConfig, data: Dataset) -> RecurrentConfig:
    """Return the recurrent layer that `config` asks for on the shapes and classes of `data`."""
    values = {f.name: getattr(config, f.name) for f in fields(Recurrence)}
    inputs, labels = math.prod(data.inputs.shape[2:]), np.asarray(labelled(data).labels)
    values |= {"classes": 1 + int(labels.max()), **_read(config, labels)}
    return RecurrentConfig(inputs=inputs, hidden=config.hidden[0], **values)


def network_config(config: TrainConfig, data: Dataset) -> NetworkConfig:
    """Return the layers that `config` asks for on the shapes and classes of `data`."""
    shared: dict[str, Any] = {"bias": config.bias, "learn_decay": config.learn_decay}
    spiking: dict[str, Any] = {
        "neuron": config.neuron,
        "alpha": config.alpha,
        "beta": config.beta,
        "threshold": config.threshold,
        "reset": config.reset,
        "surrogate": config.surrogate,
        "detach_reset": config.detach_reset,
        **shared,
    }
    window: dict[str, Any] = {"kernel": config.kernel, "stride": config.stride, "padding": config.kernel // 2}
    convolutions = [
        LayerConfig(size, **window, pool=config.pool if number else 1, **spiking)
        for number, size in enumerate(config.channels)
    ]
    hidden = [LayerConfig(size, recurrent=config.recurrent, **spiking) for size in config.hidden]
    layers = [*convolutions, *hidden]
    labels = np.asarray(labelled(data).labels)
    classes = 1 + int(labels.max())
    layers.append(LayerConfig(classes, "li", beta=config.readout_decay, **shared))
    if config.channels:
        last = len(convolutions)
        layers[last] = replace(layers[last], pool=config.pool)
    shape, read = tuple(data.inputs.shape[2:]), _read(config, labels)
    return NetworkConfig(shape, tuple(layers), _integers(config, data), **read)


def _read(config: TrainConfig, labels: npt.NDArray[np.generic]) -> dict[str, Any]:
    """Return the deployed network's read-out, as in `evaluate`: every step, or the mean of scored ones."""
    return {"readout": "per_step"} if labels.ndim == 2 else {"readout": "mean", "skip": config.unscored}


def _integers(config: TrainConfig, data: Dataset) -> IntegerConfig | None:
    """Return the integers to train in: the input's encoding fits `data`, its scale some samples of it."""
    if not config.weight_bits:
        return None
    shared: dict[str, Any] = {"weight_bits": config.weight_bits, "tables": config.tables}
    low, high = float(data.inputs.min()), float(data.inputs.max())
    some = np.append(data.inputs[:SCALED], [low, high])
    if np.isin(some, (0.0, 1.0)).all() and np.isin(data.inputs, (0.0, 1.0)).all():
        return IntegerConfig(**shared)
    return IntegerConfig(
        **shared,
        input_scale=message_scale(some, config.input_bits),
        input_bits=config.input_bits,
        input_signed=low < 0,
    )


def _start_from(network: Network, path: str) -> None:
    """Load the parameters of a checkpoint into a network; raises SnnCompileError if they do not fit."""
    try:
        network.load_state_dict(dict(load_checkpoint(path).state_dict))
    except RuntimeError as error:
        reason = " ".join(str(error).split()).partition(": ")[2]
        raise SnnCompileError(
            f"init={path}: its parameters are not those of the network to train ({reason[:200]}); give the "
            "layers it was trained with",
            path=path,
        ) from error


def evaluate(network: Network, data: Dataset, config: TrainConfig) -> Score:
    """Return the score of a network on labelled data; with a label for every step, over all steps."""
    inputs, labels = tensors(labelled(data))
    right, decided, loss, formats = 0, 0, 0.0, network.formats()
    sent: dict[str, float] = {}
    for first in range(0, len(inputs), EVALUATED):
        chosen = slice(first, first + EVALUATED)
        with torch.no_grad():
            run = network.run(samples(inputs, chosen), formats)
            check_classes(data, labels[chosen], run.outputs.shape[-1])
            loss += float(_cross_entropy(config, run.outputs, labels[chosen])) * len(run.outputs)
        predicted = run.outputs if labels.ndim == 2 else run.outputs[:, config.unscored :].mean(dim=1)
        right += int((predicted.argmax(dim=-1) == labels[chosen]).sum())
        decided += labels[chosen].numel()
        sent = {name: sent.get(name, 0.0) + float(z.sum()) for name, z in run.spikes.items()}
    size = {name: math.prod(z.shape[2:]) for name, z in run.spikes.items()}
    times = inputs.shape[0] * inputs.shape[1]
    neurons = max(1, sum(size.values()))
    rates = {name: total / (times * size[name]) for name, total in sent.items()}
    return Score(right / decided, loss / len(inputs), sum(sent.values()) / (times * neurons), rates)


def _schedule(
    config: TrainConfig, optimizer: torch.optim.Optimizer, steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    if config.schedule == "linear":
        return torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps)
    rise = 0.25 if steps == 5 else 0.2  # with 0.2 of 5 steps torch divides by a phase of no length
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.learning_rate, total_steps=steps, pct_start=rise
    )


def _cross_entropy(config: TrainConfig, outputs: Tensor, labels: Tensor) -> Tensor:
    """Return the mean over samples of the loss of one: of its mean read-out, or summed over its steps."""
    outputs = config.logit_scale * outputs[:, config.unscored :]
    if config.loss == "mean" and labels.ndim == 1:
        return nn.functional.cross_entropy(outputs.mean(dim=1), labels)
    batch, steps, classes = outputs.shape
    wanted = labels[:, None].expand(-1, steps) if labels.ndim == 1 else labels[:, config.unscored :]
    flat = outputs.reshape(-1, classes), wanted.reshape(-1)
    return nn.functional.cross_entropy(*flat, reduction="sum") / batch


def _loss(config: TrainConfig, run: Run, labels: Tensor) -> Tensor:
    loss = _cross_entropy(config, run.outputs, labels)
    if config.rate_weight:
        for spikes in run.spikes.values():
            excess = spikes.mean(dim=(0, 1)) - config.rate_target
            loss = loss + config.rate_weight * excess.clamp(min=0).square().mean()
    return loss
