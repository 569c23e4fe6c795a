"""Samples set aside for calibration: how many, which, and what is left to measure on."""

from __future__ import annotations

import numpy as np
import pytest

from snn_compile.runtime import load_data
from snn_compile.runtime.data.dataset import Dataset
from snn_compile.runtime.data.holdout import default_size, divide, set_aside
from snn_compile.targets.errors import WrongInput


def drawn(rng, count, classes=None, steps=3):
    inputs = rng.random((count, steps, 2))
    labels = None if classes is None else rng.choice(len(classes), count, p=classes)
    return Dataset("mine.npz", inputs, labels, "none")


@pytest.mark.parametrize(
    ("count", "size"), [(64, 32), (65, 32), (100, 32), (319, 31 + 1), (330, 33), (2560, 256), (100_000, 256)]
)
def test_a_tenth_within_bounds_is_the_default(count, size):
    assert default_size(count) == size <= count / 2


@pytest.mark.parametrize("seed", range(20))
def test_both_parts_together_are_the_data(seed):
    rng = np.random.default_rng(seed)
    count = int(rng.integers(2, 400))
    classes = None if seed % 3 == 0 else rng.dirichlet(np.ones(int(rng.integers(1, 12))))
    data, number = drawn(rng, count, classes), int(rng.integers(1, count))
    aside, rest = set_aside(data, number)
    assert (len(aside.inputs), len(rest.inputs)) == (number, count - number)
    assert (aside.split, rest.split) == ("calibration", "test")
    both = np.concatenate([aside.inputs, rest.inputs]).reshape(count, -1)
    assert np.array_equal(np.unique(both, axis=0), np.unique(data.inputs.reshape(count, -1), axis=0))
    again = set_aside(data, number)[0]
    assert np.array_equal(again.inputs, aside.inputs)
    if classes is not None:
        share = number * np.bincount(data.labels, minlength=len(classes)) / count
        given = np.bincount(aside.labels, minlength=len(classes))
        assert (np.abs(given - share) < 1).all()
        where = {tuple(x.reshape(-1)): y for x, y in zip(data.inputs, data.labels, strict=True)}
        assert all(where[tuple(x.reshape(-1))] == y for x, y in zip(rest.inputs, rest.labels, strict=True))


def test_the_indices_are_those_of_the_file(tmp_path):
    data = drawn(np.random.default_rng(3), 200, [0.5, 0.3, 0.2])
    np.savez(tmp_path / "mine.npz", inputs=data.inputs, labels=data.labels)
    found = divide("mine.npz", False, lambda split: load_data(tmp_path / "mine.npz", split))
    rest = np.setdiff1d(np.arange(200), found.indices)
    assert np.array_equal(found.calibration.inputs, data.inputs[found.indices])
    assert np.array_equal(found.checked.inputs, data.inputs[rest])
    assert np.array_equal(found.checked.labels, data.labels[rest])
    spec = found.checked.spec()
    assert np.array_equal(load_data(spec["name"], "test", **spec["options"]).inputs, found.checked.inputs)
    again = load_data(spec["name"], "calibration", **spec["options"])
    assert np.array_equal(again.inputs, found.calibration.inputs)
    assert found.json()["indices"] == found.indices.tolist() and found.json()["of"] == 200


def test_a_frame_that_is_presented_at_every_step_stays_stored_once(tmp_path):
    np.savez(tmp_path / "still.npz", inputs=np.random.default_rng(0).random((100, 4)))
    for split, count in (("calibration", 10), ("test", 90)):
        data = load_data(tmp_path / "still.npz", split, steps=50, holdout=10)
        assert data.inputs.shape == (count, 50, 4) and data.inputs.strides[1] == 0


def test_labels_per_step_are_divided_at_random():
    rng = np.random.default_rng(1)
    data = Dataset("mine.npz", rng.random((80, 5, 2)), rng.integers(0, 4, (80, 5)), "none")
    aside, rest = set_aside(data, 20)
    assert aside.labels.shape == (20, 5) and rest.labels.shape == (60, 5)


def test_few_samples_are_left_together_with_a_warning():
    data = drawn(np.random.default_rng(2), 63)
    found = divide("mine.npz", False, lambda split: data)
    assert found.calibration is None and found.checked is data and found.indices is None
    assert "63 samples" in found.note and "--holdout" in found.note


def test_a_split_of_its_own_comes_first():
    found = divide("digits", True, lambda split: load_data("digits", split, steps=2))
    assert (len(found.calibration.inputs), found.calibration.split) == (128, "calibration")
    assert found.indices is None and found.checked.split == "test"
    fewer = divide("digits", True, lambda split: load_data("digits", split, steps=2), 40)
    assert len(fewer.calibration.inputs) == 40 and len(fewer.checked.inputs) == len(found.checked.inputs)


@pytest.mark.parametrize("number", [0, -1, 80, 81, 10**9])
def test_a_division_leaves_something_on_both_sides(number):
    with pytest.raises(WrongInput, match="80 samples"):
        set_aside(drawn(np.random.default_rng(0), 80), number)
