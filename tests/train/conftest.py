"""What the tests of training share."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def feedback_networks() -> ModuleType:
    """tests/train/feedback_networks.py: `network(kind, seed)`, `still`, `matrix`, `by_hand`."""
    return _sibling("feedback_networks")


def _sibling(name: str) -> ModuleType:
    title = f"snn_compile_tests_train_{name}"
    if title not in sys.modules:
        spec = importlib.util.spec_from_file_location(title, Path(__file__).with_name(f"{name}.py"))
        assert spec is not None and spec.loader is not None
        sys.modules[title] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[title])
    return sys.modules[title]
