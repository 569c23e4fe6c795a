"""Reader of `.nir` files; every entry is checked before nir sees it, so that errors name file and node.

The format: a group `node` that is a NIRGraph: `type`, `edges` as pairs of names, and a group `nodes` with one
sub-group per node, which holds `type` and its parameters (`ENTRIES`), or is a graph again. The sizes within a
node must agree. Whether edges join equal shapes is nir's type check; a file that fails only this check is
read with a warning, and lowering checks the shapes again.
"""

from __future__ import annotations

import logging
import os
from math import prod
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import nir
import numpy as np

from snn_compile.compiler.frontends.checked import Entries
from snn_compile.compiler.frontends.hdf5 import opened
from snn_compile.compiler.frontends.nir_extensions import EXTENSIONS
from snn_compile.compiler.frontends.nir_types import with_output_type
from snn_compile.targets.errors import CompileError, UnsupportedNode, one_line

NEURONS_MAX = 1 << 22
"""Most neurons of a node, or channels of a port: four times a Loihi 2 chip."""

NODES_MAX, EDGES_MAX = 2048, 8192
NESTING_MAX = 16
"""Deepest nesting of graphs."""

CHECK_MAX = 1 << 26
"""Most comparisons of nir's type check: it compares all edges with each other, and nested graphs once for
each edge that leads into them."""

SIZE_MAX = 1 << 20
"""Largest stride, padding, window or dilation."""

METADATA_MAX = 1 << 20
"""Most bytes of a string, and values of an array, in metadata."""


class NodeFormat(NamedTuple):
    """Entries of a node in a file besides `type` and `metadata`, and the sizes that they must have.

    `rank`: dimensions of `weight`; `planes`: dimensions of windows and strides.
    """

    needed: frozenset[str]
    optional: frozenset[str] = frozenset()
    rank: int = 0
    planes: int = 0


def _format(needed: str = "", optional: str = "", rank: int = 0, planes: int = 0) -> NodeFormat:
    return NodeFormat(frozenset(needed.split()), frozenset(optional.split()), rank, planes)


ENTRIES: dict[str, NodeFormat] = {
    "Input": _format("shape"),
    "Output": _format("shape"),
    "Affine": _format("weight bias", rank=2),
    "Linear": _format("weight", rank=2),
    "Scale": _format("scale"),
    "Conv1d": _format("weight bias stride padding dilation groups", "input_shape", rank=3, planes=1),
    "Conv2d": _format("weight bias stride padding dilation groups", "input_shape", rank=4, planes=2),
    "SumPool2d": _format("kernel_size stride padding", planes=2),
    "AvgPool2d": _format("kernel_size stride padding", planes=2),
    "Flatten": _format("", "start_dim end_dim input_type"),
    "Delay": _format("delay"),
    "Threshold": _format("threshold"),
    "I": _format("r"),
    "IF": _format("r v_threshold", "v_reset"),
    "LI": _format("tau r v_leak"),
    "LIF": _format("tau r v_leak v_threshold", "v_reset"),
    "CubaLI": _format("tau_syn tau_mem r v_leak", "w_in"),
    "CubaLIF": _format("tau_syn tau_mem r v_leak v_threshold", "v_reset w_in"),
    "NIRGraph": _format("nodes edges", "version"),
}
"""The format of each type of node of NIR."""


def node_formats() -> dict[str, NodeFormat]:
    """Return the format of each type of node, extension nodes included."""
    return ENTRIES | {name: NodeFormat(frozenset(node.entries())) for name, node in EXTENSIONS.items()}


PER_NEURON = frozenset("r v_leak v_threshold v_reset tau tau_mem tau_syn".split())
"""Entries that have the shape of the neurons."""

LEAST = {"shape": 1, "input_shape": 1, "input_type": 1, "kernel_size": 1, "stride": 1, "dilation": 1}
LEAST |= {"groups": 1, "padding": 0, "start_dim": -8, "end_dim": -8}
"""Entries that are a few integers, and the smallest value of each."""

FEW_MAX = 8

log = logging.getLogger(__name__)

Data = dict[str, Any]


def read_nir(path: str | os.PathLike[str]) -> Any:
    """Return the nir.NIRGraph in a file; raises CompileError, naming file and node, if it is damaged."""
    file = Path(path)
    with opened(file, "a NIR graph") as root:
        data = _node(root.child("node", "the graph"), "", 0)
    return _graph_of(data, file)


def graph_from(entries: Entries) -> Any:
    """Return the nir.NIRGraph that entries of any format describe, checked as `read_nir` does."""
    return _graph_of(_node(entries, "", 0), Path(entries.path))


def _graph_of(data: Data, file: Path) -> Any:
    """Return the graph that checked entries describe."""
    if data["type"] != "NIRGraph":
        raise CompileError(f"{file} holds a single {data['type']} node, not a graph", path=str(file))
    for name, written, meant in _mend_edges(data):
        text = "%s: edges of %s name %r, which does not exist; reading it as %r, which no edge names"
        log.warning(text, file, name, written, meant)
    if _check_edges(data, file) > CHECK_MAX:
        raise CompileError(f"{file}: too many edges and nested graphs; write the graph flat", path=str(file))
    if _leaves_shapes_open(data):  # nir would infer them wrongly or not at all; lowering infers them
        return _build(data, file, check=False)
    try:
        graph = _build(data, file, check=True)
        for name in sorted(graph.nodes.keys() - data["nodes"].keys()):
            kind = type(graph.nodes[name]).__name__
            log.warning("%s: there is no %s node; %r is used as one", file, kind, name)
        return graph
    except CompileError:
        raise
    except Exception as error:
        graph = _build(data, file, check=False)
        log.warning(
            "%s: nir's type check fails (%s); shapes are checked during lowering instead",
            file,
            one_line(error),
        )
        return graph


def _node(group: Entries, name: str, depth: int) -> Data:
    """Return a node's type and entries, nested graphs as dictionaries of such."""
    kind = group.text("type")
    formats = node_formats()
    if kind not in formats:
        group.fail(
            f"type {kind!r} is neither one of NIR 1.0.8 nor an extension of it ({', '.join(formats)})",
            UnsupportedNode,
        )
    needed, optional = formats[kind].needed, formats[kind].optional
    if missing := sorted(key for key in needed if key not in group):
        group.fail(f"a {kind} without {', '.join(map(repr, missing))}; write the file again")
    group.only(needed | optional | {"type", "metadata"}, f"a {kind}")
    found: Data = {"type": kind}
    if "metadata" in group:
        found["metadata"] = _metadata(group.child("metadata"))
    if kind == "NIRGraph":
        return found | _graph(group, name, depth)
    for key in sorted(needed | optional):
        if key in group and not _empty(group, key):
            found[key] = _entry(group, key)
    if "input_shape" in optional:
        found.setdefault("input_shape", None)  # nir asks for it, and works it out from the edges
    _check_sizes(group, found)
    return found


def _empty(group: Entries, key: str) -> bool:
    """Whether a shape of a node's input holds no numbers: so does sinabs write one that is not known."""
    return key in ("input_shape", "input_type") and np.size(group.array(key, FEW_MAX)) == 0


def _entry(group: Entries, key: str) -> Any:
    if key not in LEAST:
        return group.finite(key)
    if key == "padding" and group.is_text(key):
        word = group.text(key)
        if word not in ("same", "valid"):
            group.fail(f"padding {word!r}; use 'same', 'valid' or numbers")
        return word
    least = LEAST[key]
    most = NEURONS_MAX if key in ("shape", "input_shape", "input_type", "groups") else SIZE_MAX
    values = group.numbers(key, FEW_MAX, least, most)
    if not values.size:
        group.fail(f"{key!r} is empty")
    if key in ("shape", "input_type") and prod(values.reshape(-1).tolist()) > NEURONS_MAX:
        declared = tuple(values.reshape(-1).tolist())
        group.fail(f"{key} {declared} declares {prod(declared)} values; {NEURONS_MAX} are possible")
    return group.array(key, FEW_MAX)  # as it is stored: the contract is bound to a number's type and shape


def _check_sizes(group: Entries, node: Data) -> None:
    """Refuse sizes that contradict each other within a node."""
    kind = node["type"]
    form, extension = node_formats()[kind], EXTENSIONS.get(kind)
    per_neuron = PER_NEURON if extension is None else frozenset(extension.per_neuron())
    if extension is None:
        _spread_single_values(node, per_neuron)
    neuron = {key: np.shape(node[key]) for key in sorted(per_neuron & node.keys())}
    if len(set(neuron.values())) > 1:
        a, b = next((a, b) for a in neuron for b in neuron if neuron[a] != neuron[b])
        group.fail(f"{a} has shape {neuron[a]} and {b} {neuron[b]}; parameters of a {kind} share one shape")
    for key in sorted(({"w_in", "threshold", "scale", "delay"} & node.keys()) | neuron.keys()):
        shape = np.shape(node[key])
        if not prod(shape) or prod(shape) > NEURONS_MAX or len(shape) > FEW_MAX:
            group.fail(f"{key!r} has shape {shape}; 1 to {NEURONS_MAX} values are possible")
    if "w_in" in node and prod(np.shape(node["w_in"])) > 1 and np.shape(node["w_in"]) != neuron["r"]:
        group.fail(f"w_in has shape {np.shape(node['w_in'])} and r {neuron['r']}; they must share one")
    if extension and (text := extension.mismatch({key: np.shape(node[key]) for key in extension.entries()})):
        group.fail(text)
    if form.rank:
        shape = np.shape(node["weight"])
        if len(shape) != form.rank or not prod(shape):
            group.fail(f"'weight' has shape {shape}; a {kind} has {form.rank} dimensions, none of them 0")
        if "bias" in node and np.shape(node["bias"]) != shape[:1]:
            group.fail(
                f"'bias' has shape {np.shape(node['bias'])} for {shape[0]} rows or channels of 'weight'"
            )
    sizes = {"stride", "padding", "dilation", "kernel_size", "input_shape"} if extension is None else set()
    for key in sorted(sizes & node.keys()):
        if (
            node[key] is not None
            and not isinstance(node[key], str)
            and np.size(node[key]) not in (1, form.planes)
        ):
            group.fail(f"{key!r} has {np.size(node[key])} values; a {kind} has {form.planes}")
    if "groups" in node and np.ndim(node["groups"]):
        group.fail(f"'groups' has shape {np.shape(node['groups'])}; it is one number")


def _spread_single_values(node: Data, keys: frozenset[str]) -> None:
    """Repeat parameters of one value over the shape of a node's other parameters, as nir expects them."""
    shapes = {np.shape(node[key]) for key in keys & node.keys()}
    full = {shape for shape in shapes if prod(shape) != 1}
    target = full.pop() if len(full) == 1 else max(shapes, key=len, default=())
    if full or len(shapes) < 2:
        return  # nothing to repeat, or sizes that differ, which the caller reports
    for key in keys & node.keys():
        if np.shape(node[key]) != target:
            node[key] = np.full(target, np.reshape(node[key], ())[()])


def _graph(group: Entries, name: str, depth: int) -> Data:
    if depth > NESTING_MAX:
        group.fail(f"graphs nested more than {NESTING_MAX} deep; write the graph flat")
    nodes = group.child("nodes", group.where.removeprefix(group.path + ": "))
    names = nodes.keys()
    if len(names) > NODES_MAX:
        nodes.fail(f"{len(names)} nodes; at most {NODES_MAX} are read")
    found = {}
    for key in names:
        for inner, node in _named(nodes, key, f"{name}." if name else "").items():
            found[inner] = _node(node, f"{name}.{inner}" if name else inner, depth + 1)
    if len(found) > NODES_MAX:
        nodes.fail(f"{len(found)} nodes; at most {NODES_MAX} are read")
    return {"nodes": found, "edges": _edges(group)}


def _named(nodes: Entries, key: str, prefix: str) -> dict[str, Entries]:
    """Return the nodes in an entry by name: HDF5 makes a group of every part of a name with `/`."""
    child = nodes.child(key, f"node {prefix + key!r}")
    if "type" in child or not child.keys() or not all(child.holds(inner) for inner in child.keys()):  # noqa: SIM118
        return {key: child}
    found: dict[str, Entries] = {}
    for inner in child.keys():  # noqa: SIM118 - not a dictionary
        found |= {f"{key}/{name}": node for name, node in _named(child, inner, f"{prefix}{key}/").items()}
    return found


def _edges(group: Entries) -> list[tuple[str, str]]:
    if not group.is_text("edges"):
        empty = group.array("edges", 2 * EDGES_MAX)
        if np.size(empty):
            group.fail(f"'edges' are {np.asarray(empty).dtype}, not names of nodes")
        return []
    pairs = group.strings("edges", 2 * EDGES_MAX)
    if pairs.size and (pairs.ndim != 2 or pairs.shape[1] != 2):
        group.fail(f"'edges' has shape {pairs.shape}; (edges, 2) is expected, source and target by name")
    return [(str(a), str(b)) for a, b in pairs.reshape(-1, 2)]


def _metadata(group: Entries) -> Data:
    found: Data = {}
    for key in group.keys():  # noqa: SIM118 - not a dictionary
        if group.holds(key):
            found[key] = _metadata(group.child(key))
        elif not group.is_text(key):
            found[key] = group.array(key, METADATA_MAX)
        else:
            words = group.strings(key, METADATA_MAX >> 4, METADATA_MAX)
            found[key] = str(words[()]) if words.ndim == 0 else words
    return found


def _mend_edges(data: Data, name: str = "the graph") -> list[tuple[str, str, str]]:
    """Rename an end of edges that names no node, where exactly one node is named by no edge.

    Nested graphs whose node was renamed after its edges are written like that. Returns the changes.
    """
    nodes, pairs = data["nodes"], data["edges"]
    changed = [item for key, node in nodes.items() if "nodes" in node for item in _mend_edges(node, key)]
    named = {end for edge in pairs for end in edge}
    missing, unnamed = sorted(named - nodes.keys()), sorted(nodes.keys() - named)
    if len(missing) == len(unnamed) == 1:
        data["edges"] = [tuple(unnamed[0] if end == missing[0] else end for end in edge) for edge in pairs]
        changed.append((name, missing[0], unnamed[0]))
    return changed


def _check_edges(data: Data, file: Path, prefix: str = "") -> int:
    """Refuse edges between missing nodes; return the number of comparisons of nir's type check."""
    nodes, edges = data["nodes"], data["edges"]
    for edge in edges:
        for end in edge:
            if end not in nodes:
                there = ", ".join(sorted(nodes)[:8]) + (", ..." if len(nodes) > 8 else "")
                text = f"edge {prefix + edge[0]!r} -> {prefix + edge[1]!r}: there is no such node as {end!r}"
                _fail(file, prefix + end, f"{text} (there is {there or 'none'})")
    _check_ends(data, file, prefix)
    costs = {
        key: _check_edges(node, file, f"{prefix}{key}.") for key, node in nodes.items() if "nodes" in node
    }
    return len(edges) ** 2 + sum(costs.values()) + 2 * sum(costs.get(b, 0) for _, b in edges)


def _check_ends(data: Data, file: Path, prefix: str) -> None:
    """Refuse nodes without an incoming or outgoing edge: nir would silently make them inputs or outputs.

    A graph without any Input, or without any Output, is left to nir, with a warning of what it adds.
    """
    kinds = {key: node["type"] for key, node in data["nodes"].items()}
    for end, kind, text in ((1, "Input", "no edge leads to it"), (0, "Output", "no edge leads on from it")):
        joined = {edge[end] for edge in data["edges"]}
        loose = sorted(key for key in kinds if key not in joined and kinds[key] != kind)
        if loose and kind in kinds.values():
            advice = f"add one, take the node out, or join it to an {kind} node"
            _fail(file, prefix + loose[0], f"node {prefix + loose[0]!r}: {text}; {advice}")


def _leaves_shapes_open(data: Data) -> bool:
    """Whether a graph with ports has shapes to infer from the input of a node."""
    nodes = list(data["nodes"].values())
    kinds = {node["type"] for node in nodes}
    return {"Input", "Output"} <= kinds and any(_open_shape(node) for node in nodes)


def _open_shape(node: Data) -> bool:
    kind = node["type"]
    if kind == "NIRGraph":
        return any(_open_shape(inner) for inner in node["nodes"].values())
    if kind in ("Conv1d", "Conv2d"):
        return node["input_shape"] is None
    if kind == "Flatten":
        return "input_type" not in node
    return kind not in EXTENSIONS and any(prod(np.shape(node[key])) == 1 for key in PER_NEURON & node.keys())


def _build(data: Data, file: Path, check: bool, name: str = "") -> Any:
    """Return the nir node that checked data describe; errors of nir name the node."""
    if data["type"] == "NIRGraph":
        inner = f"{name}." if name else ""
        nodes = {key: _build(node, file, check, inner + key) for key, node in data["nodes"].items()}
        metadata = dict(data.get("metadata", {}))
        return nir.NIRGraph(nodes, list(data["edges"]), metadata=metadata, type_check=check)
    try:
        with np.errstate(all="ignore"):
            if extension := EXTENSIONS.get(data["type"]):
                return extension.from_dict(dict(data))
            return with_output_type(nir.dict2NIRNode(dict(data)))
    except Exception as error:
        _fail(file, name, f"node {name!r}: nir refuses it ({type(error).__name__}: {one_line(error)})")


def _fail(file: Path, node: str, text: str) -> NoReturn:
    raise CompileError(f"{file}: {text}", path=str(file), node=node)
