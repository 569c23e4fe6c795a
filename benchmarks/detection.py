"""Which exporter random graphs are attributed to: `python benchmarks/detection.py [GRAPHS]`.

Draws GRAPHS graphs (default 1000) that keep the relations of each exporter's files, and as many written by
hand (tests/support/exporter_graphs.py), and counts the verdicts on each graph as it is, with random names,
with another name of the input, and with a layer put in between. "wrong" is any graph attributed to an
exporter that did not write it; the command then exits with 1.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from support.exporter_graphs import EXPORTERS, by_hand, drawn, other_input, padded, renamed

from snn_compile.compiler.contract.detect import detect

CHANGES: dict[str, Callable[[Any, np.random.Generator], Any]] = {
    "as it is": lambda graph, rng: graph,
    "renamed": renamed,
    "inner nodes renamed": lambda graph, rng: renamed(graph, rng, ports=False),
    "input renamed": other_input,
    "a layer more": padded,
}


def verdict(graph: Any, exporter: str) -> str:
    """Return named, open, unknown or wrong."""
    found = detect(graph)
    if found is None:
        return "unknown"
    names = set(found.candidates or {found.exporter: None})
    return "wrong" if exporter not in names else "named" if len(names) == 1 else "open"


def main(count: int) -> int:
    """Print a row of counts per exporter and change; return 1 if a graph is attributed wrongly."""
    heads = ("named", "open", "unknown", "wrong")
    print("| exporter | graph | " + " | ".join(heads) + " |")
    print("|---|---|" + "---:|" * len(heads))
    wrong = 0
    for exporter in (*EXPORTERS, "by hand"):
        for title, change in CHANGES.items():
            counts: Counter[str] = Counter()
            for seed in range(count):
                graph = by_hand(seed) if exporter == "by hand" else drawn(exporter, seed)
                counts[verdict(change(graph, np.random.default_rng(seed)), exporter)] += 1
            wrong += counts["wrong"]
            print(f"| {exporter} | {title} | " + " | ".join(str(counts[head]) for head in heads) + " |")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000))
