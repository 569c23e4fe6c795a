"""Networks drawn at random and written by five frameworks' exporters: read right, or a message says why not.

`tests/data/exports` holds 12 per framework, made by `benchmarks/exports/draw.py` from seeds that nothing was
tuned on; `make interop` draws hundreds.
"""

from __future__ import annotations

import importlib.util
import sys
import zipfile
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest

from snn_compile.compiler import lower
from snn_compile.targets.errors import AmbiguousConvention

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / "tests/data/exports"
MAKERS = ("norse", "rockpool", "sinabs", "snntorch", "spikingjelly")


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("interop", ROOT / "benchmarks/interop.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["interop"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module", params=MAKERS)
def drawn(
    request: pytest.FixtureRequest, script: ModuleType, tmp_path_factory: pytest.TempPathFactory
) -> list:
    folder = tmp_path_factory.mktemp("exports") / request.param
    with zipfile.ZipFile(FOLDER / f"{request.param}.zip") as archive:
        archive.extractall(folder)
    return list(script.nets(folder.parent))


def test_every_network_is_read_right_or_said_why_not(script: ModuleType, drawn: list) -> None:
    found = {net.file.stem: script.classified(net) for net in drawn}
    count = Counter(kind for kind, _ in found.values())
    assert len(drawn) == 12 and {net.maker for net in drawn} <= set(MAKERS)
    assert not count["wrong"] and not count["foreign"], found
    # What is dropped without a trace in the file is the exporters' alone.
    assert {drawn[0].maker} == {"rockpool"} or not count["dropped"]
    assert not count["refused"], found
    assert not script.NEARLY


def test_the_exporters_name_is_enough_where_its_defaults_hold(script: ModuleType, drawn: list) -> None:
    usual = [net for net in drawn if net.usual]
    assert len(usual) >= 4 and all(script.alone(net) for net in usual)


def test_strict_asks_for_what_the_file_does_not_hold(drawn: list) -> None:
    asked = 0
    for net in drawn:
        assumed = lower(net.file, {"maker": net.maker}).assumed
        if not assumed:
            lower(net.file, {"maker": net.maker}, strict=True)
            continue
        with pytest.raises(AmbiguousConvention) as error:
            lower(net.file, {"maker": net.maker}, strict=True)
        assert all(item in str(error.value) for item in assumed)
        asked += 1
    assert asked or drawn[0].maker == "spikingjelly"


def test_a_wrong_reading_would_be_found(script: ModuleType, drawn: list) -> None:
    """The spikes tell readings apart: with the comparison, the reset or the step of another they differ."""
    others = {"norse": {"dt": 2e-6}, "spikingjelly": {"reset": "subtract"}}
    stated = others.get(drawn[0].maker, {"reset": "none"})
    wrong = [not script.right(lower(net.file, {"maker": net.maker, **stated}), net) for net in drawn]
    assert sum(wrong) >= len(drawn) // 2
