"""The figure of a run: one sample through a program, and the mean rates of its populations.

From top to bottom on one time axis: the input, a raster of each spiking population, the membranes
of the output (read after reset, divided by the population's `scale` to be in the float network's
units), then the mean rate of each population over all samples.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt

from snn_compile.runtime.execution.run import Inputs, sample_count, simulate, take
from snn_compile.targets.devices.counts import Counts
from snn_compile.targets.devices.device import Device
from snn_compile.targets.errors import WrongInput
from snn_compile.targets.integer import STATE_SHIFT
from snn_compile.targets.program.program import Program

_INK, _FAINT, _INPUT = "#1b3a5c", "#c4cad2", "#7a8794"
_LINES_MAX = 10
_INPUT_INCHES, _RASTERS_INCHES = 1.3, 8.0
_NAME_MAX = 44


@dataclass(frozen=True, eq=False)
class Trace:
    """One sample through a program, in logical steps.

    `inputs`: per port (steps, channels) as given; `spikes`: per spiking population (steps,
    neurons); `membrane`: (steps, neurons) of population `output`, in float units; `threshold` in
    the same units where the output spikes and all its neurons share one.
    """

    sample: int
    inputs: Mapping[str, npt.NDArray[np.float64]]
    spikes: Mapping[str, npt.NDArray[np.uint8]]
    output: str
    membrane: npt.NDArray[np.float64]
    threshold: float | None
    prediction: int | None
    label: int | None


def trace(
    program: Program,
    inputs: Inputs,
    labels: npt.ArrayLike | None = None,
    sample: int = 0,
    device: str | Device = "loihi2-sim",
) -> Trace:
    """Run one sample of inputs (batch, steps, *shape) and return its trace for the figure.

    Raises WrongInput if there is no such sample.
    """
    if not 0 <= sample < sample_count(inputs):
        raise WrongInput(f"no sample {sample}; there are {sample_count(inputs)}, from 0")
    port = program.outputs[0]
    population = program.population(port.population)
    chosen = take(inputs, sample, sample + 1)
    spiking = tuple(p.name for p in program.populations if p.spiking)
    state = population.kind.membrane or population.kind.states[0]
    membrane = f"{population.name}.{state}"
    record = simulate(program, chosen, device, record=spiking, probes=(membrane,))
    arrays = chosen if isinstance(chosen, Mapping) else {program.inputs[0].name: chosen}
    flat = {
        name: np.asarray(array, np.float64)[0].reshape(record.steps, -1) for name, array in arrays.items()
    }
    vth = population.parameters.get("vth") if population.kind.ruled else None
    threshold = None
    if vth is not None and np.ptp(vth) == 0:
        threshold = float(int(vth[0]) << STATE_SHIFT) / population.scale
    scalar = port.task == "classify" and record.predictions.ndim == 1
    label = None if labels is None or not scalar else int(np.asarray(labels)[sample])
    return Trace(
        sample,
        flat,
        {name: record.spikes(name)[0].reshape(record.steps, -1) for name in spiking},
        population.name,
        record.states(membrane)[0].reshape(record.steps, -1) / population.scale,
        threshold,
        int(record.predictions[0]) if scalar else None,
        label,
    )


def draw(trace: Trace, name: str, counts: Counts) -> bytes:
    """Return the figure as a PNG; `name` is that of program and device, `counts` those of the whole run."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rasters = [0.6 + 0.9 * min(1.0, s.shape[1] / 128) for s in trace.spikes.values()]
    shrink = min(1.0, _RASTERS_INCHES / max(sum(rasters), 1e-9))
    rasters = [max(0.5, shrink * height) for height in rasters]
    rates = 0.4 + 0.18 * len(counts.neuron_spikes)
    heights = [_INPUT_INCHES] * len(trace.inputs) + rasters + [2.2, rates]
    figure = Figure(figsize=(9.0, sum(heights) + 0.33 * len(heights) + 0.5), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    queue = iter(axes)
    for name, values in trace.inputs.items():
        _input(next(queue), name, values, 72 * _INPUT_INCHES)
    for (name, spikes), height in zip(trace.spikes.items(), rasters, strict=True):
        _raster(next(queue), name, spikes, 72 * height)
    _membranes(next(queue), trace)
    _rates(next(queue), counts)
    steps = trace.membrane.shape[0]
    for axis in axes[:-1]:
        axis.set_xlim(-0.5, steps - 0.5)
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.tick_params(labelbottom=axis is axes[-2])
    figure.suptitle(_title(trace, name), x=0.01, ha="left", fontsize=10, parse_math=False)
    out = BytesIO()
    with warnings.catch_warnings():
        # Characters that the font lacks are drawn as boxes; no warning is needed.
        warnings.filterwarnings("ignore", message="Glyph")
        figure.savefig(out, format="png")
    return out.getvalue()


def _title(trace: Trace, name: str) -> str:
    model, _, device = name.rpartition(" on ")
    words = [f"{_short(model)} on {device}", f"sample {trace.sample}"]
    if trace.prediction is not None:
        words.append(f"predicted {trace.prediction}")
    if trace.label is not None:
        words.append(f"label {trace.label}")
    return ", ".join(words)


def _short(name: str) -> str:
    return name if len(name) <= _NAME_MAX else name[: _NAME_MAX - 1] + "…"


def _style(axis: Any, title: str) -> None:
    axis.set_title(title, loc="left", fontsize=8, pad=3, parse_math=False)
    axis.tick_params(labelsize=7)
    axis.spines[["top", "right"]].set_visible(False)


def _input(axis: Any, name: str, values: npt.NDArray[np.float64], points: float) -> None:
    steps, channels = values.shape
    title = f"input '{_short(name)}': {channels:,} channels, "
    if np.isin(values, (0, 1)).all():
        _dots(axis, values, points)
        title += f"{int(values.sum()):,} spikes"
    else:
        # Centered on 0 where values have both signs, so that 0 is white.
        top = float(np.abs(values).max())
        signed = bool(values.min() < 0)
        axis.imshow(
            values.T,
            aspect="auto",
            origin="lower",
            cmap="RdBu_r" if signed else "Greys",
            vmin=-top if signed else 0.0,
            vmax=top,
            interpolation="nearest",
            extent=(-0.5, steps - 0.5, -0.5, channels - 0.5),
        )
        colors = "blue is negative, red positive" if signed else "white is 0, black the highest"
        title += f"values {values.min():.3g} to {values.max():.3g} ({colors})"
    _style(axis, title)
    _neuron_axis(axis, channels, "channel")


def _raster(axis: Any, name: str, spikes: npt.NDArray[np.uint8], points: float) -> None:
    _dots(axis, spikes, points)
    steps, neurons = spikes.shape
    total = int(spikes.sum())
    _style(
        axis,
        f"{_short(name)}: {neurons:,} neurons, {total:,} spikes "
        f"({total / (steps * neurons):.3f} per neuron and step)",
    )
    _neuron_axis(axis, neurons, "neuron")


def _dots(axis: Any, spikes: npt.NDArray[Any], points: float) -> None:
    """Draw spikes (steps, neurons) as ticks that fit an axis `points` (1/72 inch) high."""
    steps, neurons = spikes.shape
    step, neuron = np.nonzero(spikes)
    axis.plot(
        step,
        neuron,
        linestyle="none",
        marker="|",
        color=_INK,
        markersize=float(np.clip(0.9 * points / neurons, 1.2, 9.0)),
        markeredgewidth=float(np.clip(100 / steps, 0.6, 1.6)),
    )


def _neuron_axis(axis: Any, size: int, word: str) -> None:
    margin = max(0.6, 0.02 * size)
    axis.set_ylim(-margin, size - 1 + margin)
    axis.set_yticks([0, size - 1] if size > 1 else [0])
    axis.set_ylabel(word, fontsize=7)


def _membranes(axis: Any, trace: Trace) -> None:
    steps, classes = trace.membrane.shape
    when = np.arange(steps)
    marked = [c for c in (trace.prediction, trace.label) if c is not None and c < classes]
    named = list(range(classes)) if classes <= _LINES_MAX else sorted(set(marked))
    if classes > _LINES_MAX:
        axis.plot(when, np.delete(trace.membrane, named, axis=1), color=_FAINT, linewidth=0.7)
    for c in named:
        chosen = c == trace.prediction
        roles = (("predicted", trace.prediction), ("label", trace.label))
        words = [word for word, at in roles if at == c]
        axis.plot(
            when,
            trace.membrane[:, c],
            linewidth=2.0 if chosen else 1.0,
            linestyle="--" if c == trace.label and not chosen else "-",
            zorder=3 if chosen else 2,
            color=f"C{c % 10}",
            label=" ".join([str(c), ", ".join(words)]).strip(),
        )
    if trace.threshold is not None:
        axis.axhline(trace.threshold, color=_INPUT, linewidth=0.8, linestyle=":", label="threshold")
    if named:
        axis.legend(
            loc="center left",
            bbox_to_anchor=(1.0, 0.5),
            fontsize=7,
            frameon=False,
            handlelength=1.4,
            borderaxespad=0.3,
        )
    reset = ", after reset" if trace.output in trace.spikes else ""
    others = f"; {classes} neurons, gray if not named" if classes > len(named) else ""
    _style(axis, f"membrane of {_short(trace.output)}{reset}, in the float network's units{others}")
    axis.set_xlabel("step", fontsize=8)
    axis.yaxis.get_offset_text().set_fontsize(7)


def _rates(axis: Any, counts: Counts) -> None:
    slots = counts.samples * counts.steps
    rates = {
        name: int(n.sum()) / (n.size * slots)
        for name, n in counts.neuron_spikes.items()
        if name not in counts.updates or counts.spikes.get(name) is not None
    }
    names = sorted(rates, key=lambda name: name in counts.updates)
    values = [rates[name] for name in names]
    rows = np.arange(len(names))[::-1]
    axis.barh(rows, values, height=0.7, color=[_INK if name in counts.updates else _INPUT for name in names])
    for row, value in zip(rows, values, strict=True):
        axis.annotate(
            f"{value:.4f}", (value, row), xytext=(3, 0), textcoords="offset points", va="center", fontsize=7
        )
    axis.set_yticks(rows, [_short(name) for name in names])
    for text in axis.get_yticklabels():
        text.set_parse_math(False)
    axis.set_xlim(0, max(values, default=0.0) * 1.12 or 1.0)
    _style(axis, f"mean rate over all {counts.samples:,} samples (messages per neuron and step; gray: input)")
