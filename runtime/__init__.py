"""Data sets and codings, running, counting, costing, comparing, reporting."""

from snn_compile.runtime.accuracy import Accuracy, paired_interval
from snn_compile.runtime.compare import Check, Difference, check, compare, first_difference
from snn_compile.runtime.cost import Energy, energy
from snn_compile.runtime.data import Dataset, data_names, load_data
from snn_compile.runtime.figure import Trace, trace
from snn_compile.runtime.report import Report
from snn_compile.runtime.run import reference, simulate

__all__ = [
    "Accuracy",
    "Check",
    "Dataset",
    "Difference",
    "Energy",
    "Report",
    "Trace",
    "check",
    "compare",
    "data_names",
    "energy",
    "first_difference",
    "load_data",
    "paired_interval",
    "reference",
    "simulate",
    "trace",
]
