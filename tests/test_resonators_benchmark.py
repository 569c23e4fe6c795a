"""The resonator benchmark: a finished run is kept, an unfinished one is not, and tables say what rows do."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from snn_compile.targets.errors import SnnCompileError, TrainingDiverged

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    spec = importlib.util.spec_from_file_location("snn_compile_resonators", BENCHMARKS / "resonators.py")
    assert spec is not None and spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "snn_compile_resonators", made)
    spec.loader.exec_module(made)
    return made


def small(script: ModuleType, *settings: str) -> Any:
    return script.Case("digits-brf", ("hidden=8", "batch_size=256", "epochs=2", *settings))


def forbidden(*_: object) -> None:
    raise AssertionError("trained again")


def test_a_finished_run_is_kept_until_its_configuration_changes(script, tmp_path, monkeypatch):
    (row,) = script.Evaluator(tmp_path, [], [3]).rows([small(script)])
    assert len(row["accuracies"]) == 2 and 0 < row["test_accuracy"] < 1 and row["growing"] == 0
    assert row["config"]["hidden"] == [8] and (tmp_path / row["checkpoint"]).exists()
    monkeypatch.setattr(script, "fit", forbidden)
    assert script.Evaluator(tmp_path, [], [3]).rows([small(script)]) == [row]
    with pytest.raises(AssertionError, match="trained again"):
        script.Evaluator(tmp_path, [], [4]).rows([small(script)])
    with pytest.raises(AssertionError, match="trained again"):
        script.Evaluator(tmp_path, [], [3]).rows([small(script)], until=0.5)
    (file,) = tmp_path.glob("*.json")
    file.write_text(json.dumps({**row, "config": {**row["config"], "delta": 0.01}}))
    with pytest.raises(AssertionError, match="trained again"):
        script.Evaluator(tmp_path, [], [3]).rows([small(script)])


def test_a_run_until_an_accuracy_stops_at_the_first_epoch_that_has_it(script, tmp_path):
    (row,) = script.Evaluator(tmp_path, [], [0]).rows([small(script, "epochs=5")], until=0.0)
    assert len(row["accuracies"]) == 1 and row["test_accuracy"] is None and row["config"]["until"] == 0.0


def test_an_interrupted_run_is_not_kept(script, tmp_path, monkeypatch):
    monkeypatch.setattr(script, "fit", lambda *_: SimpleNamespace(interrupted=True, metrics={}))
    with pytest.raises(KeyboardInterrupt):
        script.Evaluator(tmp_path, [], [0]).rows([small(script)])
    assert not list(tmp_path.iterdir())


def test_a_run_that_diverges_is_reported_and_other_errors_are_raised(script, tmp_path, monkeypatch):
    def diverges(*_: object) -> None:
        raise TrainingDiverged("the loss is nan", epoch=2, step=1)

    monkeypatch.setattr(script, "fit", diverges)
    (row,) = script.Evaluator(tmp_path, [], [0]).rows([small(script)])
    assert row["diverged"] == "the loss is nan" and row["test_accuracy"] is None
    head, _, found = script.ablation_table([row]).splitlines()
    assert found.count("|") == head.count("|") and found.startswith(
        "| yes | yes | yes | diverged in epoch 1 | none | none |"
    )
    assert "| diverged in epoch 1 | none | none |" in script.accuracy_table([row])

    def fails(*_: object) -> None:
        raise SnnCompileError("no such folder")

    monkeypatch.setattr(script, "fit", fails)
    with pytest.raises(SnnCompileError, match="no such folder"):
        script.Evaluator(tmp_path, [], [1]).rows([small(script)])


def test_spikes_are_compared_seed_by_seed(script):
    rates = {("smnist14-brf", 0): 0.06, ("smnist14-brf", 1): 0.02, ("smnist14-rf", 1): 0.05}
    rows = [{"name": name, "seed": seed, "spike_rate": rate} for (name, seed), rate in rates.items()]
    *_, last = script.spike_table(rows).splitlines()
    assert last == "| 14x14 | 0.060, 0.020 | 0.050 | 0.40 |"


def test_convergence_names_the_rate_that_was_soonest(script):
    def row(rate: float, seed: int, *accuracies: float) -> dict[str, Any]:
        config = {"preset": "p", "learning_rate": rate, "seed": seed}
        return {"config": config, "accuracies": accuracies, "diverged": ""}

    rows = [row(0.1, 0, 0.2, 0.61), row(0.1, 1, 0.6, 0.7), row(0.3, 0, 0.9, 0.9), row(0.3, 1, 0.1, 0.1)]
    found = script.convergence_table(rows).splitlines()[2:]
    assert found == [
        "| `p` | 0.1 | 2 | **2, 1** | 61.00 %, 70.00 % |",
        "| `p` | 0.3 | 2 | 1, never | 90.00 %, 10.00 % |",
    ]


def test_shares_are_never_rounded_up(script):
    found = [script.percent(x) for x in (0.92999, 0.93, 0.8405, 1.0, None)]
    assert found == ["92.99 %", "93.00 %", "84.05 %", "100.00 %", "none"]
