"""Choose tables, membrane ranges and rounding by trials on calibration data.

Each trial is an integer network that runs on the data and is compared with the float one (`fidelity.py`).

1. Start: one table per projection, or one per sign where that takes no more cores (of liquid layers, else one
   per group of targets where that takes no more).
2. Calibrated rounding is tried, and kept if more spikes agree with the float network.
3. If spikes, output counts or predictions still differ by more than `SPIKES_TOLERATED`, `ERROR_TOLERATED` or
   `TOLERATED`: may membranes saturate on the inhibited side? A deeply inhibited neuron does not spike,
   whatever the exact depth, and a membrane saturates where a current would wrap. The lowest floor that
   changes almost no spike in the float network is tried, with two tables per projection, because only then a
   larger scale shows.
4. If two tables then change clearly fewer spikes, they are kept for the projections that need them, and
   calibrated rounding is tried again.

Predictions alone would stop too early: a few samples hold few predictions, which may all agree by chance, and
many spikes, whose share varies little from one set of samples to the next.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import ceil

import numpy as np

from snn_compile.compiler.calibration.fidelity import Fidelity, clip_changes, measure, price
from snn_compile.compiler.lowering.retime import RetimedNetwork
from snn_compile.compiler.network import Float
from snn_compile.compiler.quantization.inputs import check_range
from snn_compile.compiler.quantization.quantize import Plan, QuantizedNetwork, quantize
from snn_compile.compiler.quantization.rounding import affordable
from snn_compile.compiler.quantization.scales import Observation, largest_scales, observe
from snn_compile.compiler.quantization.weight_tables import TableFormat
from snn_compile.targets.chips.chip import Chip
from snn_compile.targets.devices.record import Overflow
from snn_compile.targets.errors import PrecisionLost

TABLES = ("auto", "one", "sign", "group", "residual")
RETRIES = 6
"""How often the headroom of a population is doubled before it is an error."""

TOLERATED = 0.01
"""Fraction of calibration predictions that may differ before finer tables and scales are tried."""

SPIKES_TOLERATED = 0.03
"""The same for spikes; one that moves by a step counts twice. Rounding to 8 bits changes 1 to 2 % of the
spikes of a trained feed-forward network, and 5 to 50 % where errors are fed back or weights have outliers."""

ERROR_TOLERATED = 0.02
"""The same for the relative error of output counts, and of outputs that are numbers."""

HARMLESS = 0.01
"""Fraction of the float network's spikes that may change when membranes are clipped below."""

FINE = 1 << 13
"""Threshold units from which on a scale is large enough."""

FLOOR_STEP = 2**0.25
WORTHWHILE = 2**0.5
"""How many times larger a scale has to become before membranes may saturate for it."""

SPARED = 1.05
"""A second table that reduces the network's errors by less than this factor is dropped."""

CLEARLY_FEWER = 2 / 3
"""Finer tables follow the float network better if they change fewer spikes by this factor."""

PROJECTIONS_TRIED = 12

TITLES = {
    "one": "one table",
    "sign": "tables by sign",
    "group": "tables by group of targets",
    "residual": "coarse and residual tables",
}


@dataclass(frozen=True)
class Trial:
    """One integer network that was tried on the calibration data, and whether it was kept."""

    name: str
    fidelity: Fidelity
    kept: bool = False


@dataclass(frozen=True)
class Saturation:
    """A population whose membrane may saturate below, with the gain and the effect of that.

    `gain`: ratio of the scale to the largest one that keeps all of v in range. `spikes_changed`: fraction of
    the float network's spikes that change when all such membranes are clipped there, and nothing else.
    `times` of `of` neuron steps of the calibration data did saturate.
    """

    population: str
    gain: float
    spikes_changed: float
    times: int
    of: int


@dataclass(frozen=True, eq=False)
class Precision:
    """The chosen integer network and the trials that led to it; trials are () without data.

    `too_large`: populations with too many weights for calibrated rounding, which keep their nearest values.
    `rates`: messages per step of each neuron and input of the float network on the data, by name.
    """

    quantized: QuantizedNetwork
    plan: Plan
    trials: tuple[Trial, ...] = ()
    saturations: tuple[Saturation, ...] = ()
    too_large: tuple[str, ...] = ()
    rates: Mapping[str, Float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Candidate:
    """A quantized network that was tried: its plan, and how closely it follows the float network."""

    plan: Plan
    quantized: QuantizedNetwork
    fidelity: Fidelity


@dataclass(eq=False)
class Evaluator:
    """Quantizes and measures plans, all on the same data."""

    retimed: RetimedNetwork
    chip: Chip
    input_bits: int
    data: Mapping[str, Float]
    observed: Observation
    trials: list[Trial] = field(default_factory=list)

    def attempt(self, title: str, plan: Plan) -> Candidate:
        """Quantize so that no state overflows on the data, except those that may saturate (`floors`).

        Scales leave headroom over the states of the float network; where integers exceed that, as in networks
        that amplify any difference, the population's headroom is doubled.
        """
        overflows: dict[str, Overflow] = {}
        for _ in range(RETRIES):
            quantized = quantize(self.retimed, self.chip, plan, self.input_bits, self.data, self.observed)
            fidelity = measure(quantized, self.chip, self.retimed, self.data, self.observed)
            overflows = self._refused(plan, fidelity.overflows)
            if not overflows:
                self.trials.append(Trial(title, fidelity))
                return Candidate(plan, quantized, fidelity)
            plan = replace(
                plan, headroom={**plan.headroom, **{n: 2 * plan.headroom.get(n, 1.0) for n in overflows}}
            )
        name, overflow = next(iter(overflows.items()))
        raise PrecisionLost(
            f"population {name!r} leaves its {self.chip.formats.state_bits}-bit range on the calibration "
            f"data at any scale: {overflow}; its integer dynamics differ too much from the float ones",
            tensor=name,
        )

    def fits(self, found: Candidate) -> bool:
        """Whether the chip has the cores that a candidate needs."""
        return found.fidelity.cores is not None and found.fidelity.cores <= self.chip.all_cores

    def _refused(self, plan: Plan, found: Mapping[str, Overflow]) -> dict[str, Overflow]:
        scaled = {p.name for p in self.retimed.network.populations if p.fixed_scale is None}
        kept = {
            name: replace(overflow, v_low=0) if name in plan.floors else overflow
            for name, overflow in found.items()
        }
        return {name: overflow for name, overflow in kept.items() if overflow and name in scaled}


def choose_precision(
    retimed: RetimedNetwork,
    chip: Chip,
    format: TableFormat,
    input_bits: int,
    rounding: str,
    data: Mapping[str, Float] | None,
    plan: Plan | None = None,
    observed: Observation | None = None,
) -> Precision:
    """Return the integer network for `chip`; `format.tables` may be "auto", `rounding` "auto".

    `data`: calibration inputs (batch, steps, size) by port; without it nothing is tried. A `plan` is used
    as it is. Raises the errors of `quantize`.
    """
    if data is not None:
        check_range(data)
    observed = observed or observe(retimed.network, data, chip)
    given = plan
    plan = given or _basis(retimed, chip, Plan(format), input_bits, data, observed)
    if data is None or retimed.network.fixed:
        quantized = quantize(retimed, chip, plan, input_bits, data, observed)
        return Precision(quantized, plan, rates=observed.rates())
    evaluator = Evaluator(retimed, chip, input_bits, data, observed)
    best = evaluator.attempt(given.title() if given else TITLES[plan.format.tables], plan)
    if not given:
        best = _calibrate_rounding(evaluator, best, rounding)
        if _needs_refinement(best.fidelity):
            best = _refine(evaluator, best, format.tables == "auto", rounding)
    trials = tuple(replace(t, kept=t.fidelity is best.fidelity) for t in evaluator.trials)
    large = _too_large(retimed) if rounding != "nearest" else ()
    return Precision(
        best.quantized, best.plan, trials, _saturations(evaluator, best), large, observed.rates()
    )


def _basis(
    retimed: RetimedNetwork,
    chip: Chip,
    plan: Plan,
    input_bits: int,
    data: Mapping[str, Float] | None,
    observed: Observation,
) -> Plan:
    """Resolve tables "auto": the finest of some splits that take no more cores than one table.

    Liquid layers, whose neurons sum rounding errors in three places, also try tables by target.
    """
    if plan.format.tables != "auto":
        return plan
    kinds = ("one", *(("group",) if any(p.copies for p in retimed.network.populations) else ()), "sign")
    one, *others = (replace(plan, format=replace(plan.format, tables=kind)) for kind in kinds)
    if retimed.network.fixed:
        return one

    def cores(tried: Plan) -> int | None:
        return price(quantize(retimed, chip, tried, input_bits, data, observed), chip)[1]

    most = cores(one)
    fits = [p for p in others if most is not None and (found := cores(p)) is not None and found <= most]
    return fits[-1] if fits else one


def _needs_refinement(found: Fidelity) -> bool:
    """Whether spikes, outputs or predictions differ so much that finer tables and scales are tried."""
    if found.changed > SPIKES_TOLERATED:
        return True
    if (found.disagreements is None or found.same_counts is not None) and found.error > ERROR_TOLERATED:
        return True
    return (found.disagreements or 0) > max(1, ceil(TOLERATED * found.predictions))


def _worthwhile(fine: Fidelity, coarse: Fidelity) -> bool:
    """Whether a finer network improves enough on a coarser one to be worth its cost."""
    if fine.changed < CLEARLY_FEWER * coarse.changed:
        return True
    if fine.disagreements is None or coarse.disagreements is None:
        return fine.error < coarse.error / 2
    return coarse.disagreements - fine.disagreements >= max(2, ceil(TOLERATED * fine.predictions))


def _refine(evaluator: Evaluator, best: Candidate, auto: bool, rounding: str) -> Candidate:
    """Try larger scales and, if `auto`, two tables per projection; return the better network.

    Two tables are tried only at the chip's full width: a narrower width asks for less memory, and one table
    of twice the bits is better than two.
    """
    floors = _floors(evaluator)
    auto = auto and best.plan.format.bits == evaluator.chip.formats.weight_bits[1]
    if not auto and not floors:
        return best
    kind = "residual" if auto else best.plan.format.tables
    form = replace(best.plan.format, tables=kind)
    # Nearest rounding is the quickest to try.
    plan = replace(best.plan, format=form, floors=floors, rounding="nearest")
    fine = evaluator.attempt(TITLES[kind] + (", v saturating below" if floors else ""), plan)
    if not _worthwhile(fine.fidelity, best.fidelity):
        return best
    if auto:
        fine = _drop_second_tables(evaluator, fine, best.plan.format)
    if not evaluator.fits(fine) and evaluator.fits(best):
        return best
    return _calibrate_rounding(evaluator, fine, rounding)


def _drop_second_tables(evaluator: Evaluator, fine: Candidate, cheap: TableFormat) -> Candidate:
    """Drop the second table of each projection that does not need it, the largest first."""
    size = {e.name: sum(t.synapses * t.bits for t in e.tables) for e in fine.quantized.projections}
    own = {e.name for e in evaluator.retimed.network.originals} - fine.plan.formats.keys()
    two = [e.name for e in fine.quantized.projections if len(e.tables) > 1 and e.name in own]
    best = fine
    for name in sorted(two, key=lambda n: -size[n])[:PROJECTIONS_TRIED]:
        plan = replace(best.plan, formats={**best.plan.formats, name: cheap})
        tried = evaluator.attempt(f"  {TITLES[cheap.tables]} for {name}", plan)
        if _spares(tried.fidelity, fine.fidelity):
            best = tried
    return best


def _spares(found: Fidelity, fine: Fidelity) -> bool:
    """Whether a network with fewer tables follows the float one about as closely as the finest."""
    counts = (found.same_counts or 0) * SPARED >= (fine.same_counts or 0)
    return counts and found.changed <= SPARED * fine.changed and found.error <= SPARED * fine.error


def _calibrate_rounding(evaluator: Evaluator, best: Candidate, rounding: str) -> Candidate:
    if rounding == "nearest":
        return best
    tried = evaluator.attempt("  calibrated rounding", replace(best.plan, rounding="reconstruct"))
    if _same_weights(tried.quantized, best.quantized):
        evaluator.trials.pop()
        return best
    return best if rounding == "auto" and tried.fidelity.worse(best.fidelity) else tried


def _too_large(retimed: RetimedNetwork) -> tuple[str, ...]:
    network = retimed.network
    incoming = {
        p.name: [e.weight for e in network.projections if e.target == p.name] for p in network.populations
    }
    return tuple(name for name, weights in incoming.items() if weights and not affordable(weights))


def _same_weights(a: QuantizedNetwork, b: QuantizedNetwork) -> bool:
    return all(
        x.shape == y.shape and not (x.weights != y.weights).sum()
        for first, second in zip(a.projections, b.projections, strict=True)
        for x, y in zip(first.tables, second.tables, strict=True)
    )


def _full_and_open(evaluator: Evaluator) -> dict[str, tuple[float, float]]:
    """Return the largest scale with all of v in range, and with its upper side alone, for populations
    whose inhibited side alone keeps the scale small.
    """
    found, network = {}, evaluator.retimed.network
    read = {p.population for p in network.outputs if p.readout.signal == "membrane"}
    for p in network.populations:
        if p.model != "lif" or p.name in read or p.fixed_scale is not None:
            continue
        bound = evaluator.observed.bounds[p.name]
        full = min(largest_scales(p, bound, evaluator.chip), default=0.0)
        opened = min(largest_scales(p, replace(bound, v=bound.v_high), evaluator.chip), default=0.0)
        if opened > WORTHWHILE * full and full * float(p.parameters["threshold"].max()) < FINE:
            found[p.name] = (full, opened)
    return found


def _floors(evaluator: Evaluator) -> dict[str, float]:
    """Return the depth to which inhibited membranes have to fit for the float network to keep its spikes."""
    scales, formats = _full_and_open(evaluator), evaluator.chip.formats
    unit = formats.threshold_unit
    floors = {name: formats.state_max / (unit * opened) for name, (_, opened) in scales.items()}
    while floors:
        if clip_changes(evaluator.retimed, evaluator.data, evaluator.observed, floors) <= HARMLESS:
            return floors
        floors = {
            name: floor * FLOOR_STEP
            for name, floor in floors.items()
            if floor * FLOOR_STEP < formats.state_max / (unit * scales[name][0])
        }
    return {}


def _saturations(evaluator: Evaluator, best: Candidate) -> tuple[Saturation, ...]:
    scales, formats = _full_and_open(evaluator), evaluator.chip.formats
    saturating = {p.name: p for p in best.quantized.populations if p.name in best.plan.floors}
    if not saturating:
        return ()
    floors = {name: formats.state_max / p.scale for name, p in saturating.items()}
    changed = clip_changes(evaluator.retimed, evaluator.data, evaluator.observed, floors)
    steps = int(np.prod(next(iter(evaluator.data.values())).shape[:2]))
    found = [
        Saturation(
            name,
            p.scale / formats.threshold_unit / scales[name][0],
            changed,
            best.fidelity.overflows[name].v_low,
            steps * p.size,
        )
        for name, p in saturating.items()
    ]
    # Where weights keep the scale below the states' limit, the floor gained nothing.
    return tuple(item for item in found if item.gain > 1 or item.times)
