"""Commands that would remove a cause."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from snn_compile.runtime.divergence.causes import Cause
from snn_compile.targets.program.program import Program
from snn_compile.targets.program.rule import CHOICES as RULE_CHOICES
from snn_compile.targets.program.weights import WeightTable

if TYPE_CHECKING:
    from snn_compile.compiler.network import Network

BITS_MAX = 8


def advise(
    program: Program,
    network: Network,
    causes: Sequence[Cause],
    model: str,
    data: str,
    stated: Sequence[str] = (),
) -> list[str]:
    """Return commands, the most important cause's first, none twice.

    `stated`: options that every command needs to read the model, such as --convention dt=1e-4. Rounding that
    no option reduces has no command: the program would be the same.
    """
    target = f"{program.chip}.toml" if program.profile else f"{program.chip}-sim"
    words = ["snn-compile", model, "--target", target, "--calibrate", data, *stated]
    slow = ["--c-slow", str(program.period)] if program.period > 1 else []
    if any(cause.kind == "relaxed timing" for cause in causes):
        slow = ["--c-slow"]
    asked = [(cause.rank, _options(program, network, cause)) for cause in causes]
    commands = [[*words, *own, *slow, "-o", "PROGRAM"] for rank, own in asked if own or rank < 2]
    return list(dict.fromkeys(shlex.join(command) for command in commands))


def _options(program: Program, network: Network, cause: Cause) -> list[str]:
    words: list[str] = []
    tables = [e.tables for e in program.projections if cause.place in ("", e.name)]
    tables = tables or [e.tables for e in program.projections]
    bits = min((t.bits for split in tables for t in split), default=BITS_MAX)
    if cause.kind in ("weight rounding", "clipped weight", "coarse weights"):
        if bits < BITS_MAX:
            words += ["--bits", str(BITS_MAX)]
        single = any(len(split) == 1 and split[0].sign_mode == "mixed" for split in tables)
        if single:
            words += ["--tables", "sign"]
        elif not all(map(_adds_up, tables)):
            words += ["--tables", "residual"]
    for item in RULE_CHOICES:
        if (f"rule.{item}", cause.place) in cause.effects:
            words += ["--convention", f"{item}={getattr(network.population(cause.place), item)}"]
    return words


def _adds_up(tables: Sequence[WeightTable]) -> bool:
    """Whether a projection has a residual table: one that is split neither by sign nor by targets."""
    if len(tables) < 2 or {t.sign_mode for t in tables} == {"excitatory", "inhibitory"}:
        return False
    return bool(((tables[0].fan_in > 0) & (tables[1].fan_in > 0)).any())
