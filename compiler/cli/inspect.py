"""Output of `snn-compile inspect`: a model's nodes and contract, or the contents of a program file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from snn_compile.compiler.analysis.ambiguities import READERS, differences
from snn_compile.compiler.cli.sensitivity_text import sensitivity_text
from snn_compile.compiler.cli.text_table import Row, table_text
from snn_compile.compiler.contract.contract import MEANING, Contract
from snn_compile.compiler.contract.resolve import resolution
from snn_compile.compiler.contract.unheld import assumed_items, lines_of, read_assumptions
from snn_compile.compiler.lowering.explanation import explained
from snn_compile.compiler.network import Network
from snn_compile.compiler.onnx.relu_network import RectifierNetwork
from snn_compile.targets.errors import AmbiguousConvention, WrongProgram
from snn_compile.targets.program.program import Program


def inspection_json(graph: Any, name: str, stated: dict[str, Any], strict: bool = False) -> dict[str, Any]:
    """Return a graph's nodes, edges and contract, each item with how it was decided."""
    if isinstance(graph, Network):
        return _network_json(graph, name)
    if isinstance(graph, RectifierNetwork):
        from snn_compile.compiler.cli.conversion_tables import relu_network_json

        return relu_network_json(graph, name)
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
        resolved = resolution(graph, stated, strict)
    except AmbiguousConvention as error:
        return {
            **found,
            "contract": None,
            "open": error.facts["missing"],
            "advice": str(error),
            "warnings": [],
        }
    contract, decided, assumptions = resolved.contract, resolved.decided, resolved.assumptions
    apart = differences(graph, contract, decided)
    return {
        **found,
        "open": {},
        "contract": _contract_json(contract, explained(graph, contract, decided)),
        "differences": [item.json() for item in apart],
        "assumed": assumed_items(assumptions),
        "assumptions": lines_of(assumptions),
        "warnings": [*resolved.warnings, *(item.text() for item in apart)],
    }


def program_json(program: Program, name: str) -> dict[str, Any]:
    """Return the contents of a program file: its description, and the contract that it was compiled under."""
    facts = program.provenance
    try:
        values, decided = json.loads(facts.get("contract", "{}")), json.loads(facts.get("decided", "{}"))
    except ValueError as error:
        raise WrongProgram(f"{name}: its provenance holds no contract ({error}); compile it again") from error
    head = {"schema", "version", "parameters"}
    assumptions = read_assumptions(facts.get("assumed", ""))
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
        "assumed": assumed_items(assumptions),
        "assumptions": lines_of(assumptions),
        "warnings": [program.mapping_note] if program.mapping_note else [],
    }


def _contract_json(contract: Contract, decided: Mapping[str, str]) -> dict[str, Any]:
    values = {key: value for key, value in vars(contract).items() if key not in ("delays", "readouts")}
    values["delays"] = [[a, b, n] for (a, b), n in sorted(contract.delays.items())]
    values["readouts"] = {key: item.plain() for key, item in contract.readouts.items()}
    values["nodes"] = {key: dict(item) for key, item in contract.nodes.items()}
    return {key: {"value": value, "decided": decided[key]} for key, value in values.items()}


def _network_json(network: Network, name: str) -> dict[str, Any]:
    """Return `inspection_json` of a file that holds a Network, not a graph."""
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
        "assumed": network.assumed,
        "assumptions": [item.text for item in network.assumptions],
        "warnings": [],
    }


def inspection_text(result: dict[str, Any]) -> str:
    """Return `inspection_json` as tables."""
    if "description" in result:
        rows: list[Row] = [
            (key, str(item["value"]), item["decided"]) for key, item in result["contract"].items()
        ]
        text = f"{result['model']}, digest {result['program']['digest'][:12]}\n{result['description']}"
        text += table_text("Contract that it was compiled under", ("item", "value", "decided by"), rows)
        return text + "".join(f"{line}\n" for line in result["assumptions"])
    rows = [
        (
            node["name"],
            node["type"],
            "x".join(map(str, node["shape"])),
            ", ".join(b for a, b in result["edges"] if a == node["name"]),
        )
        for node in result["nodes"]
    ]
    text = f"{result['model']}\n" + table_text("Nodes", ("name", "type", "shape", "goes to"), rows)
    if result["contract"] is None:
        rows = [
            (item, MEANING.get(item, ""), " | ".join(_read_by(item, word) for word in words))
            for item, words in result["open"].items()
        ]
        return (
            text
            + table_text("Open: the file does not state", ("item", "meaning", "interpretations"), rows)
            + f"{result['advice']}\n"
        )
    rows = [(key, str(item["value"]), item["decided"]) for key, item in result["contract"].items()]
    if "notes" in result:
        notes = ["artificial neurons: --calibrate DATA converts them to rates", *result["notes"]]
        return text + "".join(f"{note}\n" for note in notes)
    warned = "".join(f"{line}\n" for line in result.get("assumptions", []))
    warned += "".join(f"warning: {line}\n" for line in result["warnings"])
    text += table_text("Contract", ("item", "value", "decided by"), rows) + warned
    return text + sensitivity_text(result["sensitivity"]) if "sensitivity" in result else text


def _read_by(item: str, word: Any) -> str:
    who = READERS.get(item, {}).get(str(word))
    return f"{word} ({who})" if who else str(word)


def _shape(node: Any) -> list[int]:
    kind = node.output_type or node.input_type or {}
    value = next(iter(kind.values()), None)
    return [] if value is None else [int(n) for n in value]
