"""What training by FPTT says of a network is what snn-compile says of it: one rule of reading for both."""

import json

import numpy as np
import pytest

from snn_compile.compiler import cli as compile_cli
from snn_compile.compiler import lower
from snn_compile.compiler.contract.contract import Readout
from snn_compile.compiler.reference import run_reference
from snn_compile.runtime.data.registry import load_data
from snn_compile.train import load_checkpoint
from snn_compile.train.algorithms import fptt
from snn_compile.train.configs.fptt import FpttConfig

SETTINGS = {
    "lif": {"learning_rate": 0.01},
    "brf": {"learning_rate": 0.05},
    "lsn": {"learning_rate": 0.01, "readout": "leaky", "tau_readout": (2.0, 0.1)},
}


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """Sets of events of one class after those of another: a label of the last, and one of every step."""
    rng = np.random.default_rng(5)
    classes = rng.integers(0, 3, (250, 2))
    told = np.repeat(classes, 8, axis=1)
    events = (rng.random((250, 16, 3)) < 0.75) & (told[..., None] == np.arange(3))
    folder = tmp_path_factory.mktemp("sets")
    for name, labels in (("sample", classes[:, 1]), ("step", told)):
        np.savez(folder / f"{name}.npz", inputs=100.0 * events, labels=labels)
    return folder


@pytest.mark.parametrize("labels", ["sample", "step"])
@pytest.mark.parametrize("neuron", SETTINGS)
def test_the_accuracy_of_training_is_that_of_the_compiled_float_network(
    sets, tmp_path, capsys, neuron, labels
):
    path, data = tmp_path / "model.pt", str(sets / f"{labels}.npz")
    config = FpttConfig(
        data=data, neuron=neuron, hidden=(24,), epochs=4, parts=4, batch_size=10, **SETTINGS[neuron]
    )
    trained = fptt.fit(config, path).metrics["test_accuracy"]
    asked = [str(path), "--target", "loihi2-sim", "--check", data, "--json"]
    assert compile_cli.main(asked) == 0
    told = json.loads(capsys.readouterr().out)["accuracy"]
    assert told["float"] == pytest.approx(trained, abs=1.5 / told["samples"])
    graph, test = load_checkpoint(path).graph, load_data(data, "test", partition=True)
    outputs = run_reference(lower(graph), test.inputs).outputs
    elsewise = outputs.mean(1) if labels == "sample" else outputs[:, [-1]]
    assert (elsewise.argmax(-1) != test.labels).mean() > 1 - trained + 0.05


@pytest.mark.parametrize("neuron", SETTINGS)
def test_numbers_are_read_at_the_last_step_and_stay_numbers(tmp_path, neuron):
    path = tmp_path / "model.pt"
    config = FpttConfig(
        data="add", steps=10, sequences=64, hidden=(8,), epochs=1, neuron=neuron, **SETTINGS[neuron]
    )
    trained = fptt.fit(config, path)
    network = lower(load_checkpoint(path).graph)
    assert network.outputs[0].readout == Readout("membrane", "last", "regress")
    test = load_data("add", "test", steps=10)
    told = run_reference(network, test.inputs).predictions
    assert np.mean((told - test.targets) ** 2) == pytest.approx(trained.metrics["test_mse"], rel=1e-4)
