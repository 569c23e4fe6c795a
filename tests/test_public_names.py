"""The public names of the four packages are those in `data/public_names.txt`; a new one is added there."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

NAMES = [line.split(".") for line in (Path(__file__).parent / "data/public_names.txt").read_text().split()]


@pytest.mark.parametrize("package", ["compiler", "runtime", "targets", "train"])
def test_public_names(package: str) -> None:
    module = import_module(f"snn_compile.{package}")
    names = [name for owner, name in NAMES if owner == package]
    assert sorted(module.__all__) == names
    assert all(getattr(module, name) is not None for name in names)
