"""`--mapper vendor` against what Intel's compiler printed: rows of PilotNet LIF and of an MNIST network."""

from __future__ import annotations

import json
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_array

from snn_compile.compiler import QuantizedNetwork, lower
from snn_compile.compiler.linear_maps import convolution_map
from snn_compile.compiler.lowering.retime import retime
from snn_compile.compiler.mapping.blocks import Block
from snn_compile.compiler.mapping.core_memory import CoreMemory
from snn_compile.compiler.mapping.partition import partition
from snn_compile.compiler.mapping.vendor import vendor_blocks
from snn_compile.compiler.quantization.quantize import quantize
from snn_compile.targets import InputPort, OutputPort, Population, Projection, WeightTable, load_chip
from snn_compile.targets.errors import DoesNotFit

CHIP = load_chip("loihi2")
DATA = Path(__file__).parents[4] / "shared/data"
RECORDS = DATA / "loihi2-records/records.json"
needs_records = pytest.mark.skipif(not RECORDS.is_file(), reason="Intel's printed rows are not there")

Row = dict[str, float]


def rows(network: QuantizedNetwork) -> Iterator[tuple[list[Block], Row]]:
    """Yield the blocks of each population and the mean of what they use."""
    memory = CoreMemory(network, CHIP, dense=True)
    for population in network.populations:
        blocks = vendor_blocks(population.name, population.shape, memory, CHIP)
        used = [memory.alone(block) for block in blocks]
        yield blocks, {key: float(np.mean([use[key] for use in used])) for key in used[0]}


def population(name: str, shape: tuple[int, ...]) -> Population:
    registers = {"du": 4095, "dv": 1000, "vth": 90, "bias_mant": 0, "bias_exp": 0, "v_init": 0}
    return Population(name, shape, "lif", {k: np.array([v]) for k, v in registers.items()}, start_step=1)


def chained(shapes: list[tuple[int, ...]], tables: list[WeightTable]) -> QuantizedNetwork:
    names = ["in", *(f"p{i}" for i in range(len(tables)))]
    return QuantizedNetwork(
        tuple(population(n, s) for n, s in zip(names[1:], shapes[1:], strict=True)),
        tuple(Projection(f"{a}-{b}", a, b, (t,)) for a, b, t in zip(names, names[1:], tables, strict=False)),
        (InputPort("in", shapes[0]),),
        (OutputPort("out", names[-1]),),
        (),
        (),
    )


def dense(sizes: list[int], largest: int = 254) -> QuantizedNetwork:
    rng = np.random.default_rng(0)
    tables = []
    for n, m in zip(sizes, sizes[1:], strict=False):
        weights = rng.integers(-largest // 2, largest // 2 + 1, (m, n)) * 2
        weights[0, 0] = largest
        tables.append(WeightTable(weights))
    return chained([(n,) for n in sizes], tables)


@needs_records
def test_pilotnet_takes_the_printed_cores_row_by_row() -> None:
    printed = json.loads(RECORDS.read_text())["pilotnet_snn"]
    network = quantize(retime(lower(DATA / "netx-pilotnet-lif/network.net"), CHIP.delay_max), CHIP)
    for (blocks, mean), row in zip(rows(network), reversed(printed["per_core"]), strict=True):
        in_axons, _, neurons, words, out_axons, _, cores, tile = row
        name = blocks[0].population
        assert len(blocks) == cores, name
        if tile:
            (_, channels), (_, height), (_, width) = blocks[0].ranges
            assert f"Conv({width}, {height}, {channels})" == tile
        assert (blocks[0].size if tile else int(mean["neurons"])) == neurons, name
        assert int(mean["out_axons"]) == out_axons, name
        assert mean["in_axons"] == in_axons, name
        # The image enters by a projection of ours, one word per channel and phase, which is not in the print.
        assert int(mean["synapse_words"]) == (words if name != "input0" else 6), name
    assert len(partition(network, CHIP, "vendor").cores) == printed["cores"] == 74


@needs_records
def test_mnist_takes_the_printed_cores() -> None:
    """The weights are not public, so 8-bit ones stand for them; words then come within 35 %."""
    printed = json.loads(RECORDS.read_text())["mnist"]
    most = {"in_axons": 16000, "neurons": 4095, "synapse_words": 12000}
    columns = dict(
        zip(printed["columns_percent_of_cap"], zip(*printed["per_core"], strict=True), strict=True)
    )
    found = list(rows(dense([784, 128, 64, 10])))[::-1]
    assert [len(blocks) for blocks, _ in found] == [row[-1] for row in printed["per_core"]] == [1, 1, 3]
    assert sum(len(blocks) for blocks, _ in found) == printed["cores"] == 5
    for (blocks, mean), axons, words in zip(found, columns["axons_in"], columns["synapses"], strict=True):
        assert mean["in_axons"] == pytest.approx(axons / 100 * most["in_axons"], rel=0.01)
        assert mean["synapse_words"] == pytest.approx(words / 100 * most["synapse_words"], rel=0.35)
        assert mean["neurons"] <= blocks[0].size


@pytest.mark.parametrize(("targets", "words"), [(200, 63), (256, 81), (50, 16), (10, 4), (1, 1)])
def test_a_dense_row_is_in_whole_words(targets: int, words: int) -> None:
    """Weights of 8 bits; the first two lengths were printed for other networks."""
    blocks, mean = next(rows(dense([3, targets])))
    assert (len(blocks), mean["synapse_words"]) == (1, 3 * words)


def test_what_is_sparse_stays_sparse() -> None:
    """A layer with one synapse per neuron takes a word per neuron, not a matrix."""
    table = WeightTable(csr_array(2 * np.eye(3000, dtype=np.int16)))
    blocks, mean = next(rows(chained([(3000,), (3000,)], [table])))
    assert (len(blocks), mean["synapse_words"], mean["in_axons"]) == (1, 3000, 3000)


def convolution(shape: tuple[int, int, int], channels: int, size: int, stride: int) -> Any:
    kernel = np.random.default_rng(0).integers(1, 128, (channels, shape[0], size, size)) * 2.0
    made = convolution_map(kernel, shape, (stride, stride), (0, 0), (1, 1), 1, None, "conv")
    return WeightTable(csr_array(made.weight).astype(np.int16)), tuple(int(n) for n in made.shape)


@pytest.mark.parametrize(("stride", "width"), [(1, 32), (2, 32)])
def test_a_convolution_is_cut_into_strips_that_share_its_kernel(stride: int, width: int) -> None:
    shape = (2, 18 * stride, 130)
    table, target = convolution(shape, 6, 3, stride)
    blocks, mean = next(rows(chained([shape, target], [table])))
    assert prod(target[:2]) * width <= CHIP.core_neurons < prod(target[:2]) * width * 2
    assert blocks[0].ranges == ((0, 6), (0, target[1]), (0, width))
    # 9 taps, 2 channels, 6 weights of 8 bits and a head of 8 in one word, and one more.
    assert (mean["synapse_words"], mean["in_axons"]) == (9 * 2 * 2, stride)


def test_a_layer_that_cannot_be_halved_enough_is_refused() -> None:
    with pytest.raises(DoesNotFit, match="one neuron of 'p0' exceeds a core of .*: synapse_words 20000 of"):
        partition(dense([20000, 3]), CHIP, "vendor")


def test_a_source_without_a_synapse_takes_no_row_and_no_axon() -> None:
    weights = np.zeros((6, 20_000), np.int8)
    weights[:, ::40] = 4
    table = WeightTable(weights, bits=8)
    assert not table.sparse
    values = {"du": 4095, "dv": 0, "vth": 90, "bias_mant": 0, "bias_exp": 0, "v_init": 0}
    neurons = Population("p", (6,), "lif", {key: np.array([value]) for key, value in values.items()})
    network = QuantizedNetwork(
        (neurons,),
        (Projection("in-p", "in", "p", (table,)),),
        (InputPort("in", (20_000,)),),
        (OutputPort("out", "p"),),
        (),
        (),
    )
    (use,) = partition(network, CHIP, "vendor").use
    assert use["in_axons"] == 500
