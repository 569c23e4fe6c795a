"""The conformance table: every case of tests/conformance/cases on every device.

    python benchmarks/conformance.py                       # prints the table
    python benchmarks/conformance.py --write               # into docs/conformance.md, between its markers

A case is a `.nir` file and a JSON file with its contract, inputs and expected traces (docs/conformance.md).
The graph is read from the file, lowered under the case's contract, run in float64 (`reference`), compiled
for Loihi 2 with the case's own inputs as calibration data, and run on every device. A cell states what
agreed: "equal" is every spike and every membrane of every neuron, at every step of every sample. A membrane
of integers is equal if it is the expected one in its own units, to the nearest integer. "spikes" is every
spike, and membranes that are not all equal; a refusal is the error's name. "c-slow 2": with two device
steps per logical step, which a cycle with less delay than synapse stages needs.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from snn_compile.compiler import Options, compile_stages, lower
from snn_compile.compiler.network import Network
from snn_compile.compiler.reference import run_reference
from snn_compile.targets.devices.device import Device, execute, open_device
from snn_compile.targets.devices.record import RunRecord
from snn_compile.targets.errors import SnnCompileError

ROOT = Path(__file__).resolve().parent.parent
CASES = ROOT / "tests" / "conformance" / "cases"
PAGE = ROOT / "docs" / "conformance.md"
BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"
DEVICES = ("reference", "oracle", "loihi2-sim", "lava-stepped", "lava")


@dataclass(frozen=True, eq=False)
class Case:
    """A case as stored in its two files."""

    path: Path
    document: Mapping[str, Any]

    @property
    def conventions(self) -> dict[str, Any]:
        """The contract, as `lower` takes it."""
        return dict(self.document["contract"])

    @property
    def inputs(self) -> dict[str, Any]:
        """Input node to (batch, steps, *shape)."""
        return {name: np.asarray(data, np.float64) for name, data in self.document["inputs"].items()}


def load_cases(folder: Path = CASES) -> list[Case]:
    """Return the cases in the order of the table."""
    order = json.loads((folder / "index.json").read_text(encoding="utf-8"))["cases"]
    return [Case(folder / f"{n}.nir", json.loads((folder / f"{n}.json").read_text("utf-8"))) for n in order]


def cell(case: Case, device: str, opened: Device | None = None) -> str:
    """Run one case on one device and return what agreed."""
    slow = ""
    try:
        network = lower(case.path, case.conventions)
        if device == "reference":
            record = run_reference(network, case.inputs, *watched(network.populations))
            scales = {p.name: None for p in network.populations}
        else:
            options = Options(conventions=case.conventions, c_slow=None)
            program = compile_stages(case.path, options=options, calibration=case.inputs).program
            assert program is not None
            spiking, probes = watched(program.populations)
            record = execute(
                program, case.inputs, opened or open_device(device), record=spiking, probes=probes
            )
            scales = {p.name: p.scale for p in program.populations}
            slow = f", c-slow {program.period}" if program.period > 1 else ""
    except SnnCompileError as error:
        return f"refused: {type(error).__name__}"
    return agreement(case, network, record, scales) + slow


def watched(populations: Iterable[Any]) -> tuple[list[str], list[str]]:
    """Return which spikes to record and which membranes to probe: all."""
    populations = list(populations)
    return [p.name for p in populations if p.spiking], [f"{p.name}.v" for p in populations]


def agreement(case: Case, network: Network, record: RunRecord, scales: Mapping[str, float | None]) -> str:
    """Compare a record with a case's expected traces."""
    compared, spikes, membranes = set(), True, True
    for name, expected in case.document["expected"].items():
        if name not in record.shapes:
            continue
        compared.add(name)
        if "spikes" in expected:
            spikes &= np.array_equal(record.spikes(name), expected["spikes"])
        found = np.asarray(record.states(f"{name}.v"), np.float64)
        wanted = np.asarray(expected["v"], np.float64)
        scale = scales[name]
        if scale is None:
            membranes &= np.allclose(found, wanted, rtol=1e-12, atol=1e-12)
        else:
            # Integer membranes are counted from the value of the reset.
            offset = network.population(name).parameters["offset"].reshape(-1)
            offset = offset if offset.size == 1 else offset.reshape(wanted.shape[2:])
            membranes &= np.array_equal(found, np.rint((wanted - offset) * scale))
    if {port.population for port in network.outputs} - compared:
        return "different: an output is missing"
    return "equal" if spikes and membranes else "spikes" if spikes else "different"


def table(cases: Iterable[Case], devices: Iterable[str] = DEVICES) -> dict[tuple[str, str], str]:
    """Return every cell by (row, device)."""
    opened = {name: None if name == "reference" else open_device(name) for name in devices}
    return {
        (case.document["row"], name): cell(case, name, device)
        for case in cases
        for name, device in opened.items()
    }


def rendered(cases: list[Case], cells: Mapping[tuple[str, str], str]) -> str:
    """Return the tables, one per group, in Markdown."""
    lines = [
        f"With nir {version('nir')}, lava-nc {version('lava-nc')}; {len(cases)} cases, "
        f"{len(DEVICES)} devices.",
        "",
    ]
    for group in dict.fromkeys(case.document["group"] for case in cases):
        lines += [f"### {group}", "", f"| case | what it is | {' | '.join(DEVICES)} |"]
        lines += ["|" + "---|" * (2 + len(DEVICES))]
        lines += [row(case, cells) for case in cases if case.document["group"] == group]
        lines += [""]
    return "\n".join(lines)


def row(case: Case, cells: Mapping[tuple[str, str], str]) -> str:
    """Return a line of a table."""
    name, about = case.document["row"], case.document["about"]
    parts = [name, about, *(cells[name, device] for device in DEVICES)]
    return "| " + " | ".join(part.replace("|", "\\|").replace("<", "&lt;") for part in parts) + " |"


def pages(text: str) -> Iterator[str]:
    """Yield the text before, between and after the markers of a page."""
    before, rest = text.split(BEGIN)
    inside, after = rest.split(END)
    yield from (before, inside, after)


def main() -> None:
    """Run everything and print or write the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--write", action="store_true", help=f"into {PAGE.name}, between its markers")
    arguments = parser.parse_args()
    cases = load_cases()
    text = rendered(cases, table(cases))
    if not arguments.write:
        print(text)
        return
    before, _, after = pages(PAGE.read_text(encoding="utf-8"))
    PAGE.write_text(f"{before}{BEGIN}\n\n{text}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
