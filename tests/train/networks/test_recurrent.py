"""Recurrent networks: read-out, initial values, training by presets, checkpoints without a graph."""

import itertools
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.io import savemat

from snn_compile.compiler import cli as compile_cli
from snn_compile.runtime.data.registry import load_data
from snn_compile.targets.devices.device import execute
from snn_compile.targets.errors import SnnCompileError, WrongInput
from snn_compile.targets.program.file import load_program
from snn_compile.train import cli
from snn_compile.train.algorithms import bptt
from snn_compile.train.algorithms.bptt import evaluate, fit
from snn_compile.train.checkpoints.checkpoint import load_checkpoint, save_checkpoint
from snn_compile.train.configs.presets import read_config
from snn_compile.train.configs.recurrent import RECURRENT
from snn_compile.train.kernels.leaky import integrated
from snn_compile.train.networks.feedforward import Run
from snn_compile.train.networks.recurrent import RecurrentConfig, RecurrentNetwork
from snn_compile.train.neurons.rf_brf import resonator_step


def filters(a, steps):
    """Return the causal filter of each leaky integrator, (classes, steps, steps)."""
    lag = torch.arange(steps)[:, None] - torch.arange(steps)
    share = (1 - a)[:, None, None] * a[:, None, None] ** lag.clamp(min=0)
    return torch.where(lag >= 0, share, share.new_zeros(()))


@pytest.mark.parametrize("dtype, limit", [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_the_read_out_is_the_causal_filter_and_so_are_its_gradients(dtype, limit):
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(50, 3, 4, dtype=dtype, generator=generator, requires_grad=True)
    a = torch.tensor([0.2, 0.9, 0.95, 0.99], dtype=dtype, requires_grad=True)
    pull = torch.randn(50, 3, 4, dtype=dtype, generator=generator)
    whole = torch.einsum("cts,sbc->tbc", filters(a, 50), x)
    y, steps = torch.zeros(3, 4, dtype=dtype), []
    for now in x:
        y = a * y + (1 - a) * now
        steps.append(y)
    expected = torch.autograd.grad(whole, [x, a], pull)
    for made in (integrated(x, a), torch.stack(steps)):
        torch.testing.assert_close(made, whole, rtol=limit, atol=limit)
        for left, right in zip(torch.autograd.grad(made, [x, a], pull), expected, strict=True):
            assert (left - right).abs().max() <= limit * right.abs().max()


@pytest.mark.parametrize("neuron", RECURRENT)
def test_a_network_runs_the_same_with_and_without_gradients_and_reaches_its_parameters(neuron):
    torch.manual_seed(1)
    config = RecurrentConfig(3, 16, 4, neuron=neuron, delta=0.05, omega=(2.0, 16.0))
    network = RecurrentNetwork(RecurrentConfig.from_dict({**config.__dict__, "omega": [2.0, 16.0]}))
    inputs = torch.rand(5, 30, 3) * 20
    run = network.run(inputs)
    with torch.no_grad():
        again = network.run(inputs.reshape(5, 30, 3, 1))
    assert run.outputs.shape == (5, 30, 4) and torch.equal(run.outputs, again.outputs)
    run.outputs.square().sum().backward()
    assert all(bool((p.grad != 0).any()) for p in network.parameters())
    if neuron == "lstm":
        assert run.spikes == {}
    else:
        assert run.spikes["hidden"].shape == (5, 30, 16) and 0 < run.spike_rates()["hidden"] < 1
    assert network.clamped() == 0


@pytest.mark.parametrize("flags", list(itertools.product([True, False], repeat=3)))
def test_the_network_is_its_equations_step_by_step(flags):
    torch.manual_seed(2)
    words = dict(zip(("refractory", "smooth_reset", "boundary"), flags, strict=True))
    network = RecurrentNetwork(RecurrentConfig(2, 9, 3, delta=0.05, omega=(2.0, 16.0), **words)).double()
    inputs = torch.rand(4, 25, 2, dtype=torch.float64) * 30
    outputs = network(inputs)
    omega, b = network.omega.abs(), -network.offset.abs()
    if words["boundary"]:
        b = b + (torch.sqrt(1 - (0.05 * omega) ** 2) - 1) / 0.05
    z = torch.zeros(4, 9, dtype=torch.float64)
    state, y, a = (z, z, z), torch.zeros(4, 3), torch.exp(-1 / network.readout.tau.abs())
    for t in range(25):
        x = torch.cat([inputs[:, t], z], 1) @ torch.cat([network.weight_in, network.weight_rec], 1).T
        z, state = resonator_step(x, state, omega, b, network.config.resonance())
        y = a * y + (1 - a) * (z @ network.readout.weight.T)
        torch.testing.assert_close(outputs[:, t], y, rtol=1e-9, atol=1e-9)
    assert bool(z.any()) or bool(outputs.any())


def test_initial_weights_are_xavier_s_over_both_matrices_and_ranges_hold():
    torch.manual_seed(0)
    network = RecurrentNetwork(RecurrentConfig(4, 200, 6, omega=(3.0, 5.0)))
    bound = (6 / (204 + 200)) ** 0.5
    for weight in (network.weight_in, network.weight_rec):
        assert 0.95 * bound < float(weight.detach().abs().max()) <= bound
    omega, offset = network.omega.detach(), network.offset.detach()
    assert 3 <= float(omega.min()) and float(omega.max()) <= 5
    assert 0.1 <= float(offset.min()) and float(offset.max()) <= 1


@pytest.mark.parametrize(
    "words, says",
    [
        ({"neuron": "lif"}, "use one of rf, brf"),
        ({"omega": (3.0,)}, "must be two numbers"),
        ({"delta": 0.1, "omega": (1.0, 9.5)}, "makes the state grow"),
        ({"delta": -0.01}, "delta is -0.01; a step's length must be a positive number"),
        ({"delta": math.nan}, "delta is nan"),
        ({"surrogate": "x"}, "no surrogate 'x'; use one of arctan"),
        ({"hidden": 0}, "hidden is 0; it must be at least 1"),
        ({"inputs": 0}, "inputs is 0"),
        ({"tau_membrane": (1.0, -5.0)}, "tau_membrane is .* the latter at least 0"),
        ({"adaptive_reset": "half"}, "reset is 'half'"),
        ({"readout": "max"}, "readout is 'max'; use one of mean, last, per_step"),
        ({"task": "dream"}, "task is 'dream'"),
        ({"skip": -1}, "skip is -1"),
        ({"readout": "last", "skip": 3}, "skip is 3; .* 0 for the readout last"),
    ],
)
def test_a_configuration_that_cannot_be_is_told(words, says):
    with pytest.raises(SnnCompileError, match=says):
        RecurrentConfig(**{"inputs": 4, "hidden": 5, "classes": 6, **words})
    network = RecurrentNetwork(RecurrentConfig(4, 5, 6))
    with pytest.raises(SnnCompileError, match=r"takes \(batch, steps, 4\)"):
        network.run(torch.zeros(2, 3, 5))


def test_ranges_are_drawn_from_in_either_order():
    made = []
    for bounds in ((15.0, 50.0), (50.0, 15.0)):
        torch.manual_seed(1)
        made.append(RecurrentNetwork(RecurrentConfig(1, 8, 2, omega=bounds)).omega)
    assert torch.equal(*made)


def test_fast_resonators_are_clamped_and_counted():
    network = RecurrentNetwork(RecurrentConfig(1, 8, 2))
    with torch.no_grad():
        network.omega[:3] = torch.tensor([120.0, -150.0, 1e4])
    outputs = network(torch.rand(2, 50, 1) * 100)
    assert network.clamped() == 3 and torch.isfinite(outputs).all()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    path = tmp_path_factory.mktemp("brf") / "model.pt"
    return fit(read_config("digits-brf", []), path), path


def test_digits_are_learned_one_pixel_a_step(trained):
    training, _ = trained
    assert training.metrics["test_accuracy"] > 0.65
    assert 0 < training.metrics["spike_rate"] < 0.2 and training.metrics["clamped_neurons"] == 0


def test_the_checkpoint_gives_the_network_back_and_compiles(trained, capsys):
    training, path = trained
    held = load_checkpoint(path)
    network = RecurrentNetwork(RecurrentConfig.from_dict(held.config["network"]))
    network.load_state_dict(held.state_dict)
    inputs = torch.rand(3, 64, 1)
    assert torch.equal(network(inputs), training.network(inputs))
    assert compile_cli.main([str(path), "--target", "loihi2-sim", "--json"]) == 0
    accuracy = json.loads(capsys.readouterr().out)["accuracy"]
    assert accuracy["float"] == pytest.approx(training.metrics["test_accuracy"], abs=1 / accuracy["samples"])
    assert abs(accuracy["drop"]) < 2


def test_neurons_without_a_node_are_saved_without_a_graph(tmp_path, capsys):
    path, network = tmp_path / "model.pt", RecurrentNetwork(RecurrentConfig(2, 4, 3, neuron="lstm"))
    save_checkpoint(path, network, torch.rand(1, 5, 2))
    held = load_checkpoint(path)
    assert held.graph is None and "lstm" in held.unexported
    assert compile_cli.main([str(path), "--target", "loihi2-sim"]) == 1
    said = capsys.readouterr().err
    assert "model.pt: holds no graph" in said and "kind lstm" in said and said.count("\n") == 1


def test_labels_of_every_step_are_learned_and_scored_by_step(tmp_path, capsys):
    rng = np.random.default_rng(0)
    for part, count in (("train", 60), ("test", 20)):
        classes = np.repeat(rng.integers(0, 2, (count, 6)), 10, axis=1)
        x = np.zeros((count, 61, 2), np.int16)
        x[:, :60] = (rng.random((count, 60, 2)) < 0.8) & (classes[:, :, None] == np.arange(2))
        x[:, 60, 0] = -1
        y = np.eye(2, dtype=np.uint8)[np.pad(classes, ((0, 0), (0, 1)))]
        savemat(tmp_path / f"QTDB_{part}.mat", {"x": x, "y": y})
    settings = ["delta=0.1", "omega=1,4", "tau_readout=4,1", "hidden=20", "epochs=8", "batch_size=8"]
    arguments = [f"--set={s}" for s in (*settings, f"data=qt-ecg:{tmp_path}")]
    path = tmp_path / "model.pt"
    assert cli.main(["qt-ecg-brf", "-o", str(path), "--json", *arguments]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["metric"]["value"] > 0.7 and result["clamped_neurons"] == 0
    config = read_config("qt-ecg-brf", [a.removeprefix("--set=") for a in arguments])
    data = load_data(config.data, "test")
    network = RecurrentNetwork(RecurrentConfig.from_dict(load_checkpoint(path).config["network"]))
    network.load_state_dict(load_checkpoint(path).state_dict)
    told = network(torch.tensor(data.inputs, dtype=torch.float32)).argmax(-1).numpy()
    assert evaluate(network, data, config).accuracy == pytest.approx((told == data.labels).mean())
    assert result["metric"]["value"] == pytest.approx((told == data.labels).mean())


class Told(torch.nn.Module):
    """A network that says what it is told."""

    def __init__(self, outputs):
        super().__init__()
        self.outputs = outputs

    def run(self, inputs, formats=None):
        return Run(self.outputs, {"hidden": torch.zeros(4, 64, 1)})

    def formats(self):
        return None


def test_unscored_steps_change_neither_loss_nor_prediction():
    config = read_config("digits-brf", ["unscored=10"])
    data = load_data("digits", "test", layout="pixels")
    four = replace(data, inputs=data.inputs[:4], labels=np.array([1, 2, 3, 4]))
    outputs = torch.zeros(4, 64, 10)
    for sample, label in enumerate(four.labels):
        outputs[sample, 10:, label] = 1.0
    outputs[:, :10] = -1e3 * outputs[:, 10:20]
    assert evaluate(Told(outputs), four, config).accuracy == 1
    assert evaluate(Told(outputs), four, replace(config, unscored=9)).accuracy == 0
    outputs = torch.randn(4, 64, 10)
    labels = torch.tensor([1, 2, 3, 4])
    loss = bptt._cross_entropy(config, outputs, labels)
    outputs[:, :10] = 100 * torch.randn(4, 10, 10)
    assert torch.equal(bptt._cross_entropy(config, outputs, labels), loss)
    by_hand = torch.nn.functional.nll_loss(outputs[:, 10:].log_softmax(-1).sum(1), labels)
    torch.testing.assert_close(loss, by_hand)


@pytest.mark.parametrize(
    "preset, settings",
    [
        ("digits-brf", ["epochs=12", "unscored=56"]),
        ("digits", ["epochs=3", "copies=0", "unscored=6", "layout=rows"]),
    ],
)
def test_the_compiled_network_leaves_out_the_steps_that_training_did(tmp_path, capsys, preset, settings):
    path = tmp_path / "model.pt"
    assert cli.main([preset, *(f"--set={s}" for s in settings), "-o", str(path), "--json"]) == 0
    trained = json.loads(capsys.readouterr().out)["metric"]["value"]
    compiled = tmp_path / "model.snn"
    asked = [str(path), "--target", "loihi2-sim", "--check", "digits", "--json", "-o", str(compiled)]
    assert compile_cli.main(asked) == 0
    told = json.loads(capsys.readouterr().out)["accuracy"]
    assert told["float"] == pytest.approx(trained, abs=1.5 / told["samples"])
    program, held = load_program(compiled), load_checkpoint(path)
    data = load_data("digits", "test", **held.data["options"])
    whole = replace(program, outputs=(replace(program.outputs[0], skip=0),))
    found, other = (execute(p, data.inputs).predictions == data.labels for p in (program, whole))
    assert found.mean() == pytest.approx(told["deployed"]) and (found != other).mean() > 0.02
    with pytest.raises(WrongInput, match="leaves out the first"):
        execute(program, data.inputs[:, :6])


def test_a_step_at_least_is_scored(tmp_path, capsys):
    path = tmp_path / "model.pt"
    assert cli.main(["digits-brf", "--set=unscored=64", "-o", str(path)]) == 1
    assert "unscored is 64, and digits has 64 steps: none is left" in capsys.readouterr().err
    assert not path.exists()


@pytest.mark.parametrize(
    "override, says",
    [
        ("hidden=20,20", "hidden is .* must be one size, for brf"),
        ("weight_bits=8", "weight_bits is 8; it must be 0, for brf"),
        ("omega=1,2,3", "omega is .* must be two numbers"),
        ("omega=1,1e300", "omega is .* must be two numbers of at most"),
        ("tau_readout=0,0", "tau_readout is .* larger of both from 0.01"),
        ("tau_adaptation=20,-1", "tau_adaptation is .* the latter at least 0"),
        ("learning_rate=1e300", "learning_rate is 1e[+]300; it must be a positive number"),
        ("delta=1e-300", "delta is 1e-300"),
        ("omega=a,b", "numbers with commas"),
        ("loss=all", "one of mean, steps"),
    ],
)
def test_a_wrong_setting_is_told(override, says):
    with pytest.raises(SnnCompileError, match=says):
        read_config("digits-brf", [override])
