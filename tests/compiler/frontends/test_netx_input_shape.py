"""`.net` files without an input layer: a stated shape, or that of the data, replaces one."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.netx_files import write

from snn_compile import runtime
from snn_compile.compiler.cli.main import main
from snn_compile.compiler.frontends.netx import read_netx
from snn_compile.runtime.cli.main import main as run
from snn_compile.targets.errors import CompileError
from snn_compile.targets.program.file import load_program

SHAPE = (2, 6, 5)


def layers(rng: np.random.Generator) -> list[dict[str, Any]]:
    """Return a convolution and a dense layer."""
    cell = {"type": "CUBA", "iDecay": 4096, "vDecay": 1024, "vThMant": 25, "refDelay": 1}
    sizes = {"stride": [1, 1], "padding": [0, 0], "dilation": [1, 1], "groups": 1, "outChannels": 3}
    kernel = rng.integers(-20, 30, (3, 2, 3, 3)).astype(np.float32)
    first = {"type": "conv", "shape": (3, 4, 3), "kernelSize": [3, 3], "weight": kernel, "neuron": cell}
    weight = (rng.integers(-20, 30, (4, 36)) * 2).astype(np.float32)
    last = {"type": "dense", "shape": [4, 1, 1], "inFeatures": 36, "outFeatures": 4, "weight": weight}
    return [first | sizes, last | {"neuron": cell}]


@pytest.mark.parametrize("seed", range(10))
def test_a_stated_shape_is_an_input_layer(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    body = layers(rng)
    bare, whole = tmp_path / "bare.net", tmp_path / "whole.net"
    write(bare, body)
    write(whole, [{"type": "input", "shape": SHAPE}, *body])
    data = (rng.random((3, 12, *SHAPE)) < 0.4).astype(float)
    want = runtime.reference(read_netx(whole), data).outputs
    assert want.any()
    for stated in (SHAPE, lambda: SHAPE):
        assert (runtime.reference(read_netx(bare, stated), data).outputs == want).all()


def test_the_command_takes_the_shape_of_the_option_or_of_the_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    net, data = tmp_path / "bare.net", tmp_path / "data.npz"
    write(net, layers(rng))
    np.savez(data, inputs=(rng.random((4, 12, *SHAPE)) < 0.4).astype(float))
    assert main([str(net)]) == 1
    error = capsys.readouterr().err
    assert "--input-shape" in error and error.count("\n") == 1
    assert main([str(net), "--input-shape", "2,6,5"]) == 0
    assert main([str(net), "--calibrate", str(data)]) == 0
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main([str(net), "--input-shape", "2,x"])
    assert "2,34,34" in capsys.readouterr().err


def test_inspecting_and_running_take_the_shape_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    net, data, out = tmp_path / "bare.net", tmp_path / "data.npz", tmp_path / "bare.snn"
    write(net, layers(rng))
    np.savez(data, inputs=(rng.random((4, 12, *SHAPE)) < 0.4).astype(float))
    assert main(["inspect", str(net)]) == 1
    assert "--input-shape" in capsys.readouterr().err
    for stated in (["--input-shape", "2,6,5"], ["--data", str(data)]):
        assert main(["inspect", str(net), *stated]) == 0
        assert "2x6x5" in capsys.readouterr().out
    assert main([str(net), "--calibrate", str(data), "-o", str(out)]) == 0
    for stated in ([], ["--input-shape", "2,6,5"]):
        assert run([str(out), "--data", str(data), "--against", str(net), *stated]) == 0
        assert run(["diverge", str(out), "--data", str(data), "--against", str(net), *stated]) == 0
    capsys.readouterr()
    assert run([str(out), "--data", str(data), "--against", str(net), "--input-shape", "2,6,6"]) == 1
    assert "layer/0" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run([str(out), "--data", str(data), "--input-shape", "2,6,5"])
    assert "--input-shape needs --against" in capsys.readouterr().err


def test_a_stated_shape_must_fit(tmp_path: Path) -> None:
    body = layers(np.random.default_rng(0))
    write(tmp_path / "whole.net", [{"type": "input", "shape": SHAPE}, *body])
    with pytest.raises(CompileError, match="layer/0: the input layer has the shape"):
        read_netx(tmp_path / "whole.net", (2, 6, 6))
    write(tmp_path / "dense.net", body[1:])
    with pytest.raises(CompileError, match="layer/0"):
        read_netx(tmp_path / "dense.net", (35,))


def test_a_programs_digest_does_not_depend_on_its_models_name(tmp_path: Path) -> None:
    first, second = tmp_path / "first.net", tmp_path / "second.net"
    write(first, layers(np.random.default_rng(0)))
    shutil.copy(first, second)
    programs = []
    for net in (first, second):
        out = net.with_suffix(".snn")
        assert main([str(net), "--input-shape", "2,6,5", "-o", str(out)]) == 0
        programs.append(load_program(out))
    assert [program.provenance["model"] for program in programs] == ["first.net", "second.net"]
    assert programs[0].digest() == programs[1].digest()


def test_a_threshold_of_minus_one_never_spikes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    networks = []
    for threshold in (-1, 1 << 17):
        body = layers(rng := np.random.default_rng(0))
        body[1]["neuron"] = {**body[1]["neuron"], "vThMant": threshold}
        networks.append(read_netx(write(tmp_path / "net.net", body), SHAPE))
    assert not networks[0].populations[1].spiking
    data = (rng.random((3, 12, *SHAPE)) < 0.4).astype(float)
    first, second = (np.asarray(runtime.reference(network, data).outputs) for network in networks)
    assert first.any() and (first == second).all()
