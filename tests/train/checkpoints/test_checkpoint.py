import os
import pickle
from importlib.metadata import version

import nir
import numpy as np
import pytest
import torch
from torch import nn

from snn_compile.compiler.contract.contract import METADATA_KEY
from snn_compile.compiler.contract.resolve import resolve
from snn_compile.targets.errors import ExportError
from snn_compile.train import (
    LayerConfig,
    NetworkConfig,
    SpikingNetwork,
    load_checkpoint,
    save_checkpoint,
    to_nir,
)

SAMPLE = torch.zeros(1, 1, 2, 3)


@pytest.fixture
def network():
    torch.manual_seed(5)
    layers = (
        LayerConfig(7, "cuba_lif", recurrent=True, learn_decay=True, reset="subtract"),
        LayerConfig(5, bias=False),
        LayerConfig(4, "li", beta=0.8),
    )
    return SpikingNetwork(NetworkConfig((2, 3), layers))


@pytest.fixture
def saved(tmp_path, network):
    path = tmp_path / "model.pt"
    data = {"name": "digits", "options": {"coding": "rate", "steps": 5}}
    metrics = {"accuracy": np.float64(0.75), "epoch": 3, "rates": {"hidden1": 0.1}}
    config = {"hidden": (7, 5), "threshold": 1.0}
    save_checkpoint(path, network, SAMPLE, config=config, metrics=metrics, data=data, dt=1e-3)
    return path


def same(a, b):
    assert type(a) is type(b)
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            same(a[key], b[key])
    elif isinstance(a, np.ndarray):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
    else:
        assert a == b


def test_what_is_saved_comes_back(saved, network):
    checkpoint = load_checkpoint(saved)
    graph = to_nir(network, SAMPLE, dt=1e-3)
    same(checkpoint.graph.to_dict(), graph.to_dict())
    assert checkpoint.graph.metadata[METADATA_KEY] == graph.metadata[METADATA_KEY]
    contract, decided = resolve(checkpoint.graph)
    assert contract == resolve(graph)[0] and decided["dt"] == "metadata"
    for name, tensor in network.state_dict().items():
        assert torch.equal(checkpoint.state_dict[name], tensor)
    assert checkpoint.config == {"hidden": (7, 5), "threshold": 1.0}
    assert checkpoint.metrics == {"accuracy": 0.75, "epoch": 3, "rates": {"hidden1": 0.1}}
    assert checkpoint.data == {"name": "digits", "options": {"coding": "rate", "steps": 5}}
    assert checkpoint.schema == {"name": "snn-checkpoint", "version": 1}
    assert set(checkpoint.versions) == {"snn-compile", "torch", "numpy", "nir"}
    assert checkpoint.versions["nir"] == version("nir")
    assert len(checkpoint.digest()) == 64


def test_the_loaded_graph_can_be_written_as_nir(saved, tmp_path):
    nir.write(tmp_path / "graph.nir", load_checkpoint(saved).graph)
    again = nir.read(tmp_path / "graph.nir")
    assert resolve(again)[0].delays == {("hidden1", "hidden1_recurrent"): 1}


def test_a_module_can_be_restored_from_its_weights(saved, network):
    again = SpikingNetwork(network.config)
    again.load_state_dict(dict(load_checkpoint(saved).state_dict))
    inputs = 2 * torch.rand(3, 8, 2, 3)
    assert torch.equal(again(inputs), network(inputs))


class Evil:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.system, (f"touch {self.target}",)


@pytest.mark.parametrize("form", ["torch", "pickle", "inside"])
def test_code_in_the_file_is_not_executed(tmp_path, saved, form):
    path, target = tmp_path / "evil.pt", tmp_path / "executed"
    if form == "torch":
        torch.save(Evil(target), path)
    elif form == "pickle":
        path.write_bytes(pickle.dumps(Evil(target)))
    else:
        torch.save({"schema": {"name": "snn-checkpoint", "version": 1}, "graph": Evil(target)}, path)
    with pytest.raises(ExportError, match="evil.pt.*(code|damaged)") as caught:
        load_checkpoint(path)
    assert "\n" not in str(caught.value)
    assert not target.exists()


def rewrite(path, change):
    body = torch.load(path, weights_only=True)
    change(body)
    torch.save(body, path)


def test_a_truncated_file_is_refused(saved):
    whole = saved.read_bytes()
    for share in (0.0, 0.02, 0.5, 0.99):
        saved.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(ExportError, match="model.pt: damaged") as caught:
            load_checkpoint(saved)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "change, says",
    [
        (lambda b: b.pop("schema"), "not a checkpoint of snn-compile"),
        (lambda b: b.update(schema={"name": "other", "version": 1}), "not a checkpoint"),
        (lambda b: b.update(schema={"name": "snn-checkpoint", "version": 2}), "newer snn-compile"),
        (lambda b: b.update(schema={"name": "snn-checkpoint", "version": "1"}), "version 1;"),
        (lambda b: (b.pop("graph"), b.pop("data")), "lacks graph, data"),
        (lambda b: b["graph"]["nodes"].pop("fc1"), "graph in the checkpoint cannot be read"),
        (lambda b: b.update(graph=3), "graph in the checkpoint cannot be read"),
        (lambda b: b["graph"]["nodes"]["fc1"]["weight"].mul_(1.01), "does not match its digest"),
    ],
)
def test_a_checkpoint_that_is_not_one_is_refused(saved, change, says):
    rewrite(saved, change)
    with pytest.raises(ExportError, match=says) as caught:
        load_checkpoint(saved)
    assert str(saved) in str(caught.value)


def test_other_files_are_refused(tmp_path):
    with pytest.raises(ExportError, match="no such checkpoint"):
        load_checkpoint(tmp_path / "missing.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(ExportError, match="a list"):
        load_checkpoint(tmp_path / "list.pt")
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "weights.pt")
    with pytest.raises(ExportError, match="not a checkpoint of snn-compile"):
        load_checkpoint(tmp_path / "weights.pt")


def test_a_failed_save_leaves_the_old_file_and_nothing_else(saved, network, monkeypatch):
    before = saved.read_bytes()

    def half(body, file):
        file.write_bytes(b"half")
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", half)
        with pytest.raises(ExportError, match="cannot write.*disk full"):
            save_checkpoint(saved, network, SAMPLE)
    with pytest.raises(ExportError, match="config.callback: a function"):
        save_checkpoint(saved, network, SAMPLE, config={"callback": half})
    assert saved.read_bytes() == before
    assert [p.name for p in saved.parent.iterdir()] == ["model.pt"]


def test_a_module_without_counterpart_is_refused(tmp_path):
    module = nn.Sequential(nn.Flatten(start_dim=2), nn.Linear(6, 2), nn.Tanh())
    with pytest.raises(ExportError, match="Tanh"):
        save_checkpoint(tmp_path / "model.pt", module, SAMPLE)
    assert not list(tmp_path.iterdir())
