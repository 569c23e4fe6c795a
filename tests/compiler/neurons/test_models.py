"""The registry of neuron models: found by the folder, complete, and open to a model of one more file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from snn_compile.compiler.contract.contract import Contract
from snn_compile.compiler.network import Network, Population, Port, Projection
from snn_compile.compiler.neurons import models
from snn_compile.compiler.neurons.base import Group, NeuronModel
from snn_compile.compiler.reference import run_reference
from snn_compile.runtime.divergence.neurons.models import MODELS as FOLLOWED
from snn_compile.targets.chips.formats import LOIHI
from snn_compile.targets.errors import CompileError

SHARED = {"arithmetic", "base", "models", "__init__"}


class Counter(Group):
    """Integrates without a leak and sends the sign of its membrane."""

    def step(self, x: Any) -> Any:
        self.v = self.v + self.receive(x) * self.values["gain"]
        self.watch(self.u, (self.v,))
        return np.sign(self.v)


def test_every_file_lists_models_of_its_own() -> None:
    files = {file.stem for file in Path(models.__file__).parent.glob("*.py")} - SHARED
    groups = {model.group.__module__.rpartition(".")[2] for model in models.MODELS.values()}
    assert groups == files
    assert all(name == model.name for name, model in models.MODELS.items())
    assert set(FOLLOWED) <= set(models.MODELS)


def test_a_model_in_one_file_more_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    kind = NeuronModel("counter", ("gain", "input_bias", "offset"), Counter, defaults={"gain": 1.0})
    monkeypatch.setitem(models.MODELS, "counter", kind)
    zero = np.zeros(1)
    neurons = Population("n", (2,), "counter", {"input_bias": zero, "offset": zero})
    edge = Projection("x/n", "x", "n", np.array([[1.0], [-2.0]]))
    ports = (Port("x", (1,)),), (Port("y", (2,), "n"),)
    network = Network((neurons,), (edge,), *ports, Contract(dt=1.0))
    record = run_reference(network, np.array([[[0.0], [1.0], [0.0]]]), probes=["n.v"])
    np.testing.assert_array_equal(record.outputs[0], [[0, 0], [1, -1], [1, -1]])
    np.testing.assert_array_equal(record.states("n.v")[0], [[0, 0], [1, -2], [1, -2]])
    assert not neurons.spiking and neurons.graded
    assert neurons.kind.bound(neurons, np.ones(2), LOIHI).v == np.inf
    assert neurons.kind.poles(neurons) == [()]  # its rounding is calibrated on the messages themselves


def test_an_unknown_model_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(CompileError, match="no neuron model 'izh'; the models are alif, brf, delta, li, lif"):
        Population("n", (1,), "izh", {})
