"""Reading untrusted files of torch.save: tensors and plain values, without running code, within limits.

`torch.load(weights_only=True)` keeps code out. Not sizes: an archive can be compressed, a tensor of one value
can declare any shape, a dictionary can lie inside itself or be there a thousand million times. Such files
are refused, with the file and the entry in the error.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from snn_compile.compiler.frontends.checked import (
    DEPTH_MAX,
    NAME_MAX,
    TEXT_MAX,
    TOTAL_MAX,
    VALUES_MAX,
    Entries,
)
from snn_compile.targets.errors import ExportError, one_line

ENTRIES_MAX = 1 << 18
"""Values, tensors and dictionaries of a file: a training script's optimizer and history count as well."""


def read_plain(path: Path) -> dict[str, Any]:
    """Return the dictionary of tensors and plain values in a file of torch, running no code from it."""
    _check_archive(path)
    try:
        body = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises half a dozen classes on files that are not its own
        message = str(error)
        if "weights_only" in message.lower() or "Unsupported" in message:
            raise ExportError(
                f"{path}: holds objects that need code to be loaded, and was not read; "
                "save it with train.save_checkpoint, or the state dict alone",
                path=str(path),
            ) from error
        raise ExportError(
            f"{path}: damaged or not a checkpoint ({one_line(error)[:120]})", path=str(path)
        ) from error
    if not isinstance(body, dict):
        raise ExportError(
            f"{path}: not a checkpoint of snn-compile but a {type(body).__name__}; save a dictionary",
            path=str(path),
        )
    _Walk(path).over(body, "", ())
    return body


def _check_archive(path: Path) -> None:
    """Raise ExportError for a file that is no archive of torch.save, or unpacks to more than its size."""
    try:
        with zipfile.ZipFile(path) as archive:
            declared = sum(item.file_size for item in archive.infolist())
    except Exception as error:  # a damaged directory raises whatever it likes
        raise ExportError(
            f"{path}: damaged or not written by torch.save since 1.6 ({one_line(error)[:100]}); save it anew",
            path=str(path),
        ) from error
    if declared > os.path.getsize(path):
        raise ExportError(
            f"{path}: declares {declared:,} bytes and holds {os.path.getsize(path):,}; torch.save does not "
            "compress",
            path=str(path),
        )


class _Walk:
    """One bounded walk over the whole content of a file, so that later code can rely on its types."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries = self.values = 0

    def fail(self, where: str, text: str) -> None:
        raise ExportError(f"{self.path}: {where or 'the file'} {text}", path=str(self.path), key=where)

    def over(self, value: Any, where: str, above: tuple[int, ...]) -> None:
        self.entries += 1
        if self.entries > ENTRIES_MAX:
            self.fail(where, f"brings it to more than {ENTRIES_MAX} entries; save less in it")
        if isinstance(value, Tensor):
            self._tensor(value, where)
        elif isinstance(value, (Mapping, list, tuple)):
            if id(value) in above:
                self.fail(where, "lies inside itself")
            if len(above) > DEPTH_MAX:
                self.fail(where[:60] + "...", f"lies more than {DEPTH_MAX} levels deep")
            pairs = value.items() if isinstance(value, Mapping) else enumerate(value)
            for key, item in pairs:
                if len(str(key)) > NAME_MAX:
                    self.fail(where, f"has a name of {len(str(key))} characters; use {NAME_MAX}")
                self.over(item, f"{where}.{key}" if where else str(key), (*above, id(value)))

    def _tensor(self, value: Tensor, where: str) -> None:
        if value.layout != torch.strided or value.device.type != "cpu" or value.is_quantized:
            kind = (
                "quantized" if value.is_quantized else value.layout if value.device.type == "cpu" else "empty"
            )
            self.fail(where, f"is a tensor of another kind ({kind}); save a plain one".replace("torch.", ""))
        self.values += value.numel()
        if value.numel() > VALUES_MAX or self.values > TOTAL_MAX:
            self.fail(
                where,
                f"declares {tuple(value.shape)} values; {VALUES_MAX} a tensor, {TOTAL_MAX} a file are read",
            )


class PlainEntries(Entries):
    """A dictionary of a file of torch, already walked over, as entries that a reader checks."""

    def __init__(self, body: Mapping[str, Any], where: str, path: str) -> None:
        super().__init__(where, path)
        self.body = body

    def keys(self) -> list[str]:
        """Return the names of the entries; those without a value are not there."""
        return [str(key) for key, value in self.body.items() if value is not None]

    def __contains__(self, key: str) -> bool:
        return self.body.get(key) is not None

    def _item(self, key: str) -> Any:
        if key not in self:
            self.fail(f"{key!r} is missing")
        return self.body[key]

    def holds(self, key: str) -> bool:
        """Whether an entry is a dictionary."""
        return isinstance(self._item(key), Mapping)

    def is_text(self, key: str) -> bool:
        """Whether an entry is a string, or a list of strings."""
        value = self.body.get(key)
        if isinstance(value, (list, tuple)) and value:
            value = value[0][0] if isinstance(value[0], (list, tuple)) and value[0] else value[0]
        return isinstance(value, str)

    def child(self, key: str, label: str | None = None) -> Self:
        """Return a dictionary inside this one."""
        item = self._item(key)
        if not isinstance(item, Mapping):
            self.fail(f"{key!r} is a {type(item).__name__}, not a dictionary")
        return type(self)(item, self.below(key, label), self.path)

    def array(self, key: str, limit: int = VALUES_MAX) -> Any:
        """Return numbers: of a tensor as an array, others as they are."""
        item = self._item(key)
        if isinstance(item, Tensor):
            if item.dtype in (torch.bfloat16, torch.float16):
                self.fail(f"{key!r} is {str(item.dtype).removeprefix('torch.')}; save it as float32")
            value: Any = item.numpy()
        else:
            value = item
        try:
            found = np.asarray(value)
        except Exception:  # lists of unequal lengths, or of anything
            found = np.empty(0, object)
        if found.dtype.kind not in "biuf":
            self.fail(
                f"{key!r} is {found.dtype if isinstance(item, Tensor) else type(item).__name__}, not numbers"
            )
        if found.size > limit:
            self.fail(f"{key!r} has {found.shape} values; at most {limit} are read")
        return value

    def strings(self, key: str, limit: int, bytes_max: int = TEXT_MAX) -> npt.NDArray[np.object_]:
        """Return a string or nested lists of strings as an array."""
        item = self._item(key)
        found = np.empty(0, object)
        if isinstance(item, (str, list, tuple)):
            try:
                found = np.array(item, object)
            except ValueError:  # lists of unequal lengths
                self.fail(f"{key!r} holds lists of unequal lengths")
        if not found.size or not all(isinstance(word, str) for word in found.reshape(-1)):
            self.fail(f"{key!r} is {type(item).__name__}, not {'a string' if limit == 1 else 'strings'}")
        if found.size > limit or max(len(word) for word in found.reshape(-1)) > bytes_max:
            self.fail(f"{key!r} is too long; {limit} of {bytes_max} characters are read")
        return found
