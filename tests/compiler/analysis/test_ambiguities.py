"""Inspecting a file warns where common interpretations differ: exactly where they give another network."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest

from snn_compile.compiler import lower
from snn_compile.compiler.analysis.ambiguities import READERS, differences
from snn_compile.compiler.cli.main import main
from snn_compile.compiler.contract.contract import Contract, attach
from snn_compile.compiler.contract.resolve import resolve
from snn_compile.compiler.frontends.nir import read_nir
from snn_compile.targets.errors import AmbiguousConvention, SnnCompileError

FOLDER = Path(__file__).parents[2] / "data" / "frameworks"
FILES = sorted(FOLDER.glob("*.nir"))


def network(graph: Any, contract: Contract) -> list[Any] | None:
    """Return all of a lowered graph that a run depends on, or None where the reading has no meaning."""
    attach(graph, contract)
    try:
        made = lower(graph)
    except SnnCompileError:
        return None
    finally:
        graph.metadata.clear()
    parts: list[Any] = [(p.name, str(p.rule) if p.spiking else "") for p in made.populations]
    parts += [array for p in made.populations for array in p.parameters.values()]
    return parts + [e.values for e in made.projections]


def same(a: list[Any], b: list[Any]) -> bool:
    """Whether networks are equal to the float32 that files hold."""
    for x, y in zip(a, b, strict=True):
        numbers = isinstance(x, np.ndarray)
        if not (np.allclose(x, y, rtol=1e-6, atol=1e-12) if numbers else x == y):
            return False
    return True


def asked(graph: Any, stated: Mapping[str, Any]) -> tuple[Contract, dict[str, str]]:
    """Resolve a graph, with the exporter's defaults for open items."""
    try:
        return resolve(graph, stated)
    except AmbiguousConvention as error:
        exporter = error.facts["detection"].exporter.split(" or ")[0]
        return resolve(graph, {**stated, "maker": exporter})


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_a_reading_is_warned_of_if_and_only_if_it_makes_another_network(file: Path) -> None:
    graph = read_nir(file)
    contract, decided = asked(graph, {})
    warned = {(d.item, d.other) for d in differences(graph, contract, decided)}
    own = network(graph, contract)
    assert own is not None and warned
    for item, interpretations in READERS.items():
        for other in interpretations:
            if other == str(getattr(contract, item)):
                assert (item, other) not in warned
                continue
            value: Any = 0.0 if (item, other) == ("v_init", "0.0") else other
            nodes = {
                name: {k: v for k, v in items.items() if k != item} for name, items in contract.nodes.items()
            }
            made = network(graph, replace(contract, nodes=nodes, **{item: value}))
            if made is not None:  # else the network as a whole has no such reading, though single nodes have
                assert ((item, other) in warned) == (not same(made, own)), (item, other)


def test_what_the_file_or_the_user_says_is_not_warned_of(build: Any) -> None:
    graph = build.chain(3, build.lif(3))
    assert differences(graph, *resolve(graph)) == []
    graph.metadata.clear()
    stated = {"dt": 1, "rule": "euler", "reset": "value", "reset_timing": "same_step", "comparison": ">"}
    found = differences(graph, *resolve(graph, stated))
    assert {d.item for d in found} == {"gain", "spikes_per_step"}
    gain = next(d for d in found if d.other == "unit")
    assert gain.changes == "n0 (the input's gain by up to 0.625)"  # 1 - r dt/tau = 1 - 1.5/4
    assert (
        "--convention gain=unit" in gain.text() and "default" in gain.text() and "norm_input" in gain.text()
    )


def test_the_command_warns(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(FOLDER / "norse-cuba.nir")]) == 0
    out = capsys.readouterr().out
    assert "warning: rule is euler (detected (norse)); exponential, which rockpool, sinabs mean" in out
    assert "assumed dt=1e-06 (the default of norse; the file does not hold it): --convention dt=" in out
    assert main(["inspect", str(FOLDER / "norse-cuba.nir"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {d["item"] for d in found["differences"]} >= {"rule", "comparison", "reset"}
    assert found["assumed"] == {"dt": 1e-6, "v_reset": 0.0} and len(found["assumptions"]) == 2
    assert main(["inspect", str(FOLDER / "snntorch-leaky-subtract.nir")]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "assumed reset=subtract (the default of snntorch; the file does not hold it): " in out
    assert main(["inspect", str(FOLDER / "snntorch-leaky-subtract.nir"), "--strict"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "Open: the file does not state" in out and "subtract (rockpool, sinabs, snntorch, spyx)" in out


def test_float32_is_no_difference_and_a_shell_reads_the_flag(build: Any) -> None:
    tau = np.full(2, 2e-3, np.float32)
    cell = nir.LIF(tau, tau / np.float32(1e-4), np.zeros(2), np.ones(2), np.zeros(2))
    graph = build.chain(2, cell)
    graph.metadata.clear()
    found = differences(graph, *resolve(graph, {"maker": "snntorch"}))
    assert {d.other for d in found if d.item == "gain"} == {"norm", "decayed"}
    assert any("--convention 'comparison=>='" in d.text() for d in found)


def test_a_program_is_described(tmp_path: Path, build: Any, rng: np.random.Generator, capsys: Any) -> None:
    from snn_compile.targets.program.file import load_program

    graph = build.chain(3, build.linear(rng, 2, 3), build.lif(2))
    nir.write(tmp_path / "a.nir", graph)
    assert main([str(tmp_path / "a.nir"), "-o", str(tmp_path / "a.snn")]) == 0
    (tmp_path / "named_otherwise").write_bytes((tmp_path / "a.snn").read_bytes())
    program = load_program(tmp_path / "a.snn")
    for name in ("a.snn", "named_otherwise"):
        capsys.readouterr()
        assert main(["inspect", str(tmp_path / name)]) == 0
        out = capsys.readouterr().out
        assert program.describe() in out and program.digest()[:12] in out
        assert "reset_timing" in out and "metadata" in out
        assert main(["inspect", str(tmp_path / name), "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["description"] == program.describe()
        assert found["program"]["digest"] == program.digest()
        assert found["contract"]["dt"] == {"value": 1.0, "decided": "metadata"}
    (tmp_path / "a.snn").write_bytes((tmp_path / "a.snn").read_bytes()[:300])
    assert main(["inspect", str(tmp_path / "a.snn")]) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and str(tmp_path / "a.snn") in err
