"""Program files: round trips, and refusal of everything that is not a whole program."""

from __future__ import annotations

import io
import json
import os
import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from snn_compile.targets import program_file
from snn_compile.targets.digest import content_digest, encode
from snn_compile.targets.errors import SnnCompileError, WrongProgram
from snn_compile.targets.program import Core, Program, Route
from snn_compile.targets.program_file import load_program, save_program


@pytest.fixture(scope="module")
def program(random_programs: Any) -> Any:
    """Return a program with everything in it that a file can hold."""
    made = random_programs.case(160, random_programs.SMALL).program
    name = made.populations[0].name
    return Program(
        made.chip,
        made.chip_version,
        made.populations,
        made.projections,
        made.inputs,
        made.outputs,
        (Core(0, (0, 1), ((name, 0, made.size(name)),), {"neurons": 3, "memory_bits": 17}),),
        (Route(name, 0, 1, -1, (0, 2)),),
        {"graph": "abc", "name": "über"},
    )


@pytest.fixture
def file(program: Any, tmp_path: Path) -> Path:
    """Return the program's file."""
    save_program(program, tmp_path / "p.snn")
    return tmp_path / "p.snn"


def same(a: Any, b: Any) -> bool:
    (body_a, arrays_a), (body_b, arrays_b) = encode(a), encode(b)
    return body_a == body_b and all(
        x.dtype == y.dtype and np.array_equal(x, y) for x, y in zip(arrays_a, arrays_b, strict=True)
    )


def test_round_trip(program: Any, file: Path) -> None:
    loaded = load_program(file)
    assert same(program, loaded)
    assert loaded.digest() == program.digest()
    assert loaded.cores == program.cores and loaded.routes == program.routes
    assert not any(array.flags.writeable for array in encode(loaded)[1])


def test_round_trip_of_random_programs(random_programs: Any, tmp_path: Path) -> None:
    for seed in range(60):
        program = random_programs.case(seed).program
        program.save(tmp_path / "p")
        assert same(program, load_program(str(tmp_path / "p")))


def test_equal_programs_are_equal_files(program: Any, file: Path, tmp_path: Path) -> None:
    save_program(load_program(file), tmp_path / "again.snn")
    assert (tmp_path / "again.snn").read_bytes() == file.read_bytes()


def test_a_file_at_any_length_but_its_own_is_refused(file: Path, tmp_path: Path) -> None:
    whole = file.read_bytes()
    for length in range(0, len(whole), 7):
        (tmp_path / "cut").write_bytes(whole[:length])
        with pytest.raises(WrongProgram, match="cut"):
            load_program(tmp_path / "cut")


def test_a_file_with_any_byte_changed_is_refused_or_the_same(program: Any, file: Path) -> None:
    whole = file.read_bytes()
    refused = 0
    for at in range(len(whole)):
        for flip in (0x01, 0xFF) if at % 4 == 0 else (0x01,):
            file.write_bytes(whole[:at] + bytes([whole[at] ^ flip]) + whole[at + 1 :])
            try:
                assert same(program, load_program(file)), at
            except SnnCompileError as error:
                assert isinstance(error, WrongProgram) and "\n" not in str(error), at
                refused += 1
    # What may change is what a zip reader does not need: dates, versions, system, attributes.
    assert refused > len(whole) * 0.8


def rewrite(file: Path, change: Callable[[dict[str, Any]], Any], *, digest: bool = False) -> None:
    """Change the JSON of a file, and its digest with it if asked."""
    with zipfile.ZipFile(file) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    head = json.loads(parts["program.json"])
    change(head)
    if digest:
        arrays = [np.load(io.BytesIO(parts[f"arrays/{i}.npy"])) for i in range(len(parts) - 1)]
        head["digest"] = content_digest(head["program"], arrays)
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in {**parts, "program.json": json.dumps(head)}.items():
            archive.writestr(name, data)


EDITS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "a number": (lambda head: head["program"]["projections"][0].update(delay_steps=9), "was changed"),
    "a name": (lambda head: head["program"]["provenance"].update(graph="abd"), "was changed"),
    "the digest": (lambda head: head.update(digest="0" * 64), "was changed"),
    "the schema": (lambda head: head.update(schema="other"), "is not a program of snn-compile"),
    "no schema": (lambda head: head.pop("schema"), "is not a program of snn-compile"),
    "the version": (lambda head: head.update(version=2), "format version 2, this reads version 1"),
    "no version": (lambda head: head.pop("version"), "is damaged .KeyError"),
    "no program": (lambda head: head.pop("program"), "is damaged .KeyError"),
    "no digest": (lambda head: head.pop("digest"), "is damaged .KeyError"),
}


@pytest.mark.parametrize("name", EDITS)
def test_edited_json(file: Path, name: str) -> None:
    change, message = EDITS[name]
    rewrite(file, change)
    with pytest.raises(WrongProgram, match=message):
        load_program(file)


@pytest.mark.parametrize(
    "change",
    [
        lambda body: body.pop("inputs"),
        lambda body: body.update(populations=[{}]),
        lambda body: body.update(inputs=3),
        lambda body: body["projections"][0].update(more=1),
        lambda body: body["projections"][0]["tables"][0]["weights"].update(array=999),
        lambda body: body["populations"][0].update(shape=[None]),
        lambda body: body.update(outputs=None),
    ],
)
def test_a_valid_digest_over_something_else(file: Path, change: Callable[[Any], Any]) -> None:
    rewrite(file, lambda head: change(head["program"]), digest=True)
    with pytest.raises(WrongProgram, match="is damaged"):
        load_program(file)


def test_a_program_that_was_never_valid_says_why(file: Path) -> None:
    rewrite(file, lambda head: head["program"]["outputs"][0].update(population="z"), digest=True)
    with pytest.raises(WrongProgram, match="reads 'z', which is not there"):
        load_program(file)


@pytest.mark.parametrize(
    "content", [b"", b"text", b"PK\x03\x04", b"\x80\x04K\x01.", b'{"schema": "snn-compile-program"}']
)
def test_not_a_zip(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "f").write_bytes(content)
    with pytest.raises(WrongProgram, match="is not a whole program file"):
        load_program(tmp_path / "f")


@pytest.mark.parametrize("content", [b"[]", b"3", b"{", b"\xff\xfe", b"[" * 100_000, b'{"schema": 1}'])
def test_a_zip_of_something_else(tmp_path: Path, content: bytes) -> None:
    with zipfile.ZipFile(tmp_path / "f", "w") as archive:
        archive.writestr("program.json", content)
    with pytest.raises(WrongProgram, match="damaged|not a program"):
        load_program(tmp_path / "f")
    with zipfile.ZipFile(tmp_path / "f", "w") as archive:
        archive.writestr("other.json", content)
    with pytest.raises(WrongProgram, match="damaged"):
        load_program(tmp_path / "f")


def test_missing_file_and_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(WrongProgram, match=f"no program file at {path}"):
            load_program(path)


def test_objects_are_never_unpickled(file: Path, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "sprung"),)

    buffer = io.BytesIO()
    np.save(buffer, np.array([Trap()], dtype=object), allow_pickle=True)
    with zipfile.ZipFile(file) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in {**parts, "arrays/0.npy": buffer.getvalue()}.items():
            archive.writestr(name, data)
    with pytest.raises(WrongProgram, match="damaged.*Object arrays"):
        load_program(file)
    assert not (tmp_path / "sprung").exists()


def test_too_large_content_is_refused_before_it_is_unpacked(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program_file, "SIZE_MAX", 100)
    with pytest.raises(WrongProgram, match="its content is larger than"):
        load_program(file)


def test_nothing_half_written_remains(program: Any, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = file.read_bytes()

    def fail(*_: Any, **__: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(np.lib.format, "write_array", fail)
    for path in (file, file.with_name("new.snn")):
        with pytest.raises(OSError, match="disk full"):
            save_program(program, path)
    assert [p.name for p in file.parent.iterdir()] == [file.name]
    assert file.read_bytes() == before


def test_saving_where_there_is_no_folder(program: Any, tmp_path: Path) -> None:
    with pytest.raises(WrongProgram, match=r"cannot write .*the folder .* does not exist"):
        save_program(program, tmp_path / "none" / "p.snn")
    assert not list(tmp_path.iterdir())


def test_saving_replaces_and_keeps_the_usual_mode(random_programs: Any, file: Path) -> None:
    other = random_programs.case(2).program
    other.save(file)
    assert load_program(file).digest() == other.digest()
    file.with_name("plain").write_bytes(b"")
    assert stat.S_IMODE(file.stat().st_mode) == stat.S_IMODE(file.with_name("plain").stat().st_mode)


def test_an_encrypted_or_unknown_archive_is_damaged(file: Path) -> None:
    whole = bytearray(file.read_bytes())
    at = whole.index(b"PK\x01\x02")
    for offset, value in ((8, 1), (10, 97)):
        changed = whole.copy()
        struct.pack_into("<H", changed, at + offset, value)
        file.write_bytes(changed)
        with pytest.raises(WrongProgram):
            load_program(file)
