"""Program files: one zip archive of `program.json` and `.npy` arrays, no code inside.

Format `snn-compile-program`, version 3, described in docs/program-format.md; versions 1 and 2 are read too.
A SHA-256 over the content is stored and checked, so a truncated or edited file is refused.
"""

from __future__ import annotations

import io
import json
import os
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from snn_compile.targets.chips.chip import Chip
from snn_compile.targets.chips.formats import LOIHI, Formats
from snn_compile.targets.chips.older import upgraded_profile
from snn_compile.targets.errors import SnnCompileError, WrongProgram
from snn_compile.targets.output import write_whole
from snn_compile.targets.program.digest import content_digest, encode
from snn_compile.targets.program.population import Population
from snn_compile.targets.program.program import Core, InputPort, OutputPort, Program, Projection, Route
from snn_compile.targets.program.weights import WeightTable
from snn_compile.targets.schema import build

SCHEMA = "snn-compile-program"
VERSION = 4
HEADER = "program.json"
SIZE_MAX = 4 << 30
"""Largest content in bytes that is unpacked: far above one chip's memory, far below a machine's."""


def save_program(program: Program, path: str | os.PathLike[str]) -> None:
    """Write `program` to `path`; raises WrongProgram where it cannot be written."""
    body, arrays = encode(program)
    head = {"schema": SCHEMA, "version": VERSION, "digest": content_digest(body, arrays)}

    def write(file: Path) -> None:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(_entry(HEADER), json.dumps({**head, "program": body}, indent=1))
            for index, array in enumerate(arrays):
                buffer = io.BytesIO()
                np.lib.format.write_array(buffer, array, allow_pickle=False)
                archive.writestr(_entry(f"arrays/{index}.npy"), buffer.getvalue())

    write_whole(path, write, WrongProgram)


def _entry(name: str) -> zipfile.ZipInfo:
    # A fixed date makes equal programs equal files.
    info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
    info.compress_type = zipfile.ZIP_DEFLATED
    return info


def load_program(path: str | os.PathLike[str]) -> Program:
    """Read a program; raises WrongProgram if it is missing, damaged, edited, newer or no program."""
    file = Path(path)
    if not file.is_file():
        raise WrongProgram(f"no program file at {file}; snn-compile MODEL -o {file} makes one")
    try:
        with zipfile.ZipFile(file) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > SIZE_MAX:
                raise WrongProgram(f"{file}: its content is larger than {SIZE_MAX >> 30} GiB")
            if HEADER not in archive.namelist():
                raise WrongProgram(
                    f"{file} is not a program; if it is a model, snn-compile {file} -o NAME.snn makes it one"
                )
            head = json.loads(archive.read(HEADER))
            if head.get("schema") != SCHEMA:
                raise WrongProgram(f"{file} is not a program of snn-compile")
            if head["version"] not in _READERS:
                raise WrongProgram(
                    f"{file}: format version {head['version']}, this reads versions 1 to {VERSION}; compile "
                    "the model again, or use a newer snn-compile"
                )
            count = sum(name.startswith("arrays/") for name in archive.namelist())
            arrays = [_array(archive.read(f"arrays/{i}.npy")) for i in range(count)]
        if content_digest(head["program"], arrays) != head["digest"]:
            raise WrongProgram(
                f"{file} was changed after it was written: its digest differs; compile the model again"
            )
        return _READERS[head["version"]](head["program"], arrays)
    except SnnCompileError:
        raise
    except (OSError, zipfile.BadZipFile, EOFError) as error:
        raise WrongProgram(
            f"{file} is not a whole program file ({error}); snn-compile MODEL -o FILE.snn makes one"
        ) from error
    except (
        KeyError,
        IndexError,
        TypeError,
        ValueError,
        AttributeError,
        RuntimeError,
        MemoryError,
        zlib.error,
    ) as error:
        raise WrongProgram(f"{file} is damaged ({type(error).__name__}: {error})") from error


def _array(data: bytes) -> npt.NDArray[Any]:
    array: npt.NDArray[Any] = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
    return array


def _version_1(body: dict[str, Any], arrays: list[npt.NDArray[Any]]) -> Program:
    """Read a program from before c-slow ones: a logical step is a device step."""
    return _program({**body, "period": 1}, arrays)


def _version_3(body: dict[str, Any], arrays: list[npt.NDArray[Any]]) -> Program:
    """Read a program whose chip, where it holds one, states memory in bits."""
    more = {"profile": upgraded_profile(body["profile"])} if "profile" in body else {}
    return _program({**body, **more}, arrays)


def _program(body: dict[str, Any], arrays: list[npt.NDArray[Any]]) -> Program:
    """Read a program of version 4, or of version 2, which has no `formats`: those of Loihi."""

    def population(b: dict[str, Any]) -> Population:
        parameters = {key: arrays[ref["array"]] for key, ref in b["parameters"].items()}
        return Population(**{**b, "shape": tuple(b["shape"]), "parameters": parameters})

    def weights(b: dict[str, Any]) -> Any:
        if "sparse" not in b:
            return arrays[b["array"]]
        parts = tuple(arrays[b["sparse"][key]["array"]] for key in ("data", "indices", "indptr"))
        _check_sparse(parts, b["shape"])
        return csr_array(parts, shape=tuple(b["shape"]))

    def projection(b: dict[str, Any]) -> Projection:
        tables = tuple(WeightTable(**{**t, "weights": weights(t["weights"])}) for t in b["tables"])
        return Projection(**{**b, "tables": tables})

    def core(b: dict[str, Any]) -> Core:
        slices = tuple((name, start, stop) for name, start, stop in b["slices"])
        return Core(b["index"], (b["tile"][0], b["tile"][1]), slices, b["use"])

    formats = build(Formats, body["formats"], "formats", WrongProgram) if "formats" in body else LOIHI
    profile = build(Chip, body["profile"], "profile", WrongProgram) if "profile" in body else None
    return Program(
        chip=body["chip"],
        chip_version=body["chip_version"],
        populations=tuple(population(b) for b in body["populations"]),
        projections=tuple(projection(b) for b in body["projections"]),
        inputs=tuple(InputPort(**{**b, "shape": tuple(b["shape"])}) for b in body["inputs"]),
        outputs=tuple(OutputPort(**b) for b in body["outputs"]),
        cores=tuple(core(b) for b in body["cores"]),
        routes=tuple(Route(**{**b, "destinations": tuple(b["destinations"])}) for b in body["routes"]),
        provenance=body["provenance"],
        period=body["period"],
        formats=formats,
        profile=profile,
        chips=body.get("chips", 1),
    )


_READERS = {1: _version_1, 2: _program, 3: _version_3, 4: _program}


def _check_sparse(parts: tuple[npt.NDArray[Any], ...], shape: list[int]) -> None:
    """Raise ValueError unless the arrays are a well-formed sparse table: scipy trusts them."""
    data, indices, starts = parts
    well = (
        all(part.ndim == 1 for part in parts)
        and all(part.dtype.kind == "i" for part in parts)  # unsigned differences are never negative
        and len(shape) == 2
        and len(starts) == shape[0] + 1
        and starts[0] == 0
        and starts[-1] == len(data) == len(indices)
        and (np.diff(starts) >= 0).all()
        and (len(indices) == 0 or 0 <= indices.min() <= indices.max() < shape[1])
    )
    if not well:
        raise ValueError("a sparse table whose indices do not fit its shape")
