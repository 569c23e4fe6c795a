"""Checkpoints: in one file the NIR graph as it was when saved, the weights, and their origin.

The file is torch's, and holds tensors and plain values only: reading it never runs code from it
(`weights_only=True`), and compiling it needs no class of the network. Arrays of the graph are
stored as tensors of the same type; the graph's metadata, its contract among it, comes back word
for word. A digest of the graph, checked on loading, tells a damaged file.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import nir
import numpy as np
import torch
from torch import Tensor, nn

from snn_compile.compiler.conventions import graph_digest
from snn_compile.targets.errors import ExportError
from snn_compile.train.export import to_nir

SCHEMA = "snn-checkpoint"
SCHEMA_VERSION = 1
_KEYS = ("graph", "graph_digest", "state_dict", "config", "metrics", "data", "versions")


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What a checkpoint file holds; everything but `graph` is plain values and tensors.

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

    def digest(self) -> str:
        """Return the SHA-256 of the graph's nodes, parameters and edges."""
        return graph_digest(self.graph)


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
    Raises ExportError when the module has no NIR counterpart, a value is not plain, or the file
    cannot be written.
    """
    made = checkpoint_of(module, sample_input, config=config, metrics=metrics, data=data, dt=dt)
    body = {
        "schema": dict(made.schema),
        "graph": _plain(made.graph.to_dict(), "graph"),
        "graph_digest": made.digest(),
        **{key: getattr(made, key) for key in ("state_dict", "config", "metrics", "data", "versions")},
    }
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        torch.save(body, partial)
        os.replace(partial, path)
    except (OSError, RuntimeError) as error:
        raise ExportError(f"{path}: cannot be written ({_one_line(error)})", path=str(path)) from error
    finally:
        partial.unlink(missing_ok=True)


def checkpoint_of(
    module: nn.Module,
    sample_input: Any,
    *,
    config: Mapping[str, Any] | None = None,
    metrics: Mapping[str, Any] | None = None,
    data: Mapping[str, Any] | None = None,
    dt: float | None = None,
) -> Checkpoint:
    """Export `module` and return what its checkpoint holds; see `save_checkpoint`."""
    return Checkpoint(
        graph=to_nir(module, sample_input, dt),
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
    if not isinstance(schema.get("version"), int) or schema["version"] > SCHEMA_VERSION:
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
    try:
        graph = nir.NIRGraph.from_dict(_arrays(body["graph"]))
        intact = graph_digest(graph) == body["graph_digest"]
    except Exception as error:  # whatever a malformed graph makes nir trip over
        raise ExportError(
            f"{path}: the graph in the checkpoint cannot be read ({_one_line(error)})", path=str(path)
        ) from error
    if not intact:
        raise ExportError(f"{path}: the graph does not match its digest; the file is damaged", path=str(path))
    rest = {key: body[key] for key in _KEYS if key not in ("graph", "graph_digest")}
    return Checkpoint(graph=graph, schema=schema, **rest)


def read_plain(path: Path) -> dict[str, Any]:
    """Return the dictionary of tensors and plain values in a file of torch, running no code from it."""
    try:
        body = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises half a dozen classes on files that are not its own
        reason = _one_line(error)
        if "weights_only" in reason.lower() or "Unsupported" in reason:
            raise ExportError(
                f"{path}: holds objects that need code to be loaded, and was not read; "
                "save it with train.save_checkpoint",
                path=str(path),
            ) from error
        raise ExportError(f"{path}: damaged or not a checkpoint ({reason[:120]})", path=str(path)) from error
    if not isinstance(body, dict):
        raise ExportError(
            f"{path}: not a checkpoint of snn-compile but a {type(body).__name__}", path=str(path)
        )
    return body


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


def _arrays(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.numpy()
    if isinstance(value, dict):
        return {key: _arrays(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_arrays(item) for item in value)
    return value


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


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
