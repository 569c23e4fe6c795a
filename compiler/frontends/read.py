"""Readers of model files, chosen by suffix."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from snn_compile.compiler.frontends.netx import DELAY_SHIFT, read_netx
from snn_compile.compiler.frontends.nir import read_nir
from snn_compile.compiler.onnx.graph import read_onnx
from snn_compile.targets.errors import CompileError

Reader = Callable[..., Any]

READERS: Mapping[str, Reader] = {".nir": read_nir, ".net": read_netx, ".onnx": read_onnx}
"""Suffix to reader. The commands add `.pt`, whose reader needs torch."""


def read_graph(
    path: str | os.PathLike[str],
    readers: Mapping[str, Reader] = READERS,
    stated: Mapping[str, Any] | None = None,
) -> Any:
    """Return the model in a file, read by the reader of its suffix; `stated` conventions may say how.

    With the default `readers` this is a NIR graph (`.nir`), a Network (`.net`, which leaves nothing open) or
    a RectifierNetwork (`.onnx`, which `onnx/rate_coding.py` converts). Raises CompileError for other suffixes
    and for files that cannot be read.
    """
    file = Path(path)
    suffix = file.suffix.lower()
    if suffix in readers:
        options = {key: value for key, value in (stated or {}).items() if key == DELAY_SHIFT}
        return readers[suffix](file, **(options if suffix == ".net" else {}))
    hints = {
        ".pt": "; load a checkpoint with train.load_checkpoint(path).graph",
        ".snn": "; snn-run runs a program, snn-compile inspect describes it",
    }
    known = ", ".join([*READERS, ".pt"])
    raise CompileError(
        f"{file}: files with suffix {file.suffix!r} are not read; known are {known}{hints.get(suffix, '')}",
        path=str(file),
    )


@contextmanager
def naming(model: Any) -> Iterator[None]:
    """Prefix compile errors with the path of the model's file, unless they name it; no-op for a model that
    is no path.
    """
    if not isinstance(model, (str, os.PathLike)):
        yield
        return
    file = os.fspath(model)
    try:
        yield
    except CompileError as error:
        if file in str(error):
            raise
        raise type(error)(f"{file}: {error}", **{**error.facts, "path": file}) from error
