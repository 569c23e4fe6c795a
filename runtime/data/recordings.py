"""Sets of recorded events, read from a folder as they are distributed or as tonic stores them.

    shd            shd_train.h5, shd_test.h5
    n-mnist        Train/0/*.bin to Train/9/*.bin, and the same in Test
    dvs-gesture    ibmGestureTrain/USER_LIGHT/0.npy to 10.npy and ibmGestureTest (tonic), or *.aedat with
                   *_labels.csv, trials_to_train.txt and trials_to_test.txt (as published)
    cifar10-dvs    airplane/*.aedat4 to truck/*.aedat4 (tonic), or *.aedat (as published)

The folder is the one that holds these, or its parent under the name that tonic gives. Where a set is
published with parts for training and test, these are kept, and a fixed tenth of the training recordings is
for validation. CIFAR10-DVS has none: in the order of class and number every fifth is for testing, a fixed
tenth of the others for validation. Nothing is ever downloaded.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from snn_compile.runtime.data.codings import check_options
from snn_compile.runtime.data.dataset import Dataset, of_training, some_of, split_indices
from snn_compile.runtime.data.folders import folder_of
from snn_compile.runtime.data.formats.event_files import read_aedat, read_array, read_nmnist, wrong
from snn_compile.runtime.data.formats.events import Binning, Events
from snn_compile.runtime.data.formats.shd import CHANNELS, read_labels, read_spikes
from snn_compile.targets.errors import WrongInput, one_line

CIFAR_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
GESTURES = 11
TEXT_MAX = 1 << 20
"""Bytes of a list of trials."""


@dataclass(frozen=True)
class Recording:
    """One sample of a set: its class, its file, and its time window there, in microseconds."""

    label: int
    path: Path
    window: tuple[int, int] | None = None


@dataclass(frozen=True)
class _Camera:
    """A set of camera recordings: its sensor, tonic's folder for it, and how its samples are found."""

    size: int
    stored: str
    expected: str
    read: Callable[[Path], Events]
    find: Callable[[Path, bool], list[Recording]]
    parted: bool = True


def shd(
    name: str,
    split: str,
    steps: int = 100,
    dt: float = 0.0,
    shrink: int = 1,
    counts: bool = False,
    samples: int = 0,
) -> Dataset:
    """Load SHD as (batch, steps, channels), with the options of `events`.

    `samples` above 0 takes a fixed random subset of that size of a split.
    """
    options = {"steps": steps, "dt": dt, "shrink": shrink, "counts": counts, "samples": samples}
    check_options(name, options)
    part = "shd_test.h5" if split == "test" else "shd_train.h5"
    places = _places(name, "SHD")
    path = next((place / part for place in places if (place / part).is_file()), None)
    if path is None:
        raise _missing(name, places, part)
    labels = read_labels(path)
    chosen = _chosen(name, len(labels), split, samples)
    binning = Binning(1, CHANNELS, 1, steps, dt, shrink, counts)
    binning.check(name, len(chosen))
    inputs = binning.binned(read_spikes(path, chosen), len(chosen))
    return Dataset(name, inputs.reshape(len(chosen), steps, -1), labels[chosen], "none", split, options)


def cameras(
    name: str,
    split: str,
    layout: str = "image",
    steps: int = 16,
    dt: float = 0.0,
    shrink: int = 1,
    polarity: bool = True,
    counts: bool = False,
    samples: int = 0,
) -> Dataset:
    """Load a set of camera recordings as steps of shape (polarities, rows, columns), or `flat`.

    Without `polarity` brighter and darker are one. The other options are as for SHD.
    """
    options = {
        "layout": layout,
        "steps": steps,
        "dt": dt,
        "shrink": shrink,
        "polarity": polarity,
        "counts": counts,
        "samples": samples,
    }
    check_options(name, options, ("image", "flat"))
    camera = CAMERAS[name.partition(":")[0]]
    recordings = _recordings(name, camera, split == "test")
    chosen = _chosen(name, len(recordings), split, samples, camera.parted)
    taken = [recordings[number] for number in chosen]
    binning = Binning(camera.size, camera.size, 1 + polarity, steps, dt, shrink, counts)
    binning.check(name, len(taken))
    inputs = binning.binned(_read(taken, camera.read), len(taken))
    if layout == "flat":
        inputs = inputs.reshape(len(taken), steps, -1)
    labels = np.array([recording.label for recording in taken], np.int64)
    return Dataset(name, inputs, labels, "none", split, options)


def _read(recordings: list[Recording], read: Callable[[Path], Events]) -> Iterator[Events]:
    """Yield the events of each recording; a file that holds several in a row is read once."""
    held: tuple[Path, Events] | None = None
    for recording in recordings:
        if held is None or held[0] != recording.path:
            held = recording.path, read(recording.path)
        events = held[1]
        start, end = recording.window or (events.t.min(initial=_NEVER), _NEVER)
        inside = (events.t >= start) & (events.t < end)
        yield Events(
            events.where, events.t[inside] - start, *(a[inside] for a in (events.x, events.y, events.p))
        )


def _chosen(name: str, count: int, split: str, samples: int, parted: bool = True) -> NDArray[np.int64]:
    """Return which of the recordings of a part, or of all, are those of a split."""
    if parted:
        chosen = np.arange(count) if split == "test" else of_training(np.arange(count), split)
    else:
        chosen = split_indices(count, split)
    if not len(chosen):
        raise WrongInput(f"data {name}: {count} recordings leave none for split {split!r}", split=split)
    return some_of(chosen, samples) if samples else chosen


def _places(name: str, stored: str) -> tuple[Path, Path]:
    folder = folder_of(name, "it is never downloaded;")
    return folder, folder / stored


def _missing(name: str, places: tuple[Path, ...], expected: str) -> WrongInput:
    return WrongInput(
        f"data {name}: found in neither {' nor '.join(map(str, places))}; expected there: {expected}",
        path=str(places[0]),
    )


def _recordings(name: str, camera: _Camera, test: bool) -> list[Recording]:
    places = _places(name, camera.stored)
    for place in places:
        if place.is_dir() and (found := camera.find(place, test)):
            return found
    raise _missing(name, places, camera.expected)


def _saccades(folder: Path, test: bool) -> list[Recording]:
    """N-MNIST: a folder a digit."""
    part = folder / ("Test" if test else "Train")
    return [Recording(n, path) for n in range(10) for path in sorted((part / str(n)).glob("*.bin"))]


def _gestures(folder: Path, test: bool) -> list[Recording]:
    """DVS-Gesture: a file a trial, or a file a person and light with a list of its trials."""
    part = folder / ("ibmGestureTest" if test else "ibmGestureTrain")
    cut = sorted(part.glob("*/*.npy"), key=lambda path: (path.parent.name, *_numbers(path)))
    if cut:
        return [Recording(_gesture(path, path.stem), path) for path in cut]
    listed = folder / ("trials_to_test.txt" if test else "trials_to_train.txt")
    if not listed.is_file():
        return []
    names = [line.strip() for line in _lines(listed) if line.strip()]
    return [trial for name in names for trial in _trials(listed, folder / Path(name).name)]


def _trials(listed: Path, path: Path) -> list[Recording]:
    """Return the trials of a recording, from the lines class, start, end beside it."""
    if not path.is_file():
        raise wrong(listed, f"names {path.name}, and there is no such file beside it")
    table = path.with_name(f"{path.stem}_labels.csv")
    if not table.is_file():
        raise wrong(table, "no such file")
    found = []
    for number, line in enumerate(_lines(table)[1:], 2):
        cells = line.split(",")
        if not line.strip():
            continue
        if len(cells) != 3 or not all(cell.strip().isdecimal() for cell in cells):
            raise wrong(table, f"line {number} is {line[:40]!r}; it must be class, start, end")
        label, start, end = (int(cell) for cell in cells)
        if start >= end or end > _NEVER:
            raise wrong(table, f"line {number}: a trial from {start} to {end}")
        found.append(Recording(_gesture(table, str(label - 1)), path, (start, end)))
    return found


def _gesture(path: Path, text: str) -> int:
    if not text.isdecimal() or int(text) >= GESTURES:
        raise wrong(path, f"is of gesture {text!r}; they are numbered from 0 to {GESTURES - 1}")
    return int(text)


def _objects(folder: Path, _: bool) -> list[Recording]:
    """CIFAR10-DVS: a folder a class."""
    return [
        Recording(label, path)
        for label, name in enumerate(CIFAR_CLASSES)
        for path in sorted((folder / name).glob("*.aedat*"), key=_numbers)
    ]


def _numbers(path: Path) -> tuple[list[int], str]:
    return [int(number) for number in re.findall("[0-9]+", path.stem)], path.name


def _lines(path: Path) -> list[str]:
    if path.stat().st_size > TEXT_MAX:
        raise wrong(path, f"holds {path.stat().st_size} bytes; a list of trials holds fewer")
    try:
        return path.read_text(encoding="ascii").splitlines()
    except (OSError, ValueError) as error:
        raise wrong(path, f"cannot be read as text ({one_line(error)})") from error


def _aedat_or_array(path: Path) -> Events:
    return read_array(path) if path.suffix == ".npy" else read_aedat(path)


_NEVER = 1 << 62

CAMERAS = {
    "n-mnist": _Camera(34, "NMNIST", "Train/0/*.bin to Train/9/*.bin and Test", read_nmnist, _saccades),
    "dvs-gesture": _Camera(
        128,
        "DVSGesture",
        "ibmGestureTrain/*/0.npy to 10.npy and ibmGestureTest, or trials_to_train.txt and trials_to_test.txt "
        "with the .aedat and _labels.csv files they name",
        _aedat_or_array,
        _gestures,
    ),
    "cifar10-dvs": _Camera(
        128, "CIFAR10DVS", "airplane/*.aedat to truck/*.aedat, or .aedat4", read_aedat, _objects, parted=False
    ),
}
CAMERAS["dvs-cifar10"] = CAMERAS["cifar10-dvs"]
