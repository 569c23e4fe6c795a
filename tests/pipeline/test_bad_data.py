"""Bad data files and bad holdouts: one line each, which names the file and what is wrong with it."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest


def npy(array: np.ndarray) -> bytes:
    written = io.BytesIO()
    np.save(written, array)
    return written.getvalue()


def header(shape: str) -> bytes:
    text = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".encode()
    text += b" " * (63 - (len(text) + 10) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def archive(member: bytes, name: str = "inputs.npy", method: int = zipfile.ZIP_STORED) -> bytearray:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", method) as file:
        file.writestr(name, member)
    return bytearray(written.getvalue())


def edited(content: bytearray, local: int, central: int, value: int) -> bytearray:
    """Set a byte of the first member's local header and the same one of the central directory."""
    content[local] = content[content.find(b"PK\x01\x02") + central] = value
    return content


def torn(content: bytearray) -> bytearray:
    content[200:260] = bytes(range(60))
    return content


X = np.random.default_rng(0).integers(0, 17, (150, 12, 6)) / 16
Y = np.arange(150) % 10

FILES = {
    "a header of 44 TiB": (archive(header("(1000000000, 1000, 6)")), "cannot be read"),
    "a negative size": (archive(header("(-1, 3, 6)") + bytes(800)), "cannot be read"),
    "fewer values than the header says": (archive(header("(150, 12, 6)") + bytes(80)), "cannot be read"),
    "a damaged deflate stream": (torn(archive(npy(X), method=zipfile.ZIP_DEFLATED)), "cannot be read"),
    "a wrong checksum": (torn(archive(npy(X))), "cannot be read"),
    "an encrypted member": (edited(archive(npy(X)), 6, 8, 1), "encrypted"),
    "an unknown compression": (edited(archive(npy(X)), 8, 10, 97), "compression"),
    "a member that is no array": (archive(b"text"), "real numbers"),
}
ARRAYS = {
    "labels that are objects": ({"inputs": X, "labels": Y.astype(object)}, "cannot be read"),
    "complex inputs": ({"inputs": X + 1j}, "complex128"),
    "dates": ({"inputs": np.zeros((80, 12, 6), "datetime64[s]")}, "datetime64"),
    "records": ({"inputs": np.zeros((80, 12, 6), [("a", "f4")])}, "real numbers"),
    "an infinite input": ({"inputs": np.where(X == 1, np.inf, X)}, "is inf"),
    "inputs beyond float64": ({"inputs": X.astype(np.longdouble) * np.longdouble("1e4000")}, "is inf"),
    "inputs as large as float64 holds": ({"inputs": X * 1e308}, "1e+308"),
    "inputs as small as float64 holds": ({"inputs": X * 1e-300}, "1e-300"),
    "a scalar": ({"inputs": np.float64(3)}, "shape ()"),
    "no steps": ({"inputs": np.zeros((80, 0, 6))}, "(80, 0, 6)"),
    "labels one-hot": ({"inputs": X, "labels": np.eye(10, dtype=int)[Y]}, "(150, 10)"),
    "labels in a column": ({"inputs": X, "labels": Y[:, None]}, "(150, 1)"),
    "one label for all": ({"inputs": X, "labels": np.int64(1)}, "shape ()"),
    "labels as text": ({"inputs": X, "labels": Y.astype(str)}, "whole numbers"),
    "labels beyond int64": (
        {"inputs": X, "labels": np.full(150, 2**63 + 1, np.uint64)},
        "9223372036854775809",
    ),
    "labels beyond the classes": ({"inputs": X, "labels": Y + 7}, "from 7 to 16"),
    "another shape of a step": ({"inputs": np.zeros((80, 12, 7))}, "(batch, steps, 6)"),
    "axes in another order": ({"inputs": X.transpose(0, 2, 1)}, "(batch, steps, 6)"),
}
HOLDOUTS = {
    "more than there are": (["--check", "GOOD", "--holdout", 500], "500 out of 150"),
    "all": (["--check", "GOOD", "--holdout", 150], "give 1 to 149"),
    "more than int64 holds": (["--check", "GOOD", "--holdout", 10**30], "give 1 to 149"),
    "more than the split has": (["--check", "digits", "--holdout", 500], "128 samples"),
    "the only sample": (["--check", "ONE", "--holdout", 1], "cannot be divided"),
    "with calibration data": (["--check", "GOOD", "--calibrate", "GOOD", "--holdout", 9], "--calibrate"),
    "without data": (["--holdout", 9], "--check DATA"),
    "calibration data of another shape": (["--check", "GOOD", "--calibrate", "WIDE"], "(80, 12, 7)"),
    "calibration data that are not finite": (["--check", "GOOD", "--calibrate", "NAN"], "is nan"),
}


@pytest.mark.parametrize("kind", FILES)
def test_damaged_files(refuses, model, tmp_path, kind):
    content, words = FILES[kind]
    file = tmp_path / "bad.npz"
    file.write_bytes(content)
    for option in ("--check", "--calibrate"):
        line = refuses(model, option, file, "-o", tmp_path / "out.snn")
        assert words in line and "bad.npz" in line


@pytest.mark.parametrize("kind", ARRAYS)
def test_arrays_of_another_kind(refuses, model, tmp_path, kind):
    arrays, words = ARRAYS[kind]
    np.savez(tmp_path / "bad.npz", **arrays)
    assert words in refuses(model, "--check", tmp_path / "bad.npz", "-o", tmp_path / "out.snn")


@pytest.mark.parametrize("kind", HOLDOUTS)
def test_holdouts(refuses, model, tmp_path, kind):
    arguments, words = HOLDOUTS[kind]
    for name, inputs in {
        "GOOD": X,
        "ONE": X[:1],
        "WIDE": np.zeros((80, 12, 7)),
        "NAN": np.where(X == 1, np.nan, X),
    }.items():
        np.savez(tmp_path / f"{name}.npz", inputs=inputs, labels=np.zeros(len(inputs), int))
    named = [tmp_path / f"{a}.npz" if str(a).isupper() else a for a in arguments]
    assert words in refuses(model, *named, "-o", tmp_path / "out.snn")


@pytest.mark.parametrize("number", ["-3", "ten", "0.1", "", "1e3", "٣x"])
def test_holdouts_that_are_no_number(command, model, number):
    code, out, err = command(model, "--check", "digits", f"--holdout={number}")
    assert code == 2 and out == "" and "is not a number of samples" in err.splitlines()[-1]
