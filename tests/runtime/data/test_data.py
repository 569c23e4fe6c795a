import subprocess
import sys

import numpy as np
import pytest

from snn_compile.runtime.data.registry import SPLITS, Dataset, data_names, load_data
from snn_compile.targets.errors import WrongInput


def images_of(data):
    return {sample.tobytes() for sample in data.inputs[:, 0]}


def test_the_splits_of_digits_do_not_meet_and_cover_everything():
    from sklearn.datasets import load_digits

    bunch = load_digits()
    data = {split: load_data("digits", split, steps=1) for split in SPLITS}
    sizes = {split: len(one.inputs) for split, one in data.items()}
    assert sizes == {"train": 1294, "validation": 143, "test": 360, "calibration": 128}
    np.testing.assert_array_equal(data["test"].inputs[:, 0] * 16, bunch.data[::5])
    np.testing.assert_array_equal(data["test"].labels, bunch.target[::5])
    train, validation, test = (images_of(data[s]) for s in ("train", "validation", "test"))
    assert not train & validation and not train & test and not validation & test
    assert images_of(data["calibration"]) <= train
    assert len(train | validation | test) == len({row.tobytes() for row in bunch.data})


def test_the_name_and_its_options_give_the_same_data_again():
    first = load_data("digits", "validation", coding="rate", steps=7, settle=2)
    spec = first.spec()
    again = load_data(spec["name"], "validation", **spec["options"])
    np.testing.assert_array_equal(first.inputs, again.inputs)
    assert again.spec() == spec
    assert first.inputs.shape == (143, 9, 64) and first.inputs.dtype == np.float64
    assert first.labels.dtype == np.int64
    assert not first.inputs.flags.writeable and not first.inputs[:, 7:].any()


def test_rate_coding_draws_spikes_with_the_pixel_as_probability():
    pixels = load_data("digits", "test", steps=1).inputs[:, 0]
    spikes = load_data("digits", "test", coding="rate", steps=50).inputs
    assert set(np.unique(spikes)) == {0.0, 1.0}
    assert not spikes[:, :, :].any(axis=1)[pixels == 0].any()
    assert spikes.all(axis=1)[pixels == 1].all()
    middle = (pixels > 0.45) & (pixels < 0.55)
    assert abs(spikes.mean(axis=1)[middle].mean() - pixels[middle].mean()) < 0.01


def test_even_coding_spaces_the_spikes_of_a_rate():
    pixels = load_data("digits", "test", steps=1).inputs[:, 0]
    spikes = load_data("digits", "test", coding="even", steps=32).inputs
    assert set(np.unique(spikes)) == {0.0, 1.0}
    np.testing.assert_array_equal(spikes.sum(axis=1), 32 * pixels)  # pixels are sixteenths
    halves = spikes.transpose(0, 2, 1)[pixels == 0.5]
    np.testing.assert_array_equal(halves, np.tile([0.0, 1.0], (len(halves), 16)))
    for row, pixel in ((spikes[0, :, 20], pixels[0, 20]), (spikes[3, :, 34], pixels[3, 34])):
        np.testing.assert_array_equal(np.cumsum(row), np.floor(np.arange(1, 33) * pixel))
    rows = load_data("digits", "test", coding="even", layout="rows", repeat=4).inputs
    np.testing.assert_array_equal(
        rows.reshape(360, 8, 4, 8).sum(axis=2), np.floor(4 * pixels).reshape(360, 8, 8)
    )


def test_latency_coding_gives_one_spike_earlier_for_brighter_pixels():
    pixels = load_data("digits", "test", steps=1).inputs[:, 0]
    spikes = load_data("digits", "test", coding="latency", steps=9).inputs
    np.testing.assert_array_equal(spikes.sum(axis=1), pixels > 0)
    when = spikes.argmax(axis=1)
    np.testing.assert_array_equal(when[pixels > 0], np.rint((1 - pixels[pixels > 0]) * 8))


def test_rows_show_one_row_of_pixels_a_step():
    flat = load_data("digits", "test", steps=1).inputs
    rows = load_data("digits", "test", layout="rows", repeat=2, settle=3).inputs
    assert rows.shape == (360, 19, 8)
    np.testing.assert_array_equal(rows[:, 0:16:2].reshape(360, 64), flat[:, 0])
    np.testing.assert_array_equal(rows[:, 1:16:2], rows[:, 0:16:2])
    assert not rows[:, 16:].any()


def test_copies_follow_the_images_of_the_training_split_and_of_no_other():
    plain = load_data("digits", "train", steps=1)
    more = load_data("digits", "train", steps=1, copies=2)
    assert len(more.inputs) == 3 * len(plain.inputs)
    np.testing.assert_array_equal(more.inputs[: len(plain.inputs)], plain.inputs)
    np.testing.assert_array_equal(more.labels, np.tile(plain.labels, 3))
    assert more.inputs.min() >= 0 and more.inputs.max() <= 1
    for split in ("validation", "test", "calibration"):
        assert len(load_data("digits", split, copies=2).inputs) == len(load_data("digits", split).inputs)


def test_an_npz_is_read_whole_or_partitioned(tmp_path):
    rng = np.random.default_rng(3)
    inputs = rng.random((20, 5, 2, 3)).astype(np.float32)
    labels = rng.integers(0, 4, 20)
    path = tmp_path / "mine.npz"
    np.savez(path, inputs=inputs, labels=labels)
    data = load_data(path)
    np.testing.assert_array_equal(data.inputs, inputs.astype(np.float64))
    np.testing.assert_array_equal(data.labels, labels)
    assert data.coding == "none"
    test = load_data(path, "test", partition=True)
    np.testing.assert_array_equal(test.inputs, data.inputs[::5])
    assert len(load_data(path, "train", partition=True).inputs) == 15
    np.savez(path, inputs=inputs)
    assert load_data(path).labels is None


GOOD = np.ones((4, 3, 2))


@pytest.mark.parametrize(
    "arrays, says",
    [
        ({"data": GOOD}, "no array 'inputs'"),
        ({"inputs": np.ones((4, 3))}, r"shape \(4, 3\)"),
        ({"inputs": np.ones((0, 3, 2))}, "none of it empty"),
        ({"inputs": np.where(np.arange(24).reshape(4, 3, 2) == 9, np.nan, 1.0)}, r"\[1, 1, 1\] is nan"),
        ({"inputs": GOOD, "labels": np.zeros(3, int)}, "for 4 samples"),
        ({"inputs": GOOD, "labels": np.zeros(4)}, "whole numbers"),
        ({"inputs": GOOD, "labels": np.array([0, 1, -1, 2])}, "label is -1"),
        ({"inputs": np.array([[["a"]]])}, "real numbers"),
        ({"inputs": np.array([[[object()]]], dtype=object)}, "cannot be read"),
    ],
)
def test_a_wrong_npz_is_told_in_one_line(tmp_path, arrays, says):
    path = tmp_path / "wrong.npz"
    np.savez(path, **arrays)
    with pytest.raises(WrongInput, match=says) as caught:
        load_data(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"not a zip", None, "npy"])
def test_a_damaged_or_foreign_file_is_told_in_one_line(tmp_path, content):
    path = tmp_path / "wrong.npz"
    np.savez(path, inputs=GOOD)
    if content == "npy":
        with path.open("wb") as file:
            np.save(file, GOOD)
    else:
        path.write_bytes(path.read_bytes()[:150] if content is None else content)
    with pytest.raises(WrongInput, match="cannot be read") as caught:
        load_data(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name, split, options, says",
    [
        ("mnists", "test", {}, "not a known data set"),
        ("missing.npz", "test", {}, "no such file"),
        ("digits", "all", {}, "no split 'all'"),
        ("digits", "test", {"stps": 3}, "no option stps; known are coding"),
        ("digits", "test", {"coding": "phase"}, "direct, rate, even, latency"),
        ("digits", "test", {"steps": 0}, "at least 1"),
        ("digits", "test", {"settle": 1.5}, "whole number"),
    ],
)
def test_a_wrong_request_is_told(name, split, options, says):
    with pytest.raises(WrongInput, match=says):
        load_data(name, split, **options)


def test_the_registry_names_itself():
    images, events = (
        {"digits", "fashion-mnist", "mnist-10k", "mnist", "cifar10"},
        {"shd", "n-mnist", "dvs-gesture"},
    )
    assert set(data_names()) == images | events | {"add", "cartpole", "qt-ecg", "cifar10-dvs", "dvs-cifar10"}
    assert all(line and "\n" not in line for line in data_names().values())


def test_a_dataset_checks_itself():
    with pytest.raises(WrongInput, match="must be finite"):
        Dataset("mine", np.full((1, 1, 1), np.inf), None, "none")


def test_torch_and_sklearn_are_not_imported():
    code = (
        "import sys, snn_compile.runtime.data.registry as _; print(*({'torch', 'sklearn'} & {*sys.modules}))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split() == []
