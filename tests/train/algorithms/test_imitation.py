"""Controllers by imitation: the network of a reconstruction, rounds, the chip in the loop."""

import json

import numpy as np
import pytest
import torch

from snn_compile.runtime.data.cartpole import NAME, SCALE, teacher_actions, teacher_gain
from snn_compile.runtime.data.registry import load_data
from snn_compile.runtime.execution.environments import Environment, run_side_by_side
from snn_compile.targets.errors import SnnCompileError
from snn_compile.train import cli, load_checkpoint, read_config
from snn_compile.train.algorithms.imitation import fit
from snn_compile.train.algorithms.reconstruction import network_of
from snn_compile.train.convex.reconstruction import reconstruct
from snn_compile.train.convex.witnesses import SpikingUnit

QUICK = ["epochs=2", "witnesses=64", "climbs=8", "generations=2", "episodes=4", "states=800"]


@pytest.mark.parametrize("reset", ["value", "subtract"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_network_says_what_was_reconstructed(reset, seed):
    rng = np.random.default_rng(seed)
    x = np.broadcast_to(rng.normal(size=(150, 1, 3)), (150, 6, 3))
    y = np.eye(2)[(x[:, 0, 0] > np.square(x[:, 0, 1])).astype(int)] - 0.5
    unit = SpikingUnit(rng.uniform(0.5, 0.95), reset, "leaky", rng.uniform(0.5, 0.95))
    made = reconstruct(x, y, unit, 1.0, fresh=40, rounds=2, climbs=4, seed=seed)
    network = network_of(made, 6)
    assert len(made.witnesses) > 2
    with torch.no_grad():
        told = network(torch.from_numpy(x.copy()).float()).mean(dim=1).numpy()
    assert np.abs(told - made.predict(x)).max() < 1e-5


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    path = tmp_path_factory.mktemp("cart") / "model.pt"
    seen = []
    return fit(read_config("cartpole-reconstruct", QUICK), path, seen.append), path, seen


def test_rounds_are_told_and_the_latest_of_the_best_is_kept(trained):
    training, path, seen = trained
    assert [p.epoch for p in seen] == [1, 2] and {p.metric for p in seen} == {"return"}
    ranks = [p.rank for p in seen]
    assert training.metrics["epoch"] == 1 + ranks.index(max(ranks))
    assert training.metrics["validation_return"] == max(ranks)[0]
    assert training.metrics["certificate"] == "dictionary"
    assert 0 <= training.metrics["gap"] <= 1e-6 * training.metrics["objective"]
    held = load_checkpoint(path)
    assert held.metrics == training.metrics and held.graph is not None
    assert held.config["algorithm"] == "imitation"
    hidden = held.config["network"]["layers"][0]["size"]
    assert hidden == training.metrics["neurons"] == training.network.state_dict()["layers.fc1.bias"].numel()


def test_it_balances_better_than_chance_and_the_teacher_always(trained):
    training, _, _ = trained
    environment = Environment(NAME, SCALE, 1)
    gain = teacher_gain(environment.make())
    taught, _ = run_side_by_side(
        lambda x: teacher_actions(gain, x[:, 0] * np.array(SCALE)), environment, range(7, 11)
    )
    assert taught.minimum == 500
    rng = np.random.default_rng(0)
    chance, _ = run_side_by_side(lambda x: rng.integers(0, 2, len(x)), environment, range(7, 11))
    assert chance.mean < 100 < 400 < training.metrics["test_return"]


def test_the_chip_balances_in_the_loop(trained, tmp_path, capsys):
    from snn_compile.compiler import cli as compile_cli
    from snn_compile.runtime import cli as run_cli

    _, path, _ = trained
    program = tmp_path / "cart.snn"
    assert compile_cli.main([str(path), "--target", "loihi2-sim", "--bits", "8", "-o", str(program)]) == 0
    capsys.readouterr()
    assert run_cli.main(["loop", str(program), "--episodes", "3", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["return"]["mean"] > 400


def test_the_command_prints_the_return(tmp_path, capsys):
    arguments = [f"--set={each}" for each in [*QUICK, "epochs=1", "steps=4", "seed=3"]]
    path = tmp_path / "model.pt"
    assert cli.main(["cartpole-reconstruct", "-o", str(path), "--json", *arguments]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["metric"]["name"] == "return" and result["metric"]["split"] == "test"
    assert result["objective"] > 0 and result["gap"] >= 0
    data = load_checkpoint(path).data
    assert load_data(data["name"], "test", **data["options"]).inputs.shape[1] == 4


@pytest.mark.parametrize(
    "override, says",
    [
        ("data=digits", "one of cartpole"),
        ("penalty=0", "a positive number"),
        ("decay=1", "between 0 and 1"),
        ("reset=none", "one of value, subtract"),
        ("episodes=0", "at least 1"),
    ],
)
def test_wrong_values_are_told(override, says):
    with pytest.raises(SnnCompileError, match=says):
        read_config("cartpole-reconstruct", [override])
