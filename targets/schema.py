"""Dataclasses from untrusted values: every key present, known, of its type and in its range.

A field states its key in a TOML file and its range in its metadata (`key`, `range`, `optional`); the fields
themselves are the schema. A field of two floats is an interval: one number, or [low, high]. Errors
name the file, the key and the reason.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import MISSING, Field, field, fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

from snn_compile.targets.errors import SnnCompileError

T = TypeVar("T")
Interval = tuple[float, float]
"""Lowest and highest value that sources state; one number where they agree."""
LARGEST = 1 << 63
"""No number of a file reaches this."""
_KINDS = {int: "an integer", float: "a number", bool: "true or false", str: "a text"}


def entry(
    key: str | None = "",
    low: float | None = None,
    high: float | None = None,
    default: Any = MISSING,
    optional: bool = False,
    later: bool = False,
) -> Any:
    """Return a dataclass field with its dotted TOML key and its range, both ends included.

    The key is the field's name unless given; None: the field is not in the file. `optional`: the file may
    leave it out. `later`: the field came after programs were written, which leave it out where it is the
    default.
    """
    range_ = None if low is None else (low, float("inf") if high is None else high)
    metadata = {"key": key, "range": range_, "optional": optional, "later": later}
    return field(default=default, metadata=metadata)


def read_toml(
    kind: type[T],
    file: Path,
    error: type[SnnCompileError],
    replaced: Mapping[str, Any] | None = None,
    upgrade: Callable[[Mapping[str, Any]], dict[str, Any]] = dict,
) -> T:
    """Return the dataclass that a TOML file holds; raises `error`, naming file, key and reason.

    `replaced`: values by field that the file does not hold, or that stand for what it holds. `upgrade` turns
    the dotted keys of an older file into today's.
    """
    where = file.name
    try:
        found = upgrade(dict(_flat(tomllib.loads(file.read_text(encoding="utf-8")))))
    except (OSError, ValueError) as reason:
        raise error(f"{where}: {reason}", file=str(file)) from reason
    except RecursionError as reason:
        raise error(f"{where}: its keys or lists are nested too deeply", file=str(file)) from reason
    keys = list(_keys(kind))
    unknown = [key for key in found if key not in keys]
    if unknown:
        raise error(
            f"{where}: unknown key {unknown[0]}{near(unknown[0], keys)}", file=str(file), key=unknown[0]
        )
    return _from_flat(kind, found, where, error, replaced or {})


def build(kind: type[T], values: Mapping[str, Any], where: str, error: type[SnnCompileError]) -> T:
    """Return a dataclass from plain values by field name, nested ones from mappings; as `read_toml`."""
    names = [item.name for item in fields(kind)]  # type: ignore[arg-type]
    for name in values:
        if name not in names:
            raise error(f"{where}: unknown key {name}{near(name, names)}", file=where, key=name)
    made: dict[str, Any] = {}
    for item, hint in _typed_fields(kind):
        if item.name not in values:
            if item.default is MISSING:
                raise error(f"{where}: key {item.name} is missing", file=where, key=item.name)
        elif type(values[item.name]) is type(item.default) and values[item.name] == item.default:
            made[item.name] = item.default
        elif (nested := _dataclass_of(hint)) is not None and values[item.name] is not None:
            made[item.name] = build(nested, values[item.name], where, error)
        else:
            made[item.name] = _checked(values[item.name], item, hint, item.name, where, error)
    return _made(kind, made, {}, where, error)


def near(name: str, known: Iterable[str]) -> str:
    """Return "; did you mean ...?" with the known names nearest to `name`, or ""."""
    found = get_close_matches(name, list(known), 3, 0.6)
    return f"; did you mean {' or '.join(found)}?" if found else ""


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _keys(kind: Any) -> Iterator[str]:
    for item, hint in _typed_fields(kind):
        if _not_in_file(item):
            continue
        nested = _dataclass_of(hint)
        if nested is not None:
            yield from _keys(nested)
        else:
            yield item.metadata.get("key") or item.name


def _not_in_file(item: Field[Any]) -> bool:
    return "key" in item.metadata and item.metadata["key"] is None


def _typed_fields(kind: Any) -> list[tuple[Field[Any], Any]]:
    hints = get_type_hints(kind)
    return [(item, hints[item.name]) for item in fields(kind)]


def _dataclass_of(hint: Any) -> Any:
    """Return the dataclass that a hint names, alone or beside None, or None."""
    return next((one for one in (hint, *get_args(hint)) if is_dataclass(one)), None)


def _from_flat(
    kind: type[T],
    found: Mapping[str, Any],
    where: str,
    error: type[SnnCompileError],
    replaced: Mapping[str, Any],
) -> T:
    made: dict[str, Any] = {}
    keys: dict[str, str] = {}
    for item, hint in _typed_fields(kind):
        key = keys[item.name] = item.metadata.get("key", "") or item.name
        if item.name in replaced:
            made[item.name] = replaced[item.name]
        elif _not_in_file(item):
            continue
        elif (nested := _dataclass_of(hint)) is not None:
            made[item.name] = _from_flat(nested, found, where, error, {})
        elif key in found:
            made[item.name] = _checked(found[key], item, hint, key, where, error)
        elif not item.metadata.get("optional"):
            raise error(f"{where}: key {key} is missing", file=where, key=key)
    return _made(kind, made, keys, where, error)


def _made(
    kind: type[T],
    values: Mapping[str, Any],
    keys: Mapping[str, str],
    where: str,
    error: type[SnnCompileError],
) -> T:
    try:
        return kind(**values)
    except SnnCompileError as reason:
        name = str(reason.facts.get("key", ""))
        key = keys.get(name, name)
        said = str(reason).replace(name, key, 1) if name else str(reason)
        raise error(f"{where}: {said}", file=where, key=key) from reason


def _checked(
    value: Any, item: Field[Any], hint: Any, key: str, where: str, error: type[SnnCompileError]
) -> Any:
    if get_args(hint) and type(None) in get_args(hint):
        hint = get_args(hint)[0]
    pair = bool(get_args(hint)) and get_args(hint)[0] in (int, float)
    wanted = get_args(hint)[0] if pair else hint
    interval = pair and wanted is float
    if interval and isinstance(value, (int, float)):
        value = (value, value)
    values = tuple(value) if isinstance(value, (list, tuple)) and pair else (value,)
    fits = all(type(one) is wanted or (wanted is float and type(one) is int) for one in values)
    if not fits or len(values) != 1 + pair or value == "" or (interval and not values[0] <= values[1]):
        what = "two integers" if pair else _KINDS.get(wanted, str(wanted))
        what = "a number, or [low, high]" if interval else what
        raise error(f"{where}: {key} is {value!r}; it must be {what}", file=where, key=key)
    if item.metadata.get("range") and not _within(values, *item.metadata["range"]):
        low, high = item.metadata["range"]
        span = f"{low} or more" if high == float("inf") else f"from {low} to {high}"
        if not all(abs(one) < LARGEST for one in values):
            span += ", and below 2**63"
        raise error(f"{where}: {key} is {value!r}; it must be {span}", file=where, key=key)
    if interval:
        return tuple(map(float, values))
    return values if pair else float(value) if wanted is float else value


def _within(values: tuple[Any, ...], low: float, high: float) -> bool:
    return all(low <= one <= high and abs(one) < LARGEST for one in values)
