"""Content as JSON values and arrays, and its digest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import Field, fields, is_dataclass
from typing import Any

import numpy as np
import numpy.typing as npt


def encode(value: Any, arrays: list[npt.NDArray[Any]] | None = None) -> tuple[Any, list[Any]]:
    """Return a dataclass tree as JSON values and the arrays that it refers to by index."""
    found: list[npt.NDArray[Any]] = [] if arrays is None else arrays
    if is_dataclass(value):
        body: Any = {
            f.name: encode(getattr(value, f.name), found)[0] for f in fields(value) if _stated(value, f)
        }
    elif isinstance(value, Mapping):
        body = {str(key): encode(item, found)[0] for key, item in value.items()}
    elif isinstance(value, (tuple, list)):
        body = [encode(item, found)[0] for item in value]
    elif hasattr(value, "indptr"):
        parts = {key: encode(getattr(value, key), found)[0] for key in ("data", "indices", "indptr")}
        body = {"sparse": parts, "shape": [int(n) for n in value.shape]}
    elif isinstance(value, np.ndarray):
        found.append(value)
        body = {"array": len(found) - 1}
    else:
        body = value
    return body, found


def _stated(value: Any, field: Field[Any]) -> bool:
    # A field that came later stays out where it says nothing, so that what was written before is the same.
    return not (field.metadata.get("later") and getattr(value, field.name) == field.default)


def content_digest(body: Any, arrays: list[npt.NDArray[Any]]) -> str:
    """Return the SHA-256 over canonical JSON and every array's type, shape and bytes.

    Provenance items that the item `undigested` names do not count, such as the model's file name.
    """
    provenance = body.get("provenance", {}) if isinstance(body, dict) else {}
    if names := str(provenance.get("undigested", "")).split():
        counted = {key: value for key, value in provenance.items() if key not in names}
        body = {**body, "provenance": counted}
    digest = hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode())
    for array in arrays:
        little = array.astype(array.dtype.newbyteorder("<"), copy=False)
        digest.update(f"{array.dtype.name}{array.shape}".encode() + little.tobytes())
    return digest.hexdigest()
