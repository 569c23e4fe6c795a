"""Backpropagation through time: Adam on the cross-entropy of the read-out, of its mean or of every step.

The best epoch, by validation accuracy and then by validation loss, is kept; with a path it is
written as a checkpoint whenever it improves, so that stopping at any moment loses nothing. One
seed fixes the initial weights and the order of the samples: the same configuration gives the same
numbers.
"""

from __future__ import annotations

import math
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from snn_compile.compiler.quantization.inputs import message_scale
from snn_compile.runtime.data.registry import Dataset, load_data
from snn_compile.targets.errors import SnnCompileError, TrainingDiverged
from snn_compile.train.algorithms.batches import (
    EVALUATED,
    Score,
    check_classes,
    labelled,
    mirrored,
    samples,
    tensors,
)
from snn_compile.train.algorithms.training import Keeper, Observe, Progress, Training, single_thread
from snn_compile.train.checkpoints.checkpoint import load_checkpoint
from snn_compile.train.configs.bptt import RECURRENT, TrainConfig
from snn_compile.train.configs.recurrent import Recurrence
from snn_compile.train.networks.feedforward import LayerConfig, NetworkConfig, Run, SpikingNetwork
from snn_compile.train.networks.integer_formats import IntegerConfig
from snn_compile.train.networks.recurrent import RecurrentConfig, RecurrentNetwork

Network = SpikingNetwork | RecurrentNetwork

SCALED = 1000
"""Samples on which the scale of graded input is chosen."""

FORMATS_EVERY = 20
"""Batches between two choices of the scales of a network that computes in integers."""


def fit(config: TrainConfig, path: str | Path | None = None, observe: Observe | None = None) -> Training:
    """Train as `config` says, keep the best epoch, measure it on the test split.

    With `path` the best checkpoint is always there. On KeyboardInterrupt the best so far is
    returned, marked `interrupted` and not measured on the test split; before the first epoch has
    ended the interrupt is raised again. Raises TrainingDiverged when the loss is not finite,
    WrongInput for data without labels.
    """
    with single_thread():
        train = labelled(load_data(config.data, "train", **config.data_options()))
        _check_scored(config, train)
        validation = labelled(load_data(config.data, "validation", **config.data_options()))
        torch.manual_seed(config.seed)
        network = build_network(config, train)
        if config.init:
            _start_from(network, config.init)
        sample = torch.from_numpy(train.inputs[:1].copy()).float()
        settings = config.plain() | {"network": asdict(network.config)}
        keeper = Keeper(network, sample, settings, train.spec(), path)
        interrupted = False
        try:
            _epochs(config, network, train, validation, keeper, observe)
            keeper.restore()
            test = labelled(load_data(config.data, "test", **config.data_options()))
            keeper.metrics |= evaluate(network, test, config).metrics("test")
        except KeyboardInterrupt:
            if not keeper.restore():
                raise
            interrupted = True
        keeper.write()
    return Training(network, keeper.metrics, keeper.epochs, interrupted)


def _check_scored(config: TrainConfig, data: Dataset) -> None:
    if config.unscored >= data.inputs.shape[1]:
        raise SnnCompileError(
            f"training: unscored is {config.unscored}, and {data.name} has {data.inputs.shape[1]} steps: "
            "none is left to be scored; take fewer",
            key="unscored",
        )


def refined(config: TrainConfig, network: Network, train: Dataset, validation: Dataset) -> Network:
    """Train a network further, as `config` says, and return it at the best of these epochs."""
    sample = torch.from_numpy(train.inputs[:1].copy()).float()
    keeper = Keeper(network, sample, {}, None, None)
    _epochs(config, network, train, validation, keeper, None)
    keeper.restore()
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
    """Return what a deployed network reads, as `evaluate` does: every step, or the mean of those scored."""
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
        told = run.outputs if labels.ndim == 2 else run.outputs[:, config.unscored :].mean(dim=1)
        right += int((told.argmax(dim=-1) == labels[chosen]).sum())
        decided += labels[chosen].numel()
        sent = {name: sent.get(name, 0.0) + float(z.sum()) for name, z in run.spikes.items()}
    size = {name: math.prod(z.shape[2:]) for name, z in run.spikes.items()}
    times = inputs.shape[0] * inputs.shape[1]
    neurons = max(1, sum(size.values()))
    rates = {name: total / (times * size[name]) for name, total in sent.items()}
    return Score(right / decided, loss / len(inputs), sum(sent.values()) / (times * neurons), rates)


def _epochs(
    config: TrainConfig,
    network: Network,
    train: Dataset,
    validation: Dataset,
    keeper: Keeper,
    observe: Observe | None,
) -> None:
    inputs, labels = tensors(train)
    if config.flip and inputs.ndim != 5:
        raise SnnCompileError("flip: only images (channels, height, width) can be mirrored; use layout=image")
    order = torch.Generator().manual_seed(config.seed)
    batches = math.ceil(len(inputs) / config.batch_size)
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    schedule = _schedule(config, optimizer, config.epochs * batches + 1)
    spared = {"spikes": False} if isinstance(network, RecurrentNetwork) and not config.rate_weight else {}
    for epoch in range(1, config.epochs + 1):
        total = 0.0
        shuffled = torch.randperm(len(inputs), generator=order)
        for step in range(batches):
            chosen = shuffled[step * config.batch_size : (step + 1) * config.batch_size]
            if step % FORMATS_EVERY == 0:
                formats = network.formats()
            shown = samples(inputs, chosen)
            if config.flip:
                shown = mirrored(shown, torch.rand(len(chosen), generator=order) < 0.5)
            loss = _loss(config, network.run(shown, formats, **spared), labels[chosen])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            most = config.clip_norm or math.inf
            norm = float(nn.utils.clip_grad_norm_(network.parameters(), most))
            if not math.isfinite(norm) or not math.isfinite(float(loss.detach())):
                raise TrainingDiverged(
                    f"training: the loss is {float(loss.detach())} and its gradient {norm} at epoch {epoch}, "
                    f"step {step}; try a learning_rate below {config.learning_rate:g}",
                    epoch=epoch,
                    step=step,
                )
            optimizer.step()
            schedule.step()
            total += float(loss.detach()) * len(chosen)
        score = evaluate(network, validation, config)
        clamped = {"clamped_neurons": network.clamped()} if isinstance(network, RecurrentNetwork) else {}
        measured = {**score.metrics("validation"), "validation_loss": score.loss, **clamped}
        rank = (score.accuracy, -score.loss)
        improved = keeper.offer(epoch, rank, measured)
        if observe is not None:
            best = float(keeper.metrics["validation_accuracy"])
            mean = total / len(inputs)
            observe(Progress(epoch, config.epochs, mean, "accuracy", score.accuracy, best, rank, improved))


def _schedule(
    config: TrainConfig, optimizer: torch.optim.Optimizer, steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    if config.schedule == "linear":
        return torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps)
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.learning_rate, total_steps=steps, pct_start=0.2
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
