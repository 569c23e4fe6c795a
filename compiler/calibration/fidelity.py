"""Fidelity of an integer network to the float one on calibration data, and its cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

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


@dataclass(frozen=True)
class Fidelity:
    """An integer network compared with the float one on calibration data.

    `changed`: spikes that only one of the two has, per spike of the float network. `disagreements`:
    predictions that differ, of `predictions`; None for regression. `error`: root mean square difference of
    the outputs (spike counts over time, or the membrane) over that of the float ones. `synapse_bits` and
    `cores` are the cost; cores are None where the program does not fit.
    """

    predictions: int
    disagreements: int | None
    changed: float
    error: float
    synapse_bits: int
    cores: int | None
    overflows: Mapping[str, Overflow]

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
    changed = total = 0.0
    for name in spiking:
        wanted = observed.messages[name].astype(np.int64)
        changed += float(np.abs(record.spikes(name).reshape(wanted.shape) - wanted).sum())
        total += float(wanted.sum())
    outputs = record.outputs.reshape(*record.outputs.shape[:2], -1).astype(np.float64)
    if network.outputs[0].readout.signal == "membrane":
        outputs = outputs / program.population(network.outputs[0].population).scale
    predictions, disagreements = _predictions(network, outputs, observed)
    bits, cores = price(quantized, chip)
    return Fidelity(
        predictions,
        disagreements,
        changed / max(total, 1.0),
        _error(network, outputs, observed),
        bits,
        cores,
        record.overflows,
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


def _error(network: Network, outputs: Float, observed: Observation) -> float:
    wanted = observed.outputs
    assert wanted is not None
    if network.outputs[0].readout.signal == "spikes":
        outputs, wanted = outputs.sum(axis=1), wanted.sum(axis=1)
    return float(np.sqrt(np.mean((outputs - wanted) ** 2) / max(float(np.mean(wanted**2)), 1e-300)))


def price(quantized: QuantizedNetwork, chip: Chip) -> tuple[int, int | None]:
    """Return the synapse memory in bits, and the cores; None where the network does not fit the chip."""
    try:
        split = partition(quantized, chip)
    except DoesNotFit:
        tables = [t for edge in quantized.projections for t in edge.tables]
        return sum(t.synapses * t.bits for t in tables), None
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
