"""The float reference: a Network run in float64 and logical time."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from snn_compile.compiler.network import Float, Network
from snn_compile.targets.errors import WrongInput
from snn_compile.targets.events import SpikeEvents
from snn_compile.targets.record import RunRecord, read_out


@dataclass(frozen=True)
class Peak:
    """Largest magnitudes that a population's states reached; v before the reset."""

    u: float
    v: float


@dataclass(frozen=True, eq=False)
class FloatRun:
    """Traces by population, (batch, steps, size), and the peaks of u and v."""

    spikes: Mapping[str, npt.NDArray[np.bool_]]
    states: Mapping[str, Float]
    peaks: Mapping[str, Peak]


def as_inputs(network: Network, inputs: npt.ArrayLike | Mapping[str, npt.ArrayLike]) -> dict[str, Float]:
    """Return checked inputs by port, flattened to (batch, steps, size)."""
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
        if data.ndim < 2 or data.shape[2:] != port.shape:
            raise WrongInput(
                f"input {port.name!r}: data of shape {data.shape}; the network takes "
                f"(batch, steps, {', '.join(map(str, port.shape))})"
            )
        if 0 in data.shape or not np.isfinite(data).all():
            raise WrongInput(f"input {port.name!r}: data of shape {data.shape} is empty or not finite")
        flat[port.name] = data.reshape(*data.shape[:2], -1)
    if len({data.shape[:2] for data in flat.values()}) > 1:
        raise WrongInput("the inputs differ in their number of samples or steps")
    return flat


def run_float(
    network: Network, inputs: Mapping[str, Float], spikes: Iterable[str] = (), probes: Iterable[str] = ()
) -> FloatRun:
    """Step the network over inputs (batch, steps, size) by port; see `network.py` for the equations."""
    batch, steps = next(iter(inputs.values())).shape[:2]
    emitted: dict[str, Float] = {}
    state: dict[str, tuple[Float, Float]] = {}
    for p in network.populations:
        emitted[p.name] = np.zeros((batch, steps, p.size))
        state[p.name] = (np.zeros((batch, p.size)), np.zeros((batch, p.size)) + p.parameters["v_init"])
    peaks = {p.name: [0.0, 0.0] for p in network.populations}
    probed = {probe: np.zeros((batch, steps, network.size(probe.rpartition(".")[0]))) for probe in probes}
    arriving = {p.name: [e for e in network.projections if e.target == p.name] for p in network.populations}
    # What an input contributes does not depend on the network: one product for all steps.
    from_input = {e.name: inputs[e.source] @ e.weight.T for e in network.projections if e.source in inputs}
    for t in range(steps):
        for name in network.order:
            p = network.population(name)
            u, v = state[name]
            x = p.parameters["input_bias"]
            for edge in arriving[name]:
                if t >= edge.delay_steps:
                    x = x + (
                        from_input[edge.name][:, t - edge.delay_steps]
                        if edge.name in from_input
                        else emitted[edge.source][:, t - edge.delay_steps] @ edge.weight.T
                    )
            u = (1 - p.parameters["current_decay"]) * u + x
            v = (1 - p.parameters["voltage_decay"]) * v + u + p.parameters["bias"]
            peaks[name][0] = max(peaks[name][0], float(np.abs(u).max()))
            peaks[name][1] = max(peaks[name][1], float(np.abs(v).max()))
            if p.spiking:
                threshold = p.parameters["threshold"]
                fired = v > threshold if p.comparison == ">" else v >= threshold
                emitted[name][:, t] = fired
                if p.reset == "value":
                    v = np.where(fired, 0.0, v)
                elif p.reset == "subtract":
                    v = np.where(fired, v - threshold, v)
            state[name] = (u, v)
            for kind, value in (("u", u), ("v", v + p.parameters["offset"])):
                if f"{name}.{kind}" in probed:
                    probed[f"{name}.{kind}"][:, t] = value
    return FloatRun(
        {name: emitted[name] != 0 for name in spikes},
        probed,
        {name: Peak(u, v) for name, (u, v) in peaks.items()},
    )


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
    signal = run.states[f"{port.population}.v"] if membrane else run.spikes[port.population]
    outputs = signal.reshape(*signal.shape[:2], *port.shape)
    predictions, ties = read_out(outputs, port.readout.readout, port.readout.task)
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
        spike_events={name: SpikeEvents.from_dense(run.spikes[name]) for name in record},
        state_arrays={name: run.states[name] for name in probes},
    )
