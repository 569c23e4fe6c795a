"""The conformance suite: its files are what its generator makes, its table what the devices do now."""

from __future__ import annotations

import ast
import importlib.util
import json
import logging
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import nir
import numpy as np
import pytest

from snn_compile.compiler.contract.contract import CHOICES, graph_digest
from snn_compile.compiler.frontends.read import read_graph
from snn_compile.targets.devices.device import open_device

ROOT = Path(__file__).resolve().parent.parent
SUITE = ROOT / "tests" / "conformance"
FAST = ("reference", "oracle", "loihi2-sim", "lava-stepped")
UNDER_LAVA = slice(None, None, 5)
"""Of the cases; the rest of that column is filled by the script."""


def load(file: Path) -> ModuleType:
    name = f"snn_compile_conformance_{file.stem}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, file)
        assert spec is not None and spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


script = load(ROOT / "benchmarks" / "conformance.py")
suite = load(SUITE / "cases.py")
MADE = {case.name: case for case in suite.cases()}
CASES = {case.path.stem: case for case in script.load_cases()}

needs_lava = pytest.mark.skipif(
    importlib.util.find_spec("lava.magma") is None, reason="lava-nc is not installed; the README says how"
)


@pytest.fixture(scope="module")
def page() -> str:
    """The part of docs/conformance.md that the script writes."""
    _, inside, _ = script.pages(script.PAGE.read_text(encoding="utf-8"))
    return str(inside)


@pytest.fixture(scope="module")
def cells(page: str) -> dict[tuple[str, str], str]:
    """The cells of the page."""
    found = {}
    for line in page.splitlines():
        if line.startswith("| ") and not line.startswith("| case"):
            row, _, *values = (part.strip() for part in line.strip("|").replace("&lt;", "<").split(" | "))
            found |= {(row, device): value for device, value in zip(script.DEVICES, values, strict=True)}
    return found


@needs_lava
def test_the_page_has_every_case_and_this_environments_versions(
    page: str, cells: dict[tuple[str, str], str]
) -> None:
    assert page.strip() == script.rendered(list(CASES.values()), cells).strip()
    slow = {row for (row, _), value in cells.items() if value == "equal, c-slow 2"}
    assert set(cells.values()) == {"equal", "equal, c-slow 2"} and slow == {"Short cycle"}


@pytest.mark.parametrize("name", CASES)
def test_a_row_of_the_page(
    name: str, cells: dict[tuple[str, str], str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    case = CASES[name]
    for device in FAST:
        if device == "lava-stepped" and importlib.util.find_spec("lava.magma") is None:
            continue
        assert script.cell(case, device) == cells[case.document["row"], device], device


@needs_lava
@pytest.mark.parametrize("name", list(CASES)[UNDER_LAVA])
def test_a_cell_of_lava(name: str, cells: dict[tuple[str, str], str]) -> None:
    case = CASES[name]
    assert script.cell(case, "lava", open_device("lava")) == cells[case.document["row"], "lava"]


def test_every_node_type_has_a_row() -> None:
    kinds = {kind.__name__ for kind in nir.NIRNode.__subclasses__() if hasattr(nir, kind.__name__)}
    rows = {case.row for case in MADE.values()}
    assert len(kinds - {"NIRGraph"}) == 18 and rows >= kinds - {"NIRGraph"} | {"Nested graph"}
    for kind in kinds - {"NIRGraph"}:
        case = next(case for case in MADE.values() if case.row == kind)
        assert kind in {type(node).__name__ for node in case.graph.nodes.values()}


def test_files_are_what_the_generator_makes() -> None:
    assert list(CASES) == list(MADE)
    for name, made in MADE.items():
        case, document = CASES[name], json.loads(json.dumps(made.document()))
        assert graph_digest(read_graph(case.path)) == graph_digest(made.graph), name
        for key in document.keys() | case.document.keys():
            if key != "expected":
                assert case.document[key] == document[key], (name, key)
        assert same(case.document["expected"], document["expected"]), name


def same(stored: Any, made: Any) -> bool:
    """Whether traces are equal, membranes to a part in 10**12 (an exponential may differ in its last bit)."""
    if isinstance(made, dict):
        return stored.keys() == made.keys() and all(same(stored[key], made[key]) for key in made)
    return bool(np.allclose(stored, made, rtol=1e-12, atol=1e-12))


def test_the_suite_knows_nothing_of_the_compiler() -> None:
    for file in ("equations.py", "nets.py", "cases.py"):
        for node in ast.walk(ast.parse((SUITE / file).read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(name.startswith("snn_compile") for name in names)


def run(case: Any, **items: Any) -> dict[str, Any]:
    return suite.Case(
        case.group, case.row, case.about, case.graph, {**case.contract, **items}, case.inputs
    ).document()["expected"]  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", [name for name, case in MADE.items() if case.item])
def test_another_reading_would_be_seen(name: str) -> None:
    """Each case about an item of the contract fails a tool that reads another word there."""
    case = MADE[name]
    own = case.contract.get(case.item, suite.DEFAULTS.get(case.item))
    others = [word for word in CHOICES.get(case.item, ()) if word != own]
    if case.item in ("dt", "v_min", "v_init", "spike_amplitude", "nodes"):
        others = [{"dt": 1.0}.get(case.item, suite.DEFAULTS.get(case.item))]
    subtracts = case.contract.get("reset") == "subtract"
    others = [word for word in others if word != "pending" or subtracts]
    assert others
    for word in others:
        assert not same(run(case, **{case.item: word}), run(case)), word


@pytest.mark.parametrize("name", [name for name, case in MADE.items() if "spikes" in str(case.document())])
def test_spiking_cases_spike_and_are_silent(name: str) -> None:
    for node, traces in MADE[name].document()["expected"].items():
        if "spikes" in traces:
            spikes = np.asarray(traces["spikes"])
            assert 0 < np.count_nonzero(spikes) < spikes.size, node
