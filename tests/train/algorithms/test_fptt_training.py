"""Whole trainings by FPTT: they learn, repeat themselves, and lose nothing when they stop."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from support import idx_images

from snn_compile.runtime.data.registry import load_data
from snn_compile.targets.errors import SnnCompileError, WrongInput
from snn_compile.train import cli, load_checkpoint
from snn_compile.train.algorithms import fptt
from snn_compile.train.configs.fptt import FpttConfig
from snn_compile.train.configs.presets import config_from, read_config
from snn_compile.train.networks.blockwise import OnlineConfig, OnlineNetwork

ADD = read_config(
    "add-task-fptt", ["steps=12", "sequences=640", "epochs=3", "hidden=24", "batch_size=32", "parts=3"]
)
DIGITS = FpttConfig(layout="rows", hidden=(32,), readout="liquid", parts=4, epochs=1, batch_size=64)


def test_the_add_task_is_learned_and_the_checkpoint_gives_the_same_network(tmp_path):
    path, seen = tmp_path / "model.pt", []
    training = fptt.fit(replace(ADD, epochs=8), path, seen.append)
    assert training.metric == "mse" and training.metrics["test_mse"] < 0.12 < 1 / 6
    assert [p.epoch for p in seen] == list(range(1, 9)) and min(p.value for p in seen) == seen[-1].best
    assert training.metrics["updates"] == 20 * training.metrics["epoch"]
    assert training.metrics["weight_updates"] == 3 * training.metrics["updates"]
    held = load_checkpoint(path)
    assert held.graph is None and "readout=leaky has one" in held.unexported
    network = OnlineNetwork(OnlineConfig.from_dict(held.config["network"]))
    network.load_state_dict(dict(held.state_dict))
    data = load_data(held.data["name"], "test", **held.data["options"])
    config = config_from({k: v for k, v in held.config.items() if k != "network"}, "checkpoint")
    assert config == replace(ADD, epochs=8)
    assert fptt.evaluate(network, data, config).value == held.metrics["test_mse"]
    with torch.no_grad():
        said = network(torch.from_numpy(data.inputs[:50].astype("float32")))[:, -1].numpy()
    assert np.mean((said - data.targets[:50]) ** 2) < 0.15


@pytest.mark.parametrize("neuron", ["lsn", "alif", "lstm", "brf", "lif"])
def test_every_neuron_trains_on_classes_and_repeats_itself(neuron):
    config = replace(DIGITS, neuron=neuron, readout="liquid" if neuron == "lsn" else "membrane")
    first, second = (fptt.fit(config) for _ in range(2))
    assert first.metric == "accuracy" and first.metrics == second.metrics
    for a, b in zip(first.network.state_dict().values(), second.network.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_liquid_neurons_learn_digits_row_by_row():
    training = fptt.fit(replace(DIGITS, epochs=8, hidden=(48,), alpha=0.1))
    assert training.metrics["test_accuracy"] > 0.5
    assert 0.01 < training.metrics["spike_rate"] < 0.9


def test_convolutions_train_on_still_images_with_random_states(tmp_path):
    idx_images.write_set(tmp_path)
    config = read_config(
        "fashion-lsn-fptt",
        [f"data=fashion-mnist:{tmp_path}", "steps=3", "channels=2,3", "hidden=6", "epochs=1", "start=random"],
    )
    training = fptt.fit(config)
    assert set(training.metrics["spike_rates"]) == {"hidden1", "hidden2", "hidden3"}
    data = load_data(config.data, "test", **config.data_options())
    again = [fptt.evaluate(training.network, data, config).value for _ in range(2)]
    assert again[0] == again[1] == training.metrics["test_accuracy"]


def test_a_class_at_every_step(tmp_path):
    rng = np.random.default_rng(0)
    inputs = rng.random((400, 12, 3)) < 0.3
    np.savez(tmp_path / "steps.npz", inputs=inputs.astype(float), labels=inputs[..., 0].astype(int))
    config = FpttConfig(
        data=str(tmp_path / "steps.npz"), hidden=(16,), readout="leaky", tau_readout=(1.0, 0.1), block=2,
        epochs=6, batch_size=32,
    )  # fmt: skip
    training = fptt.fit(config)
    assert training.metrics["test_accuracy"] > 0.85 > (~inputs[..., 0]).mean()
    with pytest.raises(SnnCompileError, match="1 outputs for 2 steps; take a read-out of every step"):
        fptt.fit(replace(config, readout="membrane"))


def test_sequences_are_new_in_every_epoch_and_the_test_set_is_not():
    first, second, other = (
        fptt._Fptt.load(config, "train", epoch).inputs
        for config, epoch in ((ADD, 1), (ADD, 2), (replace(ADD, seed=1), 1))
    )
    assert not np.array_equal(first, second) and not np.array_equal(first, other)
    tests = [fptt._Fptt.load(config, "test").inputs for config in (ADD, replace(ADD, seed=1))]
    assert np.array_equal(*tests)
    with pytest.raises(WrongInput, match="nothing in it is drawn"):
        fptt._Fptt.load(replace(DIGITS, data="qt-ecg", fresh=True), "train", 1)


def test_a_loss_that_is_not_finite_stops_and_the_best_checkpoint_stays(tmp_path, monkeypatch, capsys):
    load, path = fptt.load_data, tmp_path / "model.pt"

    def spoiled(name, split, **options):
        data = load(name, split, **options)
        if split == "train" and options.get("seed", 0) == 2:  # the second epoch's
            data.inputs.flags.writeable = True
            data.inputs[:, 5, 0] = np.nan
        return data

    monkeypatch.setattr(fptt, "load_data", spoiled)
    arguments = [
        f"--set={key}" for key in ("steps=12", "sequences=640", "epochs=3", "hidden=24", "batch_size=32")
    ]
    assert cli.main(["add-task-fptt", *arguments, "--set=parts=3", "-o", str(path)]) == 1
    said = capsys.readouterr().err
    assert "the loss is nan" in said and "at update 21, block 2 of 3; training stops" in said
    held = load_checkpoint(path)
    assert held.metrics["epoch"] == 1
    assert all(value.isfinite().all() for value in held.state_dict.values())


def test_the_command_tells_the_mean_squared_error(tmp_path, capsys):
    path = tmp_path / "model.pt"
    arguments = [f"--set={key}" for key in ("steps=10", "sequences=256", "epochs=1", "hidden=8")]
    assert cli.main(["add-task-fptt", *arguments, "-o", str(path), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["metric"]["name"] == "mse" and result["metric"]["split"] == "test"
    assert result["metric"]["value"] == load_checkpoint(path).metrics["test_mse"]
    assert result["updates"] == 2 and result["weight_updates"] == 20
    assert cli.main(["add-task-fptt", *arguments, "-o", str(path)]) == 0
    assert "test mse" in capsys.readouterr().out


def test_blocks_of_a_sequence():
    assert FpttConfig(parts=10).steps_of_block(100) == 10
    assert FpttConfig(parts=10).steps_of_block(25) == 3
    assert FpttConfig(block=4).steps_of_block(100) == 4
    assert FpttConfig(parts=1).steps_of_block(7) == FpttConfig(block=9).steps_of_block(7) == 7


@pytest.mark.parametrize(
    "values, says",
    [
        ({"beta": 0.0}, "beta is 0.0; it must be above 0"),
        ({"alpha": -1.0}, "alpha is -1.0; it must be at least 0"),
        ({"alpha": 1e-45}, "alpha is 1e-45; it must be 0, or from 1e-06 to 1e[+]06"),
        ({"readout": "leaky", "tau_readout": (float("nan"), 1.0)}, "tau_readout is .* must be two numbers"),
        ({"readout": "leaky", "tau_readout": (0.0, 0.0)}, "tau_readout is .* larger of both from 0.01"),
        ({"neuron": "alif", "channels": (2,)}, "channels is .* empty, for alif"),
        ({"neuron": "lstm", "hidden": (2, 3)}, "hidden is .* one size, for lstm"),
        ({"form": "printed"}, "one of public, paper"),
    ],
)
def test_values_out_of_range_are_refused(values, says):
    with pytest.raises(SnnCompileError, match=says):
        FpttConfig(**values)
