"""A program as connected lava-nc processes, with Lava's stock processes wherever they express it.

Synapses are always stock (Dense, DelayDense) and inputs stock ring buffers. A population is a stock
LIF unless its spikes take the threshold off, or leave the membrane, or it must hold a bias or an
initial membrane still before its start step: then it is a `ProgramLIF`, whose model is Lava's
abstract fixed-point LIF with `reset_voltage` and `run_spk` overridden. Importing this module also
imports lava.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from snn_compile.targets.lava_compat import load_lava, tidy_processes
from snn_compile.targets.program import Population, Program, WeightTable

_lava = load_lava()

NEVER = 1 << 17
"""A threshold that the saturating membrane cannot exceed: the stock LIF as a leaky integrator."""


class ProgramLIF(_lava.AbstractLIF):  # type: ignore[misc, name-defined]
    """LIF with a choice of reset and a start step, counted by the Var `clock`.

    `clock` counts the steps since it was last 0; before `start_step` the neurons hold their state.
    """

    def __init__(self, *, vth: Any, reset: str, start_step: int, **parameters: Any) -> None:
        super().__init__(reset=reset, start_step=start_step, log_config=None, **parameters)
        self.vth = _lava.Var(shape=(1,), init=vth)
        self.clock = _lava.Var(shape=(1,), init=0)


@_lava.implements(proc=ProgramLIF, protocol=_lava.LoihiProtocol)
@_lava.requires(_lava.CPU)
@_lava.tag("fixed_pt")
class PyProgramLifModel(_lava.AbstractPyLifModelFixed):  # type: ignore[misc, name-defined]
    """Lava's abstract fixed-point LIF; threshold and activation are those of its stock LIF."""

    s_out = _lava.LavaPyType(_lava.PyOutPort.VEC_DENSE, np.int32, precision=24)
    vth = _lava.LavaPyType(int, np.int32, precision=17)
    clock = _lava.LavaPyType(np.ndarray, np.int32)

    # Lava refuses a subclass of the stock model for another process, so its methods are taken over.
    scale_threshold = _lava.PyLifModelBitAcc.scale_threshold
    spiking_activation = _lava.PyLifModelBitAcc.spiking_activation

    def reset_voltage(self, spike_vector: npt.NDArray[np.bool_]) -> None:
        """Reset as the population says."""
        if self.proc_params["reset"] == "subtract":
            self.v -= np.where(spike_vector, self.effective_vth, 0).astype(np.int32)
        elif self.proc_params["reset"] == "value":
            super().reset_voltage(spike_vector)

    def run_spk(self) -> None:
        """Run Lava's step from the start step on; before it, take input and send silence."""
        self.clock += 1
        if self.clock[0] > self.proc_params["start_step"]:
            super().run_spk()
        else:
            self.a_in.recv()
            self.s_out.send(np.zeros(self.v.shape, bool))


@dataclass(frozen=True, eq=False)
class LavaNetwork:
    """Connected lava-nc processes of a program, by the program's names; shapes are flat.

    `populations`: name to LIF or ProgramLIF (ports a_in, s_out; Vars u, v). `tables`:
    "projection[index]" to Dense or DelayDense (ports s_in, a_out). `inputs`: name to a ring buffer
    (port s_out) that repeats its data. `witness`: population to "stock" or "derived (methods)".
    """

    populations: Mapping[str, Any]
    tables: Mapping[str, Any]
    inputs: Mapping[str, Any]
    witness: Mapping[str, str]

    def state(self) -> list[tuple[Any, npt.NDArray[np.int32]]]:
        """Return every Var that a step changes with its initial value, to set between samples."""
        found = []
        for process in (*self.populations.values(), *self.tables.values()):
            for var in process.vars.members:
                if var.name in ("u", "v", "clock", "a_buff"):
                    value = np.zeros(var.shape, np.int32)
                    value[...] = var.init
                    found.append((var, value))
        return found


def to_lava(program: Program, messages: Mapping[str, npt.NDArray[np.int32]] | None = None) -> LavaNetwork:
    """Return the program as connected lava-nc processes.

    `messages`: input port to (steps, size), played from device step 1 and repeated; silence if not
    given. Run them with `Loihi2SimCfg(select_tag="fixed_pt")`; Lava wants the start method "fork" of
    multiprocessing.
    """
    with tidy_processes(_lava, forget=False):
        populations = {p.name: _population(p) for p in program.populations}
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
                synapses.a_out.connect(populations[edge.target].a_in)
                tables[f"{edge.name}[{index}]"] = synapses
    return LavaNetwork(populations, tables, inputs, {p.name: witness_of(p) for p in program.populations})


def witness_of(population: Population) -> str:
    """Return "stock" if Lava's own LIF expresses the population, else the methods we override."""
    methods = []
    if population.spiking and population.reset != "value":
        methods.append("reset_voltage")
    if population.start_step and (population.bias.any() or population.parameters["v_init"].any()):
        methods.append("run_spk")
    return f"derived ({', '.join(methods)})" if methods else "stock"


def _population(population: Population) -> Any:
    # A shared register is a plain integer to Lava, one per neuron an array; its Vars take both.
    register = {
        key: int(array[0]) if array.size == 1 else array for key, array in population.parameters.items()
    }
    parameters = {
        "shape": (population.size,),
        "u": 0,
        "v": register["v_init"],
        "du": register["du"],
        "dv": register["dv"],
        "vth": register.get("vth", NEVER),
        "bias_mant": register["bias_mant"],
        "bias_exp": register["bias_exp"],
        "name": population.name,
    }
    if witness_of(population) == "stock":
        return _lava.LIF(**parameters)
    return ProgramLIF(
        reset=population.reset if population.spiking else "value",
        start_step=population.start_step,
        **parameters,
    )


def _synapses(table: WeightTable, delay: int, name: str) -> Any:
    parameters = {
        "weights": table.weights.astype(np.int32),
        "weight_exp": table.exponent,
        "num_weight_bits": table.bits,
        "num_message_bits": table.message_bits,
        "sign_mode": _lava.SignMode[table.sign_mode.upper()],
        "name": name,
    }
    return _lava.DelayDense(delays=delay, **parameters) if delay else _lava.Dense(**parameters)
