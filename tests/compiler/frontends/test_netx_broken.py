"""Broken `.net` files: each is one error that names file and layer, and nothing allocates without bound."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from support.netx_files import write as write_net

from snn_compile.compiler import lower
from snn_compile.compiler.cli.main import main
from snn_compile.targets.errors import CompileError

CUBA = {"type": "CUBA", "iDecay": 4096, "vDecay": 1024, "vThMant": 25, "refDelay": 1}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A good file: input, convolution, flatten, two dense layers."""
    rng = np.random.default_rng(2)
    layers: list[dict[str, Any]] = [
        {"type": kind, "shape": shape}
        for kind, shape in zip(
            ["input", "conv", "flatten", "dense", "dense"],
            [[2, 7, 9], [3, 4, 7], [84, 1, 1], [5, 1, 1], [4, 1, 1]],
            strict=True,
        )
    ]
    for index, shape in ((1, (3, 2, 4, 3)), (3, (5, 84)), (4, (4, 5))):
        layers[index] |= {"weight": rng.integers(-40, 60, shape).astype(np.float32), "neuron": CUBA}
    layers[1] |= {"stride": [1, 1], "padding": [0, 0], "groups": 1}
    layers[3] |= {"inFeatures": 84, "delay": [3, 0, 0, 11, 3]}
    return write_net(tmp_path / "broken.net", layers)


def _replace(file: h5py.File, key: str, **made: Any) -> None:
    del file[key]
    file.create_dataset(key, **made)


def _virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((84, 5), "f4")
    layout[:] = h5py.VirtualSource("elsewhere.h5", "w", (84, 5))
    del file["layer/3/weight"]
    file.create_virtual_dataset("layer/3/weight", layout)


def _complex(file: h5py.File) -> None:
    file.move("layer/3/weight", "real")
    file.move("real", "layer/3/weight/real")


def _elsewhere(file: h5py.File) -> None:
    del file["layer/3"]
    file["layer/3"] = h5py.ExternalLink("elsewhere.h5", "/")


def _set(key: str, value: Any, at: Any = ()) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        array = np.asarray(file[f"layer/{key}"][()], np.float64)
        array[at] = value
        _replace(file, f"layer/{key}", data=array)

    return change


def _new(key: str, **made: Any) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        if f"layer/{key}" in file:
            del file[f"layer/{key}"]
        file.create_dataset(f"layer/{key}", **made)

    return change


def _concat(other: int) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        _replace(file, "layer/2/type", data="concat")
        file["layer/2/layers"] = [other]

    return change


HUGE = {"shape": (1 << 20, 1 << 20), "dtype": "f4", "chunks": (64, 64), "fillvalue": 2.0}
BROKEN: dict[str, tuple[Callable[[h5py.File], Any], str]] = {
    "no layers": (lambda f: f.move("layer", "layers"), "'layer' is missing"),
    "a layer is missing": (lambda f: f.move("layer/2", "layer/7"), "no layer '2'"),
    "a layer that is no group": (_new("2", data=3.0), "layer/2|'2'"),
    "no type": (lambda f: f.__delitem__("layer/1/type"), "layer/1: 'type' is missing"),
    "a type that is a number": (_new("1/type", data=3), "layer/1: 'type'"),
    "an unknown type": (_new("1/type", data="convT"), "layer/1: .*'convT'"),
    "no shape": (lambda f: f.__delitem__("layer/1/shape"), "layer/1: 'shape' is missing"),
    "a shape of 0": (_set("1/shape", 0, 1), "layer/1: 'shape'"),
    "a shape of four": (_new("1/shape", data=[3, 4, 7, 1]), "layer/1: 'shape'"),
    "a huge shape": (_new("1/shape", data=[1 << 20, 1 << 20, 1]), "layer/1: shape .* neurons"),
    "another shape": (_new("1/shape", data=[3, 5, 7]), r"layer/1: its shape \(3, 5, 7\)"),
    "no weight": (lambda f: f.__delitem__("layer/3/weight"), "layer/3: 'weight' is missing"),
    "a weight that is text": (_new("3/weight", data="much"), "layer/3: 'weight' is object"),
    "a weight of another shape": (_new("3/weight", data=np.ones((5, 83))), r"layer/3: .*\(5, 83\)"),
    "a transposed weight": (_new("3/weight", data=np.ones((84, 5))), r"layer/3: .*\(84, 5\)"),
    "a kernel of rank 3": (_new("1/weight", data=np.ones((3, 2, 4))), r"layer/1: .*\(3, 2, 4\)"),
    "a kernel of other channels": (_new("1/weight", data=np.ones((3, 5, 4, 3))), "layer/1: .*2 channels"),
    "a weight of NaN": (_set("3/weight", np.nan, (4, 2)), r"layer/3: 'weight' holds nan at \(4, 2\)"),
    "a fraction": (_set("3/weight", 0.5, (0, 3)), r"layer/3: 'weight' holds 0.5 at \(0, 3\)"),
    "nine bits": (_set("3/weight", 256, (1, 1)), r"layer/3: 'weight' spans .*\.\.256"),
    "a complex weight": (_complex, "layer/3: complex weights"),
    "a huge weight": (_new("3/weight", **HUGE), "layer/3: 'weight' declares"),
    "a huge chunk": (
        _new("3/bias", shape=(5,), maxshape=(None,), chunks=(1 << 29,), dtype="f4"),
        "layer/3: 'bias' declares",
    ),
    "an empty bias": (_new("3/bias", data=h5py.Empty("f4")), "layer/3: 'bias' is empty"),
    "a bias of another size": (_new("3/bias", data=np.ones(4)), "layer/3: 'bias' has 4 values"),
    "a weight in another file": (_virtual, "layer/3: 'weight' lies in another file"),
    "a layer in another file": (_elsewhere, "'3' is a link"),
    "an unknown neuron": (_new("1/neuron/type", data="S4D"), "layer/1/neuron: .*'S4D'"),
    "no neuron": (lambda f: f.__delitem__("layer/1/neuron"), "layer/1: 'neuron' is missing"),
    "no threshold": (
        lambda f: f.__delitem__("layer/3/neuron/vThMant"),
        "layer/3/neuron: 'vThMant' is missing",
    ),
    "a negative threshold": (_set("3/neuron/vThMant", -2), "layer/3/neuron: 'vThMant' spans -2"),
    "a decay of 13 bits": (_set("1/neuron/vDecay", 4097), "layer/1/neuron: 'vDecay'"),
    "a current that never leaks": (_set("1/neuron/iDecay", 0), "layer/1: iDecay 0"),
    "decays of another size": (_new("1/neuron/vDecay", data=[1, 2]), "layer/1: 'vDecay' has 2 values"),
    "a refractory time": (_set("1/neuron/refDelay", 3), "layer/1/neuron: refDelay 3"),
    "graded spikes": (_new("1/neuron/gradedSpike", data=True), "layer/1/neuron: gradedSpike 1"),
    "a weight exponent": (_new("1/neuron/wgtExp", data=2), "layer/1/neuron: wgtExp 2"),
    "an entry without a meaning": (_new("3/weight_rec", data=np.ones((5, 5))), "layer/3: .*'weight_rec'"),
    "a negative stride": (_new("1/stride", data=[1, -1]), "layer/1: 'stride' spans -1"),
    "a negative padding": (_new("1/padding", data=[-1, 0]), "layer/1: 'padding' spans -1"),
    "three strides": (_new("1/stride", data=[1, 1, 1]), "layer/1: 'stride' declares"),
    "groups that do not fit": (_new("1/groups", data=2), "layer/1"),
    "a delay of half a step": (_set("3/delay", 0.5, 0), "layer/3: 'delay' holds 0.5"),
    "a negative delay": (_set("3/delay", -1, 0), "layer/3: 'delay' spans -1"),
    "a delay without end": (_set("3/delay", 1e9, 0), r"layer/3: 'delay' spans .*1023"),
    "delays of another size": (_new("3/delay", data=[1, 2]), "layer/3: 'delay' has 2 values"),
    "another number of inputs": (_set("3/inFeatures", 80), "layer/3: 'inFeatures' is 80"),
    "a flatten of another size": (_set("2/shape", 83, 0), "layer/2: .*83"),
    "a concat of itself": (_concat(2), "layer/2: .*themselves"),
    "a concat of what is not there": (_concat(9), "layer/2: .*layer 9"),
    "a concat of other sizes": (_concat(0), r"layer/2: .*declares 84 values, but receives 210"),
    "a second input": (_new("2/type", data="input"), "layer/2: an input layer"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_file_is_one_error_that_names_file_and_layer(
    path: Path, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    change, text = BROKEN[case]
    with h5py.File(path, "a") as file:
        change(file)
    with pytest.raises(CompileError, match=text) as caught:
        lower(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
    assert main([str(path)]) == 1
    assert capsys.readouterr().err.strip().splitlines()[-1].startswith("snn-compile: error: ")


@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.6, 0.95])
def test_a_truncated_file_is_one_error(tmp_path: Path, path: Path, share: float) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(CompileError, match="broken.net cannot be read as a lava-dl network"):
        lower(path)
    with pytest.raises(CompileError, match="no file"):
        lower(tmp_path / "none.net")


@pytest.mark.parametrize("size", [(1 << 64) - 16, 1 << 40, 0])
def test_a_damaged_heap_of_strings_is_not_searched_for_ever(path: Path, size: int) -> None:
    whole = bytearray(path.read_bytes())
    first = whole.index(b"GCOL") + 16
    whole[first + 8 : first + 16] = size.to_bytes(8, "little")  # the size of the heap's first string
    path.write_bytes(whole)
    with pytest.raises(CompileError, match="layer/1/neuron: 'type' is a string whose place"):
        lower(path)


def test_damaged_bytes_raise_nothing_but_errors_of_ours(path: Path, rng: np.random.Generator) -> None:
    whole = np.frombuffer(path.read_bytes(), np.uint8)
    for _ in range(60):
        damaged = whole.copy()
        damaged[rng.integers(0, len(whole), 40)] = rng.integers(0, 256, 40)
        path.write_bytes(damaged.tobytes())
        try:
            lower(path)
        except CompileError as error:
            assert str(path) in str(error)
