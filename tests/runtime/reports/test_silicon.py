"""Predictions beside measured chips: the stored ones are what the benchmark computes."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from snn_compile.runtime import compare
from snn_compile.runtime.execution.run import simulate
from snn_compile.targets.costs.silicon_records import TABLES, silicon_records
from snn_compile.targets.program.program import Program

ROOT = Path(__file__).resolve().parents[3]
RECORDS = ROOT.parent / "shared" / "data"


@pytest.fixture(scope="module")
def silicon() -> ModuleType:
    found = importlib.util.spec_from_file_location("silicon", ROOT / "benchmarks/silicon.py")
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules["silicon"] = module
    found.loader.exec_module(module)
    return module


def test_the_stored_predictions_are_the_benchmarks(silicon: ModuleType) -> None:
    if why := silicon.missing(RECORDS):
        pytest.skip(why)
    (record,) = (record for record in silicon_records() if record.network == "PilotNet LIF")
    measured, found = silicon.read_measured(RECORDS), silicon.predict(RECORDS, record.mapper)
    assert record.dynamic_uj_per_step == pytest.approx(measured.dynamic_uj, rel=1e-3)
    assert record.us_per_step == pytest.approx(measured.step_us)
    assert record.cores == measured.cores == found.cores
    assert found.energy_uj.keys() == set(TABLES)
    for name, span in found.energy_uj.items():
        stale = f"{name}: write it anew with python benchmarks/silicon.py --update, and docs/energy.md"
        assert getattr(record, name) == pytest.approx(span, rel=0.01), stale
    assert record.bound[0] == pytest.approx(found.bound_us, rel=0.01) and found.bound_us < measured.step_us
    text = silicon.shown(found, measured)
    assert "fitted, n = 1" in text and f"{measured.dynamic_uj:.1f}" in text


def test_an_update_keeps_what_was_measured(silicon: ModuleType, tmp_path: Path, three: Program) -> None:
    from snn_compile.runtime.reports.quantized_ann import quantized_ann
    from snn_compile.runtime.reports.step_time import step_time
    from snn_compile.targets.costs.silicon_records import SiliconRecord
    from snn_compile.targets.errors import ChipError
    from snn_compile.targets.schema import read_toml

    counts = simulate(three, np.array([[[1, 0], [1, 1]]])).counts
    energies = {name: (1.5 + i, 2.5 + i) for i, name in enumerate(TABLES)}
    time, ann = step_time(three, counts), quantized_ann(three, counts)
    found = silicon.Predicted("vendor", 2, energies, time, ann, counts)
    file = tmp_path / "record.toml"
    file.write_text(silicon.RECORD.read_text())
    silicon.update(found, file)
    old, new = (read_toml(SiliconRecord, path, ChipError) for path in (silicon.RECORD, file))
    assert {name: getattr(new, name) for name in TABLES} == energies
    assert new.bound[0] == pytest.approx(found.bound_us)
    for key in ("network", "source", "cores", "dynamic_uj_per_step", "us_per_step", "mapper"):
        assert getattr(new, key) == getattr(old, key)


def test_without_records_the_benchmark_says_what_is_missing(
    silicon: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert silicon.main(["--records", str(tmp_path)]) == 0
    assert capsys.readouterr().out.startswith("skipped: no loihi2-records/records.json in")


def test_spikes_of_an_input_layer_stand_for_its_neurons(silicon: ModuleType, three: Program) -> None:
    """The counts are those of the whole program, but for what enters the input layer."""
    inputs = np.array([[[1, 0], [1, 1], [0, 0]], [[0, 1], [0, 1], [1, 0]]])
    record = simulate(three, inputs, record=("a",))
    whole = record.counts
    later = simulate(silicon.without_input_layer(three), record.spikes("a")).counts
    joined = silicon.with_input_layer(three, later)
    assert whole is not None
    assert joined.spikes == whole.spikes and joined.updates == whole.updates
    assert joined.synops == {**whole.synops, "in-a": 0} and whole.synops["in-a"] > 0
    assert joined.active_updates == {**whole.active_updates, "a": 0}
    for name in ("a", "b"):
        np.testing.assert_array_equal(joined.neuron_spikes[name], whole.neuron_spikes[name])


def test_reports_say_how_far_each_table_is_from_silicon(three: Program) -> None:
    (record,) = silicon_records()
    report = compare(three, None, np.array([[[1, 0], [1, 1]]]))
    body, text = report.json(), " ".join(report.text().split())
    for name in TABLES:
        low, high = (end / record.dynamic_uj_per_step for end in getattr(record, name))
        assert body["energy"][name]["against_silicon"] == {record.network: [low, high]}
        assert (f"{low:.2f} to {high:.2f}" if low != high else f"{low:.2f}") in text
    bound = record.bound[0] / record.us_per_step
    assert body["step_time"]["against_silicon"][record.network][0] == pytest.approx(bound)
    assert bound < 1 and f"the bound is {bound:.2f} of the measured time" in text
    assert "one network measured" in text and "against silicon" in text
