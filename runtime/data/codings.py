"""Images as sequences of steps: intensity codings, pixel orders, moved and downsampled copies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snn_compile.targets.errors import WrongInput

CODINGS = ("direct", "rate", "even", "latency", "none")
_PERMUTATION_SEED = 784


def check_options(name: str, options: Mapping[str, Any], layouts: tuple[str, ...] = ()) -> None:
    """Raise WrongInput, naming the data set, for an option with an invalid value."""
    words = {"coding": CODINGS[:-1], "layout": layouts}
    for key, allowed in words.items():
        if key in options and options[key] not in allowed:
            raise WrongInput(
                f"data {name}: {key} is {options[key]!r}; use one of {', '.join(allowed)}", option=key
            )
    least = {"steps": 1, "repeat": 1, "shrink": 1, "settle": 0, "copies": 0, "samples": 0, "seed": 0}
    for key in options.keys() & least.keys():
        value, low = options[key], least[key]
        if not isinstance(value, int) or isinstance(value, bool) or value < low:
            raise WrongInput(
                f"data {name}: {key} is {value!r}; it must be a whole number of at least {low}", option=key
            )


def coded(
    frames: NDArray[np.float64], coding: str, steps: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Turn frames (batch, frames, pixels) into (batch, frames * steps, pixels)."""
    if coding == "direct" and frames.shape[1] == 1:
        return np.broadcast_to(frames, (len(frames), steps, *frames.shape[2:]))
    repeated = np.repeat(frames, steps, axis=1)
    if coding == "direct":
        return repeated
    if coding == "rate":
        return (rng.random(repeated.shape) < repeated).astype(np.float64)
    if coding == "even":
        now = np.tile(np.arange(steps), frames.shape[1])[:, None] + 1
        return np.floor(now * repeated) - np.floor((now - 1) * repeated)
    when = np.rint((1.0 - repeated) * (steps - 1))
    now = np.tile(np.arange(steps), frames.shape[1])[:, None]
    spikes: NDArray[np.bool_] = (when == now) & (repeated > 0)
    return spikes.astype(np.float64)


def moved(images: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Return every image moved by up to a pixel and scaled by up to a tenth, interpolated."""
    count, height, width = images.shape

    def axis(size: int) -> NDArray[np.float64]:
        center = (size - 1) / 2
        scale = rng.uniform(0.9, 1.1, (count, 1))
        places = (np.arange(size) - center) * scale + center + rng.uniform(-1, 1, (count, 1))
        return np.maximum(0.0, 1.0 - np.abs(places[:, :, None] - np.arange(size)))

    shifted: NDArray[np.float64] = axis(height) @ images @ axis(width).transpose(0, 2, 1)
    return shifted


def shrunk(images: NDArray[np.float64], factor: int) -> NDArray[np.float64]:
    """Return images (count, height, width) with every square of `factor` pixels averaged."""
    count, height, width = images.shape
    blocks = images.reshape(count, height // factor, factor, width // factor, factor)
    means: NDArray[np.float64] = blocks.mean(axis=(2, 4))
    return means


def pixel_by_pixel(images: NDArray[np.float64], permuted: bool) -> NDArray[np.float64]:
    """Return images as sequences (count, pixels, 1), row by row or in one fixed random order."""
    sequence = images.reshape(len(images), -1, 1)
    if not permuted:
        return sequence
    return sequence[:, np.random.default_rng(_PERMUTATION_SEED).permutation(sequence.shape[1])]
