"""Output of a network's sensitivity to dt."""

from __future__ import annotations

from typing import Any

from snn_compile.compiler.cli.text_table import Row, table_text

MOST_REASONS = 3


def sensitivity_text(found: dict[str, Any]) -> str:
    """Return `Sensitivity.json` as text."""
    if found["reasons"]:
        lines = ["\nSensitivity to dt has no meaning for this network: it is defined in steps only"]
        lines += [f"  {reason}" for reason in found["reasons"][:MOST_REASONS]]
        if len(found["reasons"]) > MOST_REASONS:
            lines.append(f"  and {len(found['reasons']) - MOST_REASONS} more of the kind")
        return "\n".join(lines) + "\n"
    rows: list[Row] = [
        (
            f"{level['dt']:.4g}" + (" (dt)" if level["dt"] == found["dt"] else ""),
            f"{level['mismatch']:.3%}",
            "-" if level["spike_time_rms"] is None else f"{level['spike_time_rms']:.3g}",
            f"{level['spikes']:,}",
            f"{level['matched']:,}",
        )
        for level in found["levels"]
    ]
    unit = found["unit"]
    return (
        table_text(
            f"Sensitivity to dt: {found['samples']} samples of {found['steps']} steps, {found['neurons']} "
            f"spiking neurons, against steps of {found['reference_dt']:.4g} {unit}",
            (f"step, {unit}", "mismatch", f"spike time rms, {unit}", "spikes", "matched"),
            rows,
        )
        + "\n".join([*_orders_text(found), _advice_text(found["advice"], unit), *found["notes"]])
        + "\n"
    )


def _orders_text(found: dict[str, Any]) -> list[str]:
    def order(item: str) -> str:
        fit = found["orders"][item]
        if fit["slope"] is None:
            return "undefined"
        inside = "" if fit["low"] is None else f" ({fit['low']:.2f} to {fit['high']:.2f})"
        return f"{fit['slope']:.2f}{inside}"

    lines = [f"order in dt: mismatch {order('mismatch')}, spike times {order('spike_time')}"]
    crossed = found["crossings"]
    if crossed["smooth"]:
        lines.append(
            f"{crossed['smooth']:,} of the reference's {crossed['spikes']:,} spikes cross smoothly, at a "
            f"median of {crossed['median_speed']:.3g} thresholds per dt; {crossed['tangential']:.2%} of them "
            f"near-tangentially; {crossed['near_misses']:.2g} near misses per spike"
        )
    return lines


def _advice_text(advice: dict[str, Any], unit: str) -> str:
    limit = f"mismatch of at most {advice['max_mismatch']:.2%}"
    if advice["dt"] is None:
        return f"advice: no step within reach has a {limit}; finer ones than these were not predicted"
    measured = "out of reach of a run" if advice["measured"] is None else f"measured {advice['measured']:.3%}"
    return (
        f"advice: dt = {advice['dt']:.4g} {unit} is the largest step for a {limit} "
        f"(predicted {advice['predicted']:.3%}, {measured})"
    )
