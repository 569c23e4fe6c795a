"""Files of SANA-FE: its package, where it is installed, spikes and prices as the program does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nir
import numpy as np
import pytest

from snn_compile.compiler import Options, compile_graph
from snn_compile.compiler.contract.contract import Contract, attach
from snn_compile.runtime.execution.core_counters import count_cores
from snn_compile.runtime.reports.sanafe_files import FILES, write_sanafe
from snn_compile.targets import Program, execute
from snn_compile.targets.chips.chip import load_chip
from snn_compile.targets.costs.published import sanafe_costs
from snn_compile.targets.devices.record import RunRecord
from snn_compile.targets.errors import WrongInput


def drawn(seed: int) -> tuple[Program, np.ndarray]:
    """Return a program of dense layers, in half of the cases one of them recurrent, and one sample."""
    rng = np.random.default_rng(seed)
    sizes = [int(n) for n in rng.integers(4, 30, 4)]
    nodes: dict[str, nir.NIRNode] = {"input": nir.Input({"input": np.array(sizes[:1])})}
    names = ["input"]
    for number, (before, after) in enumerate(zip(sizes, sizes[1:], strict=False)):
        weight = rng.normal(0.3, 1.0, (after, before)) * 2 / np.sqrt(before)
        one = np.ones(after)
        tau = rng.uniform(2, 8, after) if rng.random() < 0.7 else np.full(after, 4.0)
        nodes[f"fc{number}"] = nir.Affine(weight, rng.normal(0, 0.1, after))
        nodes[f"n{number}"] = nir.LIF(tau=tau, r=tau, v_leak=0 * one, v_threshold=one, v_reset=0 * one)
        names += [f"fc{number}", f"n{number}"]
    nodes["output"] = nir.Output({"output": np.array(sizes[-1:])})
    edges = list(zip([*names, "output"], [*names[1:], "output"], strict=False))[: len(names)]
    edges[-1] = (names[-1], "output")
    delays = {}
    if rng.random() < 0.5:
        nodes["back"] = nir.Linear(rng.normal(0, 0.3, (sizes[1], sizes[1])))
        edges += [("n0", "back"), ("back", "n0")]
        delays = {("back", "n0"): 1}
    graph = nir.NIRGraph(nodes, edges)
    reset = str(rng.choice(["subtract", "value", "none"]))
    attach(graph, Contract(dt=1.0, time_unit="step", reset=reset, delays=delays))
    data = (rng.random((1, 25, sizes[0])) < 0.3).astype(float)
    return compile_graph(graph, options=Options(rounding="nearest", tables="one"), calibration=data), data


@pytest.mark.parametrize("seed", range(3))
def test_files_hold_every_neuron_synapse_and_place(seed: int, tmp_path: Path) -> None:
    program, data = drawn(seed)
    write_sanafe(program, data, tmp_path)
    text = (tmp_path / FILES[1]).read_text()
    synapses = sum(t.nonzero.nnz for e in program.projections for t in e.tables)
    biases = [np.broadcast_to(p.bias, (p.size,)) for p in program.populations]
    synapses += sum(int(np.count_nonzero(b)) for b in biases)
    neurons = sum(node.size for node in program.nodes) + sum(bool(b.any()) for b in biases)
    assert text.count(" -> ") == synapses and text.count("core: ") == neurons
    assert (tmp_path / FILES[0]).read_text().count("tile") >= 1


@pytest.mark.parametrize("seed", range(12))
def test_sanafe_spikes_as_the_program(seed: int, tmp_path: Path) -> None:
    sanafe = pytest.importorskip("sanafe", reason="SANA-FE is not installed: pip install sanafe")
    program, data = drawn(seed)
    write_sanafe(program, data, tmp_path)
    arch = sanafe.load_arch(str(tmp_path / FILES[0]))
    chip = sanafe.SpikingChip(arch)
    chip.load(sanafe.load_net(str(tmp_path / FILES[1]), arch))
    steps = program.device_steps(data.shape[1])
    found = chip.sim(steps, timing_model="simple", spike_trace=True, perf_trace=True)
    names = {f"g{number}": node for number, node in enumerate(program.nodes)}
    record = execute(
        program,
        data,
        "oracle",
        record=[p.name for p in program.populations],
        probes=[f"{p.name}.v" for p in program.populations],
    )
    sent = {name: np.zeros((steps, node.size), bool) for name, node in names.items()}
    for step, spikes in enumerate(found["spike_trace"]):
        for spike in spikes:
            group, _, neuron = str(spike).partition(".")
            sent[group][step, int(neuron)] = True
    for group, node in names.items():
        if node in program.inputs:
            continue
        wanted = record.spikes(node.name)[0].reshape(data.shape[1], -1)
        start = node.start_step
        assert np.array_equal(sent[group][start : start + data.shape[1]], wanted), node.name
    assert sum(array.sum() for array in sent.values())


def layer(seed: int, folder: Path) -> tuple[Program, np.ndarray]:
    """Return a layer without bias that sends to itself, on a chip of small cores, and data of one sample."""
    rng = np.random.default_rng(seed)
    before, size = int(rng.integers(5, 20)), int(rng.integers(20, 60))
    one, tau = np.ones(size), rng.uniform(1.5, 8, size)
    nodes = {
        "input": nir.Input({"input": np.array([before])}),
        "fc": nir.Linear(rng.normal(0.3, 1.0, (size, before)) * 2 / np.sqrt(before)),
        "n": nir.LIF(tau=tau, r=tau, v_leak=0 * one, v_threshold=one, v_reset=0 * one),
        "back": nir.Linear(rng.normal(0, 0.3, (size, size))),
        "output": nir.Output({"output": np.array([size])}),
    }
    edges = [("input", "fc"), ("fc", "n"), ("n", "back"), ("back", "n"), ("n", "output")]
    graph = nir.NIRGraph(nodes, edges)
    reset = str(rng.choice(["subtract", "value"]))
    attach(graph, Contract(dt=1.0, time_unit="step", reset=reset, delays={("back", "n"): 1}))
    loihi2 = Path(str(load_chip.__globals__["_folder"]())) / "loihi2.toml"
    text = loihi2.read_text().replace('name = "loihi2"', 'name = "small"')
    text = text.replace("neurons = 4095", f"neurons = {int(rng.integers(2, 9))}")
    (folder / "small.toml").write_text(text)
    data = (rng.random((1, 20, before)) < 0.3).astype(float)
    options = Options(rounding="nearest", tables="one")
    return compile_graph(graph, str(folder / "small.toml"), options, data), data


@pytest.mark.parametrize("seed", range(8))
def test_sanafe_prices_what_the_program_counts(seed: int, tmp_path: Path) -> None:
    sanafe = pytest.importorskip("sanafe", reason="SANA-FE is not installed: pip install sanafe")
    program, data = layer(seed, tmp_path)
    write_sanafe(program, data, tmp_path)
    arch = sanafe.load_arch(str(tmp_path / FILES[0]))
    chip = sanafe.SpikingChip(arch)
    chip.load(sanafe.load_net(str(tmp_path / FILES[1]), arch))
    steps = program.device_steps(data.shape[1])
    found = chip.sim(steps, timing_model="simple")["energy"]
    record = execute(program, data, "oracle", record=("n",), probes=("n.v",))
    counted = {name: int(array.sum()) for name, array in count_cores(program, data).values.items()}
    costs, size = sanafe_costs(), program.size("n")
    pj = {key: getattr(costs, key)[0] for key in vars(costs) if key.endswith("_pj")}
    # SANA-FE updates a neuron with input, and one whose membrane is not 0.
    v = record.states("n.v")[0].reshape(data.shape[1], -1)
    before = np.vstack([np.zeros((1, size), v.dtype), v[:-1]])
    active = _reached(program, data, record)
    updates = int((active | (before != 0)).sum())
    soma = size * steps * pj["neuron_access_pj"] + updates * pj["neuron_update_pj"]
    soma += counted["spikes"] * pj["spike_pj"]
    assert found["soma"] == pytest.approx(soma * 1e-12, rel=1e-9)
    assert found["synapse"] == pytest.approx(counted["synops"] * pj["synapse_dense_pj"] * 1e-12, rel=1e-9)
    host = sum(
        int(data[0].sum(axis=0)[route.start : route.stop].sum())
        * _host_hops(program, program.cores[core].tile, pj)
        for route in program.routes
        if route.core < 0
        for core in route.destinations
    )
    network = counted["messages_out"] * pj["message_out_pj"] + host
    network += counted["hops_east_west"] * pj["hop_east_west_pj"]
    network += counted["hops_north_south"] * pj["hop_north_south_pj"]
    assert found["network"] == pytest.approx(network * 1e-12, rel=1e-9)


def _host_hops(program: Program, tile: tuple[int, int], pj: dict[str, float]) -> float:
    """Return what a message of the host costs on its way over tiles of the chip."""
    across = program.target.grid[0] - tile[0]
    return across * pj["hop_east_west_pj"] + tile[1] * pj["hop_north_south_pj"]


def _reached(program: Program, data: np.ndarray, record: RunRecord) -> np.ndarray:
    """Return which neurons get input in which step, (steps, neurons)."""
    inputs, back = (
        next(e for e in program.projections if e.source == name).tables[0].nonzero.toarray() != 0
        for name in ("input", "n")
    )
    spikes = record.spikes("n")[0].reshape(data.shape[1], -1)
    late = np.vstack([np.zeros((1, spikes.shape[1]), bool), spikes[:-1] != 0])
    return ((data[0] != 0).astype(int) @ inputs.T + late.astype(int) @ back.T) > 0


def test_what_sanafe_has_not_is_named(tmp_path: Path) -> None:
    program, data = drawn(0)
    for changed, why in (
        (replace(program, cores=(), routes=()), "not mapped onto one chip"),
        (
            replace(program, inputs=(replace(program.inputs[0], kind="graded", bits=4),)),
            "input 'input' is graded",
        ),
    ):
        with pytest.raises(WrongInput, match=why):
            write_sanafe(changed, data, tmp_path)
    assert not list(tmp_path.iterdir())
