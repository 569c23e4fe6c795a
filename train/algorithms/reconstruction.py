"""Reconstruction: the last hidden layer and the read-out of a network from a convex program.

The candidates are neurons drawn at random, found by column generation and, in the hybrid form, trained with
surrogate gradients; what each of them does on the training data is a column, and a group Lasso to a stated
duality gap chooses among them (`convex/reconstruction.py`). A round's candidates include those the round
before has kept, so that the regularised objective never rises, and in the hybrid form it is at most that of
the trained neurons with the best read-out there is for them. The certificate speaks of the candidates only,
because neurons here are reset. Source: Udupi, Yang, Zhai 2026; Ergen et al. 2023 for threshold units.
"""

from __future__ import annotations

import copy
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from snn_compile.runtime.data.registry import Dataset, load_data
from snn_compile.targets.errors import SnnCompileError
from snn_compile.train.algorithms import bptt
from snn_compile.train.algorithms.batches import labelled, samples, tensors
from snn_compile.train.algorithms.training import BestCheckpoint, Observe, Training, single_thread
from snn_compile.train.configs.bptt import TrainConfig
from snn_compile.train.configs.reconstruction import ReconstructionConfig
from snn_compile.train.convex.group_lasso import group_lasso
from snn_compile.train.convex.reconstruction import Reconstruction, reconstruct
from snn_compile.train.convex.witnesses import SpikingUnit, columns
from snn_compile.train.networks.feedforward import LayerConfig, NetworkConfig, SpikingNetwork

Float = npt.NDArray[np.float64]

FED = 2000
"""Samples that go through the lower layers of a deep network at a time."""


def fit(
    config: ReconstructionConfig, path: str | Path | None = None, observe: Observe | None = None
) -> Training:
    """Reconstruct as `config` says, keep the last round, measure it on the test split.

    `metrics` has objective, gap and certificate, the number of `neurons` and, in the hybrid form,
    `start_accuracy` (test split) and `start_objective` of the network it started from. On KeyboardInterrupt
    the last whole round is returned, marked `interrupted`; before the first has ended the interrupt is
    raised again. Raises WrongInput for data without labels of samples, SnnCompileError where the gap is not
    reached.
    """
    with single_thread():
        return _fit(config, path, observe)


def _fit(config: ReconstructionConfig, path: str | Path | None, observe: Observe | None) -> Training:
    train, validation = (_data(config, split) for split in ("train", "validation"))
    torch.manual_seed(config.seed)
    gradients = _gradients(config)
    start = bptt.fit(gradients) if config.start_epochs else None
    lower = _lower(start)
    problem = _Problem(config, train, lower)
    best = BestCheckpoint(config, train, path=path)
    known: list[Float] = []
    start_metrics: dict[str, Any] = {}
    if start is not None:
        known = [_witnesses(start.network)]
        start_metrics["start_accuracy"] = start.metrics["test_accuracy"]
        start_metrics["start_objective"] = problem.objective(known[0])

    def run() -> None:
        given = known
        for number in range(1, config.epochs + 1):
            made = problem.solved(given, number)
            network = network_of(made, config.steps, lower)
            score = bptt.evaluate(network, validation, gradients)
            metrics = {**score.metrics("validation"), **start_metrics, **_metrics(made)}
            loss = made.objective / len(train.inputs)
            best.end_epoch(number, (float(number),), metrics, loss, score.metric, observe, network)
            if config.tune_epochs and number < config.epochs:
                known[:] = [_tuned(config, gradients, network, train, validation)]
            given = [*known, made.witnesses]
        best.metrics |= bptt.evaluate(network, _data(config, "test"), gradients).metrics("test")

    return best.until_interrupted(run)


def network_of(made: Reconstruction, steps: int, lower: SpikingNetwork | None = None) -> SpikingNetwork:
    """Return the network of a reconstruction with a leaky read-out, for inputs of `steps` steps.

    Its neurons read the last hidden layer but one of `lower`, which stays below them.
    """
    unit, weights = made.unit, made.witnesses
    below = () if lower is None else lower.config.layers[:-2]
    shape = (weights.shape[1] - 1,) if lower is None else lower.config.input_shape
    layers = (
        *below,
        LayerConfig(len(weights), beta=unit.decay, reset=unit.reset),
        LayerConfig(made.readout.shape[0], "li", beta=unit.readout_decay),
    )
    network = SpikingNetwork(NetworkConfig(shape, layers))
    state = network.state_dict()
    if lower is not None:
        held = lower.state_dict()
        state |= {key: held[key] for key in state if key in held and held[key].shape == state[key].shape}
    first = len(below) + 1
    values = {
        f"layers.fc{first}.weight": weights[:, :-1],
        f"layers.fc{first}.bias": weights[:, -1],
        f"layers.fc{first + 1}.weight": made.readout,
        f"layers.fc{first + 1}.bias": made.offset / unit.shares(steps).sum(),
    }
    state |= {key: torch.as_tensor(value, dtype=state[key].dtype) for key, value in values.items()}
    network.load_state_dict(state)
    return network


class _Problem:
    """The training data as inputs of the layer to reconstruct, and the targets of its read-out."""

    def __init__(self, config: ReconstructionConfig, data: Dataset, lower: SpikingNetwork | None) -> None:
        self.config = config
        self.unit = SpikingUnit(config.decay, config.reset, "leaky", config.readout_decay)
        flat = (
            data.inputs.reshape(*data.inputs.shape[:2], -1) if data.inputs.strides[1] else _still(data.inputs)
        )
        self.inputs: npt.NDArray[np.generic] = flat if lower is None else _lower_spikes(lower, data)
        labels = np.asarray(data.labels)
        classes = int(labels.max()) + 1
        self.targets: Float = np.eye(classes)[labels] - 1.0 / classes
        self.beta = config.penalty * len(labels)

    def objective(self, witnesses: Float) -> float:
        """Return the objective of neurons with the best read-out there is for them."""
        made = columns(self.inputs, witnesses, self.unit)
        return group_lasso(made, self.targets, self.beta, tolerance=self.config.tolerance).objective

    def solved(self, given: list[Float], number: int) -> Reconstruction:
        """Return the next round, from the neurons that are given."""
        first = number == 1
        return reconstruct(
            self.inputs,
            self.targets,
            self.unit,
            self.beta,
            witnesses=np.concatenate(given) if given else None,
            fresh=self.config.witnesses if first else 0,
            rounds=1 if first else 2,
            climbs=self.config.climbs,
            tolerance=self.config.tolerance,
            seed=1000 * self.config.seed + number,
        )


def _still(inputs: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """Return inputs that are the same at every step as (samples, steps, size), kept once."""
    once = inputs[:, 0].reshape(len(inputs), 1, -1)
    return np.broadcast_to(once, (len(inputs), inputs.shape[1], once.shape[2]))


def _lower_spikes(lower: SpikingNetwork, data: Dataset) -> npt.NDArray[np.uint8]:
    """Return the spikes (samples, steps, size) of the last hidden layer but one."""
    inputs, _ = tensors(data)
    parts = []
    for first in range(0, len(inputs), FED):
        with torch.no_grad():
            spikes = list(lower.run(samples(inputs, slice(first, first + FED))).spikes.values())[-2]
        parts.append(spikes.flatten(2).numpy().astype(np.uint8))
    return np.concatenate(parts)


def _data(config: ReconstructionConfig, split: str) -> Dataset:
    data = labelled(load_data(config.data, split, **config.data_options()))
    if np.asarray(data.labels).ndim != 1:
        raise SnnCompileError(
            f"data {data.name}: has one label per step; reconstruction needs one per sample"
        )
    return data


def _gradients(config: ReconstructionConfig) -> TrainConfig:
    """Return the training by surrogate gradients of the same network on the same data."""
    shared = {key: getattr(config, key) for key in asdict(config) if key in TrainConfig.__dataclass_fields__}
    shared |= {"preset": "custom", "epochs": max(1, config.start_epochs), "beta": config.decay}
    return TrainConfig(**shared)


def _lower(start: Training | None) -> SpikingNetwork | None:
    if start is None or not isinstance(start.network, SpikingNetwork):
        return None
    return start.network if len(start.network.config.layers) > 2 else None


def _witnesses(network: torch.nn.Module) -> Float:
    """Return the neurons of the last hidden layer, rows (weights, bias) for a threshold of 1."""
    assert isinstance(network, SpikingNetwork)
    name = f"layers.fc{len(network.config.layers) - 1}"
    state = network.state_dict()
    both = torch.cat([state[f"{name}.weight"], state[f"{name}.bias"][:, None]], dim=1)
    return both.double().numpy()


def _tuned(
    config: ReconstructionConfig,
    gradients: TrainConfig,
    network: SpikingNetwork,
    train: Dataset,
    validation: Dataset,
) -> Float:
    """Return the neurons of a network that surrogate gradients have trained further, from where it is."""
    tuning = replace(gradients, epochs=config.tune_epochs, learning_rate=0.1 * config.learning_rate)
    return _witnesses(bptt.refined(tuning, copy.deepcopy(network), train, validation))


def _metrics(made: Reconstruction) -> dict[str, Any]:
    return {
        "neurons": len(made.witnesses),
        "objective": made.objective,
        "gap": made.gap,
        "relative_gap": made.gap / made.objective,
        "certificate": made.certificate,
    }
