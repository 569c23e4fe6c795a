"""The float reference: a Network run in float64 and logical time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
from scipy.sparse import issparse

from snn_compile.compiler.network import Float, Network, Weight
from snn_compile.compiler.neurons.base import Group, Peak
from snn_compile.targets.devices.events import SpikeEvents
from snn_compile.targets.devices.record import RunRecord, read_out
from snn_compile.targets.errors import WrongInput
from snn_compile.targets.program.program import misfit

HOST_PRECISION = 2.0**-21
"""Relative error that a whole product of an input may have: what float32 loses in two roundings."""


@dataclass(frozen=True, eq=False)
class FloatRun:
    """Traces by population, (batch, steps, size), and the peaks of u and v.

    `messages` are spikes, several per step where the rule allows it, or a leaky integrator's membrane.
    """

    messages: Mapping[str, Float]
    states: Mapping[str, Float]
    peaks: Mapping[str, Peak]


def as_inputs(network: Network, inputs: npt.ArrayLike | Mapping[str, npt.ArrayLike]) -> dict[str, Float]:
    """Return checked inputs by port, flattened to (batch, steps, size), as the network receives them.

    Products with a port's `host_gain` that are whole numbers but for the precision of float32 become whole.
    """
    if not isinstance(inputs, Mapping):
        if len(network.inputs) > 1:
            raise WrongInput("the network has several inputs; give a mapping of arrays")
        inputs = {network.inputs[0].name: inputs}
    if extra := inputs.keys() - {port.name for port in network.inputs}:
        raise WrongInput(
            f"data for {sorted(extra)}; the network's inputs are {[port.name for port in network.inputs]}"
        )
    flat: dict[str, Float] = {}
    for port in network.inputs:
        if port.name not in inputs:
            raise WrongInput(f"no data for input {port.name!r}; given are {sorted(inputs)}")
        data = np.asarray(inputs[port.name], np.float64)
        if why := misfit(data.shape, port.shape, "network"):
            raise WrongInput(f"input {port.name!r}: {why}")
        if 0 in data.shape or not np.isfinite(data).all():
            raise WrongInput(f"input {port.name!r}: data of shape {data.shape} is empty or not finite")
        flat[port.name] = data.reshape(*data.shape[:2], -1)
        if port.host_gain:
            product = flat[port.name] * port.host_gain
            near = np.rint(product)
            whole = np.abs(product - near) <= HOST_PRECISION * np.maximum(np.abs(product), 1.0)
            flat[port.name] = np.where(whole, near, product)
    if len({data.shape[:2] for data in flat.values()}) > 1:
        raise WrongInput("the inputs differ in their number of samples or steps")
    return flat


class Wire:
    """A projection as a run sees it: the messages of `source` reach `target`'s port `delay` steps later."""

    def __init__(
        self, source: str, target: str, delay: int, deliver: Callable[[Float], Float], port: int = 0
    ) -> None:
        self.source, self.target, self.delay, self.deliver = source, target, delay, deliver
        self.port = port

    def all_steps(self, messages: Float) -> Float:
        """Return what messages (batch, steps, source) of all steps deliver: (batch, steps, target)."""
        flat = self.deliver(messages.reshape(-1, messages.shape[2]))
        return flat.reshape(*messages.shape[:2], -1)


def step_groups(
    groups: Mapping[str, Group],
    order: Sequence[str],
    wires: Sequence[Wire],
    sent: dict[str, Float],
    traces: Mapping[tuple[str, str], Float],
) -> None:
    """Step populations through logical time.

    `sent` holds the inputs (batch, steps, size) by name and is filled with every population's messages;
    `traces`, by population and state, are filled with the states after each step.
    """
    batch, steps = next(iter(sent.values())).shape[:2]
    # What an input contributes does not depend on the network: one product for all steps.
    incoming = {
        name: [
            (w, None if w.source in groups else w.all_steps(sent[w.source]))
            for w in wires
            if w.target == name
        ]
        for name in order
    }
    probed = {name: [(state, trace) for (n, state), trace in traces.items() if n == name] for name in order}
    sent |= {name: np.zeros((batch, steps, group.size)) for name, group in groups.items()}
    for t in range(steps):
        for name in order:
            group = groups[name]
            x = [group.input_bias, *(group.ports - 1) * [np.zeros(1)]]
            for wire, drive in incoming[name]:
                if t >= wire.delay:
                    late, at = t - wire.delay, wire.port
                    came = wire.deliver(sent[wire.source][:, late]) if drive is None else drive[:, late]
                    x[at] = x[at] + came
            sent[name][:, t] = group.step(x[0] if group.ports == 1 else _stacked(x, group))
            for state, trace in probed[name]:
                trace[:, t] = getattr(group, state)


def _stacked(inputs: Sequence[Float], group: Group) -> Float:
    """Return the inputs of a group's ports as (ports, batch, size)."""
    return np.stack([np.broadcast_to(x, group.v.shape) for x in inputs])


def run_float(
    network: Network, inputs: Mapping[str, Float], messages: Iterable[str] = (), probes: Iterable[str] = ()
) -> FloatRun:
    """Step the network over inputs (batch, steps, size) by port; see `network.py` for the equations."""
    batch, steps = next(iter(inputs.values())).shape[:2]
    groups = {p.name: p.kind.group(p, batch) for p in network.populations}
    wires = [
        Wire(e.source, e.target, e.delay_steps, partial(product, e.weight), e.port)
        for e in network.projections
    ]
    traces = {}
    for probe in probes:
        name, _, state = probe.rpartition(".")
        traces[name, state] = np.zeros((batch, steps, network.size(name)))
    sent = dict(inputs)
    step_groups(groups, network.order, wires, sent, traces)
    for (name, state), trace in traces.items():
        if state == "v":
            trace += network.population(name).parameters["offset"]
    return FloatRun(
        {name: sent[name] for name in messages},
        {f"{name}.{state}": trace for (name, state), trace in traces.items()},
        {name: group.peak() for name, group in groups.items()},
    )


def product(weight: Weight, messages: Float) -> Float:
    """Return messages (batch, source) through weight (target, source): (batch, target)."""
    total: Float = (weight @ messages.T).T if issparse(weight) else messages @ np.asarray(weight).T
    return total


def run_reference(
    network: Network,
    inputs: npt.ArrayLike | Mapping[str, npt.ArrayLike],
    record: Iterable[str] = (),
    probes: Iterable[str] = (),
) -> RunRecord:
    """Run the float reference and return the same kind of record that a device gives.

    States and outputs are in the units of the network's membrane; `counts` is None.
    """
    data, record, probes = as_inputs(network, inputs), tuple(record), tuple(probes)
    port = network.outputs[0]
    membrane = port.readout.signal == "membrane"
    began = time.perf_counter()
    run = run_float(
        network,
        data,
        {*record, *(() if membrane else (port.population,))},
        {*probes, *((f"{port.population}.v",) if membrane else ())},
    )
    wall = time.perf_counter() - began
    signal = run.states[f"{port.population}.v"] if membrane else run.messages[port.population]
    outputs = signal.reshape(*signal.shape[:2], *port.shape)
    read = port.readout
    predictions, ties = read_out(outputs, read.readout, read.task, read.skip)
    return RunRecord(
        device="reference",
        digest=network.digest(),
        outputs=outputs,
        predictions=predictions,
        ties=ties,
        counts=None,
        overflows={},
        latency_steps=0,
        wall_s=wall,
        shapes={p.name: p.shape for p in network.populations},
        spike_events={
            name: SpikeEvents.from_dense(run.messages[name], network.population(name).graded)
            for name in record
        },
        state_arrays={name: run.states[name] for name in probes},
    )
