"""Networks in, Program out: the contract, the stages of the compiler, and the float reference.

Names load on first use, so that importing the command does not import the stages.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from snn_compile.compiler.conventions import Contract, Readout
    from snn_compile.compiler.lowering import lower
    from snn_compile.compiler.network import Network
    from snn_compile.compiler.pipeline import STAGES, Compilation, Options, compile_graph, compile_stages
    from snn_compile.compiler.quantize import QuantizedNetwork

__all__ = [
    "Compilation",
    "Contract",
    "Network",
    "Options",
    "QuantizedNetwork",
    "Readout",
    "STAGES",
    "compile_graph",
    "compile_stages",
    "lower",
]

_HOME = {
    "Compilation": "pipeline",
    "Contract": "conventions",
    "Network": "network",
    "Options": "pipeline",
    "QuantizedNetwork": "quantize",
    "Readout": "conventions",
    "STAGES": "pipeline",
    "compile_graph": "pipeline",
    "compile_stages": "pipeline",
    "lower": "lowering",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
