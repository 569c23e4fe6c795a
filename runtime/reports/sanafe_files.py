"""A mapped program and the input of one sample as files of SANA-FE (Boyle et al. 2025), a chip simulator.

`arch.yaml` is the program's chip with SANA-FE's own table of energies (`targets/costs/sanafe.toml`), and one
tile more for the inputs; `snn.yaml` is the network, its mapping and the spikes of the sample. A state of the
program is 64 units of SANA-FE's, whose neurons truncate their decay to a 64th, so that spikes are the same.
A bias comes from a channel of the host that spikes from the population's first step on, before which
SANA-FE's own would act. Nothing of SANA-FE is used here: the formats are those of its release 2.2.9, and a
test runs its package.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import numpy.typing as npt

from snn_compile.runtime.execution.run import Inputs
from snn_compile.runtime.reports.layers import layers
from snn_compile.targets.costs.published import SanaFeCosts, sanafe_costs
from snn_compile.targets.devices.device import encode_inputs
from snn_compile.targets.errors import WrongInput
from snn_compile.targets.output import check_writable, write_whole
from snn_compile.targets.program.population import Population
from snn_compile.targets.program.program import Program

FILES = ("arch.yaml", "snn.yaml")
_SYNAPSES = ("dense", "sparse", "convolution")


def write_sanafe(program: Program, inputs: Inputs, folder: str | Path) -> None:
    """Write `FILES` for the first sample of inputs (batch, steps, *shape) to a folder that exists.

    Run SANA-FE for `program.device_steps(steps)` steps. Raises WrongInput for a program that is not mapped
    onto one chip, and for what SANA-FE's Loihi has not: other neurons than leaky ones without a synaptic
    state that reset in the same step, graded messages, and delays.
    """
    _check(program)
    messages, _ = encode_inputs(program, inputs)
    steps = next(iter(messages.values())).shape[1]
    trains = {name: np.asarray(array[0]) for name, array in messages.items()}

    def arch(file: Path) -> None:
        with file.open("w", encoding="utf-8") as stream:
            stream.write("\n".join(_architecture(program, sanafe_costs())) + "\n")

    def network(file: Path) -> None:
        with file.open("w", encoding="utf-8") as stream:
            _write_network(program, trains, program.device_steps(steps), stream)

    write_whole(Path(folder) / FILES[0], arch, WrongInput)
    write_whole(Path(folder) / FILES[1], network, WrongInput)


def check_folder(folder: str | Path) -> None:
    """Raise WrongInput unless files can be written to a folder, which must exist."""
    for name in FILES:
        check_writable(Path(folder) / name, WrongInput)


def _check(program: Program) -> None:
    faults = []
    if not program.cores or program.chips > 1:
        faults.append("it is not mapped onto one chip")
    faults += [f"input {port.name!r} is graded" for port in program.inputs if port.kind == "graded"]
    for p in program.populations:
        held, one = p.parameters, program.formats.decay_one
        if p.model != "lif" or p.spikes_per_step != "one":
            faults.append(f"population {p.name!r} is of model {p.model}")
        elif (p.reset_timing, p.comparison, p.update_order) != ("same_step", ">", "synapse_first"):
            faults.append(f"population {p.name!r} resets or compares in another way")
        elif (held["du"] + 1 != one).any() or held["v_init"].any() or _clips(p, program):
            faults.append(f"population {p.name!r} has a synaptic state, an initial state or a lower clip")
    faults += [f"projection {e.name!r} has a delay" for e in program.projections if e.delay_steps]
    if program.period > 1:
        faults.append("a logical step takes several steps of the chip")
    if faults:
        raise WrongInput(f"SANA-FE's files cannot hold the program: {'; '.join(faults[:4])}", faults=faults)


def _clips(p: Population, program: Program) -> bool:
    return "v_min" in p.parameters and bool((p.parameters["v_min"] > -program.formats.state_max).any())


def _architecture(program: Program, costs: SanaFeCosts) -> Iterator[str]:
    """Yield the lines of the chip; inputs lie on a tile behind its last column, and cost nothing there."""
    (columns, rows), per_tile = program.target.grid, program.target.cores_per_tile

    def joules(interval: tuple[float, float]) -> str:
        return f"{interval[0]}e-12"

    def tile(name: str, east: str, north: str, cores: int) -> Iterator[str]:
        yield f"    - name: {name}"
        yield "      attributes:"
        for way, energy in (("north", north), ("east", east), ("south", north), ("west", east)):
            yield f"        energy_{way}_hop: {energy}"
            yield f"        latency_{way}_hop: 0.0"
        yield "      core:"
        yield f"        - name: {name.partition('[')[0]}_core[0..{cores - 1}]"
        yield "          attributes:"
        yield "            buffer_position: soma"
        yield "            buffer_inside_unit: false"
        yield f"            max_neurons_supported: {max(program.target.core_neurons, _channels(program))}"

    def unit(kind: str, name: str, **attributes: str) -> Iterator[str]:
        if kind:
            yield f"          {kind}:"
        yield f"            - name: {name}"
        yield "              attributes:"
        yield from (f"                {key}: {value}" for key, value in attributes.items())

    def rest(message_out: str) -> Iterator[str]:
        yield from unit(
            "dendrite", "dendrite", model="accumulator", energy_update="0.0", latency_update="0.0"
        )
        for number, kind in enumerate(_SYNAPSES):
            energy = joules(getattr(costs, f"synapse_{kind}_pj"))
            facts = {"model": "current_based", "energy_process_spike": energy, "latency_process_spike": "0.0"}
            yield from unit("" if number else "synapse", kind, **facts)
        yield from unit("axon_out", "out", energy_message_out=message_out, latency_message_out="0.0")

    yield "architecture:"
    yield f"  name: {program.chip}"
    yield "  attributes:"
    yield f"    topology: mesh\n    width: {columns + 1}\n    height: {rows}\n    link_buffer_size: 16"
    yield "    sync_model: fixed\n    latency_sync: 0.0"
    yield "  tile:"
    yield from tile(
        f"tile[0..{columns * rows - 1}]",
        joules(costs.hop_east_west_pj),
        joules(costs.hop_north_south_pj),
        per_tile,
    )
    arrived = joules(costs.message_in_pj)
    yield from unit("axon_in", "in", energy_message_in=arrived, latency_message_in="0.0")
    yield from unit("soma", "leaky", model="leaky_integrate_fire", **_soma(costs, joules))
    yield from rest(joules(costs.message_out_pj))
    yield from tile(f"host[0..{rows - 1}]", "0.0", "0.0", 1)
    yield from unit("axon_in", "host_in", energy_message_in="0.0", latency_message_in="0.0")
    free = dict.fromkeys(_soma(costs, joules), "0.0")
    yield from unit("soma", f"channel[0..{max(_channels(program), 2) - 1}]", model="input", **free)
    yield from rest("0.0")


def _soma(costs: SanaFeCosts, joules: Any) -> dict[str, str]:
    energies = {
        "energy_access_neuron": joules(costs.neuron_access_pj),
        "energy_update_neuron": joules(costs.neuron_update_pj),
        "energy_spike_out": joules(costs.spike_pj),
    }
    return energies | {key.replace("energy", "latency"): "0.0" for key in energies}


def _channels(program: Program) -> int:
    return sum(port.size for port in program.inputs) + sum(bool(p.bias.any()) for p in program.populations)


def _write_network(
    program: Program, trains: Mapping[str, npt.NDArray[Any]], steps: int, stream: TextIO
) -> None:
    names = {node.name: f"g{number}" for number, node in enumerate(program.nodes)}
    stream.write("network:\n  name: program\n  groups:\n")
    for port in program.inputs:
        stream.write(
            f"    - name: {names[port.name]}\n      attributes: [log_spikes: true]\n      neurons:\n"
        )
        for channel in range(port.size):
            shown = np.zeros(steps, np.int64)
            train = trains[port.name][:, channel] != 0
            shown[port.start_step : port.start_step + len(train)] = train
            stream.write(f"        - {channel}: [spikes: [{', '.join(map(str, shown))}]]\n")
    biased = [p for p in program.populations if p.bias.any()]
    for p in biased:
        train = [int(step >= p.start_step - 1) for step in range(steps)]
        stream.write(f"    - name: {names[p.name]}_bias\n      attributes: []\n      neurons:\n")
        stream.write(f"        - 0: [spikes: [{', '.join(map(str, train))}]]\n")
    kinds = {layer.target: layer.kind for layer in layers(program)}
    for p in program.populations:
        stream.write(f"    - name: {names[p.name]}\n")
        stream.write(f"      attributes: [synapse_hw_name: {kinds.get(p.name, 'dense')}, log_spikes: true]\n")
        stream.write("      neurons:\n")
        for neuron, soma in enumerate(_neurons(p, program)):
            stream.write(f"        - {neuron}: [soma: {{{soma}}}]\n")
    stream.write("  edges:\n")
    for edge in program.projections:
        for table in edge.tables:
            found = table.nonzero.tocoo()
            values = (table.dense()[found.row, found.col]) * 2.0**table.exponent
            for target, source, weight in zip(found.row, found.col, values, strict=True):
                arrow = f"{names[edge.source]}.{source} -> {names[edge.target]}.{target}"
                stream.write(
                    f"    - {arrow}: [weight: {weight!r}]\n".replace("np.float64(", "").replace(")", "")
                )
    for p in biased:
        for neuron, bias in enumerate(np.broadcast_to(p.bias / program.formats.threshold_unit, (p.size,))):
            if bias:
                arrow = f"{names[p.name]}_bias.0 -> {names[p.name]}.{neuron}"
                stream.write(f"    - {arrow}: [weight: {float(bias)}]\n")
    _write_mapping(program, names, stream)


def _neurons(p: Population, program: Program) -> Iterator[str]:
    """Yield the attributes of every neuron, states in 64ths."""
    one = program.formats.decay_one
    mode = {"value": "hard", "subtract": "soft", "none": "none"}[p.reset]
    keep = np.broadcast_to((one - p.parameters["dv"]) / one, (p.size,))
    for k, theta in zip(keep, np.broadcast_to(p.parameters["vth"], (p.size,)), strict=True):
        yield f"threshold: {float(theta)}, reset: 0.0, reset_mode: {mode}, leak_decay: {float(k)}"


def _write_mapping(program: Program, names: Mapping[str, str], stream: TextIO) -> None:
    chip = program.target
    stream.write("mappings:\n")
    host = [(names[port.name], port.size) for port in program.inputs]
    host += [(f"{names[p.name]}_bias", 1) for p in program.populations if p.bias.any()]
    channels = [f"{group}.{neuron}" for group, size in host for neuron in range(size)]
    tile = chip.grid[0] * chip.grid[1]
    for number, channel in enumerate(channels):
        stream.write(f'  - {channel}: [core: {tile}.0, soma: "channel[{number}]"]\n')
    for core in program.cores:
        column, row = core.tile
        tile, own = column * chip.grid[1] + row, core.index % chip.cores_per_tile
        for name, start, stop in core.slices:
            for neuron in range(start, stop):
                stream.write(f"  - {names[name]}.{neuron}: [core: {tile}.{own}, soma: leaky]\n")
