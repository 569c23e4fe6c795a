"""The command snn-run."""

from snn_compile.runtime.cli.main import main

__all__ = ["main"]
