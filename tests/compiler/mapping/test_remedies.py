"""A network that does not fit: violations and remedies are printed, and each remedy that fits compiles."""

from __future__ import annotations

import json
from pathlib import Path

import nir
import numpy as np
import pytest
from support.mapping.dense_graphs import dense_graph

from snn_compile.compiler import Options, compile_graph
from snn_compile.compiler.cli.main import main
from snn_compile.compiler.pipeline import compile_stages
from snn_compile.targets.chips.chip import load_chip
from snn_compile.targets.errors import DoesNotFit

LOIHI2 = Path(str(load_chip.__globals__["_folder"]())) / "loihi2.toml"


def small_chip(folder: Path, cores: int, words: int) -> str:
    """Write a Loihi 2 of few cores of little memory; return its path."""
    text = LOIHI2.read_text().replace('name = "loihi2"', 'name = "small"')
    text = text.replace("count = 120", f"count = {cores}")
    text = text.replace("words = 15000", f"words = {words}").replace(
        "synapse_words = 12000", f"synapse_words = {words}"
    )
    file = folder / "small.toml"
    file.write_text(text)
    return str(file)


@pytest.mark.parametrize("seed", range(10))
def test_every_remedy_that_fits_compiles(
    seed: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(seed)
    sizes = [int(n) for n in (*rng.integers(60, 160, 3), rng.integers(3, 12))]
    graph, file, data = dense_graph(sizes, seed), tmp_path / "net.nir", tmp_path / "d.npz"
    nir.write(file, graph)
    inputs = (rng.random((6, 8, sizes[0])) < 0.3).astype(float)
    np.savez(data, inputs=inputs)
    words = int(rng.integers(400, 900))
    needed = len(compile_graph(graph, small_chip(tmp_path, 128, words), Options(), inputs).cores)
    mapper = str(rng.choice(["best", "vendor"]))
    cores, code = needed, 0
    while code == 0:  # coarser tables may save it from the first few
        cores = max(int(cores * rng.uniform(0.45, 0.9)), 1)
        chip = small_chip(tmp_path, cores, words)
        command = [str(file), "--target", chip, "--calibrate", str(data), "--mapper", mapper]
        capsys.readouterr()
        code = main([*command, "--json"])
        out, err = capsys.readouterr()
    assert code == 1 and "error: " in err and "Traceback" not in err
    found = json.loads(out)
    assert found["fits"] is False and found["violations"]
    fitting = [remedy for remedy in found["remedies"] if remedy["fits"] and not remedy["least"]]
    assert fitting and all(f"tried {remedy['option']}" in err for remedy in found["remedies"])
    for remedy in fitting:
        base = [part for part in command if part not in ("--mapper", mapper)]
        words_of = remedy["option"].split()
        assert main([*base, *words_of, "--json"]) == 0, remedy
        cores = json.loads(capsys.readouterr().out)["cores"]
        assert cores <= remedy["cores"] * 1.15 + 1, remedy


def test_sizes_are_refused_before_quantization(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    graph = dense_graph([300, 400, 10], 0)
    chip = small_chip(tmp_path, 2, 500)
    stages: list[str] = []
    with pytest.raises(DoesNotFit, match="synapse_words alone fill .* at any number of bits") as caught:
        compile_stages(graph, chip, observe=lambda name, value, seconds: stages.append(name))
    assert stages[-1] == "retime" and caught.value.facts["least_cores"] > 2
    nir.write(tmp_path / "n.nir", graph)
    assert main([str(tmp_path / "n.nir"), "--target", chip]) == 1
    assert "tried --chips auto: at least" in capsys.readouterr().err
    for bits in (8, 2):
        with pytest.raises(DoesNotFit):
            compile_graph(graph, chip, Options(weight_bits=bits))
    assert len(compile_graph(graph, chip, Options(chips="auto")).cores) > 2


def test_many_violations_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from snn_compile.compiler.cli.unfit import _message

    lines = [f"projection 'p{n}': delay 99 steps" for n in range(45)]
    text = _message(DoesNotFit("45 violation(s) of a chip: " + "; ".join(lines), violations=lines), lines)
    assert text.count("projection") == 6 and text.endswith("and 39 more (--json lists all)")
