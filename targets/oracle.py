"""The oracle: what a program means, in plain integers.

Every other device is compared with this one. It computes in int64, wraps and saturates where the
hardware format says so, and can refuse to (`strict=True`). In one device step every port of every
population receives

    a  = sum over tables of shift(W @ messages sent 1 + delay steps ago, exponent)      wrapped to 32 bits

and its neurons step as their model's class says (`neurons_*.py`). A population does nothing before its
start step, and in a c-slow program nothing between its logical steps. Source: Lava 0.10.0's fixed-point
processes, Dense and DelayDense among them, as measured on random programs; start steps, periods, every
rule of the LIF but the first, `brf` and `alif` are ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from snn_compile.targets.errors import DeviceError
from snn_compile.targets.events import SpikeEvents
from snn_compile.targets.integer import Int, shift_sum, wrap32
from snn_compile.targets.neurons import Neurons
from snn_compile.targets.neurons_adaptive import AdaptiveNeurons
from snn_compile.targets.neurons_balanced import AdaptiveLeakyNeurons, BalancedResonators
from snn_compile.targets.neurons_graded import (
    DeltaNeurons,
    RectifiedRelays,
    Relays,
    SigmaDeltaNeurons,
    SigmaNeurons,
)
from snn_compile.targets.neurons_lif import LeakyIntegrators, LeakyNeurons, TernaryNeurons
from snn_compile.targets.neurons_resonator import IzhikevichResonators, Resonators
from snn_compile.targets.program import Program, Projection
from snn_compile.targets.record import DeviceRun

CLASSES: dict[str, type[Neurons]] = {
    "lif": LeakyNeurons,
    "li": LeakyIntegrators,
    "ternary": TernaryNeurons,
    "rf": Resonators,
    "rf_iz": IzhikevichResonators,
    "atrlif": AdaptiveNeurons,
    "brf": BalancedResonators,
    "alif": AdaptiveLeakyNeurons,
    "sigma_delta": SigmaDeltaNeurons,
    "delta": DeltaNeurons,
    "sigma": SigmaNeurons,
    "graded": Relays,
    "graded_relu": RectifiedRelays,
}
"""The class of each model's neurons."""


class Oracle:
    """The definition, slow and readable. `strict=True` raises DeviceError on wrap or saturation."""

    name = "oracle"

    def __init__(self, strict: bool = False) -> None:
        self.strict = strict

    def run(
        self,
        program: Program,
        messages: Mapping[str, npt.NDArray[np.int32]],
        device_steps: int,
        probes: Sequence[str],
    ) -> DeviceRun:
        """Run all samples side by side; see `Device.run`."""
        batch = next(iter(messages.values())).shape[0]
        groups = {p.name: CLASSES[p.model](p, batch) for p in program.populations}
        steps = program.logical_steps(device_steps)
        sent: dict[str, list[Int]] = {p.name: [] for p in program.nodes}
        states: dict[str, list[Int]] = {probe: [] for probe in probes}
        for step in range(device_steps):
            emitted = {p.name: messages[p.name][:, step].astype(np.int64) for p in program.inputs}
            for name, group in groups.items():
                late = step - group.population.start_step
                if late < 0 or late % program.period:
                    emitted[name] = group.zeros()
                    continue
                before = group.overflow
                emitted[name] = group.step(_arriving(program, group, step, sent))
                if late >= steps * program.period:
                    group.overflow = before  # while the pipeline drains: it changes no result
                if self.strict and group.overflow:
                    raise DeviceError(
                        f"{name!r} left its 24-bit range at device step {step}: {group.overflow}",
                        device=self.name,
                        population=name,
                        step=step,
                    )
            for name, values in emitted.items():
                sent[name].append(values)
            for probe, trace in states.items():
                name, _, state = probe.rpartition(".")
                trace.append(getattr(groups[name], state).copy())
        return DeviceRun(
            spikes={
                p.name: SpikeEvents.from_dense(np.stack(sent[p.name], axis=1), p.graded)
                for p in program.senders
            },
            states={probe: np.stack(trace, axis=1).astype(np.int32) for probe, trace in states.items()},
            overflows={name: group.overflow for name, group in groups.items()},
        )


def _arriving(program: Program, group: Neurons, step: int, sent: Mapping[str, list[Int]]) -> list[Int]:
    """Return what arrives at each port of a population in a device step."""
    totals = [group.zeros() for _ in group.population.kind.ports]
    for edge in program.projections:
        if edge.target == group.population.name and step - 1 - edge.delay_steps >= 0:
            totals[edge.port] += synaptic_input(edge, sent[edge.source][step - 1 - edge.delay_steps])
    return [wrap32(total) for total in totals]


def synaptic_input(edge: Projection, messages: Int) -> Int:
    """Return what a projection delivers for messages (batch, source): (batch, target)."""
    total = np.zeros((messages.shape[0], edge.tables[0].shape[0]), np.int64)
    for table in edge.tables:
        values = messages if table.message_bits else (messages != 0).astype(np.int64)
        total += shift_sum(table.apply(values), table.exponent)
    return total
