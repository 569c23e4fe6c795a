"""Words, phrases and identifiers that are always wrong: none stands in code, documents or output."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WRONG = {
    r"\b(?:hears|heard|unheard)\b|\b_hear\b": "receives input from, inputs; ignored_options, _gather",
    r"\b(?:is|are|was|were|be|being) told\b|\bthe talk\b|\b_talk\b": "is reported, warned; messages",
    r"\bstrangers?\b": "untrusted files",
    r"\b(?:of ours|our own)\b": "custom",
    r"\b[Mm]akers\b": "exporters",
    r"\bdraining\b": "pipeline drain",
    r"\b_turn\b": "_wrap",
    r"\b(?:_blame|_lacking|_pays|_sparing|_finer|_credit|settled_\w+)\b": "_input_grad, _refine, ...",
    r"\bclass _?(?:Made|Bench|Given|Told|Keeper|Tape|Room)\b": "Candidate, Evaluator, CompileRequest, ...",
    r"\bstirs\b|\bdef (?:due|hold)\(": "is_active_without_input, is_logical_step, pass_silently",
    r"\bIntegers without regret\b": "Post-training quantization",
    r"[\"'](?:a|an?) (?:sample|step|decision)[\"']": "per sample, per step, per decision",
    r"\b(?:synops|nJ|pJ|energy|label|device steps) an? (?:sample|step|decision|logical step)\b": "per sample",
    r"\bspikes an? (?:sample|decision)\b": "per sample",
    r"[\"'](?:in all)[\"']|\b\d+ in all\b|\bsteps in all\b|\bdone, \w+ in all\b": "total",
    r"\bas the program was compiled for: partition=False": "not printed",
}
"""A pattern, and what to write instead."""
FOLDERS = ("targets", "compiler", "runtime", "train", "benchmarks", "examples", "docs", "src/snn_compile")


def files() -> list[Path]:
    """Return code and documents; rooms are reached by one path only, not by their links in src."""
    found = [*ROOT.glob("*.md")]
    for folder in FOLDERS:
        found += [f for f in (ROOT / folder).rglob("*") if f.suffix in (".py", ".md", ".toml")]
    return sorted({file for file in found if file.resolve() == file})


def room(file: Path) -> str:
    """Return the folder that a file of the package lives in."""
    return "/".join(file.relative_to(ROOT).parts[:-1]) or "."


def test_wrong_words_are_nowhere() -> None:
    found, rooms = [], Counter[str]()
    for file in files():
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            for pattern, better in WRONG.items():
                if match := re.search(pattern, line):
                    found.append(f"{file.relative_to(ROOT)}:{number}: {match[0]!r}; better: {better}")
                    rooms[room(file)] += 1
    counts = ", ".join(f"{name} {count}" for name, count in sorted(rooms.items()))
    assert not found, f"wrong words by room: {counts}\n" + "\n".join(found)
