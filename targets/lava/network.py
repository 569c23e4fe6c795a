"""A program as connected lava-nc processes, with Lava's stock processes wherever they express it.

Synapses are always stock (Dense, DelayDense, Sparse, DelaySparse) and inputs stock ring buffers;
populations are stock where a process of Lava's is their meaning (`populations.py`). Importing this
module also imports lava.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix

from snn_compile.targets.lava.compat import load_lava, tidy_processes
from snn_compile.targets.lava.populations import check_synapses, implementation_of, make_process
from snn_compile.targets.program.models import MODELS
from snn_compile.targets.program.program import Program
from snn_compile.targets.program.weights import WeightTable

_lava = load_lava()


@dataclass(frozen=True, eq=False)
class LavaNetwork:
    """Connected lava-nc processes of a program, by the program's names; shapes are flat.

    `populations`: name to LIF, ProgramLIF or the process of another model (its input ports, s_out; its
    states as Vars). `tables`:
    "projection[index]" to Dense or DelayDense (ports s_in, a_out). `inputs`: name to a ring buffer
    (port s_out) that repeats its data. `witness`: population to "stock", "derived (methods)" or "own".
    """

    populations: Mapping[str, Any]
    tables: Mapping[str, Any]
    inputs: Mapping[str, Any]
    witness: Mapping[str, str]

    def state(self) -> list[tuple[Any, npt.NDArray[np.int32]]]:
        """Return every Var that a step changes with its initial value, to set between samples."""
        found = []
        changing = {"clock", "last", "a_buff"} | {s for model in MODELS.values() for s in model.states}
        for process in (*self.populations.values(), *self.tables.values()):
            for var in process.vars.members:
                if var.name in changing:
                    value = np.zeros(var.shape, np.int32)
                    value[...] = var.init
                    found.append((var, value))
        return found


def to_lava(program: Program, messages: Mapping[str, npt.NDArray[np.int32]] | None = None) -> LavaNetwork:
    """Return the program as connected lava-nc processes.

    `messages`: input port to (steps, size), played from device step 1 and repeated; silence if not
    given. Raises DeviceError if the program's number formats are not those of the Lava processes that it
    needs. Run them with `Loihi2SimCfg(select_tag="fixed_pt")`; Lava wants the start method "fork" of
    multiprocessing.
    """
    check_synapses(program.formats)
    with tidy_processes(_lava, forget=False):
        populations = {
            p.name: make_process(p, p in program.senders, program.period, program.formats)
            for p in program.populations
        }
        inputs = {}
        for port in program.inputs:
            data = (
                np.zeros((port.size, 1), np.int32)
                if messages is None
                else np.ascontiguousarray(messages[port.name].T)
            )
            inputs[port.name] = _lava.RingBuffer(data=data)
        tables = {}
        for edge in program.projections:
            source = inputs.get(edge.source) or populations[edge.source]
            for index, table in enumerate(edge.tables):
                synapses = _synapses(table, edge.delay_steps, f"{edge.name}[{index}]")
                source.s_out.connect(synapses.s_in)
                reached = program.population(edge.target).kind.ports[edge.port]
                synapses.a_out.connect(getattr(populations[edge.target], reached))
                tables[f"{edge.name}[{index}]"] = synapses
    return LavaNetwork(populations, tables, inputs, implementations(program))


def implementations(program: Program) -> dict[str, str]:
    """Return what steps each population; see `implementation_of`."""
    return {p.name: implementation_of(p, p in program.senders, program.period) for p in program.populations}


def _synapses(table: WeightTable, delay: int, name: str) -> Any:
    parameters = {
        "weight_exp": table.exponent,
        "num_weight_bits": table.bits,
        "num_message_bits": table.message_bits,
        "sign_mode": _lava.SignMode[table.sign_mode.upper()],
        "name": name,
    }
    if not table.sparse:
        weights = table.weights.astype(np.int32)
        if delay:
            return _lava.DelayDense(weights=weights, delays=delay, **parameters)
        return _lava.Dense(weights=weights, **parameters)
    # Lava 0.10.0 knows sparse matrices, not arrays, and takes one number as the delay of one synapse.
    matrix = csr_matrix(table.weights.astype(np.int32))
    if not delay:
        return _lava.Sparse(weights=matrix, **parameters)
    delays = csr_matrix((np.full(matrix.nnz, delay), matrix.indices, matrix.indptr), matrix.shape)
    return _lava.DelaySparse(weights=matrix, delays=delays, max_delay=delay, **parameters)
