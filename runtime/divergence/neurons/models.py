"""The neuron models that `diverge` supports: those that the files of this folder list in `MODELS`."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

from snn_compile.runtime.divergence.neurons.base import FollowedModel


def _models() -> dict[str, FollowedModel]:
    found: dict[str, FollowedModel] = {}
    for name in sorted(file.name for file in iter_modules([str(Path(__file__).parent)])):
        if (path := f"{__package__}.{name}") != __name__:
            found |= {model.name: model for model in getattr(import_module(path), "MODELS", ())}
    return found


MODELS = _models()
"""Every supported model by its name."""
