"""Networks in, Program out: the contract, the stages of the compiler, and the float reference.

Names load on first use, so that importing the command does not import the stages.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from snn_compile.targets.lazy import attach

if TYPE_CHECKING:
    from snn_compile.compiler.contract.contract import Contract, Readout
    from snn_compile.compiler.lowering.lower import lower
    from snn_compile.compiler.network import Network
    from snn_compile.compiler.onnx.graph import read_onnx
    from snn_compile.compiler.onnx.rate_coding import Conversion, ConversionOptions, convert
    from snn_compile.compiler.pipeline import STAGES, Compilation, Options, compile_graph, compile_stages
    from snn_compile.compiler.quantization.quantize import QuantizedNetwork
else:
    __getattr__, __dir__ = attach(
        __name__,
        {
            "contract.contract": ("Contract", "Readout"),
            "lowering.lower": ("lower",),
            "network": ("Network",),
            "onnx.graph": ("read_onnx",),
            "onnx.rate_coding": ("Conversion", "ConversionOptions", "convert"),
            "pipeline": ("Compilation", "Options", "STAGES", "compile_graph", "compile_stages"),
            "quantization.quantize": ("QuantizedNetwork",),
        },
    )

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
