"""The repository's own rules: direction of imports, exports, what an import pulls in, the wheel."""

from __future__ import annotations

import ast
import doctest
import importlib
import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FLOORS = ("targets", "compiler", "runtime", "train")
FILES = {floor: sorted((ROOT / floor).glob("*.py")) for floor in FLOORS}
MODULES = [f"snn_compile.{floor}.{file.stem}" for floor in FLOORS for file in FILES[floor]]
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
        found = imports(file, top_level_only=file.name == "cli.py")
        wrong = [m for m in found for up in above if m.startswith(f"snn_compile.{up}")]
        assert not wrong, f"{floor}/{file.name} imports {wrong}"
        assert "snn_compile" not in found, f"{floor}/{file.name} imports the bare namespace"
        relative = [m for m in found if m.split(".")[0] in FLOORS]
        assert not relative, f"{floor}/{file.name} imports a second copy: {relative}"


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
    names = [n for n in names if "lava" not in n and "kernels" not in n and n.split(".")[-1] != "__init__"]
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
            assert lines <= 400, f"{floor}/{file.name} has {lines} lines"
            assert file.stem not in ("utils", "helpers", "common")


@pytest.mark.parametrize("module", [m for m in MODULES if "lava" not in m and "__init__" not in m])
def test_doctests(module: str) -> None:
    assert doctest.testmod(importlib.import_module(module)).failed == 0


def test_packages_are_the_folders() -> None:
    table = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert sorted(table["packages"]) == sorted(f"snn_compile.{floor}" for floor in FLOORS)
    for floor in FLOORS:
        inner = [p for p in (ROOT / floor).iterdir() if p.is_dir() and p.name != "__pycache__"]
        assert not inner, f"{floor} has folders {inner}, which the wheel would lack"


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


def test_wheel_holds_the_package_and_nothing_else(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", *FLOORS):
        (source / name).symlink_to(ROOT / name)
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "--quiet",
            "--no-deps",
            "--no-build-isolation",
            "--disable-pip-version-check",
            "-w",
            str(tmp_path),
            str(source),
        ],
        check=True,
        capture_output=True,
        cwd=tmp_path,
    )
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    inside = {n for n in names if ".dist-info/" not in n}
    wanted = {
        f"snn_compile/{floor}/{file.name}"
        for floor in FLOORS
        for file in (ROOT / floor).iterdir()
        if file.suffix in (".py", ".toml", ".typed")
    }
    assert inside == wanted


def test_types(tmp_path: Path) -> None:
    package = tmp_path / "snn_compile"
    package.mkdir()
    for floor in FLOORS:
        (package / floor).symlink_to(ROOT / floor)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "mypy",
            "-p",
            "snn_compile",
            "--config-file",
            str(ROOT / "pyproject.toml"),
            "--cache-dir",
            str(ROOT / ".mypy_cache"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "MYPYPATH": str(tmp_path)},
    )
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
