"""Distributions and editable installs: what they hold, what is pinned, what type checkers see of them."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FLOORS = ("targets", "compiler", "runtime", "train")

USE = """
from snn_compile import compiler, runtime, targets, train

program = targets.load_program("network.snn")
record = runtime.simulate(program, inputs=[[[0.0]]])
options = compiler.Options(weight_bits=8)
config = train.TrainConfig()
"""
MISUSE = """
from snn_compile import compiler, runtime, targets, train

runtime.simulate(program=3, inputs=[[[0.0]]])
compiler.Options(weight_bits="eight")
targets.load_program(3.5)
train.no_such_name
"""


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


def built(kind: str, folder: Path) -> Path:
    """Return a wheel, an sdist or an editable wheel built from a copy of this checkout."""
    source = folder / "source"
    kept = shutil.ignore_patterns(
        "__pycache__", ".*", "build", "dist", "*.egg-info", "tests", "docs", "benchmarks"
    )
    shutil.copytree(ROOT, source, symlinks=True, ignore=kept)
    code = f"from setuptools import build_meta; print(build_meta.build_{kind}({str(folder)!r}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder / done.stdout.strip().splitlines()[-1]


def package_files(distribution: Path) -> set[str]:
    """Return the package's files in a wheel or an sdist."""
    if distribution.suffix == ".whl":
        with zipfile.ZipFile(distribution) as archive:
            return {name for name in archive.namelist() if ".dist-info/" not in name}
    with tarfile.open(distribution) as archive:
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
    found = package_files(built(kind, tmp_path))
    assert found == wanted | {"snn_compile/__init__.py", "snn_compile/__main__.py"}


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an environment that holds nothing but a fresh editable install of the package."""
    folder = tmp_path_factory.mktemp("editable")
    venv.create(folder / "environment", with_pip=False)
    packages = next((folder / "environment").glob("lib/*/site-packages"))
    with zipfile.ZipFile(built("editable", folder)) as wheel:
        wheel.extractall(packages)
    return folder / "environment" / "bin" / "python"


CHECKERS = {
    "mypy": ("-m", "mypy", "--strict", "--python-executable"),
    "basedpyright": ("-m", "basedpyright", "--level", "error", "--pythonpath"),
}


@pytest.mark.parametrize("checker", CHECKERS)
def test_checkers_see_an_editable_install_from_elsewhere(
    tmp_path: Path, elsewhere: Path, checker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    (tmp_path / "use.py").write_text(USE, encoding="utf-8")
    (tmp_path / "misuse.py").write_text(MISUSE, encoding="utf-8")
    command = [sys.executable, *CHECKERS[checker], str(elsewhere), "use.py", "misuse.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    errors = [line for line in done.stdout.splitlines() if "error:" in line or " - error" in line]
    lines = [int(line.split("misuse.py:")[1].split(":")[0]) for line in errors if "misuse.py:" in line]
    assert len(lines) == len(errors), done.stdout
    assert set(lines) == {4, 5, 6, 7}, done.stdout + done.stderr
