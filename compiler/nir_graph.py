"""Reading `.nir` files, with errors that a person can act on."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from snn_compile.targets.errors import CompileError

BYTES_MAX = 1 << 31
"""Largest data set that is read, in bytes; a chip holds a thousandth of it."""

log = logging.getLogger(__name__)


def read_nir(path: str | os.PathLike[str]) -> Any:
    """Return the nir.NIRGraph in a file; raises CompileError if it is missing or not a NIR graph."""
    import nir

    file = Path(path)
    if not file.is_file():
        raise CompileError(f"no file at {file}", path=str(file))
    try:
        graph = _read(file)
    except Exception as error:  # nir and h5py raise whatever they stumble over
        raise CompileError(
            f"{file} cannot be read as a NIR graph ({type(error).__name__}: {_one_line(error)})",
            path=str(file),
        ) from error
    if not isinstance(graph, nir.NIRGraph):
        raise CompileError(f"{file} holds a single {type(graph).__name__} node, not a graph", path=str(file))
    return graph


def _read(file: Path) -> Any:
    """Read a graph; one that fails only nir's own check of shapes is read without it, and said so."""
    import h5py
    import nir

    with h5py.File(file, "r") as stream:
        if "node" not in stream:
            raise ValueError("there is no group 'node'")
        data = _values(stream["node"])
    for name, said, meant in _mend_edges(data):
        log.warning("%s: edges of %s name %r, which is not there; %r, which no edge names, is meant", file,
                    name, said, meant)  # fmt: skip
    try:
        return nir.dict2NIRNode(_checked(data, True))
    except Exception as error:
        try:
            graph = nir.dict2NIRNode(_checked(data, False))
        except Exception:
            raise error from None
        log.warning(
            "%s: nir's own check refuses it (%s); its shapes are checked here", file, _one_line(error)
        )
        return graph


def _values(group: Any) -> dict[str, Any]:
    """Return a group's content as nested dictionaries; raises ValueError on a data set too large."""
    import h5py

    found: dict[str, Any] = {}
    for key, item in group.items():
        if isinstance(item, h5py.Group):
            found[key] = _values(item)
        elif item.nbytes > BYTES_MAX:
            # A compressed or unwritten data set can declare far more than its file holds.
            raise ValueError(f"{item.name} declares {item.nbytes:,} bytes, more than {BYTES_MAX:,}")
        else:
            value = item[()]
            found[key] = value.decode("utf8") if isinstance(value, bytes) else value
    return found


def _mend_edges(data: dict[str, Any], name: str = "the graph") -> list[tuple[str, str, str]]:
    """Rename what edges say where one name is missing and one node is named by no edge.

    So are nested graphs written that had a node renamed after its edges. Returns what was changed.
    """
    nodes, edges = data.get("nodes"), data.get("edges")
    if not isinstance(nodes, dict) or edges is None:
        return []
    changed = [
        item for key, node in nodes.items() if isinstance(node, dict) for item in _mend_edges(node, key)
    ]
    pairs = [[end.decode() if isinstance(end, bytes) else str(end) for end in edge] for edge in edges]
    said = {end for edge in pairs for end in edge}
    missing, unnamed = sorted(said - nodes.keys()), sorted(nodes.keys() - said)
    if len(missing) == len(unnamed) == 1:
        pairs = [[unnamed[0] if end == missing[0] else end for end in edge] for edge in pairs]
        data["edges"] = pairs
        changed.append((name, missing[0], unnamed[0]))
    return changed


def _checked(data: dict[str, Any], check: bool) -> dict[str, Any]:
    """Return the dictionary with nir's switch for its type check in every graph."""
    copy = {key: _checked(value, check) if isinstance(value, dict) else value for key, value in data.items()}
    if copy.get("type") == "NIRGraph":
        copy["type_check"] = check
    return copy


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or "no reason given"
