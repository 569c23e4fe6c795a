"""The float reference: a Network run in float64 and logical time."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import issparse

from snn_compile.compiler.network import PROGRAMMED, SIGMA_DELTA, Float, Network, Population, Weight
from snn_compile.targets.devices.events import SpikeEvents
from snn_compile.targets.devices.record import RunRecord, read_out
from snn_compile.targets.errors import WrongInput


@dataclass(frozen=True)
class Peak:
    """Largest magnitudes that a population's states reached, and the largest v; v before the reset."""

    u: float
    v: float
    v_high: float


@dataclass(frozen=True, eq=False)
class FloatRun:
    """Traces by population, (batch, steps, size), and the peaks of u and v.

    `messages` are spikes, several a step where the rule says so, or a leaky integrator's membrane.
    """

    messages: Mapping[str, Float]
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
    network: Network, inputs: Mapping[str, Float], messages: Iterable[str] = (), probes: Iterable[str] = ()
) -> FloatRun:
    """Step the network over inputs (batch, steps, size) by port; see `network.py` for the equations."""
    batch, steps = next(iter(inputs.values())).shape[:2]
    groups = {p.name: _group(p, batch) for p in network.populations}
    sent = {p.name: np.zeros((batch, steps, p.size)) for p in network.populations}
    probed = {probe: np.zeros((batch, steps, network.size(probe.rpartition(".")[0]))) for probe in probes}
    kinds = {p.name: [k for n, _, k in map(_parted, probed) if n == p.name] for p in network.populations}
    offset = {p.name: p.parameters["offset"] for p in network.populations}
    arriving = {p.name: [e for e in network.projections if e.target == p.name] for p in network.populations}
    # What an input contributes does not depend on the network: one product for all steps.
    from_input = {
        e.name: _product(inputs[e.source].reshape(batch * steps, -1), e.weight).reshape(batch, steps, -1)
        for e in network.projections
        if e.source in inputs
    }
    for t in range(steps):
        for name in network.order:
            group = groups[name]
            x = group.population.parameters["input_bias"]
            for edge in arriving[name]:
                if t >= edge.delay_steps:
                    late = t - edge.delay_steps
                    known = from_input.get(edge.name)
                    x = x + (
                        _product(sent[edge.source][:, late], edge.weight) if known is None else known[:, late]
                    )
            sent[name][:, t] = group.step(x)
            for kind in kinds[name]:
                value = getattr(group, kind)
                probed[f"{name}.{kind}"][:, t] = value + offset[name] if kind == "v" else value
    return FloatRun(
        {name: sent[name] for name in messages}, probed, {name: g.peak() for name, g in groups.items()}
    )


def _parted(probe: str) -> tuple[str, str, str]:
    return probe.rpartition(".")


def _group(population: Population, batch: int) -> Any:
    """Return what steps a population; its model's module has the equations."""
    from snn_compile.compiler.neurons.lsn import LiquidGroup
    from snn_compile.compiler.neurons.models import NEURON_PROGRAMS
    from snn_compile.compiler.neurons.sigma_delta import SigmaDeltaGroup

    if population.model == "lsn":
        return LiquidGroup(population, batch)
    if population.model in SIGMA_DELTA:
        return SigmaDeltaGroup(population, batch)
    if population.model in PROGRAMMED:
        return NEURON_PROGRAMS[population.model].group(population, batch)
    return _Group(population, batch)


def _product(messages: Float, weight: Weight) -> Float:
    """Return messages (batch, source) through weight (target, source): (batch, target)."""
    product: Float = (weight @ messages.T).T if issparse(weight) else messages @ np.asarray(weight).T
    return product


class SpikingGroup:
    """The float state of a population over a batch, for models beyond the leaky ones.

    `u` is what arrived, `v` the membrane; the rest is the model's own, in `begin`.
    """

    def __init__(self, population: Population, batch: int) -> None:
        self.population, self.parameters = population, population.parameters
        self.u = self.v = np.zeros((batch, population.size))
        self._peaks = np.zeros(3)
        self.begin()

    def begin(self) -> None:
        """Set the states that the model has besides."""

    def peak(self) -> Peak:
        """Return the largest input, the largest part of the state, and the highest that meets a threshold."""
        return Peak(*self._peaks.tolist())

    def arrive(self, x: Float) -> None:
        """Take synaptic input x in all samples."""
        self.u = np.zeros_like(self.u) + x

    def note(self, state: float, high: float) -> None:
        """Note the largest part of a step's state, and the highest that meets a threshold."""
        self._peaks = np.maximum(self._peaks, [float(np.abs(self.u).max()), state, high])


class _Group:
    """The state of one population over a batch; a step follows `targets.Rule`."""

    def __init__(self, population: Population, batch: int) -> None:
        self.population, self.rule, self.parameters = population, population.rule, population.parameters
        self.u = np.zeros((batch, population.size))
        self.v = self.u + self.parameters["v_init"]
        self.last = np.zeros_like(self.u)
        self._u_peak = self._v_peak = self._v_high = 0.0

    def peak(self) -> Peak:
        """Return the largest states so far."""
        return Peak(self._u_peak, self._v_peak, self._v_high)

    def _watch(self) -> None:
        self._v_peak = max(self._v_peak, float(np.abs(self.v).max()))
        self._v_high = max(self._v_high, float(self.v.max()))

    def step(self, x: Float) -> Float:
        """Advance by one logical step with synaptic input x; return what is sent."""
        rule, parameters = self.rule, self.parameters
        before, keep = self.u, 1 - parameters["current_decay"]
        whole = (self.u if rule.current_decay == "after" else keep * self.u) + x
        self.u = keep * whole if rule.current_decay == "after" else whole
        self._u_peak = max(self._u_peak, float(np.abs(whole).max()))
        pending = self._past(self.v) if self.population.spiking else None
        if rule.reset_timing == "next_before":
            self._reset(self.last)
        drive = whole if rule.update_order == "synapse_first" else before
        self.v = (1 - parameters["voltage_decay"]) * self.v + drive + parameters["bias"]
        self._watch()
        if pending is None:
            return self.v
        if rule.reset_timing == "next_after":
            self._reset(self.last)
            self._watch()
        self.last = self._spikes(pending)
        if rule.reset_timing in ("same_step", "pending"):
            self._reset(self.last)
        self.v = np.maximum(self.v, parameters["v_min"])
        return self.last

    def _spikes(self, pending: npt.NDArray[np.bool_]) -> Float:
        threshold = self.parameters["threshold"]
        reached = self.v - np.where(pending, threshold, 0) if self.rule.reset_timing == "pending" else self.v
        fired = self._past(reached)
        if self.rule.spikes_per_step == "floor":
            passed = reached / threshold
            return np.where(
                fired, np.ceil(passed) - 1 if self.rule.comparison == ">" else np.floor(passed), 0.0
            )
        return fired.astype(np.float64)

    def _past(self, v: Float) -> npt.NDArray[np.bool_]:
        threshold = self.parameters["threshold"]
        past: npt.NDArray[np.bool_] = v > threshold if self.rule.comparison == ">" else v >= threshold
        return past

    def _reset(self, spikes: Float) -> None:
        if self.rule.reset == "value":
            self.v = np.where(spikes != 0, 0.0, self.v)
        elif self.rule.reset == "subtract":
            self.v = self.v - spikes * self.parameters["threshold"]


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
