"""Files that are written: asked beforehand whether they can be, and written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from snn_compile.targets.errors import SnnCompileError

NAME_MAX = 240
"""Most bytes of a file's name: the temporary file's is longer, and most file systems hold 255."""


def check_writable(
    path: str | os.PathLike[str] | None,
    error: type[SnnCompileError] = SnnCompileError,
    model: str | os.PathLike[str] | None = None,
) -> None:
    """Raise `error` unless a file can be written at `path`, which must not be the `model` that is read.

    None: nothing is to be written.
    """
    if path is None:
        return
    file = Path(path)
    folder = file.parent
    reason = ""
    if model is not None and file.resolve() == Path(model).resolve():
        reason = "it is the model itself; name another file"
    elif os.path.exists(folder) and not os.path.isdir(folder):
        reason = f"{folder} is a file, not a folder; name another"
    elif not os.path.isdir(folder):
        reason = f"the folder {folder} does not exist; create it first"
    elif os.path.isdir(file):
        reason = "it is a folder; name a file in it"
    elif not os.access(folder, os.W_OK):
        reason = f"the folder {folder} cannot be written to; choose another"
    elif len(os.fsencode(file.name)) > NAME_MAX:
        reason = f"its name has more than {NAME_MAX} bytes; choose a shorter one"
    if reason:
        raise error(f"cannot write {file}: {reason}", path=str(file))


def write_whole(
    path: str | os.PathLike[str],
    write: Callable[[Path], None],
    error: type[SnnCompileError] = SnnCompileError,
) -> None:
    """Call `write` on a temporary file beside `path`, then rename it: whole or not at all.

    Raises `error` where `path` cannot be written and where `write` raises OSError.
    """
    target = Path(path)
    check_writable(target, error)
    temporary: Path | None = None
    try:
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        os.close(handle)
        temporary = Path(name)
        write(temporary)
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
        os.replace(temporary, target)
    except OSError as reason:
        raise error(f"cannot write {target}: {reason.strerror or reason}", path=str(target)) from reason
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
