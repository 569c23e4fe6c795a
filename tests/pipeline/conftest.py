"""What the tests of the commands share: a small model with data, and ways to run the commands."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from snn_compile.compiler import lower
from snn_compile.compiler.cli import main
from snn_compile.compiler.reference import run_reference
from snn_compile.train import LayerConfig, NetworkConfig, SpikingNetwork, load_checkpoint, save_checkpoint

PROGRESS = re.compile(
    r"snn-(compile|run): (\w+ \d+ ms|running .*|warning: .*|data .*|no --calibrate .*|(tried|nothing) .*)"
)


def save_model(path: Path, inputs: int, data=None, zero: bool = False) -> Path:
    torch.manual_seed(4)
    layers = (LayerConfig(12), LayerConfig(10, "li"))
    network = SpikingNetwork(NetworkConfig((inputs,), layers))
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if name.endswith("weight"):
                weight.mul_(0.0 if zero else 3.0)
    save_checkpoint(path, network, torch.zeros(1, 1, inputs), data=data)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("commands")


@pytest.fixture(scope="module")
def model(folder):
    """A checkpoint of an untrained network with six inputs."""
    return save_model(folder / "model.pt", 6)


@pytest.fixture(scope="module")
def data(folder, model):
    """Samples that the float network gets right by construction: its own predictions are the labels."""
    inputs = np.random.default_rng(0).integers(0, 17, (150, 12, 6)) / 16
    labels = run_reference(lower(load_checkpoint(model).graph), inputs).predictions
    np.savez(folder / "data.npz", inputs=inputs, labels=labels)
    return folder / "data.npz"


@pytest.fixture(scope="module")
def program(folder, model, data):
    assert main([str(model), "--calibrate", str(data), "-o", str(folder / "model.snn")]) == 0
    return folder / "model.snn"


@pytest.fixture
def command(capsys):
    """Return run(*arguments) -> (exit code, stdout, stderr) of snn-compile, or of another main."""

    def run(*arguments, main=main):
        capsys.readouterr()
        try:
            code = main([str(a) for a in arguments])
        except SystemExit as leaving:
            code = leaving.code
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture
def refuses(command, tmp_path):
    """Return check(*arguments): exit code 1, nothing on stdout, one error line, no new file."""

    def check(*arguments, main=main, name="snn-compile"):
        before = sorted(tmp_path.rglob("*"))
        code, out, err = command(*arguments, main=main)
        lines = err.splitlines()
        errors = [line for line in lines if line.startswith(f"{name}: error: ")]
        assert (code, out, len(errors)) == (1, "", 1), err
        assert all(PROGRESS.fullmatch(line) for line in lines if line not in errors), err
        assert sorted(tmp_path.rglob("*")) == before
        return errors[0]

    return check


class Evil:
    """A pickle that would write a file when loaded."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


@pytest.fixture(scope="session")
def saved():
    """save(path, inputs, data=None, zero=False) -> path: a checkpoint of an untrained network."""
    return save_model


@pytest.fixture(scope="session")
def evil():
    """Evil(mark): an object whose pickle would create the file `mark` when loaded."""
    return Evil
