"""Sensitivity of a network's spikes to dt on given data, and the largest dt that keeps them.

The graph's own equations run at a ladder of steps around the contract's dt, on the same inputs, against a
reference many times finer (`dt_refinement.py`). A mismatch is a neuron of a sample whose spike count differs
from the reference's. A power law of dt is fitted to the mismatch rate (`mismatch.py`) and predicts how large
a step may be. The reference's own error is subtracted as first order: a step h counts as dt = h - h_ref. On
why mismatches measure the cost of a step, near-tangential crossings, see Dou, Chen, Lin, Xiao
(`train/analysis/euler_maruyama.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from math import ceil, floor, isnan, nan
from typing import Any

import nir
import numpy as np
import numpy.typing as npt

from snn_compile.compiler.analysis.crossings import Crossings, Watch
from snn_compile.compiler.analysis.dt_refinement import has_spikes, inputs_at, network_at, tied_to_steps
from snn_compile.compiler.analysis.mismatch import MismatchModel, event_rate, fit_nearest
from snn_compile.compiler.analysis.slopes import Slope, bootstrap_slope
from snn_compile.compiler.contract.resolve import resolve
from snn_compile.compiler.network import Float, Network
from snn_compile.compiler.reference import as_inputs, run_float
from snn_compile.targets.errors import CompileError, SnnCompileError

REFERENCES = (64, 256)
"""The reference's step is dt over the first, or over the second where the first leaves the limit too fine."""

MARGIN = 8
"""Ratio of the finest step compared to the reference's, and how far below it predictions reach."""

COARSEST = 4
"""The coarsest step compared, in units of dt; steps without room in graph or data are left out."""

SAMPLES, LOOPS, WIDTH = 32, 120_000, 2_000
"""Most samples; iterations of the reference's loop over steps and populations; neurons per iteration."""

REPORT = (16, 20_000)
"""Samples and loops that a compilation spends; `inspect` spends more."""

VALUES, MOST_VALUES = 3_000_000, 20_000_000
"""Numbers in memory at once where samples can be run separately, and for a single sample."""


@dataclass(frozen=True)
class Level:
    """One step length against the reference; spike times in the graph's unit of time.

    `spikes`: all of the run; `matched`: those of neurons and samples whose counts agree, over which
    `spike_time_rms` is taken.
    """

    dt: float
    mismatch: float
    spike_time_rms: float
    spikes: int
    matched: int


@dataclass(frozen=True)
class Advice:
    """The largest step whose predicted mismatch is at most `max_mismatch`, up to the coarsest compared.

    `dt` is an integer fraction or multiple of the contract's, and None if it would have to be finer than the
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
    """The effect of dt on the spikes; with `reasons`, only those why it is not defined."""

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

    At most `samples` samples are run, and as many of their steps as `loops` iterations of the reference
    allow, fewer where the network is large.
    Raises as `lower` does, WrongInput on inputs that do not fit, and SnnCompileError on a limit that is
    not a fraction.
    """
    if not 0 < max_mismatch < 1:
        raise SnnCompileError(
            f"a mismatch of {max_mismatch:g}; it is a share of the neurons, over 0 and below 1"
        )
    if not isinstance(graph, nir.NIRGraph):
        return Sensitivity(nan, "step", ("the model holds a rule for each step, no equations in time",))
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


def sensitivity_json(
    graph: Any, data: Sequence[Any], stated: Mapping[str, Any], max_mismatch: float, *limits: int
) -> dict[str, Any] | None:
    """Return the result for a command as plain values, on the first inputs or data set that is not None."""
    found = next((getattr(item, "inputs", item) for item in data if item is not None), None)
    if found is None:
        return None
    return sensitivity(graph, found, stated, max_mismatch, *limits).json()


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
        width = sum(network.size(p.name) for p in network.nodes)
        self.steps = min(
            steps, max(8, loops // (fine * len(network.populations))), max(8, MOST_VALUES // (fine * width))
        )
        self.samples = min(batch, samples, max(1, loops * WIDTH // (self.steps * fine * width)))
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
        units, times, watch = [], [], Watch(float(1 / ratio))
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

    def _compared(self, ratio: Fraction) -> tuple[Float, Float, Float, int]:
        """Return per sample the mismatched neurons, squared spike-time errors and matched spikes; and all."""
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
            len(found.unit),
        )

    def _ratios(self) -> list[Fraction]:
        finest = Fraction(MARGIN, self.fine)
        return [finest * 2**i for i in range(32) if finest * 2**i <= COARSEST]

    def measured(self, max_mismatch: float) -> Sensitivity:
        """Return everything: the ladder, the orders and the advice."""
        ratios, wrong, late, matched, spikes = [], [], [], [], []
        for ratio in self._ratios():
            if self.steps < 2 * ratio:
                continue
            try:
                differ, squares, count, emitted = self._compared(ratio)
            except CompileError as error:
                self.notes.append(f"no run at {float(ratio):g} dt: {error}")
                continue
            ratios.append(ratio)
            wrong.append(differ)
            late.append(squares)
            matched.append(count)
            spikes.append(emitted)
        dt = self.contract.dt
        h = np.array([float(r) for r in ratios])
        lengths = (h - 1 / self.fine) * dt
        differ, squares, count = (np.stack(x, axis=1) for x in (wrong, late, matched))
        cases = np.full_like(differ, self.neurons)
        model = fit_nearest(lengths, differ.sum(0), cases.sum(0), max_mismatch)
        levels = tuple(
            Level(
                float(r) * dt,
                float(differ[:, i].sum() / cases[:, i].sum()),
                float(np.sqrt(squares[:, i].sum() / count[:, i].sum())) if count[:, i].sum() else nan,
                spikes[i],
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
                "mismatch": bootstrap_slope(lengths, differ, cases, event_rate),
                "spike_time": bootstrap_slope(lengths, squares, count, np.sqrt),
            },
            self.crossings,
            self._advice(model, max_mismatch, ratios),
            tuple(self.notes),
        )

    def _advice(self, model: MismatchModel, limit: float, ratios: list[Fraction]) -> Advice:
        """Return the largest step dt / k or k dt that the model allows, and the mismatch measured there."""
        dt = self.contract.dt
        largest = model.step_for(limit) / dt
        if largest < float(ratios[0] / MARGIN):
            return Advice(limit, None, None, None, True)
        largest = min(largest, float(ratios[-1]))
        ratio = Fraction(floor(largest)) if largest >= 1 else Fraction(1, ceil(1 / largest))
        measured = None
        while ratio >= ratios[0] and measured is None:
            try:
                differ = self._compared(ratio)[0]
                measured = float(differ.sum() / (self.samples * self.neurons))
            except CompileError:  # steps that do not divide a delay; dt itself always runs
                ratio -= 1
        predicted = model.share(float(ratio) * dt)
        return Advice(limit, float(ratio) * dt, predicted, measured, measured is None)
