"""Rows of text as a table for people."""

from __future__ import annotations

from collections.abc import Sequence
from io import StringIO
from typing import Any

Row = tuple[str, ...]


def table_text(
    title: str,
    heads: tuple[str, ...],
    rows: Sequence[Row],
    width: int = 110,
    right: Sequence[bool] | None = None,
) -> str:
    """Return rows of text as a table with a title, `width` characters wide.

    `right`: which columns are set flush right; None: those that hold numbers only.
    """
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    drawn = Table(box=box.SIMPLE_HEAD)
    if right is None:
        right = [bool(rows) and all(_is_number(row[i]) for row in rows) for i in range(len(heads))]
    for head, flush in zip(heads, right, strict=True):
        # A long name is folded, never cut off.
        drawn.add_column(escape(head), justify="right" if flush else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*(escape(value) for value in row))
    return _printed([f"\n{escape(title)}", drawn], width)


def wrapped_text(text: str, width: int = 110, wrap: bool = True) -> str:
    """Return a line of text wrapped at `width` characters, or as one line."""
    from rich.markup import escape

    return _printed([escape(text)], width, wrap)


def _printed(items: Sequence[Any], width: int, wrap: bool = True) -> str:
    """Return what rich prints of texts and tables, without colours and trailing blanks."""
    from rich.console import Console

    out = StringIO()
    console = Console(file=out, width=width, color_system=None, highlight=False)
    for item in items:
        console.print(item, soft_wrap=not wrap)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def _is_number(cell: str) -> bool:
    return cell.replace(",", "").replace(".", "").strip("%-+").isdigit()
