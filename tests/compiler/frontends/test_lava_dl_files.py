"""`.net` files of lava-dl's own exporter, with the spikes of its trainer (benchmarks/lava_dl_networks.py)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from snn_compile.compiler.frontends.netx import read_netx
from snn_compile.compiler.pipeline import compile_stages
from snn_compile.targets.devices.device import execute

FILES = sorted((Path(__file__).parents[2] / "data" / "lava_dl").glob("*.net"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_program_gives_the_trainers_spikes(path: Path) -> None:
    with np.load(path.with_suffix(".npz")) as stored:
        truth = dict(stored)
    data = truth["inputs"].astype(np.float64)
    network = read_netx(path, tuple(int(n) for n in truth["shape"]))
    done = compile_stages(network, calibration=data)
    assert done.program is not None and done.quantized is not None
    assert not done.quantized.warnings
    names = [p.name for p in network.populations if not p.name.endswith(".delayed")]
    record = execute(done.program, data, record=names)
    assert not any(record.overflows.values())
    for index, name in enumerate(names):
        wanted = truth[f"spikes{index}"]
        spikes = np.asarray(record.spikes(name)).reshape(len(data), -1, wanted.shape[2])
        late = np.zeros_like(spikes)
        for neuron, delay in enumerate(truth[f"delays{index}"]):
            late[:, delay:, neuron] = spikes[:, : spikes.shape[1] - delay, neuron]
        assert wanted.any() and np.array_equal(late[:, : wanted.shape[1]], wanted), name


def test_the_files_hold_every_kind_of_layer() -> None:
    kinds = {p.name.rstrip("0123456789") for path in FILES for p in _read(path).populations}
    assert len(FILES) == 10 and kinds >= {"input", "conv", "pool", "dense", "dense_rec"}
    delays = {edge.delay_steps for path in FILES for edge in _read(path).projections}
    assert len(delays) > 5


def _read(path: Path):  # type: ignore[no-untyped-def]
    with np.load(path.with_suffix(".npz")) as stored:
        return read_netx(path, tuple(int(n) for n in stored["shape"]))
