"""The Add task's sequences: what they hold, and that a seed gives the same ones."""

import numpy as np
import pytest

from snn_compile.runtime.data.registry import data_names, load_data
from snn_compile.targets.errors import WrongInput


@pytest.mark.parametrize("steps", [2, 9, 40])
def test_one_number_is_marked_in_each_half_and_their_sum_is_wanted(steps):
    data = load_data("add", "train", steps=steps, sequences=300)
    values, marks = data.inputs[..., 0], data.inputs[..., 1]
    assert data.inputs.shape == (300, steps, 2) and data.targets.shape == (300, 1) and data.labels is None
    assert set(np.unique(marks)) <= {0.0, 1.0}
    assert (marks[:, : steps // 2].sum(1) == 1).all() and (marks[:, steps // 2 :].sum(1) == 1).all()
    np.testing.assert_allclose((values * marks).sum(1), data.targets[:, 0], rtol=1e-15)
    assert 0 <= values.min() and values.max() < 1


def test_the_mean_is_off_by_a_sixth_and_every_place_is_marked():
    data = load_data("add", "train", steps=10, sequences=20000)
    assert np.mean((data.targets - 1) ** 2) == pytest.approx(1 / 6, rel=0.03)
    assert np.allclose(data.inputs[..., 1].mean(0), 1 / 5, atol=0.02)


def test_splits_and_seeds_are_fixed_and_differ():
    train, again = (load_data("add", "train", steps=6, sequences=200) for _ in range(2))
    assert np.array_equal(train.inputs, again.inputs) and np.array_equal(train.targets, again.targets)
    other = load_data("add", "train", steps=6, sequences=200, seed=1)
    held_out = load_data("add", "validation", steps=6), load_data("add", "test", steps=6)
    assert [len(d.inputs) for d in held_out] == [1000, 2000]
    for data in (other, *held_out):
        assert not np.array_equal(train.inputs[:100], data.inputs[:100])
    some = load_data("add", "calibration", steps=6, sequences=200)
    assert len(some.inputs) == 128
    assert train.spec() == {"name": "add", "options": {"steps": 6, "sequences": 200, "seed": 0}}
    spec = other.spec()
    assert np.array_equal(load_data(spec["name"], "train", **spec["options"]).targets, other.targets)
    assert "add" in data_names()


def test_calibration_is_part_of_train():
    train = load_data("add", "train", steps=5, sequences=200)
    assert np.array_equal(load_data("add", "calibration", steps=5, sequences=200).inputs, train.inputs[:128])


@pytest.mark.parametrize("options", [{"steps": 1}, {"sequences": 0}, {"seed": -1}])
def test_impossible_tasks_are_refused(options):
    with pytest.raises(WrongInput, match="at least 2 steps"):
        load_data("add", "train", **options)
