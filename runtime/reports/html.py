"""The report as one self-contained HTML file."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from snn_compile.runtime.reports.accuracy_tables import Table

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1c2733; background: #fff;
       max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.3rem; overflow-wrap: anywhere; } h2 { font-size: 1.05rem; margin-top: 2rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .2rem .8rem .2rem 0; vertical-align: top;
         overflow-wrap: anywhere; }
th { border-bottom: 1px solid #9aa5b1; font-weight: 600; }
td + td, th + th { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
tr.term td { color: #5a6672; font-size: .9em; } tr.term td:first-child { padding-left: 1.6rem; }
img { max-width: 100%; height: auto; } .note { color: #8a3b12; } .digest { color: #5a6672; }
"""


def compose(
    title: str,
    headline: str,
    notes: Sequence[str],
    tables: Sequence[Table],
    digest: str,
    picture: bytes | None,
    caption: tuple[str, str],
) -> str:
    """Return a page of notes, tables and a picture (PNG bytes); `caption` is its heading and its text."""
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>",
        f"<body><h1>{escape(title)}</h1>",
        f"<p>{escape(headline)}</p>",
        *(f'<p class="note">{escape(note)}</p>' for note in notes),
        *(_table(table) for table in tables),
    ]
    if picture is not None:
        parts += [
            f"<h2>{escape(caption[0])}</h2>",
            f'<img alt="{escape(caption[1])}" src="data:image/png;base64,{b64encode(picture).decode()}">',
        ]
    parts += [f'<p class="digest">program {escape(digest)}</p>', "</body></html>"]
    return "\n".join(parts) + "\n"


def _table(table: Table) -> str:
    title, heads, rows = table
    body = "".join(
        f"<tr{' class=term' if row[0].startswith('  ') else ''}>"
        + "".join(f"<td>{escape(cell.strip())}</td>" for cell in row)
        + "</tr>\n"
        for row in rows
    )
    head = "".join(f"<th>{escape(text)}</th>" for text in heads)
    return f"<h2>{escape(title)}</h2>\n<table><tr>{head}</tr>\n{body}</table>"
