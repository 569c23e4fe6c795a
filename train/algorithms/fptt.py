"""Training by forward propagation through time (FPTT), of classes or of numbers.

One update is defined in `fptt_update.py`. An epoch is one pass through the training sequences; when it
begins, the stored gradients are cleared and the running means set to the weights. The best epoch, by
validation accuracy or mean squared error, is kept. The prediction for
a sequence is the output at the last step; for data with a class at every step, all outputs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from snn_compile.runtime.data.registry import Dataset, load_data, option_names
from snn_compile.targets.errors import WrongInput
from snn_compile.train.algorithms import gradient_training
from snn_compile.train.algorithms.batches import samples
from snn_compile.train.algorithms.fptt_losses import Classes, Numbers, Objective, block_weight
from snn_compile.train.algorithms.fptt_update import ForwardPropagation
from snn_compile.train.algorithms.gradient_training import GradientTraining
from snn_compile.train.algorithms.training import Observe, Training
from snn_compile.train.configs.fptt import FpttConfig
from snn_compile.train.networks.blocks import cuts, run_block
from snn_compile.train.networks.blockwise import OnlineConfig, OnlineNetwork
from snn_compile.train.networks.feedforward import LayerConfig, NetworkConfig, SpikingNetwork
from snn_compile.train.networks.recurrent import RecurrentConfig, RecurrentNetwork

EVALUATED = 250
"""Sequences evaluated at a time."""

Network = OnlineNetwork | RecurrentNetwork | SpikingNetwork

_OPTIMIZERS = {"adam": torch.optim.Adam, "adamax": torch.optim.Adamax, "sgd": torch.optim.SGD}


@dataclass(frozen=True)
class SplitMetrics:
    """Metrics of a network on one split: `value` of `metric`, and spikes per neuron and step."""

    metric: str
    value: float
    spike_rates: dict[str, float]
    spike_rate: float

    def metrics(self, split: str) -> dict[str, Any]:
        """Return the value under the name of its split, and the spike rates."""
        rates = {"spike_rate": self.spike_rate, "spike_rates": self.spike_rates}
        return {f"{split}_{self.metric}": self.value, **rates}

    def rank(self) -> tuple[float]:
        """Return the rank among epochs: higher accuracy, or lower mean squared error."""
        return (self.value if self.metric == "accuracy" else -self.value,)


class _Fptt(GradientTraining[FpttConfig, Network, SplitMetrics]):
    """Training by forward propagation through time, with an update after every block of steps."""

    def __init__(self, config: FpttConfig, network: Network, train: Dataset) -> None:
        super().__init__(config, network, train)
        self.trainer = trainer_of(config, network, train)
        self.schedule = schedule_of(config, self.trainer.optimizer, config.epochs * self.batches)
        steps = train.inputs.shape[1]
        blocks = len(cuts(steps, config.steps_of_block(steps)))
        regresses = train.targets is not None
        self.last_weight = block_weight(config.block_weight, blocks - 1, blocks) if regresses else 1.0

    @classmethod
    def load(cls, config: FpttConfig, split: str, epoch: int = 0) -> Dataset:
        """Return a split; with an epoch, training sequences drawn for that epoch alone."""
        options = config.data_options()
        if epoch:
            if "seed" not in option_names(config.data):
                raise WrongInput(f"data {config.data}: fresh, but nothing in it is drawn; use fresh=false")
            options["seed"] = (config.seed << 20) + epoch
        return _supervised(load_data(config.data, split, **options))

    @classmethod
    def build(cls, config: FpttConfig, train: Dataset) -> Network:
        """Return the untrained network."""
        return build_network(config, train)

    def tensors(self, data: Dataset) -> tuple[Tensor, Tensor]:
        """Return inputs, and labels or target numbers."""
        return _tensors(data)

    def begin_epoch(self, epoch: int, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Clear the stored gradients; with `fresh`, draw the sequences anew."""
        if self.config.fresh:
            inputs, targets = _tensors(self.load(self.config, "train", epoch))
        self.trainer.restart()
        return inputs, targets

    def update(self, inputs: Tensor, targets: Tensor, epoch: int, batch: int) -> float:
        """Update the weights once per block; the loss is that of the last block, without its weight."""
        loss = self.trainer.update(inputs, targets).loss / self.last_weight
        self.schedule.step()
        return loss

    def evaluate(self, data: Dataset) -> SplitMetrics:
        """Return the metrics of the network on a split."""
        return evaluate(self.network, data, self.config)

    def epoch_metrics(self, found: SplitMetrics) -> dict[str, Any]:
        """Return the numbers of updates and, for recurrent networks, of neurons at the boundary."""
        network = self.network
        clamped = {"clamped_neurons": network.clamped()} if isinstance(network, RecurrentNetwork) else {}
        return {"updates": self.trainer.sequences, "weight_updates": self.trainer.updates, **clamped}


def fit(config: FpttConfig, path: str | Path | None = None, observe: Observe | None = None) -> Training:
    """Train as `config` says, keep the best epoch and measure it on the test split.

    Paths and interrupts are those of `bptt.fit`. Raises TrainingDiverged when a loss is not finite, naming
    update and block, and the best checkpoint stays; WrongInput for data with neither labels nor targets.
    """
    return gradient_training.fit(_Fptt, config, path, observe)


def build_network(config: FpttConfig, data: Dataset) -> Network:
    """Return the untrained network of `config` for the shapes and targets of `data`."""
    shape, outputs = tuple(data.inputs.shape[2:]), _outputs(_supervised(data))
    reads = (
        "per_step" if data.targets is None and data.labels is not None and data.labels.ndim == 2 else "last"
    )
    task = "classify" if data.targets is None else "regress"
    if config.neuron == "brf":
        inputs, hidden = math.prod(shape), config.hidden[0]
        return RecurrentNetwork(RecurrentConfig(inputs, hidden, outputs, readout=reads, task=task))
    if config.neuron == "lif":
        layers = [LayerConfig(size, recurrent=config.recurrent) for size in config.hidden]
        layers.append(LayerConfig(outputs, "li"))
        return SpikingNetwork(NetworkConfig(shape, tuple(layers), readout=reads, task=task))
    shared = "neuron channels kernel stride gate hidden recurrent adaptive start readout tau_readout"
    values = {key: getattr(config, key) for key in shared.split()}
    return OnlineNetwork(OnlineConfig(shape, outputs, **values, reads=reads, task=task))


def trainer_of(config: FpttConfig, network: nn.Module, data: Dataset) -> ForwardPropagation:
    """Return the trainer of a network on the sequences of `data`."""
    steps = data.inputs.shape[1]
    block = config.steps_of_block(steps)
    objective: Objective = Numbers(config.block_weight)
    if data.targets is None:
        objective = Classes(_outputs(data), len(cuts(steps, block)), config.auxiliary)
    optimizer = _OPTIMIZERS[config.optimizer](network.parameters(), lr=config.learning_rate)
    return ForwardPropagation(
        network,
        optimizer,
        objective,
        block,
        alpha=config.alpha,
        beta=config.beta,
        form=config.form,
        clip_norm=config.clip_norm,
    )


def schedule_of(
    config: FpttConfig, optimizer: torch.optim.Optimizer, updates: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """Return the schedule of the learning rate over so many batches of sequences."""
    end = 0.0 if config.schedule == "linear" else 1.0
    return torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, end, total_iters=updates)


def evaluate(network: nn.Module, data: Dataset, config: FpttConfig) -> SplitMetrics:
    """Return how a network does on data with labels or targets, in blocks as it was trained.

    Random states start the same every time.
    """
    inputs, wanted = _tensors(_supervised(data))
    block = config.steps_of_block(inputs.shape[1])
    total, decided, size = 0.0, 0, {}
    sent: dict[str, float] = {}
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for first in range(0, len(inputs), EVALUATED):
            chosen, states = slice(first, first + EVALUATED), None
            for part in cuts(inputs.shape[1], block):
                made = run_block(network, samples(inputs, chosen)[:, part], states)
                states = made.states
                for name, z in made.spikes.items():
                    sent[name] = sent.get(name, 0.0) + float(z.sum(dtype=torch.float64))
                    size[name] = math.prod(z.shape[2:])
                if wanted.ndim == 2 and data.targets is None:
                    total += float((made.outputs.argmax(-1) == wanted[chosen, part]).sum())
            predicted, right = made.outputs[:, -1], wanted[chosen]
            decided += right.numel()
            if data.targets is not None:
                total += float((predicted - right).square().sum(dtype=torch.float64))
            elif right.ndim == 1:
                total += float((predicted.argmax(-1) == right).sum())
    seen = len(inputs) * inputs.shape[1]
    rates = {name: count / (seen * size[name]) for name, count in sent.items()}
    mean = sum(sent.values()) / (seen * sum(size.values())) if sent else 0.0
    return SplitMetrics(_metric(data), total / decided, rates, mean)


def _supervised(data: Dataset) -> Dataset:
    if data.labels is None and data.targets is None:
        raise WrongInput(
            f"data {data.name}: holds neither labels nor targets, and training needs them; add an array "
            "'labels' (batch,)"
        )
    return data


def _outputs(data: Dataset) -> int:
    if data.targets is not None:
        return int(data.targets.shape[1])
    assert data.labels is not None
    return 1 + int(data.labels.max())


def _metric(data: Dataset) -> str:
    return "accuracy" if data.targets is None else "mse"


def _tensors(data: Dataset) -> tuple[Tensor, Tensor]:
    """Return inputs and targets; an input that is the same at every step is stored once."""
    values = data.inputs
    still = values.shape[1] > 1 and values.strides[1] == 0
    inputs = torch.from_numpy((values[:, :1] if still else values).astype("float32")).expand(values.shape)
    if data.targets is not None:
        return inputs, torch.from_numpy(data.targets.astype("float32"))
    assert data.labels is not None
    return inputs, torch.from_numpy(data.labels.copy())
