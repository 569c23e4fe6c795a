"""Files are asked about before the work and written whole or not at all; errors say what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from snn_compile.targets.errors import SnnCompileError, WrongInput
from snn_compile.targets.output import check_writable, write_whole


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("none/x.pt", "the folder .*none does not exist; create it first"),
        (".", "it is a folder; name a file in it"),
        ("n" * 300, "its name has more than 240 bytes; choose a shorter one"),
        ("model.pt", "it is the model itself; name another file"),
        ("./sub/../model.pt", "it is the model itself; name another file"),
    ],
)
def test_what_cannot_be_written(tmp_path: Path, path: str, message: str) -> None:
    (tmp_path / "sub").mkdir()
    with pytest.raises(WrongInput, match=f"^cannot write .*: {message}$") as caught:
        check_writable(tmp_path / path, WrongInput, tmp_path / "model.pt")
    assert caught.value.path == str(tmp_path / path)
    check_writable(tmp_path / "x.pt", WrongInput, tmp_path / "model.pt")
    check_writable(None)


def test_a_folder_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(SnnCompileError, match="cannot write .*: the folder .* cannot be written to; choose"):
        check_writable(tmp_path / "x")


def test_a_write_that_fails_leaves_what_was(tmp_path: Path) -> None:
    file = tmp_path / "x"
    write_whole(file, lambda part: part.write_text("first") and None)

    def fails(part: Path) -> None:
        part.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(WrongInput, match="^cannot write .*x: No space left on device$"):
        write_whole(file, fails, WrongInput)
    assert file.read_text() == "first" and list(tmp_path.iterdir()) == [file]
