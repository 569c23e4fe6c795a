"""What is particular to `loihi2-sim`: padded rows, row blocks, threads, event buffers, its cache."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest
from support import comparing, random_programs

from snn_compile.targets.devices.device import execute, open_device
from snn_compile.targets.errors import DeviceError
from snn_compile.targets.loihi2_sim import device as loihi2_sim
from snn_compile.targets.loihi2_sim.device import Loihi2Sim
from snn_compile.targets.loihi2_sim.kernels import LAYOUTS
from snn_compile.targets.program.program import (
    InputPort,
    OutputPort,
    Population,
    Program,
    Projection,
    WeightTable,
)


def dense(sources: int, targets: int, weights: Any, mode: str, **options: Any) -> Program:
    """Return one layer with the given weights."""
    registers = {
        "du": np.array([4095]),
        "dv": np.array([0]),
        "vth": np.array([5000]),
        "bias_mant": np.array([0]),
        "bias_exp": np.array([0]),
        "v_init": np.array([0]),
    }
    table = WeightTable(np.broadcast_to(weights, (targets, sources)), 0, 8, mode, **options)
    return Program(
        "loihi2",
        2,
        (Population("n", (targets,), "lif", registers),),
        (Projection("p", "x", "n", (table,)),),
        (InputPort("x", (sources,)),),
        (OutputPort("y", "n"),),
    )


@pytest.mark.parametrize("mode", ["mixed", "excitatory", "inhibitory"])
@pytest.mark.parametrize("size", [1, 63, 64, 65, 129, 300])
def test_sizes_around_the_padding(size: int, mode: str) -> None:
    rng = np.random.default_rng(size)
    low, high = {"mixed": (-128, 127), "excitatory": (0, 127), "inhibitory": (-127, 0)}[mode]
    program = dense(size, size, rng.integers(low, high + 1, (size, size)) * 2, mode)
    inputs = {"x": rng.integers(0, 2, (2, 6, size))}
    wanted = comparing.run_all(program, inputs, "oracle")
    assert not comparing.first_difference(wanted, comparing.run_all(program, inputs, "loihi2-sim"))


@pytest.mark.parametrize(
    ("mode", "weight"), [("mixed", -256), ("mixed", 254), ("excitatory", 255), ("inhibitory", -255)]
)
@pytest.mark.parametrize("spikes", [1, 2, 3, 7, 8, 9, 10, 16, 17, 200])
def test_sums_of_the_largest_weights(mode: str, weight: int, spikes: int) -> None:
    # Rows are added in blocks of eight and two; whatever the block, nothing may be lost in 16 bits.
    inputs = np.zeros((1, 3, 200), np.int64)
    inputs[0, 0, :spikes] = 1
    record = execute(dense(200, 5, weight, mode), inputs, "loihi2-sim", probes=("n.u",))
    assert record.states("n.u")[0, 1].tolist() == [weight * spikes * 64] * 5


@pytest.mark.parametrize("threads", [None, 1, 2, 3, 8, 50])
def test_threads_change_nothing(threads: int | None) -> None:
    rng = np.random.default_rng(1)
    program = random_programs.case(15).program
    inputs = {port.name: rng.integers(0, 2, (37, 9, port.size)) for port in program.inputs}
    wanted = comparing.run_all(program, inputs, "oracle")
    got = comparing.run_all(program, inputs, "loihi2-sim", threads=threads)
    assert wanted.counts.total_spikes
    assert not comparing.first_difference(wanted, got)


@pytest.mark.parametrize("threads", [0, -1])
def test_no_threads_are_refused(threads: int) -> None:
    with pytest.raises(DeviceError, match=f"{threads} threads; at least one"):
        open_device("loihi2-sim", threads=threads)


def test_runs_do_not_leave_anything_behind() -> None:
    device = Loihi2Sim()
    case = random_programs.case(5)
    first = comparing.run_all(case.program, case.inputs, device)
    other = {name: array[:, ::-1] for name, array in case.inputs.items()}
    assert comparing.first_difference(first, comparing.run_all(case.program, other, device))
    assert not comparing.first_difference(first, comparing.run_all(case.program, case.inputs, device))


def test_recording_less_changes_nothing() -> None:
    for seed in range(20):
        case = random_programs.case(seed)
        full = comparing.run_all(case.program, case.inputs, "loihi2-sim")
        bare = execute(case.program, case.inputs, "loihi2-sim")
        name = case.program.populations[-1].name
        some = execute(case.program, case.inputs, "loihi2-sim", probes=(f"{name}.v", f"{name}.u"))
        assert np.array_equal(bare.outputs, full.outputs)
        assert bare.overflows == full.overflows == some.overflows
        assert bare.counts.synops == full.counts.synops
        assert not bare.spike_events and not bare.state_arrays
        for state in "uv":
            assert np.array_equal(some.states(f"{name}.{state}"), full.states(f"{name}.{state}"))


def test_a_population_without_projections_runs() -> None:
    layer = dense(2, 3, 0, "mixed")
    program = Program("loihi2", 2, layer.populations, (), layer.inputs, layer.outputs)
    inputs = {"x": np.ones((2, 4, 2), np.int64)}
    wanted = comparing.run_all(program, inputs, "oracle")
    assert not comparing.first_difference(wanted, comparing.run_all(program, inputs, "loihi2-sim"))


def test_a_flattened_program_is_kept_as_long_as_the_program() -> None:
    program = dense(2, 3, 2, "mixed")
    execute(program, np.ones((1, 2, 2)), "loihi2-sim")
    assert program in loihi2_sim._flattened
    gc.collect()
    before = len(loihi2_sim._flattened)
    del program
    gc.collect()
    assert len(loihi2_sim._flattened) == before - 1


def test_a_model_without_a_compiled_step_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    case = random_programs.case(3, random_programs.SMALL)
    first = case.program.populations[0]
    monkeypatch.delitem(LAYOUTS, first.model)
    with pytest.raises(DeviceError, match=f"no compiled step for model '{first.model}'; the oracle runs it$"):
        execute(case.program, case.inputs, "loihi2-sim")
