"""Reading `.nir` files, with errors that a person can act on."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from snn_compile.targets.errors import CompileError

log = logging.getLogger(__name__)


def read_nir(path: str | os.PathLike[str]) -> Any:
    """Return the nir.NIRGraph in a file; raises CompileError if it is missing or not a NIR graph."""
    import nir

    file = Path(path)
    if not file.is_file():
        raise CompileError(f"no file at {file}", path=str(file))
    try:
        graph = _read(file)
    except Exception as error:  # nir and h5py raise whatever they stumble over
        raise CompileError(
            f"{file} cannot be read as a NIR graph ({type(error).__name__}: {_one_line(error)})",
            path=str(file),
        ) from error
    if not isinstance(graph, nir.NIRGraph):
        raise CompileError(f"{file} holds a single {type(graph).__name__} node, not a graph", path=str(file))
    return graph


def _read(file: Path) -> Any:
    """Read a graph; one that fails only nir's own check of shapes is read without it, and said so."""
    import nir

    try:
        return nir.read(file)
    except Exception as error:
        try:
            graph = nir.read(file, type_check=False)
        except Exception:
            raise error from None
        log.warning(
            "%s: nir's own check refuses it (%s); its shapes are checked here", file, _one_line(error)
        )
        return graph


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or "no reason given"
