"""What all tests share: settings, golden files. What tests import stands in `support/`."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

# Tests run side by side, one process per core: more threads in each of them only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = ROOT / "tests" / "golden"

STATEFUL = (
    "lsn", "lsn-fixed", "lsn-liquid", "lsn-leaky", "lsn-conv", "online-alif", "online-lstm",
    "lif", "cuba", "alif", "brf", "rf_iz", "lstm",
)  # fmt: skip

settings.register_profile("local", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, database=None, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")


def foreign_package(root: Path) -> str:
    """Return why the installed package is not the one of this checkout, or ""."""
    found = importlib.util.find_spec("snn_compile.compiler")
    origin = None if found is None or found.origin is None else Path(found.origin).resolve()
    if origin is None:
        return "snn_compile is not installed here; run make setup"
    if not origin.is_relative_to(root):
        return f"these tests are of {root}, and snn_compile.compiler is {origin}; run make setup here"
    return ""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden", action="store_true", help="rewrite tests/golden/ with what the tests produce now"
    )


def pytest_configure(config: pytest.Config) -> None:
    if reason := foreign_package(ROOT):
        raise pytest.UsageError(reason)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With -m smoke, files without such tests are not even imported."""
    if config.option.markexpr != "smoke" or collection_path.suffix != ".py":
        return None
    return "mark.smoke" not in collection_path.read_text(encoding="utf-8") or None


@pytest.fixture(scope="session", params=STATEFUL)
def stateful(request: pytest.FixtureRequest) -> str:
    """Every kind of network that runs block by block."""
    return str(request.param)


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Return check(name, text): the text equals tests/golden/<name>.txt, or rewrites it."""
    update = bool(request.config.getoption("--update-golden"))

    def check(name: str, text: str) -> None:
        file = GOLDEN / f"{name}.txt"
        if update:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
            return
        assert file.is_file(), f"{file} is missing; pytest --update-golden writes it"
        assert text == file.read_text(encoding="utf-8"), f"differs from {file}"

    return check
