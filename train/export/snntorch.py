"""Neurons of snnTorch 1.0.0 as NIR nodes and rules of `targets/program/rule.py`.

    Leaky, RLeaky        LIF      tau = dt / (1 - beta), r = tau / dt; beta = 1 is IF with r = 1 / dt
    Lapicque             LIF      tau = dt R C / time_step, r = R
    Synaptic, RSynaptic  CubaLIF  tau_syn = dt / (1 - alpha), w_in = tau_syn / dt, and so for the membrane

with LI and CubaLI where nothing uses the spikes and nothing resets. beta and alpha are clamped to [0, 1], as
snnTorch does. A recurrent layer's weights become a node of their own, one step later.

    reset       with delay (the default)                                reset_delay=False
    subtract    next_after: an undecayed threshold, after integrating   pending
    zero        next_before in Leaky, next_after in the others          same_step
    none        none                                                    none

Every neuron is stepped here beside its rule before it is exported, so that another version of snnTorch, or a
subclass with a forward of its own, is noticed rather than exported wrongly.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import nir
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from snn_compile.targets.errors import ExportError
from snn_compile.train.tracing.neurons import Ports, neuron_ports

Float = NDArray[np.float64]

_ENDLESS = 2.0**60
"""A time constant in steps at which 1 - 1 / tau is 1 and tau / tau is 1 in float64: no leak at all."""


@dataclass(frozen=True, eq=False)
class Neuron:
    """A neuron as exported: its node, its rule and its recurrent layer."""

    node: Any
    rule: Mapping[str, Any]
    recurrent: nn.Module | None


@dataclass(frozen=True, eq=False)
class _Step:
    """The numbers of one step: u = alpha u + x, v = beta v + gain u (alpha None: u = x)."""

    alpha: Float | None
    beta: Float
    gain: Float
    threshold: Float
    amplitude: Float
    rule: Mapping[str, str]


def neuron(module: nn.Module, path: str, shape: tuple[int, ...], dt: float, fires: bool) -> Neuron:
    """Return the NIR counterpart of a spiking neuron of `shape`; `fires`: something uses its spikes."""
    ports = neuron_ports(module, path)
    assert ports is not None
    rule = _rule(module, path, ports.kind)
    step = _numbers(module, path, ports.kind, shape, rule)
    _check(module, path, ports, step, shape)
    gain, ends = step.gain, {"v_leak": np.zeros(shape)}
    firing = {"v_threshold": step.threshold, "v_reset": np.zeros(shape)}
    silent = not fires and rule["reset"] == "none"
    tau = time_constant(step.beta, dt)
    r = gain * tau / dt
    node: Any
    if step.alpha is not None:
        tau_syn = time_constant(step.alpha, dt)
        synapse = {"tau_syn": tau_syn, "w_in": tau_syn / dt, "tau_mem": tau, "r": r}
        node = nir.CubaLI(**synapse, **ends) if silent else nir.CubaLIF(**synapse, **ends, **firing)
    elif silent:
        node = nir.LI(tau=tau, r=r, **ends)
    elif (step.beta == 1).all():
        node = nir.IF(r=gain / dt, **firing)
    else:
        node = nir.LIF(tau=tau, r=r, **ends, **firing)
    recurrent = getattr(module, "recurrent", None) if "spk" in ports.states else None
    return Neuron(node, {} if silent else rule, recurrent)


def time_constant(share: Float, dt: float) -> Float:
    """Return dt / (1 - share), for a share of 1 one that neither leaks nor rounds."""
    leak = 1.0 - share
    return np.where(leak > 0, dt / np.where(leak > 0, leak, 1.0), dt * _ENDLESS)


def _rule(module: nn.Module, path: str, kind: str) -> dict[str, str]:
    """Return reset, reset_timing and comparison."""
    for option, why in (
        ("inhibition", "only the largest membrane may spike, which no NIR node does"),
        ("state_quant", "its states are rounded; train without it, the compiler quantizes"),
    ):
        if getattr(module, option, False):
            raise ExportError(f"{path}: {option} is on: {why}", node=path, option=option)
    reset = {0: "subtract", 1: "zero", 2: "none"}[int(module.reset_mechanism_val)]  # type: ignore[arg-type]
    built = {"_base_sub": "subtract", "_base_zero": "zero", "_base_int": "none"}
    used = built.get(getattr(module.state_function, "__name__", ""))
    if used != reset:
        raise ExportError(
            f"{path}: was built with reset mechanism {used!r} and now says {reset!r}, which snnTorch "
            "ignores; build the neuron anew",
            node=path,
        )
    # RSynaptic takes its own argument where it means the new state, so that the option has no effect.
    delayed = getattr(module, "reset_delay", True) or kind == "RSynaptic"
    timing = {
        ("subtract", True): "next_after",
        ("subtract", False): "pending",
        ("zero", True): "next_before" if kind == "Leaky" else "next_after",
    }.get((reset, bool(delayed)), "same_step")
    return {
        "reset": "value" if reset == "zero" else reset,
        "reset_timing": timing,
        "comparison": _comparison(module, path),
    }


def _comparison(module: nn.Module, path: str) -> str:
    """Evaluate the surrogate's forward around 0."""
    points = torch.tensor([-3.0, -0.5, -1e-3, 0.0, 1e-3, 0.5, 3.0])
    with torch.no_grad():
        answers = [module.spike_grad(points).tolist() for _ in range(3)]  # type: ignore[operator]
    for word, at_zero in ((">", 0.0), (">=", 1.0)):
        if all(answer == [0.0, 0.0, 0.0, at_zero, 1.0, 1.0, 1.0] for answer in answers):
            return word
    raise ExportError(
        f"{path}: its spike function gives {answers[0]} at {points.tolist()}, which is not a step at the "
        "threshold; use a deterministic surrogate such as surrogate.atan()",
        node=path,
    )


def _numbers(
    module: nn.Module, path: str, kind: str, shape: tuple[int, ...], rule: Mapping[str, str]
) -> _Step:
    def number(name: str) -> Float:
        return spread(getattr(module, name), shape, path, name)

    threshold, amplitude = number("threshold"), number("graded_spikes_factor")
    if (threshold < 0).any():
        raise ExportError(f"{path}: the threshold is {threshold.min()}; it must be 0 or more", node=path)
    if (amplitude == 0).any():
        raise ExportError(f"{path}: graded_spikes_factor is 0; no spike would count", node=path)
    alpha = np.clip(number("alpha"), 0.0, 1.0) if "Synaptic" in kind else None
    beta, gain = np.clip(number("beta"), 0.0, 1.0), np.ones(shape)
    if kind == "Lapicque":
        gain = number("time_step") / number("C")
        beta = 1.0 - number("time_step") / (number("R") * number("C"))
        if ((beta < 0) | (beta > 1)).any():
            raise ExportError(
                f"{path}: 1 - time_step / (R C) is {beta.min()}, outside of [0, 1]; use a smaller time_step",
                node=path,
            )
    return _Step(alpha, beta, gain, threshold, amplitude, rule)


def spread(thing: Any, shape: tuple[int, ...], path: str, name: str) -> Float:
    """Return a parameter for every neuron; raises where it does not fit or is not finite."""
    tensor = torch.as_tensor(thing).detach().cpu().double()
    if tensor.ndim == len(shape) + 1 and tensor.shape[0] == 1:
        tensor = tensor[0]
    array: Float = tensor.numpy()
    if not np.isfinite(array).all():
        where = [int(i) for i in np.argwhere(~np.isfinite(array))[0]]
        raise ExportError(
            f"{path}: {name}{where or ''} is {array[tuple(where)]}; it must be finite", node=path
        )
    try:
        return np.array(np.broadcast_to(array, shape))
    except ValueError as error:
        raise ExportError(
            f"{path}: {name} has shape {array.shape} and the layer {shape}", node=path
        ) from error


def _check(
    module: nn.Module, path: str, ports: Ports, step: _Step, shape: tuple[int, ...], steps: int = 24
) -> None:
    """Step the module beside the rule, each step from the module's own states; raises where they differ."""
    kept = dict(module.__dict__), dict(module._buffers)
    rng = np.random.default_rng(0)
    scale = (
        np.maximum(step.threshold, 0.1) * (1.0 if step.alpha is None else 0.5) / np.maximum(step.gain, 1e-9)
    )
    dtype = torch.as_tensor(module.threshold).dtype
    hidden = bool(getattr(module, "init_hidden", False))
    state = {name: np.zeros((1, *shape)) for name in ("spk", "syn", "mem")}
    try:
        for name in ports.states:
            setattr(module, name, torch.zeros((1, *shape), dtype=dtype))
        for t in range(steps):
            x = torch.from_numpy(rng.uniform(-0.8, 1.7, (1, *shape)) * scale).to(dtype)
            with torch.no_grad():
                drive = x.double().numpy() + _recurrence(module, ports, state["spk"], dtype)
                passed = [] if hidden else [torch.from_numpy(state[n]).to(dtype) for n in ports.states]
                returned = module(x, *passed)
                spikes: Tensor = returned[0] if isinstance(returned, tuple) else returned
                got = {n: getattr(module, n).detach().double().numpy() for n in ports.states}
            if not hidden and isinstance(returned, tuple):
                named = zip(ports.returns, returned, strict=True)
                got |= {n: r.detach().double().numpy() for n, r in named}
            got["spk"] = spikes.detach().double().numpy()
            _compare(path, t, got, _predict(step, state, drive), step)
            state = {**state, **got}
    finally:
        module.__dict__.update(kept[0])
        module._buffers.clear()
        module._buffers.update(kept[1])


def _recurrence(module: nn.Module, ports: Ports, spikes: Float, dtype: torch.dtype) -> Float | float:
    if "spk" not in ports.states:
        return 0.0
    recurrent: Any = module.recurrent
    result: Float = recurrent(torch.from_numpy(spikes).to(dtype)).double().numpy()
    return result


def _predict(step: _Step, state: Mapping[str, Float], drive: Float) -> dict[str, Float]:
    """Return the states after one step of the rule, and the membrane that decided on the spikes."""
    v, theta, rule = state["mem"], step.threshold, step.rule
    timing, upward = rule["reset_timing"], rule["comparison"] == ">"
    last = (v > theta) if upward else (v >= theta)

    def reset(v: Float, fired: NDArray[np.bool_]) -> Float:
        away = {"value": v, "subtract": theta, "none": np.zeros_like(v)}[rule["reset"]]
        return np.asarray(v - fired * away)

    u = drive if step.alpha is None else step.alpha * state["syn"] + drive
    if timing == "next_before":
        v = reset(v, last)
    v = step.beta * v + step.gain * u
    if timing == "next_after":
        v = reset(v, last)
    level = theta * (1 + last) if timing == "pending" else theta
    reached = v - last * theta if timing == "pending" else v
    fired = (v > level) if upward else (v >= level)
    after = reset(v, fired) if timing in ("same_step", "pending") else v
    return {"spk": fired * step.amplitude, "syn": u, "mem": after, "reached": reached}


def _compare(path: str, t: int, got: Mapping[str, Float], expected: Mapping[str, Float], step: _Step) -> None:
    size = np.maximum(np.abs(expected["reached"]), step.threshold) + 1e-3
    sure = np.abs(expected["reached"] - step.threshold) > 1e-4 * size
    wrong = {
        name: np.abs(value - expected[name]) > 1e-3 * np.maximum(np.abs(expected[name]), size)
        for name, value in got.items()
    }
    bad = [name for name, differs in wrong.items() if (differs & sure).any()]
    if bad:
        raise ExportError(
            f"{path}: its {' and '.join(bad)} at step {t} of a trial differ from what snnTorch 1.0.0 "
            "computes; only neurons of that version are exported, and subclasses that keep its forward",
            node=path,
        )
