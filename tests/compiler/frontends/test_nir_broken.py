"""Broken `.nir` files: each is one error of one line that names file and node, and says what would be right.

Nothing crashes, hangs or allocates without bound. Every kind goes through the command.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import nir
import numpy as np
import pytest

from snn_compile.compiler import lower
from snn_compile.compiler.cli.main import main
from snn_compile.targets.errors import CompileError

STATED = ["dt=1", "rule=euler", "reset=value", "reset_timing=same_step", "comparison=>", "delays=cuba:rec:1"]
FLAGS = [word for item in STATED for word in ("--convention", item)]
RULE = {"reset": "value", "reset_timing": "same_step", "comparison": ">", "delays": {("cuba", "rec"): 1}}
NODES = "node/nodes"
Change = Callable[[h5py.File], Any]


def good(build: Any) -> nir.NIRGraph:
    """A convolution, a pool, neurons of both kinds and a nested graph."""
    rng = np.random.default_rng(4)
    inner = {
        "input": build.port(nir.Input, 5),
        "scale": nir.Scale(np.ones(5)),
        "output": build.port(nir.Output, 5),
    }
    nested = nir.NIRGraph(inner, [("input", "scale"), ("scale", "output")])
    nodes = {
        "input": build.port(nir.Input, 2, 6, 6),
        "conv": nir.Conv2d((6, 6), rng.normal(size=(3, 2, 3, 3)), 1, 0, 1, 1, rng.normal(size=3)),
        "pool": nir.SumPool2d(np.array([2, 2]), np.array([2, 2]), np.array([0, 0])),
        "flat": nir.Flatten({"input": np.array([3, 2, 2])}, 0, -1),
        "lif": build.lif(12),
        "fc": build.affine(rng, 5, 12),
        "inner": nested,
        "cuba": build.cuba(5),
        "rec": build.linear(rng, 5, 5),
        "output": build.port(nir.Output, 5),
    }
    names = ["input", "conv", "pool", "flat", "lif", "fc", "inner", "cuba", "rec", "cuba", "output"]
    return build.graph(nodes, list(zip(names, names[1:], strict=False)), no_contract=True)


@pytest.fixture(scope="module")
def whole(build: Any, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("whole") / "good.nir"
    nir.write(path, good(build))
    return path.read_bytes()


def new(key: str, **made: Any) -> Change:
    def change(file: h5py.File) -> None:
        if f"{NODES}/{key}" in file:
            del file[f"{NODES}/{key}"]
        file.create_dataset(f"{NODES}/{key}", **made)

    return change


def put(key: str, value: float, at: Any = ()) -> Change:
    def change(file: h5py.File) -> None:
        array = np.asarray(file[f"{NODES}/{key}"][()]).copy()
        array[at] = value
        new(key, data=array)(file)

    return change


def gone(key: str) -> Change:
    return lambda file: file.__delitem__(key if key.startswith("node") else f"{NODES}/{key}")


def edges(*pairs: tuple[str, str], but: tuple[str, str] | None = None) -> Change:
    """Add edges, and take one away."""

    def change(file: h5py.File) -> None:
        found = [tuple(end.decode() for end in edge) for edge in file["node/edges"][()]]
        del file["node/edges"]
        file["node/edges"] = [edge for edge in found if edge != but] + list(pairs)

    return change


def link(key: str, made: Any) -> Change:
    def change(file: h5py.File) -> None:
        del file[f"{NODES}/{key}"]
        file[f"{NODES}/{key}"] = made

    return change


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((5, 12), "f8")
    layout[:] = h5py.VirtualSource("elsewhere.h5", "w", (5, 12))
    del file[f"{NODES}/fc/weight"]
    file.create_virtual_dataset(f"{NODES}/fc/weight", layout)


def external(file: h5py.File) -> None:
    del file[f"{NODES}/fc/weight"]
    where = [("/dev/zero", 0, h5py.h5f.UNLIMITED)]
    file.create_dataset(f"{NODES}/fc/weight", (5, 12), "f8", external=where)


def itself(file: h5py.File) -> None:
    """A nested graph among whose nodes it is itself."""
    file[f"{NODES}/inner/nodes/again"] = file[f"{NODES}/inner"]


def laughs(file: h5py.File) -> None:
    """Metadata of 2^30 groups, each of which is there twice under the next."""
    below = file.create_group("hidden")
    for level in range(30):
        above = file.create_group(f"hidden{level}")
        above["a"], above["b"] = below, below
        below = above
    file[f"{NODES}/fc/metadata"] = below


def deep(file: h5py.File) -> None:
    file.create_group(f"{NODES}/fc/metadata/" + "/".join("g" * 3000))


def nested(file: h5py.File) -> None:
    """Graphs inside graphs, 30 deep."""
    at = file[f"{NODES}/inner"]
    for _ in range(30):
        at = at.create_group("nodes/more")
        at["type"], at["edges"] = "NIRGraph", np.zeros((0, 2))
        at.create_group("nodes")


def diamonds(file: h5py.File) -> None:
    """Linear nodes side by side in 15 stages: 2^15 paths from one end to the other."""
    pairs, last = [], ["input"]
    for stage in range(15):
        names = [f"d{stage}{side}" for side in "ab"]
        for name in names:
            file[f"{NODES}/{name}/type"], file[f"{NODES}/{name}/scale"] = "Scale", np.ones((2, 6, 6))
        pairs += [(a, b) for a in last for b in names]
        last = names
    edges(*pairs, *((name, "conv") for name in last), but=("input", "conv"))(file)


def chain(file: h5py.File) -> None:
    """Three hundred linear nodes, one behind the other."""
    names = [f"c{i:04d}" for i in range(300)]
    for name in names:
        file[f"{NODES}/{name}/type"], file[f"{NODES}/{name}/scale"] = "Scale", np.ones((2, 6, 6))
    ends = zip(["input", *names], [*names, "conv"], strict=True)
    edges(*ends, but=("input", "conv"))(file)


def wide(file: h5py.File) -> None:
    """A product of two thin matrices that would have 10^12 entries."""
    for name, shape in {"a": (1, 5), "d": (5, 1), "b": (1 << 20, 1), "c": (1, 1 << 20)}.items():
        file[f"{NODES}/w{name}/type"] = "Linear"
        file.create_dataset(f"{NODES}/w{name}/weight", data=np.ones(shape, np.float32), compression="gzip")
    file[f"{NODES}/wide/type"] = "Threshold"
    file.create_dataset(f"{NODES}/wide/threshold", data=np.ones(1 << 20, np.float32), compression="gzip")
    edges(("wide", "wc"), ("wc", "wb"), ("wb", "wide"), ("inner", "wa"), ("wa", "wd"), ("wd", "cuba"))(file)


def bomb(file: h5py.File) -> None:
    """120 million zeros in a file of a hundred kilobytes."""
    del file[f"{NODES}/fc/weight"]
    made = {"shape": (10000, 12000), "dtype": "f4", "chunks": (1000, 1000), "compression": "gzip"}
    file.create_dataset(f"{NODES}/fc/weight", **made)[:1000, :1000] = np.zeros((1000, 1000))


HUGE = {"shape": (1 << 20, 1 << 20), "dtype": "f4", "chunks": (64, 64), "fillvalue": 2.0}
PAIR = np.dtype([("re", "f4"), ("im", "f4")])
BROKEN: dict[str, tuple[Change, str]] = {
    "no graph": (lambda f: f.move("node", "nodes"), "'node' is missing"),
    "a graph that is an array": (lambda f: (gone("node")(f), f.update({"node": 3})), "'node' is a dataset"),
    "no nodes": (gone("node/nodes"), "the graph: a NIRGraph without 'nodes'"),
    "no edges": (gone("node/edges"), "the graph: a NIRGraph without 'edges'"),
    "edges of numbers": (
        lambda f: (gone("node/edges")(f), f.update({"node/edges": np.ones((3, 2))})),
        "the graph: 'edges' are float64",
    ),
    "edges in threes": (
        lambda f: (gone("node/edges")(f), f.update({"node/edges": [("a", "b", "c")]})),
        r"the graph: 'edges' has shape \(1, 3\)",
    ),
    "a dangling edge": (edges(("fc", "nowhere")), "'fc' -> 'nowhere': there is no such node as 'nowhere'"),
    "an edge from nowhere": (edges(("void", "cuba")), "'void' -> 'cuba': there is no such node as 'void'"),
    "a dangling edge of a nested graph": (
        lambda f: (
            gone("inner/edges")(f),
            f.update({f"{NODES}/inner/edges": [("input", "scale"), ("scale", "output"), ("scale", "x")]}),
        ),
        "'inner.scale' -> 'inner.x': there is no such node",
    ),
    "a node that is missing": (gone("fc"), "there is no such node as 'fc'"),
    "a missing edge": (edges(but=("fc", "inner")), "node 'inner': no edge leads to it"),
    "a missing edge to the output": (edges(but=("cuba", "output")), "node 'output': no edge leads to it"),
    "a node without targets": (edges(but=("rec", "cuba")), "node 'rec': no edge leads on from it"),
    "a missing edge of a nested graph": (
        lambda f: (gone("inner/edges")(f), f.update({f"{NODES}/inner/edges": [("input", "scale")]})),
        "node 'inner.output': no edge leads to it",
    ),
    "no type": (gone("fc/type"), "node 'fc': 'type' is missing"),
    "a type that is a number": (new("fc/type", data=3), "node 'fc': 'type' is int64, not a string"),
    "a type of another format": (
        new("fc/type", data="Dense"),
        "node 'fc': type 'Dense' is neither one of NIR",
    ),
    "a type without end": (new("fc/type", data="x" * 5000), "node 'fc': 'type' is not a short string"),
    "a node that is an array": (link("fc", 3.0), "'fc' is a dataset, not a group"),
    "no weight": (gone("fc/weight"), "node 'fc': a Affine without 'weight'"),
    "no threshold": (gone("lif/v_threshold"), "node 'lif': a LIF without 'v_threshold'"),
    "an entry without a meaning": (new("fc/beta", data=0.9), "node 'fc': a Affine with 'beta'"),
    "a weight of NaN": (put("fc/weight", np.nan, (2, 7)), r"node 'fc': 'weight' holds nan at \(2, 7\)"),
    "an infinite bias": (put("conv/bias", np.inf, 1), r"node 'conv': 'bias' holds inf at \(1,\)"),
    "a time constant of NaN": (put("cuba/tau_syn", np.nan, 3), r"node 'cuba': 'tau_syn' holds nan"),
    "a time constant of 0": (put("lif/tau", 0, 3), "node 'lif': a time constant of 0"),
    "a negative time constant": (put("cuba/tau_mem", -5, 0), "node 'cuba': a time constant of -5"),
    "a time constant below a step": (put("lif/tau", 0.5, 3), "'lif': voltage_decay is 2 per step"),
    "weights of text": (new("fc/weight", data="much"), "node 'fc': 'weight' is object, not numbers"),
    "weights of bytes": (new("fc/weight", data=np.full((5, 12), b"1")), r"node 'fc': 'weight' is \|S1"),
    "complex weights": (new("fc/weight", data=np.ones((5, 12), complex)), "'fc': 'weight' is complex128"),
    "compound weights": (new("fc/weight", data=np.zeros((5, 12), PAIR)), "node 'fc': 'weight' is .*'re'"),
    "weights of references": (
        new("fc/weight", shape=(5, 12), dtype=h5py.ref_dtype),
        "node 'fc': 'weight' is object, not numbers",
    ),
    "ragged weights": (
        new("fc/weight", shape=(5,), dtype=h5py.vlen_dtype("f4")),
        "node 'fc': 'weight' is object, not numbers",
    ),
    "an opaque weight": (
        new("fc/weight", data=np.zeros((5, 12), "V8")),
        r"node 'fc': 'weight' is \|V8, not numbers",
    ),
    "an empty weight": (new("fc/weight", data=h5py.Empty("f8")), "node 'fc': 'weight' is empty"),
    "a weight of no rows": (new("fc/weight", data=np.zeros((0, 12))), r"'fc': 'weight' has shape \(0, 12\)"),
    "a weight of one dimension": (new("fc/weight", data=np.ones(60)), r"'fc': 'weight' has shape \(60,\)"),
    "a weight of other columns": (
        new("fc/weight", data=np.ones((5, 11))),
        "node 'fc': a weight of shape .5, 11. takes 11 values, and receives 12 from 'lif'",
    ),
    "a weight of other rows": (
        lambda f: (new("fc/weight", data=np.ones((4, 12)))(f), new("fc/bias", data=np.ones(4))(f)),
        "node 'inner.scale' scales 5 values and receives 4",
    ),
    "a bias of another size": (new("fc/bias", data=np.ones(4)), r"node 'fc': 'bias' has shape \(4,\)"),
    "neurons of two sizes": (new("lif/tau", data=np.ones(11)), r"'lif': r has shape \(12,\) and tau \(11,"),
    "neurons of no size": (
        lambda f: [new(f"lif/{key}", data=np.ones(0))(f) for key in f[f"{NODES}/lif"] if key != "type"],
        "node 'lif': 'r' has shape .0,.",
    ),
    "other neurons than arrive": (
        lambda f: [new(f"lif/{key}", data=np.ones(13))(f) for key in f[f"{NODES}/lif"] if key != "type"],
        "node 'fc': a weight of shape .5, 12. takes 12 values, and receives 13 from 'lif'",
    ),
    "gains of another size": (new("cuba/w_in", data=np.ones(4)), r"node 'cuba': w_in has shape \(4,\)"),
    "a kernel of rank 3": (new("conv/weight", data=np.ones((3, 2, 3))), r"node 'conv': 'weight' has shape"),
    "a kernel of other channels": (
        new("conv/weight", data=np.ones((3, 5, 3, 3))),
        r"node 'conv': kernel \(3, 5, 3, 3\).*2 channels",
    ),
    "a kernel larger than its input": (
        new("conv/weight", data=np.ones((3, 2, 9, 9))),
        "node 'conv': its kernel does not fit",
    ),
    "groups that do not fit": (new("conv/groups", data=4), "node 'conv': kernel .* 4 group"),
    "groups of a half": (new("conv/groups", data=1.5), "node 'conv': 'groups' holds 1.5"),
    "a stride of 0": (new("conv/stride", data=[1, 0]), "node 'conv': 'stride' spans 0..1"),
    "three strides": (new("pool/stride", data=[2, 2, 2]), "node 'pool': 'stride' has 3 values"),
    "a negative padding": (new("conv/padding", data=[-1, 0]), "node 'conv': 'padding' spans -1..0"),
    "a padding in words": (new("conv/padding", data="mirror"), "node 'conv': padding 'mirror'"),
    "a padding without end": (new("conv/padding", data=1 << 40), "node 'conv': 'padding' spans"),
    "a huge padding": (new("conv/padding", data=[1 << 19, 1 << 19]), "node 'conv': its map .* connections"),
    "a window without end": (new("pool/kernel_size", data=[1 << 20, 1 << 20]), "node 'pool': a window of"),
    "an input of no channels": (new("input/shape", data=[0, 6, 6]), "node 'input': 'shape' spans 0..6"),
    "an input of half a pixel": (new("input/shape", data=[2, 6.5, 6]), "node 'input': 'shape' holds 6.5"),
    "an input in words": (new("input/shape", data="2x6x6"), "node 'input': 'shape' is object, not numbers"),
    "a huge input": (new("input/shape", data=[2, 1 << 20, 1 << 20]), "node 'input': shape .* declares"),
    "an input of many dimensions": (new("input/shape", data=np.ones(60, int)), "'input': 'shape' declares"),
    "no input": (
        lambda f: (gone("input")(f), edges(but=("input", "conv"))(f), gone("conv/input_shape")(f)),
        "node 'conv' has no input",
    ),
    "an output that goes on": (edges(("output", "cuba")), "'output'"),
    "a loop without a neuron": (edges(("inner", "fc")), "fc -> inner.input .* form a loop without a neuron"),
    "a huge weight": (new("fc/weight", **HUGE), "node 'fc': 'weight' declares"),
    "a huge chunk": (
        new("fc/bias", shape=(5,), maxshape=(None,), chunks=(1 << 29,), dtype="f4"),
        "node 'fc': 'bias' declares",
    ),
    "a bomb": (bomb, "node 'fc': 'weight' declares .10000, 12000. values"),
    "a weight in another file": (virtual, "node 'fc': 'weight' lies in another file"),
    "a weight that is another file": (external, "node 'fc': 'weight' lies in another file"),
    "a node in another file": (
        link("fc", h5py.ExternalLink("x.h5", "/")),
        "'fc' is a link to somewhere else",
    ),
    "a node by a soft link": (link("fc", h5py.SoftLink(f"/{NODES}/rec")), "'fc' is a link to somewhere else"),
    "a graph inside itself": (itself, "'inner.* lies inside itself"),
    "a group that holds its parents": (
        lambda f: f.update({f"{NODES}/fc/metadata/up": f[NODES]}),
        "node 'fc'/metadata: 'up' lies inside itself",
    ),
    "groups without number": (laughs, "node 'fc'/metadata.*more than 16384 groups"),
    "groups without end": (deep, "node 'fc'/metadata.* more than 40 groups deep"),
    "graphs without end": (nested, "node 'inner.more.*deep"),
    "paths without number": (diamonds, "more than 16384 paths"),
    "a chain without end": (chain, "node 'c.*more than 200 linear nodes"),
    "a product without bound": (wide, "node 'wb': .* connections up to here"),
    "a name without end": (lambda f: f.move(f"{NODES}/fc", f"{NODES}/" + "n" * 999), "a name of 999"),
}


def reported(capsys: pytest.CaptureFixture[str], path: Path, text: str) -> None:
    """Assert that the last command printed one error, of one line, that names the file."""
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert out == "" and len(lines) == 1, err
    assert lines[0].startswith(f"snn-compile: error: {path}")
    assert re.search(text, lines[0]), lines[0]
    assert "Traceback" not in err and len(lines[0]) < 500


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_file_is_one_line_that_names_file_and_node(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], whole: bytes, case: str
) -> None:
    path, out = tmp_path / "broken.nir", tmp_path / "out.snn"
    path.write_bytes(whole)
    change, text = BROKEN[case]
    with h5py.File(path, "a") as file:
        change(file)
    assert main([str(path), "-o", str(out), *FLAGS]) == 1
    reported(capsys, path, text)
    assert [item.name for item in tmp_path.iterdir()] == ["broken.nir"]


def test_the_good_file_compiles(tmp_path: Path, capsys: pytest.CaptureFixture[str], whole: bytes) -> None:
    path = tmp_path / "good.nir"
    path.write_bytes(whole)
    assert main([str(path), *FLAGS, "--stop-after", "retime"]) == 0
    assert "error" not in capsys.readouterr().err


@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.6, 0.98])
def test_a_truncated_file_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], whole: bytes, share: float
) -> None:
    path = tmp_path / "cut.nir"
    path.write_bytes(whole[: int(share * len(whole))])
    assert main([str(path), *FLAGS]) == 1
    reported(capsys, path, "cannot be read as a NIR graph.*is it complete")
    with pytest.raises(CompileError, match="no file at"):
        lower(tmp_path / "none.nir")


@pytest.mark.parametrize("size", [(1 << 64) - 16, 1 << 40, 0])
def test_a_damaged_heap_of_strings_is_not_searched_for_ever(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], whole: bytes, size: int
) -> None:
    path, damaged = tmp_path / "heap.nir", bytearray(whole)
    first = damaged.index(b"GCOL") + 16
    damaged[first + 8 : first + 16] = size.to_bytes(8, "little")  # the size of the heap's first string
    path.write_bytes(damaged)
    assert main([str(path), *FLAGS]) == 1
    reported(capsys, path, "is a string whose place in the file is not understood; the file is damaged")


def test_what_fails_only_the_check_of_types_is_read_and_the_mismatch_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], whole: bytes
) -> None:
    path = tmp_path / "flat.nir"
    path.write_bytes(whole)
    plain = lower(path, {"dt": 1, "rule": "euler", **RULE})
    with h5py.File(path, "a") as file:
        new("flat/input_type", data=[12])(file)  # and (3, 2, 2) comes out of the pool
    assert main([str(path), *FLAGS, "--stop-after", "lower"]) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if "type check fails" in line]
    assert len(lines) == 1 and str(path) in lines[0] and "flat.input: [[12]]" in lines[0]
    again = lower(path, {"dt": 1, "rule": "euler", **RULE})
    for a, b in zip(plain.projections, again.projections, strict=True):
        np.testing.assert_array_equal(a.values, b.values)


@pytest.mark.parametrize("key", ["flat/input_type", "conv/input_shape"])
def test_an_empty_shape_is_one_that_is_not_known(tmp_path: Path, whole: bytes, key: str) -> None:
    path = tmp_path / "flat.nir"
    path.write_bytes(whole)
    plain = lower(path, {"dt": 1, "rule": "euler", **RULE})
    with h5py.File(path, "a") as file:
        new(key, data=np.zeros(0))(file)  # as sinabs writes a shape that it does not know
    again = lower(path, {"dt": 1, "rule": "euler", **RULE})
    for a, b in zip(plain.projections, again.projections, strict=True):
        np.testing.assert_array_equal(a.values, b.values)


def test_ports_that_nir_adds_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], whole: bytes
) -> None:
    path = tmp_path / "open.nir"
    path.write_bytes(whole)
    with h5py.File(path, "a") as file:
        gone("output")(file)
        edges(but=("cuba", "output"))(file)
    # The recurrence hangs on cuba, so that no node is without an edge onwards: nir finds no output.
    assert main([str(path), *FLAGS]) == 1
    reported(capsys, path, "at least one Input and one Output")
    with h5py.File(path, "a") as file:
        gone("rec")(file)
        edges(but=("cuba", "rec"))(file)
        edges(but=("rec", "cuba"))(file)
    assert main([str(path), *FLAGS[:-2], "--stop-after", "lower"]) == 0
    assert f"{path}: there is no Output node; 'output_cuba' is used as one" in capsys.readouterr().err


def test_bytes_and_fixed_strings_of_other_writers_are_read(tmp_path: Path, whole: bytes) -> None:
    path = tmp_path / "fixed.nir"
    path.write_bytes(whole)
    stated = {"dt": 1, "rule": "euler", **RULE}
    plain = lower(path, stated).digest()
    with h5py.File(path, "a") as file:
        pairs = np.array(file["node/edges"][()].astype("S"))
        new("fc/type", data=np.bytes_(b"Affine"))(file)
        del file["node/edges"]
        file["node/edges"] = pairs
    assert lower(path, stated).digest() == plain
    with h5py.File(path, "a") as file:
        del file["node/edges"]
        made = file.create_dataset("node/edges", pairs.shape, h5py.string_dtype(), chunks=pairs.shape)
        made[:] = pairs.astype(object)
    assert lower(path, stated).digest() == plain


@pytest.mark.parametrize("case", ["a weight of NaN", "a dangling edge", "a graph inside itself"])
def test_the_real_command(tmp_path: Path, whole: bytes, case: str) -> None:
    path = tmp_path / "broken.nir"
    path.write_bytes(whole)
    change, text = BROKEN[case]
    with h5py.File(path, "a") as file:
        change(file)
    command = [sys.executable, "-m", "snn_compile.compiler.cli", str(path), *FLAGS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and re.search(text, done.stderr) and str(path) in done.stderr
