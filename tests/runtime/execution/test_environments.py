from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest

from snn_compile.compiler.contract.contract import Contract, attach
from snn_compile.compiler.pipeline import Options, compile_graph
from snn_compile.runtime.cli import main
from snn_compile.runtime.data.cartpole import NAME, SCALE, linearized, teacher_actions, teacher_gain
from snn_compile.runtime.data.registry import load_data
from snn_compile.runtime.execution.environments import (
    Environment,
    environment_of,
    run_episodes,
    run_side_by_side,
)
from snn_compile.runtime.execution.run import simulate
from snn_compile.runtime.execution.session import open_session
from snn_compile.targets.errors import WrongInput
from snn_compile.targets.program.program import Program

pytest.importorskip("gymnasium", reason="gymnasium (extra train) is not installed")

CARTPOLE = Environment(NAME, SCALE, 4)


def random_graph(seed: int, observations: int, actions: int, hidden: int = 12) -> nir.NIRGraph:
    """Return a random network that says one of `actions` classes."""
    rng = np.random.default_rng(seed)
    graph = nir.NIRGraph(
        {
            "input": nir.Input({"input": np.array([observations])}),
            "in": nir.Affine(rng.normal(0, 2, (hidden, observations)), rng.normal(0, 1, hidden)),
            "li": nir.LI(np.full(hidden, 3.0), np.ones(hidden), np.zeros(hidden)),
            "spike": nir.Threshold(np.full(hidden, 0.5)),
            "out": nir.Affine(rng.normal(0, 1, (actions, hidden)), rng.normal(0, 0.1, actions)),
            "readout": nir.LI(np.full(actions, 3.0), np.ones(actions), np.zeros(actions)),
            "output": nir.Output({"output": np.array([actions])}),
        },
        [
            ("input", "in"),
            ("in", "li"),
            ("li", "spike"),
            ("spike", "out"),
            ("out", "readout"),
            ("readout", "output"),
        ],
    )
    attach(graph, Contract(dt=1.0))
    return graph


@pytest.fixture(scope="module")
def acting() -> Callable[..., Program]:
    """Make a random program for an environment; with `compiled_for` it says which."""

    def make(seed: int, observations: int, actions: int, **compiled_for: Any) -> Program:
        shown = np.random.default_rng(seed).uniform(-1, 1, (20, 1, observations)).repeat(4, axis=1)
        provenance = {"data": json.dumps(compiled_for)} if compiled_for else {}
        options = Options(tables="one", rounding="nearest", provenance=provenance)
        return compile_graph(random_graph(seed, observations, actions), options=options, calibration=shown)

    return make


@pytest.fixture(scope="module")
def cart_program(acting: Callable[..., Program]) -> Program:
    return acting(0, 4, 2, name="cartpole", options={"steps": 4, "scale": list(SCALE)})


def test_linearisation_is_that_of_the_environment() -> None:
    made = CARTPOLE.make()
    step, kick = linearized(made)
    rng = np.random.default_rng(0)
    for state in rng.uniform(-1e-4, 1e-4, (20, 4)):
        for action in (0, 1):
            made.reset(seed=0)
            made.unwrapped.state = state
            made.step(action)
            wanted = step @ state + kick[:, 0] * (2 * action - 1)
            np.testing.assert_allclose(made.unwrapped.state, wanted, rtol=0, atol=5e-9)  # of second order


def test_the_teacher_balances_every_start() -> None:
    made = CARTPOLE.make()
    gain = teacher_gain(made)
    step, kick = linearized(made)
    assert np.abs(np.linalg.eigvals(step - kick @ gain[None])).max() < 1
    for seed in range(10):
        state, _ = made.reset(seed=seed)
        total, over = 0.0, False
        while not over:
            state, reward, fallen, cut, _ = made.step(int(teacher_actions(gain, state[None])[0]))
            total, over = total + float(reward), fallen or cut
        assert total == 500.0


def test_the_data_set_is_the_teachers() -> None:
    data = load_data("cartpole", "validation", steps=3)
    again = load_data("cartpole", "validation", **data.spec()["options"])
    np.testing.assert_array_equal(data.inputs, again.inputs)
    assert data.inputs.shape[1:] == (3, 4) and len(data.inputs) > 500
    assert np.abs(data.inputs).max() <= 1 and (data.inputs[:, 0] == data.inputs[:, 2]).all()
    gain = teacher_gain(CARTPOLE.make())
    wanted = teacher_actions(gain, data.inputs[:, 0] * SCALE)
    assert data.labels is not None and (data.labels == wanted).mean() > 0.99  # where nothing was clipped
    other = load_data("cartpole", "validation", steps=3, seed=1)
    assert other.inputs.shape != data.inputs.shape or (other.inputs != data.inputs).any()


@pytest.mark.parametrize("continuous", [False, True])
def test_episodes_are_what_simulate_says(cart_program: Program, continuous: bool) -> None:
    # The same decisions, episode by episode, made from `simulate` on all that was shown so far.
    session = open_session(cart_program, continuous=continuous)
    seen: list[list[np.ndarray]] = []
    answered: list[list[int]] = []

    class Watched:
        program = cart_program

        def reset(self) -> None:
            session.reset()
            if len(seen) < 3:
                seen.append([])
                answered.append([])

        def step(self, currents: np.ndarray) -> Any:
            answer = session.step(currents)
            seen[-1].append(np.array(currents))
            answered[-1].append(int(answer.prediction))
            return answer

    found = run_episodes(Watched(), CARTPOLE, episodes=3, seed=5)  # type: ignore[arg-type]
    assert found.decisions == sum(map(len, seen)) and len(found.returns) == 3
    made = CARTPOLE.make()
    for episode, (shown, actions) in enumerate(zip(seen, answered, strict=True)):
        observation, _ = made.reset(seed=5 + episode)
        total = 0.0
        for index, action in enumerate(actions):
            np.testing.assert_array_equal(CARTPOLE.currents(observation[None])[0], shown[index])
            observation, reward, _, _, _ = made.step(action)
            total += float(reward)
        assert total == found.returns[episode]
        if continuous:
            steps, lag = len(shown) * 4, session.lag_steps
            outputs = simulate(cart_program, np.concatenate(shown)[None]).outputs[0]
            behind = np.concatenate([np.zeros((lag, 2), np.int64), outputs[: steps - lag]])
            wanted = behind.reshape(-1, 4, 2).sum(axis=1).argmax(axis=1)
        else:
            wanted = simulate(cart_program, np.array(shown)).predictions
        np.testing.assert_array_equal(actions, wanted)
    assert session.totals().counts is not None
    total_steps = session.totals().counts.updates  # type: ignore[union-attr]
    assert total_steps[cart_program.outputs[0].population] == 2 * 4 * found.decisions


def test_the_oracle_acts_alike(acting: Callable[..., Program]) -> None:
    for seed in (1, 2):
        program = acting(seed, 4, 2)
        found = [
            run_episodes(open_session(program, device), CARTPOLE, 2) for device in ("loihi2-sim", "oracle")
        ]
        assert found[0] == found[1]


def test_side_by_side_is_one_after_another(cart_program: Program) -> None:
    alone = run_episodes(open_session(cart_program), CARTPOLE, 5, 40)

    def decide(currents: np.ndarray) -> np.ndarray:
        return simulate(cart_program, currents).predictions

    together, states = run_side_by_side(decide, CARTPOLE, range(40, 45))
    assert together == alone and states.shape == (alone.decisions, 4)
    assert len(set(alone.returns)) > 1  # episodes end at different times


def test_other_environments(acting: Callable[..., Program]) -> None:
    program = acting(3, 2, 3)
    slope = Environment("MountainCar-v0", (1.2, 0.07), 4)
    found = run_episodes(open_session(program), slope, 1)
    assert found.returns == (-200.0,) and found.decisions == 200
    assert (found.mean, found.deviation, found.minimum) == (-200.0, 0.0, -200.0)


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        (Environment("CartPole-v1", (1.0,), 4), r"has 2 actions; the program's output output has 3 values"),
        (Environment("Acrobot-v1", (1.0,), 4), r"observations of 6 values; the program takes input of 4"),
        (Environment("CartPole-v1", (1.0, 2.0), 4), r"2 scales for 4 observation values"),
        (Environment("Pendulum-v1", (1.0,), 4), r"its actions are Box.*, not discrete"),
        (Environment("NoSuchThing-v1", (1.0,), 4), r"gymnasium cannot make it"),
        (Environment("Blackjack-v1", (1.0,), 4), r"not one array|gymnasium cannot make it"),
    ],
)
def test_what_does_not_fit_is_refused(
    acting: Callable[..., Program], environment: Environment, message: str
) -> None:
    with pytest.raises(WrongInput, match=message):
        run_episodes(open_session(acting(4, 4, 3)), environment, 1)


def test_without_gymnasium_the_line_to_install_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    with pytest.raises(WrongInput, match=r"needs gymnasium.*pip install 'snn-compile\[train\]'"):
        CARTPOLE.make()


def test_scales_travel_with_the_program(cart_program: Program, acting: Callable[..., Program]) -> None:
    assert environment_of(cart_program) == CARTPOLE
    assert environment_of(cart_program, steps=7) == replace(CARTPOLE, steps=7)
    assert environment_of(acting(5, 2, 3), "MountainCar-v0", (1.0,), 2).scale == (1.0,)
    with pytest.raises(WrongInput, match=r"add --environment NAME and --scale S,... and --steps N"):
        environment_of(acting(5, 4, 2))
    with pytest.raises(WrongInput, match=r"data of Acrobot-v1: add --scale S,... and --steps N"):
        environment_of(cart_program, "Acrobot-v1")
    with pytest.raises(WrongInput, match=r"scales \(0.0,\); they must be positive"):
        environment_of(cart_program, scale=(0.0,))


def test_the_command(cart_program: Program, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(tmp_path / "cart.snn")
    cart_program.save(file)
    arguments = ["loop", file, "--episodes", "2", "--seed", "3"]
    assert main([*arguments, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    found = run_episodes(open_session(cart_program), CARTPOLE, 2, 3)
    assert said["schema"] == {"name": "snn-run-loop", "version": 1}
    assert said["return"] == {
        "mean": found.mean,
        "deviation": found.deviation,
        "minimum": found.minimum,
        "all": list(found.returns),
    }
    assert said["decisions"] == found.decisions == said["counts"]["samples"]
    assert said["environment"] == {"name": NAME, "scale": list(SCALE), "steps": 4}
    assert said["per_decision"]["spikes"] == said["counts"]["total"]["spikes"] / found.decisions
    assert said["per_decision"]["energy_pj"]["synops"] == pytest.approx(23.6 * said["per_decision"]["synops"])
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert f"{found.mean:,.2f}" in out and "2 episodes, seeds from 3" in out
    assert main([*arguments, "--min-return", str(found.mean)]) == 0
    assert main([*arguments, "--min-return", str(found.mean + 1)]) == 3
    assert "below" in capsys.readouterr().err
    assert main([*arguments, "--device", "lava"]) == 1
    with pytest.raises(SystemExit) as stopped:
        main([*arguments, "--episodes", "0"])
    assert stopped.value.code == 2
