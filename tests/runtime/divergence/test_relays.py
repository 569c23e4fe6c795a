"""Networks with relays are followed in lock-step: every stage but rounding is equal, without a fault."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import snntorch as snn
import torch
from support.mapping.dense_graphs import dense_graph
from torch import nn

from snn_compile.compiler import Options, compile_graph, lower
from snn_compile.runtime.divergence.diverge import diverge
from snn_compile.targets.chips.chip import load_chip
from snn_compile.train import to_nir

LOIHI2 = Path(str(load_chip.__globals__["_folder"]())) / "loihi2.toml"


def checked(program, network, data) -> None:
    found = diverge(program, network, data)
    stages = {stage.name: stage for stage in found.stages}
    assert stages["mapped"].differing == stages["device"].differing == 0
    assert not found.faults
    assert stages["quantized"].differing <= 0.2 * stages["quantized"].compared
    assert any(cause.cause.kind == "weight rounding" for cause in found.causes)


@pytest.mark.parametrize("seed", range(4))
def test_partial_sums(seed: int, tmp_path: Path) -> None:
    text = LOIHI2.read_text().replace('name = "loihi2"', 'name = "narrow"')
    file = tmp_path / "narrow.toml"
    file.write_text(text.replace("in_axons = 16000", "in_axons = 20"))
    graph = dense_graph([50, 30, 5], seed)
    data = (np.random.default_rng(seed).random((4, 10, 50)) < 0.3).astype(float)
    program = compile_graph(graph, str(file), Options(chips="auto"), data)
    assert any(p.model == "graded" for p in program.populations)
    checked(program, lower(graph), data)


@pytest.mark.parametrize("seed", range(4))
def test_max_pools_of_currents(seed: int) -> None:
    torch.manual_seed(seed)
    network = nn.Sequential(
        nn.Conv2d(1, 3, 3),
        nn.MaxPool2d(2),
        snn.Leaky(beta=0.8, threshold=0.4, init_hidden=True),
        nn.Flatten(),
        nn.Linear(27, 4),
        snn.Leaky(beta=0.7, threshold=0.3, init_hidden=True, output=True),
    )
    graph = to_nir(network, torch.zeros(1, 1, 8, 8))
    data = np.round(np.random.default_rng(seed).random((4, 8, 1, 8, 8)) * 15) / 16
    lowered = lower(graph)
    checked(compile_graph(lowered, calibration=data), lowered, data)
