"""One-line mistakes planted in devices and compiler: comparing random programs or graphs must see every one.

A mutant is a device loaded again from its source with one expression or statement replaced. Mutants of the
oracle are compared with `loihi2-sim`, mutants of `loihi2-sim` with the oracle; mutants of what lowers graphs
and runs them in float64 are compared with NIR's equations on random graphs. The kernels of mutants run as
plain Python (numpy's 32-bit scalars wrap as the compiled ones do), which a first test shows to be equal.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conformance import equations
from support import comparing, random_graphs, random_programs
from support.planting import Mutant, loaded_again, read_mutants

from snn_compile.compiler.contract.contract import Contract
from snn_compile.targets.errors import SnnCompileError
from snn_compile.targets.loihi2_sim.device import Loihi2Sim
from snn_compile.targets.oracle.device import Oracle

HERE = Path(__file__).parent / "mutants"
SEEDS, OTHER_SEEDS, CUSTOM_SEEDS = range(5000, 5060), range(6000, 6050), range(7000, 7060)
LIQUID_SEEDS = range(8000, 8060)
GROUPS = {
    "oracle": ("targets.integer", "targets.oracle"),
    "loihi2-sim": ("targets.loihi2_sim",),
    "lava": ("targets.lava",),
    "compiler": tuple(
        f"compiler.{part}" for part in ("linear_maps", "lowering", "neurons", "network", "reference")
    ),
}
"""The modules and rooms that are made from their source again, for mutants of each."""
DEVICES = ("oracle", "loihi2-sim")


def mutants(name: str) -> list[Mutant]:
    """Read tests/mutants/<name>.txt."""
    return read_mutants(HERE / f"{name}.txt")


@contextmanager
def device_with(name: str, mutant: Mutant | None = None) -> Iterator[Any]:
    """Open a device made anew from its source with a mistake in it; its kernels stay uncompiled."""
    plain = ModuleType("numba")
    plain.njit = lambda **_: lambda function: function  # type: ignore[attr-defined]
    with loaded_again(GROUPS[name], mutant):
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(sys.modules, "numba", plain)
            if name == "oracle":
                device: Any = import_module("snn_compile.targets.oracle.device").Oracle()
            elif name == "loihi2-sim":
                module = import_module("snn_compile.targets.loihi2_sim.device")
                module.EVENT_BUFFER = 60
                device = module.Loihi2Sim(threads=2)
            else:
                device = import_module("snn_compile.targets.lava.stepped").LavaStepped()
        yield device


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
        records = {name: comparing.run_all(case.program, case.inputs, name) for name in DEVICES}
        found.append(SimpleNamespace(case=case, records=records))
    return found


@pytest.fixture(scope="module")
def fixed_custom() -> list[Any]:
    """As `fixed`, of programs with balanced resonators and adaptive leaky neurons."""
    cases = [random_programs.case(seed, random_programs.SHORT_CUSTOM) for seed in CUSTOM_SEEDS]
    found = []
    for case in (random_programs.custom_ties(), *cases):
        records = {name: comparing.run_all(case.program, case.inputs, name) for name in DEVICES}
        found.append(SimpleNamespace(case=case, records=records))
    return found


@pytest.fixture(scope="module")
def fixed_liquid() -> list[Any]:
    """As `fixed`, of programs with liquid neurons."""
    cases = [random_programs.case(seed, random_programs.SHORT_LIQUID) for seed in LIQUID_SEEDS]
    found = []
    for case in (random_programs.liquid_ties(), *cases):
        records = {name: comparing.run_all(case.program, case.inputs, name) for name in DEVICES}
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


@pytest.mark.parametrize(
    "name",
    [*DEVICES, *(f"{name}_liquid" for name in DEVICES), *(f"{name}_custom" for name in (*DEVICES, "lava"))],
)
def test_there_are_enough_mutants(name: str) -> None:
    kinds = {mutant.what for mutant in mutants(name)}
    assert len(kinds) == len(mutants(name)) >= 12


@pytest.mark.parametrize("name", DEVICES)
def test_without_a_mutant_nothing_differs(
    fixed: list[Any], fixed_custom: list[Any], fixed_liquid: list[Any], name: str
) -> None:
    with device_with(name) as device:
        assert not isinstance(device, (Oracle, Loihi2Sim))
        for entry in [*fixed, *fixed_custom, *fixed_liquid]:
            record = ran(device, entry)
            for other in DEVICES:
                assert not comparing.first_difference(entry.records[other], record)


PLANTED = [
    pytest.param(device, other, kind, mutant, id=f"{device}{kind}-{mutant.what}")
    for device, other in (("oracle", "loihi2-sim"), ("loihi2-sim", "oracle"))
    for kind in ("", "_custom", "_liquid")
    for mutant in mutants(device + kind)
]
"""Mutants of a device, what it is compared with, and the programs that show them."""


@pytest.mark.parametrize(("name", "other", "kind", "mutant"), PLANTED)
def test_a_mutant_is_caught(
    request: pytest.FixtureRequest, name: str, other: str, kind: str, mutant: Mutant
) -> None:
    programs = request.getfixturevalue(f"fixed{kind}")
    with device_with(name, mutant) as device:
        assert caught(device, other, programs)


@contextmanager
def lava_with(mutant: Mutant | None = None) -> Iterator[Any]:
    """Open lava-stepped, on which all models but the leaky ones run in the process of custom models."""
    pytest.importorskip("lava.magma")
    with device_with("lava", mutant) as device:
        # Made anew, so that nobody else sees it: the other models have several ports and send numbers.
        import_module("snn_compile.targets.lava.stock").PROCESSES.clear()
        yield device


def test_without_a_mutant_lava_does_not_differ(fixed: list[Any], fixed_custom: list[Any]) -> None:
    with lava_with() as device:
        assert not caught(device, "oracle", [*fixed_custom[:20], *fixed[:40]], overflows=False)


@pytest.mark.parametrize("mutant", mutants("lava_custom"), ids=lambda mutant: mutant.what)
def test_mutant_of_the_process_of_custom_models(
    fixed: list[Any], fixed_custom: list[Any], mutant: Mutant
) -> None:
    with lava_with(mutant) as device:
        assert caught(device, "oracle", [*fixed_custom, *fixed], overflows=False)


GRAPHS = range(6000, 6160)


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


def meant_otherwise(graphs: list[Any], mutant: Mutant | None = None) -> str:
    """Return the first population whose membrane is not that of the equations, or the first refusal."""
    with loaded_again(GROUPS["compiler"], mutant):
        lowering = import_module("snn_compile.compiler.lowering.lower")
        reference = import_module("snn_compile.compiler.reference")
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


def test_without_a_mutant_the_graphs_mean_the_same(by_equations: list[Any]) -> None:
    assert len(by_equations) > 0.9 * len(GRAPHS)
    assert not meant_otherwise(by_equations)


@pytest.mark.parametrize("mutant", mutants("compiler"), ids=lambda mutant: mutant.what)
def test_mutant_of_the_compiler(by_equations: list[Any], mutant: Mutant) -> None:
    assert meant_otherwise(by_equations, mutant)
