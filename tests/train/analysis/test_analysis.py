"""Analyses: landscapes against single runs of moved networks and known surfaces; the commands."""

import json
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import nn

from snn_compile import train
from snn_compile.targets.errors import SnnCompileError, TrainingDiverged
from snn_compile.train import cli
from snn_compile.train.algorithms import bptt
from snn_compile.train.analysis import convergence as analysis
from snn_compile.train.analysis.convergence import (
    Convergence,
    best_rates,
    convergence,
    gradient_norms,
    spectral_radius,
)
from snn_compile.train.analysis.landscape import Landscape, error_landscape, normalised
from snn_compile.train.cli import progress
from snn_compile.train.cli.main import INTERRUPTED
from snn_compile.train.configs.presets import read_config
from snn_compile.train.networks.recurrent import RecurrentConfig, RecurrentNetwork


@pytest.mark.parametrize("neuron", ["rf", "brf", "rf_iz", "alif"])
@pytest.mark.parametrize("per_step", [False, True])
def test_every_point_is_the_loss_of_the_network_moved_there(neuron, per_step):
    torch.manual_seed(4)
    rng = np.random.default_rng(4)
    network = RecurrentNetwork(RecurrentConfig(2, 10, 3, neuron=neuron, delta=0.05, omega=(2.0, 16.0)))
    inputs, labels = rng.random((6, 20, 2)) * 20, rng.integers(0, 3, (6, 20) if per_step else 6)
    made = error_landscape(network, inputs, labels, points=5, span=0.8, seed=9)
    assert len(set(made.losses.ravel().tolist())) > 10
    generator = torch.Generator().manual_seed(9)
    weights = [network.weight_in.detach().clone(), network.weight_rec.detach().clone()]
    eta, xi = ([normalised(w, generator) for w in weights] for _ in range(2))
    x, wanted = torch.tensor(inputs, dtype=torch.float32), torch.tensor(labels)
    wanted = wanted if per_step else wanted[:, None].expand(-1, 20)
    places = np.linspace(-0.8, 0.8, 5)
    np.testing.assert_array_equal(made.alphas, places)
    for i, j in [(0, 0), (2, 2), (4, 1), (3, 4)]:
        moved = [w + places[i] * a + places[j] * b for w, a, b in zip(weights, eta, xi, strict=True)]
        with torch.no_grad():
            network.weight_in.copy_(moved[0])
            network.weight_rec.copy_(moved[1])
            outputs = network(x)
        loss = nn.functional.cross_entropy(outputs.flatten(0, 1), wanted.flatten())
        assert made.losses[i, j] == pytest.approx(float(loss), rel=1e-4)


def test_directions_have_the_norms_of_the_rows():
    weight = torch.randn(7, 5) * torch.arange(1, 8)[:, None]
    one, two = (normalised(weight, torch.Generator().manual_seed(s)) for s in (0, 1))
    torch.testing.assert_close(one.norm(dim=1), weight.norm(dim=1))
    assert not torch.equal(one, two)


def test_what_is_told_of_known_surfaces():
    x = np.linspace(-1, 1, 21)
    a, b = np.meshgrid(x, x, indexing="ij")
    bowl, saddle = Landscape(x, x, a**2 + 2 * b**2), Landscape(x, x, a * b)
    assert (bowl.negative_curvature(), bowl.minima()) == (0.0, 1)
    assert (saddle.negative_curvature(), saddle.minima()) == (1.0, 0)
    assert bowl.roughness() == pytest.approx((2 + 4) / 2 * 0.1**2 / 3)
    rough = Landscape(x, x, bowl.losses + 0.2 * np.cos(5 * np.pi * a) * np.cos(5 * np.pi * b))
    assert rough.roughness() > 3 * bowl.roughness() and rough.minima() > 5


def test_landscapes_that_cannot_be_are_told():
    lstm = RecurrentNetwork(RecurrentConfig(1, 4, 2, neuron="lstm"))
    with pytest.raises(SnnCompileError, match="lstm"):
        train.error_landscape(lstm, np.zeros((2, 3, 1)), [0, 1])
    with pytest.raises(SnnCompileError, match="3 or more"):
        error_landscape(lstm, np.zeros((2, 3, 1)), [0, 1], points=2)


def test_gradients_keep_their_norm_on_the_boundary_only():
    omega = np.array([1.0, 30.0, 90.0])
    b = train.divergence_boundary(omega, 0.01)
    np.testing.assert_allclose(gradient_norms(omega, b, 0.01, 50), 1.0, atol=1e-9)
    for away in (-1.0, 0.5):
        norms = gradient_norms(omega, b + away, 0.01, 50)
        powers = spectral_radius(omega, b + away, 0.01) ** np.arange(51)[:, None]
        np.testing.assert_allclose(norms, powers, rtol=1e-9)
        assert ((norms[-1] > 1) == (away > 0)).all()


def test_the_rate_that_is_soonest_is_chosen_and_never_counts_last():
    runs = [
        Convergence("a", 0.1, 0, (0.2, 0.7, 0.8)),
        Convergence("a", 0.1, 1, (0.2, 0.3, 0.4)),
        Convergence("a", 0.5, 0, (0.2, 0.5, 0.9)),
        Convergence("a", 0.5, 1, (0.2, 0.5, 0.6)),
        Convergence("b", 0.1, 0, (0.1, 0.1, 0.1)),
    ]
    assert best_rates(runs, 0.7) == {"a": (0.1, [2, None]), "b": (0.1, [None])}
    assert best_rates(runs[:4], 0.5) == {"a": (0.5, [2, 2])}


def test_a_rate_that_diverges_comes_last_whatever_it_reached():
    late = Convergence("a", 0.1, 0, (0.2, 0.3, 0.4))
    lost = [Convergence("a", 9.0, 0, (), True), Convergence("a", 8.0, 0, (0.9,), True)]
    assert all(run.epochs_to(0.5) is None for run in lost)
    assert best_rates([*lost, late], 0.7) == {"a": (0.1, [None])}
    assert best_rates(lost, 0.7) == {"a": (9.0, [None])}


def test_convergence_trains_every_rate_and_seed():
    config = read_config("digits-brf", ["epochs=2", "hidden=8", "batch_size=512"])
    told = []
    runs = convergence({"x": config}, [0, 1], {"x": (0.1, 0.01)}, told.append)
    assert [(r.learning_rate, r.seed) for r in runs] == [(0.1, 0), (0.1, 1), (0.01, 0), (0.01, 1)]
    assert told == runs and all(len(r.accuracies) == 2 and not r.diverged for r in runs)


def test_a_rate_that_diverges_costs_its_own_runs_only(tmp_path, capsys):
    figure = tmp_path / "figure.png"
    settings = ["--seeds", "0", "--set=epochs=1", "--set=hidden=8"]
    assert (
        cli.main(["analyse", "convergence", "digits-brf=1e9,0.1", *settings, "-o", str(figure), "--json"])
        == 0
    )
    shown = capsys.readouterr()
    found = json.loads(shown.out)
    assert [(r["learning_rate"], r["diverged"], len(r["accuracies"])) for r in found["runs"]] == [
        (1e9, True, 0),
        (0.1, False, 1),
    ]
    assert found["best"] == [{"preset": "digits-brf", "learning_rate": 0.1, "epochs": [None]}]
    assert "rate 1e+09, seed 0" in shown.err and "rate 0.1, seed 0" in shown.err and figure.is_file()
    assert cli.main(["analyse", "convergence", "digits-brf=1e9", *settings, "-o", str(figure)]) == 0
    assert "diverged True, accuracies none" in capsys.readouterr().out
    with pytest.raises(TrainingDiverged, match="try a learning_rate below 1e\\+09"):
        bptt.fit(read_config("digits-brf", ["epochs=1", "hidden=8", "learning_rate=1e9"]))


def test_an_interrupt_ends_the_experiment_and_what_has_ended_is_told(monkeypatch, capsys):
    settings = ["--seeds", "0", "1", "2", "--set=epochs=2", "--set=hidden=8", "--set=batch_size=512"]

    @contextmanager
    def stopping(epochs, name=""):
        def show(progress):
            if "seed 1" in name:
                raise KeyboardInterrupt

        yield show

    monkeypatch.setattr(progress, "progress_bar", stopping)
    assert cli.main(["analyse", "convergence", "digits-brf", *settings, "--json"]) == INTERRUPTED
    shown = capsys.readouterr()
    found = json.loads(shown.out)
    assert [r["seed"] for r in found["runs"]] == [0] and found["interrupted"]
    assert "only finished trainings are reported" in shown.err
    at_once = ["analyse", "convergence", "digits-brf", "--seeds", "1", *settings[4:], "--json"]
    assert cli.main(at_once) == INTERRUPTED
    shown = capsys.readouterr()
    assert shown.out == "" and "nothing was written" in shown.err


@pytest.mark.parametrize(
    "command", ["boundary", "landscape absent.pt", "equilibrium absent.pt", "convergence digits-brf"]
)
def test_where_the_figure_goes_is_checked_before_any_work(command, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(analysis, "fit", None)
    assert cli.main(["analyse", *command.split(), "-o", str(tmp_path / "nowhere" / "figure.png")]) == 1
    assert "nowhere does not exist; create it first" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments, key",
    [
        (["boundary", "--points", "21"], "share_that_diverges"),
        (["gradient", "--omega", "30", "--steps", "40"], "norms"),
        (["convergence", "digits-brf=0.1", "--seeds", "0", "--set=epochs=1", "--set=hidden=8"], "best"),
    ],
)
def test_a_command_prints_its_numbers_and_draws(arguments, key, tmp_path, capsys):
    figure = tmp_path / "figure.png"
    assert cli.main(["analyse", *arguments, "-o", str(figure), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert key in found and found["schema"]["name"] == f"snn-train-analyse-{arguments[0]}"
    assert figure.read_bytes().startswith(b"\x89PNG")
    if arguments[0] != "convergence":
        assert cli.main(["analyse", *arguments]) == 0
        assert key.replace("_", " ") in capsys.readouterr().out


def test_the_landscape_of_a_checkpoint(tmp_path, capsys):
    path, figure = tmp_path / "model.pt", tmp_path / "figure.png"
    settings = ["--set=epochs=1", "--set=hidden=8"]
    assert cli.main(["digits-brf", "-o", str(path), *settings, "--json"]) == 0
    capsys.readouterr()
    command = ["analyse", "landscape", str(path), "--points", "3", "--samples", "5"]
    assert cli.main([*command, "-o", str(figure), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["samples"] == 5 and found["neuron"] == "brf" and figure.is_file()
    assert cli.main(["digits", "-o", str(path), "--set=epochs=1", "--set=copies=0", "--set=steps=2"]) == 0
    assert cli.main(command) == 1
    assert "not a recurrent network" in capsys.readouterr().err


def test_a_gradient_that_vanishes_at_once_deviates_from_no_power(capsys):
    assert cli.main(["analyse", "gradient", "--delta", "1", "--omega", "0", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["norms"][0]["norm"] == 0
    assert found["largest_relative_deviation_from_the_power"] < 1e-9


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["boundary", "-o", "figure.pdf"], "written as .png"),
        (["boundary", "--delta", "0"], "--delta 0: a step's length must be from 1e-09"),
        (["boundary", "--delta", "inf"], "--delta inf: a step's length"),
        (["boundary", "--delta", "1e-320"], "a step's length"),
        (["boundary", "--points", "1"], "at least 2"),
        (["gradient", "--delta", "0"], "--delta 0: a step's length"),
        (["gradient", "--delta=-0.01", "--omega=-10"], "a step's length"),
        (["gradient", "--omega=-10"], "omega must be at least 0"),
        (["gradient", "--delta", "100", "--omega", "0"], "grows past 1e+150"),
        (["gradient", "--steps", "0"], "at least 1"),
        (["gradient", "--omega", "200"], "below 1"),
        (["convergence", "digits-brf=fast"], "learning rates are numbers"),
        (["landscape", "absent.pt"], "no such checkpoint"),
    ],
)
def test_a_wrong_request_is_told(arguments, says, capsys):
    assert cli.main(["analyse", *arguments]) == 1
    assert says in capsys.readouterr().err
