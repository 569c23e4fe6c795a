"""How sensitive a network's spikes are to dt on given data, and the largest dt that keeps them.

The graph's own equations run at a ladder of steps around the contract's dt, on the same inputs, against a
reference many times finer (`refinement.py`). A mismatch is a neuron of a sample whose spike count differs
from the reference's. Its share is modelled as

    P(dt) = 1 - exp(-c dt^p)

the chance that one of many rare events happens, c and p by maximum likelihood (a binomial model with a
complementary log-log link, which takes counts of 0 as they are) on the three steps of the ladder whose
mismatch is nearest the limit: p falls where sensitive neurons have all changed already. The reference has an
error of its own, taken off as if of first order: a step h counts as dt = h - h_ref. Why mismatches are what a
step costs: near-tangential crossings, see Dou, Chen, Lin, Xiao (`euler_maruyama.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from math import ceil, exp, expm1, floor, isnan, log, nan
from typing import Any

import numpy as np
import numpy.typing as npt

from snn_compile.compiler.conventions import resolve
from snn_compile.compiler.network import Float, Network
from snn_compile.compiler.reference import as_inputs, run_float
from snn_compile.compiler.refinement import has_spikes, inputs_at, network_at, tied_to_steps
from snn_compile.compiler.slopes import Slope, bootstrap_slope
from snn_compile.targets.errors import CompileError, SnnCompileError

REFERENCES = (64, 256)
"""The reference's step is dt over the first, or over the second where the first leaves the limit too fine."""

MARGIN = 8
"""How much finer the reference is than the finest step compared, and how far a prediction reaches below."""

COARSEST = 4
"""The coarsest step compared, in units of dt; steps without room in graph or data are left out."""

NEAREST = 3
"""Steps of the ladder that the model is fitted to."""

SAMPLES, LOOPS, VALUES = 32, 120_000, 3_000_000
"""At most so many samples; turns of the reference's loop over steps and populations; numbers held at once."""

TANGENTIAL = 0.1
"""A crossing is near-tangential below this share of the median crossing speed."""


@dataclass(frozen=True)
class Level:
    """One step length against the reference; spike times in the graph's unit of time."""

    dt: float
    mismatch: float
    spike_time_rms: float
    spikes: int
    matched: int


@dataclass(frozen=True)
class Crossings:
    """How the reference's membranes meet their thresholds; speeds in thresholds per dt.

    `smooth`: spikes whose crossing the membrane's rise announces; the others come with an input's jump.
    `tangential`: share of the smooth ones that cross at less than `TANGENTIAL` of the median speed.
    `near_misses`: maxima below the threshold by less than that speed climbs in one dt, per spike.
    """

    spikes: int
    smooth: int
    median_speed: float
    tangential: float
    near_misses: float


@dataclass(frozen=True)
class Advice:
    """The largest step whose predicted mismatch is at most `max_mismatch`, up to the coarsest compared.

    `dt` is a whole fraction or multiple of the contract's, and None if it would have to be finer than the
    prediction reaches. `measured` is the mismatch of a run at `dt`; `extrapolated` says that no such run
    could be compared.
    """

    max_mismatch: float
    dt: float | None
    predicted: float | None
    measured: float | None
    extrapolated: bool


@dataclass(frozen=True)
class Sensitivity:
    """What a step of dt does to the spikes; with `reasons`, why the question has no meaning, and no more."""

    dt: float
    unit: str
    reasons: tuple[str, ...] = ()
    samples: int = 0
    steps: int = 0
    neurons: int = 0
    reference_dt: float = nan
    levels: tuple[Level, ...] = ()
    orders: Mapping[str, Slope] = field(default_factory=dict)
    crossings: Crossings | None = None
    advice: Advice | None = None
    notes: tuple[str, ...] = ()

    def json(self) -> dict[str, Any]:
        """Return everything as plain values, None for what is undefined."""
        found = asdict(self)
        found["meaning"] = not self.reasons
        found["orders"] = {name: slope.json() for name, slope in self.orders.items()}
        plain: dict[str, Any] = _plain(found)
        return plain


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and isnan(value) else value


def sensitivity(
    graph: Any,
    inputs: npt.ArrayLike | Mapping[str, npt.ArrayLike],
    conventions: Mapping[str, Any] | None = None,
    max_mismatch: float = 0.01,
    samples: int = SAMPLES,
    loops: int = LOOPS,
) -> Sensitivity:
    """Return how a NIR graph's spikes depend on its dt on inputs (batch, steps, *shape).

    At most `samples` samples are run, and as many of their steps as `loops` turns of a reference take.
    Raises as `lower` does, WrongInput on inputs that do not fit, and SnnCompileError on a limit that is no
    share.
    """
    if not 0 < max_mismatch < 1:
        raise SnnCompileError(
            f"a mismatch of {max_mismatch:g}; it is a share of the neurons, over 0 and below 1"
        )
    if isinstance(graph, Network):
        return Sensitivity(
            graph.contract.dt, graph.contract.time_unit, tuple(tied_to_steps(graph, graph.contract))
        )
    contract, _ = resolve(graph, conventions)
    reasons = tied_to_steps(graph, contract)
    if not reasons and not has_spikes(graph):
        reasons = ["none of its nodes spikes"]
    if reasons:
        return Sensitivity(contract.dt, contract.time_unit, tuple(reasons))
    for reference in REFERENCES:
        found = _Ladder(graph, contract, inputs, samples, loops, reference).measured(max_mismatch)
        if found.levels[0].mismatch <= max_mismatch:
            break
    return found


@dataclass(frozen=True, eq=False)
class _Spikes:
    """Spikes of all spiking neurons of all samples, sorted by `unit` (sample, neuron) and time."""

    unit: npt.NDArray[np.int64]
    time: Float


class _Ladder:
    """The runs of one graph on one set of inputs."""

    def __init__(self, graph: Any, contract: Any, inputs: Any, samples: int, loops: int, fine: int) -> None:
        self.graph, self.contract, self.fine = graph, contract, fine
        self.notes: list[str] = []
        network = self._network(Fraction(1))
        data = as_inputs(network, inputs)
        batch, steps = next(iter(data.values())).shape[:2]
        self.samples = min(batch, samples)
        self.steps = min(steps, max(8, loops // (fine * len(network.populations))))
        if (self.samples, self.steps) != (batch, steps):
            self.notes.append(f"{self.samples} of {batch} samples, {self.steps} of {steps} steps were run")
        self.data = {name: d[: self.samples, : self.steps] for name, d in data.items()}
        self.spiking = [p for p in network.populations if p.spiking]
        self.neurons = sum(p.size for p in self.spiking)
        self.reference, self.crossings = self._run(Fraction(1, fine), watched=True)

    def _network(self, ratio: Fraction) -> Network:
        return network_at(self.graph, self.contract, ratio)

    def _run(self, ratio: Fraction, watched: bool = False) -> tuple[_Spikes, Crossings | None]:
        """Run the inputs with steps of dt * ratio, a few samples at a time."""
        network, dt = self._network(ratio), self.contract.dt * float(ratio)
        steps = self.steps / float(ratio)
        width = sum(p.size for p in network.populations) * (2 if watched else 1)
        width += sum(d.shape[2] for d in self.data.values())
        many = max(1, int(VALUES / (width * steps)))
        units, times, watch = [], [], _Watch(float(1 / ratio))
        names = [p.name for p in self.spiking]
        for start in range(0, self.samples, many):
            part = inputs_at({n: d[start : start + many] for n, d in self.data.items()}, ratio)
            run = run_float(network, part, names, [f"{n}.v" for n in names] if watched else ())
            first = 0
            for p in self.spiking:
                sent = run.messages[p.name].astype(np.int64)
                sample, step, neuron = np.nonzero(sent)
                count = sent[sample, step, neuron]
                units.append(np.repeat((sample + start) * self.neurons + first + neuron, count))
                times.append(np.repeat((step + 1) * dt, count))
                first += p.size
                if watched:
                    there = network.population(p.name).parameters
                    watch.add(run.states[f"{p.name}.v"] - there["offset"], sent > 0, there["threshold"])
        unit, time = np.concatenate(units), np.concatenate(times)
        order = np.lexsort((time, unit))
        return _Spikes(unit[order], time[order]), watch.crossings() if watched else None

    def _compared(self, ratio: Fraction) -> tuple[Float, Float, Float]:
        """Return per sample the mismatched neurons, squared spike-time errors and matched spikes."""
        found, _ = self._run(ratio)
        # Steps that do not fill a longer one are left out, and with them what the reference did there.
        end = floor(self.steps / ratio) * ratio * self.contract.dt
        kept = self.reference.time <= float(end) * (1 + 1e-12)
        exact = _Spikes(self.reference.unit[kept], self.reference.time[kept])
        size = self.samples * self.neurons
        a, b = np.bincount(found.unit, minlength=size), np.bincount(exact.unit, minlength=size)
        same = a == b
        late = (found.time[same[found.unit]] - exact.time[same[exact.unit]]) ** 2
        owner = exact.unit[same[exact.unit]] // self.neurons
        return (
            (~same).reshape(self.samples, -1).sum(1).astype(np.float64),
            np.bincount(owner, late, self.samples).astype(np.float64),
            np.bincount(owner, minlength=self.samples).astype(np.float64),
        )

    def _ratios(self) -> list[Fraction]:
        finest = Fraction(MARGIN, self.fine)
        return [finest * 2**i for i in range(32) if finest * 2**i <= COARSEST]

    def measured(self, max_mismatch: float) -> Sensitivity:
        """Return everything: the ladder, the orders and the advice."""
        ratios, wrong, late, matched = [], [], [], []
        for ratio in self._ratios():
            if self.steps < 2 * ratio:
                continue
            try:
                differ, squares, count = self._compared(ratio)
            except CompileError as error:
                self.notes.append(f"no run at {float(ratio):g} dt: {error}")
                continue
            ratios.append(ratio)
            wrong.append(differ)
            late.append(squares)
            matched.append(count)
        dt = self.contract.dt
        h = np.array([float(r) for r in ratios])
        lengths = (h - 1 / self.fine) * dt
        differ, squares, count = (np.stack(x, axis=1) for x in (wrong, late, matched))
        cases = np.full_like(differ, self.neurons)
        model = _nearest_fit(lengths, differ.sum(0), cases.sum(0), max_mismatch)
        spikes = len(self.reference.unit)
        levels = tuple(
            Level(
                float(r) * dt,
                float(differ[:, i].sum() / cases[:, i].sum()),
                float(np.sqrt(squares[:, i].sum() / count[:, i].sum())) if count[:, i].sum() else nan,
                spikes,
                int(count[:, i].sum()),
            )
            for i, r in enumerate(ratios)
        )
        return Sensitivity(
            dt,
            self.contract.time_unit,
            (),
            self.samples,
            self.steps,
            self.neurons,
            dt / self.fine,
            levels,
            {
                "mismatch": bootstrap_slope(lengths, differ, cases, _rate),
                "spike_time": bootstrap_slope(lengths, squares, count, np.sqrt),
            },
            self.crossings,
            self._advice(model, max_mismatch, ratios),
            tuple(self.notes),
        )

    def _advice(self, model: MismatchModel, limit: float, ratios: list[Fraction]) -> Advice:
        """Return the largest step dt / k or k dt that the model allows, and what a run there measures."""
        dt = self.contract.dt
        largest = model.step_for(limit) / dt
        if largest < float(ratios[0] / MARGIN):
            return Advice(limit, None, None, None, True)
        largest = min(largest, float(ratios[-1]))
        ratio = Fraction(floor(largest)) if largest >= 1 else Fraction(1, ceil(1 / largest))
        measured = None
        while ratio >= ratios[0] and measured is None:
            try:
                differ, _, _ = self._compared(ratio)
                measured = float(differ.sum() / (self.samples * self.neurons))
            except CompileError:  # steps that do not divide a delay; dt itself always runs
                ratio -= 1
        predicted = model.share(float(ratio) * dt)
        return Advice(limit, float(ratio) * dt, predicted, measured, measured is None)


def _nearest_fit(steps: Float, differ: Float, cases: Float, limit: float) -> MismatchModel:
    """Return the model of the steps whose mismatch is nearest the limit."""
    far = np.abs(np.log((differ + 0.5) / (cases + 1) / limit))
    first = min(max(int(far.argmin()) - NEAREST // 2, 0), max(len(steps) - NEAREST, 0))
    there = slice(first, first + NEAREST)
    return fit_mismatch(steps[there], differ[there], cases[there])


def _rate(share: Float) -> Float:
    """Return -log(1 - share): what grows as a power of the step while shares approach 1."""
    return -np.log1p(-np.minimum(share, 1 - 1e-12))


@dataclass(frozen=True)
class MismatchModel:
    """P(dt) = 1 - exp(-exp(level) dt^order)."""

    level: float
    order: float

    def share(self, dt: float) -> float:
        """Return the predicted mismatch at a step."""
        return -expm1(-exp(min(self.level + self.order * log(dt), 30.0)))

    def step_for(self, share: float) -> float:
        """Return the step at which the predicted mismatch is `share`."""
        return exp(min(max((log(-np.log1p(-share)) - self.level) / self.order, -600.0), 600.0))


def fit_mismatch(steps: Float, differ: Float, cases: Float) -> MismatchModel:
    """Return the model that makes `differ` of `cases` at each of `steps` most likely.

    Without any mismatch the level is that of one more case that might have differed, and the order 1. The
    order is held between 0.25 and 4.
    """
    from scipy.optimize import minimize

    if not differ.any():
        return MismatchModel(log(1 / cases.max()) - log(steps.max()), 1.0)
    x = np.log(steps)
    middle = float(x.mean())

    def cost(at: Float) -> float:
        rate = np.exp(np.minimum(at[0] + at[1] * (x - middle), 30.0))
        hit = np.log(np.maximum(-np.expm1(-rate), 1e-300))
        return float(-(differ * hit - (cases - differ) * rate).sum() / cases.sum())

    share = float((differ.sum() + 0.5) / (cases.sum() + 1))
    start = np.array([log(-np.log1p(-min(share, 0.999))), 1.0])
    done = minimize(cost, start, method="L-BFGS-B", bounds=[(-60, 20), (0.25, 4.0)], tol=1e-14)
    level, order = (float(value) for value in done.x)
    return MismatchModel(level - order * middle, order)


class _Watch:
    """How membranes of a fine run meet their thresholds."""

    def __init__(self, steps_a_dt: float) -> None:
        self.scale = steps_a_dt
        self.spikes = 0
        self.speeds: list[Float] = []
        self.gaps: list[Float] = []

    def add(self, v: Float, fired: npt.NDArray[np.bool_], threshold: Float) -> None:
        """Take membranes (batch, steps, size), shifted so that the reset is to 0, and their spikes."""
        self.spikes += int(fired.sum())
        level = np.broadcast_to(threshold, v.shape[2:])
        if v.shape[1] < 4 or not (level > 0).all():
            return
        share = v / level
        rise = share[:, 1:-1] - share[:, :-2]
        calm = ~(fired[:, 1:-1] | fired[:, :-2])
        at = fired[:, 2:] & calm
        near = share[:, 1:-1][at] + 3 * rise[at] >= 1
        self.speeds.append(rise[at][near & (rise[at] > 0)] * self.scale)
        top = calm & ~fired[:, 2:] & (rise > 0) & (share[:, 2:] <= share[:, 1:-1]) & (share[:, 1:-1] > 0.5)
        self.gaps.append(1 - share[:, 1:-1][top])

    def crossings(self) -> Crossings:
        """Return the summary of what was added."""
        speeds = np.concatenate(self.speeds) if self.speeds else np.zeros(0)
        gaps = np.concatenate(self.gaps) if self.gaps else np.zeros(0)
        if not len(speeds):
            return Crossings(self.spikes, 0, nan, nan, nan)
        median = float(np.median(speeds))
        return Crossings(
            self.spikes,
            len(speeds),
            median,
            float((speeds < TANGENTIAL * median).mean()),
            float((gaps < TANGENTIAL * median).sum() / max(self.spikes, 1)),
        )
