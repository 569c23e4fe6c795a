"""What `snn-compile` prints: plain values for scripts, tables for people."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from io import StringIO
from typing import TYPE_CHECKING, Any

from snn_compile.compiler.conventions import MEANING, Contract, resolve
from snn_compile.compiler.front import front_text
from snn_compile.compiler.network import Network
from snn_compile.compiler.pipeline import Compilation
from snn_compile.compiler.readings import READERS, assumptions, differences
from snn_compile.compiler.rectifiers import RectifierNetwork
from snn_compile.targets.chip import load_chip
from snn_compile.targets.errors import AmbiguousConvention, WrongProgram
from snn_compile.targets.program import Program

if TYPE_CHECKING:
    from snn_compile.runtime.report import Report

Row = tuple[str, ...]
RESOURCES = ("neurons", "memory_bits", "in_axons", "out_axons")


def resources_json(program: Program) -> dict[str, Any]:
    """Return each resource's use against its limit, over the chip and in the fullest core."""
    chip = load_chip(program.chip)
    limits = {
        "neurons": chip.core_neurons,
        "memory_bits": chip.core_memory_bits,
        "in_axons": chip.core_in_axons,
        "out_axons": chip.core_out_axons,
    }
    found: dict[str, Any] = {"cores": {"used": len(program.cores), "limit": chip.cores}}
    for key in RESOURCES:
        values = [core.use[key] for core in program.cores]
        found[key] = {"used": sum(values), "fullest_core": max(values), "core_limit": limits[key]}
    found["synapse_bits"] = {"used": sum(core.use["synapse_bits"] for core in program.cores)}
    return found


def quantization_json(done: Compilation) -> dict[str, Any]:
    """Return the error of every tensor in last bits of its format, and what was tried for it."""
    quantized, precision = done.quantized, done.precision
    assert quantized is not None and precision is not None
    return {
        "rounding": precision.plan.rounding,
        "too_large_to_reconstruct": list(precision.too_large),
        "trials": [
            {
                "name": trial.name.strip(),
                "kept": trial.kept,
                **{key: value for key, value in asdict(trial.fidelity).items() if key != "overflows"},
            }
            for trial in precision.trials
        ],
        "saturation": [asdict(item) for item in precision.saturations],
        "tensors": [asdict(error) for error in quantized.errors],
        "scales": {p.name: p.scale for p in quantized.populations},
        "inputs": {
            p.name: {"kind": p.kind, "scale": p.scale, "bits": p.bits, "signed": p.signed}
            for p in quantized.inputs
        },
    }


def compilation_text(result: dict[str, Any], report: Report | None) -> str:
    """Return the result of a compilation as text."""
    cores = result["resources"]["cores"]
    lines = [
        f"{result['model']} -> {result['target']}: fits on {cores['used']} of {cores['limit']} cores, "
        f"pipeline latency {result['latency_steps']} steps, program {result['program']['digest'][:12]}"
    ]
    if result["period"] > 1:
        lines.append(f"c-slow: every step of the network takes {result['period']} device steps")
    rows: list[Row] = [
        (key.replace("_", " "), f"{item['used']:,}", f"{item['fullest_core']:,}", f"{item['core_limit']:,}")
        for key, item in result["resources"].items()
        if "core_limit" in item
    ]
    text = (
        "\n".join(lines)
        + "\n"
        + draw_table(
            "Resources (an estimate: the chip's memory layout is not public)",
            ("", "in all", "fullest core", "a core holds"),
            rows,
        )
    )
    text += _errors_text(result) + precision_text(result["quantization"])
    if result.get("front"):
        text += front_text(result["front"], result["search"]["measured"])
    if report is None:
        return text + "No data to run: --check DATA measures accuracy, spikes and energy.\n"
    return text + "\n" + report.text()


def _errors_text(result: dict[str, Any]) -> str:
    rows: list[Row] = [
        (
            e["tensor"],
            e["format"],
            f"{e['values']:,}",
            f"{e['max_lsb']:.2f}",
            f"{e['rms_lsb']:.2f}",
            f"{e['relative']:.3%}",
            str(e["clipped"]),
        )
        for e in result["quantization"]["tensors"]
    ]
    return draw_table(
        "Quantization error, in last bits of each format",
        ("tensor", "format", "values", "max", "rms", "relative", "clipped"),
        rows,
    )


def precision_text(found: dict[str, Any]) -> str:
    """Return what was tried on calibration data, and where membranes may saturate, as tables."""
    rows: list[Row] = [
        (
            trial["name"],
            "-" if trial["disagreements"] is None else f"{trial['disagreements']} of {trial['predictions']}",
            f"{trial['changed']:.2%}",
            f"{trial['error']:.2%}",
            f"{trial['synapse_bits']:,}",
            "too many" if trial["cores"] is None else str(trial["cores"]),
            "kept" if trial["kept"] else "",
        )
        for trial in found["trials"]
    ]
    heads: Row = ("", "other predictions", "spikes changed", "output error", "synapse bits", "cores", "")
    text = draw_table("Tried on the calibration data, against the float network", heads, rows) if rows else ""
    if found["too_large_to_reconstruct"]:
        text += f"Too large to reconstruct: {', '.join(found['too_large_to_reconstruct'])}.\n"
    rows = [
        (
            item["population"],
            f"{item['gain']:.2f}",
            f"{item['spikes_changed']:.3%}",
            f"{item['times']:,} of {item['of']:,}",
        )
        for item in found["saturation"]
    ]
    heads = ("population", "scale, times", "float spikes changed by it", "neuron steps on calibration data")
    return text + (draw_table("Membranes that saturate when deeply inhibited", heads, rows) if rows else "")


def stage_json(done: Compilation, stage: str) -> dict[str, Any]:
    """Return what a compilation knew after a stage."""
    found: dict[str, Any] = {"schema": {"name": "snn-compile-stage", "version": 1}, "stage": stage}
    network = done.network
    latency = done.retimed.latency if done.retimed else {}
    delays = done.retimed.delay_steps if done.retimed else {}
    found["populations"] = [
        {
            "name": p.name,
            "model": p.model,
            "shape": list(p.shape),
            "reset": p.reset,
            "start_step": latency.get(p.name),
        }
        for p in (done.retimed.network if done.retimed else network).populations
    ]
    found["projections"] = [
        {
            "name": e.name,
            "source": e.source,
            "target": e.target,
            "shape": list(e.weight.shape),
            "delay_steps": e.delay_steps,
            "device_delay_steps": delays.get(e.name),
        }
        for e in (done.retimed.network if done.retimed else network).projections
    ]
    if done.quantized:
        found["quantization"] = quantization_json(done)
    if done.partition:
        tiles = [list(core.tile) for core in done.cores] if done.cores else [None] * len(done.partition.cores)
        found["cores"] = [
            {
                "index": index,
                "tile": tile,
                "slices": [f"{name}[{start}:{stop}]" for name, start, stop in slices],
                **use,
            }
            for index, (tile, slices, use) in enumerate(
                zip(tiles, done.partition.cores, done.partition.use, strict=True)
            )
        ]
    return found


def stage_text(result: dict[str, Any]) -> str:
    """Return `stage_json` as tables."""

    def cell(value: Any) -> str:
        if isinstance(value, list):
            return (", " if isinstance(value[0], str) else "x").join(map(str, value))
        return "-" if value is None else str(value)

    text = f"after {result['stage']}\n"
    for title in [key for key in ("populations", "projections", "cores") if key in result]:
        rows: list[Row] = [tuple(cell(value) for value in row.values()) for row in result[title]]
        heads = tuple(key.replace("_", " ") for key in result[title][0]) if result[title] else ()
        text += draw_table(title.capitalize(), heads, rows)
    if "quantization" in result:
        text += _errors_text(result) + precision_text(result["quantization"])
    return text


def inspection_json(graph: Any, name: str, stated: dict[str, Any]) -> dict[str, Any]:
    """Return a graph's nodes, edges and contract, each item with how it was decided."""
    if isinstance(graph, Network):
        return _network_json(graph, name)
    if isinstance(graph, RectifierNetwork):
        from snn_compile.compiler.conversion_tables import rectifiers_json

        return rectifiers_json(graph, name)
    found: dict[str, Any] = {
        "schema": {"name": "snn-compile-inspect", "version": 1},
        "model": name,
        "nodes": [
            {"name": key, "type": type(node).__name__, "shape": _shape(node)}
            for key, node in graph.nodes.items()
        ],
        "edges": [list(edge) for edge in graph.edges],
    }
    try:
        contract, decided = resolve(graph, stated)
    except AmbiguousConvention as error:
        return {
            **found,
            "contract": None,
            "open": error.facts["missing"],
            "advice": str(error),
            "warnings": [],
        }
    apart = differences(graph, contract, decided)
    return {
        **found,
        "open": {},
        "contract": _contract_json(contract, decided),
        "differences": [item.json() for item in apart],
        "warnings": [item.text() for item in apart] + list(assumptions(graph, stated)),
    }


def program_json(program: Program, name: str) -> dict[str, Any]:
    """Return what a program file holds: its description, and the contract that it was compiled under."""
    facts = program.provenance
    try:
        values, decided = json.loads(facts.get("contract", "{}")), json.loads(facts.get("decided", "{}"))
    except ValueError as error:
        raise WrongProgram(f"{name}: its provenance holds no contract ({error}); compile it again") from error
    head = {"schema", "version", "parameters"}
    return {
        "schema": {"name": "snn-compile-inspect", "version": 1},
        "model": name,
        "program": {"digest": program.digest(), "chip": program.chip, "provenance": dict(facts)},
        "description": program.describe(),
        "contract": {
            key: {"value": value, "decided": decided.get(key, "")}
            for key, value in values.items()
            if key not in head
        },
        "warnings": [],
    }


def _contract_json(contract: Contract, decided: Mapping[str, str]) -> dict[str, Any]:
    values = {key: value for key, value in vars(contract).items() if key not in ("delays", "readouts")}
    values["delays"] = [[a, b, n] for (a, b), n in sorted(contract.delays.items())]
    values["readouts"] = {key: asdict(item) for key, item in contract.readouts.items()}
    values["nodes"] = {key: dict(item) for key, item in contract.nodes.items()}
    return {key: {"value": value, "decided": decided[key]} for key, value in values.items()}


def _network_json(network: Network, name: str) -> dict[str, Any]:
    """Return what `inspection_json` does for a file that holds a Network, not a graph."""
    nodes = [(p.name, "Input", p.shape) for p in network.inputs]
    nodes += [(p.name, p.model, p.shape) for p in network.populations]
    nodes += [(p.name, "Output", p.shape) for p in network.outputs]
    edges = [[e.source, e.target] for e in network.projections]
    return {
        "schema": {"name": "snn-compile-inspect", "version": 1},
        "model": name,
        "nodes": [{"name": key, "type": kind, "shape": list(shape)} for key, kind, shape in nodes],
        "edges": edges + [[p.population, p.name] for p in network.outputs],
        "open": {},
        "contract": _contract_json(network.contract, network.decided),
        "differences": [],
        "warnings": [],
    }


def inspection_text(result: dict[str, Any]) -> str:
    """Return `inspection_json` as tables."""
    if "description" in result:
        rows: list[Row] = [
            (key, str(item["value"]), item["decided"]) for key, item in result["contract"].items()
        ]
        text = f"{result['model']}, digest {result['program']['digest'][:12]}\n{result['description']}"
        return text + draw_table("Contract that it was compiled under", ("item", "value", "decided by"), rows)
    rows = [
        (
            node["name"],
            node["type"],
            "x".join(map(str, node["shape"])),
            ", ".join(b for a, b in result["edges"] if a == node["name"]),
        )
        for node in result["nodes"]
    ]
    text = f"{result['model']}\n" + draw_table("Nodes", ("name", "type", "shape", "goes to"), rows)
    if result["contract"] is None:
        rows = [
            (item, MEANING.get(item, ""), " | ".join(_read_by(item, word) for word in words))
            for item, words in result["open"].items()
        ]
        return (
            text
            + draw_table("Open: the file does not say", ("item", "meaning", "readings"), rows)
            + f"{result['advice']}\n"
        )
    rows = [(key, str(item["value"]), item["decided"]) for key, item in result["contract"].items()]
    if "notes" in result:
        notes = ["artificial neurons: --calibrate DATA converts them to rates", *result["notes"]]
        return text + "".join(f"{note}\n" for note in notes)
    warned = "".join(f"warning: {line}\n" for line in result["warnings"])
    return text + draw_table("Contract", ("item", "value", "decided by"), rows) + warned


def _read_by(item: str, word: Any) -> str:
    who = READERS.get(item, {}).get(str(word))
    return f"{word} ({who})" if who else str(word)


def _shape(node: Any) -> list[int]:
    kind = node.output_type or node.input_type or {}
    value = next(iter(kind.values()), None)
    return [] if value is None else [int(n) for n in value]


def draw_table(title: str, heads: tuple[str, ...], rows: list[Row]) -> str:
    """Return a titled table as text; columns of numbers are flush right."""
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    out = StringIO()
    console = Console(file=out, width=110, color_system=None, highlight=False)
    drawn = Table(box=box.SIMPLE_HEAD)
    numbers = [
        bool(rows) and all(row[i].replace(",", "").replace(".", "").strip("%-+").isdigit() for row in rows)
        for i in range(len(heads))
    ]
    for head, number in zip(heads, numbers, strict=True):
        drawn.add_column(escape(head), justify="right" if number else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*(escape(value) for value in row))
    console.print(f"\n{escape(title)}")
    console.print(drawn)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"
