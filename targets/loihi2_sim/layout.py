"""Populations as the kernels' arrays: which kernel steps each, its registers and its initial states."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from snn_compile.targets.integer import DECAY_ONE, STATE_SHIFT
from snn_compile.targets.loihi2_sim import network_kernel as kernels
from snn_compile.targets.loihi2_sim import neuron_kernels as kernels_neurons
from snn_compile.targets.program.population import Population

Rows = list[npt.NDArray[np.int64]]


@dataclass(frozen=True, eq=False)
class NeuronTables:
    """States and registers of all populations, int32; population p's begin at `state_at[p]`.

    Each is a row of one value a neuron, padded; rows follow each other in the kernel's order.
    """

    state_at: npt.NDArray[np.int64]
    register_at: npt.NDArray[np.int64]
    initial: npt.NDArray[np.int32]
    registers: npt.NDArray[np.int32]


def neuron_tables(populations: Sequence[Population], pad: npt.NDArray[np.int64]) -> NeuronTables:
    """Return the tables of populations whose rows are padded to `pad` entries each."""
    states, registers = [], []
    for p, width in zip(populations, pad, strict=True):
        states.append(_laid_out(_initial_states(p), p.size, int(width)))
        registers.append(_laid_out(_REGISTERS[p.model](p), p.size, int(width)))
    return NeuronTables(
        np.concatenate([[0], np.cumsum([rows.size for rows in states])]).astype(np.int64),
        np.concatenate([[0], np.cumsum([rows.size for rows in registers])]).astype(np.int64),
        np.concatenate(states),
        np.concatenate(registers),
    )


def _laid_out(rows: Rows, size: int, width: int) -> npt.NDArray[np.int32]:
    held = np.zeros((len(rows), width), np.int32)
    for row, values in zip(held, rows, strict=True):
        row[:size] = values
    return held.reshape(-1)


def kernel_of(p: Population, sends: bool) -> int:
    """Return the number of the kernel that steps a population; `sends`: somebody hears its messages."""
    if p.model not in ("lif", "li", "ternary"):
        return _KERNELS[p.model]
    # A leaky integrator that nobody hears needs no message.
    return kernels.LEAKY if p.plain and (p.spiking or not sends) else kernels.LEAKY_BY_RULE


def rule_numbers(p: Population) -> list[int]:
    """Return the rule as the kernel of leaky neurons reads it."""
    timing = {
        "same_step": kernels_neurons.SAME_STEP,
        "next_before": kernels_neurons.NEXT_BEFORE,
        "next_after": kernels_neurons.NEXT_AFTER,
        "pending": kernels_neurons.PENDING,
    }
    resets = {
        "value": kernels_neurons.RESET_VALUE,
        "subtract": kernels_neurons.RESET_SUBTRACT,
        "none": kernels_neurons.RESET_NONE,
    }
    models = {"li": kernels_neurons.NEVER_SPIKES, "ternary": kernels_neurons.TERNARY}
    return [
        models.get(p.model, resets[p.reset]),
        timing[p.reset_timing],
        int(p.comparison == ">="),
        int(p.spikes_per_step == "floor"),
        int(p.update_order == "membrane_first"),
        int(p.current_decay == "after"),
    ]


def _initial_states(p: Population) -> Rows:
    zero = np.zeros(1, np.int64)
    known = {"v": "v_init", "theta": "theta_0"}
    initial = [known.get(state, "") for state in p.kind.states]
    found = [_wide(p, key) if key in p.parameters else zero for key in initial]
    # The kernel of other rules holds the spikes of the step before as well.
    return [*found, zero] if p.kind.ruled or p.model == "ternary" else found


def _leaky(p: Population) -> Rows:
    low, shift = np.zeros(1, np.int64), np.zeros(1, np.int64)
    threshold = np.zeros(1, np.int64)
    if p.model == "ternary":
        threshold = _wide(p, "vth_hi") << STATE_SHIFT
        low = _wide(p, "vth_lo") << STATE_SHIFT
    elif p.model == "lif":
        threshold, low = _wide(p, "vth") << STATE_SHIFT, _wide(p, "v_min")
    else:
        shift = _wide(p, "message_shift")
    keep_u, keep_v = DECAY_ONE - (_wide(p, "du") + 1), DECAY_ONE - _wide(p, "dv")
    return [keep_u, keep_v, threshold, p.bias, low, shift]


def _resonator(p: Population) -> Rows:
    exponent = _wide(p, "state_exp")
    threshold = _wide(p, "vth") << exponent
    return [_wide(p, "cos_decay"), _wide(p, "sin_decay"), threshold, exponent, _wide(p, "decay_bits")]


def _adaptive(p: Population) -> Rows:
    keep = [DECAY_ONE - _wide(p, f"delta_{key}") for key in ("i", "v", "theta", "r")]
    return [keep[0] - 1, *keep[1:], _wide(p, "theta_0"), _wide(p, "theta_step"), p.bias]


def _balanced(p: Population) -> Rows:
    mirror = np.maximum(32 * _wide(p, "cos_decay"), 0)
    return [
        _wide(p, "cos_decay"),
        _wide(p, "sin_decay"),
        mirror,
        _wide(p, "vth") << STATE_SHIFT,
        _wide(p, "r_step"),
        DECAY_ONE - _wide(p, "delta_r"),
        _wide(p, "refractory"),
        _wide(p, "damping"),
        _wide(p, "damping_exp"),
    ]


def _adaptive_leaky(p: Population) -> Rows:
    keep = [DECAY_ONE - _wide(p, key) for key in ("delta_v", "delta_theta")]
    return [*keep, _wide(p, "theta_0"), _wide(p, "theta_step"), _wide(p, "reset_exp")]


def _deltas(p: Population) -> Rows:
    shift = _wide(p, "spike_exp") + _wide(p, "state_exp")
    summed = p.model == "sigma_delta"
    bias, relu = (_wide(p, key) if summed else np.zeros(1, np.int64) for key in ("bias", "relu"))
    return [
        _wide(p, "vth") << shift,
        bias << shift,
        relu,
        _wide(p, "cum_error"),
        shift,
        _wide(p, "state_exp"),
    ]


def _wide(p: Population, key: str) -> npt.NDArray[np.int64]:
    return p.parameters[key].astype(np.int64)


_KERNELS = {
    "rf": kernels.RESONATOR,
    "rf_iz": kernels.IZHIKEVICH,
    "atrlif": kernels.ADAPTIVE,
    "brf": kernels.BALANCED,
    "alif": kernels.ADAPTIVE_LEAKY,
    "sigma_delta": kernels.SIGMA_DELTA,
    "delta": kernels.DELTA,
    "sigma": kernels.SIGMA,
    "graded": kernels.RELAY,
    "graded_relu": kernels.RECTIFIED,
}
_REGISTERS: dict[str, Callable[[Population], Rows]] = {
    "lif": _leaky,
    "li": _leaky,
    "ternary": _leaky,
    "rf": _resonator,
    "rf_iz": _resonator,
    "atrlif": _adaptive,
    "brf": _balanced,
    "alif": _adaptive_leaky,
    "sigma_delta": _deltas,
    "delta": _deltas,
    "sigma": lambda p: [],
    "graded": lambda p: [_wide(p, "vth")],
    "graded_relu": lambda p: [_wide(p, "vth")],
}
"""Each model's registers in the order in which its kernel takes them."""
