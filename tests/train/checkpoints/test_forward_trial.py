"""What forward takes is found by trial, and the plain command compiles a factory's module alone."""

import numpy as np
import pytest
import torch
from torch import nn

from snn_compile.compiler.cli.main import main
from snn_compile.runtime.cli.main import main as run_main
from snn_compile.targets.errors import ExportError
from snn_compile.train import load_foreign
from snn_compile.train.checkpoints.forward_trial import sample_for

snn = pytest.importorskip("snntorch", reason="snntorch is in the extra train")


class Base(nn.Module):
    def __init__(self, hidden=False, beta=0.8, wide=6):
        super().__init__()
        self.fc1, self.lif1 = nn.Linear(wide, 7), snn.Leaky(beta=beta, init_hidden=hidden)
        self.fc2, self.lif2 = nn.Linear(7, 4), snn.Leaky(beta=beta, init_hidden=hidden)

    def states(self):
        return [self.lif1.init_leaky(), self.lif2.init_leaky()]

    def one(self, x, states):
        spk, states[0] = self.lif1(self.fc1(x), states[0])
        spk, states[1] = self.lif2(self.fc2(spk), states[1])
        return spk, states[1]


class Steps(Base):
    def forward(self, x):
        states = self.states()
        return torch.stack([self.one(x[t], states)[0] for t in range(x.shape[0])])


class Listed(Base):
    def forward(self, x):
        states = self.states()
        pairs = [self.one(entry, states) for entry in x]
        return [spk for spk, _ in pairs], [mem for _, mem in pairs]


class Image(Base):
    def forward(self, x):
        states = self.states()
        return torch.stack([self.one(x, states)[0] for _ in range(8)])


class Step(Base):
    def __init__(self, **options):
        super().__init__(hidden=True, **options)

    def forward(self, x):
        return self.lif2(self.fc2(self.lif1(self.fc1(x))))


class BatchFirst(Base):
    def forward(self, x):
        states = self.states()
        return torch.stack([self.one(x[:, t], states)[0] for t in range(x.shape[1])], 1)


class Mixing(Steps):
    def forward(self, x):
        return super().forward(x - x.mean(1, keepdim=True))


class Conv(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        self.conv, self.lif1 = nn.Conv2d(2, 3, 3), snn.Leaky(beta=0.7)
        self.fc, self.lif2 = nn.Linear(3 * 4 * 4, 4), snn.Leaky(beta=0.7)

    def forward(self, x):
        a, b, out = self.lif1.init_leaky(), self.lif2.init_leaky(), []
        for entry in x if self.kind == "steps" else [x] * 6:
            s, a = self.lif1(self.conv(entry), a)
            s, b = self.lif2(self.fc(s.flatten(1)), b)
            out.append(s)
        return torch.stack(out)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("cls, kind", [(Steps, "steps"), (Listed, "steps"), (Step, "step"), (Image, "image")])
def test_exactly_one_interpretation_passes(cls, kind, seed):
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    wide, steps = int(rng.integers(1, 9)), int(rng.integers(4, 12))
    module = cls(beta=float(rng.uniform(0.3, 0.95)), wide=wide)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    state = torch.get_rng_state()
    sample = sample_for(module, "m:make", (wide,), steps)
    assert sample.shape == ((steps, 1, wide) if kind == "steps" else (1, wide))
    assert torch.equal(state, torch.get_rng_state()) and module.training
    assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())


@pytest.mark.parametrize("kind", ["steps", "image"])
def test_convolutions(kind):
    torch.manual_seed(0)
    sample = sample_for(Conv(kind), "m:make", (2, 6, 6), 5)
    assert sample.shape == ((5, 1, 2, 6, 6) if kind == "steps" else (1, 2, 6, 6))


class Tutorial(nn.Module):
    """Max pooling of currents, as snnTorch's tutorial does: nearly silent until it is trained."""

    def __init__(self):
        super().__init__()
        self.conv1, self.lif1 = nn.Conv2d(1, 6, 5), snn.Leaky(beta=0.7)
        self.conv2, self.lif2 = nn.Conv2d(6, 12, 5), snn.Leaky(beta=0.7)
        self.fc, self.lif3 = nn.Linear(12 * 4 * 4, 10), snn.Leaky(beta=0.7)

    def forward(self, x):
        a, b, c, out = self.lif1.init_leaky(), self.lif2.init_leaky(), self.lif3.init_leaky(), []
        for _ in range(8):
            s, a = self.lif1(nn.functional.max_pool2d(self.conv1(x), 2), a)
            s, b = self.lif2(nn.functional.max_pool2d(self.conv2(s), 2), b)
            s, c = self.lif3(self.fc(s.flatten(1)), c)
            out.append(s)
        return torch.stack(out)


@pytest.mark.parametrize("seed", range(3))
def test_a_deep_network_before_training(seed):
    torch.manual_seed(seed)
    assert sample_for(Tutorial(), "m:make", (1, 28, 28), 8).shape == (1, 1, 28, 28)


@pytest.mark.parametrize("cls, reason", [(BatchFirst, "change"), (Mixing, "samples change each other")])
def test_what_fits_nothing_is_refused_with_the_option(cls, reason):
    torch.manual_seed(0)
    with pytest.raises(
        ExportError, match=rf"fits none of .*{reason}.*--forward steps\|step\|image"
    ) as caught:
        sample_for(cls(), "m:make", (6,), 7)
    assert "\n" not in str(caught.value)


def test_a_silent_network_is_not_guessed():
    module = Steps()
    nn.init.zeros_(module.fc2.weight)
    nn.init.zeros_(module.fc2.bias)
    with pytest.raises(ExportError, match="--forward"):
        sample_for(module, "m:make", (6,), 7)
    assert sample_for(module, "m:make", (6,), 7, "steps").shape == (7, 1, 6)
    assert sample_for(module, "m:make", (6,), 7, "image").shape == (1, 6)


SOURCE = """
import snntorch as snn
import torch
from beside import WIDE
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.lif = nn.Linear(WIDE, 4), snn.Leaky(0.8)

    def forward(self, x):
        mem, record = self.lif.init_leaky(), []
        for x_t in x:
            spk, mem = self.lif(self.fc(x_t), mem)
            record.append(spk)
        return torch.stack(record)

def make():
    return Net()

def sampled():
    return Net(), torch.zeros(8, 1, WIDE)
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with weights and data, and the network's file in a folder of its own."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "own.py").write_text(SOURCE)
    (tmp_path / "code" / "beside.py").write_text("WIDE = 6")
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    torch.save({"fc.weight": torch.randn(4, 6), "fc.bias": torch.randn(4)}, "weights.pt")
    rng = np.random.default_rng(0)
    np.savez("data.npz", inputs=rng.integers(0, 2, (6, 5, 6)).astype(float), labels=np.arange(6) % 4)
    return tmp_path


@pytest.mark.parametrize(
    "options",
    [("--check", "data.npz"), ("--calibrate", "data.npz"), ("--input-shape", "6"), ("--forward", "steps")],
)
def test_the_plain_command_takes_the_shape_from_the_data(folder, capsys, options):
    given = options if options[0] != "--forward" else (*options, "--input-shape", "6")
    assert main(["weights.pt", "--model", "code/own.py:make", *given, "-o", "one.snn"]) == 0
    assert main(["weights.pt", "--model", "code/own.py:sampled", *options[:2], "-o", "two.snn"]) == (
        1 if options[0] == "--forward" else 0
    )
    run = ["one.snn", "--data", "data.npz", "--against", "weights.pt", "--model", "code/own.py:make"]
    assert run_main(run) == 0
    assert "accuracy" in capsys.readouterr().out.lower()
    for command in (["inspect", "weights.pt"], ["export", "weights.pt", "-o", "g.nir"]):
        assert main([*command, "--model", "code/own.py:make", "--input-shape", "6"]) == 0


@pytest.mark.parametrize(
    "options, says",
    [
        (("--model", "code/own.py:make"), "--check or --calibrate DATA.*--input-shape A,B,C"),
        (("--model", "code/none.py:make"), "there is no file code/none.py"),
        (("--model", "code/own.py:absent"), "has no absent"),
        (("--model", "code/own.py:make", "--input-shape", "9"), "fits none of"),
        (("--forward", "steps"), "add --model MODULE:FACTORY"),
    ],
)
def test_what_is_missing_is_one_line(folder, capsys, options, says):
    import re

    assert main(["weights.pt", *options]) == 1
    err = capsys.readouterr().err
    assert re.search(says, err) and err.count("\n") == 1, err


def test_from_python(folder):
    made = load_foreign("weights.pt", "code/own.py:make", input_shape=(6,), forward="steps")
    assert made.graph.nodes["fc"].weight.shape == (4, 6)
    with pytest.raises(ExportError, match="use one of steps, step, image"):
        load_foreign("weights.pt", "code/own.py:make", forward="all")
