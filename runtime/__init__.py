"""Data sets and codings, running, counting, costing, comparing, reporting.

Names load on first use, so that a command's --help stays light.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from snn_compile.targets.lazy import attach

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
else:
    __getattr__, __dir__ = attach(
        __name__,
        {
            "data.registry": ("Dataset", "data_names", "load_data"),
            "divergence.diverge": ("Divergence", "diverge"),
            "evaluation.compare": ("Check", "Difference", "check", "compare", "first_difference"),
            "evaluation.mixed_precision": ("search_precision",),
            "execution.environments": ("Environment", "Episodes", "environment_of", "run_episodes"),
            "execution.run": ("reference", "simulate"),
            "execution.session": ("Answer", "Session", "Totals", "open_session"),
            "reports.accuracy": ("Accuracy", "paired_interval"),
            "reports.energy": ("Energy", "energy"),
            "reports.figure": ("Trace", "trace"),
            "reports.report": ("Report",),
        },
    )

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
