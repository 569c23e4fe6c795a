"""Helpers shared by the commands: convention parsing, output checks, deferred warnings."""

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
def deferred_warnings() -> Iterator[None]:
    """Print logged warnings once the work is done; after a failure only the error is printed."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("snn-compile: %(message)s"))
    buffer = MemoryHandler(1 << 10, flushLevel=logging.CRITICAL, target=handler, flushOnClose=False)
    buffer.setLevel(logging.WARNING)
    said: set[str] = set()

    def once(record: logging.LogRecord) -> bool:
        text, known = record.getMessage(), len(said)
        said.add(text)
        return len(said) > known

    buffer.addFilter(once)  # a graph is lowered more than once
    logging.getLogger().addHandler(buffer)
    try:
        yield
        buffer.flush()
    finally:
        logging.getLogger().removeHandler(buffer)
        buffer.close()


def closed_pipe() -> int:
    """Return the exit code for a closed stdout, and drop unflushed output."""
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - it stays open until the process ends
    return 141


def is_program(path: str | Path) -> bool:
    """Whether a file is a program rather than a model, by its suffix, else by its content."""
    file = Path(path)
    if file.suffix.lower() in (".snn", ".pt", ".pth", ".nir", ".net"):
        return file.suffix.lower() == ".snn"
    try:
        with zipfile.ZipFile(file) as archive:
            return "program.json" in archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return False


def parse_conventions(stated: Sequence[str]) -> dict[str, Any]:
    """Parse `--convention key=value`, and NODE.key=value for one node.

    Delays are written SOURCE:TARGET:STEPS and may be repeated; other items are stated once.
    """
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
        if "." in (named := item.rpartition("="))[0]:  # a node's name may hold the sign
            key, _, text = named
        node, _, own = key.rpartition(".")
        if key in _WHOLE:
            raise CompileError(
                f"--convention {item}: no line states {key}; items of one node are NODE.reset=value"
            )
        target = found.setdefault("nodes", {}).setdefault(node, {}) if node else found
        value = _value(text)
        if target.get(own, value) != value:
            raise CompileError(f"--convention {item}: {key} is {target[own]} already; state it once")
        target[own] = value
    return found


_WHOLE = ("nodes", "readouts", "integers")
"""Items of a contract that are mappings; a line of the command cannot hold them."""


def _value(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text
