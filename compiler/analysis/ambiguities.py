"""Ambiguities of a NIR file: how frameworks interpret it, and the size of the effect.

Frameworks write the same nodes for different steps (`READERS`; established by running their released
exporters, docs/interop.md). An item of the contract that the file does not state was decided by an exporter's
convention or a default. For each such item, every neuron is also lowered under the other interpretations;
those that change no population are not worth a warning.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from shlex import quote
from typing import Any

import numpy as np

from snn_compile.compiler.contract.contract import Contract
from snn_compile.compiler.contract.fingerprints import NEURONS
from snn_compile.compiler.lowering.flatten import flatten_graph
from snn_compile.compiler.lowering.nodes import Neuron, lower_node
from snn_compile.targets.errors import SnnCompileError

READERS: dict[str, dict[str, str]] = {
    "rule": {"euler": "norse, snntorch, spikingjelly, spyx", "exponential": "rockpool, sinabs"},
    "gain": {
        "as_written": "norse, snntorch, spikingjelly",
        "unit": "sinabs with norm_input=False, norse's CubaLIF, spyx",
        "norm": "sinabs",
        "decayed": "rockpool's currents",
    },
    "comparison": {">": "norse, snntorch, spyx, Lava", ">=": "rockpool, sinabs, spikingjelly"},
    "reset": {
        "value": "norse, spikingjelly, snntorch with 'zero', Lava",
        "subtract": "rockpool, sinabs, snntorch, spyx",
    },
    "reset_timing": {
        "same_step": "norse, rockpool, sinabs, spikingjelly, Lava",
        "next_after": "snntorch, spyx",
    },
    "spikes_per_step": {"one": "norse, snntorch, spikingjelly, spyx, Lava", "floor": "rockpool, sinabs"},
    "current_decay": {"before": "rockpool, snntorch, spikingjelly, Lava", "after": "norse"},
    "v_init": {"0.0": "rockpool, sinabs, snntorch, Lava", "v_leak": "norse", "v_reset": "spikingjelly"},
}
"""Frameworks by their interpretation of an item."""

SAME = 1e-6
"""Relative difference up to which numbers are equal: files hold float32."""


@dataclass(frozen=True)
class Difference:
    """An item, its value and how it was decided, and another interpretation, by whom, with its effect."""

    item: str
    value: str
    decided: str
    other: str
    readers: str
    changes: str

    def text(self) -> str:
        """Return the warning in one line."""
        stated = quote(f"{self.item}={self.other}")  # a shell takes > for a redirection
        return (
            f"{self.item} is {self.value} ({self.decided}); {self.other}, which {self.readers} mean, would "
            f"change {self.changes}: --convention {stated}"
        )

    def json(self) -> dict[str, str]:
        """Return the fields by name."""
        return asdict(self)


def differences(graph: Any, contract: Contract, decided: Mapping[str, str]) -> list[Difference]:
    """Return the interpretations that differ from a resolved contract, for items the file leaves open."""
    neurons = {name: node for name, node in flatten_graph(graph)[0].items() if type(node).__name__ in NEURONS}
    found = []
    for item, interpretations in READERS.items():
        how = decided.get(item, "default")
        if how.startswith(("stated", "metadata")):
            continue
        value = str(getattr(contract, item))
        for other, who in interpretations.items():
            if other == value:
                continue
            changes = _changes(neurons, contract, item, other)
            if changes:
                found.append(Difference(item, value, how, other, who, changes))
    return found


def _changes(neurons: Mapping[str, Any], contract: Contract, item: str, other: str) -> str:
    """Return the neurons that another interpretation changes, and the largest change; "" if none."""
    value: Any = float(other) if item == "v_init" and other == "0.0" else other
    names, largest, what = [], 0.0, ""
    for name, node in neurons.items():
        own = contract.of(name)
        try:
            a = lower_node(node, name, own)
            b = lower_node(node, name, replace(own, **{item: value}))
        except SnnCompileError:  # this interpretation has no meaning for such a node
            continue
        if not isinstance(a, Neuron) or not isinstance(b, Neuron):
            continue
        changed = _apart(a, b)
        if changed is None:
            continue
        names.append(name)
        if changed[1] > largest:
            what, largest = changed
    if not names:
        return ""
    where = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
    return where + (f" ({what} by up to {largest:.3g})" if largest else "")


def _apart(a: Neuron, b: Neuron) -> tuple[str, float] | None:
    """Return the parameter in which two lowered nodes differ most, or None if they are equal."""
    pairs = {"the input's gain": (a.gain, b.gain)}
    pairs |= {
        key: (a.population.parameters[key], b.population.parameters[key]) for key in a.population.parameters
    }
    gaps = {
        key: float(np.max(np.abs(x - y)))
        for key, (x, y) in pairs.items()
        if np.isfinite(x).all() and not np.allclose(x, y, rtol=SAME, atol=SAME**2)
    }
    if gaps:
        key = max(gaps, key=gaps.__getitem__)
        return key.replace("_", " "), gaps[key]
    return ("", 0.0) if a.population.rule != b.population.rule else None
