"""Networks in, Program out: the contract, the stages of the compiler, and the float reference.

Names load on first use, so that importing the command does not import the stages.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from snn_compile.compiler.contract.contract import Contract, Readout
    from snn_compile.compiler.lowering.lower import lower
    from snn_compile.compiler.network import Network
    from snn_compile.compiler.onnx.graph import read_onnx
    from snn_compile.compiler.onnx.rate_coding import Conversion, ConversionOptions, convert
    from snn_compile.compiler.pipeline import STAGES, Compilation, Options, compile_graph, compile_stages
    from snn_compile.compiler.quantization.quantize import QuantizedNetwork

__all__ = [
    "Compilation",
    "Contract",
    "Conversion",
    "ConversionOptions",
    "Network",
    "Options",
    "QuantizedNetwork",
    "Readout",
    "STAGES",
    "compile_graph",
    "compile_stages",
    "convert",
    "lower",
    "read_onnx",
]

_HOME = {
    "Compilation": "pipeline",
    "Contract": "contract.contract",
    "Conversion": "onnx.rate_coding",
    "ConversionOptions": "onnx.rate_coding",
    "Network": "network",
    "Options": "pipeline",
    "QuantizedNetwork": "quantization.quantize",
    "Readout": "contract.contract",
    "STAGES": "pipeline",
    "compile_graph": "pipeline",
    "compile_stages": "pipeline",
    "convert": "onnx.rate_coding",
    "lower": "lowering.lower",
    "read_onnx": "onnx.graph",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
