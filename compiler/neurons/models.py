"""The neuron models that the compiler knows: those that the files of this folder list in `MODELS`.

A new model is a new file here: nothing else lists the names.
"""

from __future__ import annotations

from snn_compile.compiler.neurons.base import NeuronModel
from snn_compile.targets.discovery import import_modules
from snn_compile.targets.errors import CompileError

MODELS: dict[str, NeuronModel] = {
    model.name: model
    for module in import_modules("snn_compile.compiler.neurons")
    for model in getattr(module, "MODELS", ())
}
"""Every neuron model by its name, in the order of the files."""


def neuron_model(name: str) -> NeuronModel:
    """Return a model by its name; raises CompileError for an unknown one."""
    if name not in MODELS:
        raise CompileError(f"no neuron model {name!r}; the models are {', '.join(sorted(MODELS))}", name=name)
    return MODELS[name]
