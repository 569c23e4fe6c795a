"""More calibration data does not make a program worse, and the report says how sure its fidelity is."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from snn_compile.compiler.calibration.calibrate import SPIKES_TOLERATED, _needs_refinement
from snn_compile.compiler.calibration.fidelity import Fidelity
from snn_compile.targets.devices.record import Overflow

ROOT = Path(__file__).resolve().parents[3]
PAPER = ROOT.parent / "shared" / "data" / "nir-paper"


def benchmark(name: str):
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


@pytest.fixture(scope="module")
def rows():
    """Random networks, each compiled on sets of several sizes."""
    module = benchmark("calibration_data")
    return [row for seed in range(5000, 5009) if (row := module.measure(seed, 120)) is not None]


def test_more_data_is_not_worse(rows):
    module = benchmark("calibration_data")
    assert len(rows) >= 6 and len({row["network"] for row in rows}) == len(rows)
    assert sum(len(module.drops(row)) for row in rows) <= 1
    assert not [text for text in module.failures(rows) if "mean" in text]


def test_a_few_samples_do_not_stop_it_by_chance(rows):
    """On 8 samples predictions often agree; most output counts have to, on other samples."""
    found = benchmark("calibration_data").means(rows)
    assert found["8"]["classes"] > 0.95 and found["8"]["counts"] > 0.6


@pytest.mark.skipif(not PAPER.is_dir(), reason="needs ../shared/data/nir-paper")
@pytest.mark.parametrize(("name", "reset"), [("bias_zero", "value"), ("noBias_subtract", "subtract")])
def test_braille_calibrated_on_the_rate_it_runs_at(name, reset):
    conventions = {"dt": 1e-4, "reset": reset, "reset_timing": "same_step"}
    module = benchmark("braille")
    found = module.measure(name, PAPER / f"braille_noDelay_{name}.nir", conventions, {}, 300, 0, True)
    assert len(found) == 3 and module.failures(found, True) == []


def fidelity(**changes) -> Fidelity:
    plain = {
        "predictions": 32,
        "disagreements": 0,
        "changed": 0.0,
        "error": 0.0,
        "synapse_bits": 1,
        "cores": 1,
    }
    return Fidelity(**{**plain, "overflows": {"a": Overflow()}, "samples": 32, **changes})


@pytest.mark.parametrize(
    ("changes", "refined"),
    [
        ({}, False),
        ({"changed": 0.26}, True),
        ({"changed": SPIKES_TOLERATED}, False),
        ({"disagreements": 1}, False),
        ({"disagreements": 2}, True),
        ({"error": 0.03, "same_counts": 0}, True),
        ({"error": 0.03}, False),
        ({"error": 0.03, "disagreements": None}, True),
    ],
)
def test_what_stops_it(changes, refined):
    assert _needs_refinement(fidelity(**changes)) is refined


@pytest.mark.parametrize(
    ("same", "of", "low", "high"), [(32, 32, 0.8928, 1.0), (0, 10, 0.0, 0.2775), (5, 10, 0.2366, 0.7634)]
)
def test_shares_have_wilsons_interval(same, of, low, high):
    found = fidelity(predictions=of, disagreements=of - same, same_counts=same, samples=of).sureness()
    assert found["same_prediction"]["interval"] == pytest.approx([low, high], abs=1e-4)
    assert found["same_counts"] == found["same_prediction"]


def test_the_interval_of_changed_spikes_covers_its_mean():
    """Of 400 sets of samples whose share is 5 %, about 95 % have an interval that holds it."""
    from snn_compile.compiler.calibration.fidelity import _ratio

    rng, held = np.random.default_rng(0), 0
    for _ in range(400):
        spikes = rng.poisson(200, 32).astype(float)
        changed = rng.binomial(spikes.astype(int), np.clip(rng.gamma(4, 0.05 / 4, 32), 0, 1)).astype(float)
        share, error = _ratio(changed, spikes)
        low, high = fidelity(changed=share, changed_error=error).sureness()["spikes_changed"]["interval"]
        held += low <= 0.05 <= high
    assert 0.90 <= held / 400 <= 0.98
