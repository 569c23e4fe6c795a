"""What must hold of the mapping of a random program onto a chip that is too small for it in one piece."""

from __future__ import annotations

from dataclasses import replace
from math import ceil

import numpy as np
from support import random_programs
from support.comparing import first_difference, run_all, traces
from support.mapping.cores import LOIHI2, check_routes

from snn_compile.compiler.mapping.core_memory import core_limits
from snn_compile.compiler.mapping.partition import MAPPERS, Partition, partition
from snn_compile.compiler.mapping.place import place
from snn_compile.compiler.mapping.route import route
from snn_compile.compiler.quantization.quantize import QuantizedNetwork
from snn_compile.targets.chips.chip import Chip
from snn_compile.targets.errors import DoesNotFit

LIMITS = random_programs.Limits(
    models=(*random_programs.OTHERS, *random_programs.OWN, *random_programs.LIQUID)
)


def check_mapping(seed: int) -> tuple[int, int] | None:
    """Assert the properties of one seed; return its cores and their lower bound, None where no neuron fits.

    No core exceeds a limit, every neuron is on one core, every projection is routed once, and the program
    mapped on one chip or several computes what it computes unmapped, in every state of every step.
    """
    case, rng = random_programs.case(seed, LIMITS), np.random.default_rng(seed)
    program = case.program
    network = QuantizedNetwork(
        program.populations, program.projections, program.inputs, program.outputs, (), ()
    )
    small, mapper = _small_chip(rng), str(rng.choice(MAPPERS))
    effort, spread = int(rng.choice([1, 2, 2, 3])), int(rng.integers(1, 12))
    try:
        split = partition(network, small, mapper, effort, None, spread if rng.random() < 0.3 else None)
    except DoesNotFit as error:
        assert "one neuron of" in str(error), f"seed {seed}"
        return None
    _check_whole(network, small, split, f"seed {seed}")
    chips = int(rng.integers(1, 4))
    board = replace(small, cores=ceil(len(split.cores) / chips)).times(chips)
    # Slots are those of one chip of 120 cores; on a board cores are numbered from chip to chip.
    cores = place(replace(split, slots=()), board)
    routes = route(network, cores)
    check_routes(network, cores)
    facts = {"chip": board.name, "chip_version": 1, "profile": board.times(1), "chips": chips}
    mapped = replace(program, cores=cores, routes=routes, formats=program.formats, **facts)
    unmapped = replace(program, cores=(), routes=())
    wanted = run_all(unmapped, case.inputs, "oracle")
    runs = [run_all(mapped, case.inputs, device) for device in ("oracle", "loihi2-sim")]
    assert not (found := first_difference(*runs)), f"seed {seed}: {found}"
    states, its = traces(wanted), traces(runs[0])
    assert states.keys() == its.keys(), f"seed {seed}"
    assert all(np.array_equal(states[key], its[key]) for key in states), f"seed {seed}"
    return len(split.cores), split.lower_bound


def _small_chip(rng: np.random.Generator) -> Chip:
    words = int(rng.integers(60, 1500))
    shared = bool(rng.random() < 0.5)
    memory = replace(
        LOIHI2.memory, words=words, synapse_words=int(rng.integers(30, words)), shared_kernels=shared
    )
    return replace(
        LOIHI2,
        name="small",
        version=1,
        memory=memory,
        core_neurons=int(rng.integers(1, 40)),
        core_groups=int(rng.integers(1, 8)),
        core_in_axons=int(rng.integers(30, 300)),
        core_out_axons=int(rng.integers(5, 300)),
    )


def _check_whole(network: QuantizedNetwork, chip: Chip, split: Partition, name: str) -> None:
    limits = core_limits(chip)
    for use in split.use:
        assert all(use[key] <= limit for key, limit in limits.items()), name
    for p in network.populations:
        held = np.zeros(p.size, int)
        for core in split.cores:
            for other, start, stop in core:
                held[start:stop] += other == p.name
        assert (held == 1).all(), name
    assert split.lower_bound <= len(split.cores), name
