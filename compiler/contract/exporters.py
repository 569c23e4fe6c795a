"""Exporters of NIR files: how the files of each are recognised, and what they mean.

Per exporter, `check` lists the relations that its files keep and a graph breaks, node by node, and says
whether the relations that hold are enough to name it; `read` gives what its files mean, node by node, with
the items that they do not hold. What the released exporters write and mean was established by running them:
tests/data/frameworks holds their files with the frameworks' spikes, docs/interop.md the results. spyx 1.0.0
was run as well, but no file kept.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from snn_compile.compiler.contract.fingerprints import (
    SPIKING,
    Float,
    Traits,
    common,
    flat,
    foreign,
    kind,
    unequal,
)
from snn_compile.compiler.contract.readings import (
    Check,
    Exporter,
    Reading,
    Stated,
    constant,
    open_by_node,
    paired,
    same_step,
    stated_of,
    tau_of,
)
from snn_compile.compiler.contract.unheld import Unheld

STEP = 1e-4
"""dt of snnTorch, and the default of spikingjelly's exporter."""


# snnTorch: r = tau/dt and w_in = tau_syn/dt with dt = 1e-4; v_reset is 0 whatever the reset is.


def _check_snntorch(traits: Traits) -> Check:
    found = foreign(traits, "Affine Linear Conv2d AvgPool2d Flatten LIF CubaLIF", "snntorch")
    for name, node in traits.of("LIF", "CubaLIF").items():
        found += unequal(name, "r", *paired(flat(node, "r"), tau_of(node) / STEP), "tau/dt with dt = 0.0001")
        if kind(node) == "CubaLIF":
            w_in, wanted = paired(flat(node, "w_in"), flat(node, "tau_syn") / STEP)
            found += unequal(name, "w_in", w_in, wanted, "tau_syn/dt with dt = 0.0001")
    found += constant(traits, 0, "v_leak", "v_reset")
    gains = [*(flat(node, "r") for node in traits.neurons.values())]
    evidence = [
        "r = tau/dt" + (" and w_in = tau_syn/dt" if traits.of("CubaLIF") else "") + " with dt = 0.0001"
    ]
    evidence += ["v_leak and v_reset are 0", "the ports are named input and output"]
    telling = any((np.abs(r - 1) > 1e-3).any() for r in gains)
    return Check(tuple(found), tuple(evidence), True, traits.extracted, traits.extracted and telling)


def _read_snntorch(traits: Traits, stated: Stated) -> Reading:
    spiking = traits.of(*SPIKING)
    resets = {n: stated_of(stated, n, "reset", "subtract") for n in spiking}
    timing = {}
    for name, reset in resets.items():
        # Leaky clears v before it integrates; Synaptic and the recurrent layers lose the step's input.
        early = reset == "value" and kind(spiking[name]) == "LIF" and not traits.recurrent(name)
        if reset != "none":
            timing[name] = "next_before" if early else "next_after"
    words = {"value": "the layers have reset_mechanism='zero'", "none": "they have reset_mechanism='none'"}
    delay = "the layers have reset_delay=False"
    late = {n: timing[n] for n in timing if resets[n] == "subtract"}
    cleared = {n: timing[n] for n in timing if resets[n] != "subtract"}
    unheld = open_by_node("reset", dict.fromkeys(spiking, "subtract"), words)
    unheld += open_by_node("reset_timing", late, {"pending": delay}, len(late) < len(spiking))
    unheld += open_by_node("reset_timing", cleared, {"same_step": delay}, len(cleared) < len(spiking))
    values = same_step(">", "subtract", reset_timing="next_after")
    unheld += (Unheld("spike_amplitude", 1.0, {"F": "the layers have graded_spikes_factor=F"}),)
    unheld += (Unheld("inhibition", "none"), Unheld("state_quant", "none"))
    return Reading({"dt": STEP, "rule": "euler", "gain": "as_written", **values}, {}, unheld)


# spikingjelly: one number per layer, dt in r and w_in; names from torch.fx.


def _steps(node: Any) -> Float:
    """Return the dt that a node of spikingjelly holds, by neuron; empty if it holds none (decay_input)."""
    r = flat(node, "r")
    if kind(node) == "IF":
        return 1 / r
    if kind(node) == "CubaLIF":
        synapse, w_in = paired(flat(node, "tau_syn"), flat(node, "w_in"))
        return np.concatenate([np.divide(*paired(tau_of(node), r)), synapse / w_in])
    return np.zeros(0) if kind(node) != "LIF" or common(r) == 1 else np.divide(*paired(tau_of(node), r))


def _spikingjelly_dt(traits: Traits) -> float | None:
    held = [steps for node in traits.of(*SPIKING).values() if (steps := _steps(node)).size]
    if not held:
        return None
    values = np.concatenate(held)
    return common(values) or float(f"{np.median(values):.5g}")


def _check_spikingjelly(traits: Traits) -> Check:
    found = foreign(traits, "Affine Linear Conv1d Conv2d AvgPool2d Flatten IF LIF CubaLIF", "spikingjelly")
    dt = _spikingjelly_dt(traits)
    for name, node in traits.neurons.items():
        for key in ("tau", "tau_mem", "tau_syn", "r", "w_in", "v_leak", "v_threshold", "v_reset"):
            values = flat(node, key)
            found += unequal(
                name, key, values, values[:1], "that of the first neuron, as of all in spikingjelly,"
            )
        if kind(node) == "LIF":
            leak, reset = paired(flat(node, "v_leak"), flat(node, "v_reset"))
            found += unequal(name, "v_leak", leak, reset, "v_reset, which spikingjelly writes as v_leak,")
        if kind(node) == "CubaLIF":
            found += unequal(name, "v_leak", flat(node, "v_leak"), 0.0, "what its exporter writes")
        if dt is not None:
            found += unequal(name, "dt in r and w_in", _steps(node), dt, "that of the other nodes")
    nodes = traits.of("LIF").values()
    short = all((1 < flat(n, "tau") / STEP).all() and (flat(n, "tau") / STEP < 10).all() for n in nodes)
    port = next(iter(traits.inputs), "")
    evidence = [f"the input is named {port!r}, as torch.fx names it", "one number per layer"]
    held = f"r and w_in hold dt = {dt:g}" if dt else "r = 1 and v_leak = v_reset (decay_input)"
    # np.full of a Python number is float64, whatever the weights are.
    double = all(np.asarray(node.r).dtype == np.float64 for node in traits.neurons.values())
    likely = double and not traits.leading
    habit = traits.mangled or port == "input_1" or (dt == STEP if dt else short)
    sure = likely and traits.traced and habit
    return Check(tuple(found), (*evidence, held), likely, traits.traced, sure)


def _read_spikingjelly(traits: Traits, stated: Stated) -> Reading:
    dt = _spikingjelly_dt(traits)
    values = same_step(">=", "value", v_init="v_reset")
    values |= {"dt": STEP if dt is None else dt, "rule": "euler", "gain": "as_written"}
    leaky = traits.of("LIF")
    other = {"DT": "export_to_nir was called with dt=DT"}
    return Reading(values, {}, (Unheld("dt", STEP, other),) if dt is None and leaky else ())


# Norse: r = w_in = 1, and time constants a thousand times too small, as to_nir writes its dt / tau_inv.


def _check_norse(traits: Traits) -> Check:
    found = foreign(traits, "Affine Conv2d LIF CubaLIF LI IF", "norse")
    found += constant(traits, 1, "r", "w_in") + constant(traits, 0, "v_reset")
    taus = np.concatenate([np.zeros(0), *(flat(n, k) for n in traits.neurons.values() for k in _TAUS)])
    for name, node in traits.neurons.items():
        for key in _TAUS:
            if (slow := flat(node, key)[flat(node, key) >= 1e-3]).size:
                found.append(
                    f"node {name!r}: {key} is {slow[0]:.6g}, which is {slow[0] * 1e3:.4g} s in norse"
                )
    evidence = ["r = 1" + (" and w_in = 1" if traits.of("CubaLIF") else "")]
    if taus.size:
        evidence.append("time constants are seconds times 1e-3")
    evidence += ["the input has a batch dimension"] if traits.leading else []
    evidence += ["nodes carry the numbers of a Sequential"] if traits.numbered else []
    near = bool(taus.size) and taus.min() >= 5e-7 and taus.max() < 1e-4
    called = "norse" in traits.inner
    evidence += ["its node is called norse"] if called else []
    habit = traits.leading or traits.numbered or called
    sure = traits.extracted and (near and habit or (traits.leading or called) and not taus.size)
    return Check(tuple(found), tuple(evidence), near or not taus.size, traits.extracted, sure)


_TAUS = ("tau", "tau_mem", "tau_syn")


def _read_norse(traits: Traits, stated: Stated) -> Reading:
    # A step is 1e-3 s and the file's unit is 1000 s, so a step is 1e-6 of the file's time constants.
    leaky = traits.of("LIF", "CubaLIF", "LI", "CubaLI")
    values = {"dt": 1e-6 if leaky else 1e-3, "rule": "euler", "gain": "as_written"}
    values |= same_step(">", "value", v_init="v_leak")
    nodes: dict[str, dict[str, Any]] = {n: {"gain": "unit", "v_init": "v_reset"} for n in traits.of("IF")}
    nodes |= {n: {"gain": "unit", "current_decay": "after"} for n in traits.of("CubaLIF")}
    step = {"DT": "the cells' dt times that of to_nir (1e-3 each) is DT"}
    spiking, box = traits.of(*SPIKING), traits.of("LIF")
    unheld: tuple[Unheld, ...] = (Unheld("dt", 1e-6, step),) if leaky else ()
    method = {"subtract": "LIFBoxCell has reset_method=reset_subtract"}
    unheld += open_by_node("reset", dict.fromkeys(box, "value"), method, len(box) < len(spiking))
    unheld += open_by_node("v_reset", dict.fromkeys(spiking, 0.0), {"V": "the cells have v_reset=V"})
    return Reading(values, nodes, unheld)


# sinabs: tau in steps, r = 1; the reset, the spikes per step and the input's divisor are lost.


def _check_sinabs(traits: Traits) -> Check:
    found = foreign(traits, "Affine Conv1d Conv2d SumPool2d Flatten LIF LI IF", "sinabs")
    found += constant(traits, 1, "r") + constant(traits, 0, "v_leak", "v_reset")
    for name, node in traits.neurons.items():
        if (fast := flat(node, "tau")[flat(node, "tau") < 1]).size:
            found.append(f"node {name!r}: tau is {fast[0]:.6g}; sinabs counts it in steps, 1 and more")
        if kind(node) == "IF" and _single(traits, name):
            found.append(f"node {name!r}: one threshold for all neurons, where sinabs writes one for each")
    tau, image = traits.of("LIF", "LI"), "SumPool2d" in map(kind, traits.inner.values())
    evidence = ["r = 1 and v_leak = 0"] + (["time constants of a step and more"] if tau else [])
    # A graph by hand may well have r = 1 and count in steps.
    habits = {
        "the input has a dimension too many": traits.leading,
        "sum pooling": image,
        "the nodes in a row carry the numbers of a Sequential": traits.sequential,
        "numbers are float32, as torch's": _single_precision(traits),
    }
    seen = [text for text, there in habits.items() if there]
    enough = traits.sequential or len(seen) > 1 if tau else traits.sequential and (traits.leading or image)
    sure = traits.extracted and enough
    return Check(tuple(found), (*evidence, *seen), True, traits.extracted, sure)


def _single_precision(traits: Traits) -> bool:
    return all(np.asarray(node.r).dtype == np.float32 for node in traits.neurons.values())


def _single(traits: Traits, name: str) -> bool:
    """Whether a node has one threshold for a layer of several neurons, or for one of unknown size."""
    shape = np.shape(traits.nodes[name].v_threshold)
    before: list[Any] = [traits.nodes.get(a) for a, b in traits.edges if b == name]
    rows = [np.shape(node.weight)[0] for node in before if kind(node) in ("Affine", "Linear")]
    return shape == () or (shape == (1,) and any(n > 1 for n in rows))


def _read_sinabs(traits: Traits, stated: Stated) -> Reading:
    spiking = traits.of(*SPIKING)
    values = same_step(">=", "subtract", spikes_per_step="floor", gain="unit")
    values |= {"dt": 1.0, "time_unit": "step", "rule": "exponential"}
    lif, li = traits.of("LIF"), traits.of("LI")
    norm = {"unit": "LIF has norm_input=False"} if lif else {}
    norm |= {"norm": "ExpLeak has norm_input=True"} if li else {}
    gains = dict.fromkeys(lif, "norm") | dict.fromkeys(li, "unit")
    unheld = open_by_node("gain", gains, norm, bool(lif and li) or len(lif) < len(spiking))
    single = {"one": "the layers have spike_fn=SingleSpike"}
    unheld += open_by_node("spikes_per_step", dict.fromkeys(spiking, "floor"), single)
    cleared = {"value": "the layers have reset_fn=MembraneReset()"}
    unheld += open_by_node("reset", dict.fromkeys(spiking, "subtract"), cleared)
    clip = {"V": "the layers have min_v_mem=V"}
    unheld += open_by_node("v_min", dict.fromkeys(spiking, None), clip)
    return Reading(values, {}, (*unheld, Unheld("tau_syn", "none")))


# rockpool: r = (tau/dt) exp(-dt/tau), which is no gain; w_in = 1.


def _rockpool_steps(node: Any) -> Float:
    """Return the dt of rockpool by neuron, the root of r = (tau/dt) exp(-dt/tau)."""
    from scipy.special import lambertw

    tau, r = paired(tau_of(node), flat(node, "r"))
    found: Float = tau * lambertw(1 / r).real
    return found


def _rockpool_dt(traits: Traits) -> float | None:
    held = [_rockpool_steps(node) for node in traits.neurons.values() if tau_of(node).size]
    values = np.concatenate([np.zeros(0), *held])
    return (common(values) or float(f"{np.median(values):.5g}")) if values.size else None


def _check_rockpool(traits: Traits) -> Check:
    found = foreign(traits, "Affine Linear LIF CubaLIF LI", "rockpool")
    found += constant(traits, 1, "w_in") + constant(traits, 0, "v_leak", "v_reset")
    dt = _rockpool_dt(traits)
    taus = [tau_of(node) for node in traits.neurons.values()]
    for name, node in traits.neurons.items():
        if dt is not None and tau_of(node).size:
            tau, r = paired(tau_of(node), flat(node, "r"))
            says = f"(tau/dt) exp(-dt/tau) with dt = {dt:g}"
            found += unequal(name, "r", r, tau / dt * np.exp(-dt / tau), says)
    named = any("Torch" in name for name in traits.inner)
    tau = np.concatenate([np.zeros(0), *taus])
    several = tau.size > 1 and np.ptp(tau) > 1e-3 * tau.max()
    evidence = [f"r = (tau/dt) exp(-dt/tau) with dt = {dt:g}" if dt else "no time constants"]
    evidence += ["v_leak = 0 and w_in = 1"] + (["nodes are named after rockpool's modules"] if named else [])
    # A single pair of tau and r has such a dt by chance.
    likely = dt is not None and (named or several or _plain(dt))
    return Check(tuple(found), tuple(evidence), likely, traits.extracted, traits.extracted and likely)


def _plain(dt: float) -> bool:
    """Whether dt is 1, 2, 2.5 or 5 times a power of ten, which a relation of chance does not give."""
    return f"{dt:.4e}".split("e")[0] in ("1.0000", "2.0000", "2.5000", "5.0000")


def _read_rockpool(traits: Traits, stated: Stated) -> Reading:
    values = same_step(">=", "subtract", spikes_per_step="floor", gain="decayed")
    values |= {"dt": _rockpool_dt(traits) or 1e-3, "rule": "exponential"}
    nodes = {name: {"gain": "unit"} for name in traits.of("LIF", "IF")}
    spiking = traits.of(*SPIKING)
    single = {"one": "the layers have max_spikes_per_dt=1"}
    unheld = open_by_node("spikes_per_step", dict.fromkeys(spiking, "floor"), single)
    dropped = (Unheld("bias", "none"), Unheld("w_rec", "none")) if spiking else ()
    return Reading(values, nodes, (*unheld, *dropped))


# spyx: r is the decay, r = 1 - dt/tau; nodes layer_0, layer_1, ...; a spike is sent one step late.
# A CubaLIF's gains (none) and recurrent sub-graphs (the input enters the recurrent weights) do not fit the
# contract, so only LIF is read.


def _spyx_steps(node: Any) -> Float:
    r, tau = paired(flat(node, "r"), tau_of(node))
    return (1 - r) * tau


def _spyx_dt(traits: Traits) -> float | None:
    values = np.concatenate([np.zeros(0), *map(_spyx_steps, traits.of("LIF").values())])
    dt = (common(values) or float(np.median(values))) if values.size else 0.0
    return dt if dt > 0 else None


def _check_spyx(traits: Traits) -> Check:
    found = foreign(traits, "Affine Linear Conv1d Conv2d SumPool2d AvgPool2d Flatten LIF", "spyx")
    found += constant(traits, 0, "v_leak", "v_reset")
    dt = _spyx_dt(traits)
    for name, node in traits.of("LIF").items():
        if dt is not None:
            found += unequal(name, "dt in r", _spyx_steps(node), dt, "that of the other nodes")
    if dt is None:
        found.append(f"nodes {', '.join(list(traits.neurons)[:4])!r}: r is not 1 - dt/tau for a dt above 0")
    named = all(name.startswith("layer_") for name in traits.inner) and "." not in "".join(traits.inner)
    evidence = (f"r = 1 - dt/tau with dt = {dt:g}" if dt else "", "nodes are named layer_0, layer_1, ...")
    return Check(tuple(found), evidence, named, named, named)


def _read_spyx(traits: Traits, stated: Stated) -> Reading:
    values: dict[str, Any] = {"dt": _spyx_dt(traits) or 1.0, "rule": "euler", "gain": "unit"}
    values |= same_step(">", "subtract", reset_timing="next_after")
    late = {(a, b) for a, b in traits.edges if a in traits.neurons and b not in traits.outputs}
    return Reading({**values, "delays": dict.fromkeys(sorted(late), 1)})


EXPORTERS: dict[str, Exporter] = {
    "norse": Exporter("norse", _check_norse, _read_norse),
    "rockpool": Exporter("rockpool", _check_rockpool, _read_rockpool),
    "sinabs": Exporter("sinabs", _check_sinabs, _read_sinabs),
    "snntorch": Exporter("snntorch", _check_snntorch, _read_snntorch),
    "spikingjelly": Exporter("spikingjelly", _check_spikingjelly, _read_spikingjelly),
    "spyx": Exporter("spyx", _check_spyx, _read_spyx),
}
"""Exporters by the name that `--convention maker=` takes."""
