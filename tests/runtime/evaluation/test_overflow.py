"""States that leave their range are a warning at the top, with the step from which on they do."""

from __future__ import annotations

import nir
import numpy as np
import pytest

from snn_compile.compiler import compile_graph, lower
from snn_compile.compiler.contract.contract import Contract, attach
from snn_compile.runtime import compare, simulate
from snn_compile.runtime.cli import main


def integrator() -> nir.NIRGraph:
    """One integrator without a leak: its membrane grows by 1 per spike."""
    nodes = {
        "input": nir.Input({"input": np.array([1])}),
        "w": nir.Linear(np.ones((1, 1))),
        "sum": nir.I(np.ones(1)),
        "output": nir.Output({"output": np.array([1])}),
    }
    graph = nir.NIRGraph(nodes, [("input", "w"), ("w", "sum"), ("sum", "output")])
    attach(graph, Contract(dt=1.0))
    return graph


@pytest.mark.parametrize("length", [10, 37])
def test_an_integrator_of_a_long_run_warns_from_the_step_on(length, tmp_path, capsys):
    program = compile_graph(integrator(), calibration=np.ones((2, length, 1)))
    inputs = np.ones((3, 8 * length, 1))
    reported = compare(program, lower(integrator()), inputs)
    (step,) = reported.onsets.values()
    states = simulate(program, inputs, probes=("sum.v",)).states("sum.v")[0, :, 0].astype(int)
    top = program.formats.state_max
    assert states[step] == top and (states[:step] < top).all()
    (line,) = reported.warnings()
    for words in ("'sum'", f"from step {step} on", "--calibrate"):
        assert words in line
    text, page = reported.text(10_000), reported.html()
    assert text.splitlines()[1].startswith("warning: population 'sum'")
    assert page.index("warning: population") < page.index("<table>")
    assert reported.json()["overflow_onsets"] == {"sum": step}
    program.save(tmp_path / "sum.snn")
    np.savez(tmp_path / "long.npz", inputs=inputs)
    assert main([str(tmp_path / "sum.snn"), "--data", str(tmp_path / "long.npz")]) == 0
    assert f"snn-run: warning: {line}" in capsys.readouterr().err


def test_a_run_within_range_warns_of_nothing():
    program = compile_graph(integrator(), calibration=np.ones((2, 10, 1)))
    reported = compare(program, lower(integrator()), np.ones((3, 10, 1)))
    assert reported.warnings() == [] and reported.onsets == {}
