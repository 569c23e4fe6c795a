"""Mixed precision: the cheapest weight tables per projection that keep the required accuracy.

The cost of a program is its synapse memory, then its cores. There are too many combinations to try all, so:

1. The search starts from the result of the default settings.
2. Each projection alone is set to `PROBE_BITS` and compared with the float network on calibration data: the
   change of spikes and outputs is its sensitivity. One bit less doubles the step, and so about the change.
3. From the start, the bit that costs the least change per memory it frees is removed repeatedly. This gives
   one path from the most precise program to the smallest.
4. Bisection finds how far down the path the limit holds, measured on check data; then single projections are
   lowered further where the limit still holds.

The check data select the program, so the measured drop is slightly optimistic for new data.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from snn_compile.compiler.calibration.calibrate import Evaluator, choose_precision
from snn_compile.compiler.calibration.fidelity import unplaced
from snn_compile.compiler.lowering.retime import RetimedNetwork
from snn_compile.compiler.network import Float, Weight, weight_values, with_values
from snn_compile.compiler.quantization.quantize import Plan
from snn_compile.compiler.quantization.relays import exact_formats
from snn_compile.compiler.quantization.scales import observe, rows
from snn_compile.compiler.quantization.weight_tables import SplitWeights, TableFormat, split_weights
from snn_compile.targets.chips.chip import Chip
from snn_compile.targets.errors import CompileError, PrecisionLost
from snn_compile.targets.program.program import Program

PROBE_BITS = 4
REFINEMENTS = 6
"""Most projections that are lowered alone after the path."""

FINEST = TableFormat(8, "residual")
UNIFORM = TableFormat(8, "one")
LADDER_TOP = 1 << 14
"""Largest weight, in units of synaptic input, when formats of a projection are compared."""

GROUP_FINER = 0.8
"""Ratio to one table's error below which tables by group of targets are worth their cost."""

TINY = 0.01
"""Projections with a smaller fraction of the synapse memory keep their precision."""


@dataclass(frozen=True)
class Accuracy:
    """A program on check data: accuracy (0 to 1), and drop and the upper end of its interval in points."""

    deployed: float
    drop: float
    upper: float
    samples: int


Measure = Callable[[Program], Accuracy]


@dataclass(frozen=True, eq=False)
class Point:
    """A measured program; `holds`: its drop is allowed, `fits`: its cores are."""

    plan: Plan
    synapse_bits: int
    cores: int | None
    changed: float
    accuracy: Accuracy | None
    holds: bool
    fits: bool

    @property
    def price(self) -> tuple[int, int]:
        """Synapse memory, then cores."""
        return self.synapse_bits, self.cores or 1 << 30

    @property
    def loss(self) -> float:
        """What is traded for memory: the drop's upper end, or changed spikes without check data."""
        return self.accuracy.upper if self.accuracy else self.changed


@dataclass(frozen=True, eq=False)
class Search:
    """All measured programs; `chosen` meets the limits if `met`, else comes nearest to them."""

    points: tuple[Point, ...]
    chosen: Point
    met: bool

    @property
    def front(self) -> tuple[Point, ...]:
        """The Pareto front of memory and loss, the smallest program first."""
        kept: list[Point] = []
        for point in sorted(self.points, key=lambda p: (p.price, p.loss)):
            if not kept or point.loss < kept[-1].loss:
                kept.append(point)
        return tuple(kept)


@dataclass(frozen=True)
class _Rung:
    """One format of a projection, its memory and its relative step."""

    format: TableFormat
    bits: int
    step: float


def search(
    retimed: RetimedNetwork,
    chip: Chip,
    input_bits: int,
    rounding: str,
    data: Mapping[str, Float],
    measure: Measure | None,
    max_drop: float | None = None,
    max_cores: int | None = None,
    report: Callable[[str], None] = lambda text: None,
) -> Search:
    """Return the cheapest program whose drop stays within `max_drop` points, on `max_cores` at most.

    `data`: calibration inputs (batch, steps, size) by port. `measure` returns the accuracy of a program on
    check data and is required for `max_drop`, which limits the upper end of the drop's interval. Without
    `max_drop` the result is the most precise program on `max_cores`. `report` is called with a line per
    measured program. Raises CompileError without any limit, and for a network of fixed integers.
    """
    if max_drop is None and max_cores is None:
        raise CompileError("a search needs a limit: a drop of accuracy, or a number of cores")
    if max_drop is not None and measure is None:
        raise CompileError("a limit on the drop of accuracy needs check data to measure it on")
    if any(p.fixed_scale is not None for p in retimed.network.populations):
        raise CompileError("the model's weights are the chip's integers already; there are no bits to search")
    observed = observe(retimed.network, data, chip)
    chosen = choose_precision(
        retimed, chip, TableFormat(8, "auto"), input_bits, rounding, data, observed=observed
    )
    evaluator = Evaluator(retimed, chip, input_bits, data, observed)
    found = _Searcher(evaluator, chosen.plan, measure, max_drop, max_cores, report)
    levels = found.levels(chosen.plan)
    if not found.point(levels).holds:
        found.point(levels := found.levels(replace(chosen.plan, format=FINEST, formats={})))
    found.point({name: found.rung_of(name, UNIFORM) for name in levels})
    _descend(found, levels)
    if kept := [p for p in found.points if p.holds and p.fits]:
        # Without a limit on the drop precision is wanted, and memory is what it costs.
        best = min(kept, key=lambda p: (p.price, p.loss)) if max_drop is not None else min(kept, key=_loss)
        return Search(tuple(found.points), best, True)
    candidates = [p for p in found.points if p.fits] or [min(found.points, key=lambda p: p.cores or 1 << 30)]
    return Search(tuple(found.points), min(candidates, key=_loss), False)


def _loss(point: Point) -> tuple[float, tuple[int, int]]:
    return point.loss, point.price


class _Searcher:
    """Measures programs, given as each projection's place on its ladder of formats from fine to coarse."""

    def __init__(
        self,
        evaluator: Evaluator,
        start: Plan,
        measure: Measure | None,
        max_drop: float | None,
        max_cores: int | None,
        report: Callable[[str], None],
    ) -> None:
        self.evaluator, self.start, self.measure, self.report = evaluator, start, measure, report
        self.max_drop, self.max_cores = max_drop, max_cores
        self.points: list[Point] = []
        network, delays = evaluator.retimed.network, evaluator.retimed.delay_steps
        exact = exact_formats(network)
        self.ladders = {
            e.name: _ladder(e.weight, start.of(e.name), evaluator.chip, bool(delays[e.name]))
            for e in network.originals
            if e.name not in exact
        }

    def levels(self, plan: Plan) -> dict[str, int]:
        """Return the place of a plan's formats on each ladder."""
        return {name: self.rung_of(name, plan.of(name)) for name in self.ladders}

    def rung_of(self, name: str, wanted: TableFormat) -> int:
        """Return the place of a format, or of the first coarser one, on a projection's ladder."""
        formats = [rung.format for rung in self.ladders[name]]
        if wanted in formats:
            return formats.index(wanted)
        return next(i for i, f in enumerate(formats) if f.tables != "residual" and f.bits <= wanted.bits)

    def plan(self, levels: Mapping[str, int]) -> Plan:
        """Return the plan of a place on each ladder."""
        formats = {name: self.ladders[name][level].format for name, level in levels.items()}
        return replace(self.start, formats=formats)

    def point(self, levels: Mapping[str, int]) -> Point:
        """Measure the program of a place on each ladder, once."""
        plan = self.plan(levels)
        for known in self.points:
            if known.plan.formats == plan.formats:
                return known
        chip, retimed = self.evaluator.chip, self.evaluator.retimed
        tried = self.evaluator.attempt("search", plan)
        accuracy = self.measure(unplaced(tried.quantized, chip, retimed)) if self.measure else None
        price = tried.fidelity
        holds = self.max_drop is None or (accuracy is not None and accuracy.upper <= self.max_drop + 1e-9)
        limit = min(chip.all_cores, self.max_cores or chip.all_cores)
        fits = price.cores is not None and price.cores <= limit
        found = Point(tried.plan, price.synapse_bits, price.cores, price.changed, accuracy, holds, fits)
        self.points.append(found)
        drop = "" if accuracy is None else f", drop {accuracy.drop:.2f}, at most {accuracy.upper:.2f} points"
        self.report(f"{found.plan.title()}: {found.synapse_bits:,} synapse bits{drop}")
        return found

    def degradation(self, levels: Mapping[str, int]) -> float:
        """Return the change of spikes and outputs on calibration data, 2 if no scale fits the formats.

        Rounding is nearest, which is the quickest.
        """
        try:
            plan = replace(self.plan(levels), rounding="nearest")
            found = self.evaluator.attempt("probe", plan).fidelity
        except PrecisionLost:
            return 2.0
        return found.changed + found.error


def _ladder(weight: Weight, start: TableFormat, chip: Chip, delayed: bool) -> list[_Rung]:
    """Return formats of a projection from the finest to the coarsest, each smaller than the one before.

    Tables by group of targets replace one table where they are clearly finer.
    """
    exact = weight_values(weight)
    largest = float(np.abs(exact).max(initial=0.0))
    exact = exact * (LADDER_TOP / largest) if largest else exact

    def rung(form: TableFormat) -> _Rung:
        split = split_weights(exact, form, chip.formats.weight_exponent, rows=rows(weight))
        step = float(np.sqrt(np.mean((split.values() - exact) ** 2))) if exact.size else 0.0
        return _Rung(form, _memory(weight, split, chip, delayed), step)

    found = [rung(form) for form in dict.fromkeys((FINEST, start, TableFormat(8, "sign")))]
    for bits in range(8, chip.formats.weight_bits[0] - 1, -1):
        one, group = rung(TableFormat(bits, "one")), rung(TableFormat(bits, "group"))
        found.append(group if group.step < GROUP_FINER * one.step else one)
        if found[-1] is group and bits == 8:
            found.append(one)
    kept = [found[0]]
    for item in found[1:]:
        if item.bits < kept[-1].bits or item.format in (start, UNIFORM):
            kept.append(item)
    return kept


def _memory(weight: Weight, split: SplitWeights, chip: Chip, delayed: bool) -> int:
    """Return the bits of the synapses of tables, without what rows add to them."""
    total = 0
    for part in split.parts:
        there = with_values(weight, part.weights) != 0
        word = part.bits + (chip.memory.delay_bits if delayed else 0)
        named = int(there.sum()) * (word + chip.memory.index_bits)
        total += min(named, there.shape[0] * there.shape[1] * word) if chip.memory.dense_rows else named
    return total


def _path(found: _Searcher, levels: Mapping[str, int]) -> list[dict[str, int]]:
    """Return places on the ladders from `levels` down, removing the bits of least change per memory first."""
    memory = {name: found.ladders[name][level].bits for name, level in levels.items()}
    lowered = [name for name in levels if memory[name] >= TINY * sum(memory.values())]
    rest = found.degradation(levels)
    sensitivity = {}
    for name in lowered:
        ladder = found.ladders[name]
        at = next((i for i, rung in enumerate(ladder) if rung.format.bits == PROBE_BITS), len(ladder) - 1)
        more = max(found.degradation({**levels, name: at}) - rest, 1e-6)
        sensitivity[name] = more / max(ladder[at].step, 1e-300)
    path, current = [dict(levels)], dict(levels)
    while True:
        steps = []
        for name in lowered:
            ladder, level = found.ladders[name], current[name]
            lower = next((i for i in range(level + 1, len(ladder)) if ladder[i].bits < ladder[level].bits), 0)
            if lower:
                loss = sensitivity[name] * max(ladder[lower].step - ladder[level].step, 0.0)
                steps.append((loss / (ladder[level].bits - ladder[lower].bits), name, lower))
        if not steps:
            return path
        _, name, lower = min(steps)
        current[name] = lower
        path.append(dict(current))


def _descend(found: _Searcher, levels: dict[str, int]) -> None:
    """Search the path for the last place that holds the drop, or the first that fits the cores."""
    path = _path(found, levels)
    if found.max_drop is None:
        low, high = 0, len(path) - 1
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if found.point(path[middle]).fits else (middle + 1, high)
        found.point(path[low])
        return
    if not found.point(levels).holds:
        return
    low, high = 0, len(path) - 1
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if found.point(path[middle]).holds else (low, middle - 1)
    best = path[low]
    frees = {
        name: found.ladders[name][level].bits - found.ladders[name][level + 1].bits
        for name, level in best.items()
        if level + 1 < len(found.ladders[name])
    }
    for name in sorted(frees, key=lambda n: -frees[n])[:REFINEMENTS]:
        tried = {**best, name: best[name] + 1}
        if found.point(tried).holds:
            best = tried
