"""Scales of layers of liquid neurons, and the shifts of the messages that carry their states.

One scale S serves input and gates of a layer: a unit of each is S units of synaptic input. It is the largest
power of two under which states, thresholds and weights fit. Units of messages are powers of two as well, so
that shifts express both. The neurons that are there once more to send their membranes share the scale, the
registers and the weight tables of the originals; an adaptation has a fixed format.

A message has as many bits as the weights of the gates can divide: with q units of it per unit of a state, the
largest weight S w / q must fill a table at the lowest exponent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import ceil, floor, log2

import numpy as np

from snn_compile.compiler.lowering.retime import RetimedNetwork
from snn_compile.compiler.network import Network, Population, Projection, weight_values
from snn_compile.compiler.neurons.base import Peak
from snn_compile.compiler.neurons.lsn import adaptation_scale
from snn_compile.compiler.quantization.scales import MEMBRANE_BITS, Sender, largest_scales
from snn_compile.targets.chips.chip import Chip
from snn_compile.targets.errors import PrecisionLost
from snn_compile.targets.integer import weight_step
from snn_compile.targets.program.population import Population as IntegerPopulation
from snn_compile.targets.program.program import Projection as IntegerProjection


def liquid_scales(
    network: Network, bounds: Mapping[str, Peak], units: Mapping[str, float], chip: Chip
) -> dict[str, float]:
    """Return the scale of every population of a liquid layer.

    `units`: of messages whose units are known, by source. Raises PrecisionLost where a threshold would round
    to 0.
    """
    found: dict[str, float] = {}
    for p in network.populations:
        if p.model == "lsn":
            found[p.name] = _scale(p, network, bounds[p.name], units, chip)
        elif p.model == "lsn_adaptation":
            found[p.name] = adaptation_scale(chip.formats)
    return found | {p.name: found[p.copies] for p in network.populations if p.copies}


def _scale(p: Population, network: Network, bound: Peak, units: Mapping[str, float], chip: Chip) -> float:
    formats = chip.formats
    limits = largest_scales(p, bound, chip)
    most = float(np.abs(p.parameters["bias"]).max())
    limits += [formats.state_max / (formats.threshold_unit * most)] if most else []
    for key in ("membrane_bias", "adaptation_bias"):
        most = float(np.abs(p.parameters[key]).max())
        limits += [formats.state_max / most] if most else []
    sent = {q.name for q in network.populations if q.kind.sends_state}
    top = (256 - weight_step(formats.weight_bits[1], "mixed") / 2) * 2.0 ** formats.weight_exponent[1]
    for edge in network.projections:
        if edge.target == p.name and edge.source not in sent and edge.values.any():
            limits.append(top * units.get(edge.source, 1.0) / float(np.abs(edge.values).max()))
    if not limits:
        return 1.0
    scale = 2.0 ** floor(log2(min(limits)))
    lowest = float(p.parameters["threshold"].max()) * scale * formats.threshold_unit
    if 0 < lowest < 1:
        raise PrecisionLost(
            f"population {p.name!r}: its input is so much larger than its threshold that the threshold would "
            f"round to 0 (scale {scale:g}); give a smaller gain of its input",
            tensor=p.name,
        )
    return scale


def liquid_senders(
    network: Network, bounds: Mapping[str, Peak], scales: Mapping[str, float], chip: Chip
) -> dict[str, Sender]:
    """Return how the populations that send states do it, given the scales of all of them."""
    found = {}
    for p in network.populations:
        if not p.kind.sends_state:
            continue
        unit = scales[p.name] * chip.formats.threshold_unit
        most = bounds[p.copies or p.name].v
        fits = (1 << (MEMBRANE_BITS - 1)) / most if most else unit
        read = [e for e in network.projections if e.source == p.name and e.values.any()]
        units = 2.0 ** floor(log2(min([fits, unit, *(_divisible(e, scales[e.target], chip) for e in read)])))
        shift = min(max(0, ceil(log2(unit / units))), chip.formats.state_bits - 1)
        found[p.name] = Sender(scales[p.name], shift, unit / 2.0**shift)
    return found


def _divisible(edge: Projection, scale: float, chip: Chip) -> float:
    """Return the units of a message up to which a projection's largest weight fills a table."""
    bits, lowest = chip.formats.weight_bits[1], chip.formats.weight_exponent[0]
    return (
        float(np.abs(weight_values(edge.weight)).max())
        * scale
        / (128 * 2.0**lowest * weight_step(bits, "mixed") / 2)
    )


def with_shift(made: IntegerPopulation, sender: Sender | None) -> IntegerPopulation:
    """Return a population whose messages are shifted as its sender says."""
    if sender is None:
        return made
    return replace(made, parameters={**made.parameters, "message_shift": np.array([sender.shift])})


def add_copies(
    retimed: RetimedNetwork,
    populations: dict[str, IntegerPopulation],
    projections: dict[str, IntegerProjection],
    senders: Mapping[str, Sender],
) -> None:
    """Add the populations that are neurons once more: the same registers and tables, another message."""
    network = retimed.network
    for p in (p for p in network.populations if p.copies):
        latency = retimed.latency[p.name]
        made = replace(populations[p.copies], name=p.name, model=p.model, start_step=latency)
        populations[p.name] = with_shift(made, senders.get(p.name))
        own, originals = network.incoming(p.name), network.incoming(p.copies)
        for edge, other in zip(own, originals, strict=True):
            assert (edge.source, edge.delay_steps, edge.port) == (other.source, other.delay_steps, other.port)
            projections[edge.name] = replace(
                projections[other.name],
                name=edge.name,
                target=p.name,
                delay_steps=retimed.delay_steps[edge.name],
            )
