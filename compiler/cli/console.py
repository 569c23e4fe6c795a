"""What the commands share around their work: what was stated, where output goes, what is told and when."""

from __future__ import annotations

import logging
import os
import sys
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from logging.handlers import MemoryHandler
from pathlib import Path
from typing import Any

from snn_compile.targets.errors import CompileError


@contextmanager
def remarks_at_the_end() -> Iterator[None]:
    """Tell what the libraries logged once the work is done; where it fails, the error alone is told."""
    told = logging.StreamHandler(sys.stderr)
    told.setFormatter(logging.Formatter("snn-compile: %(message)s"))
    held = MemoryHandler(1 << 10, flushLevel=logging.CRITICAL, target=told, flushOnClose=False)
    held.setLevel(logging.WARNING)
    logging.getLogger().addHandler(held)
    try:
        yield
        held.flush()
    finally:
        logging.getLogger().removeHandler(held)
        held.close()


def closed_pipe() -> int:
    """Return the exit code for a reader that went away, with nothing left to flush into the pipe."""
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - it stays open until the process ends
    return 141


def is_program(path: str | Path) -> bool:
    """Whether a file is a program rather than a model: by its suffix, or else by what it holds."""
    file = Path(path)
    if file.suffix.lower() in (".snn", ".pt", ".pth", ".nir", ".net"):
        return file.suffix.lower() == ".snn"
    try:
        with zipfile.ZipFile(file) as archive:
            return "program.json" in archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return False


def conventions(stated: Sequence[str]) -> dict[str, Any]:
    """Parse `--convention key=value`; delays are written SOURCE:TARGET:STEPS and may be repeated."""
    found: dict[str, Any] = {}
    for item in stated:
        key, equals, text = item.partition("=")
        if not equals:
            raise CompileError(f"--convention {item}: write it as key=value, for example dt=1e-4")
        if key == "delays":
            parts = text.rsplit(":", 2)
            if len(parts) != 3 or not parts[2].isdecimal():
                raise CompileError(f"--convention {item}: write it as delays=SOURCE:TARGET:STEPS")
            found.setdefault("delays", {})[parts[0], parts[1]] = int(parts[2])
            continue
        try:
            found[key] = float(text)
        except ValueError:
            found[key] = text
    return found


def check_output(path: str | None, model: str) -> None:
    """Raise CompileError if nothing can, or should, be written to `path`."""
    if path is None:
        return
    if Path(path).resolve() == Path(model).resolve():
        raise CompileError(f"cannot write {path}: it is the model itself; name another file")
    if not Path(path).resolve().parent.is_dir():
        raise CompileError(f"cannot write {path}: its folder does not exist")
    if Path(path).is_dir():
        raise CompileError(f"cannot write {path}: it is a folder")


@contextmanager
def writing(path: str) -> Iterator[None]:
    """Turn what the file system says while `path` is written into a CompileError."""
    try:
        yield
    except OSError as error:
        raise CompileError(f"cannot write {path}: {error.strerror or error}", path=path) from error
