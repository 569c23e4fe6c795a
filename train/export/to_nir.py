"""Torch modules as NIR graphs, with the contract that says how their numbers are stepped.

Networks of this package run over all steps at once and have exporters of their own (`registry.py`). Any other
module is traced on stand-in values that record what it computes (`tracing/trace.py`); the steps are folded
into one (`tracing/fold.py`), and its neurons and layers become nodes (`snntorch.py`, `traced.py`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from snn_compile.targets.errors import ExportError
from snn_compile.train.export.registry import exporter_of
from snn_compile.train.export.traced import GraphBuilder
from snn_compile.train.tracing.probed import folded


def unexportable(module: nn.Module) -> str:
    """Return why a network of this package has no NIR graph; "" if it has one, or has to be traced."""
    found = exporter_of(module)
    return "" if found is None else found.unexportable(module)


def half_precision(module: nn.Module) -> str:
    """Return the half-precision types of a module's parameters and buffers; "" if there are none."""
    kinds = {tensor.dtype for tensor in module.state_dict().values()} & {torch.float16, torch.bfloat16}
    return " and ".join(sorted(str(kind).removeprefix("torch.") for kind in kinds))


def to_nir(module: nn.Module, sample_input: Any, dt: float | None = None) -> Any:
    """Return the NIR graph of a network, its contract attached.

    `sample_input` is what `forward` takes; only shapes are used. For networks of this package that is
    (batch, steps, *shape). For a forward of one step it is (batch, *shape), or a tuple of that and the states
    that forward takes and returns after its output. For a forward with a time loop it is (steps, batch,
    *shape), or (batch, *shape) if every step sees the same input; 4 steps or more show all feedback. `dt` is
    the length of a step in seconds; None means one step of no unit. Nodes carry the modules' names; the first
    tensor returned is the node `output`, further ones `output_2` and so on. Raises ExportError, naming the
    module, for anything without an exact counterpart in NIR.
    """
    if dt is not None and not (np.isfinite(dt) and dt > 0):
        raise ExportError(f"dt is {dt}; it must be a positive number of seconds, or None", dt=dt)
    if found := exporter_of(module):
        if reason := found.unexportable(module):
            raise ExportError(reason)
        return found.to_nir(module, sample_input, dt)
    if halves := half_precision(module):
        raise ExportError(
            f"{type(module).__name__}: its parameters are {halves}, and neurons are read in float32; "
            "convert the network and the sample input with .float()"
        )
    step = folded(module, sample_input)
    return GraphBuilder(step, module, dt or 1.0, "s" if dt else "step").graph()
