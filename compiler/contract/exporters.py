"""Exporters of NIR files: how each is recognised, and what its files mean.

One function per exporter, from the traits of a graph and the user's stated items to a `Detection` or None.
What the released exporters write and mean was established by running them: tests/data/frameworks holds their
files with the frameworks' spikes, docs/interop.md the results. spyx 1.0.0 was run as well, but no file kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from snn_compile.compiler.contract.fingerprints import (
    PARAMETERS,
    Detection,
    Float,
    Open,
    Traits,
    common,
    same,
)

Rule = Callable[[Traits, Mapping[str, Any]], Detection | None]

SAME_STEP = {"reset_timing": "same_step", "spikes_per_step": "one", "current_decay": "before"}


def _found(
    exporter: str,
    values: Mapping[str, Any],
    evidence: list[str],
    stated: Mapping[str, Any],
    items: tuple[Open, ...] = (),
    assumed: tuple[str, ...] = (),
) -> Detection:
    """Build a Detection; stated items are neither open nor taken from the exporter."""
    answered = {o.item: stated[o.item] for o in items if o.item in stated}
    if answered.get("v_min") == "none":
        answered["v_min"] = None
    left = tuple(o for o in items if o.item not in stated)
    settled = {k: stated.get(k, v) for k, v in values.items()} | answered
    return Detection(exporter, settled, tuple(evidence), assumed, left)


def _step(traits: Traits) -> float | None:
    """Return the dt for which every r is tau/dt and every w_in tau_syn/dt, or None."""
    parts = [traits.all("tau", "LIF") / traits.all("r", "LIF")]
    parts += [traits.all("tau_mem", "CubaLIF") / traits.all("r", "CubaLIF")]
    parts += [traits.all("tau_syn", "CubaLIF") / traits.all("w_in", "CubaLIF")]
    return common(np.concatenate(parts))


def snntorch(traits: Traits, stated: Mapping[str, Any]) -> Detection | None:
    """r = tau/dt and w_in = tau_syn/dt with dt = 1e-4; the file holds v_reset 0 whatever the reset is."""
    if traits.inputs != ["input"] or set(map(_kind, traits.neurons.values())) - {"LIF", "CubaLIF"}:
        return None
    with np.errstate(divide="ignore", invalid="ignore"):
        dt = _step(traits)
    if dt != 1e-4 or traits.all("v_leak").any() or traits.all("v_reset").any():
        return None
    reset = Open(
        "reset",
        {
            "subtract": "a spike takes the threshold off, one step later (reset_mechanism 'subtract')",
            "value": "a spike clears the membrane, one step later (reset_mechanism 'zero')",
            "none": "the membrane goes on (reset_mechanism 'none')",
        },
        usual="subtract",
        hint="and reset_timing=pending if the layers were made with reset_delay=False",
    )
    values: dict[str, Any] = {"dt": dt, "rule": "euler", "gain": "as_written", "comparison": ">"}
    values |= SAME_STEP | {"update_order": "synapse_first", "reset_timing": "next_after", "v_init": 0.0}
    if stated.get("reset") == "value":
        # Leaky clears v before it integrates; Synaptic and the recurrent layers lose the step's input.
        early = [n for n in traits.of("LIF") if not traits.recurrent(n)]
        values["nodes"] = {name: {"reset_timing": "next_before"} for name in early}
    evidence = ["r = tau/dt" + (" and w_in = tau_syn/dt" if traits.of("CubaLIF") else "") + " with dt = 1e-4"]
    evidence += ["v_leak and v_reset are 0", "the input is named 'input'"]
    assumed = ("resets act one step late (reset_delay=True)",) if "reset_timing" not in stated else ()
    return _found("snntorch", values, evidence, stated, (reset,), assumed)


def spikingjelly(traits: Traits, stated: Mapping[str, Any]) -> Detection | None:
    """Uniform arrays per layer, dt in r and w_in; names from torch.fx, where 'input' cannot occur."""
    if len(traits.inputs) != 1 or traits.inputs == ["input"]:
        return None
    if set(map(_kind, traits.neurons.values())) - {"LIF", "CubaLIF", "IF"}:
        return None
    uniform = all(
        np.ptp(np.asarray(getattr(node, key), np.float64)) == 0
        for node in traits.neurons.values()
        for key in PARAMETERS
        if getattr(node, key, None) is not None
    )
    lif = traits.of("LIF").values()
    leaks = all(np.array_equal(node.v_leak, node.v_reset) for node in lif)
    if not uniform or not leaks or traits.all("v_leak", "CubaLIF").any():
        return None
    divided = [node for node in lif if not same(np.ravel(node.r), 1.0)]
    steps = [np.ravel(node.tau) / np.ravel(node.r) for node in divided]
    with np.errstate(divide="ignore", invalid="ignore"):
        steps += [1 / traits.all("r", "IF")]
        steps += [traits.all("tau_mem", "CubaLIF") / traits.all("r", "CubaLIF")]
        steps += [traits.all("tau_syn", "CubaLIF") / traits.all("w_in", "CubaLIF")]
    known: Float = np.concatenate([np.zeros(0), *steps])
    dt, traced = common(known), traits.inputs == ["input_1"]
    if known.size and (dt is None or not (traced or dt == 1e-4)) or not known.size and not traced:
        return None
    values: dict[str, Any] = {"rule": "euler", "gain": "as_written", "comparison": ">=", "reset": "value"}
    values |= SAME_STEP | {"update_order": "synapse_first", "v_init": "v_reset"}
    evidence = [f"the input is named {traits.inputs[0]!r}, as torch.fx names it", "one number a layer"]
    items: tuple[Open, ...] = ()
    if dt is not None:
        values["dt"] = dt
        evidence.append(f"r and w_in hold dt = {dt:g}")
    else:
        evidence.append("r = 1 and v_leak = v_reset (decay_input)")
        interpretations = {1e-4: "the exporter's default", "...": "what its argument dt was"}
        items = (Open("dt", interpretations, usual=1e-4),)
    return _found("spikingjelly", values, evidence, stated, items)


def norse(traits: Traits, stated: Mapping[str, Any]) -> Detection | None:
    """r = w_in = 1, and time constants a thousand times too small: to_nir writes dt/tau_inv, dt 1e-3."""
    if traits.inputs != ["input"] or not traits.kinds <= {"Affine", "LIF", "CubaLIF", "LI", "IF"}:
        return None
    ones = np.concatenate([traits.all("r"), traits.all("w_in")])
    tau = np.concatenate([traits.all(key) for key in ("tau", "tau_mem", "tau_syn")])
    if not same(ones, 1.0) or traits.all("v_reset").any():
        return None
    if tau.size and not (tau.min() >= 1e-6 * (1 - 1e-5) and tau.max() < 1e-4):
        return None
    if not tau.size and not (traits.leading and traits.numbered):
        return None
    values: dict[str, Any] = {"rule": "euler", "comparison": ">", "reset": "value", "gain": "as_written"}
    # A step is 1e-3 s and the file's unit is 1000 s, so a step is 1e-6 of the file's time constants.
    values |= SAME_STEP | {
        "dt": 1e-6 if tau.size else 1e-3,
        "update_order": "synapse_first",
        "v_init": "v_leak",
    }
    nodes: dict[str, dict[str, Any]] = {n: {"gain": "unit", "v_init": 0.0} for n in traits.of("IF")}
    nodes |= {n: {"gain": "unit", "current_decay": "after"} for n in traits.of("CubaLIF")}
    evidence = [
        "r = 1" + (" and w_in = 1" if traits.of("CubaLIF") else ""),
        "only Affine between the neurons",
    ]
    if tau.size:
        evidence.append("time constants between 1e-6 and 1e-4, which are seconds times 1e-3")
    else:
        evidence.append("the input has a batch dimension")
    assumed = ("to_nir's default dt of 1e-3 s", "v_reset 0, as NIR reads a missing v_reset")
    return _found("norse", {**values, "nodes": nodes}, evidence, stated, assumed=assumed)


def sinabs(traits: Traits, stated: Mapping[str, Any]) -> Detection | None:
    """tau in steps, r = 1; the reset, the spikes per step and the input's divisor are lost."""
    layers = {"Affine", "Conv1d", "Conv2d", "SumPool2d", "Flatten", "LIF", "LI", "IF"}
    if traits.inputs != ["input"] or not traits.kinds <= layers or not traits.numbered:
        return None
    tau = traits.all("tau")
    full = all(np.ndim(node.v_threshold) > 0 for node in traits.of("IF").values())
    if not same(traits.all("r"), 1.0) or traits.all("v_leak").any() or traits.all("v_reset").any():
        return None
    if (tau.size and tau.min() < 1) or not full:
        return None
    image = bool(traits.kinds & {"SumPool2d", "Conv1d", "Conv2d"})
    if not (traits.leading or image and traits.of("IF")):
        return None
    values: dict[str, Any] = {"dt": 1.0, "time_unit": "step", "rule": "exponential", "comparison": ">="}
    values |= {"reset_timing": "same_step", "v_init": 0.0, "update_order": "synapse_first"}
    values["current_decay"] = "before"
    spiking = traits.of("LIF", "IF")
    items = []
    if traits.of("LIF"):
        norm = {"norm": "the input times 1 - decay (norm_input=True)", "unit": "the input as it is"}
        items.append(Open("gain", norm, usual="norm"))
        values["nodes"] = {n: {"gain": "unit"} for n in traits.of("IF", "LI")}
    else:
        values["gain"] = "unit"
    if spiking:
        many = "floor(v/threshold) spikes in one step, sent as a number (MultiSpike)"
        items += [
            Open("spikes_per_step", {"floor": many, "one": "at most one (SingleSpike)"}, usual="floor"),
            Open("reset", {"subtract": "the threshold for each spike", "value": "to 0"}, usual="subtract"),
            Open("v_min", {"none": "no clip", "...": "min_v_mem, after the reset"}, usual="none"),
        ]
    evidence = ["r = 1 and v_leak = 0"]
    evidence += ["time constants of a step and more"] if tau.size else []
    evidence += ["the input has a dimension too many"] if traits.leading else []
    evidence += ["convolution or sum pooling before IF of the layer's shape"] if image else []
    return _found(
        "sinabs", values, evidence, stated, tuple(items), ("no synaptic time constant (it is dropped)",)
    )


def rockpool(traits: Traits, stated: Mapping[str, Any]) -> Detection | None:
    """r = (tau/dt) exp(-dt/tau), which is no gain; w_in = 1."""
    from scipy.special import lambertw

    if set(map(_kind, traits.neurons.values())) - {"LIF", "CubaLIF", "LI"}:
        return None
    tau = np.concatenate([traits.all("tau"), traits.all("tau_mem")])
    r = np.concatenate([traits.all("r", "LIF", "LI"), traits.all("r", "CubaLIF")])
    if tau.size != r.size or tau.min() <= 0 or r.min() <= 0:
        return None
    if traits.all("v_leak").any() or not same(np.append(traits.all("w_in"), 1.0), 1.0):
        return None
    dt = common(tau * lambertw(1 / r).real)
    named = any("Torch" in name for name in traits.neurons)
    if dt is None or not (named or np.ptp(tau) > 1e-3 * tau.max() or dt == 1e-3):
        return None
    values: dict[str, Any] = {"dt": dt, "rule": "exponential", "comparison": ">=", "reset": "subtract"}
    values |= {"reset_timing": "same_step", "spikes_per_step": "floor", "update_order": "synapse_first"}
    values |= {"current_decay": "before", "v_init": 0.0, "gain": "decayed"}
    nodes = {name: {"gain": "unit"} for name in traits.of("LIF")}
    evidence = [f"r = (tau/dt) exp(-dt/tau) with dt = {dt:g} for every neuron", "v_leak = 0, w_in = 1"]
    evidence += ["nodes are named after rockpool's modules"] if named else []
    assumed = ("no bias and no recurrent weights (the exporter drops both)",)
    return _found("rockpool", {**values, "nodes": nodes}, evidence, stated, assumed=assumed)


def spyx(traits: Traits, stated: Mapping[str, Any]) -> Detection | None:
    """r is the decay: r = 1 - dt/tau, nodes layer_0, layer_1, ...; a spike is sent one step late.

    Only LIF: a CubaLIF's gains (none) and the recurrent sub-graphs (the input enters the recurrent
    weights) cannot be expressed by the contract.
    """
    if set(map(_kind, traits.neurons.values())) != {"LIF"} or any("." in name for name in traits.nodes):
        return None
    if not all(name.startswith("layer_") for name in traits.neurons):
        return None
    dt = common((1 - traits.all("r")) * traits.all("tau"))
    if dt is None or dt <= 0 or traits.all("v_leak").any():
        return None
    values: dict[str, Any] = {"dt": dt, "rule": "euler", "gain": "unit", "comparison": ">", "v_init": 0.0}
    values |= SAME_STEP | {"reset": "subtract", "reset_timing": "next_after", "update_order": "synapse_first"}
    inner = {(a, b) for a, b in traits.edges if a in traits.neurons and _kind(traits.nodes[b]) != "Output"}
    values["delays"] = dict.fromkeys(sorted(inner), 1)
    evidence = [f"r = 1 - dt/tau with dt = {dt:g}", "nodes are named layer_0, layer_1, ..."]
    assumed = ("spikes of the last layer stand one step before spyx returns them",)
    return _found("spyx", values, evidence, stated, assumed=assumed)


def _kind(node: Any) -> str:
    return type(node).__name__


EXPORTERS: dict[str, Rule] = {
    "norse": norse,
    "rockpool": rockpool,
    "sinabs": sinabs,
    "snntorch": snntorch,
    "spikingjelly": spikingjelly,
    "spyx": spyx,
}
"""Exporters by the name that `--convention maker=` takes."""
