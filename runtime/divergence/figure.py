"""The figure of a divergence: the error of each population over time, and the effect of each cause."""

from __future__ import annotations

import warnings
from io import BytesIO
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from snn_compile.runtime.divergence.diverge import Divergence

_CAUSES_MAX = 10
_NAME_MAX = 40
_ALONE, _LAST, _SHARE = "#9db8d2", "#5c86ad", "#1b3a5c"


def draw(found: Divergence) -> bytes:
    """Return the figure as a PNG: differing neurons, difference in spikes, shares of causes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = [f for f in found.causes if f.shares is not None and f.effect > 0][:_CAUSES_MAX]
    bars = 0.9 + 0.5 * max(len(shown), 1)
    figure = Figure(figsize=(9.0, 5.2 + bars), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    top, middle, bottom = figure.subplots(3, 1, height_ratios=[2.0, 2.0, bars])
    for axis, values, label in (
        (top, found.over_time, "neurons that differ, %"),
        (middle, found.counts_over_time, "spikes per sample, program - network"),
    ):
        for i, (name, line) in enumerate(values.items()):
            scale = 100 if axis is top else 1
            axis.plot(
                np.arange(found.steps), scale * line, color=f"C{i % 10}", label=_short(name), linewidth=1.4
            )
        axis.set_ylabel(label, fontsize=8)
        axis.set_xlim(-0.5, found.steps - 0.5)
        axis.xaxis.get_major_locator().set_params(integer=True)
        _plain(axis)
    top.set_ylim(bottom=0)
    middle.axhline(0, color="#7a8794", linewidth=0.8)
    middle.set_xlabel("step", fontsize=8)
    if found.over_time:
        legend = top.legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
        for entry in legend.get_texts():
            entry.set_parse_math(False)
    _bars(bottom, found, shown)
    title = fill(_short(found.verdict(), 300), 110)
    figure.suptitle(title, x=0.01, ha="left", fontsize=10, parse_math=False)
    out = BytesIO()
    with warnings.catch_warnings():
        # Characters that the font lacks are drawn as boxes, which needs no warning.
        warnings.filterwarnings("ignore", message="Glyph")
        figure.savefig(out, format="png")
    return out.getvalue()


def _bars(axis: Any, found: Divergence, shown: list[Any]) -> None:
    key = "drop" if found.totals.get("drop") else "signal"
    unit = "points of accuracy" if key == "drop" else "% of neuron-steps"
    scale = 1 if key == "drop" else 100
    rows = np.arange(len(shown))[::-1].astype(float)
    for offset, item, colour in ((0.27, "alone", _ALONE), (0.0, "last", _LAST), (-0.27, "share", _SHARE)):
        values = [scale * getattr(f.shares[key], item) for f in shown]
        axis.barh(rows + offset, values, height=0.25, color=colour, label=item)
    axis.set_yticks(rows, [_short(f.cause.name) for f in shown])
    for label in axis.get_yticklabels():
        label.set_parse_math(False)
    axis.axvline(0, color="#7a8794", linewidth=0.8)
    total, rest = scale * found.totals[key], scale * found.remainder[key]
    axis.set_xlabel(f"{unit}; total {total:+.2f}, remainder (interaction of causes) {rest:+.2f}", fontsize=8)
    if shown:
        axis.legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    else:
        axis.set_yticks([])
        axis.text(0.5, 0.5, "no cause has an effect here", transform=axis.transAxes, ha="center", fontsize=8)
    _plain(axis)


def _plain(axis: Any) -> None:
    axis.tick_params(labelsize=7)
    axis.spines[["top", "right"]].set_visible(False)


def _short(name: str, most: int = _NAME_MAX) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"
