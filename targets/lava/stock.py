"""Populations whose model is one of Lava's fixed-point processes: that process, or the same held still.

A population that would change before its start step without any input, or that must pause between the
logical steps of a c-slow program, runs as a process derived from the stock one; its model derives the
stock model and overrides `run_spk` only, to do nothing then.
Importing this module also imports lava.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from snn_compile.targets.integer import DECAY_ONE, STATE_SHIFT
from snn_compile.targets.lava.clock import is_logical_step, pass_silently
from snn_compile.targets.lava.compat import load_lava
from snn_compile.targets.program.population import Population

_lava = load_lava()


def registers(population: Population) -> dict[str, Any]:
    """Return the registers as Lava takes them: an integer if shared, else one value per neuron."""
    # Arrays are taken by Lava's Vars of one value, too.
    return {key: int(array[0]) if array.size == 1 else array for key, array in population.parameters.items()}


def is_active_without_input(population: Population) -> bool:
    """Tell whether neurons in their initial state and without input change or send anything."""
    found = population.parameters
    moves = any(found[key].any() for key in ("bias_mant", "v_init", "bias") if key in found)
    if population.model == "rf_iz":
        moves |= not found["vth"].all()
    if population.model == "atrlif":
        moves |= not found["theta_0"].all()
    return bool(moves)


def stock_process(population: Population, period: int, held: bool) -> Any:
    """Return the process of a population whose model Lava has; `held`: it must be held still at times."""
    process, model = PROCESSES[population.model]
    make = _held_still(process, model) if held else process
    options = {"held": (population, period)} if held else {}  # RF has a period of its own
    made = make(shape=(population.size,), **_parameters(population), **options)
    _set_registers(made, population)
    return made


@cache
def _held_still(process: Any, model: Any) -> Any:
    """Return a process derived from Lava's, whose neurons can be held still."""

    class Held(process):  # type: ignore[misc]
        def __init__(self, *, held: tuple[Population, int], **parameters: Any) -> None:
            super().__init__(**parameters)
            self.proc_params["held"] = held
            self.clock = _lava.Var(shape=(1,), init=0)

    class PyHeldModel(model):  # type: ignore[misc]
        implements_process = Held  # else Lava takes it for a model of its own process
        clock = _lava.LavaPyType(np.ndarray, np.int32)

        def __init__(self, proc_params: Any) -> None:
            super().__init__(proc_params)
            self.population, self.period = proc_params["held"]

        def run_spk(self) -> None:
            if is_logical_step(self):
                super().run_spk()
            else:
                pass_silently(self)

    _lava.model_classes[Held] = [PyHeldModel]
    return Held


PROCESSES: dict[str, tuple[Any, Any]] = {
    "ternary": (_lava.TernaryLIF, _lava.PyTernLifModelFixed),
    "rf": (_lava.RF, _lava.PyRFModelFixed),
    "rf_iz": (_lava.RF_IZ, _lava.PyRF_IZModelFixed),
    "atrlif": (_lava.ATRLIF, _lava.PyATRLIFModelFixed),
    "sigma_delta": (_lava.SigmaDelta, _lava.PySigmaDeltaModelFixed),
    "delta": (_lava.Delta, _lava.PyDeltaModelFixed),
    "sigma": (_lava.Sigma, _lava.PySigmaModelFixed),
    "graded": (_lava.GradedVec, _lava.PyGradedVecModelFixed),
    "graded_relu": (_lava.GradedReluVec, _lava.PyGradedReluVecModelFixed),
}
"""Lava's process of each model that it has one for, and its fixed-point process model."""


def _ternary(population: Population) -> dict[str, Any]:
    register = registers(population)
    return {"u": 0, "v": register.pop("v_init"), **register}


def _resonator(population: Population) -> dict[str, Any]:
    register = registers(population)
    # The process computes the decays from a period; `_set_registers` sets the registers themselves.
    return {"period": 1.0, "alpha": 0.0} | {key: register[key] for key in ("vth", "decay_bits", "state_exp")}


def _adaptive(population: Population) -> dict[str, Any]:
    register = registers(population)
    # Fractions of powers of two: Lava's floats hold them, and all that it makes of them, exactly.
    scaled = {key: register[key] / DECAY_ONE for key in register if key.startswith("delta")}
    scaled |= {key: register[key] / (1 << STATE_SHIFT) for key in ("theta_0", "theta_step")}
    bias = {key: register[key] for key in ("bias_mant", "bias_exp")}
    return {**scaled, **bias, "v": register["v_init"], "theta": register["theta_0"]}


def _sigma_delta(population: Population) -> dict[str, Any]:
    register = registers(population)
    mode = _lava.ActivationMode.RELU if register.pop("relu") else _lava.ActivationMode.UNIT
    return {**register, "cum_error": bool(register["cum_error"]), "act_mode": mode}


_PARAMETERS: dict[str, Callable[[Population], dict[str, Any]]] = {
    "ternary": _ternary,
    "rf": _resonator,
    "rf_iz": _resonator,
    "atrlif": _adaptive,
    "sigma_delta": _sigma_delta,
}


def _parameters(population: Population) -> dict[str, Any]:
    make = _PARAMETERS.get(population.model, registers)
    return make(population)


def _set_registers(process: Any, population: Population) -> None:
    """Set what Lava's constructor does not take as it stands."""
    if population.model in ("rf", "rf_iz"):
        for key in ("cos_decay", "sin_decay"):
            getattr(process, key).init = registers(population)[key]
