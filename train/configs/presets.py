"""Reading a configuration: a preset by name, or a TOML file, with typed overrides.

read_config("digits", ["epochs=3", "hidden=64,64"])
read_config("mine.toml")      keys of the configuration; `preset = "digits"` starts from a preset, otherwise
                              `algorithm = "..."` says of which algorithm it is (bptt if it does not)
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from snn_compile.targets.discovery import import_modules
from snn_compile.targets.errors import SnnCompileError
from snn_compile.train.configs.config import RunConfig, check_key, parsed, typed
from snn_compile.train.configs.registry import CONFIGS, DEFAULT_ALGORITHM, PRESETS

__all__ = ["PRESETS", "config_from", "read_config"]

import_modules("snn_compile.train.configs")


def read_config(name_or_path: str, overrides: Sequence[str] = ()) -> RunConfig:
    """Return a preset, or the configuration in a TOML file, with `key=value` overrides applied.

    Raises SnnCompileError for an unknown preset or key, an unreadable file, and values of a wrong
    type.
    """
    if name_or_path in PRESETS:
        config = PRESETS[name_or_path][1]
    elif name_or_path.endswith(".toml"):
        config = _read_toml(Path(name_or_path))
    else:
        raise SnnCompileError(
            f"no preset {name_or_path!r} (known: {', '.join(PRESETS)}) and not a .toml file"
        )
    values: dict[str, Any] = {}
    for override in overrides:
        key, sign, text = override.partition("=")
        if not sign:
            raise SnnCompileError(f"--set {override}: write it as key=value")
        check_key(type(config), key, "--set")
        values[key] = parsed(type(config), key, text)
    return replace(config, **values)


def _read_toml(path: Path) -> RunConfig:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise SnnCompileError(f"{path}: no such file", path=str(path)) from error
    except (OSError, ValueError) as error:
        raise SnnCompileError(f"{path}: cannot be read as TOML ({error})", path=str(path)) from error
    return config_from(table, str(path))


def config_from(table: Mapping[str, Any], where: str) -> RunConfig:
    """Return the configuration of plain values; `where` names their source in errors."""
    algorithm = table.get("algorithm", DEFAULT_ALGORITHM)
    if algorithm not in CONFIGS:
        raise SnnCompileError(f"{where}: no algorithm {algorithm!r}; known are {', '.join(CONFIGS)}")
    base = CONFIGS[algorithm]()
    name = table.get("preset")
    if name is not None and name != base.preset:
        if name not in PRESETS:
            raise SnnCompileError(f"{where}: no preset {name!r}; known are {', '.join(PRESETS)}")
        base = PRESETS[name][1]
        if algorithm not in (base.algorithm, DEFAULT_ALGORITHM):
            raise SnnCompileError(f"{where}: preset {name} is trained by {base.algorithm}, not {algorithm}")
    values = {}
    for key, value in table.items():
        if key != "algorithm":
            check_key(type(base), key, where)
            values[key] = typed(type(base), key, value, where)
    return replace(base, **values)
