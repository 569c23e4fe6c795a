"""The neuron models that the compiler knows: those that the files of this folder list in `MODELS`.

A new model is a new file here: nothing else lists the names.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

from snn_compile.compiler.neurons.base import NeuronModel
from snn_compile.targets.errors import CompileError


def _models() -> dict[str, NeuronModel]:
    found: dict[str, NeuronModel] = {}
    for name in sorted(file.name for file in iter_modules([str(Path(__file__).parent)])):
        if (path := f"{__package__}.{name}") != __name__:
            found |= {model.name: model for model in getattr(import_module(path), "MODELS", ())}
    return found


MODELS = _models()
"""Every neuron model by its name, in the order of the files."""


def neuron_model(name: str) -> NeuronModel:
    """Return a model by its name; raises CompileError for an unknown one."""
    if name not in MODELS:
        raise CompileError(f"no neuron model {name!r}; the models are {', '.join(sorted(MODELS))}", name=name)
    return MODELS[name]
