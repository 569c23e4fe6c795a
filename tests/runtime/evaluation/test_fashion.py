"""Fashion-MNIST's files, made here byte by byte; the real ones are read where they are installed."""

import gzip
import struct

import numpy as np
import pytest
from support import idx_images

from snn_compile.runtime.data import registry as module
from snn_compile.runtime.data.formats.idx import read_idx
from snn_compile.runtime.data.registry import SPLITS, load_data, option_names, same_set
from snn_compile.targets.errors import WrongInput


@pytest.mark.parametrize("packed", [True, False])
def test_the_test_split_is_the_test_files_and_others_part_the_training_files(tmp_path, packed):
    made = idx_images.write_set(tmp_path, packed=packed)
    name = f"fashion-mnist:{tmp_path}"
    data = {split: load_data(name, split, steps=3) for split in SPLITS}
    images, labels = made["t10k"]
    assert data["test"].inputs.shape == (12, 3, 1, 28, 28)
    for step in range(3):
        np.testing.assert_array_equal(data["test"].inputs[:, step, 0] * 255, images)
    np.testing.assert_array_equal(data["test"].labels, labels)
    by_image = {image.tobytes(): label for image, label in zip(*made["train"], strict=True)}
    seen = {}
    for split in ("train", "validation", "calibration"):
        frames = np.rint(data[split].inputs[:, 0, 0] * 255).astype(np.int64)
        seen[split] = {frame.tobytes() for frame in frames}
        assert [by_image[frame.tobytes()] for frame in frames] == data[split].labels.tolist()
    assert not seen["train"] & seen["validation"]
    assert seen["train"] | seen["validation"] == by_image.keys()
    assert len(seen["validation"]) == 4 and seen["calibration"] <= seen["train"]


def test_an_image_shown_at_every_step_is_kept_once_and_cannot_be_written(tmp_path):
    idx_images.write_set(tmp_path)
    data = load_data(f"fashion-mnist:{tmp_path}", "test", steps=50)
    assert data.inputs.strides[1] == 0 and not data.inputs.flags.writeable
    again = load_data(f"fashion-mnist:{tmp_path}", "test", **data.spec()["options"])
    np.testing.assert_array_equal(again.inputs, data.inputs)


def test_codings_and_layouts(tmp_path):
    made = idx_images.write_set(tmp_path, test=400)
    name = f"fashion-mnist:{tmp_path}"
    flat = load_data(name, "test", layout="flat", steps=2).inputs
    np.testing.assert_array_equal(flat[:, 1] * 255, made["t10k"][0].reshape(400, 784))
    rate = load_data(name, "test", coding="rate", steps=8).inputs
    assert rate.shape == (400, 8, 1, 28, 28) and set(np.unique(rate)) == {0.0, 1.0}
    assert abs(rate.mean() - flat.mean()) < 0.002
    latency = load_data(name, "test", coding="latency", layout="flat", steps=6).inputs
    np.testing.assert_array_equal(latency.sum(axis=1), flat[:, 0] > 0)


def test_mnist_is_read_from_its_files(tmp_path):
    made = idx_images.write_set(tmp_path)
    name = f"mnist:{tmp_path}"
    test = load_data(name, "test", layout="pixels", shrink=2)
    assert test.inputs.shape == (12, 196, 1)
    np.testing.assert_array_equal(test.labels, made["t10k"][1])
    squares = made["t10k"][0].reshape(12, 14, 2, 14, 2).mean(axis=(2, 4)) / 255
    np.testing.assert_allclose(test.inputs[:, :, 0], squares.reshape(12, 196))
    by_image = {image.tobytes(): label for image, label in zip(*made["train"], strict=True)}
    sizes = []
    for split in ("train", "validation"):
        data = load_data(name, split, steps=2)
        frames = np.rint(data.inputs[:, 1, 0] * 255).astype(np.int64)
        assert [by_image[frame.tobytes()] for frame in frames] == data.labels.tolist()
        sizes.append(len(frames))
    assert sizes == [36, 4]
    with pytest.raises(WrongInput, match="it comes as files; get its four IDX files and name the folder"):
        load_data("mnist")


def write_cifar(folder, each=8):
    rng = np.random.default_rng(5)
    folder.mkdir(parents=True, exist_ok=True)
    made = {}
    for name in [*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]:
        images, labels = rng.integers(0, 256, (each, 3, 32, 32)), rng.integers(0, 10, each)
        rows = np.concatenate([labels[:, None], images.reshape(each, -1)], axis=1)
        (folder / f"{name}.bin").write_bytes(rows.astype(np.uint8).tobytes())
        made[name] = images, labels
    return made


def test_cifar10_is_read_from_its_binary_version(tmp_path):
    made = write_cifar(tmp_path / "cifar-10-batches-bin")
    name = f"cifar10:{tmp_path}"
    test = load_data(name, "test", steps=2)
    assert test.inputs.shape == (8, 2, 3, 32, 32)
    np.testing.assert_array_equal(test.inputs[:, 1] * 255, made["test_batch"][0])
    np.testing.assert_array_equal(test.labels, made["test_batch"][1])
    batches = [made[f"data_batch_{n}"] for n in range(1, 6)]
    by_image = {
        i.tobytes(): label for images, labels in batches for i, label in zip(images, labels, strict=True)
    }
    sizes = []
    for split in ("train", "validation"):
        data = load_data(name, split, layout="flat", steps=1)
        frames = np.rint(data.inputs[:, 0] * 255).astype(np.int64)
        assert [by_image[frame.tobytes()] for frame in frames] == data.labels.tolist()
        sizes.append(len(frames))
    assert sizes == [36, 4]


@pytest.mark.parametrize(
    "content, says",
    [
        (None, "test_batch.bin: no such file"),
        (b"", "holds 0 bytes, not whole records of 3073"),
        (bytes(3074), "holds 3074 bytes"),
        (b"\x0a" + bytes(3072), "holds class 10; they are 0 to 9"),
    ],
)
def test_a_file_that_is_not_cifar10_is_told(tmp_path, content, says):
    if content is not None:
        (tmp_path / "test_batch.bin").write_bytes(content)
    with pytest.raises(WrongInput, match=says):
        load_data(f"cifar10:{tmp_path}", "test")


def test_names_that_mean_the_same_set():
    assert same_set("fashion-mnist", "fashion-mnist:/some/folder")
    assert same_set("mine.npz", "mine.npz") and not same_set("mine.npz", "other.npz")
    assert not same_set("digits", "fashion-mnist")
    assert option_names("fashion-mnist:/some/folder") == ("coding", "layout", "steps", "seed")
    assert option_names("mine.npz") == ("partition", "steps", "holdout")


def test_a_missing_package_is_told_with_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setitem(module.FOLDERS, "fashion-mnist", (tmp_path / "absent",))
    with pytest.raises(WrongInput, match="apt-get install dataset-fashion-mnist") as caught:
        load_data("fashion-mnist")
    assert "fashion-mnist:FOLDER" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name, options, says",
    [
        ("fashion-mnist:absent", {}, "no folder 'absent'"),
        ("digits:somewhere", {}, "not a known data set"),
        ("fashion-mnist:.", {}, "t10k-images-idx3-ubyte: no such file, neither plain nor as .gz"),
        ("fashion-mnist:.", {"layout": "rows"}, "use one of image, flat"),
        ("fashion-mnist:.", {"copies": 1}, "no option copies; known are coding"),
    ],
)
def test_a_wrong_request_is_told(tmp_path, monkeypatch, name, options, says):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WrongInput, match=says):
        load_data(name, "test", **options)


def idx(array, kind=8):
    head = struct.pack(">HBB", 0, kind, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.astype(np.uint8).tobytes()


GOOD = idx(np.arange(24).reshape(2, 3, 4))


@pytest.mark.parametrize(
    "content, says",
    [
        (b"", "does not start with two zero bytes"),
        (b"PK" + GOOD, "does not start with two zero bytes"),
        (idx(np.arange(24).reshape(2, 3, 4), kind=13), "type 13 with 3 axes"),
        (idx(np.arange(24)), "type 8 with 1 axes; unsigned bytes .* with 3"),
        (GOOD[:12], "declares 2x3 values"),
        (idx(np.zeros((0, 3, 4))), "declares 0x3x4 values"),
        (GOOD[:4] + b"\xff" * 12, "declares 4294967295x4294967295x4294967295 values"),
        (GOOD[:-1], "declares 24 values and it holds 23"),
        (GOOD + b"\0", "declares 24 values and it holds more"),
    ],
)
@pytest.mark.parametrize("packed", [True, False])
def test_a_wrong_file_is_told_in_one_line_that_names_it(tmp_path, content, says, packed):
    path = tmp_path / ("images.gz" if packed else "images")
    path.write_bytes(gzip.compress(content) if packed else content)
    with pytest.raises(WrongInput, match=says) as caught:
        read_idx(path, 3)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [b"not gzip", gzip.compress(GOOD, mtime=0)[:-12], gzip.compress(GOOD, mtime=0)[:15] + b"x" * 30],
    ids=["no gzip", "cut short", "bytes replaced"],
)
def test_a_damaged_archive_is_told(tmp_path, content):
    path = tmp_path / "images.gz"
    path.write_bytes(content)
    with pytest.raises(WrongInput, match="cannot be read") as caught:
        read_idx(path, 3)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_labels_must_fit_the_images(tmp_path):
    idx_images.write_set(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(np.zeros(11))))
    with pytest.raises(WrongInput, match=r"11 labels for the 12 images of t10k-images-idx3-ubyte\.gz"):
        load_data(f"fashion-mnist:{tmp_path}", "test")


@pytest.mark.skipif(
    not module.FASHION_FOLDER.is_dir(), reason="Debian's package dataset-fashion-mnist is not installed"
)
def test_the_installed_files():
    test = load_data("fashion-mnist", "test", steps=1)
    assert test.inputs.shape == (10000, 1, 1, 28, 28) and test.inputs.max() == 1.0
    assert np.bincount(test.labels).tolist() == [1000] * 10
    train, validation = (load_data("fashion-mnist", split, steps=1) for split in ("train", "validation"))
    assert np.bincount(np.concatenate([train.labels, validation.labels])).tolist() == [6000] * 10
    assert len(train.labels) == 54000 and len(validation.labels) == 6000
