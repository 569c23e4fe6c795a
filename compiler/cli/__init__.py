"""The command snn-compile."""

from snn_compile.compiler.cli.main import main

__all__ = ["main"]
