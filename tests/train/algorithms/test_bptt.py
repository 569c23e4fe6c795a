import numpy as np
import pytest
import torch

from snn_compile.runtime.data.dataset import split_indices
from snn_compile.runtime.data.registry import load_data
from snn_compile.targets.errors import WrongInput
from snn_compile.train import fit, load_checkpoint, read_config

QUICK = ["copies=0", "steps=6", "hidden=32", "epochs=4", "learning_rate=0.02"]


@pytest.fixture
def config():
    return read_config("digits", QUICK)


def test_training_learns(config):
    assert fit(config).metrics["test_accuracy"] > 0.8


def test_layers_with_feedback_repeat_themselves_and_another_seed_differs():
    def run(seed):
        short = ["layout=rows", "epochs=2", "hidden=24", f"seed={seed}"]
        return fit(read_config("digits-recurrent", [*short, "copies=0"]))

    first, again, other = run(1), run(1), run(2)
    assert first.metrics == again.metrics != other.metrics
    for a, b in zip(first.network.parameters(), again.network.parameters(), strict=True):
        assert torch.equal(a, b)


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
