"""The repository's own rules: direction of imports, exports, what an import pulls in, the wheel."""

from __future__ import annotations

import ast
import doctest
import importlib
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FLOORS = ("targets", "compiler", "runtime", "train")
FILES = {floor: sorted((ROOT / floor).rglob("*.py")) for floor in FLOORS}
COMMANDS = [file for floor in FLOORS for file in FILES[floor] if file.parent.name == "cli"]


def module_of(file: Path) -> str:
    """Return the dotted name of a file of the package."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(("snn_compile", *(part for part in parts if part != "__init__")))


MODULES = [
    module_of(file)
    for floor in FLOORS
    for file in FILES[floor]
    if file.name not in ("__init__.py", "__main__.py")
]
HEAVY = ("torch", "lava", "numba", "matplotlib", "sklearn", "onnx", "onnxruntime")


def imports(file: Path, top_level_only: bool) -> set[str]:
    """Return modules that a file imports; TYPE_CHECKING blocks import nothing at run time."""
    found: set[str] = set()

    def walk(node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                found.update(alias.name for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                found.add(child.module or "")
            elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                continue
            elif top_level_only and isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
                continue
            walk(child)

    walk(ast.parse(file.read_text()))
    return found


@pytest.mark.parametrize("floor", FLOORS)
def test_imports_go_down_only(floor: str) -> None:
    above = FLOORS[FLOORS.index(floor) + 1 :]
    for file in FILES[floor]:
        # Only a command may reach upwards, and only inside a function.
        found = imports(file, top_level_only=file in COMMANDS)
        wrong = [m for m in found for up in above if m.startswith(f"snn_compile.{up}")]
        assert not wrong, f"{file} imports {wrong}"
        assert "snn_compile" not in found, f"{file} imports the bare namespace"
        relative = [m for m in found if m.split(".")[0] in FLOORS]
        assert not relative, f"{file} imports a second copy: {relative}"


@pytest.mark.parametrize("floor", FLOORS)
def test_all_is_sorted_and_there(floor: str) -> None:
    module = importlib.import_module(f"snn_compile.{floor}")
    assert list(module.__all__) == sorted(set(module.__all__))
    for name in module.__all__:
        assert getattr(module, name) is not None
        assert not isinstance(getattr(module, name), type(sys)), f"{floor}.{name} is a module"


def loaded_after(statement: str) -> set[str]:
    code = f"import sys\n{statement}\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {name.split(".")[0] for name in done.stdout.split()}


@pytest.mark.parametrize("floor", ("targets", "compiler", "runtime"))
def test_floors_below_train_need_no_torch_and_no_lava(floor: str) -> None:
    names = [m for m in MODULES if m.startswith(f"snn_compile.{floor}.")]
    # The files of the Lava devices import lava when they are opened, not when a floor is imported.
    names = [n for n in names if ".lava." not in n]
    loaded = loaded_after(f"import snn_compile.{floor}, {', '.join(names)}")
    assert not loaded & {"torch", "lava"}


@pytest.mark.parametrize("floor", FLOORS)
def test_importing_a_floor_is_light(floor: str) -> None:
    assert not loaded_after(f"import snn_compile.{floor}") & set(HEAVY)


@pytest.mark.parametrize("floor", ("compiler", "runtime", "train"))
def test_help_is_light(floor: str) -> None:
    loaded = loaded_after(
        f"from snn_compile.{floor}.cli import main\n"
        "import contextlib, io\n"
        "with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):\n"
        "    main(['--help'])"
    )
    assert not loaded & {*HEAVY, "scipy", "nir", "networkx"}


def test_files_are_one_thing() -> None:
    for floor in FLOORS:
        for file in FILES[floor]:
            lines = file.read_text().count("\n")
            assert lines <= 400, f"{file} has {lines} lines"
            assert file.stem not in ("utils", "helpers", "common")


@pytest.mark.parametrize("module", [m for m in MODULES if ".lava." not in m])
def test_doctests(module: str) -> None:
    assert doctest.testmod(importlib.import_module(module)).failed == 0


def test_every_folder_is_a_package_with_a_line_that_says_what_lives_there() -> None:
    for floor in FLOORS:
        for folder in {file.parent for file in FILES[floor]}:
            text = (folder / "__init__.py").read_text()
            assert ast.get_docstring(ast.parse(text)), f"{folder}/__init__.py has no docstring"
            assert len(list(folder.glob("*.py"))) <= 17, f"{folder} holds more than 16 modules"


def test_constraints_pin_every_dependency() -> None:
    lines = [line.split("#")[0].strip() for line in (ROOT / "constraints.txt").read_text().splitlines()]
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in lines if line}
    assert all("==" in line for line in lines if line)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *sum(project["optional-dependencies"].values(), [])]
    for requirement in wanted:
        name = requirement.split(";")[0].split(">=")[0].split("==")[0].strip().lower()
        assert name in pinned or "python_version" in requirement, f"{name} is not pinned"
    assert "torch==2.13.0" in lines


def built(kind: str, folder: Path) -> set[str]:
    """Return the package's files in a distribution built from this checkout, without its build folders."""
    source = folder / "source"
    kept = shutil.ignore_patterns(
        "__pycache__", ".*", "build", "dist", "*.egg-info", "tests", "docs", "benchmarks"
    )
    shutil.copytree(ROOT, source, symlinks=True, ignore=kept)
    code = f"from setuptools import build_meta; print(build_meta.build_{kind}({str(folder)!r}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    file = folder / done.stdout.strip().splitlines()[-1]
    if kind == "wheel":
        with zipfile.ZipFile(file) as archive:
            names = set(archive.namelist())
        return {n for n in names if ".dist-info/" not in n}
    with tarfile.open(file) as archive:
        members = [m for m in archive.getmembers() if "/src/snn_compile/" in m.name and not m.isdir()]
        assert all(m.isreg() for m in members), "the sdist holds links"
        return {m.name.split("/src/", 1)[1] for m in members}


@pytest.mark.parametrize("kind", ("wheel", "sdist"))
def test_distributions_hold_every_room_and_nothing_else(tmp_path: Path, kind: str) -> None:
    wanted = {
        f"snn_compile/{file.relative_to(ROOT)}"
        for floor in FLOORS
        for file in (ROOT / floor).rglob("*")
        if file.suffix in (".py", ".toml", ".typed")
    }
    assert built(kind, tmp_path) == wanted | {"snn_compile/__init__.py", "snn_compile/__main__.py"}


def test_types() -> None:
    done = subprocess.run([sys.executable, "-m", "mypy"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr


def test_nothing_speaks_of_this_machine() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode:
        pytest.skip("not a git checkout")
    for name in tracked.stdout.split():
        file = ROOT / name
        if file.suffix in (".py", ".md", ".toml", ".txt", "") and file.is_file():
            text = file.read_text(errors="replace")
            assert str(ROOT) not in text, f"{name} names this checkout's folder"
