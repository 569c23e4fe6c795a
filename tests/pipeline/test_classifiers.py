"""Seven classifiers as users of snnTorch write them: trained a little, compiled by the plain command.

`benchmarks/classifiers.py` trains them in full; docs/experiments.md has its figures.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from snn_compile.compiler.cli import main

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
NAMES = (
    "explicit loop",
    "Sequential with init_hidden",
    "BatchNorm and Dropout",
    "max pooling of currents",
    "RSynaptic",
    "RLeaky, elementwise",
    "learned decays and thresholds",
)


@pytest.mark.parametrize("name", NAMES)
def test_the_plain_command_measures_what_torch_measures(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import classifiers

    assert set(NAMES) == set(classifiers.NETS)

    def run(arguments: list[str], folder: Path) -> str:
        monkeypatch.chdir(folder)
        assert main(arguments) == 0, capsys.readouterr().err
        return capsys.readouterr().out

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        found = classifiers.compiled(name, tmp_path, epochs=2, samples=120, run=run)
    finally:
        torch.set_num_threads(threads)
    assert found["float"] == pytest.approx(found["torch"]) and found["torch"] > 0.2
    low, high = found["interval"]
    assert low <= 0 <= high and found["samples"] == 88
