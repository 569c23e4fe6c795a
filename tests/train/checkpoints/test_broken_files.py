"""Broken `.pt` files, checkpoints of ours and state dicts of others: each is one error of one line that names
the file and the node or tensor. Every kind goes through the command."""

import pickle
import re
import zipfile

import pytest
import torch
from torch import nn

from snn_compile.compiler.cli import main
from snn_compile.train import LayerConfig, NetworkConfig, SpikingNetwork, save_checkpoint

pytest.importorskip("snntorch", reason="snntorch is in the extra train")

SOURCE = """
import snntorch as snn
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.lif = nn.Linear(6, 4), snn.Leaky(0.8)

    def forward(self, x):
        mem, record = self.lif.init_leaky(), []
        for x_t in x:
            spk, mem = self.lif(self.fc(x_t), mem)
            record.append(spk)
        return torch.stack(record)

def made():
    return Net(), torch.zeros(8, 1, 6)
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "model.pt"
    torch.manual_seed(0)
    layers = (LayerConfig(5, "cuba_lif"), LayerConfig(3, "li", beta=0.8))
    data = {"name": "digits", "options": {}}
    save_checkpoint(
        path, SpikingNetwork(NetworkConfig((4,), layers)), torch.zeros(1, 1, 4), dt=1e-3, data=data
    )
    return path.read_bytes()


def node(name, **values):
    return lambda body: body["graph"]["nodes"][name].update(values)


def weight(change):
    def changed(body):
        at = body["graph"]["nodes"]["fc1"]
        at["weight"] = change(at["weight"].clone())

    return changed


def put(tensor, index, value):
    tensor[index] = value
    return tensor


def drop(*path):
    def changed(body):
        at = body
        for key in path[:-1]:
            at = at[key]
        at.pop(path[-1])

    return changed


def laughs(body):
    below = {"a": 1}
    for _ in range(30):
        below = {"a": below, "b": below}
    body["metrics"] = below


def deep(body):
    below = {}
    for _ in range(100):
        below = {"a": below}
    body["metrics"] = below


def within(body):
    body["metrics"]["again"] = body["metrics"]


GRAPH = "the graph in the checkpoint cannot be read"
CHECKPOINTS = {
    "no schema": (drop("schema"), "not a checkpoint of snn-compile; .*--model package.module:factory"),
    "a schema of a later version": (lambda b: b["schema"].update(version=9), "checkpoint of version 9"),
    "a schema that is no number": (lambda b: b["schema"].update(version=True), "checkpoint of version True"),
    "no graph": (drop("graph"), "the checkpoint lacks graph"),
    "a graph that is a number": (lambda b: b.update(graph=3), "graph in the checkpoint cannot be read"),
    "no digest": (drop("graph_digest"), "the checkpoint lacks graph_digest"),
    "a digest that is a number": (lambda b: b.update(graph_digest=3), "does not match its digest"),
    "a changed weight": (weight(lambda w: put(w, (1, 1), 9.0)), "does not match its digest"),
    "a config that is a list": (lambda b: b.update(config=[1]), "config in the checkpoint"),
    "data without a name": (lambda b: b.update(data={"options": {}}), "data in the checkpoint"),
    "weights that are no tensors": (
        lambda b: b["state_dict"].update(extra="x"),
        "state_dict.extra in the checkpoint",
    ),
    "no nodes": (drop("graph", "nodes"), f"{GRAPH}.*without 'nodes'"),
    "no edges": (drop("graph", "edges"), f"{GRAPH}.*without 'edges'"),
    "a node that is missing": (drop("graph", "nodes", "fc1"), f"{GRAPH}.*no such node as 'fc1'"),
    "a node that is a tensor": (
        lambda b: b["graph"]["nodes"].update(fc1=torch.ones(3)),
        f"{GRAPH}.*'fc1' is a Tensor",
    ),
    "a dangling edge": (
        lambda b: b["graph"]["edges"].append(("fc1", "nowhere")),
        f"{GRAPH}.*no such node as 'nowhere'",
    ),
    "edges of numbers": (lambda b: b["graph"].update(edges=[(1, 2)]), f"{GRAPH}.*'edges' are int64"),
    "edges of unequal lengths": (
        lambda b: b["graph"].update(edges=[("a", "b"), ("c",)]),
        f"{GRAPH}.*'edges'",
    ),
    "a missing edge": (lambda b: b["graph"]["edges"].pop(0), f"{GRAPH}.*no edge leads"),
    "a type of nobody": (node("fc1", type="Dense"), f"{GRAPH}.*node 'fc1': type 'Dense'"),
    "an entry without a meaning": (node("fc1", beta=0.9), f"{GRAPH}.*node 'fc1': .*'beta'"),
    "no weight": (drop("graph", "nodes", "fc1", "weight"), f"{GRAPH}.*node 'fc1': .*without 'weight'"),
    "a weight of NaN": (
        weight(lambda w: put(w, (2, 3), torch.nan)),
        r"'fc1': 'weight' holds nan at \(2, 3\)",
    ),
    "a weight of text": (node("fc1", weight="much"), "node 'fc1': 'weight' is str, not numbers"),
    "a complex weight": (weight(lambda w: w.to(torch.complex64)), "node 'fc1': 'weight' is complex64"),
    "a weight of half precision": (weight(lambda w: w.bfloat16()), "node 'fc1': 'weight' is bfloat16"),
    "a weight of one dimension": (weight(lambda w: w.reshape(-1)), r"node 'fc1': 'weight' has shape \(20,\)"),
    "a sparse weight": (
        weight(lambda w: w.to_sparse()),
        "graph.nodes.fc1.weight is a tensor of another kind",
    ),
    "a weight of the meta device": (weight(lambda w: w.to("meta")), "fc1.weight is a tensor of another kind"),
    "a huge weight": (
        weight(lambda w: torch.zeros(1, dtype=w.dtype).expand(1 << 20, 1 << 20)),
        "graph.nodes.fc1.weight declares .1048576, 1048576. values",
    ),
    "a huge tensor elsewhere": (
        lambda b: b["metrics"].update(loss=torch.zeros(1).expand(1 << 40)),
        "metrics.loss declares",
    ),
    "a dictionary inside itself": (within, "metrics.again lies inside itself"),
    "dictionaries without number": (laughs, "more than 262144 entries"),
    "dictionaries without end": (deep, "metrics.* more than 40 levels deep"),
    "a name without end": (lambda b: b["metrics"].update({"n" * 999: 1}), "metrics has a name of 999"),
}
STATES = {
    "no tensors at all": (lambda s: s.clear(), "not a state dict .it is empty"),
    "a number for a tensor": (lambda s: s.update(epoch=3), "not a state dict .'epoch' is a int"),
    "a tensor that is missing": (lambda s: s.pop("fc.bias"), "lacks fc.bias"),
    "a tensor too many": (lambda s: s.update(more=torch.ones(2)), "has more, which the network has not"),
    "a tensor of another shape": (
        lambda s: s.update({"fc.weight": torch.ones(4, 7)}),
        r"fc.weight is \(4, 7\) and the network's \(4, 6\)",
    ),
    "a transposed tensor": (
        lambda s: s.update({"fc.weight": s["fc.weight"].T.contiguous()}),
        r"fc.weight is \(6, 4\)",
    ),
    "NaN": (lambda s: put(s["fc.weight"], (1, 2), torch.nan), r"fc.weight\[1, 2\] is nan"),
    "infinity": (lambda s: put(s["fc.bias"], 3, -torch.inf), r"fc.bias\[3\] is -inf"),
    "complex numbers": (
        lambda s: s.update({"fc.bias": torch.ones(4, dtype=torch.complex64)}),
        "fc.bias is complex64 and the network's float32",
    ),
    "a sparse tensor": (
        lambda s: s.update({"fc.weight": s["fc.weight"].to_sparse()}),
        "fc.weight is a tensor of another kind",
    ),
    "a huge tensor": (
        lambda s: s.update({"fc.weight": torch.zeros(1).expand(1 << 40, 6)}),
        "fc.weight declares",
    ),
    "names twice": (lambda s: s.update({"module.fc.bias": torch.ones(4)}), "both with and without 'module.'"),
}


def told(capsys, path, text):
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1, err
    assert err.startswith("snn-compile: error: ") and str(path) in err and "Traceback" not in err
    assert re.search(text, err), err
    assert len(err) < 600


def refused(capsys, path, text, *flags):
    before = sorted(item.name for item in path.parent.iterdir())
    assert main([str(path), "-o", str(path.with_name("out.snn")), *flags]) == 1
    told(capsys, path, text)
    assert sorted(item.name for item in path.parent.iterdir()) == before


@pytest.mark.parametrize("case", CHECKPOINTS)
def test_a_broken_checkpoint_is_one_line_that_names_file_and_place(tmp_path, capsys, whole, case):
    path = tmp_path / "broken.pt"
    path.write_bytes(whole)
    body = torch.load(path, weights_only=True)
    change, text = CHECKPOINTS[case]
    change(body)
    torch.save(body, path)
    refused(capsys, path, text)


@pytest.mark.parametrize("case", STATES)
def test_a_broken_state_dict_is_one_line_that_names_file_and_tensor(tmp_path, monkeypatch, capsys, case):
    name = "broken_" + re.sub(r"\W", "_", tmp_path.name)
    (tmp_path / f"{name}.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    namespace = {}
    exec(SOURCE, namespace)
    state = dict(namespace["Net"]().state_dict())
    change, text = STATES[case]
    change(state)
    path = tmp_path / "weights.pt"
    torch.save(state, path)
    refused(capsys, path, text, "--model", f"{name}:made")


class Evil:
    def __reduce__(self):
        return print, ("executed",)


def packed(whole, path, change, compression=zipfile.ZIP_STORED):
    """Write the archive again, each member changed."""
    path.write_bytes(whole)
    with zipfile.ZipFile(path) as archive:
        members = [(item.filename, archive.read(item)) for item in archive.infolist()]
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members:
            changed = change(name, data)
            if changed is not None:
                archive.writestr(name, changed)


def test_files_that_are_no_archive_of_torch(tmp_path, capsys, whole):
    path = tmp_path / "broken.pt"
    for share in (0.0, 0.02, 0.5, 0.99):
        path.write_bytes(whole[: int(share * len(whole))])
        refused(capsys, path, "damaged or not")
    path.write_bytes(pickle.dumps({"a": 1}))
    refused(capsys, path, "damaged or not written by torch.save")
    torch.save({"schema": Evil()}, path)
    refused(capsys, path, "need code to be loaded")
    torch.save([1, 2], path)
    refused(capsys, path, "a list")
    torch.save(nn.Linear(2, 2).state_dict(), path)
    refused(capsys, path, "not a checkpoint of snn-compile")
    packed(whole, path, lambda name, data: None if name.endswith("data.pkl") else data)
    refused(capsys, path, "damaged or not")
    packed(whole, path, lambda name, data: None if name.endswith("data/0") else data)
    refused(capsys, path, "damaged or not")
    packed(whole, path, lambda name, data: data[:1] if name.endswith("data/0") else data)
    refused(capsys, path, "damaged or not")


def test_an_archive_that_unpacks_to_more_than_it_is(tmp_path, capsys, whole):
    path = tmp_path / "bomb.pt"
    packed(
        whole,
        path,
        lambda name, data: bytes(1 << 26) if name.endswith("data/0") else data,
        zipfile.ZIP_DEFLATED,
    )
    assert path.stat().st_size < 1 << 20
    refused(capsys, path, "declares 67,.* bytes and holds")
