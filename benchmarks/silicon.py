"""Energy and time of PilotNet LIF beside what was measured on a Loihi 2, by every table.

    python benchmarks/silicon.py [--records DIR] [--mapper vendor|best] [--json FILE] [--update]

DIR holds `loihi2-records/records.json`, what Intel's profiler printed for the network (lava-dl, notebook
pilotnet_snn/benchmark.ipynb), and `netx-pilotnet-lif`, the network and the spikes of its input layer that
lava-dl recorded; by default `../shared/data` beside the checkout. The image itself was not recorded, so the
input layer's spikes stand for its neurons: its 39,600 updates a step are counted as inactive ones, and what
the host writes is not.

Coefficients and rates stand in `targets/costs`, with their intervals; none was fitted to this network, but
those who chose the tables knew the record. One network measured: the factors are no calibration for another.
"fitted, n = 1" is the factor that makes a prediction the record, which leaves nothing to compare. `--update`
writes the predictions of `vendor` into `targets/costs/silicon/pilotnet_lif.toml`, which reports state.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from snn_compile.compiler.frontends.netx import read_netx
from snn_compile.compiler.mapping.partition import MAPPERS
from snn_compile.compiler.pipeline import Options, compile_graph
from snn_compile.runtime.execution.run import simulate
from snn_compile.runtime.reports.energy import energy
from snn_compile.runtime.reports.quantized_ann import QuantizedAnn, quantized_ann
from snn_compile.runtime.reports.step_time import StepTime, step_time
from snn_compile.targets.devices.counts import Counts
from snn_compile.targets.program.program import InputPort, Program

RECORDS = Path(__file__).resolve().parents[1].parent / "shared" / "data"
RECORD = Path(__file__).resolve().parents[1] / "targets/costs/silicon/pilotnet_lif.toml"
STEPS = 17
"""Steps of the sample that the recording holds whole; state starts from zero in its first."""


@dataclass(frozen=True)
class Measured:
    """What Intel's profiler printed: dynamic microjoules and microseconds per step, static watts, cores."""

    dynamic_uj: float
    step_us: float
    static_w: float
    cores: int


@dataclass(frozen=True)
class Predicted:
    """Microjoules per step by table, low and high, and the bound of a step."""

    mapper: str
    cores: int
    energy_uj: dict[str, tuple[float, float]]
    time: StepTime
    ann: QuantizedAnn
    counts: Counts

    @property
    def bound_us(self) -> float:
        """Microseconds that a step takes at least."""
        return self.time.bound_ns[0] / 1000


def missing(folder: Path) -> str:
    """Return what of the records is not there, or ""."""
    for part in ("loihi2-records/records.json", "netx-pilotnet-lif/network.net"):
        if not (folder / part).is_file():
            return f"no {part} in {folder}; --records names the folder that holds it"
    return ""


def read_measured(folder: Path) -> Measured:
    """Return the record of PilotNet LIF."""
    found = json.loads((folder / "loihi2-records/records.json").read_text())["pilotnet_snn"]
    step_us, power = found["time_per_step_us"], found["power_w"]
    return Measured(power["dynamic"] * step_us, step_us, power["static"], found["cores"])


def predict(folder: Path, mapper: str) -> Predicted:
    """Compile the network, run the recorded spikes of its input layer, and price the counts."""
    data = folder / "netx-pilotnet-lif"
    program = compile_graph(read_netx(data / "network.net"), options=Options(mapper=mapper))
    spikes = np.load(data / "input.npz")["a"].T[None, :STEPS]
    counts = with_input_layer(program, simulate(without_input_layer(program), spikes).counts)
    proxies = {proxy.name: proxy.interval_pj for proxy in energy(program, counts)}
    time = step_time(program, counts)
    assert time is not None
    return Predicted(
        mapper,
        len(program.cores),
        {name: (low / STEPS / 1e6, high / STEPS / 1e6) for name, (low, high) in proxies.items()},
        time,
        quantized_ann(program, counts),
        counts,
    )


def without_input_layer(program: Program) -> Program:
    """Return the program whose first population is an input of spikes, on no cores."""
    first = program.populations[0]
    return replace(
        program,
        populations=program.populations[1:],
        projections=tuple(edge for edge in program.projections if edge.target != first.name),
        inputs=(InputPort(first.name, first.shape, start_step=first.start_step),),
        cores=(),
        routes=(),
    )


def with_input_layer(program: Program, counts: Counts | None) -> Counts:
    """Return the counts of the whole program: the first population's spikes were the other's input."""
    assert counts is not None
    first, port = program.populations[0], program.inputs[0]
    into = [edge.name for edge in program.projections if edge.target == first.name]
    updates = first.size * counts.samples * counts.steps
    return replace(
        counts,
        spikes={first.name: counts.input_messages, **counts.spikes},
        synops={**dict.fromkeys(into, 0), **counts.synops},
        updates={first.name: updates, **counts.updates},
        active_updates={first.name: 0, **counts.active_updates},
        input_messages=0,
        neuron_spikes={port.name: np.zeros(port.size, np.int64), **counts.neuron_spikes},
    )


def shown(found: Predicted, measured: Measured) -> str:
    """Return the comparison as text."""
    counts = found.counts
    per_step = {
        "synops": counts.total_synops,
        "updates": counts.total_updates,
        "active updates": counts.total_active_updates,
        "spikes": counts.total_spikes,
    }
    lines = [
        f"--mapper {found.mapper}: {found.cores} cores (measured on {measured.cores}); a step has "
        + ", ".join(f"{n / STEPS:,.0f} {name}" for name, n in per_step.items()),
        f"{'':14}{'µJ per step':>18}{'predicted / measured':>24}{'fitted, n = 1':>18}",
    ]
    for name, (low, high) in found.energy_uj.items():
        ratio = _span(low / measured.dynamic_uj, high / measured.dynamic_uj, ".2f")
        factor = _span(measured.dynamic_uj / high, measured.dynamic_uj / low, ".3g")
        lines.append(f"{name:14}{_span(low, high, ',.1f'):>18}{ratio:>24}{'x ' + factor:>18}")
    lines.append(f"{'measured':14}{measured.dynamic_uj:18,.1f}")
    all_in = measured.dynamic_uj * STEPS / counts.total_synops * 1e6
    lines.append(f"fitted, n = 1: {all_in:.1f} pJ per synop, all else included")
    binding = found.time.binding
    lines.append(
        f"a step takes at least {found.bound_us:,.1f} µs ({binding.name}, {binding.place}), measured "
        f"{measured.step_us:,.1f} µs: {found.bound_us / measured.step_us:.2f} (fitted, n = 1: x "
        f"{measured.step_us / found.bound_us:.3g})"
    )
    static = measured.static_w * found.bound_us
    lines.append(
        f"static energy, at least {static:,.1f} µJ per step; over the measured time "
        f"{measured.static_w * measured.step_us:,.1f} µJ"
    )
    ann = found.ann
    even = f"{ann.break_even_rate:.4f}" if ann.break_even_rate else "none"
    lines.append(
        f"as an ANN of {ann.weight_bits}-bit weights and {ann.activation_bits}-bit activations, 45 nm "
        f"arithmetic alone: {ann.per_sample_pj / 1e6:,.2f} µJ per sample, spiking "
        f"{ann.spiking_pj / 1e6:,.2f}; even at {even} spikes/neuron/step, here {ann.rate:.4f}"
    )
    return "\n".join(lines) + "\n"


def as_json(found: Predicted, measured: Measured) -> dict[str, Any]:
    """Return the comparison as plain values."""
    return {
        "cores": found.cores,
        "energy_uj": {name: list(span) for name, span in found.energy_uj.items()},
        "ratio": {name: [v / measured.dynamic_uj for v in span] for name, span in found.energy_uj.items()},
        "bound_us": found.bound_us,
        "step_time": found.time.json(),
        "quantized_ann": found.ann.json(),
    }


def update(found: Predicted, file: Path) -> None:
    """Write the predictions into the record's file, below what was measured."""
    kept = file.read_text(encoding="utf-8").split("[predicted_uj_per_step]")[0]
    lines = [f"{name} = {_values(span)}" for name, span in found.energy_uj.items()]
    bound = _values((found.bound_us, found.time.bound_ns[1] / 1000))
    text = "\n".join(
        ["[predicted_uj_per_step]", *lines, "", "[predicted_us_per_step]", f"bound = {bound}", ""]
    )
    file.write_text(kept + text, encoding="utf-8")


def _values(span: tuple[float, float]) -> str:
    low, high = (f"{value:.4g}" for value in span)
    return low if low == high else f"[{low}, {high}]"


def _span(low: float, high: float, form: str) -> str:
    texts = [format(value, form) for value in (low, high)]
    return texts[0] if texts[0] == texts[1] else " to ".join(texts)


def main(arguments: list[str] | None = None) -> int:
    """Compare, and print; returns 0 also where the records are not there, after saying so."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--records", type=Path, default=RECORDS)
    parser.add_argument("--mapper", choices=MAPPERS, action="append")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--update", action="store_true")
    given = parser.parse_args(arguments)
    if why := missing(given.records):
        print(f"skipped: {why}")
        return 0
    measured = read_measured(given.records)
    print(
        f"PilotNet LIF, {measured.dynamic_uj:.1f} µJ dynamic and {measured.step_us:.1f} µs per step measured"
    )
    found = {mapper: predict(given.records, mapper) for mapper in given.mapper or ("vendor", "best")}
    for one in found.values():
        print(shown(one, measured))
    print("One network measured. No factor here says anything about another.")
    if given.update and "vendor" in found:
        update(found["vendor"], RECORD)
    if given.json:
        body = {mapper: as_json(one, measured) for mapper, one in found.items()}
        given.json.write_text(json.dumps(body, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
