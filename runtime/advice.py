"""What to do about a cause, as a command to run."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from snn_compile.compiler.precision import TABLES
from snn_compile.runtime.causes import Cause
from snn_compile.targets.program import Program
from snn_compile.targets.rule import CHOICES as RULE_CHOICES

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

    `stated`: words that every command needs for the model to be read, such as --convention dt=1e-4.
    """
    words = ["snn-compile", model, "--target", f"{program.chip}-sim", "--calibrate", data, *stated]
    commands = [[*words, *_options(program, network, cause), "-o", "PROGRAM"] for cause in causes]
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
        finer = [how for how in ("sign", "residual") if how in TABLES][0 if single else 1 :]
        words += ["--tables", finer[0]] if finer else []
    elif cause.kind == "relaxed timing":
        words += ["--c-slow"]
    for item in RULE_CHOICES:
        if (f"rule.{item}", cause.place) in cause.effects:
            words += ["--convention", f"{item}={getattr(network.population(cause.place), item)}"]
    return words
