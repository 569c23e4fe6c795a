"""The whole path on real data: train, compile, run on every device, compare, count.

    python benchmarks/digits.py                        both presets, seed 0
    python benchmarks/digits.py --seeds 0 1 2          the figures of docs/results.md
    python benchmarks/digits.py --presets digits --output demo

For each preset and seed: train the preset, compile its checkpoint for loihi2-sim, compare the deployed
integers with the float network on the whole test split, and compare loihi2-sim with the oracle, with
Lava's models stepped in one process (all test samples) and with Lava's own runtime (`--lava` of them),
in u, v and spikes of every population. A recurrent preset is trained once more without its recurrent
weights. Exit code 1 if any device differs.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from snn_compile import compiler, runtime, train

MESSAGES = Console(stderr=True)
EXACT = {"oracle": None, "lava-stepped": None, "lava": 60}
"""Devices compared with loihi2-sim, and on how many test samples (None: all)."""


def main() -> int:
    """Run the presets and print one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--presets", nargs="+", default=["digits", "digits-recurrent"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--lava", type=int, default=EXACT["lava"], help="samples run through Lava's runtime")
    parser.add_argument("--output", type=Path, help="keep checkpoints, programs and reports here")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if arguments.output:
        arguments.output.mkdir(parents=True, exist_ok=True)
    rows = [
        run(preset, seed, arguments.lava, arguments.output)
        for preset in arguments.presets
        for seed in arguments.seeds
    ]
    if arguments.json:
        print(json.dumps({"schema": {"name": "snn-compile-digits", "version": 1}, "runs": rows}))
    else:
        show(rows)
    return 0 if all(device["equal"] for row in rows for device in row["exact"]) else 1


def run(preset: str, seed: int, lava: int, folder: Path | None) -> dict[str, Any]:
    """Train, compile and run one preset and seed; return the measurements."""
    name = f"{preset}-{seed}"
    config = train.read_config(preset, [f"seed={seed}"])
    MESSAGES.print(f"{name}: training")
    began = time.perf_counter()
    folder = folder or Path(tempfile.mkdtemp(prefix="snn-digits-"))
    train.fit(config, folder / f"{name}.pt")
    trained = time.perf_counter() - began
    checkpoint = train.load_checkpoint(folder / f"{name}.pt")
    calibration = runtime.load_data(config.data, "calibration", **checkpoint.data["options"])
    test = runtime.load_data(config.data, "test", **checkpoint.data["options"])

    MESSAGES.print(f"{name}: compiling")
    done = compiler.compile_stages(
        checkpoint.graph,
        "loihi2-sim",
        compiler.Options(provenance={"model": f"{name}.pt"}),
        calibration.inputs,
    )
    program = done.program
    program.save(folder / f"{name}.snn")
    report = runtime.compare(program, done.network, test.inputs, test.labels, data=test.spec())
    shown = runtime.trace(program, test.inputs, test.labels)
    for ending in ("html", "json", "png"):
        report.save(folder / f"{name}.{ending}", shown)

    exact = []
    for device, samples in {**EXACT, "lava": lava}.items():
        MESSAGES.print(f"{name}: loihi2-sim against {device}")
        exact.append(_exactness(runtime.check(program, test.inputs[:samples], device)))
    row = {"preset": preset, "seed": seed, "train_s": trained, "exact": exact, **report.json()}
    if config.recurrent:
        MESSAGES.print(f"{name}: training again without recurrent weights")
        plain = train.read_config(preset, [f"seed={seed}", "recurrent=false"])
        row["without_recurrence"] = train.fit(plain).metrics["test_accuracy"]
    return row


def _exactness(found: runtime.Check) -> dict[str, Any]:
    return {
        "device": found.devices[0],
        "samples": found.samples,
        "values": found.values,
        "equal": found.difference is None,
        "text": str(found),
    }


def show(rows: list[dict[str, Any]]) -> None:
    """Print one table, one column per run."""
    out = Console(width=max(100, 30 + 24 * len(rows)), highlight=False)
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("")
    for row in rows:
        table.add_column(f"{row['preset']}, seed {row['seed']}", justify="right")

    def line(title: str, value: Any) -> None:
        table.add_row(title, *(value(row) for row in rows))

    def per_sample(key: str) -> Any:
        return lambda row: f"{row['counts']['per_sample'][key]:,.0f}"

    line("test samples", lambda row: str(row["accuracy"]["samples"]))
    line("float accuracy", lambda row: f"{row['accuracy']['float']:.2%}")
    line("deployed accuracy", lambda row: f"{row['accuracy']['deployed']:.2%}")
    line("drop, points", lambda row: f"{row['accuracy']['drop']:+.2f}")
    line("  95 % interval", lambda row: "{:+.2f} to {:+.2f}".format(*row["accuracy"]["interval"]))
    line("samples lost, net", lambda row: f"{row['accuracy']['lost']:+d}")
    line(
        "float, without recurrence",
        lambda row: f"{row['without_recurrence']:.2%}" if "without_recurrence" in row else "-",
    )
    line("spikes per sample", per_sample("spikes"))
    line("synops per sample", per_sample("synops"))
    for name in rows[0]["energy"]:
        line(
            f"energy per sample, {name}",
            lambda row, name=name: f"{row['energy'][name]['per_sample_pj'] / 1000:,.1f} nJ",
        )
    for index, device in enumerate(rows[0]["exact"]):
        line(
            f"loihi2-sim = {device['device']}",
            lambda row, index=index: (
                f"{'equal' if row['exact'][index]['equal'] else 'DIFFERS'} on "
                f"{row['exact'][index]['samples']}"
            ),
        )
    line("training, s", lambda row: f"{row['train_s']:.0f}")
    out.print(table)
    out.print("Equal: u, v and spikes of every population at every step of every sample named.")
    for name, proxy in rows[0]["energy"].items():
        out.print(f"{name}: {proxy['label']}. Source: {proxy['source']}.")
    for row in rows:
        for device in row["exact"]:
            if not device["equal"]:
                out.print(f"{row['preset']}, seed {row['seed']}: {device['text']}")


if __name__ == "__main__":
    sys.exit(main())
