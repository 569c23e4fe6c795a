"""The neuron models that `diverge` supports: those that the files of this folder list in `MODELS`."""

from __future__ import annotations

from snn_compile.runtime.divergence.neurons.base import FollowedModel
from snn_compile.targets.discovery import import_modules

MODELS: dict[str, FollowedModel] = {
    model.name: model
    for module in import_modules("snn_compile.runtime.divergence.neurons")
    for model in getattr(module, "MODELS", ())
}
"""Every supported model by its name."""
