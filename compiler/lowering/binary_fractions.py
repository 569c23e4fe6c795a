"""Restore decays and gains that are binary fractions in a framework and lost a bit in its float32 file.

A framework steps v = 0.5 v + x with exactly 0.5. Its file holds tau and r in float32, so dt / tau and
r dt / tau come back within a unit in the last place (ulp) of 0.5 and 1, and a membrane that meets its
threshold exactly in the framework would miss it. A value within one float32 ulp of a binary fraction of at
most 8 bits becomes that fraction, if all stored values that it comes from are float32 numbers: another number
in a float64 file is meant as it stands.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from snn_compile.compiler.network import Float

BITS = 8
"""Most bits of a fraction, after the binary point and in all."""


@dataclass(eq=False)
class Fractions:
    """Restores the values of one node; `found` holds the fractions of those that changed, by name."""

    found: dict[str, Float] = field(default_factory=dict)

    def restored(self, what: str, value: Float, *stored: Float) -> Float:
        """Return a value computed from `stored` arrays with its binary fractions restored."""
        with np.errstate(over="ignore", invalid="ignore"):
            if not all(np.array_equal(each, each.astype(np.float32)) for each in stored):
                return value
            near = np.rint(value * (1 << BITS)) / (1 << BITS)
            mantissa = np.frexp(near)[0] * (1 << BITS)
            within = np.abs(value - near) <= np.spacing(np.abs(near).astype(np.float32))
        exact = np.where(within & (mantissa == np.rint(mantissa)) & (near != 0), near, value)
        if (changed := exact != value).any():
            self.found[what] = np.unique(exact[changed])
        return exact


def restorations(found: Mapping[str, Mapping[str, Float]]) -> list[str]:
    """Return one line per restored quantity, given by node and name; nodes with equal fractions share it."""
    lines: dict[str, list[str]] = {}
    for node, items in found.items():
        for what, values in items.items():
            shown = ", ".join(f"{value:g}" for value in values[:3]) + ", ..." * (len(values) > 3)
            lines.setdefault(f"{what} {shown}", []).append(node)
    return [
        f"{text} of {', '.join(map(repr, nodes[:3]))}{' and others' * (len(nodes) > 3)}: an exact binary "
        "fraction, restored from float32"
        for text, nodes in lines.items()
    ]
