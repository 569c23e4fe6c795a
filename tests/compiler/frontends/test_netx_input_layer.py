"""The real-valued input layer of `.net` files: the program takes the whole numbers that a host writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.netx_files import write

from snn_compile import runtime
from snn_compile.compiler import lower
from snn_compile.compiler.network import Network
from snn_compile.compiler.pipeline import Options, compile_graph, compile_stages
from snn_compile.runtime.divergence.diverge import diverge
from snn_compile.targets.devices.device import execute
from snn_compile.targets.program.program import Program

STEPS = 20


def drawn(rng: np.random.Generator, path: Path) -> tuple[Network, np.ndarray, np.ndarray]:
    """Return a random network of an input layer and a dense one, whole numbers that the host adds to the bias
    (batch, size), and the network's output spikes by hand.
    """
    sizes = rng.integers(2, 9, 2)
    gain, bias = int(rng.integers(1, 128)) * int(rng.choice([-1, 1])), int(rng.integers(-20, 40))
    decay, thresholds = rng.integers(0, 4097, 2), rng.integers(5, 90, 2)
    weight = 2 * rng.integers(-40, 60, tuple(sizes[::-1]))

    def cell(layer: int, current: int) -> dict[str, Any]:
        decays = {"iDecay": current, "vDecay": decay[layer]}
        return {"type": "CUBA", "vThMant": thresholds[layer], "refDelay": 1, **decays}

    currents = [4096, int(rng.integers(1, 4097))]
    first = {"type": "input", "shape": [sizes[0]], "weight": gain, "bias": bias, "neuron": cell(0, 4096)}
    last = {"type": "dense", "shape": [sizes[1]], "weight": weight, "neuron": cell(1, currents[1])}
    network = lower(write(path, [first, last]))
    written = rng.integers(-60, 120, (3, sizes[0]))

    def layer(total: np.ndarray, index: int, constant: int) -> np.ndarray:
        u = v = np.zeros(total.shape[::2], np.int64)
        spikes = np.zeros_like(total)
        for t in range(STEPS):
            u = np.trunc(u * (4096 - currents[index]) / 4096).astype(np.int64) + 64 * total[:, t]
            v = np.trunc(v * (4096 - int(decay[index])) / 4096).astype(np.int64) + u + 64 * constant
            spikes[:, t] = v > 64 * thresholds[index]
            v = np.where(spikes[:, t], 0, v)
        return spikes

    hidden = layer(np.repeat(written[:, None], STEPS, 1), 0, bias)
    return (
        network,
        written / gain,
        np.stack([hidden.sum(axis=(1, 2)), layer(hidden @ weight.T, 1, 0).sum((1, 2))]),
    )


def shown(x: np.ndarray, dtype: Any = np.float64) -> np.ndarray:
    return np.repeat(x[:, None], STEPS, 1).astype(dtype)


def counts(record: Any, network: Network) -> np.ndarray:
    return np.stack([np.asarray(record.spikes(p.name)).sum(axis=(1, 2)) for p in network.populations])


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_program_and_reference_take_the_whole_numbers_that_a_host_writes(tmp_path: Path, dtype: Any) -> None:
    silent = 0
    for seed in range(40):
        network, x, wanted = drawn(np.random.default_rng(seed), tmp_path / "a.net")
        names, data = [p.name for p in network.populations], shown(x, dtype)
        assert np.array_equal(counts(runtime.reference(network, data, record=names), network), wanted), seed
        for bits in (1, 8, 24):
            program = compile_graph(network, options=Options(input_bits=bits), calibration=data)
            assert np.array_equal(counts(execute(program, data, record=names), network), wanted), (seed, bits)
        assert np.array_equal(counts(execute(compile_graph(network), data, record=names), network), wanted)
        silent += not wanted.any()
    assert silent < 10


def test_nothing_diverges_and_nothing_is_warned_of(tmp_path: Path) -> None:
    network, x, wanted = drawn(np.random.default_rng(3), tmp_path / "a.net")
    done = compile_stages(network, calibration=shown(x))
    assert done.quantized is not None and not done.quantized.warnings
    assert not any(error.max_lsb > 1e-6 for error in done.quantized.errors)
    assert isinstance(done.program, Program) and wanted.any()
    found = diverge(done.program, network, shown(x))
    assert not any(found.totals.values()) and not found.first, found.totals


def test_what_is_not_whole_is_cut_with_a_warning(tmp_path: Path) -> None:
    network, x, _ = drawn(np.random.default_rng(3), tmp_path / "a.net")
    x[0, 0] += 0.5 / network.inputs[0].host_gain
    done = compile_stages(network, calibration=shown(x))
    assert done.quantized is not None and done.program is not None
    assert [f"{1 / x.size:.1%} of the data are not whole" in line for line in done.quantized.warnings] == [
        True
    ]
    kinds = [item.cause.kind for item in diverge(done.program, network, shown(x)).causes]
    assert "floored sums" in kinds


def test_a_chip_without_graded_messages_takes_spikes(tmp_path: Path) -> None:
    cell = {"type": "CUBA", "iDecay": 4096, "vDecay": 1024, "vThMant": 90, "refDelay": 1}
    first = {"type": "input", "shape": [6], "weight": 37, "bias": 5, "neuron": cell}
    last = {"type": "dense", "shape": [2], "weight": np.full((2, 6), 24), "neuron": cell}
    network = lower(write(tmp_path / "a.net", [first, last]))
    data = shown(np.random.default_rng(0).integers(0, 2, (3, 6)))
    program = compile_graph(network, "loihi1", calibration=data)
    assert program.inputs[0].kind == "spikes"
    names = [p.name for p in network.populations]
    want = counts(runtime.reference(network, data, record=names), network)
    assert want.any() and np.array_equal(counts(execute(program, data, record=names), network), want)
