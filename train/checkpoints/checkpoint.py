"""Checkpoints: in one file the NIR graph as it was when saved, the weights, and their origin.

The file is torch's, and holds tensors and plain values only: reading it never runs code from it
(`weights_only=True`), and compiling it needs no class of the network. Arrays of the graph are
stored as tensors of the same type; the graph's metadata, its contract among it, comes back word
for word. A digest of the graph, checked on loading, detects a damaged file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from snn_compile.compiler.contract.contract import graph_digest
from snn_compile.compiler.frontends.nir import graph_from
from snn_compile.targets.errors import CompileError, ExportError, one_line
from snn_compile.targets.output import write_whole
from snn_compile.train.checkpoints.torch_file import PlainEntries, read_plain
from snn_compile.train.export.to_nir import to_nir, unexportable

SCHEMA = "snn-checkpoint"
SCHEMA_VERSION = 1
_KEYS = ("graph", "graph_digest", "state_dict", "config", "metrics", "data", "versions")


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What a checkpoint file holds; everything but `graph` is plain values and tensors.

    `graph` is None for a network without a NIR counterpart, and `unexported` then says why.
    `data` is a `Dataset.spec()` or None; `versions` names the packages that wrote the file;
    `schema` is its {"name", "version"}.
    """

    graph: Any
    state_dict: Mapping[str, Tensor]
    config: Mapping[str, Any]
    metrics: Mapping[str, Any]
    data: Mapping[str, Any] | None
    versions: Mapping[str, str]
    schema: Mapping[str, Any]
    unexported: str = ""

    def digest(self) -> str:
        """Return the SHA-256 of the graph's nodes, parameters and edges."""
        return graph_digest(self.graph)

    def checked_graph(self, name: str) -> Any:
        """Return the graph; raises ExportError, naming the file, where there is none."""
        if self.graph is None:
            raise ExportError(f"{name}: holds no graph to compile: {self.unexported}")
        return self.graph


def save_checkpoint(
    path: str | Path,
    module: nn.Module,
    sample_input: Any,
    *,
    config: Mapping[str, Any] | None = None,
    metrics: Mapping[str, Any] | None = None,
    data: Mapping[str, Any] | None = None,
    dt: float | None = None,
) -> None:
    """Export `module` (see `to_nir`) and write it with its weights, whole or not at all.

    `config`, `metrics` and `data` (a `Dataset.spec()`) are plain values, arrays or tensors.
    A network of this package without a NIR counterpart is written without a graph. Raises ExportError when
    another module has none, a value is not plain, or the file cannot be written.
    """
    made = checkpoint_of(module, sample_input, config=config, metrics=metrics, data=data, dt=dt)
    body = {
        "schema": dict(made.schema),
        "graph": None if made.graph is None else _plain(made.graph.to_dict(), "graph"),
        "graph_digest": "" if made.graph is None else made.digest(),
        "unexported": made.unexported,
        **{key: getattr(made, key) for key in ("state_dict", "config", "metrics", "data", "versions")},
    }

    def write(file: Path) -> None:
        try:
            torch.save(body, file)
        except RuntimeError as error:  # how torch reports a full disk
            raise OSError(one_line(error)) from error

    write_whole(path, write, ExportError)


def checkpoint_of(
    module: nn.Module,
    sample_input: Any,
    *,
    config: Mapping[str, Any] | None = None,
    metrics: Mapping[str, Any] | None = None,
    data: Mapping[str, Any] | None = None,
    dt: float | None = None,
) -> Checkpoint:
    """Export `module` and return its checkpoint; arguments and errors are those of `save_checkpoint`."""
    unexported = unexportable(module)
    return Checkpoint(
        graph=None if unexported else to_nir(module, sample_input, dt),
        unexported=unexported,
        state_dict=_plain(dict(module.state_dict()), "state_dict"),
        config=_plain(config or {}, "config"),
        metrics=_plain(metrics or {}, "metrics"),
        data=None if data is None else _plain(data, "data"),
        versions=_versions(module),
        schema={"name": SCHEMA, "version": SCHEMA_VERSION},
    )


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint without executing anything in it.

    Raises ExportError, naming the file, when it is missing, damaged, not a checkpoint, of a newer
    schema, or holds anything but tensors and plain values.
    """
    path = Path(path)
    if not path.is_file():
        raise ExportError(f"{path}: no such checkpoint file", path=str(path))
    body = read_plain(path)
    schema = body.get("schema")
    if not isinstance(schema, dict) or schema.get("name") != SCHEMA:
        raise ExportError(
            f"{path}: not a checkpoint of snn-compile; save one with train.save_checkpoint, or say what "
            "builds the network: --model package.module:factory",
            path=str(path),
        )
    if type(schema.get("version")) is not int or not 1 <= schema["version"] <= SCHEMA_VERSION:
        raise ExportError(
            f"{path}: checkpoint of version {schema.get('version')}; this reads up to "
            f"{SCHEMA_VERSION}; a newer snn-compile wrote it",
            path=str(path),
        )
    if missing := [key for key in _KEYS if key not in body]:
        raise ExportError(
            f"{path}: the checkpoint lacks {', '.join(missing)}; save it again",
            path=str(path),
            missing=missing,
        )
    _check_kinds(body, path)
    rest = {key: body[key] for key in _KEYS if key not in ("graph", "graph_digest")}
    if body["graph"] is None:
        return Checkpoint(graph=None, schema=schema, unexported=body["unexported"], **rest)
    try:
        graph = graph_from(PlainEntries(body["graph"], f"{path}: the graph", str(path)))
    except CompileError as error:
        said = str(error).removeprefix(f"{path}: ")
        raise ExportError(
            f"{path}: the graph in the checkpoint cannot be read ({said}); save it again",
            **{**error.facts, "path": str(path)},
        ) from error
    if graph_digest(graph) != body["graph_digest"]:
        raise ExportError(
            f"{path}: the graph does not match its digest; the file is damaged or was edited, save it again",
            path=str(path),
        )
    return Checkpoint(graph=graph, schema=schema, **rest)


def _check_kinds(body: Mapping[str, Any], path: Path) -> None:
    """Refuse entries of a checkpoint that are of another kind than `save_checkpoint` writes."""
    wrong = [
        key for key in ("state_dict", "config", "metrics", "versions") if not isinstance(body[key], dict)
    ]
    if not wrong:
        state = body["state_dict"].items()
        wrong = [f"state_dict.{key}" for key, value in state if not isinstance(value, Tensor)]
    data = body["data"]
    spec = data if isinstance(data, dict) else {}
    if data is not None and not (isinstance(spec.get("name"), str) and isinstance(spec.get("options"), dict)):
        wrong.append("data")
    said = body.get("unexported")
    if not isinstance(body["graph"], dict) and not (body["graph"] is None and said and isinstance(said, str)):
        wrong.append("graph")
    if wrong:
        first = wrong[0]
        raise ExportError(
            f"{path}: {first} in the checkpoint cannot be read: it is not what save_checkpoint writes; save "
            "it again",
            path=str(path),
            wrong=wrong,
        )


def _plain(value: Any, where: str) -> Any:
    """Return `value` as tensors and plain values, the only things a checkpoint holds."""
    if isinstance(value, Tensor):
        return value.detach().cpu().clone()
    if isinstance(value, Mapping):
        return {str(key): _plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item, where) for item in value]
    if isinstance(value, tuple):
        return tuple(_plain(item, where) for item in value)
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        return torch.from_numpy(np.array(value))
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise ExportError(
        f"{where}: a {type(value).__name__} cannot be stored in a checkpoint; give plain "
        "values, arrays or tensors",
        key=where,
    )


def _versions(module: nn.Module) -> dict[str, str]:
    found = {}
    packages = ["snn-compile", "torch", "numpy", "nir"]
    if any(type(layer).__module__.startswith("snntorch.") for layer in module.modules()):
        packages.append("snntorch")
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "unknown"
    return found
