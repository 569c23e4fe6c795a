"""Where a command's -o may point: checked before work that takes hours."""

from __future__ import annotations

import os
from pathlib import Path

from snn_compile.targets.errors import SnnCompileError


def check_place(path: Path) -> None:
    """Raise SnnCompileError unless a file can be written at `path`."""
    folder = path.parent
    if not folder.is_dir():
        raise SnnCompileError(f"-o {path}: the folder {folder} does not exist; create it first")
    if path.is_dir():
        raise SnnCompileError(f"-o {path}: is a folder; name a file in it")
    if not os.access(folder, os.W_OK):
        raise SnnCompileError(f"-o {path}: the folder {folder} cannot be written to; choose another")
