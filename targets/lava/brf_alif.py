"""Lava processes of the neuron models that are ours, `brf` and `alif`: the whole step is written here.

Ports, channels and the runtime are Lava's. What the step means, `oracle/brf_alif.py` defines; these methods
follow its equations by another way of computing (floor division of magnitudes in 64 bits). Importing this
module also imports lava.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from snn_compile.targets.lava.compat import load_lava
from snn_compile.targets.lava.stock import due, hold
from snn_compile.targets.program.population import Population

_lava = load_lava()
_TOP = 2**23 - 1


class _Neurons(_lava.AbstractProcess):  # type: ignore[misc, name-defined]
    """Port `a_in` in, `s_out` out; a Var for each state, and `clock`, the steps since it was 0."""

    def __init__(self, *, population: Population, period: int) -> None:
        super().__init__(population=population, period=period, name=population.name)
        shape = (population.size,)
        self.a_in = _lava.InPort(shape=shape)
        self.s_out = _lava.OutPort(shape=shape)
        self.clock = _lava.Var(shape=(1,), init=0)


class BalancedRF(_Neurons):
    """Balanced resonate-and-fire neurons."""

    def __init__(self, *, population: Population, period: int) -> None:
        super().__init__(population=population, period=period)
        for state in ("real", "imag", "r"):
            setattr(self, state, _lava.Var(shape=(population.size,), init=0))


class AdaptiveLIF(_Neurons):
    """Adaptive leaky neurons, each with its own registers."""

    def __init__(self, *, population: Population, period: int) -> None:
        super().__init__(population=population, period=period)
        self.v = _lava.Var(shape=(population.size,), init=0)
        base = np.broadcast_to(population.parameters["theta_0"], (population.size,))
        self.theta = _lava.Var(shape=(population.size,), init=base)


def _share(x: npt.NDArray[np.int64], parts: int) -> npt.NDArray[np.int64]:
    """Return x / parts without its fraction."""
    whole: npt.NDArray[np.int64] = np.where(x < 0, -(-x // parts), x // parts)
    return whole


class _Model(_lava.PyLoihiProcessModel):  # type: ignore[misc, name-defined]
    """Registers as 64-bit arrays of one a neuron, and the two ports."""

    a_in = _lava.LavaPyType(_lava.PyInPort.VEC_DENSE, np.int32)
    s_out = _lava.LavaPyType(_lava.PyOutPort.VEC_DENSE, np.int32)
    clock = _lava.LavaPyType(np.ndarray, np.int32)

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.population: Population = proc_params["population"]
        self.period: int = proc_params["period"]
        size = (self.population.size,)
        self.register = {
            key: np.broadcast_to(array, size).astype(np.int64)
            for key, array in self.population.parameters.items()
        }

    def run_spk(self) -> None:
        """Step in the population's logical steps; in others send silence."""
        if not due(self):
            hold(self)
            return
        # 32 bits, in which the shift by 6 may turn.
        arriving = np.left_shift(self.a_in.recv().astype(np.int32), 6, dtype=np.int32)
        self.s_out.send(self.stepped(arriving.astype(np.int64)).astype(np.int32))

    def stepped(self, arriving: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Advance by one step and return who spikes."""
        raise NotImplementedError


@_lava.implements(proc=BalancedRF, protocol=_lava.LoihiProtocol)
@_lava.requires(_lava.CPU)
@_lava.tag("fixed_pt")
class PyBalancedRFModel(_Model):
    """The step of `brf`."""

    real = _lava.LavaPyType(np.ndarray, np.int32)
    imag = _lava.LavaPyType(np.ndarray, np.int32)
    r = _lava.LavaPyType(np.ndarray, np.int32)

    def stepped(self, arriving: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """See `_Model.stepped`."""
        of = self.register
        x, y, r = (state.astype(np.int64) for state in (self.real, self.imag, self.r))
        damped = r * of["damping"] // 2 ** of["damping_exp"]
        cos = 16 * of["cos_decay"]
        cos = cos - np.where(cos > 0, np.minimum(damped, 2 * cos), 0)
        sin = 16 * of["sin_decay"]
        real = np.clip(_share(cos * x - sin * y, 65536) + arriving, -_TOP, _TOP)
        imag = np.clip(_share(sin * x + cos * y, 65536), -_TOP, _TOP)
        fires: npt.NDArray[np.bool_] = real - of["refractory"] * r > 64 * of["vth"]
        self.real[:], self.imag[:] = real, imag
        self.r[:] = np.minimum(r * (4096 - of["delta_r"]) // 4096 + fires * of["r_step"], _TOP)
        return fires


@_lava.implements(proc=AdaptiveLIF, protocol=_lava.LoihiProtocol)
@_lava.requires(_lava.CPU)
@_lava.tag("fixed_pt")
class PyAdaptiveLIFModel(_Model):
    """The step of `alif`."""

    v = _lava.LavaPyType(np.ndarray, np.int32)
    theta = _lava.LavaPyType(np.ndarray, np.int32)

    def stepped(self, arriving: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """See `_Model.stepped`."""
        of, theta = self.register, self.theta.astype(np.int64)
        v = np.clip(_share(self.v.astype(np.int64) * (4096 - of["delta_v"]), 4096) + arriving, -_TOP, _TOP)
        fires: npt.NDArray[np.bool_] = v > theta
        self.v[:] = v - fires * theta * (1 + of["reset_exp"])
        above = (theta - of["theta_0"]) * (4096 - of["delta_theta"]) // 4096  # never negative
        self.theta[:] = np.minimum(of["theta_0"] + above + fires * of["theta_step"], _TOP)
        return fires


PROCESSES = {"brf": BalancedRF, "alif": AdaptiveLIF}
"""The process of each model that is ours."""
