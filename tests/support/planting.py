"""Load modules of the package a second time, one of them with a mistake planted in its syntax tree.

The place of a mistake is a function, a method as `Class.method`, a class or a constant of a module, found by
name over all modules of a group. The expression or the statements replaced there are found by comparing
syntax trees: formatting, comments and the file that holds the function do not matter.
"""

from __future__ import annotations

import ast
import contextlib
import copy
import importlib
import importlib.abc
import importlib.machinery
import re
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType
from typing import Any

import snn_compile.targets

FOLDER = Path(str(snn_compile.targets.__file__)).parent.parent
Piece = list[ast.stmt] | ast.expr


@dataclass(frozen=True)
class Mutant:
    """In the function `place`, the source `old` becomes `new`; `occurrence` counts from 1, or is 0."""

    what: str
    place: str
    occurrence: int
    old: str
    new: str


def read_mutants(file: Path) -> list[Mutant]:
    """Read entries of "# what | place", lines "- old", lines "+ new"; "place #2" is the second occurrence."""
    found = []
    for entry in file.read_text(encoding="utf-8").strip("\n").split("\n\n"):
        title, *lines = entry.split("\n")
        what, place = title.removeprefix("# ").split(" | ")
        place, _, occurrence = place.partition(" #")
        new = next(n for n, line in enumerate(lines) if line.startswith("+"))
        assert new and all(line.startswith("+") for line in lines[new:]), entry
        old, planted = ("\n".join(line[2:] for line in part) for part in (lines[:new], lines[new:]))
        found.append(Mutant(what, place, int(occurrence or 0), old, planted))
    return found


def named(tree: ast.Module) -> dict[str, list[ast.stmt]]:
    """Return the functions, classes and constants of a module by qualified name."""
    found: dict[str, list[ast.stmt]] = {}

    def walk(node: ast.AST, prefix: str) -> None:
        for child in ast.iter_child_nodes(node):
            inner = prefix
            if isinstance(child, (ast.FunctionDef, ast.ClassDef)):
                found.setdefault(prefix + child.name, []).append(child)
                inner = f"{prefix}{child.name}."
            elif isinstance(child, ast.Assign) and node is tree:
                for target in child.targets:
                    found.setdefault(ast.unparse(target), []).append(child)
            walk(child, inner)

    walk(tree, "")
    return found


@cache
def parsed(file: Path) -> ast.Module:
    """Return a module's syntax tree; whoever changes it copies it first."""
    return ast.parse(file.read_text(encoding="utf-8"))


def files_of(group: tuple[str, ...]) -> list[Path]:
    """Return the files of a group of modules and packages, such as "targets.oracle"."""
    found: list[Path] = []
    for name in group:
        path = FOLDER / name.replace(".", "/")
        found += sorted(path.rglob("*.py")) if path.is_dir() else [path.with_suffix(".py")]
    return found


def planted(mutant: Mutant, group: tuple[str, ...]) -> tuple[Path, ast.Module]:
    """Return the file of a group that holds the mutant's place, and its tree with the mistake in it."""
    old, new = piece(mutant.old), piece(mutant.new)
    if not (isinstance(old, ast.expr) and isinstance(new, ast.expr)):
        old, new = statements(old), statements(new)
    slots = []
    for file in files_of(group):
        if mutant.place in named(parsed(file)):
            tree = copy.deepcopy(parsed(file))
            places = named(tree)[mutant.place]
            slots += [(file, tree, *slot) for place in places for slot in occurrences(place, old)]
    wanted = mutant.occurrence or 1
    unique = len(slots) == 1 or (mutant.occurrence and wanted <= len(slots))
    assert unique, f"{mutant.place} of {', '.join(group)} holds {len(slots)} times: {mutant.old}"
    file, tree, *slot = slots[wanted - 1]
    put(*slot, old, new)
    return file, ast.fix_missing_locations(tree)


def put(node: ast.AST, field: str, start: int | None, old: Piece, new: Piece) -> None:
    """Put a piece where `occurrences` found another one."""
    block = getattr(node, field)
    if isinstance(new, ast.expr):
        new.ctx = getattr(block if start is None else block[start], "ctx", ast.Load())
    if start is None:
        setattr(node, field, new)
        return
    block[start : start + len(statements(old))] = new if isinstance(new, list) else [new]
    if not block and field == "body":
        block.append(ast.Pass())


def piece(source: str) -> Piece:
    """Return an expression, or else statements."""
    text = textwrap.dedent(source).strip("\n")
    with contextlib.suppress(SyntaxError):
        return ast.parse(text.strip(), mode="eval").body
    return ast.parse(text).body


def statements(found: Piece) -> list[ast.stmt]:
    """Return statements as they are, an expression as one."""
    return found if isinstance(found, list) else [ast.Expr(found)]


def same(a: Any, b: ast.AST) -> bool:
    """Tell whether two trees are the same source; whether a name is read or written does not matter."""
    return type(a) is type(b) and dump(a) == dump(b)


def dump(node: ast.AST) -> str:
    """Return a tree as text, without whether names are read or written."""
    return re.sub(r"ctx=\w+\(\)", "", ast.dump(node))


def occurrences(place: ast.AST, old: Piece) -> Iterator[tuple[ast.AST, str, int | None]]:
    """Yield node, field and index in the field's list (None: no list) of every occurrence of a piece."""
    wanted: list[Any] = old if isinstance(old, list) else [old]
    for node in ast.walk(place):
        for field, value in ast.iter_fields(node):
            if isinstance(value, list):
                for start in range(len(value) - len(wanted) + 1):
                    part = value[start : start + len(wanted)]
                    if all(same(a, b) for a, b in zip(part, wanted, strict=True)):
                        yield node, field, start
            elif isinstance(old, ast.expr) and same(value, old):
                yield node, field, None


class _Loader(SourceFileLoader):
    """Loads a module from its file, or the one that holds the mistake from its tree."""

    tree: ast.Module | None = None

    def get_code(self, fullname: str) -> CodeType | None:
        if self.tree is None:
            return super().get_code(fullname)
        return compile(self.tree, self.path, "exec")


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the modules of a group, and leaves all others to whoever comes next."""

    def __init__(self, group: tuple[str, ...], mutant: Mutant | None) -> None:
        self._modules = {module_of(file): file for file in files_of(group)}
        self._planted = planted(mutant, group) if mutant else (None, None)

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if fullname not in self._modules:
            return None
        file = self._modules[fullname]
        loader = _Loader(fullname, str(file))
        if file == self._planted[0]:
            loader.tree = self._planted[1]
        return importlib.util.spec_from_file_location(fullname, file, loader=loader)


def module_of(file: Path) -> str:
    """Return the dotted name of a file of the package."""
    parts = file.relative_to(FOLDER).with_suffix("").parts
    return ".".join(("snn_compile", *(part for part in parts if part != "__init__")))


@contextlib.contextmanager
def loaded_again(group: tuple[str, ...], mutant: Mutant | None = None) -> Iterator[None]:
    """Within it, whoever imports a module of the group gets a new one, the mutant's with its mistake."""
    names = [module_of(file) for file in files_of(group)]
    kept = {name: importlib.import_module(name) for name in names if not name.endswith("__main__")}
    parents = {name: sys.modules[name.rpartition(".")[0]] for name in kept}
    finder = _Finder(group, mutant)
    for name, parent in parents.items():
        del sys.modules[name]
        delattr(parent, name.rpartition(".")[2])
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name, module in kept.items():
            sys.modules[name] = module
            setattr(parents[name], name.rpartition(".")[2], module)
