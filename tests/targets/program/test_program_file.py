"""Program files: round trips, and refusal of everything that is not a whole program."""

from __future__ import annotations

import io
import json
import os
import stat
import struct
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.sparse import coo_array, csr_array
from support import random_programs

from snn_compile.targets.errors import SnnCompileError, WrongProgram
from snn_compile.targets.program import file as program_file
from snn_compile.targets.program.digest import content_digest, encode
from snn_compile.targets.program.file import load_program, save_program
from snn_compile.targets.program.population import Population
from snn_compile.targets.program.program import Core, InputPort, OutputPort, Program, Projection, Route
from snn_compile.targets.program.weights import WeightTable


@pytest.fixture(scope="module")
def program() -> Any:
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


def test_round_trip_of_random_programs(tmp_path: Path) -> None:
    for seed in range(60):
        program = random_programs.case(seed).program
        program.save(tmp_path / "p")
        assert same(program, load_program(str(tmp_path / "p")))


def test_steps_left_out_come_back_and_say_nothing_where_there_are_none(program: Any, tmp_path: Path) -> None:
    made = replace(program, outputs=(replace(program.outputs[0], readout="mean", skip=3),))
    made.save(tmp_path / "p")
    assert load_program(tmp_path / "p").outputs == made.outputs and made.digest() != program.digest()
    assert encode(made)[0]["outputs"][0]["skip"] == 3
    assert "skip" not in encode(program)[0]["outputs"][0]


def sparse_program(weights: Any) -> Program:
    """Return a program with one sparse table, 4 x 3, and a population of every item of a rule."""
    neurons = Population(
        "n",
        (4,),
        "lif",
        {"du": 1, "dv": 4096, "vth": [1, 2, 3, 4], "v_min": [-5, 0, 0, -7]},
        "subtract",
        1,
        2.5,
        "next_after",
        ">=",
        "floor",
        "membrane_first",
        "after",
    )
    edge = Projection("e", "x", "n", (WeightTable(csr_array(weights), message_bits=3),))
    return Program("loihi2", 2, (neurons,), (edge,), (InputPort("x", (3,)),), (OutputPort("y", "n"),))


WEIGHTS = np.array([[2, 0, 4], [0, 0, 0], [0, -6, 0], [8, 0, 0]])


def test_a_sparse_table_and_a_rule_come_back(tmp_path: Path) -> None:
    program = sparse_program(WEIGHTS)
    program.save(tmp_path / "p")
    loaded = load_program(tmp_path / "p")
    assert same(program, loaded) and loaded.digest() == program.digest()
    assert loaded.population("n").rule == program.population("n").rule
    (table,) = loaded.tables("e")
    assert table.sparse and np.array_equal(table.dense(), WEIGHTS) and table.message_bits == 3
    for key in ("data", "indices", "indptr"):
        assert not getattr(table.weights, key).flags.writeable


def test_the_digest_sees_every_sparse_weight_and_where_it_stands() -> None:
    digests = {sparse_program(WEIGHTS).digest()}
    for at in np.ndindex(WEIGHTS.shape):
        changed = WEIGHTS.copy()
        changed[at] += 2
        digests.add(sparse_program(changed).digest())
    moved = [np.roll(WEIGHTS, 1, axis) for axis in (0, 1)]
    digests |= {sparse_program(weights).digest() for weights in moved}
    dense = WeightTable(WEIGHTS, message_bits=3)
    made = sparse_program(WEIGHTS)
    edge = replace(made.projections[0], tables=(dense,))
    digests.add(replace(made, projections=(edge,)).digest())
    assert len(digests) == 1 + WEIGHTS.size + 2 + 1
    written_out = coo_array((WEIGHTS.reshape(-1), np.indices(WEIGHTS.shape).reshape(2, -1)), WEIGHTS.shape)
    assert sparse_program(written_out).digest() == made.digest()


# Of WEIGHTS: data 2 4 -6 8, indices 0 2 1 0, indptr 0 2 2 3 4.
MALFORMED: dict[str, dict[str, Any]] = {
    "an index beyond the sources": {"indices": np.array([0, 3, 1, 0], np.int32)},
    "an index below 0": {"indices": np.array([0, -1, 1, 0], np.int32)},
    "too few indices": {"indices": np.array([0, 2, 1], np.int32)},
    "indices with halves": {"indices": np.array([0, 2, 1, 0.5])},
    "too few weights": {"data": np.array([2, 4, -6], np.int16)},
    "weights that are no integers": {"data": np.array([2, 4, -6, 8.5])},
    "weights of two dimensions": {"data": np.array([[2, 4], [-6, 8]], np.int16)},
    "a row that ends before it begins": {"indptr": np.array([0, 3, 2, 3, 4])},
    "the same, unsigned": {"indptr": np.array([0, 3, 2, 3, 4], np.uint64)},
    "a first row that begins late": {"indptr": np.array([1, 2, 2, 3, 4])},
    "rows beyond the weights": {"indptr": np.array([0, 2, 2, 3, 9])},
    "rows that end early": {"indptr": np.array([0, 2, 2, 3, 3])},
    "too few rows": {"indptr": np.array([0, 2, 2, 4])},
    "weights that 8 bits do not hold": {"data": np.array([2, 4, -6, 9], np.int16)},
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_sparse_table_is_refused(tmp_path: Path, name: str) -> None:
    file = tmp_path / "p"
    sparse_program(WEIGHTS).save(file)
    with zipfile.ZipFile(file) as archive:
        head = json.loads(archive.read("program.json"))
    parts = head["program"]["projections"][0]["tables"][0]["weights"]["sparse"]
    rewrite(
        file,
        lambda _: None,
        digest=True,
        arrays={parts[key]["array"]: array for key, array in MALFORMED[name].items()},
    )
    with pytest.raises(WrongProgram, match="damaged .ValueError: a sparse table|does not hold|not 8-bit"):
        load_program(file)


@pytest.mark.parametrize("shape", [[4, 2], [5, 3], [3, 4], [4], [4, 3, 1], [-1, 3], [10**12, 3]])
def test_a_sparse_table_of_another_shape_is_refused(tmp_path: Path, shape: list[int]) -> None:
    file = tmp_path / "p"
    sparse_program(WEIGHTS).save(file)

    def change(head: dict[str, Any]) -> None:
        head["program"]["projections"][0]["tables"][0]["weights"]["shape"] = shape

    rewrite(file, change, digest=True)
    with pytest.raises(WrongProgram, match="is damaged|its ends need"):
        load_program(file)


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


def rewrite(
    file: Path,
    change: Callable[[dict[str, Any]], Any],
    *,
    digest: bool = False,
    arrays: dict[int, Any] | None = None,
) -> None:
    """Change the JSON of a file and arrays by number, and its digest with them if asked."""
    with zipfile.ZipFile(file) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    head = json.loads(parts["program.json"])
    change(head)
    for number, array in (arrays or {}).items():
        buffer = io.BytesIO()
        np.save(buffer, array)
        parts[f"arrays/{number}.npy"] = buffer.getvalue()
    if digest:
        found = [np.load(io.BytesIO(parts[f"arrays/{i}.npy"])) for i in range(len(parts) - 1)]
        head["digest"] = content_digest(head["program"], found)
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in {**parts, "program.json": json.dumps(head)}.items():
            archive.writestr(name, data)


EDITS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "a number": (lambda head: head["program"]["projections"][0].update(delay_steps=9), "was changed"),
    "a name": (lambda head: head["program"]["provenance"].update(graph="abd"), "was changed"),
    "the digest": (lambda head: head.update(digest="0" * 64), "was changed"),
    "the schema": (lambda head: head.update(schema="other"), "is not a program of snn-compile"),
    "no schema": (lambda head: head.pop("schema"), "is not a program of snn-compile"),
    "the version": (lambda head: head.update(version=5), "format version 5, this reads versions 1 to 4"),
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
    with pytest.raises(WrongProgram, match="is not a program"):
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
        with pytest.raises(WrongProgram, match="cannot write .*: disk full"):
            save_program(program, path)
    assert [p.name for p in file.parent.iterdir()] == [file.name]
    assert file.read_bytes() == before


def test_saving_where_there_is_no_folder(program: Any, tmp_path: Path) -> None:
    with pytest.raises(WrongProgram, match=r"cannot write .*the folder .* does not exist"):
        save_program(program, tmp_path / "none" / "p.snn")
    assert not list(tmp_path.iterdir())


def test_saving_replaces_and_keeps_the_usual_mode(file: Path) -> None:
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
