"""What all tests share. Helpers are fixtures, not imports: tests are no package."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import settings

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


def _module(name: str) -> ModuleType:
    full = f"snn_compile_tests_{name}"
    if full not in sys.modules:
        spec = importlib.util.spec_from_file_location(full, ROOT / "tests" / f"{name}.py")
        assert spec is not None and spec.loader is not None
        sys.modules[full] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[full])
    return sys.modules[full]


@pytest.fixture(scope="session")
def random_programs() -> ModuleType:
    """tests/random_programs.py: `case(seed, limits)`, `cases(limits)` for hypothesis, `table`, ..."""
    return _module("random_programs")


@pytest.fixture(scope="session")
def random_graphs() -> ModuleType:
    """tests/random_graphs.py: `graph(seed, random_programs)`, `graphs(random_programs)` for hypothesis."""
    return _module("random_graphs")


@pytest.fixture(scope="session")
def equations() -> ModuleType:
    """tests/conformance/equations.py: `Equations(graph, contract, inputs)`."""
    return _module("conformance/equations")


@pytest.fixture(scope="session")
def random_networks() -> ModuleType:
    """tests/random_networks.py: `random_network(seed)` in float64, with data."""
    return _module("random_networks")


@pytest.fixture(scope="session")
def planted_faults() -> ModuleType:
    """tests/planted_faults.py: `plant(name, seed)`, names in `PLANTS`."""
    return _module("planted_faults")


@pytest.fixture(scope="session")
def idx_images() -> ModuleType:
    """tests/idx_images.py: `write_set(folder)`, `idx(array)`, files like those of Fashion-MNIST."""
    return _module("idx_images")


@pytest.fixture(scope="session")
def write_net() -> Callable[..., Path]:
    """Return write(path, layers) of tests/netx_files.py, for lava-dl's `.net` files."""
    writer: Callable[..., Path] = _module("netx_files").write
    return writer


@pytest.fixture(scope="session")
def event_folders() -> ModuleType:
    """tests/event_folders.py: `write_shd(folder)`, `write_n_mnist`, `aedat3_bytes(t, x, y, p)`, ..."""
    return _module("event_folders")


@pytest.fixture(scope="session")
def comparing() -> ModuleType:
    """tests/comparing.py: `run_all(program, inputs, device)`, `first_difference(a, b)`."""
    return _module("comparing")


@pytest.fixture(scope="session")
def stateful_networks() -> ModuleType:
    """tests/stateful_networks.py: `network(kind, seed)`, `sequence(kind, seed, steps)`."""
    return _module("stateful_networks")


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
