"""Fan-in beyond a core becomes stages of relays that change nothing but latency and cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nir
import numpy as np
import pytest
from support.mapping.dense_graphs import dense_graph

from snn_compile.compiler import Options, compile_graph, lower
from snn_compile.compiler.contract.contract import Contract, attach
from snn_compile.compiler.lowering.fan_in import most_sources, relieve_fan_in
from snn_compile.compiler.pipeline import compile_stages
from snn_compile.compiler.reference import run_reference
from snn_compile.targets import Program, WeightTable, execute
from snn_compile.targets.chips.chip import load_chip
from snn_compile.targets.errors import DoesNotFit

NEAREST = Options(rounding="nearest", tables="one", chips="auto")
LOIHI2 = Path(str(load_chip.__globals__["_folder"]())) / "loihi2.toml"


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], str]:
    """Return a function to the path of a Loihi 2 whose cores have so many input axons."""
    folder = tmp_path_factory.mktemp("chips")

    def path(axons: int) -> str:
        file = folder / f"narrow{axons}.toml"
        text = LOIHI2.read_text().replace('name = "loihi2"', f'name = "narrow{axons}"')
        file.write_text(
            text.replace("in_axons = 16000", f"in_axons = {axons}").replace("count = 120", "count = 128")
        )
        return str(file)

    return path


def merged(program: Program) -> Program:
    """Return the program with what relays add up in single tables of their targets."""
    relays = {p.name for p in program.populations if p.model == "graded"}
    kept = [e for e in program.projections if e.target not in relays and e.source not in relays]
    for behind in (e for e in program.projections if e.source in relays):
        (scale,) = behind.tables
        for before in (e for e in program.projections if e.target == behind.source):
            product = sum(
                scale.dense().astype(int) @ (t.dense().astype(int) << t.exponent) for t in before.tables
            )
            steps = int(np.bitwise_or.reduce(product[product != 0], initial=0))
            shift = (steps & -steps).bit_length() - 2 if steps else 0
            whole = product >> shift if shift >= 0 else product << -shift
            table = WeightTable(whole, scale.exponent + shift, 8)
            delay = before.delay_steps + behind.delay_steps + 1
            name = f"{before.name} merged"
            kept.append(replace(before, name=name, target=behind.target, tables=(table,), delay_steps=delay))
    populations = tuple(p for p in program.populations if p.name not in relays)
    return replace(
        program,
        chip="unbounded",
        chip_version=1,
        profile=None,
        chips=1,
        cores=(),
        routes=(),
        populations=populations,
        projections=tuple(kept),
    )


@pytest.mark.parametrize("seed", range(12))
def test_partial_sums_are_the_sum(seed: int, narrow: Callable[[int], str]) -> None:
    rng = np.random.default_rng(seed)
    sizes = [int(n) for n in (*rng.integers(30, 90, 3), rng.integers(3, 12))]
    graph, chip = dense_graph(sizes, seed), narrow(int(rng.integers(16, 29)))
    data = (rng.random((4, 14, sizes[0])) < 0.3).astype(float)
    done = compile_stages(graph, chip, NEAREST, data)
    program = done.program
    assert program is not None and done.added and all("undivided sums" in line for line in done.added)
    limit = load_chip(chip).core_in_axons
    for edge in program.projections:
        assert max(t.nonzero.sum(axis=1).max() >= 0 for t in edge.tables)
        assert max(np.diff(t.nonzero.indptr).max() for t in edge.tables) <= limit
    direct = execute(merged(program), data, "oracle")
    for device in ("oracle", "loihi2-sim", "lava-stepped"):
        found = execute(program, data, device)
        assert np.array_equal(found.outputs, direct.outputs), device
    assert direct.outputs.any()
    lowered = lower(graph)
    relieved = relieve_fan_in(lowered, load_chip(chip), 8)
    one, other = (run_reference(n, data, record=(), probes=()) for n in (lowered, relieved.network))
    assert np.array_equal(one.outputs, other.outputs)


def pooled_graph(seed: int) -> tuple[nir.NIRGraph, tuple[int, int, int]]:
    """Return convolution, neurons, average pool, dense layer and neurons."""
    rng = np.random.default_rng(seed)
    channels, side = int(rng.integers(2, 5)), int(rng.integers(8, 12))
    kernel = (int(rng.integers(2, 4)), int(rng.integers(2, 4)))
    after = channels * (side // kernel[0]) * (side // kernel[1])
    shape = (1, side, side)
    leaky = lambda n: nir.LIF(  # noqa: E731
        tau=np.full(n, 4.0),
        r=np.full(n, 4.0),
        v_leak=np.zeros(n),
        v_threshold=np.ones(n),
        v_reset=np.zeros(n),
    )
    nodes = {
        "input": nir.Input({"input": np.array(shape)}),
        "conv": nir.Conv2d(
            shape[1:], rng.normal(0.2, 0.6, (channels, 1, 3, 3)), 1, 1, 1, 1, np.zeros(channels)
        ),
        "lif1": leaky((channels, side, side)),
        "pool": nir.AvgPool2d(np.array(kernel), np.array(kernel), np.array([0, 0])),
        "flat": nir.Flatten({"input": np.array((channels, side // kernel[0], side // kernel[1]))}, 0, -1),
        "fc": nir.Linear(rng.normal(0.1, 2.0, (6, after)) / np.sqrt(after)),
        "out": leaky(6),
        "output": nir.Output({"output": np.array([6])}),
    }
    graph = nir.NIRGraph(nodes, list(zip(nodes, list(nodes)[1:], strict=False)))
    attach(graph, Contract(dt=1.0, time_unit="step", reset="subtract"))
    return graph, shape


@pytest.mark.parametrize("seed", range(10))
def test_a_pool_that_is_a_stage_spikes_as_one_that_is_folded(seed: int, narrow: Callable[[int], str]) -> None:
    graph, shape = pooled_graph(seed)
    rng = np.random.default_rng(seed)
    data = (rng.random((4, 12, *shape)) < 0.3).astype(float)
    folded = compile_stages(graph, "loihi2", NEAREST, data)
    lowered = folded.network
    (edge,) = (e for e in lowered.projections if e.target == "out")
    staged = compile_stages(graph, narrow(int(np.count_nonzero(edge.weight.sum(axis=0))) - 1), NEAREST, data)
    assert not folded.added and len(staged.added) >= 1 and "pooled spikes are a stage" in staged.added[0]
    assert staged.program is not None and folded.program is not None
    relays = [p for p in staged.program.populations if p.model == "graded"]
    assert relays[0].shape[0] == lowered.population("lif1").shape[0] and len(relays[0].shape) == 3
    assert staged.program.latency_steps > folded.program.latency_steps
    direct = execute(merged(staged.program), data, "oracle")
    for device in ("oracle", "loihi2-sim"):
        found = execute(staged.program, data, device)
        assert np.array_equal(found.outputs, direct.outputs), device
    assert direct.outputs.any()
    kept = execute(folded.program, data, "oracle").outputs
    assert np.mean(kept != direct.outputs) < 0.02


def test_a_chip_of_short_messages_says_what_is_too_much(tmp_path: Path) -> None:
    graph = dense_graph([40, 30, 4], 0)
    data = (np.random.default_rng(0).random((3, 8, 40)) < 0.3).astype(float)
    text = (
        LOIHI2.read_text()
        .replace('name = "loihi2"', 'name = "short"')
        .replace("in_axons = 16000", "in_axons = 20")
    )
    file = tmp_path / "short.toml"
    file.write_text(text.replace("bits_max = 24", "bits_max = 16"))
    with pytest.raises(DoesNotFit, match="in_axons [34][0-9] of 20"):
        compile_graph(graph, str(file), NEAREST, data)


def test_the_bound_is_what_a_core_holds() -> None:
    chip = load_chip("loihi2")
    assert most_sources(chip, 8) == 8569
    assert most_sources(replace(chip, core_in_axons=100), 8) == 100


def test_a_pool_in_a_loop_stays_folded(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, shape = pooled_graph(1)
    (size,) = graph.nodes["out"].output_type["output"]
    width = int(np.prod(shape[1:])) * graph.nodes["conv"].weight.shape[0]
    lowered = lower(graph)
    chip = replace(
        load_chip("loihi2"), memory=replace(load_chip("loihi2").memory, words=100, synapse_words=100)
    )
    (edge,) = (e for e in lowered.projections if e.target == "out")
    back = replace(
        edge,
        name="back",
        source="out",
        target=edge.source,
        weight=np.full((width, size), 0.01),
        delay_steps=1,
    )
    monkeypatch.setattr("snn_compile.compiler.lowering.fan_in.most_sources", lambda *_: 1000)
    looped = replace(lowered, projections=(*lowered.projections, back))
    assert any("pooled" in line for line in relieve_fan_in(lowered, chip, 8).added)
    assert not any("pooled" in line for line in relieve_fan_in(looped, chip, 8).added)
