"""The differences between a program and its network, tensor by tensor, as causes that can be switched.

A value within one last bit of its format is rounded, to the nearest or either way where a quantizer chooses.
A value further off contradicts the network and is named after its pattern: clipped at the end of its tables'
range, of the opposite sign, zero, a whole tensor scaled, rows exchanged. Rules, delays, start steps and
read-outs are compared directly.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from snn_compile.runtime.divergence.delays import delay_causes
from snn_compile.runtime.divergence.emulator import Chosen, Ingredient
from snn_compile.runtime.divergence.neurons.base import WITHIN
from snn_compile.runtime.divergence.neurons.models import MODELS
from snn_compile.runtime.divergence.pair import Edge, Pair, Tensor
from snn_compile.targets.devices.record import Overflow
from snn_compile.targets.program.rule import CHOICES as RULE_CHOICES

ROWS_TRIED = 256
"""Largest number of rows of a matrix for which a permutation is searched."""

ROUNDING = (
    "weight rounding",
    "threshold rounding",
    "decay rounding",
    "bias rounding",
    "initial state rounding",
    "input coding",
    "rate rounding",
    "truncation toward zero",
    "floored sums",
)
RANGE = ("clipped weight", "clipped input", "u wraps", "v saturates high", "v saturates low", "damping ends")
"""Kinds at the end of a finite range; a kind that is in neither list contradicts the network."""

_RULES = {
    "reset": "reset kind",
    "reset_timing": "reset timing",
    "spikes_per_step": "spikes per step",
    "update_order": "update order",
    "current_decay": "order of current decay",
}


@dataclass(frozen=True, eq=False)
class Cause:
    """One difference between a program and its network, and the ingredients that undo it.

    `place`: the name of a projection, population, input or output; "" for all. `index`: the neuron, or
    (target, source), that is furthest off; `values`: how many are off. `size`: the largest error in last
    bits, or in steps for delays. `detail` describes it.
    """

    kind: str
    place: str
    effects: Mapping[Ingredient, Chosen]
    detail: str = ""
    index: tuple[int, ...] | None = None
    size: float = 0.0
    values: int = 0
    parts: Mapping[str, float] = field(default_factory=dict)

    @property
    def rank(self) -> int:
        """0 for a contradiction of the network, 1 for an end of a range, 2 for rounding."""
        return 2 if self.kind in ROUNDING else 1 if self.kind in RANGE else 0

    @property
    def name(self) -> str:
        """Kind, place and index in one line."""
        at = "" if self.index is None else f"[{', '.join(map(str, self.index))}]"
        return f"{self.kind} in {self.place}{at}" if self.place else self.kind


def find_causes(
    side: Pair, overflows: Mapping[str, Overflow], clipped: Mapping[str, int] | None = None
) -> list[Cause]:
    """Return every cause that separates program and network; `overflows` are of the program's run.

    `clipped`: for each input, the number of values beyond the largest message.
    """
    clipped = clipped or {}
    rounded: dict[str, dict[Ingredient, Chosen]] = {}
    found: list[Cause] = []
    scaled = _scaled_inputs(side)
    for edge in side.edges.values():
        factor = scaled.get(edge.source)
        close = _rounded(edge.weight, factor or 1.0)
        if factor is None:
            found += _weight_causes(side, edge, ~close)
            _keep(rounded, "weight rounding", ("weight", edge.name), close & (edge.weight.error_lsb() != 0))
    found += [_input_scale(side, name, factor) for name, factor in scaled.items()]
    models = {p.name: MODELS[p.model] for p in side.network.populations}
    for (item, name), tensor in side.parameters.items():
        close = _rounded(tensor)
        _keep(rounded, models[name].items[item].rounding, (item, name), close & (tensor.error_lsb() != 0))
        if not close.all() and item not in models[name].together:
            found.append(_parameter_cause(models[name].items[item].words, item, name, tensor, ~close))
    for name, model in models.items():
        if model.causes:
            found += [Cause(**facts) for facts in model.causes(side, name, _rounded)]
    found += [cause for p in side.network.populations for cause in _rule_causes(side, p.name)]
    found += [Cause(**facts) for facts in delay_causes(side)]
    found += _readout_causes(side)
    found += _overflow_causes(overflows)
    found += [_clipped_input(side, name, count) for name, count in clipped.items() if count]
    rounded["input coding"] = {
        ("input coding", port.name): True
        for port in side.program.inputs
        if port.kind == "graded" and not clipped.get(port.name)
    }
    made = {name: p for name, p in side.made.items() if p is not None}
    rounded["truncation toward zero"] = {("truncation", name): True for name in made}
    shifted = [e.name for e in side.edges.values() if any(e.floors)]
    shifted += [
        n for n, p in made.items() if "message_shift" in p.parameters and p.parameters["message_shift"].any()
    ]
    rounded["floored sums"] = {("flooring", name): True for name in shifted}
    found += [_rounding(side, kind, rounded[kind]) for kind in ROUNDING if rounded.get(kind)]
    return found


def _rounded(tensor: Tensor, factor: float = 1.0) -> npt.NDArray[np.bool_]:
    close: npt.NDArray[np.bool_] = np.abs(tensor.kept - factor * tensor.ideal) <= WITHIN * tensor.lsb
    return close


def _keep(
    rounded: dict[str, dict[Ingredient, Chosen]], kind: str, at: Ingredient, mask: npt.NDArray[np.bool_]
) -> None:
    if mask.any():
        rounded.setdefault(kind, {})[at] = mask


def _rounding(side: Pair, kind: str, effects: dict[Ingredient, Chosen]) -> Cause:
    """Return a kind of rounding over all tensors, with the relative root mean square error of each."""
    parts: dict[str, float] = {}
    for (item, name), mask in effects.items():
        tensor = side.edges[name].weight if item == "weight" else side.parameters.get((item, name))
        if tensor is not None:
            size = float(np.sqrt(np.mean(tensor.ideal**2)))
            error = float(np.sqrt(np.mean((mask * (tensor.kept - tensor.ideal)) ** 2)))
            parts[name] = max(parts.get(name, 0.0), error / size if size else 0.0)
    detail = ""
    if parts:
        worst = max(parts, key=lambda name: parts[name])
        detail = f"relative error up to {parts[worst]:.2g} ({worst})"
    if kind == "floored sums":
        detail = f"{len(effects)} sum(s) of tables or membrane messages are shifted right"
    if kind == "input coding":
        ports = [p for p in side.program.inputs if ("input coding", p.name) in effects]
        detail = ", ".join(f"{p.name}: {p.bits} bits, scale {p.scale:g}" for p in ports)
    return Cause(kind, "", effects, detail, parts=parts)


def _scaled_inputs(side: Pair) -> dict[str, float]:
    """Return inputs whose projections are all off by one factor: the scale of the input is wrong."""
    found = {}
    for port in side.network.inputs:
        edges = [e for e in side.edges.values() if e.source == port.name]
        factors = [_factor(e.weight) for e in edges]
        known = [f for f in factors if f is not None]
        off = bool(known) and abs(known[0] - 1) > 1e-3 and known[0] > 0
        if off and len(known) == len(edges) and side.input_ports[port.name].kind == "graded":
            same = all(_rounded(e.weight, known[0]).all() for e in edges)
            if same and not all(_rounded(e.weight).all() for e in edges):
                found[port.name] = known[0]
    return found


def _input_scale(side: Pair, name: str, factor: float) -> Cause:
    port = side.input_ports[name]
    edges = [e for e in side.edges.values() if e.source == name]
    effects: dict[Ingredient, Chosen] = {("weight", e.name): True for e in edges}
    detail = f"messages are round({port.scale:g} x); the weights expect {port.scale / factor:g}"
    return Cause("input scale", name, effects, detail, None, factor, port.size)


def _clipped_input(side: Pair, name: str, count: int) -> Cause:
    port = side.input_ports[name]
    low, high = (limit / port.scale for limit in port.limits)
    text = f"{count} values of the data are outside {low:.4g} to {high:.4g}, the range of its messages"
    return Cause("clipped input", name, {("input coding", name): True}, text, None, 0.0, count)


def _factor(tensor: Tensor) -> float | None:
    """Return the factor from ideal to kept, the median over the larger values, or None."""
    large = np.abs(tensor.ideal) > 2 * tensor.lsb
    if not large.any():
        return None
    return float(np.median(tensor.kept[large] / tensor.ideal[large]))


def _weight_causes(side: Pair, edge: Edge, off: npt.NDArray[np.bool_]) -> Iterator[Cause]:
    if not off.any():
        return
    weight, key = edge.weight, ("weight", edge.name)
    if not weight.kept.any():
        text = "the program has no such projection" if edge.made is None else "every weight is 0"
        kind = "dropped bias" if edge.source.endswith(".bias") and edge.shape[1] == 1 else "zeroed projection"
        yield Cause(
            kind, edge.name, {key: True}, text, None, float(np.abs(weight.error_lsb()).max()), off.size
        )
        return
    factor = _factor(weight)
    if factor is not None and off.sum() > 1 and abs(factor - 1) > 1e-3 and _rounded(weight, factor).all():
        text = f"all weights are {factor:.3g} times the network's"
        yield Cause("scaled weights", edge.name, {key: True}, text, None, factor, off.size)
        return
    for axis, word in enumerate(("row", "column")):
        if moved := _moved(edge, off, axis):
            mask = np.isin(edge.places[axis], list(moved))
            text = ", ".join(f"{word} {a} holds {word} {b}" for a, b in list(moved.items())[:8])
            yield Cause("permuted weights", edge.name, {key: mask}, text, (min(moved),), 0.0, len(moved))
            off = off & ~mask
    if off.sum() > 1 and (step := _coarse(weight)):
        text = f"weights are multiples of {step:g} last bits, so {np.log2(step):.1f} bits are unused"
        yield Cause("coarse weights", edge.name, {key: off}, text, None, step, int(off.sum()))
        return
    if off.size > 1 and off.mean() > 0.5:
        alike = np.corrcoef(weight.kept, weight.ideal)[0, 1] if np.ptp(weight.ideal) else 0.0
        text = f"{off.sum()} of {off.size} differ, correlation {alike:.2f}; compiled from other weights?"
        yield Cause("other weights", edge.name, {key: off}, text, None, 0.0, int(off.sum()))
        return
    yield from _single_weights(edge, off)


def _single_weights(edge: Edge, off: npt.NDArray[np.bool_]) -> Iterator[Cause]:
    """Classify single weights that are off."""
    w = edge.weight
    assert edge.top is not None
    at_end = (np.abs(w.kept) >= edge.top - w.lsb * WITHIN) & (np.abs(w.ideal) > np.abs(w.kept))
    kinds = {
        "clipped weight": at_end & (np.sign(w.ideal) == np.sign(w.kept)),
        "flipped sign": (np.abs(w.kept + w.ideal) <= WITHIN * w.lsb) & (w.kept != 0),
        "zeroed weight": w.kept == 0,
        "wrong weight": np.ones_like(off),
    }
    rows, columns = edge.places
    for kind, looks in kinds.items():
        mask = off & looks
        off = off & ~mask
        if mask.any():
            worst = int(np.argmax(np.where(mask, np.abs(w.error_lsb()), -1)))
            kept, network = w.kept[worst] * _at(w.to_network, worst), w.network[worst]
            yield Cause(
                kind,
                edge.name,
                {("weight", edge.name): mask},
                f"{network:.4g} in the network, {kept:.4g} in the program",
                (int(rows[worst]), int(columns[worst])),
                float(w.error_lsb()[worst]),
                int(mask.sum()),
            )


def _at(values: npt.NDArray[Any], index: int) -> float:
    return float(values[index if values.size > 1 else 0])


def _coarse(weight: Tensor) -> float:
    """Return the common step, in last bits, of the program's weights if it explains their errors, else 0."""
    whole = np.rint(weight.kept / weight.lsb).astype(np.int64)
    step = int(np.gcd.reduce(np.abs(whole)))
    inside = np.abs(weight.error_lsb()) <= step * WITHIN
    return float(step) if step > 1 and inside.all() and np.count_nonzero(whole) > 3 else 0.0


def _moved(edge: Edge, off: npt.NDArray[np.bool_], axis: int) -> dict[int, int]:
    """Return rows (axis 0) or columns of the program's weights that equal others of the network's."""
    wrong = np.unique(edge.places[axis][off])
    if not 2 <= wrong.size <= ROWS_TRIED:
        return {}
    values = (edge.weight.kept, edge.weight.ideal, edge.weight.lsb)
    kept, ideal, lsb = (edge.matrix(x).T if axis else edge.matrix(x) for x in values)
    if edge.sparse is not None and axis:
        kept, ideal, lsb = kept.tocsr(), ideal.tocsr(), lsb.tocsr()
    if edge.sparse is not None:
        kept, ideal, lsb = (m[wrong].toarray() for m in (kept, ideal, lsb))
        lsb = np.maximum(lsb, float(edge.weight.lsb.max()))
    else:
        kept, ideal, lsb = kept[wrong], ideal[wrong], lsb[wrong]
    moved = {}
    for i, row in enumerate(wrong.tolist()):
        fits = (np.abs(kept[i] - ideal) <= WITHIN * np.maximum(lsb, lsb[i])).all(axis=1)
        if fits.any() and np.count_nonzero(kept[i]) > 1:
            moved[row] = int(wrong[fits.argmax()])
    return moved if len(moved) > 1 else {}


def _parameter_cause(words: str, item: str, name: str, tensor: Tensor, off: npt.NDArray[np.bool_]) -> Cause:
    worst = int(np.argmax(np.where(off, np.abs(tensor.error_lsb()), -1)))
    kept, network = tensor.kept[worst] * _at(tensor.to_network, worst), tensor.network[worst]
    lost = item in ("bias", "v_init") and not tensor.kept[off].any()
    kind = f"{'dropped' if lost else 'wrong'} {words}"
    many = int(off.sum())
    text = f"{network:.4g} in the network, {kept:.4g} in the program"
    text += f"; {many} of {off.size} neurons" if off.size > 1 else ""
    index = (worst,) if many == 1 or many < off.size else None
    return Cause(kind, name, {(item, name): off}, text, index, float(tensor.error_lsb()[worst]), many)


def _rule_causes(side: Pair, name: str) -> Iterator[Cause]:
    ideal, made = side.network.population(name), side.made[name]
    if made is None:
        return
    items = [item for item in RULE_CHOICES if getattr(ideal.rule, item) != getattr(made.rule, item)]
    if not ideal.spiking:
        items = [item for item in items if item in ("update_order", "current_decay")]
    if not items:
        return
    # "pending" is defined for subtraction and single spikes only, so its items are switched together.
    together = "pending" in (ideal.reset_timing, made.reset_timing)
    for group in [items] if together else [[item] for item in items]:
        main = "reset_timing" if together and "reset_timing" in group else group[0]
        text = ", ".join(
            f"{item} {getattr(ideal.rule, item)} in the network, {getattr(made.rule, item)} in the program"
            for item in group
        )
        kind = _RULES.get(main, main)
        yield Cause(kind, name, {(f"rule.{item}", name): True for item in group}, text, None, 0.0, ideal.size)


def _readout_causes(side: Pair) -> list[Cause]:
    port, made = side.network.outputs[0], side.program.outputs[0]
    read = port.readout
    ideal = _read_text(port.population, read.signal, read.readout, read.task, read.skip)
    real = _read_text(made.population, made.signal, made.readout, made.task, made.skip)
    if ideal == real:
        return []
    text = f"{ideal} in the network, {real} in the program"
    return [Cause("readout", made.name, {("readout", ""): True}, text)]


def _read_text(population: str, signal: str, readout: str, task: str, skip: int) -> str:
    return f"{population} {signal} {readout} {task}" + (f" without the first {skip} steps" if skip else "")


def _overflow_causes(overflows: Mapping[str, Overflow]) -> list[Cause]:
    kinds = {"u_wraps": ("u wraps", "u_wrap"), "v_high": ("v saturates high", "v_high")}
    kinds["v_low"] = ("v saturates low", "v_low")
    return [
        Cause(kind, name, {(item, name): True}, f"{count} times", None, 0.0, count)
        for name, overflow in overflows.items()
        for key, (kind, item) in kinds.items()
        if (count := getattr(overflow, key))
    ]
