"""Sets of events: folders written here in the published formats, binned by hand, and read by tonic where it
is installed."""

import sys
from dataclasses import fields

import h5py
import numpy as np
import pytest
from support import event_folders

from snn_compile.runtime.data.formats.aedat4 import DECOMPRESSED_MAX
from snn_compile.runtime.data.formats.event_files import read_aedat, read_nmnist
from snn_compile.runtime.data.formats.events import Binning, Events
from snn_compile.runtime.data.registry import SPLITS, load_data, option_names
from snn_compile.targets.errors import WrongInput
from snn_compile.train.configs.config import RunConfig


def by_hand(events, size, steps, dt=0.0, shrink=1, polarity=True, counts=False):
    """Bin one event after the other; times in whole microseconds."""
    t, x, y, p = events
    side = size // shrink
    out = np.zeros((steps, 1 + polarity, side, side))
    for when, column, row, brighter in zip(*(a.tolist() for a in (t, x, y, p)), strict=True):
        step = int(when // round(dt * 1e6)) if dt else when * steps // (int(t.max()) + 1)
        if step < steps:
            place = step, brighter if polarity else 0, row // shrink, column // shrink
            out[place] = out[place] + 1 if counts else 1
    return out


def spoken_by_hand(recording, steps, dt=0.0, shrink=1, counts=False):
    times, units, _ = recording
    t = np.rint(times.astype(np.float64) * 1e6).astype(int)
    out = np.zeros((steps, 700 // shrink))
    for when, unit in zip(t.tolist(), units.tolist(), strict=True):
        step = int(when // round(dt * 1e6)) if dt else when * steps // (int(t.max()) + 1)
        if step < steps:
            place = step, unit // shrink
            out[place] = out[place] + 1 if counts else 1
    return out


@pytest.mark.parametrize(
    "options", [{"steps": 10, "dt": 0.1}, {"steps": 7}, {"steps": 5, "shrink": 7, "counts": True, "dt": 0.25}]
)
@pytest.mark.parametrize(
    "stored",
    [{}, {"chunks": 4}, {"chunks": 64}, {"chunks": 5, "filters": {"compression": "gzip", "shuffle": True}}],
    ids=["contiguous", "chunks", "one chunk", "packed"],
)
def test_shd_bins_spikes_of_channels(tmp_path, options, stored):
    made = event_folders.write_shd(tmp_path, **stored)
    data = {split: load_data(f"shd:{tmp_path}", split, **options) for split in SPLITS}
    wanted = {part: [spoken_by_hand(one, **options) for one in made[part]] for part in made}
    np.testing.assert_array_equal(data["test"].inputs, wanted["test"])
    assert data["test"].labels.tolist() == [label for _, _, label in made["test"]]
    known = {x.tobytes(): label for x, (_, _, label) in zip(wanted["train"], made["train"], strict=True)}
    seen = {}
    for split in ("train", "validation", "calibration"):
        seen[split] = [x.tobytes() for x in data[split].inputs]
        assert [known[x] for x in seen[split]] == data[split].labels.tolist()
    assert len(seen["validation"]) == 2 and len(seen["train"]) == 18
    assert set(seen["train"]) | set(seen["validation"]) == set(known)
    again = load_data(data["test"].spec()["name"], "test", **data["test"].spec()["options"])
    np.testing.assert_array_equal(again.inputs, data["test"].inputs)


CAMERA_OPTIONS = [
    {"steps": 6},
    {"steps": 9, "dt": 0.02, "polarity": False},
    {"steps": 4, "shrink": 2, "counts": True},
    {"steps": 3, "dt": 0.5, "shrink": 2, "counts": True, "polarity": False},
]


def check_parts(name, size, train, test, options):
    """Compare all splits of a set that has its own parts with what was written: [(class, events)]."""
    data = {split: load_data(name, split, **options) for split in SPLITS}
    np.testing.assert_array_equal(data["test"].inputs, [by_hand(e, size, **options) for _, e in test])
    assert data["test"].labels.tolist() == [label for label, _ in test]
    frames = [by_hand(e, size, **options) for _, e in train]
    known = {x.tobytes(): label for x, (label, _) in zip(frames, train, strict=True)}
    assert len(known) == len(train)
    seen = {}
    for split in ("train", "validation", "calibration"):
        seen[split] = [x.tobytes() for x in data[split].inputs]
        assert [known[x] for x in seen[split]] == data[split].labels.tolist()
    assert len(seen["validation"]) == len(train) // 10
    assert set(seen["train"]) | set(seen["validation"]) == set(known)
    assert len(seen["train"]) + len(seen["validation"]) == len(train)


@pytest.mark.parametrize("options", CAMERA_OPTIONS)
def test_n_mnist(tmp_path, options):
    made = event_folders.write_n_mnist(tmp_path)
    check_parts(f"n-mnist:{tmp_path}", 34, made["Train"], made["Test"], options)


@pytest.mark.parametrize("options", CAMERA_OPTIONS)
def test_gestures_as_tonic_stores_them(tmp_path, options):
    made = event_folders.write_gestures(tmp_path / "DVSGesture")
    check_parts(f"dvs-gesture:{tmp_path}", 128, made["Train"], made["Test"], options)


@pytest.mark.parametrize("options", CAMERA_OPTIONS)
def test_gestures_as_published(tmp_path, options):
    made = event_folders.write_gesture_recordings(tmp_path)
    check_parts(f"dvs-gesture:{tmp_path}", 128, made["train"], made["test"], options)


@pytest.mark.parametrize("options", CAMERA_OPTIONS)
@pytest.mark.parametrize("version", [2, 4])
def test_cifar10_dvs_has_a_split_of_our_own(tmp_path, options, version):
    made = event_folders.write_cifar10_dvs(tmp_path, each=4, version=version)
    frames = np.array([by_hand(events, 128, **options) for _, events in made])
    labels = np.array([label for label, _ in made])
    data = {split: load_data(f"cifar10-dvs:{tmp_path}", split, **options) for split in SPLITS}
    np.testing.assert_array_equal(data["test"].inputs, frames[::5])
    np.testing.assert_array_equal(data["test"].labels, labels[::5])
    rest = {x.tobytes(): label for x, label in zip(frames, labels, strict=True)}
    for split in ("train", "validation"):
        for x, label in zip(data[split].inputs, data[split].labels, strict=True):
            assert rest[x.tobytes()] == label
    assert [len(data[split].inputs) for split in SPLITS] == [29, 3, 8, 29]
    other = load_data(f"dvs-cifar10:{tmp_path}", "test", **options)
    np.testing.assert_array_equal(other.inputs, data["test"].inputs)


@pytest.mark.parametrize("compression", range(5))
@pytest.mark.parametrize("more", [False, True])
def test_aedat4_is_unfolded_and_other_streams_left_out(tmp_path, compression, more):
    made = event_folders.events(np.random.default_rng(9), 130, 128, 10_000)
    path = tmp_path / "one.aedat4"
    path.write_bytes(event_folders.aedat4_bytes(*made, compression=compression, more=more))
    read = read_aedat(path)
    for wanted, found in zip(made, (read.t, read.x, read.y, read.p), strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_a_bomb_unfolds_to_its_limit_and_no_further(tmp_path):
    body = event_folders.aedat4_head(3, -1)
    folded = event_folders.folded(bytes(DECOMPRESSED_MAX + 100), 3)
    path = tmp_path / "one.aedat4"
    path.write_bytes(body + (0).to_bytes(4, "little") + len(folded).to_bytes(4, "little") + folded)
    assert path.stat().st_size < 100_000
    with pytest.raises(WrongInput, match=f"decompresses to more than {DECOMPRESSED_MAX} bytes"):
        read_aedat(path)


def test_a_missing_package_is_told_with_how_to_install_it(tmp_path, monkeypatch):
    path = tmp_path / "one.aedat4"
    made = event_folders.events(np.random.default_rng(9), 10, 128, 1000)
    for compression, package in ((1, "lz4"), (3, "zstandard")):
        path.write_bytes(event_folders.aedat4_bytes(*made, compression=compression))
        with monkeypatch.context() as patch:
            for name in ("lz4", "lz4.frame", "zstandard"):
                patch.setitem(sys.modules, name, None)
            with pytest.raises(WrongInput, match=package) as caught:
                read_aedat(path)
        assert "pip install 'snn-compile[events]'" in str(caught.value) and "\n" not in str(caught.value)


def test_rows_of_240_are_no_events_but_add_time(tmp_path):
    t, x, y, p = (
        np.array(a)
        for a in ([5, 8000, 8100, 30, 40], [1, 0, 2, 0, 33], [3, 4, 240, 240, 33], [1, 0, 1, 0, 1])
    )
    path = tmp_path / "one.bin"
    path.write_bytes(event_folders.saccade_bytes(t, x, y, p))
    read = read_nmnist(path)
    assert read.t.tolist() == [5, 8000, 40 + 2 * 8192]
    assert (read.x.tolist(), read.y.tolist(), read.p.tolist()) == ([1, 0, 33], [3, 4, 33], [1, 0, 1])


def test_samples_are_a_fixed_part_of_the_split(tmp_path):
    event_folders.write_n_mnist(tmp_path)
    name = f"n-mnist:{tmp_path}"
    whole, part = (load_data(name, "train", steps=4, samples=samples) for samples in (0, 9))
    places = [[x.tobytes() for x in whole.inputs].index(x.tobytes()) for x in part.inputs]
    assert len(places) == 9 and places == sorted(set(places)) and places != list(range(9))
    np.testing.assert_array_equal(part.labels, whole.labels[places])
    np.testing.assert_array_equal(load_data(name, "train", steps=4, samples=9).inputs, part.inputs)
    flat = load_data(name, "train", steps=4, samples=9, layout="flat")
    np.testing.assert_array_equal(flat.inputs, part.inputs.reshape(9, 4, -1))


def test_event_sets_have_options_that_a_training_can_pass():
    known = {field.name for field in fields(RunConfig)}
    for name in ("shd:x", "n-mnist:x", "dvs-gesture:x", "cifar10-dvs:x", "dvs-cifar10:x"):
        assert set(option_names(name)) <= known


@pytest.mark.parametrize(
    "name, options, says",
    [
        ("shd", {}, "it comes as files; it is never downloaded; name the folder that holds them: shd:FOLDER"),
        ("shd:absent", {}, "no folder 'absent'"),
        ("shd:.", {}, "neither . nor SHD; expected there: shd_test.h5"),
        ("n-mnist:.", {}, r"neither . nor NMNIST; expected there: Train/0/\*.bin"),
        ("dvs-gesture:.", {}, "neither . nor DVSGesture; expected there: ibmGestureTrain"),
        ("cifar10-dvs:.", {}, "neither . nor CIFAR10DVS; expected there: airplane"),
        ("n-mnist:set", {"shrink": 3}, "shrink is 3, which does not divide 34x34 pixels"),
        ("n-mnist:set", {"dt": -1.0}, "dt is -1.0; it must be seconds, in whole microseconds"),
        ("n-mnist:set", {"dt": 1.5e-6}, "whole microseconds"),
        ("n-mnist:set", {"dt": float("nan")}, "whole microseconds"),
        ("n-mnist:set", {"layout": "pixels"}, "use one of image, flat"),
        ("n-mnist:set", {"samples": -1}, "at least 0"),
        ("n-mnist:set", {"steps": 10**6}, "GB; at most 8.6 GB are allowed: use fewer steps, more shrink, or"),
        ("n-mnist:set", {"coding": "rate"}, "no option coding; known are layout, steps, dt"),
    ],
)
def test_a_wrong_request_is_told_in_one_line(tmp_path, monkeypatch, name, options, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "set").mkdir()
    event_folders.write_n_mnist(tmp_path / "set", train=1)
    with pytest.raises(WrongInput, match=says) as caught:
        load_data(name, "test", **options)
    assert "\n" not in str(caught.value)


def spoil(name, content):
    def spoiled(folder):
        (folder / name).write_bytes(content)

    return spoiled


def spoil_shd(**changed):
    def spoiled(folder):
        with h5py.File(folder / "shd_test.h5", "r+") as file:
            for key, values in changed.items():
                place = {"labels": "labels"}.get(key, f"spikes/{key}")
                del file[place]
                if values is not None:
                    file[place] = values

    return spoiled


def rows(kind, *values):
    held = np.empty(len(values), object)
    held[:] = [np.array(row, kind) for row in values]
    return held


SPOILED = {
    "shd": [
        (spoil_shd(labels=None), "'labels' is missing"),
        (spoil_shd(labels=np.full(6, 20)), "labels are from 20 to 20; they must be from 0 to 19"),
        (spoil_shd(labels=np.zeros(6)), "not whole numbers in a list"),
        (spoil_shd(units=np.zeros((6, 3))), "'units' is float64 .*, not rows of numbers"),
    ],
    "n-mnist": [
        (spoil("Test/0/00000.bin", b""), "00000.bin: holds 0 bytes, not whole events of 5"),
        (spoil("Test/0/00000.bin", bytes(11)), "holds 11 bytes"),
        (spoil("Test/0/00000.bin", b"\x22\0\0\0\0"), "00000.bin: an event has x 34; it must be from 0 to 33"),
    ],
    "dvs-gesture": [
        (spoil("test0_fluorescent.aedat", b"#!AER-DAT1.0\r\n"), "starts with b'#!AER-DAT1'"),
        (spoil("test0_fluorescent.aedat", b"#!AER-DAT3.1\r\n#"), "does not end with #!END-HEADER"),
        (spoil("test0_fluorescent.aedat", b"#!AER-DAT3.1\r\n#!END-HEADER\r\nab"), "cut off in the header"),
        (spoil("test0_fluorescent_labels.csv", b"class\n1,2\n"), "line 2 is '1,2'; it must be class"),
        (spoil("test0_fluorescent_labels.csv", b"class\n12,2,9\n"), "is of gesture '11'; they are numbered"),
        (spoil("test0_fluorescent_labels.csv", b"class\n1,9,2\n"), "line 2: a trial from 9 to 2"),
        (spoil("test0_fluorescent_labels.csv", b"\xff"), "cannot be read as text"),
        (spoil("trials_to_test.txt", b"../elsewhere.aedat\n"), "names elsewhere.aedat, and there is no such"),
    ],
}


@pytest.mark.parametrize(
    "name, spoiled, says", [(name, *case) for name, cases in SPOILED.items() for case in cases]
)
def test_a_damaged_file_is_told_in_one_line(tmp_path, name, spoiled, says):
    write = {"shd": "write_shd", "n-mnist": "write_n_mnist", "dvs-gesture": "write_gesture_recordings"}
    getattr(event_folders, write[name])(tmp_path)
    spoiled(tmp_path)
    with pytest.raises(WrongInput, match=says) as caught:
        load_data(f"{name}:{tmp_path}", "test", shrink=2)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "units, times, says",
    [
        ([3, 700], [0.1, 0.2], "an event has x 700; it must be from 0 to 699"),
        ([3, 4], [0.1, -0.2], "its events are from -0.19"),
        ([3, 4], [0.1, np.nan], "times that are not valid seconds"),
        ([3], [0.1, 0.2], "has 2 times, 1 channels"),
    ],
)
def test_spikes_that_are_none_are_told_with_their_recording(tmp_path, units, times, says):
    with h5py.File(tmp_path / "shd_test.h5", "w") as file:
        for key, kind, row in (("units", np.uint16, units), ("times", np.float16, times)):
            held = file.create_dataset(f"spikes/{key}", (2,), h5py.vlen_dtype(kind))
            held[0], held[1] = np.zeros(1, kind), np.array(row, kind)
        file["labels"] = np.zeros(2, np.uint16)
    with pytest.raises(WrongInput, match=says) as caught:
        load_data(f"shd:{tmp_path}", "test")
    assert "recording 1" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "turns, moved, says",
    [(12, 0, "lie all over the file; it is damaged"), (1, 8, "not at its declared place")],
)
def test_places_that_are_damaged_are_told_and_not_followed_for_ever(tmp_path, turns, moved, says):
    path = tmp_path / "shd_test.h5"
    with h5py.File(path, "w") as file:
        for key, kind in (("units", np.uint16), ("times", np.float16)):
            held = file.create_dataset(f"spikes/{key}", (40 * turns,), h5py.vlen_dtype(kind))
            for row in range(40):  # each fills a heap of its own
                held[row] = np.zeros(40_000, kind)
        file["labels"] = np.zeros(40 * turns, np.uint16)
        starts = [file[f"spikes/{key}"].id.get_offset() for key in ("times", "units")]
    whole = bytearray(path.read_bytes())
    for start in starts:
        whole[start : start + 640 * turns] = bytes(whole[start : start + 640]) * turns
    whole[starts[0] + 4] ^= moved
    path.write_bytes(whole)
    with pytest.raises(WrongInput, match=says):
        load_data(f"shd:{tmp_path}", "test", steps=2, shrink=100)


def kept(kind, folder, **options):
    """A set of tonic on a folder that is there: it neither looks for archives nor downloads."""

    class Kept(kind):
        _check_exists = staticmethod(lambda: True)
        download = None

    made = object.__new__(Kept)
    Kept.__name__ = kind.__name__
    made.__init__(str(folder), **options)
    return made


@pytest.mark.parametrize("name", ["shd", "n-mnist", "dvs-gesture", "cifar10-dvs"])
def test_tonic_reads_the_same_folder_to_the_same_samples(tmp_path, name):
    tonic = pytest.importorskip("tonic", reason="tonic is not installed to compare with")
    pytest.importorskip("aedat", reason="tonic needs the package aedat for AEDAT 4")
    kind, write, size = {
        "shd": (tonic.datasets.SHD, "write_shd", 0),
        "n-mnist": (tonic.datasets.NMNIST, "write_n_mnist", 34),
        "dvs-gesture": (tonic.datasets.DVSGesture, "write_gestures", 128),
        "cifar10-dvs": (tonic.datasets.CIFAR10DVS, "write_aedat4", 128),
    }[name]
    folder = tmp_path / kind.__name__
    folder.mkdir()
    getattr(event_folders, write)(folder)
    theirs = kept(kind, tmp_path, **({} if name == "cifar10-dvs" else {"train": False}))
    ours = load_data(f"{name}:{tmp_path}", "test", steps=5, counts=True)
    order = sorted(range(len(theirs)), key=lambda number: str(theirs.data[number]) if theirs.data else number)
    if name == "cifar10-dvs":
        order = order[::5]
    samples = [theirs[number] for number in order]
    wanted = []
    for events, _ in samples:
        t = events["t"].astype(np.int64)
        if name == "shd":
            wanted.append(spoken_by_hand((np.rint(events["t"]) / 1e6, events["x"], 0), 5, counts=True))
        else:
            wanted.append(
                by_hand((t - t.min(), *(events[k].astype(int) for k in "xyp")), size, 5, counts=True)
            )
    found = list(zip(ours.inputs, ours.labels.tolist(), strict=True))
    pairs = list(zip(wanted, (int(label) for _, label in samples), strict=True))
    key = lambda pair: (pair[1], pair[0].tobytes())  # noqa: E731
    for (a, left), (b, right) in zip(sorted(found, key=key), sorted(pairs, key=key), strict=True):
        assert left == right
        np.testing.assert_array_equal(a, b)


def test_a_recording_without_events_is_an_error_that_names_it():
    none = np.zeros(0, np.int64)
    with pytest.raises(WrongInput, match="one.bin: holds no events"):
        Binning(4, 4, 2, 5).binned([Events("one.bin", none, none, none, none)], 1)
