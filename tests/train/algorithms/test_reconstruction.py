"""Reconstruction as a training: its objective, its networks, and their way to the chip."""

import json

import numpy as np
import pytest
import torch

from snn_compile.targets.errors import SnnCompileError
from snn_compile.train import cli, load_checkpoint, read_config
from snn_compile.train.algorithms.reconstruction import _Problem, _witnesses, fit, network_of
from snn_compile.train.convex.reconstruction import reconstruct
from snn_compile.train.convex.witnesses import SpikingUnit, columns
from snn_compile.train.networks.feedforward import NetworkConfig, SpikingNetwork

QUICK = ["copies=0", "epochs=3", "steps=4", "witnesses=64", "climbs=16", "penalty=1e-3"]


@pytest.fixture(scope="module")
def hybrid(tmp_path_factory):
    path, seen = tmp_path_factory.mktemp("hybrid") / "model.pt", []
    options = [*QUICK, "witnesses=0", "hidden=24", "start_epochs=2", "tune_epochs=1"]
    return fit(read_config("digits-reconstruct", options), path, seen.append), path, seen


def test_the_objective_never_rises_and_is_below_that_of_the_start(hybrid):
    training, _, seen = hybrid
    losses = [p.train_loss for p in seen]
    assert [p.epoch for p in seen] == [1, 2, 3]
    assert all(b <= a * (1 + 1e-6) for a, b in zip(losses, losses[1:], strict=False))
    metrics = training.metrics
    assert metrics["objective"] < metrics["start_objective"]
    assert metrics["certificate"] == "dictionary" and 0 <= metrics["relative_gap"] <= 1e-6
    assert metrics["test_accuracy"] > 0.8 and metrics["neurons"] >= 10


def test_the_checkpoint_is_the_network_and_compiles(hybrid, tmp_path, capsys):
    from snn_compile.compiler import cli as compile_cli
    from snn_compile.runtime import cli as run_cli

    training, path, _ = hybrid
    held = load_checkpoint(path)
    network = SpikingNetwork(NetworkConfig.from_dict(held.config["network"]))
    network.load_state_dict(dict(held.state_dict))
    x = torch.rand(5, 4, 64)
    assert torch.equal(network(x), training.network(x)) and held.metrics == training.metrics
    program = tmp_path / "program.snn"
    assert compile_cli.main([str(path), "--target", "loihi2-sim", "--json", "-o", str(program)]) == 0
    accuracy = json.loads(capsys.readouterr().out)["accuracy"]
    assert accuracy["float"] == pytest.approx(training.metrics["test_accuracy"], abs=1 / 300)
    assert abs(accuracy["drop"]) < 3
    for device in ("oracle", "lava"):
        arguments = ["--data", "digits", "--samples", "10", "--check", "--device", device, "--json"]
        assert run_cli.main([str(program), *arguments]) == 0
        assert json.loads(capsys.readouterr().out)["check"]["equal"] is True


@pytest.mark.parametrize("reset", ["value", "subtract"])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_network_says_what_was_reconstructed(reset, seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(120, 5, 4))
    y = np.eye(3)[rng.integers(0, 3, 120)] - 1 / 3
    made = reconstruct(x, y, SpikingUnit(0.7, reset, "leaky", 0.8), 0.5, fresh=40, rounds=2, climbs=4)
    network = network_of(made, 5)
    with torch.no_grad():
        run = network.run(torch.from_numpy(x).float())
    assert np.abs(run.outputs.mean(dim=1).numpy() - made.predict(x)).max() < 1e-5
    assert len(made.witnesses) > 3
    again = columns(x, _witnesses(network), made.unit)
    assert np.abs(again - made.columns(x)).max() < 1e-6


def test_a_deep_network_keeps_its_lower_layers():
    options = [*QUICK, "epochs=2", "hidden=20,16", "start_epochs=2", "witnesses=32"]
    training = fit(read_config("digits-reconstruct", options))
    network = training.network
    sizes = [layer.size for layer in network.config.layers]
    assert sizes == [20, training.metrics["neurons"], 10]
    assert training.metrics["objective"] < training.metrics["start_objective"]
    assert training.metrics["test_accuracy"] > max(0.5, training.metrics["start_accuracy"])


def test_the_problem_is_centred_and_still_inputs_are_kept_once():
    config = read_config("digits-reconstruct", QUICK)
    from snn_compile.runtime.data.registry import load_data

    problem = _Problem(config, load_data("digits", "train", **config.data_options()), None)
    assert np.allclose(problem.targets.sum(axis=1), 0)
    assert problem.inputs.strides[1] == 0 and problem.inputs.shape[1:] == (4, 64)


def test_the_command_prints_objective_gap_and_certificate(tmp_path, capsys):
    arguments = [f"--set={each}" for each in [*QUICK, "epochs=1"]]
    path = tmp_path / "model.pt"
    assert cli.main(["digits-reconstruct", "-o", str(path), "--json", *arguments]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["metric"]["name"] == "accuracy" and result["certificate"] == "dictionary"
    assert 0 <= result["gap"] <= 1e-6 * result["objective"]


@pytest.mark.parametrize(
    "override, says",
    [
        ("penalty=0", "a positive number"),
        ("witnesses=0", "at least 1 without start_epochs"),
        ("tune_epochs=1", "with several hidden layers, or with tune_epochs"),
        ("hidden=8,8", "with several hidden layers"),
        ("reset=none", "one of value, subtract"),
    ],
)
def test_wrong_values_are_told(override, says):
    with pytest.raises(SnnCompileError, match=says):
        read_config("digits-reconstruct", [override])
