"""Leaky integrators: modules whose output is a number, the membrane, rather than spikes."""

from __future__ import annotations

import numpy as np

from snn_compile.targets.errors import ExportError
from snn_compile.targets.program.rule import Rule
from snn_compile.train.probing.calling import Float, Runner
from snn_compile.train.probing.measuring import poles
from snn_compile.train.probing.stepping import NeuronModel, parameters


def integrators(runner: Runner, name: str, fine: bool) -> list[tuple[NeuronModel, ...]]:
    """Return the integrators with the impulse response of a module; each neuron may be any of them."""
    steps, size = 8, runner.size
    silent = np.zeros((steps, 1, size))
    pulse = silent.copy()
    pulse[0] = 1.0
    rest = runner.run(silent)[:, 0]
    response = runner.run(pulse)[:, 0] - rest
    latency = int((np.abs(response[0]) == 0).all())
    gain = response[latency]
    if (gain == 0).any() or not np.isfinite(response).all():
        neuron = int(np.argmin(np.abs(gain)))
        raise ExportError(
            f"{name}: its output is not spikes, and neuron {neuron} does not answer an impulse like a leaky "
            f"integrator (its first values are {', '.join(f'{v:.4g}' for v in response[:4, neuron])})",
            node=name,
            stateless=False,
        )
    after = response[latency + 1 : latency + 4] / gain
    order = "membrane_first" if latency else "synapse_first"
    found = []
    for membrane, current in poles(after, fine):
        bias = _clean(rest[1] - membrane * rest[0], rest, fine)
        left = _clean(rest[0] - bias, rest, fine)
        start = np.where(membrane > 1e-6, left / np.where(membrane > 1e-6, membrane, 1.0), 0.0)
        numbers = {"voltage_decay": 1 - membrane, "current_decay": 1 - current, "gain": gain}
        numbers |= {"bias": bias, "v_init": start}
        found.append(NeuronModel("li", Rule("none", update_order=order), parameters(size, **numbers)))
    return [tuple(found)]


def _clean(values: Float, rest: Float, fine: bool) -> Float:
    noise = (1e-13 if fine else 1e-6) * np.maximum(np.abs(rest).max(0), 1e-30)
    return np.where(np.abs(values) <= noise, 0.0, values)
