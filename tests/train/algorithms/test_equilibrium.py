"""Training at the equilibrium, its analysis and its commands, on small data."""

import json

import numpy as np
import pytest
import torch

from snn_compile import compiler, runtime
from snn_compile.runtime.data.dataset import split_indices
from snn_compile.runtime.data.registry import load_data
from snn_compile.targets.errors import SnnCompileError, WrongInput
from snn_compile.train import load_checkpoint, read_config
from snn_compile.train.algorithms.equilibrium import fit, learning_rate, of_steps
from snn_compile.train.analysis.equilibrium import accuracy_by_steps, approach, load_feedback
from snn_compile.train.cli.main import main
from snn_compile.train.configs.equilibrium import EquilibriumConfig

QUICK = ["data=digits", "hidden=40", "epochs=4", "batch_size=32"]


@pytest.fixture
def config():
    return read_config("fashion-fsnn", QUICK)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("equilibrium") / "model.pt"
    fit(read_config("fashion-fsnn", [*QUICK, "hidden=40,30"]), path)
    return path


def test_training_learns_and_measures_the_bound_of_its_norms(config, tmp_path):
    path = tmp_path / "model.pt"
    training = fit(config, path)
    assert training.metrics["test_accuracy"] > 0.85
    held = load_checkpoint(path)
    network = load_feedback(held, "model.pt")
    test = load_data(held.data["name"], "test", **held.data["options"])
    bound = network.restriction()
    assert held.metrics["one_equilibrium"] is bound.holds is True and held.metrics["norm_bound"] == 2.0
    assert held.metrics["norm_product"] == bound.product and held.metrics["unsolved_batches"] == 0
    record = runtime.reference(compiler.lower(held.graph), test.inputs)
    assert np.mean(record.predictions == test.labels) == pytest.approx(
        training.metrics["test_accuracy"], abs=0.006
    )


def test_images_are_convolved_and_several_layers_learn(tmp_path):
    digits = load_data("digits", "train", steps=1)
    path = tmp_path / "images.npz"
    still = np.broadcast_to(digits.inputs.reshape(-1, 1, 1, 8, 8)[:900], (900, 6, 1, 8, 8))
    np.savez(path, inputs=still, labels=digits.labels[:900])
    short = [f"data={path}", "channels=6,8", "hidden=", "kernels=3", "strides=1,2", "batch_size=32"]
    training = fit(read_config("fashion-conv-fsnn", [*short, "epochs=5"]), tmp_path / "model.pt")
    assert training.metrics["test_accuracy"] > 0.7
    assert {"conv1", "hidden2", "feedback"} <= load_checkpoint(tmp_path / "model.pt").graph.nodes.keys()


def test_what_cannot_be_trained_is_told(config, tmp_path):
    with pytest.raises(SnnCompileError, match="only images"):
        fit(read_config("fashion-fsnn", [*QUICK, "flip=true"]))
    path = tmp_path / "steps.npz"
    np.savez(path, inputs=np.zeros((40, 3, 4)), labels=np.zeros((40, 3), np.int64))
    with pytest.raises(WrongInput, match="one label per step"):
        fit(read_config("fashion-fsnn", [f"data={path}"]))
    labels = np.zeros(40, np.int64)
    labels[split_indices(40, "validation")] = 2
    np.savez(path, inputs=np.random.default_rng(1).random((40, 3, 4)), labels=labels)
    with pytest.raises(WrongInput, match="train on more samples"):
        fit(read_config("fashion-fsnn", [f"data={path}"]))


def test_a_batch_of_one_sample_is_left_out(tmp_path):
    rng, path = np.random.default_rng(1), tmp_path / "some.npz"
    np.savez(path, inputs=rng.random((60, 3, 4)), labels=np.arange(60) % 3)
    samples = len(load_data(path, "train", partition=True).inputs)
    short = [f"data={path}", "epochs=1", "hidden=4", f"batch_size={samples - 1}"]
    assert fit(read_config("fashion-fsnn", short)).epochs == 1


def test_feedback_beyond_the_bound_stands_in_what_is_printed(tmp_path, capsys):
    arguments = [*QUICK, "epochs=1", "scale_limit=9", "threshold=0.9"]
    settings = [word for item in arguments for word in ("--set", item)]
    assert main(["fashion-fsnn", *settings, "-o", str(tmp_path / "m.pt"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["one_equilibrium"] is False and found["norm_product"] > found["norm_bound"] == 0.9
    assert found["metric"]["split"] == "test" and found["epochs"] == 1 and 0 < found["spike_rate"] < 1


def test_the_rate_rises_and_falls_in_steps():
    config = EquilibriumConfig(hidden=(4,), learning_rate=0.4, warmup=4, rate_falls=(0.5, 0.75))
    found = [learning_rate(config, batch, 16) for batch in range(16)]
    assert found[:4] == [0.1, 0.2, pytest.approx(0.3), 0.4]
    np.testing.assert_allclose(found[4:], [0.4] * 4 + [0.04] * 4 + [0.004] * 4)


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("decay=1.1", "at most 1"),
        ("batch_size=1", "at least 2"),
        ("dropout=1", "below 1"),
        ("solver=newton", "one of fixed-point"),
        ("rate_falls=0.5,1.5", "between 0 and 1"),
        ("hidden=", "without channels"),
        ("kernels=3,3", "one size"),
        ("tolerance=0", "positive"),
    ],
)
def test_wrong_values_are_refused(override, says):
    with pytest.raises(SnnCompileError, match=says):
        read_config("fashion-fsnn", [override])


def test_the_approach_to_the_equilibrium_and_accuracy_against_steps(model):
    held = load_checkpoint(model)
    network = load_feedback(held, "model.pt")
    test = load_data(held.data["name"], "test", **held.data["options"])
    inputs = torch.from_numpy(test.inputs[:40].copy()).float()[:, :1]
    way = approach(network, inputs, 60)
    assert way.residuals.shape == way.distances.shape == (60, 2)
    assert (way.residuals[-1] < 0.5 * way.residuals[2]).all() and (way.distances[-1] < 0.2).all()
    curve = accuracy_by_steps(network, test, [1, 5, 40])
    assert [one.steps for one in curve] == [1, 5, 40]
    assert curve[1].accuracy == held.metrics["test_accuracy"] and curve[0].accuracy < curve[1].accuracy
    assert of_steps(inputs, 7).shape[1] == 7
    with pytest.raises(SnnCompileError, match="change from step"):
        of_steps(torch.rand(2, 3, 4), 7)
    with pytest.raises(WrongInput, match="at least 1"):
        accuracy_by_steps(network, test, [0])


def test_the_analysis_prints_and_draws(model, tmp_path, capsys):
    figure = tmp_path / "way.png"
    words = ["analyse", "equilibrium", str(model), "--times", "30", "--steps", "2", "5", "-o", str(figure)]
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["schema"]["name"] == "snn-train-analyse-equilibrium" and figure.stat().st_size > 1000
    assert [row["steps"] for row in found["accuracy"]] == [2, 5] and found["trained_steps"] == 5
    assert [row["step"] for row in found["residual"]] == [1, 2, 5, 10, 20, 30]
    assert main(words) == 0 and "hidden2" in capsys.readouterr().out


def test_the_analysis_refuses_other_networks(tmp_path, capsys):
    from snn_compile.train.algorithms.bptt import fit as other

    path = tmp_path / "other.pt"
    other(read_config("digits", ["copies=0", "steps=4", "hidden=8", "epochs=1"]), path)
    assert main(["analyse", "equilibrium", str(path)]) == 1
    assert "not a feedback network" in capsys.readouterr().err
    assert main(["analyse", "equilibrium", str(path), "--times", "0"]) == 1
