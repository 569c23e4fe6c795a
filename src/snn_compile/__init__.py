"""Compile trained spiking neural networks to neuromorphic integers, run them, and know what they do and cost.

The four packages load on first use: `train`, `compiler`, `targets`, `runtime`.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from snn_compile import compiler, runtime, targets, train

__version__ = version("snn-compile")
__all__ = ["__version__", "compiler", "runtime", "targets", "train"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module(f"{__name__}.{name}")


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
