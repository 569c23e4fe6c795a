"""The wheel without extras: a graph goes through compile, run and report; what needs an extra names it."""

from __future__ import annotations

import re
import subprocess
import venv
import zipfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import nir
import numpy as np
import pytest
import torch
from test_packaging import built

COMMANDS = {
    name: f"from snn_compile.{floor}.cli import main; import sys; sys.exit(main())"
    for name, floor in (("snn-compile", "compiler"), ("snn-run", "runtime"), ("snn-train", "train"))
}


def required(name: str, found: dict[str, Path]) -> dict[str, Path]:
    """Collect the top-level files of a distribution and of all that it requires without extras."""
    try:
        dist = distribution(name)
    except PackageNotFoundError:
        return found
    if name != "snn-compile":
        tops = {Path(file).parts[0] for file in dist.files or () if ".." not in Path(file).parts}
        tops -= {"__pycache__"}
        if any(top in found for top in tops if top.endswith("-info")):
            return found
        found |= {top: Path(str(dist.locate_file(top))) for top in tops}
    for text in dist.requires or ():
        requirement, _, marker = text.partition(";")
        if "extra" not in marker:
            required(re.match(r"[\w.-]+", requirement.strip())[0], found)
    return found


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory):
    """run(command, *arguments) in an environment with the wheel and its dependencies, without any extra."""
    folder = tmp_path_factory.mktemp("plain")
    venv.create(folder / "venv", with_pip=False)
    python = folder / "venv" / "bin" / "python"
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(subprocess.run([python, "-c", where], capture_output=True, text=True).stdout.strip())
    (folder / "wheel").mkdir()
    with zipfile.ZipFile(built("wheel", folder / "wheel")) as wheel:
        wheel.extractall(site)
    for top, place in required("snn-compile", {}).items():
        if not (site / top).exists():
            (site / top).symlink_to(place)

    def run(command: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        words = [python, "-W", "ignore", "-c", COMMANDS[command], *map(str, arguments)]
        clean = {"PATH": "/usr/bin:/bin", "NUMBA_CACHE_DIR": str(folder / "numba"), "HOME": str(folder)}
        return subprocess.run(words, capture_output=True, text=True, cwd=folder, env=clean)

    graph = nir.NIRGraph(
        {
            "input": nir.Input({"input": np.array([3])}),
            "fc": nir.Linear(np.random.default_rng(0).normal(0.5, 0.5, (2, 3))),
            "lif": nir.LIF(*(np.full(2, x) for x in (4.0, 4.0, 0.0, 1.0)), v_reset=np.zeros(2)),
            "output": nir.Output({"output": np.array([2])}),
        },
        [("input", "fc"), ("fc", "lif"), ("lif", "output")],
    )
    nir.write(folder / "net.nir", graph)
    torch.save({"weight": torch.zeros(2, 3)}, folder / "net.pt")
    rng = np.random.default_rng(1)
    np.savez(folder / "data.npz", inputs=rng.random((70, 9, 3)) < 0.4, labels=rng.integers(0, 2, 70))
    done = run("snn-compile", "net.nir", *STATED, "--check", "data.npz", "-o", "net.snn")
    assert done.returncode == 0, done.stderr
    return run


STATED = [
    *("--convention", "dt=1", "--convention", "rule=euler", "--convention", "reset=subtract"),
    *("--convention", "reset_timing=same_step", "--convention", "comparison=>"),
]


def test_a_graph_goes_through_compile_run_and_report(plain) -> None:
    against = ("--against", "net.nir", *STATED, "--report", "run.html", "--report", "run.json")
    done = plain("snn-run", "net.snn", "--data", "data.npz", *against)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    assert "net.nir" in done.stdout


@pytest.mark.parametrize(
    ("command", "arguments", "extra"),
    [
        ("snn-compile", ["net.pt"], "train"),
        ("snn-compile", ["export", "net.pt", "-o", "x.nir"], "train"),
        ("snn-compile", ["inspect", "net.pt"], "train"),
        ("snn-compile", ["net.pt", "--model", "m:f", "--input-shape", "3"], "train"),
        ("snn-run", ["net.snn", "--data", "data.npz", "--against", "net.pt"], "train"),
        ("snn-run", ["diverge", "net.snn", "--data", "data.npz", "--against", "net.pt"], "train"),
        ("snn-run", ["net.snn", "--data", "data.npz", "--device", "lava"], "lava"),
        (
            "snn-run",
            ["loop", "net.snn", "--environment", "CartPole-v1", "--scale", "1", "--steps", "5"],
            "train",
        ),
        ("snn-train", ["digits", "-o", "x.pt"], "train"),
        ("snn-train", ["analyse", "boundary", "-o", "x.png"], "train"),
    ],
)
def test_what_needs_an_extra_names_it(plain, command, arguments, extra) -> None:
    done = plain(command, *arguments)
    lines = [line for line in done.stderr.splitlines() if "error" in line]
    assert (done.returncode, done.stdout, len(lines)) == (1, "", 1), done.stderr
    assert extra in lines[0] and "Traceback" not in done.stderr
