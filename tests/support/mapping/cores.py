"""Small integer networks to map, chips with small cores, and the use of a core recomputed row by row."""

from __future__ import annotations

from dataclasses import replace
from math import ceil

import numpy as np

from snn_compile.compiler import QuantizedNetwork
from snn_compile.compiler.mapping.core_memory import RESOURCES, core_limits
from snn_compile.compiler.mapping.partition import partition
from snn_compile.compiler.mapping.place import place
from snn_compile.compiler.mapping.route import HOST, route
from snn_compile.targets import OutputPort, Population, Projection, WeightTable, load_chip

LOIHI2 = load_chip("loihi2")


def population(name: str, size: int, start: int = 1) -> Population:
    registers = {"du": 4095, "dv": 1000, "vth": 90, "bias_mant": 0, "bias_exp": 0, "v_init": 0}
    values = {key: np.array([value]) for key, value in registers.items()}
    return Population(name, (size,), "lif", values, start_step=start)


def projection(rng, source: str, target: str, shape: tuple[int, int], density=0.5, tables=1, delay=0):
    def table() -> WeightTable:
        return WeightTable((rng.random(shape) < density) * rng.integers(1, 100, shape) * 2, bits=8)

    return Projection(f"{source}-{target}", source, target, tuple(table() for _ in range(tables)), delay)


def network(populations, projections, inputs) -> QuantizedNetwork:
    outputs = (OutputPort("out", populations[-1].name),)
    return QuantizedNetwork(tuple(populations), tuple(projections), tuple(inputs), outputs, (), ())


def chip(**limits: int):
    """Loihi 2 with other limits, and rows that keep their shape: no kernel is shared."""
    words = {key: limits.pop(key) for key in ("words", "synapse_words") if key in limits}
    memory = replace(LOIHI2.memory, shared_kernels=False, **words)
    return replace(LOIHI2, memory=memory, **{f"core_{key}": value for key, value in limits.items()})


def row_bits(table: WeightTable) -> int:
    """Bits of a weight: a sign, and what the largest needs in the table's steps of a power of two."""
    values = np.abs(table.dense().astype(int))
    while values.any() and not (values % 2).any():
        values = values // 2
    largest = int(values.max(initial=0))
    return max(min(int(np.ceil(np.log2(largest))) + 1 if largest > 1 else 1, table.bits), 1)


def used(made: QuantizedNetwork, target, core, dense=False) -> dict[str, int]:
    """Recompute what one core uses, row by row; a population's slices on it share the rows of its sources."""
    total = dict.fromkeys(("neurons", "synapse_words", "out_axons"), 0)
    sending = {e.source for e in made.projections} | {port.population for port in made.outputs}
    heard, held = set(), {}
    for name, start, stop in core:
        held.setdefault(name, []).extend(range(start, stop))
    for name, neurons in held.items():
        total["neurons"] += len(neurons)
        total["out_axons"] += len(neurons) * (name in sending)
        for e in (e for e in made.projections if e.target == name):
            for t in e.tables:
                word = row_bits(t) + target.memory.index_bits
                word += target.memory.delay_bits if e.delay_steps else 0
                for i, row in enumerate(t.dense()[neurons].T):
                    synapses = len(row) * bool(t.fan_out[i]) if dense else np.count_nonzero(row)
                    if synapses:
                        heard.add((e.source, i))
                        total["synapse_words"] += ceil((synapses * word + target.memory.row_bits) / 64)
    axons = len(heard) + total["out_axons"]
    words = total["synapse_words"] + 0.75 * (total["neurons"] + axons)
    bits = {"synapse_bits": total["synapse_words"] * target.memory.word_bits}
    return total | bits | {"in_axons": len(heard), "words": ceil(words), "groups": len(held)}


def agrees(made: QuantizedNetwork, target, core, use, mapper) -> bool:
    """Whether a core's use is the recomputed one; blocks of one population on it have rows of their own."""
    found = used(made, target, core, mapper == "vendor")
    if mapper == "vendor" or use["groups"] == found["groups"]:
        return dict(use) == found
    merged = {"neurons", "in_axons", "out_axons"}
    return all(use[key] == found[key] if key in merged else use[key] >= found[key] for key in found)


def check(made: QuantizedNetwork, target, mapper="best") -> int:
    """Assert every property of a partition and return its number of cores."""
    split = partition(made, target, mapper)
    for p in made.populations:
        pieces = sorted((a, b) for core in split.cores for name, a, b in core if name == p.name)
        assert pieces[0][0] == 0 and pieces[-1][1] == p.size
        assert all(a < b for a, b in pieces)
        assert all(a[1] == b[0] for a, b in zip(pieces, pieces[1:], strict=False))
    limits = core_limits(target)
    assert split.limits == limits and tuple(limits) == RESOURCES
    for core, use in zip(split.cores, split.use, strict=True):
        assert core and agrees(made, target, core, use, mapper)
        assert all(use[key] <= limits[key] for key in RESOURCES)
    cores = place(split, target)
    assert [c.index for c in cores] == list(range(len(split.cores)))
    for c in cores:
        assert c.slices == split.cores[c.index]
        assert 0 <= c.tile[0] < target.grid[0]
    tiles = [(c.index // target.cores, c.tile) for c in cores]
    assert max(map(tiles.count, tiles)) <= target.cores_per_tile
    check_routes(made, cores)
    return len(cores)


def check_routes(made: QuantizedNetwork, cores) -> None:
    routes = route(made, cores)
    found = {(r.source, r.start, r.stop, r.core): set(r.destinations) for r in routes}
    assert len(found) == len(routes)
    pieces = [(p.name, 0, p.size, HOST) for p in made.inputs]
    pieces += [(name, a, b, c.index) for c in cores for name, a, b in c.slices]
    for piece in pieces:
        wanted = set()
        for edge in (e for e in made.projections if e.source == piece[0]):
            linked = sum((t.dense()[:, piece[1] : piece[2]] != 0).any(axis=1) for t in edge.tables) > 0
            wanted |= {
                c.index for c in cores for name, a, b in c.slices if name == edge.target and linked[a:b].any()
            }
        assert found.pop(piece, set()) == wanted
    assert not found
