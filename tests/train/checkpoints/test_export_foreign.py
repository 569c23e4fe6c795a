"""State dicts of the user's own classes, with a factory that builds the network."""

import numpy as np
import pytest
import torch
from torch import nn

from snn_compile import compiler
from snn_compile.targets.errors import ExportError
from snn_compile.train import load_foreign, save_checkpoint

pytest.importorskip("snntorch", reason="snntorch is in the extra train")

SOURCE = """
import snntorch as snn
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.lif = nn.Linear(6, 4), snn.Leaky(0.8, reset_mechanism="zero")

    def forward(self, x):
        mem, record = self.lif.init_leaky(), []
        for x_t in x:
            spk, mem = self.lif(self.fc(x_t), mem)
            record.append(spk)
        return torch.stack(record)

def with_sample():
    return Net(), torch.zeros(8, 1, 6)

class Tools:
    @staticmethod
    def nested():
        return with_sample()

def fails():
    raise RuntimeError("no such\\ndata")

def words():
    return "net"

number = 3
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with a module of its own name and a state dict."""
    name = f"foreign_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{name}.py").write_text(SOURCE)
    (tmp_path / f"{name}_broken.py").write_text("import nowhere_to_be_found")
    monkeypatch.chdir(tmp_path)
    namespace = {}
    exec(SOURCE, namespace)
    torch.manual_seed(0)
    module = namespace["Net"]()
    torch.save(module.state_dict(), "weights.pt")
    return name, module


def test_the_factory_and_the_weights_make_a_checkpoint(folder):
    name, module = folder
    sample = torch.zeros(5, 2, 6)
    for factory, given in (
        (f"{name}:with_sample", None),
        (f"{name}:Net", sample),
        (f"{name}:Tools.nested", None),
    ):
        checkpoint = load_foreign("weights.pt", factory, given)
        np.testing.assert_array_equal(checkpoint.graph.nodes["fc"].weight, module.fc.weight.detach())
        assert checkpoint.config == {"model": factory}
        assert checkpoint.data is None
    compiler.lower(checkpoint.graph)
    checkpoint = load_foreign("weights.pt", f"{name}:with_sample", dt=1e-3)
    np.testing.assert_allclose(checkpoint.graph.nodes["lif"].tau, 1e-3 / (1 - 0.8), rtol=1e-6)


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict"])
def test_what_training_scripts_save(folder, key):
    name, module = folder
    state = {f"module.{k}": v for k, v in module.state_dict().items()}
    torch.save({"epoch": 3, key: state, "loss": 0.5}, "weights.pt")
    checkpoint = load_foreign("weights.pt", f"{name}:with_sample")
    np.testing.assert_array_equal(checkpoint.graph.nodes["fc"].bias, module.fc.bias.detach())


def test_our_own_checkpoints_hold_a_state_dict_too(folder):
    name, module = folder
    save_checkpoint("weights.pt", module, torch.zeros(5, 2, 6))
    checkpoint = load_foreign("weights.pt", f"{name}:with_sample")
    np.testing.assert_array_equal(checkpoint.graph.nodes["fc"].weight, module.fc.weight.detach())


@pytest.mark.parametrize(
    "factory, says",
    [
        ("{name}", "write package.module:factory"),
        ("nowhere_to_be_found:make", "cannot be imported"),
        ("{name}_broken:make", "cannot be imported.*nowhere_to_be_found"),
        ("{name}:absent", "has no absent"),
        ("{name}:number", "is a int"),
        ("{name}:fails", "RuntimeError: no such data.*without arguments"),
        ("{name}:words", "returns a str"),
        ("{name}:Net", "what does its forward take"),
    ],
)
def test_factories_that_do_not_fit(folder, factory, says):
    with pytest.raises(ExportError, match=says) as caught:
        load_foreign("weights.pt", factory.format(name=folder[0]))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "body, says",
    [
        ({"fc.weight": torch.zeros(4, 6)}, "weights.pt: does not fit.*lacks fc.bias.* more"),
        (nn.Linear(6, 4).state_dict(), "has bias, which the network has not"),
        ({"a": 1.5}, "not a state dict.*'a' is a float"),
        ({}, "it is empty"),
        ([torch.zeros(2)], "a list"),
        (nn.Linear(6, 4), "holds objects that need code"),
        (None, "no such file"),
        (b"torn", "damaged"),
    ],
)
def test_files_that_do_not_fit(folder, tmp_path, body, says):
    path = tmp_path / "weights.pt"
    path.unlink()
    if isinstance(body, bytes):
        path.write_bytes(body)
    elif body is not None:
        torch.save(body, path)
    with pytest.raises(ExportError, match=says):
        load_foreign(path, f"{folder[0]}:with_sample")


def test_a_shape_that_differs_is_named(folder):
    name, module = folder
    state = {**module.state_dict(), "fc.weight": torch.zeros(4, 7)}
    torch.save(state, "weights.pt")
    with pytest.raises(ExportError, match=r"fc.weight is \(4, 7\) and the network's \(4, 6\)"):
        load_foreign("weights.pt", f"{name}:with_sample")


def test_weights_that_are_not_finite_are_named(folder):
    name, module = folder
    state = module.state_dict()
    state["fc.weight"][1, 2] = torch.nan
    torch.save(state, "weights.pt")
    with pytest.raises(ExportError, match=r"fc.weight\[1, 2\] is nan"):
        load_foreign("weights.pt", f"{name}:with_sample")
