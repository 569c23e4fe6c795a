"""Every data set from its files to a program that ran: snn-train, snn-compile and snn-run on tiny ones."""

import json
from pathlib import Path

import numpy as np
import pytest
from support import event_folders, idx_images

from snn_compile import runtime
from snn_compile.compiler.cli import main as compile_main
from snn_compile.runtime.cli import main as run_main
from snn_compile.train import load_checkpoint
from snn_compile.train.cli import main as train_main


def write_digits(folder: Path) -> None:
    images = np.round(np.random.default_rng(2).random((10, 20, 784)), 3)
    for digit in range(10):
        (folder / f"{digit}.json").write_text(json.dumps({"data": images[digit].ravel().tolist()}))


SETS = {
    "digits": (None, "digits", ["coding=even", "steps=4", "copies=0"], (4, 64)),
    "digits permuted": (None, "digits-brf", ["permuted=true", "repeat=1"], (64, 1)),
    "fashion-mnist": ("idx", "digits", ["steps=3", "input_bits=5"], (3, 784)),
    "mnist": ("idx", "digits", ["coding=rate", "steps=3"], (3, 784)),
    "mnist-10k": ("digits", "digits", ["coding=rate", "steps=3"], (3, 784)),
    "mnist-10k by pixel": ("digits", "smnist14-brf", ["shrink=4", "permuted=true"], (49, 1)),
    "shd": ("write_shd", "digits", ["steps=9", "dt=0.1", "shrink=10", "weight_bits=0"], (9, 70)),
    "shd by resonators": ("write_shd", "shd-brf", [], (250, 700)),
    "n-mnist": ("write_n_mnist", "digits", ["steps=4", "shrink=2", "polarity=false"], (4, 289)),
    "dvs-gesture": ("write_gestures", "digits", ["layout=flat", "steps=4", "shrink=8"], (4, 512)),
    "cifar10-dvs": (
        "write_cifar10_dvs",
        "fashion-conv",
        ["steps=3", "shrink=8", "counts=true", "channels=4", "flip=false"],
        (3, 2, 16, 16),
    ),
}


@pytest.mark.parametrize("case", SETS)
def test_a_set_is_trained_on_compiled_for_and_run(case, tmp_path, capsys):
    written, preset, overrides, shape = SETS[case]
    name = case.split()[0]
    if written == "digits":
        write_digits(tmp_path)
    elif written == "idx":
        idx_images.write_set(tmp_path)
    elif written:
        getattr(event_folders, written)(tmp_path)
    data = f"{name}:{tmp_path}" if written else name
    model, program = str(tmp_path / "model.pt"), str(tmp_path / "model.snn")
    quick = ["data=" + data, "epochs=1", "hidden=6", "batch_size=64", *overrides]
    assert train_main([preset, *(f"--set={item}" for item in quick), "-o", model, "--json"]) == 0
    trained = json.loads(capsys.readouterr().out)
    checkpoint = load_checkpoint(model)
    assert checkpoint.data["name"] == data
    test = runtime.load_data(data, "test", **checkpoint.data["options"])
    assert test.inputs.shape[1:] == shape
    if checkpoint.graph is None:
        return  # resonators have no program yet
    assert compile_main([model, "--target", "loihi2-sim", "--check", data, "-o", program, "--json"]) == 0
    capsys.readouterr()
    assert run_main([program, "--data", data, "--json"]) == 0
    ran = json.loads(capsys.readouterr().out)
    assert ran["samples"] == len(test.inputs)
    if checkpoint.config["weight_bits"]:  # trained in the program's integers
        assert ran["accuracy"]["deployed"] == pytest.approx(trained["metric"]["value"])
