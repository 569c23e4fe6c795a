"""The documents: links resolve, named files exist, command lines parse, the README's example runs."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import importlib
import io
import os
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from snn_compile.train.configs.presets import PRESETS

ROOT = Path(__file__).resolve().parent.parent
FILES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
COMMANDS = {"snn-train": "train", "snn-compile": "compiler", "snn-run": "runtime"}
README_WORDS = 900
PATH = re.compile(r"(?:targets|compiler|runtime|train|tests|benchmarks|docs|examples)/[\w./*-]+")
BRITISH = re.compile(
    r"\b\w*(?:colour|behaviour|neighbour|labelled|favour|centre|licence|(?:is|real|recogn|organ|normal|"
    r"optim|initial|discret|quant|minim|maxim|summar|general)is(?:e|ed|es|ing|ation|ations))\b",
    re.IGNORECASE,
)

every_file = pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))


def prose(text: str) -> str:
    """Return a document without its code blocks."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return "\n".join(line for line in text.splitlines() if not line.startswith("    "))


def anchors(file: Path) -> set[str]:
    """Return the anchors that GitHub gives the headings of a document."""
    titles = re.findall(r"^#+ (.+)$", prose(file.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def command_lines(text: str) -> Iterator[list[str]]:
    """Yield the words of every command of this project in code blocks and in back-ticks."""
    text = text.replace("\\\n", " ").replace("\\|", "|")
    found = re.findall(r"^(?: {4,})?((?:snn-|python benchmarks/).*)$", text, re.MULTILINE)
    found += re.findall(r"`((?:snn-\w+|python benchmarks/\w+\.py) [^`\n]+)`", text)
    for line in found:
        line = re.split(r"\s#|\|\||&&|[>;]\s", line)[0]
        yield re.sub(r"['\"\[\]]", " ", line).split()


@cache
def options(command: str, *words: str) -> frozenset[str]:
    """Return the options in a command's help."""
    main = importlib.import_module(f"snn_compile.{COMMANDS[command]}.cli").main
    out = io.StringIO()
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(out):
        main([*words, "--help"])
    return frozenset(re.findall(r"(?<![\w-])-{1,2}[a-zA-Z][\w-]*", out.getvalue()))


@cache
def benchmark_options(file: str) -> frozenset[str]:
    """Return the options that a benchmark's source names."""
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    texts = (n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str))
    return frozenset(text for text in texts if text.startswith("-"))


@every_file
def test_relative_links_resolve(file: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", prose(file.read_text(encoding="utf-8")))
    for link in links:
        if not link.startswith(("https://", "http://")):
            path, _, anchor = link.partition("#")
            target = file.parent / path if path else file
            assert target.exists(), f"{file.name}: {link}"
            assert not anchor or anchor in anchors(target), f"{file.name}: no heading for {link}"


@every_file
def test_named_files_exist(file: Path) -> None:
    for quoted in re.findall(r"`([^`\n]+)`", file.read_text(encoding="utf-8")):
        for word in quoted.split():
            if PATH.fullmatch(word) and word.isascii() and "NAME" not in word:
                found = list(ROOT.glob(word.rstrip("/"))) or list(ROOT.glob(f"{word}.py"))
                assert found, f"{file.name} names {word}, which does not exist"


@every_file
def test_command_lines_parse(file: Path) -> None:
    for words in command_lines(file.read_text(encoding="utf-8")):
        if words[0] == "python":
            assert (ROOT / words[1]).is_file(), f"{file.name}: {words[1]}"
            known = benchmark_options(words[1])
        else:
            first = words[1].split("|")[0] if len(words) > 1 else ""
            sub = [first] if first in ("inspect", "export", "diverge", "loop", "analyse") else []
            if first == "analyse" and len(words) > 2 and words[2].islower():
                sub.append(words[2].split("|")[0])
            known = options(words[0], *sub)
        for word in words:
            option = re.match(r"-{1,2}[a-zA-Z][\w-]*", word)
            assert not option or option[0] in known, f"{file.name}: {' '.join(words)}: no option {word}"


@every_file
def test_presets_and_their_keys_exist(file: Path) -> None:
    for words in command_lines(file.read_text(encoding="utf-8")):
        if words[0] != "snn-train" or len(words) < 2 or words[1] not in PRESETS:
            continue
        known = {field.name for field in dataclasses.fields(PRESETS[words[1]][1])}
        for flag, pair in zip(words, words[1:], strict=False):
            key = pair.split("=")[0]
            assert flag != "--set" or key in known, f"{file.name}: {words[1]} has no key {key}"


@every_file
def test_spelling_is_american(file: Path) -> None:
    found = {word for word in BRITISH.findall(prose(file.read_text(encoding="utf-8")))}
    assert not found, f"{file.name}: {sorted(found)}"


def test_the_architecture_gives_the_order_of_rooms_that_is_kept() -> None:
    house = ast.parse((ROOT / "tests" / "test_house.py").read_text(encoding="utf-8"))
    (order,) = (
        n.value for n in house.body if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "ORDER"
    )
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    for floor, rooms in ast.literal_eval(order).items():
        (line,) = re.findall(rf"^ +{floor} +(.* · .*)$", text, re.MULTILINE)
        assert line.split(" · ") == rooms.split(" | "), f"ARCHITECTURE.md has another order in {floor}"
        for room in filter(os.path.isdir, (ROOT / floor / name for name in re.split(" · |, ", line))):
            assert f"`{room.name}`" in text, f"ARCHITECTURE.md says nothing of {floor}/{room.name}"


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= README_WORDS


def test_the_readme_names_every_document() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for file in (ROOT / "docs").glob("*.md"):
        assert f"docs/{file.name}" in text, f"README.md does not name docs/{file.name}"


def test_the_readmes_example_runs() -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text("utf-8"), re.M | re.S)
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(code, "README.md", "exec"), {})
    assert "same prediction" in out.getvalue()


def test_the_test_command_is_named() -> None:
    assert "make test" in (ROOT / "README.md").read_text(encoding="utf-8")
    done = subprocess.run(
        ["make", "-n", "test"], cwd=ROOT, capture_output=True, text=True, env={"PATH": os.environ["PATH"]}
    )
    assert "pytest" in done.stdout
