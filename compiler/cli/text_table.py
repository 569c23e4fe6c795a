"""Rows of text as a table for people."""

from __future__ import annotations

from io import StringIO

Row = tuple[str, ...]


def table_text(title: str, heads: tuple[str, ...], rows: list[Row]) -> str:
    """Return rows of text as a table with a title."""
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    out = StringIO()
    console = Console(file=out, width=110, color_system=None, highlight=False)
    drawn = Table(box=box.SIMPLE_HEAD)
    numbers = [
        bool(rows) and all(row[i].replace(",", "").replace(".", "").strip("%-+").isdigit() for row in rows)
        for i in range(len(heads))
    ]
    for head, number in zip(heads, numbers, strict=True):
        drawn.add_column(escape(head), justify="right" if number else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*(escape(value) for value in row))
    console.print(f"\n{escape(title)}")
    console.print(drawn)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"
