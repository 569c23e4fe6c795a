"""The repository's own rules: direction of imports, exports, what an import pulls in, the wheel."""

from __future__ import annotations

import ast
import doctest
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FLOORS = ("targets", "compiler", "runtime", "train")
FILES = {floor: sorted((ROOT / floor).rglob("*.py")) for floor in FLOORS}


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


NAMES = {module_of(file).removeprefix("snn_compile."): file for floor in FLOORS for file in FILES[floor]}
ORDER = {
    "train": "cli | analysis | algorithms | checkpoints | export | tracing | probing | networks | kernels"
    " | neurons | convex, configs",
    "runtime": "cli | divergence | evaluation | data, reports | execution",
    "compiler": "cli | pipeline | calibration | mapping | quantization, analysis | lowering | frontends"
    " | onnx | reference | linear_maps | network | neurons | contract",
    "targets": "lava | oracle, loihi2_sim | devices | program | chips | costs | output, schema"
    " | discovery, errors, integer, lazy",
}
"""The rooms of each floor: a room imports only from what stands to the right of it."""


def imports(module: str) -> set[tuple[str, str]]:
    """Return the modules that a module imports, each as "run", "lazy" (in a function) or "typed"."""
    found: set[tuple[str, str]] = set()

    def walk(node: ast.AST, how: str) -> None:
        if isinstance(node, ast.Import):
            found.update((alias.name, how) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                found.add((name if name.removeprefix("snn_compile.") in NAMES else str(node.module), how))
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for child in node.body:
                walk(child, "typed")
            for child in node.orelse:
                walk(child, how)
        else:
            inner = "lazy" if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) else how
            for child in ast.iter_child_nodes(node):
                walk(child, inner)

    walk(ast.parse(NAMES[module].read_text()), "run")
    return found


IMPORTS = {
    module: {(name.removeprefix("snn_compile."), how) for name, how in imports(module)} for module in NAMES
}


def floor_of(module: str) -> str:
    return module.split(".")[0]


def room_of(module: str) -> str:
    """Return the folder of a module below its floor, the module itself if it is in none, or "" of a floor."""
    return (module.split(".") + [""])[1]


@pytest.mark.smoke
@pytest.mark.parametrize("floor", FLOORS)
def test_imports_go_down_only(floor: str) -> None:
    above = FLOORS[FLOORS.index(floor) + 1 :]
    for module in (m for m in IMPORTS if floor_of(m) == floor):
        for name, how in IMPORTS[module]:
            upwards = floor_of(name) in above
            # Only a command may reach upwards, and only inside a function or for a type.
            assert not upwards or (room_of(module) == "cli" and how != "run"), f"{module} imports {name}"
            assert name != "snn_compile", f"{module} imports the bare namespace"
    for file in FILES[floor]:
        text = file.read_text()
        assert not any(f"\n{word} {f}." in text for word in ("import", "from") for f in FLOORS), (
            f"{file} imports a second copy"
        )


@pytest.mark.smoke
@pytest.mark.parametrize("floor", FLOORS)
def test_rooms_import_from_the_right_only(floor: str) -> None:
    ranks = {room: rank for rank, rooms in enumerate(ORDER[floor].split(" | ")) for room in rooms.split(", ")}
    files = {room_of(m) for m in NAMES if floor_of(m) == floor} - {"", "__main__"}
    assert files == set(ranks), "ORDER names rooms that are not there, or lacks some"
    wrong = {
        f"{floor}.{room_of(module)} -> {floor}.{room_of(name)}"
        for module in IMPORTS
        if floor_of(module) == floor and room_of(module) in ranks
        for name, _ in IMPORTS[module]
        if floor_of(name) == floor and room_of(name) in ranks and room_of(name) != room_of(module)
        if ranks[room_of(name)] <= ranks[room_of(module)]
    }
    assert not wrong, sorted(wrong)


def circles(*hows: str) -> set[str]:
    """Return the groups of modules that import each other in a circle by the given kinds of import."""
    reached: dict[str, set[str]] = {}
    for start in IMPORTS:
        seen: set[str] = set()
        ahead = [start]
        while ahead:
            for name, how in IMPORTS[ahead.pop()]:
                if how in hows and name in IMPORTS and name not in seen:
                    seen.add(name)
                    ahead.append(name)
        reached[start] = seen
    groups = {frozenset(n for n in reached[m] if m in reached[n]) for m in IMPORTS if m in reached[m]}
    return {" ".join(sorted(group)) for group in groups}


@pytest.mark.smoke
def test_no_imports_go_in_circles() -> None:
    assert not circles("run")
    assert circles("run", "lazy", "typed") == set(CIRCLES), (
        "a circle without its reason, or a reason without its circle"
    )
    assert len(CIRCLES) <= 3


CIRCLES = {
    "targets.program.describe targets.program.file targets.program.limits targets.program.program": (
        "a program checks, describes and stores itself; these files read one"
    ),
    "runtime.divergence.diverge runtime.divergence.figure runtime.divergence.report": (
        "a divergence writes its own report; report and figure read one"
    ),
}
"""Circles closed only by imports inside functions or for types, and why they stay."""


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


def functions(tree: ast.Module) -> dict[str, int]:
    """Return the lines of each function by name."""
    return {
        node.name: (node.end_lineno or 0) - node.lineno + 1
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    }


@pytest.mark.smoke
def test_files_and_functions_are_of_a_size_to_read() -> None:
    long_files, long_functions = set(), set()
    for file in [*PACKAGE, *TESTS]:
        name = str(file.relative_to(ROOT))
        text = file.read_text()
        assert file.stem not in ("utils", "helpers", "common"), file
        if text.count("\n") > 400:
            long_files.add(name)
        long_functions |= {f"{name}:{key}" for key, n in functions(ast.parse(text)).items() if n > 60}
    assert not long_files - set(LONG_FILES), "a long file without a reason"
    assert not long_functions - set(LONG_FUNCTIONS), "a long function without a reason"
    assert not set(LONG_FILES) - long_files and not set(LONG_FUNCTIONS) - long_functions, "reasons too many"


@pytest.mark.smoke
def test_folders_hold_few_modules() -> None:
    for folder in {file.parent for file in [*PACKAGE, *TESTS]}:
        modules = [f for f in folder.glob("*.py") if f.stem not in ("__init__", "__main__")]
        assert len(modules) <= 16, f"{folder} holds {len(modules)} modules"


PACKAGE = [file for floor in FLOORS for file in FILES[floor]]
TESTS = sorted((ROOT / "tests").rglob("*.py"))
LONG_FILES = {
    "tests/compiler/frontends/test_nir_broken.py": "one list of broken files",
    "tests/conformance/cases.py": "one list of cases, which the suite's generator reads as a file",
}
"""Files of more than 400 lines, and why they are one."""
LONG_FUNCTIONS = {
    "targets/lava/recorder.py:make_recorder": "classes that need Lava, made together when it is installed",
    "targets/program/limits.py:chip_violations": "one list of a chip's limits",
    "targets/program/program.py:_check_names": "one list of what names have to be",
    "targets/loihi2_sim/network_kernel.py:run_network": "one compiled loop over all steps of a program",
    "tests/conformance/cases.py:primitives": "a list of cases",
    "tests/conformance/cases.py:conventions": "a list of cases",
    "tests/conformance/cases.py:topologies": "a list of cases",
    "train/analysis/euler_maruyama.py:_paths": "one compiled loop: all levels step with the same increments",
}
"""Functions of more than 60 lines, and why they are one."""


@pytest.mark.parametrize("module", [m for m in MODULES if ".lava." not in m])
def test_doctests(module: str) -> None:
    assert doctest.testmod(importlib.import_module(module)).failed == 0


@pytest.mark.smoke
def test_every_room_says_what_lives_there() -> None:
    for floor in FLOORS:
        for folder in {file.parent for file in FILES[floor]}:
            text = (folder / "__init__.py").read_text()
            assert ast.get_docstring(ast.parse(text)), f"{folder}/__init__.py has no docstring"


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
