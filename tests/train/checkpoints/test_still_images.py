"""A forward that makes all steps of a still image: data in every common form are shown for its own steps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from snn_compile.compiler import compile_graph, lower
from snn_compile.compiler.cli.main import main
from snn_compile.compiler.frontends.read import read_graph
from snn_compile.runtime import reference, simulate
from snn_compile.runtime.cli.main import main as run_main
from snn_compile.runtime.data.registry import load_still
from snn_compile.targets.errors import WrongInput

snn = pytest.importorskip("snntorch", reason="snntorch is in the extra train")

SAMPLES = 12
SOURCE = """
import snntorch as snn, torch
from torch import nn

class Net(nn.Module):
    def __init__(self, shape, steps, conv):
        super().__init__()
        self.steps, self.first = steps, nn.Conv2d(shape[0], 3, 3) if conv else nn.Flatten()
        size = 3 * (shape[1] - 2) * (shape[2] - 2) if conv else shape[0] * shape[1] * shape[2]
        self.lif1 = snn.Leaky(0.7, threshold=0.4)
        self.fc, self.lif2 = nn.Linear(size, 4), snn.Leaky(0.8, threshold=0.3)

    def forward(self, x):
        a, b, out = self.lif1.init_leaky(), self.lif2.init_leaky(), []
        for _ in range(self.steps):
            s, a = self.lif1(self.first(x), a)
            s, b = self.lif2(self.fc(s.flatten(1)), b)
            out.append(s)
        return torch.stack(out)

def make():
    return Net({shape}, {steps}, {conv})
"""


def drawn(seed: int, folder: Path) -> tuple[nn.Module, np.ndarray, int]:
    """Write a network and its weights, and return it with images (batch, *shape) and its steps."""
    rng = np.random.default_rng(seed)
    shape = (int(rng.integers(1, 4)), int(rng.integers(5, 8)), int(rng.integers(5, 8)))
    steps, conv = int(rng.integers(2, 9)), bool(rng.random() < 0.7)
    (folder / "still.py").write_text(SOURCE.format(shape=shape, steps=steps, conv=conv))
    torch.manual_seed(seed)
    made: dict[str, Any] = {}
    exec(SOURCE.format(shape=shape, steps=steps, conv=conv), made)
    torch.save(made["make"]().state_dict(), folder / "net.pt")
    torch.manual_seed(seed)
    return made["make"](), np.round(rng.random((SAMPLES, *shape)) * 31) / 32, steps


def both(file: str) -> list[str]:
    return ["--calibrate", file, "--check", file]


@pytest.mark.parametrize("seed", range(10))
def test_every_form_of_the_data_gives_torchs_spikes(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    network, images, steps = drawn(seed, tmp_path)
    monkeypatch.chdir(tmp_path)
    with torch.no_grad():
        wanted = network(torch.tensor(images, dtype=torch.float32)).numpy().transpose(1, 0, 2)
    labels = wanted.sum(1).argmax(1)
    forms = {"plain": images, "one": images[:, None], "all": np.repeat(images[:, None], steps, 1)}
    command = ["net.pt", "--model", "still.py:make", "--json"]
    for name, inputs in forms.items():
        np.savez(f"{name}.npz", inputs=inputs, labels=labels)
        assert main([*command, *both(f"{name}.npz"), "-o", f"{name}.snn"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["accuracy"]["float"] == 1.0, name
        assert run_main([f"{name}.snn", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["steps"] == steps
    np.savez("other.npz", inputs=np.repeat(images[:, None], steps + 3, 1), labels=labels)
    assert main([*command, *both("other.npz")]) == 1
    assert f"{(steps + 3, *images.shape[1:])}; the model takes static ones" in capsys.readouterr().err
    shape = ",".join(map(str, images.shape[1:]))
    assert (
        main(["export", "net.pt", "--model", "still.py:make", "--input-shape", shape, "-o", "net.nir"]) == 0
    )
    lowered = lower(read_graph("net.nir"))
    assert lowered.contract.presented_steps == steps
    data = load_still("plain.npz", "test", images.shape[1:], steps).inputs
    record = reference(lowered, data)
    assert np.array_equal(record.outputs, wanted) or not wanted.any()


def test_a_graph_of_another_exporter_is_told_its_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, images, _ = drawn(3, tmp_path)
    monkeypatch.chdir(tmp_path)
    np.savez("plain.npz", inputs=images, labels=np.arange(SAMPLES) % 4)
    shape = ",".join(map(str, images.shape[1:]))
    assert (
        main(["export", "net.pt", "--model", "still.py:make", "--input-shape", shape, "-o", "net.nir"]) == 0
    )
    capsys.readouterr()
    given = ["net.nir", *both("plain.npz"), "--convention"]
    assert main([*given, "presented_steps=none"]) == 1
    assert "one frame of" in (said := capsys.readouterr().err) and "presented_steps=N" in said
    assert main([*given, "presented_steps=11", "-o", "net.snn"]) == 0
    capsys.readouterr()
    assert run_main(["net.snn", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["steps"] == 11
    for wrong in ("0", "2.5", "many"):
        assert main([*given, f"presented_steps={wrong}"]) == 1
        assert "presented_steps is" in capsys.readouterr().err


def test_images_without_steps_are_not_one_step_in_python(tmp_path: Path) -> None:
    _, images, steps = drawn(1, tmp_path)
    from snn_compile.train import load_foreign

    graph = load_foreign(tmp_path / "net.pt", f"{tmp_path}/still.py:make", input_shape=images.shape[1:]).graph
    network = lower(graph)
    program = compile_graph(network, calibration=np.repeat(images[:, None], steps, 1))
    for run in (lambda x: reference(network, x), lambda x: simulate(program, x)):
        if images.shape[1] == 1:
            with pytest.raises(WrongInput, match="one frame of"):
                run(images)
        with pytest.raises(WrongInput):
            run(images[:, :, 0])
        assert run(np.repeat(images[:, None], steps, 1)).steps == steps


def test_axes_in_another_order_are_not_reshaped(tmp_path: Path) -> None:
    np.savez(tmp_path / "last.npz", inputs=np.zeros((4, 8, 8, 3)))
    np.savez(tmp_path / "flat.npz", inputs=np.zeros((4, 192)))
    with pytest.raises(WrongInput, match=r"samples of shape \(8, 8, 3\); the model takes static ones"):
        load_still(str(tmp_path / "last.npz"), "test", (3, 8, 8), 5)
    assert load_still(str(tmp_path / "flat.npz"), "test", (3, 8, 8), 5).inputs.shape == (4, 5, 3, 8, 8)


STEPWISE = """
import snntorch as snn
from torch import nn

def make():
    return nn.Sequential(
        nn.Flatten(), nn.Linear({size}, 4), snn.Leaky(0.8, threshold=0.2, init_hidden=True)
    )
"""


@pytest.mark.parametrize("seed", range(3))
def test_images_of_a_forward_of_one_step_are_never_one_step_in_silence(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(seed)
    shape, steps = (1, *rng.integers(4, 8, 2).tolist()), int(rng.integers(3, 9))
    made: dict[str, Any] = {}
    source = STEPWISE.format(size=int(np.prod(shape)))
    (tmp_path / "stepwise.py").write_text(source)
    exec(source, made)
    torch.manual_seed(seed)
    network = made["make"]()
    torch.save(network.state_dict(), tmp_path / "net.pt")
    monkeypatch.chdir(tmp_path)
    images = np.round(rng.random((SAMPLES, *shape)) * 31) / 32
    with torch.no_grad():
        x = torch.tensor(images, dtype=torch.float32)
        labels = torch.stack([network(x) for _ in range(steps)]).sum(0).argmax(1).numpy()
    np.savez("channel.npz", inputs=images, labels=labels)
    np.savez("bare.npz", inputs=images[:, 0], labels=labels)
    command = ["net.pt", "--model", "stepwise.py:make", "-o", "net.snn", "--json"]
    assert main([*command, *both("channel.npz")]) == 0
    said = capsys.readouterr()
    assert "warning: each sample was one step long" in said.err
    assert any("presented_steps=N" in line for line in json.loads(said.out)["warnings"])
    assert main([*command, *both("bare.npz")]) == 1
    said = capsys.readouterr().err
    size = ",".join(map(str, shape[1:]))
    assert f"--input-shape {size} --convention presented_steps=N" in said
    for file in ("channel.npz", "bare.npz"):
        stated = ["--input-shape", size, "--convention", f"presented_steps={steps}"]
        assert main([*command, *both(file), *stated]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["accuracy"]["float"] == 1.0
        assert not any("one step long" in line for line in found["warnings"])


def test_a_stated_image_that_does_not_fit_says_what_was_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seed = next(seed for seed in range(9) if drawn(seed, tmp_path)[1].shape[1] > 1)
    _, images, _ = drawn(seed, tmp_path)
    monkeypatch.chdir(tmp_path)
    np.savez("last.npz", inputs=np.moveaxis(images, 1, -1))
    command = ["net.pt", "--model", "still.py:make", "--forward", "image", "--check", "last.npz"]
    assert main(command) == 1
    said = capsys.readouterr().err
    assert "fits none of" in said and f"image of shape {(*images.shape[2:], images.shape[1])}" in said
