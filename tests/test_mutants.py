"""One-line mistakes planted in devices and compiler: comparing random programs or graphs must see every one.

A mutant is a device loaded from its own source with one piece of text replaced. Mutants of the oracle
are compared with `loihi2-sim`, mutants of `loihi2-sim` with the oracle; mutants of what lowers graphs and
runs them in float64 are compared with NIR's equations on random graphs. The kernels of mutants run as
plain Python (numpy's 32-bit scalars wrap as the compiled ones do), which a first test shows to be equal.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
import warnings
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conformance import equations
from support import comparing, random_graphs, random_programs

from snn_compile import compiler, targets
from snn_compile.compiler.contract.contract import Contract
from snn_compile.targets.devices.device import open_device
from snn_compile.targets.errors import SnnCompileError
from snn_compile.targets.loihi2_sim.device import Loihi2Sim
from snn_compile.targets.oracle.device import Oracle

HERE = Path(__file__).parent / "mutants"
SEEDS, OTHER_SEEDS, OWN_SEEDS = range(5000, 5060), range(6000, 6050), range(7000, 7060)
NEURONS = ("neurons", "lif", "rf", "atrlif", "sigma_delta", "brf_alif")
KERNELS = ("neuron_kernels", "brf_alif", "network_kernel", "layout", "device")
CHAINS = {
    "oracle": ("integer", *(f"oracle.{part}" for part in (*NEURONS, "device"))),
    "loihi2-sim": tuple(f"loihi2_sim.{part}" for part in KERNELS),
}


@dataclass(frozen=True)
class Mutant:
    """In `file`, the text `old`, which is there exactly once, becomes `new`."""

    what: str
    file: str
    old: str
    new: str

    def plant(self, text: str) -> str:
        """Return the source with the mistake in it; line breaks and spaces of `old` do not matter."""
        tokens = re.findall(r"\w+|[^\w\s]", self.old)
        pattern = r"\s*".join(re.escape(token) for token in tokens)
        planted, times = re.subn(pattern, lambda _: self.new, text)
        assert times == 1, f"{self.file} has {times} times: {self.old}"
        return planted


def mutants(name: str) -> list[Mutant]:
    """Read tests/mutants/<device>.txt: "# what | file", "- old", more lines of it, then lines "+ new"."""
    found = []
    for entry in (HERE / f"{name}.txt").read_text(encoding="utf-8").split("\n\n"):
        title, *lines = entry.strip("\n").split("\n")
        what, file = title.removeprefix("# ").split(" | ")
        new = next(n for n, line in enumerate(lines) if line.startswith("+"))
        assert new and all(line.startswith("+") for line in lines[new:]), entry
        old, planted = ("\n".join(line[2:] for line in part) for part in (lines[:new], lines[new:]))
        found.append(Mutant(what, file, old, planted))
    return found


def load_device(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, mutant: Mutant | None = None
) -> Any:
    """Return a device made from its source with the mutant's text replaced, uncompiled."""
    plain = ModuleType("numba")
    plain.njit = lambda **_: lambda function: function  # type: ignore[attr-defined]
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "numba", plain)
        module = load_chain(folder, patch, targets, CHAINS[name], mutant)
    if name == "oracle":
        return module.Oracle()
    module.EVENT_BUFFER = 60
    return module.Loihi2Sim(threads=2)


def load_chain(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    package: ModuleType,
    parts: tuple[str, ...],
    mutant: Mutant | None,
) -> Any:
    """Return the last of some modules of a package, each made from its source and importing the others."""
    sources = Path(str(package.__file__)).parent
    with monkeypatch.context() as patch:
        for part in parts:
            path = part.replace(".", "/") + ".py"
            text = (sources / path).read_text(encoding="utf-8")
            file = folder / path
            if mutant is not None and mutant.file == path:
                text = mutant.plant(text)
            file.parent.mkdir(exist_ok=True)
            file.write_text(text, encoding="utf-8")
            spec = importlib.util.spec_from_file_location(f"mutant_{next(_numbers)}", file)
            assert spec is not None and spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            patch.setitem(sys.modules, spec.name, module)
            spec.loader.exec_module(module)
            # What the next part imports is this module, by either form of import.
            parent, _, name = f"{package.__name__}.{part}".rpartition(".")
            patch.setitem(sys.modules, f"{parent}.{name}", module)
            patch.setattr(importlib.import_module(parent), name, module, raising=False)
    return module


_numbers = count()


@pytest.fixture(scope="module")
def fixed() -> list[Any]:
    """The programs, and the record of each by either device as it is."""
    found = []
    leaky = [random_programs.case(seed, random_programs.SHORT) for seed in SEEDS]
    others = [random_programs.case(seed, random_programs.SHORT_OTHERS) for seed in OTHER_SEEDS]
    mixed = [case for pair in zip(leaky, others, strict=False) for case in pair]
    edges = random_programs.edge_cases()
    # What is small and catches most goes first: every mutant runs up to what catches it.
    small = [edges.pop(name) for name in ("other ties", "ties", "held", "late")]
    for case in [*small, *mixed, *leaky[len(others) :], *edges.values()]:
        records = {name: comparing.run_all(case.program, case.inputs, name) for name in CHAINS}
        found.append(SimpleNamespace(case=case, records=records))
    return found


@pytest.fixture(scope="module")
def fixed_own() -> list[Any]:
    """As `fixed`, of programs with balanced resonators and adaptive leaky neurons."""
    cases = [random_programs.case(seed, random_programs.SHORT_OWN) for seed in OWN_SEEDS]
    found = []
    for case in (random_programs.own_ties(), *cases):
        records = {name: comparing.run_all(case.program, case.inputs, name) for name in CHAINS}
        found.append(SimpleNamespace(case=case, records=records))
    return found


def ran(device: Any, entry: Any) -> Any:
    """Return the record of a program; numpy's scalars tell where they wrap, as compiled ones do silently."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "overflow encountered in scalar", RuntimeWarning)
        return comparing.run_all(entry.case.program, entry.case.inputs, device)


def caught(device: Any, other: str, fixed: list[Any], overflows: bool = True) -> str:
    """Return the first difference between a device and the records of the other one, or ""."""
    for entry in fixed:
        record = ran(device, entry)
        if difference := comparing.first_difference(entry.records[other], record, overflows):
            return str(difference)
    return ""


@pytest.mark.parametrize("name", [*CHAINS, *(f"{name}_own" for name in (*CHAINS, "lava"))])
def test_there_are_enough_mutants(name: str) -> None:
    kinds = {mutant.what for mutant in mutants(name)}
    assert len(kinds) == len(mutants(name)) >= 12


@pytest.mark.parametrize("name", CHAINS)
def test_without_a_mutant_nothing_differs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fixed: list[Any], fixed_own: list[Any], name: str
) -> None:
    device = load_device(tmp_path, monkeypatch, name)
    assert not isinstance(device, (Oracle, Loihi2Sim))
    for entry in [*fixed, *fixed_own]:
        record = ran(device, entry)
        for other in CHAINS:
            assert not comparing.first_difference(entry.records[other], record)


PLANTED = [
    pytest.param(device, other, own, mutant, id=f"{device}{'_own' * own}-{mutant.what}")
    for device, other in (("oracle", "loihi2-sim"), ("loihi2-sim", "oracle"))
    for own in (False, True)
    for mutant in mutants(device + "_own" * own)
]
"""Mutants of a device, what it is compared with, and whether they are of our own neurons."""


@pytest.mark.parametrize(("device", "other", "own", "mutant"), PLANTED)
def test_a_mutant_is_caught(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    device: str,
    other: str,
    own: bool,
    mutant: Mutant,
) -> None:
    programs = request.getfixturevalue("fixed_own" if own else "fixed")
    assert caught(load_device(tmp_path, monkeypatch, device, mutant), other, programs)


def lava_with(folder: Path, monkeypatch: pytest.MonkeyPatch, mutant: Mutant | None = None) -> Any:
    """Return lava-stepped, of which our processes are made from their source, the mutant's text replaced."""
    pytest.importorskip("lava.magma")
    from snn_compile.targets.lava import lif as lava_neurons

    module = load_chain(folder, monkeypatch, targets, ("lava.brf_alif",), mutant)
    monkeypatch.setitem(sys.modules, module.__name__, module)  # where Lava looks for models
    for model, process in module.PROCESSES.items():
        monkeypatch.setitem(lava_neurons.PROCESSES, model, process)
    return open_device("lava-stepped")


def test_without_a_mutant_lava_does_not_differ(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fixed_own: list[Any]
) -> None:
    device = lava_with(tmp_path, monkeypatch)
    assert not caught(device, "oracle", fixed_own[:20], overflows=False)


@pytest.mark.parametrize("mutant", mutants("lava_own"), ids=lambda mutant: mutant.what)
def test_mutant_of_our_neurons_in_lava(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fixed_own: list[Any], mutant: Mutant
) -> None:
    device = lava_with(tmp_path, monkeypatch, mutant)
    assert caught(device, "oracle", fixed_own, overflows=False)


GRAPHS = range(6000, 6160)
COMPILER = (("linear_maps", "lowering.nodes", "lowering.lower"), ("reference",))


@pytest.fixture(scope="module")
def by_equations() -> list[Any]:
    """Random graphs that have a meaning, and what NIR's equations make of each."""
    found = []
    for seed in GRAPHS:
        case = random_graphs.graph(seed, random_programs)
        if case.timing == "open":
            continue
        contract = vars(Contract(**case.contract))
        contract = contract | {"delays": [[a, b, int(n)] for (a, b), n in contract["delays"].items()]}
        run = equations.Equations(case.graph, contract, case.inputs)
        found.append(SimpleNamespace(case=case, contract=contract, v=run.v))
    return found


def meant_otherwise(
    folder: Path, monkeypatch: pytest.MonkeyPatch, graphs: list[Any], mutant: Mutant | None = None
) -> str:
    """Return the first population whose membrane is not that of the equations, or the first refusal."""
    lowering, reference = (load_chain(folder, monkeypatch, compiler, parts, mutant) for parts in COMPILER)
    for entry in graphs:
        try:
            network = lowering.lower(entry.case.graph, entry.contract)
        except SnnCompileError as error:
            return f"graph {entry.case.seed}: {error}"
        probes = [f"{p.name}.v" for p in network.populations]
        record = reference.run_reference(network, entry.case.inputs, probes=probes)
        for p in network.populations:
            wanted = entry.v[p.name].reshape(*entry.v[p.name].shape[:2], -1)
            found = record.states(f"{p.name}.v").reshape(wanted.shape)
            if not np.allclose(found, wanted, rtol=1e-12, atol=1e-12 * np.abs(wanted).max()):
                return f"graph {entry.case.seed}, {p.name}"
    return ""


def test_there_are_enough_mutants_of_the_compiler() -> None:
    assert len({mutant.what for mutant in mutants("compiler")}) == len(mutants("compiler")) >= 12


def test_without_a_mutant_the_graphs_mean_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_equations: list[Any]
) -> None:
    assert len(by_equations) > 0.9 * len(GRAPHS)
    assert not meant_otherwise(tmp_path, monkeypatch, by_equations)


@pytest.mark.parametrize("mutant", mutants("compiler"), ids=lambda mutant: mutant.what)
def test_mutant_of_the_compiler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_equations: list[Any], mutant: Mutant
) -> None:
    assert meant_otherwise(tmp_path, monkeypatch, by_equations, mutant)
