"""Front ends by file suffix: what comes in becomes a NIR graph, a Network where it leaves nothing open, or a
network of rectifiers, which `onnx/rate_coding.py` converts.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from snn_compile.compiler.frontends.netx import read_netx
from snn_compile.compiler.frontends.nir import read_nir
from snn_compile.compiler.onnx.graph import read_onnx
from snn_compile.targets.errors import CompileError

SUFFIXES = {".nir": read_nir, ".net": read_netx, ".onnx": read_onnx}
"""Suffixes that the compiler reads itself; `.pt` checkpoints go through `train`, from the commands."""


@contextmanager
def naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Put a file's name in front of compile errors that do not say it: what is wrong with a node is found
    where nobody knows the file any more.
    """
    file = os.fspath(path)
    try:
        yield
    except CompileError as error:
        if file in str(error):
            raise
        raise type(error)(f"{file}: {error}", **{**error.facts, "path": file}) from error


def read_graph(path: str | os.PathLike[str]) -> Any:
    """Return the NIR graph, Network (`.net`) or RectifierNetwork (`.onnx`) in a file, by its suffix."""
    file = Path(path)
    reader = SUFFIXES.get(file.suffix.lower())
    if reader is None:
        known = ", ".join([*SUFFIXES, ".pt"])
        hint = (
            "; load a checkpoint with train.load_checkpoint(path).graph"
            if file.suffix.lower() == ".pt"
            else "; snn-run runs a program, snn-compile inspect describes it"
            if file.suffix.lower() == ".snn"
            else ""
        )
        raise CompileError(
            f"{file}: files with suffix {file.suffix!r} are not read; known are {known}" + hint,
            path=str(file),
        )
    return reader(file)
