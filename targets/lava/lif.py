"""Leaky neurons of every rule as a Lava process that derives Lava's abstract one.

`ProgramLIF` is for every rule of `program/rule.py` that Lava's LIF does not follow. Its model derives Lava's
abstract fixed-point LIF, which keeps the arithmetic of current, membrane, bias and threshold, and
overrides what a rule asks for:

    spiking_activation  comparison >=, several spikes a step, pending, or the membrane as the message
    reset_voltage       subtract or none, reset at the next step, the clip at v_min
    subthr_dynamics     reset at the next step, pending, the order of synapse and membrane, current decay
    run_spk             neurons that must be held still: before their start step, and between the logical
                        steps of a c-slow program

Importing this module also imports lava.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

from snn_compile.targets.integer import M
from snn_compile.targets.lava.clock import is_logical_step, pass_silently
from snn_compile.targets.lava.compat import load_lava
from snn_compile.targets.program.population import Population

_lava = load_lava()


class ProgramLIF(_lava.AbstractLIF):  # type: ignore[misc, name-defined]
    """A population of a program that is no stock LIF; `sends`: its messages are read.

    The Var `clock` counts the steps since it was last 0, `last` holds the spikes of the step before.
    """

    def __init__(
        self, *, population: Population, sends: bool, period: int, vth: Any, **parameters: Any
    ) -> None:
        super().__init__(population=population, sends=sends, period=period, log_config=None, **parameters)
        self.vth = _lava.Var(shape=(1,), init=vth)
        self.clock = _lava.Var(shape=(1,), init=0)
        self.last = _lava.Var(shape=(population.size,), init=0)


@_lava.implements(proc=ProgramLIF, protocol=_lava.LoihiProtocol)
@_lava.requires(_lava.CPU)
@_lava.tag("fixed_pt")
class PyProgramLifModel(_lava.AbstractPyLifModelFixed):  # type: ignore[misc, name-defined]
    """Lava's abstract fixed-point LIF, with the population's rule where that is another."""

    s_out = _lava.LavaPyType(_lava.PyOutPort.VEC_DENSE, np.int32, precision=24)
    vth = _lava.LavaPyType(int, np.int32, precision=17)
    clock = _lava.LavaPyType(np.ndarray, np.int32)
    last = _lava.LavaPyType(np.ndarray, np.int32)

    # Lava refuses a subclass of the stock model for another process, so its method is taken over.
    scale_threshold = _lava.PyLifModelBitAcc.scale_threshold

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.population: Population = proc_params["population"]
        self.period: int = proc_params["period"]
        self.rule = self.population.rule
        self.late = self.rule.reset_timing in ("next_before", "next_after")
        self.pending: Any = False

    def run_spk(self) -> None:
        """Run Lava's step in the population's logical steps; in others send silence."""
        if is_logical_step(self):
            super().run_spk()
        else:
            pass_silently(self)

    def subthr_dynamics(self, activation_in: npt.NDArray[np.int32]) -> None:
        """Advance current and membrane by Lava's step, with what the rule does around it."""
        before = self.u.copy()
        if self.rule.reset_timing == "pending":
            self.pending = self._past(self.v)
        if self.rule.reset_timing == "next_before":
            self._reset(self.last)
        membrane = self.v.copy()
        if self.rule.current_decay == "after":
            self.ds_offset = -self.du  # nothing of the current is lost yet
        super().subthr_dynamics(activation_in)
        if self.rule.update_order == "membrane_first":
            # The membrane again, from where it was, with the old current in the place of the bias.
            current = self.u.copy()
            self.u[:], self.v[:] = 0, membrane
            self.effective_bias += before
            super().subthr_dynamics(0 * activation_in)
            self.u[:] = current
        if self.rule.current_decay == "after":
            kept = np.int64(self.u) * (self.decay_unity - (self.du + 1))
            self.u[:] = np.sign(kept) * np.right_shift(np.abs(kept), self.decay_shift)
        if self.rule.reset_timing == "next_after":
            self._reset(self.last)

    def spiking_activation(self) -> Any:
        """Return who spikes, how often, or the membrane to send."""
        if not self.population.spiking:
            return np.right_shift(self.v, self.population.parameters["message_shift"])
        reached = self.v - np.where(self.pending, self.effective_vth, 0)
        if self.rule.spikes_per_step == "one":
            return self._past(reached)
        whole = reached if self.rule.comparison == ">=" else reached - 1
        return np.maximum(whole // self.effective_vth, 0).astype(np.int32)

    def reset_voltage(self, spike_vector: npt.NDArray[Any]) -> None:
        """Reset as the population says and when; then clip."""
        if not self.population.spiking:
            return
        if self.late:
            self.last[:] = spike_vector
        else:
            self._reset(spike_vector)
        self.v[:] = np.maximum(self.v, self.population.parameters["v_min"])

    def _past(self, membrane: npt.NDArray[Any]) -> Any:
        if self.rule.comparison == ">=":
            return membrane >= self.effective_vth
        stock = SimpleNamespace(v=membrane, effective_vth=self.effective_vth)
        return _lava.PyLifModelBitAcc.spiking_activation(stock)

    def _reset(self, spikes: npt.NDArray[Any]) -> None:
        if not self.population.spiking:
            return
        if self.rule.reset == "subtract":
            self.v[:] = np.clip(self.v - spikes * np.int64(self.effective_vth), 1 - M, M - 1)
        elif self.rule.reset == "value":
            super().reset_voltage(spikes != 0)
