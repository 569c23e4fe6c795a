"""What `fit` guarantees for every algorithm: best epoch, reproducible numbers, interrupts, threads."""

from dataclasses import replace
from importlib import import_module

import pytest
import torch

from snn_compile.runtime.data.registry import load_data
from snn_compile.targets.errors import TrainingDiverged
from snn_compile.train import evaluate, load_checkpoint, read_config
from snn_compile.train.algorithms import equilibrium, fptt
from snn_compile.train.networks.blockwise import OnlineConfig, OnlineNetwork
from snn_compile.train.networks.feedback import FeedbackConfig, FeedbackNetwork
from snn_compile.train.networks.feedforward import NetworkConfig, SpikingNetwork

CONFIGS = {
    "bptt": read_config("digits", ["copies=0", "steps=6", "hidden=32", "epochs=4", "learning_rate=0.02"]),
    "equilibrium": read_config("fashion-fsnn", ["data=digits", "hidden=40", "epochs=4", "batch_size=32"]),
    "fptt": read_config(
        "add-task-fptt", ["steps=12", "sequences=640", "epochs=4", "hidden=24", "batch_size=32", "parts=3"]
    ),
    "reconstruction": read_config(
        "digits-reconstruct", ["copies=0", "epochs=2", "steps=4", "witnesses=64", "climbs=16"]
    ),
    "imitation": read_config(
        "cartpole-reconstruct",
        ["epochs=2", "witnesses=64", "climbs=8", "generations=2", "episodes=4", "states=800"],
    ),
}
CLASSES = {"equilibrium": (FeedbackConfig, FeedbackNetwork), "fptt": (OnlineConfig, OnlineNetwork)}
FIRST_CALL = {
    "bptt": (SpikingNetwork, "run"),
    "equilibrium": (FeedbackNetwork, "simulate"),
    "fptt": (fptt.ForwardPropagation, "update"),
}
SCORES = {
    "equilibrium": lambda network, data, config: equilibrium.score(network, data),
    "fptt": fptt.evaluate,
}
gradient_algorithms = pytest.mark.parametrize("algorithm", FIRST_CALL)
every_algorithm = pytest.mark.parametrize("algorithm", CONFIGS)


def fit(algorithm, path=None, observe=None, **changed):
    run = import_module(f"snn_compile.train.algorithms.{algorithm}").fit
    return run(replace(CONFIGS[algorithm], **changed), path, observe)


@gradient_algorithms
def test_the_checkpoint_is_the_best_epoch_and_gives_the_same_network(algorithm, tmp_path):
    path, seen = tmp_path / "model.pt", []
    training = fit(algorithm, path, seen.append)
    assert [p.epoch for p in seen] == [1, 2, 3, 4] == list(range(1, training.epochs + 1))
    ranks = [p.rank for p in seen]
    assert training.metrics["epoch"] == 1 + ranks.index(max(ranks))
    assert [p.improved for p in seen] == [
        all(r > before for before in ranks[:i]) for i, r in enumerate(ranks)
    ]
    assert [p.value for p in seen if p.improved][-1] == seen[-1].best
    checkpoint = load_checkpoint(path)
    assert checkpoint.metrics == training.metrics and checkpoint.config["algorithm"] == algorithm
    kind, network_class = CLASSES.get(algorithm, (NetworkConfig, SpikingNetwork))
    network = network_class(kind.from_dict(checkpoint.config["network"]))
    network.load_state_dict(dict(checkpoint.state_dict))
    test = load_data(checkpoint.data["name"], "test", **checkpoint.data["options"])
    score = SCORES.get(algorithm, evaluate)(network, test, CONFIGS[algorithm])
    assert score.value == training.metrics[f"test_{training.metric}"]
    assert score.spike_rates == training.metrics["spike_rates"]
    assert [p.name for p in tmp_path.iterdir()] == ["model.pt"]


@every_algorithm
def test_the_same_seed_gives_the_same_numbers_and_another_seed_others(algorithm):
    first, again, other = (fit(algorithm, epochs=1, seed=seed) for seed in (1, 1, 2))
    assert first.metrics == again.metrics != other.metrics
    states = (run.network.state_dict().values() for run in (first, again))
    assert all(torch.equal(a, b) for a, b in zip(*states, strict=True))


@every_algorithm
def test_an_interrupt_keeps_the_best_epoch(algorithm, tmp_path):
    def stop(progress):
        if progress.epoch == 2:
            raise KeyboardInterrupt

    path = tmp_path / "model.pt"
    training = fit(algorithm, path, stop)
    assert training.interrupted and training.epochs == 2
    assert f"test_{training.metric}" not in training.metrics
    checkpoint = load_checkpoint(path)
    assert checkpoint.metrics == training.metrics and checkpoint.metrics["epoch"] in (1, 2)
    kept = dict(checkpoint.state_dict)
    assert all(torch.equal(value, kept[key]) for key, value in training.network.state_dict().items())
    assert [p.name for p in tmp_path.iterdir()] == ["model.pt"]


@gradient_algorithms
def test_an_interrupt_before_the_first_epoch_writes_nothing(algorithm, tmp_path, monkeypatch):
    def stop(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(*FIRST_CALL[algorithm], stop)
    with pytest.raises(KeyboardInterrupt):
        fit(algorithm, tmp_path / "model.pt")
    assert not list(tmp_path.iterdir())


@every_algorithm
def test_the_number_of_threads_is_restored(algorithm):
    threads = torch.get_num_threads()
    fit(algorithm, epochs=1)
    assert torch.get_num_threads() == threads


def test_a_loss_that_is_not_finite_stops_with_its_place():
    with pytest.raises(TrainingDiverged, match="loss is .*(nan|inf).* at epoch 1, step .*learning_rate"):
        fit("bptt", logit_scale=1e30, learning_rate=1e30)
    with pytest.raises(TrainingDiverged, match="loss is .* at epoch 1, step .*learning_rate"):
        fit("equilibrium", batch_norm=False, learning_rate=1e30)
