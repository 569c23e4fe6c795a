"""Mistakes are planted where their entry says, whatever the file looks like."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from support import planting
from support.planting import Mutant

from snn_compile.targets.integer import wrap_state

SOURCE = """
LIMIT = 4

class Cell:
    def step(self, x):
        # a comment
        y = (x
             + 1) * 2
        if y > 3:
            self.count(y)
        return y + 1, x + 1
"""


def plant(
    monkeypatch: pytest.MonkeyPatch, place: str, old: str, new: str, occurrence: int = 0, source: str = SOURCE
) -> str:
    monkeypatch.setattr(planting, "files_of", lambda group: [Path("a.py")])
    monkeypatch.setattr(planting, "parsed", lambda file: ast.parse(source))
    _, tree = planting.planted(Mutant("", place, occurrence, old, new), ("group",))
    return ast.unparse(tree)


@pytest.mark.parametrize(
    ("place", "old", "new", "expected"),
    [
        ("Cell.step", "( x+1 )*2", "x", "y = x\n"),
        ("Cell.step", "y + 1", "y", "return (y, x + 1)"),
        ("Cell.step", "self.count(y)", "", "if y > 3:\n            pass"),
        ("Cell.step", "if y > 3:\n    self.count(y)", "self.count(y)", "* 2\n        self.count(y)"),
        ("Cell.step", "x", "z", ""),
        ("Cell", "y > 3", "y >= 3", "if y >= 3:"),
        ("LIMIT", "4", "5", "LIMIT = 5"),
    ],
)
def test_a_piece_is_found_by_its_syntax(
    monkeypatch: pytest.MonkeyPatch, place: str, old: str, new: str, expected: str
) -> None:
    if not expected:
        with pytest.raises(AssertionError, match="holds 2 times: x"):
            plant(monkeypatch, place, old, new)
        assert "return (y + 1, z + 1)" in plant(monkeypatch, place, old, new, 2)
    else:
        assert expected in plant(monkeypatch, place, old, new)


@pytest.mark.parametrize(("place", "old"), [("Cell.run", "x"), ("Cell.step", "y - 1"), ("step", "y > 3")])
def test_what_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch, place: str, old: str) -> None:
    with pytest.raises(AssertionError, match="holds 0 times"):
        plant(monkeypatch, place, old, "0")


def test_modules_are_themselves_again_afterwards() -> None:
    mutant = Mutant("", "wrap_state", 1, "x", "7 * x")
    with planting.loaded_again(("targets.integer",), mutant):
        from snn_compile.targets import integer

        assert integer.wrap_state is not wrap_state
    from snn_compile.targets import integer

    assert integer.wrap_state is wrap_state
