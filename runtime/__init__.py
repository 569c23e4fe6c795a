"""Data sets and codings, running, counting, costing, comparing, reporting.

Names load on first use, so that a command's --help stays light.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from snn_compile.runtime.data.registry import Dataset, data_names, load_data
    from snn_compile.runtime.divergence.diverge import Divergence, diverge
    from snn_compile.runtime.evaluation.compare import Check, Difference, check, compare, first_difference
    from snn_compile.runtime.evaluation.mixed_precision import search_precision
    from snn_compile.runtime.execution.environments import Environment, Episodes, environment_of, run_episodes
    from snn_compile.runtime.execution.run import reference, simulate
    from snn_compile.runtime.execution.session import Answer, Session, Totals, open_session
    from snn_compile.runtime.reports.accuracy import Accuracy, paired_interval
    from snn_compile.runtime.reports.energy import Energy, energy
    from snn_compile.runtime.reports.figure import Trace, trace
    from snn_compile.runtime.reports.report import Report

__all__ = [
    "Accuracy",
    "Answer",
    "Check",
    "Dataset",
    "Difference",
    "Divergence",
    "Energy",
    "Environment",
    "Episodes",
    "Report",
    "Session",
    "Totals",
    "Trace",
    "check",
    "compare",
    "data_names",
    "diverge",
    "energy",
    "environment_of",
    "first_difference",
    "load_data",
    "open_session",
    "paired_interval",
    "reference",
    "run_episodes",
    "search_precision",
    "simulate",
    "trace",
]

_MODULES = {
    "reports.accuracy": ("Accuracy", "paired_interval"),
    "evaluation.compare": ("Check", "Difference", "check", "compare", "first_difference"),
    "reports.energy": ("Energy", "energy"),
    "data.registry": ("Dataset", "data_names", "load_data"),
    "divergence.diverge": ("Divergence", "diverge"),
    "execution.environments": ("Environment", "Episodes", "environment_of", "run_episodes"),
    "reports.figure": ("Trace", "trace"),
    "execution.session": ("Answer", "Session", "Totals", "open_session"),
    "reports.report": ("Report",),
    "execution.run": ("reference", "simulate"),
    "evaluation.mixed_precision": ("search_precision",),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
