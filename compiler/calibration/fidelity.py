"""Fidelity of an integer network to the float one on calibration data, and its cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from snn_compile.compiler.lowering.retime import RetimedNetwork
from snn_compile.compiler.mapping.partition import partition
from snn_compile.compiler.network import Float, Network
from snn_compile.compiler.quantization.quantize import QuantizedNetwork
from snn_compile.compiler.quantization.scales import Observation
from snn_compile.compiler.reference import run_float
from snn_compile.targets.chips.chip import Chip
from snn_compile.targets.devices.device import execute
from snn_compile.targets.devices.record import Overflow, read_out
from snn_compile.targets.errors import DoesNotFit
from snn_compile.targets.program.program import Program

Z = 1.959964
"""Quantile of the normal distribution for intervals of 95 %."""


@dataclass(frozen=True)
class Fidelity:
    """An integer network compared with the float one on calibration data.

    `changed`: spikes that only one of the two has, per spike of the float network. `disagreements`:
    predictions that differ, of `predictions`; None for regression. `error`: root mean square difference of
    the outputs (spike counts over time, or the membrane) over that of the float ones. `synapse_bits` and
    `cores` are the cost; cores are None where the program does not fit. `samples` of calibration data;
    `same_counts` of them have all output counts of the float network, None where the output is no spikes.
    `changed_error`: standard error of `changed` for other samples of the same kind.
    """

    predictions: int
    disagreements: int | None
    changed: float
    error: float
    synapse_bits: int
    cores: int | None
    overflows: Mapping[str, Overflow]
    samples: int = 0
    same_counts: int | None = None
    changed_error: float = 0.0

    def sureness(self) -> dict[str, Any]:
        """Return each measure as a fraction with its 95 % interval for other samples of the same kind.

        Shares have Wilson's interval (1927), `changed` that of a ratio of sums over samples. The trials were
        compared on the same samples, which makes the kept one look slightly better than it is.
        """
        found: dict[str, Any] = {"samples": self.samples}
        if self.disagreements is not None:
            same = self.predictions - self.disagreements
            found["same_prediction"] = _share(same, self.predictions)
        if self.same_counts is not None:
            found["same_counts"] = _share(self.same_counts, self.samples)
        half = Z * self.changed_error
        interval = [max(self.changed - half, 0.0), self.changed + half]
        return {**found, "spikes_changed": {"value": self.changed, "interval": interval}}

    def worse(self, other: Fidelity) -> bool:
        """Whether this follows the float network less closely than `other`."""
        return self.key > other.key

    @property
    def key(self) -> tuple[float, float]:
        """Sort key: changed spikes, then the outputs' error."""
        return (self.changed, self.error)


def measure(
    quantized: QuantizedNetwork,
    chip: Chip,
    retimed: RetimedNetwork,
    data: Mapping[str, Float],
    observed: Observation,
) -> Fidelity:
    """Run an integer network on calibration inputs (batch, steps, size) by port."""
    network = retimed.network
    assert observed.messages is not None
    program = unplaced(quantized, chip, retimed)
    shaped = {p.name: np.reshape(data[p.name], (*data[p.name].shape[:2], *p.shape)) for p in network.inputs}
    spiking = [p.name for p in network.populations if p.spiking and p.fixed_scale is None]
    record = execute(program, shaped, "loihi2-sim", record=spiking)
    samples = len(record.outputs)
    changed, total = np.zeros(samples), np.zeros(samples)
    for name in spiking:
        wanted = observed.messages[name].astype(np.int64)
        changed += np.abs(record.spikes(name).reshape(wanted.shape) - wanted).sum(axis=(1, 2))
        total += wanted.sum(axis=(1, 2))
    share, uncertain = _ratio(changed, total)
    outputs = record.outputs.reshape(*record.outputs.shape[:2], -1).astype(np.float64)
    if network.outputs[0].readout.signal == "membrane":
        outputs = outputs / program.population(network.outputs[0].population).scale
    predictions, disagreements = _predictions(network, outputs, observed)
    bits, cores = price(quantized, chip)
    return Fidelity(
        predictions,
        disagreements,
        share,
        _error(network, outputs, observed),
        bits,
        cores,
        record.overflows,
        samples,
        _same_counts(network, outputs, observed),
        uncertain,
    )


def unplaced(quantized: QuantizedNetwork, chip: Chip, retimed: RetimedNetwork) -> Program:
    """Return the program of an integer network without cores, on which only its cost depends."""
    return Program(
        chip.name,
        chip.version,
        quantized.populations,
        quantized.projections,
        quantized.inputs,
        quantized.outputs,
        period=retimed.period,
        formats=chip.formats,
        profile=chip.profile,
    )


def _predictions(network: Network, outputs: Float, observed: Observation) -> tuple[int, int | None]:
    read = network.outputs[0].readout
    if read.task != "classify":
        return len(outputs), None
    assert observed.outputs is not None
    both = (outputs, observed.outputs)
    mine, wanted = (read_out(x, read.readout, read.task, read.skip)[0] for x in both)
    return int(wanted.size), int(np.count_nonzero(mine != wanted))


def _ratio(parts: Float, wholes: Float) -> tuple[float, float]:
    """Return the sum of parts over that of wholes, and its standard error (Cochran 1977, equation 6.13)."""
    whole, count = max(float(wholes.sum()), 1.0), len(parts)
    share = float(parts.sum()) / whole
    spread = float(np.sqrt(np.square(parts - share * wholes).sum()))
    return share, spread * np.sqrt(count / max(count - 1, 1)) / whole


def _share(part: int, whole: int) -> dict[str, Any]:
    share, count = part / max(whole, 1), max(whole, 1)
    middle, room = (
        share + Z**2 / (2 * count),
        Z * np.sqrt(share * (1 - share) / count + (Z / (2 * count)) ** 2),
    )
    ends = [(middle + sign * room) / (1 + Z**2 / count) for sign in (-1, 1)]
    return {"value": share, "interval": [float(np.clip(end, 0.0, 1.0)) for end in ends]}


def _same_counts(network: Network, outputs: Float, observed: Observation) -> int | None:
    assert observed.outputs is not None
    if network.outputs[0].readout.signal != "spikes":
        return None
    return int((outputs.sum(axis=1) == observed.outputs.sum(axis=1)).all(axis=1).sum())


def _error(network: Network, outputs: Float, observed: Observation) -> float:
    wanted = observed.outputs
    assert wanted is not None
    if network.outputs[0].readout.signal == "spikes":
        outputs, wanted = outputs.sum(axis=1), wanted.sum(axis=1)
    return float(np.sqrt(np.mean((outputs - wanted) ** 2) / max(float(np.mean(wanted**2)), 1e-300)))


def price(quantized: QuantizedNetwork, chip: Chip) -> tuple[int, int | None]:
    """Return the synapse memory in bits, and the cores; None where the network does not fit the chip."""
    tables = [t for edge in quantized.projections for t in edge.tables]
    bits = sum(t.synapses * t.bits for t in tables)
    try:
        split = partition(quantized, chip, effort=1)
    except DoesNotFit:
        return bits, None
    if not chip.mapped:
        return bits, 0
    return sum(use["synapse_bits"] for use in split.use), len(split.cores)


def clip_changes(
    retimed: RetimedNetwork, data: Mapping[str, Float], observed: Observation, floors: Mapping[str, float]
) -> float:
    """Return the fraction of spikes that change in the float network if membranes are clipped at -floor."""
    network = retimed.network
    assert observed.messages is not None
    clipped = tuple(
        replace(p, parameters={**p.parameters, "v_min": np.maximum(p.parameters["v_min"], -floors[p.name])})
        if p.name in floors
        else p
        for p in network.populations
    )
    spiking = [p.name for p in network.populations if p.spiking]
    run = run_float(replace(network, populations=clipped), data, spiking)
    changed = sum(float(np.abs(run.messages[n] - observed.messages[n]).sum()) for n in spiking)
    return changed / max(sum(float(observed.messages[n].sum()) for n in spiking), 1.0)
