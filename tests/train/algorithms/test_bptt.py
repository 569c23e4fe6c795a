import numpy as np
import pytest
import torch

from snn_compile.runtime.data.dataset import split_indices
from snn_compile.runtime.data.registry import load_data
from snn_compile.targets.errors import SnnCompileError, WrongInput
from snn_compile.train import evaluate, fit, load_checkpoint, read_config
from snn_compile.train.networks.feedforward import NetworkConfig, SpikingNetwork

QUICK = ["copies=0", "steps=6", "hidden=32", "epochs=4", "learning_rate=0.02"]


@pytest.fixture
def config():
    return read_config("digits", QUICK)


def test_training_learns_and_the_checkpoint_is_the_best_epoch(config, tmp_path):
    path, seen = tmp_path / "model.pt", []
    training = fit(config, path, seen.append)
    assert [p.epoch for p in seen] == [1, 2, 3, 4] == list(range(1, training.epochs + 1))
    assert training.metrics["test_accuracy"] > 0.8
    ranks = [p.rank for p in seen]
    assert training.metrics["epoch"] == 1 + ranks.index(max(ranks))
    assert [p.improved for p in seen] == [r > max(ranks[:i], default=(-1, -1)) for i, r in enumerate(ranks)]
    checkpoint = load_checkpoint(path)
    assert checkpoint.metrics == training.metrics
    network = SpikingNetwork(NetworkConfig.from_dict(checkpoint.config["network"]))
    network.load_state_dict(dict(checkpoint.state_dict))
    test = load_data(checkpoint.data["name"], "test", **checkpoint.data["options"])
    score = evaluate(network, test, config)
    assert score.accuracy == training.metrics["test_accuracy"]
    assert score.spike_rate == training.metrics["spike_rate"]
    assert [p.name for p in tmp_path.iterdir()] == ["model.pt"]


def test_the_same_seed_gives_the_same_numbers_and_another_seed_others():
    def run(seed):
        short = ["layout=rows", "epochs=2", "hidden=24", f"seed={seed}"]
        return fit(read_config("digits-recurrent", [*short, "copies=0"]))

    first, again, other = run(1), run(1), run(2)
    assert first.metrics == again.metrics
    for a, b in zip(first.network.parameters(), again.network.parameters(), strict=True):
        assert torch.equal(a, b)
    assert first.metrics != other.metrics


def test_threads_and_the_global_state_are_given_back(config):
    threads = torch.get_num_threads()
    fit(read_config("digits", [*QUICK, "epochs=1"]))
    assert torch.get_num_threads() == threads


def test_an_interrupt_keeps_the_best_epoch(config, tmp_path):
    def stop(progress):
        if progress.epoch == 2:
            raise KeyboardInterrupt

    path = tmp_path / "model.pt"
    training = fit(config, path, stop)
    assert training.interrupted and training.epochs == 2
    assert "test_accuracy" not in training.metrics
    checkpoint = load_checkpoint(path)
    assert checkpoint.metrics == training.metrics and checkpoint.metrics["epoch"] in (1, 2)
    assert [p.name for p in tmp_path.iterdir()] == ["model.pt"]


def test_an_interrupt_before_the_first_epoch_writes_nothing(config, tmp_path, monkeypatch):
    def stop(self, inputs, formats):
        raise KeyboardInterrupt

    monkeypatch.setattr(SpikingNetwork, "run", stop)
    with pytest.raises(KeyboardInterrupt):
        fit(config, tmp_path / "model.pt")
    assert not list(tmp_path.iterdir())


def test_a_loss_that_is_not_finite_stops_with_its_place(config):
    wild = read_config("digits", [*QUICK, "logit_scale=1e30", "learning_rate=1e30"])
    with pytest.raises(SnnCompileError, match="loss is .*(nan|inf).* at epoch 1, step .*learning_rate"):
        fit(wild)


def test_spike_rate_regularisation_lowers_the_rate(config):
    regularised = read_config("digits", [*QUICK, "rate_weight=50", "rate_target=0.05"])
    assert fit(regularised).metrics["spike_rate"] < 0.8 * fit(config).metrics["spike_rate"]


def test_training_on_a_file(tmp_path):
    digits = load_data("digits", "test", steps=5)
    path = tmp_path / "mine.npz"
    np.savez(path, inputs=digits.inputs.reshape(360, 5, 8, 8), labels=digits.labels)
    short = ["epochs=8", "hidden=32", "learning_rate=0.02", "batch_size=16", f"data={path}"]
    training = fit(read_config("digits", short), tmp_path / "model.pt")
    assert training.metrics["test_accuracy"] > 0.5
    assert "flatten" in load_checkpoint(tmp_path / "model.pt").graph.nodes
    np.savez(path, inputs=digits.inputs)
    with pytest.raises(WrongInput, match="no labels"):
        fit(read_config("digits", short))


def test_a_class_that_only_other_splits_have_is_told(tmp_path):
    rng = np.random.default_rng(1)
    labels = np.zeros(40, int)
    validation = split_indices(40, "validation")
    labels[validation] = 2
    np.savez(tmp_path / "some.npz", inputs=rng.random((40, 3, 4)), labels=labels)
    config = read_config("digits", [f"data={tmp_path / 'some.npz'}", "epochs=1", "hidden=4"])
    with pytest.raises(WrongInput, match="its validation split has class 2 and the network, .* 1 classes"):
        fit(config)
