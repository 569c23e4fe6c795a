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
    return _module("train/feedback_networks")


@pytest.fixture(scope="session")
def logical() -> ModuleType:
    """tests/compiler/logical.py: `step_logically(network, quantized, messages)`."""
    return _module("compiler/logical")


def _module(name: str) -> ModuleType:
    title = f"snn_compile_tests_{name}"
    if title not in sys.modules:
        file = Path(__file__).parent.parent / f"{name}.py"
        spec = importlib.util.spec_from_file_location(title, file)
        assert spec is not None and spec.loader is not None
        sys.modules[title] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[title])
    return sys.modules[title]
