"""The command snn-train."""

from snn_compile.train.cli.main import main

__all__ = ["main"]
