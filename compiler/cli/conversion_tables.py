"""Output of `snn-compile` for a converted model: its layers, and accuracy against steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from snn_compile.compiler.cli.text_table import Row, table_text
from snn_compile.compiler.network import weight_values
from snn_compile.compiler.onnx.rate_coding import Conversion
from snn_compile.compiler.onnx.relu_network import RectifierNetwork


def relu_network_json(network: RectifierNetwork, name: str) -> dict[str, Any]:
    """Return the layers of a ReLU network in the form of `inspect.inspection_json`."""
    output = ("output", "Output", network.output.shape[1:], network.output)
    layers = [(layer.name, "Rectifiers", layer.shape, layer.value) for layer in network.layers]
    return {
        "schema": {"name": "snn-compile-inspect", "version": 1},
        "model": name,
        "nodes": [
            {"name": network.input_name, "type": "Input", "shape": list(network.input_shape)},
            *({"name": n, "type": kind, "shape": list(shape)} for n, kind, shape, _ in [*layers, output]),
        ],
        "edges": [[source, n] for n, _, _, value in [*layers, output] for source in value.terms],
        "open": {},
        "contract": {},
        "notes": list(network.notes),
    }


def conversion_json(conversion: Conversion, lowering: Mapping[str, Any]) -> dict[str, Any]:
    """Return how a model was converted, as plain values."""
    options = conversion.options
    return {
        "steps": options.steps,
        "balance": options.balance,
        "percentile": options.percentile if options.balance == "percentile" else None,
        "per": options.per,
        "correct": options.correct,
        "notes": list(conversion.source.notes),
        "lowering": dict(lowering),
        "layers": [
            {
                "name": layer.name,
                "neurons": layer.value.size,
                "connections": sum(
                    int(np.count_nonzero(weight_values(w))) for w in layer.value.terms.values()
                ),
                "range": [
                    float(conversion.ranges[layer.name].min()),
                    float(conversion.ranges[layer.name].max()),
                ],
                "clipped": conversion.clipped[layer.name],
            }
            for layer in conversion.source.layers
        ],
    }


def conversion_text(conversion: Mapping[str, Any], curve: Mapping[str, Any] | None) -> str:
    """Return `conversion_json` and the curve as tables."""
    rows: list[Row] = [
        (
            layer["name"],
            f"{layer['neurons']:,}",
            f"{layer['connections']:,}",
            f"{layer['range'][0]:.4g} to {layer['range'][1]:.4g}",
            f"{layer['clipped']:.3%}",
        )
        for layer in conversion["layers"]
    ]
    text = table_text(
        "Conversion to rates: the activation of one spike per step",
        ("layer", "neurons", "connections", "range", "clipped"),
        rows,
    )
    lowering = conversion["lowering"]
    far = (
        ""
        if lowering["relative"] is None
        else f"scores differ by {lowering['relative']:.1e} (rms, relative), "
    )
    text += (
        f"Folded network against {lowering['reference']} on {lowering['samples']} calibration samples: {far}"
        f"{lowering['agreement']:.2%} of predictions equal\n"
    )
    text += "".join(f"note: {note}\n" for note in conversion["notes"])
    return text if curve is None else text + _curve_text(curve)


ENERGIES_SHOWN = 3
"""Energy proxies that have a column in the text; more do not fit a line."""


def _curve_text(curve: Mapping[str, Any]) -> str:
    def cell(value: float | None, form: str) -> str:
        return "-" if value is None else format(value, form)

    names = list(curve["points"][0]["energy_pj"])[:ENERGIES_SHOWN]
    rows: list[Row] = [
        (
            f"{p['steps']}{' *' if p['steps'] == curve['chosen'] else ''}",
            cell(p["accuracy"], ".2%"),
            cell(p["drop"], "+.2f"),
            "-" if p["interval"] is None else f"{p['interval'][0]:+.2f} to {p['interval'][1]:+.2f}",
            f"{p['agreement']:.2%}",
            *(f"{p['energy_pj'][name] / 1000:,.1f}" for name in names),
        )
        for p in curve["points"]
    ]
    text = table_text(
        f"Steps against accuracy ({curve['samples']} samples, float by {curve['reference']}) and energy per "
        f"sample (nJ, {curve['energy_samples']} samples; every table: --json)",
        ("steps", "deployed", "drop, points", "95 % interval", "as float", *names),
        rows,
    )
    if curve["limit"] is None:
        return text
    if curve["met"]:
        return (
            text + f"{curve['chosen']} steps are the fewest that drop by at most {curve['limit']:g} points.\n"
        )
    return text + f"No number of steps meets {curve['limit']:g} points; the nearest is {curve['chosen']}.\n"
