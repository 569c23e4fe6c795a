"""Gates: check a compiled program against stated limits on accuracy and cores."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING

from snn_compile.targets.errors import WrongInput

if TYPE_CHECKING:
    from snn_compile.compiler.calibration.mixed_precision import Search
    from snn_compile.compiler.cli.protocols import Report
    from snn_compile.compiler.pipeline import Compilation


def failures(
    done: Compilation,
    report: Report | None,
    found: Search | None,
    max_drop: float | None,
    max_cores: int | None,
) -> list[str]:
    """Return the limits that are exceeded, one line each.

    The limit on the drop applies to the drop itself, for a searched program to the upper end of its interval.
    Raises WrongInput where there is no drop.
    """
    if found is not None:
        return [] if found.met else [_unmet(found, max_drop, max_cores)]
    failed = []
    if max_drop is not None:
        accuracy = report.accuracy if report else None
        if accuracy is None or accuracy.drop is None:
            raise WrongInput("--max-drop needs a network that classifies; this one has no accuracy")
        if accuracy.drop > max_drop + 1e-9:
            failed.append(
                f"accuracy drops by {accuracy.drop:.2f} points, --max-drop allows {max_drop:g} (this program "
                f"meets {ceil(100 * accuracy.drop) / 100:.2f}); snn-run diverge finds the cause"
            )
    assert done.program is not None
    cores = len(done.program.cores)
    if max_cores is not None and cores > max_cores:
        failed.append(
            f"the program takes {cores} cores, --max-cores allows {max_cores}; "
            "--bits auto searches for a smaller one"
        )
    return failed


def _unmet(found: Search, max_drop: float | None, max_cores: int | None) -> str:
    """Return which limit cannot be met, and what comes nearest to it."""
    best = found.chosen
    parts = []
    if max_drop is not None and not best.holds and best.accuracy is not None:
        parts.append(
            f"no program measured keeps the drop within {max_drop:g} points; the nearest, "
            f"{best.plan.title()}, drops {best.accuracy.drop:.2f} points, at most {best.accuracy.upper:.2f} "
            f"(95 % interval, {best.accuracy.samples} samples), "
            f"so --max-drop {ceil(100 * best.accuracy.upper) / 100:.2f} can be met"
        )
        if best.accuracy.drop <= max_drop:
            parts.append("the drop itself is within the limit: more check samples narrow the interval")
    if not best.fits:
        parts.append(
            f"the smallest program takes {best.cores} cores"
            + ("" if max_cores is None else f", --max-cores allows {max_cores}")
        )
    if not parts:
        parts.append("no program keeps both limits; each alone can be met")
    return "; ".join(parts)
