"""PilotNet as a LIF network: lava-dl's recorded spikes and membranes, layer by layer and all together.

`network.net` and the recordings are of lava-dl's netx tests (BSD-3-Clause); they stand beside the checkout,
in ../shared/data, and without them these tests are skipped; test_netx.py does the same with its own files.
A sample is 17 steps. Layer k receives the output of layer k - 1 one step later, so its recorded column c is
its logical step c - k - 1 of the sample that input column 0 begins.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from snn_compile.compiler.contract.contract import Contract
from snn_compile.compiler.frontends.netx import read_netx
from snn_compile.compiler.lowering.retime import retime
from snn_compile.compiler.network import Network, Port
from snn_compile.compiler.pipeline import compile_graph
from snn_compile.compiler.quantization.quantize import quantize
from snn_compile.targets.chips.chip import load_chip
from snn_compile.targets.devices.device import execute
from snn_compile.targets.program.program import Program

DATA = Path(__file__).resolve().parents[4] / "shared" / "data" / "netx-pilotnet-lif"
pytestmark = pytest.mark.skipif(
    not DATA.is_dir(), reason="no ../shared/data/netx-pilotnet-lif beside the checkout"
)
RECORDED = ["input", *(f"conv-{k}" for k in range(5)), *(f"fc-{k}" for k in range(3))]
COLUMNS, SAMPLE = 24, 17


@pytest.fixture(scope="module")
def network() -> Network:
    return read_netx(DATA / "network.net")


def recorded(name: str) -> np.ndarray:
    """Return a recording as (columns, channels, height, width) or (columns, neurons)."""
    return np.load(DATA / f"{name}.npz")["a"].T


def part(network: Network, first: str, last: str) -> Network:
    """Return the populations from `first` to `last`, with the spikes before them as input."""
    names = [p.name for p in network.populations]
    kept = names[names.index(first) : names.index(last) + 1]
    entry = next(e for e in network.projections if e.target == first)
    source = next(p for p in network.nodes if p.name == entry.source)
    edges = [
        replace(e, source="spikes") if e is entry else e for e in network.projections if e.target in kept
    ]
    return Network(
        tuple(p for p in network.populations if p.name in kept),
        tuple(edges),
        (Port("spikes", source.shape),),
        (Port("output", network.population(last).shape, last),),
        Contract(dt=1.0),
    )


def integers(network: Network) -> Program:
    """Return the program without cores: the integers alone."""
    chip = load_chip("loihi2-sim")
    made = quantize(retime(network, chip.delay_max), chip)
    assert not any(error.max_lsb for error in made.errors)
    return Program(chip.name, chip.version, made.populations, made.projections, made.inputs, made.outputs)


def samples(first_column: int) -> Iterator[tuple[int, int]]:
    """Yield the first and last-but-one columns of samples in a recording, as far as it goes."""
    for start in range(first_column, COLUMNS, SAMPLE):
        yield start, min(start + SAMPLE, COLUMNS)


@pytest.mark.parametrize("layer", range(1, len(RECORDED)))
def test_each_layer_gives_its_recording_from_the_one_before(network: Network, layer: int) -> None:
    name = network.populations[layer].name
    program = integers(part(network, name, name))
    before, wanted = recorded(RECORDED[layer - 1]), recorded(RECORDED[layer])
    compared = 0
    for start, stop in samples(layer - 1):
        record = execute(program, before[None, start:stop], record=[name], probes=[f"{name}.v"])
        # What the last column sends arrives in one that was not recorded.
        steps = min(stop + 1, COLUMNS) - start - 1
        spikes = record.spikes(name)[0, :steps]
        assert np.array_equal(spikes, wanted[start + 1 : start + 1 + steps].reshape(spikes.shape))
        if RECORDED[layer] == "conv-4":
            v = recorded("conv-4-v")[start + 1 : start + 1 + steps]
            silent = spikes == 0
            assert np.array_equal(record.states(f"{name}.v")[0, :steps][silent], v[silent])
            assert (v[~silent] == 128).all()
        compared += steps
    assert compared == COLUMNS - layer and wanted[layer:].any()


def test_the_whole_network_gives_every_recording_from_the_input(network: Network) -> None:
    names = [p.name for p in network.populations]
    program = integers(part(network, names[1], names[-1]))
    assert program.latency_steps == len(names) - 1
    data = recorded("input")
    compared = dict.fromkeys(RECORDED[1:], 0)
    for start, stop in samples(0):
        record = execute(program, data[None, start:stop], record=names[1 : len(RECORDED)])
        assert not any(record.overflows.values())
        for layer, name in enumerate(names[1 : len(RECORDED)], 1):
            first = start + layer
            spikes = record.spikes(name)[0, : max(min(stop - start, COLUMNS - first), 0)]
            wanted = recorded(RECORDED[layer])[first : first + len(spikes)]
            assert np.array_equal(spikes, wanted.reshape(spikes.shape)), (name, start)
            compared[RECORDED[layer]] += len(spikes)
    assert compared == {name: COLUMNS - layer for layer, name in enumerate(RECORDED[1:], 1)}


def test_the_network_fits_one_chip_and_mapping_changes_nothing(network: Network) -> None:
    assert [p.shape for p in network.populations[:3]] == [(3, 66, 200), (24, 32, 99), (36, 15, 49)]
    assert (network.outputs[0].readout.signal, network.outputs[0].readout.task) == ("membrane", "regress")
    program = compile_graph(network)
    # Intel's compiler takes 74 cores.
    assert len(program.cores) <= 66
    assert replace(program, cores=(), routes=(), provenance={}).digest() == integers(network).digest()
