"""Feedback networks on Fashion-MNIST: trained at their equilibrium, against steps, and deployed.

    python benchmarks/feedback.py --output feedback --seeds 0 1 2     needs Debian's dataset-fashion-mnist
    python benchmarks/feedback.py --output feedback --preset fashion-conv-fsnn

Trains the preset for each seed by the command snn-train; a checkpoint already in the folder, with its
training's output, is used as it is. Measures the accuracy of each at other numbers of steps, compiles
it with 8-bit weights (on the 128 calibration samples) and runs the program on all 10,000 test images: in real
time where one layer feeds itself; otherwise exactly at reduced speed (c-slow), and in real time with added
delay (relaxed). `--approach N` runs program and network for N steps on 128 test images and prints how far
their rates stay from the network's equilibrium. `--set` is passed on to snn-train.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich import box
from rich.console import Console
from rich.table import Table

from snn_compile import compiler, runtime, train
from snn_compile.targets.errors import SnnCompileError, TimingInfeasible
from snn_compile.train.analysis.equilibrium import accuracy_by_steps, load_feedback

MESSAGES = Console(stderr=True)
STEPS = (1, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30)
SHOWN = 128
Row = dict[str, Any]


def main() -> int:
    """Train what is missing, measure, and print three tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("feedback"), help="folder of the checkpoints")
    parser.add_argument("--preset", default="fashion-fsnn")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--bits", type=int, default=8)
    parser.add_argument("--approach", type=int, default=0, metavar="N")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    rows = [measured(arguments, seed) for seed in arguments.seeds]
    if arguments.json:
        print(json.dumps({"schema": {"name": "snn-compile-feedback", "version": 1}, "rows": rows}))
    else:
        show(rows)
    return 0


def measured(arguments: argparse.Namespace, seed: int) -> Row:
    """Return what one seed's training, steps and programs gave."""
    name = "-".join([arguments.preset, *arguments.set, str(seed)]).replace("=", "-").replace(",", "-")
    path = arguments.output / f"{name}.pt"
    trained = trained_by_command(arguments.preset, path, [f"seed={seed}", *arguments.set])
    held = train.load_checkpoint(path)
    network = load_feedback(held, path.name)
    test = runtime.load_data("fashion-mnist", "test", **held.data["options"])
    MESSAGES.print(f"{path.name}: accuracy against steps")
    curve = accuracy_by_steps(network, test, STEPS)
    timings: dict[str, Row] = {"real time": {}}
    try:
        compiler.compile_stages(held.graph, stop_after="retime")
    except TimingInfeasible as error:
        timings = {f"c-slow, {error.facts['c_slow']}": {"c_slow": None}, "relaxed": {"relax_timing": True}}
    programs = [deployed(title, held, test, arguments.bits, options) for title, options in timings.items()]
    if arguments.approach:
        for row in programs:
            row["approach"] = approach(network, row["program"], test.inputs[:SHOWN], arguments.approach)
    return {
        "seed": seed,
        "accuracy": trained["metric"]["value"],
        **{key: trained[key] for key in ("cpu_seconds", "norm_product", "norm_bound", "spike_rate")},
        "steps": [
            {"steps": one.steps, "accuracy": one.accuracy, "spike_rate": one.spike_rate} for one in curve
        ],
        "programs": [{key: value for key, value in row.items() if key != "program"} for row in programs],
    }


def trained_by_command(preset: str, path: Path, settings: list[str]) -> Row:
    """Return what snn-train printed for a checkpoint, training it if it is not there."""
    output = path.with_suffix(".json")
    if not (path.exists() and output.exists()):
        command = [sys.executable, "-m", "snn_compile.train.cli", preset, "-o", str(path), "--json"]
        command += [word for setting in settings for word in ("--set", setting)]
        MESSAGES.print(" ".join(command[1:]))
        output.write_text(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    found: Row = json.loads(output.read_text())
    return found


def deployed(title: str, held: train.Checkpoint, test: Any, bits: int, options: Row) -> Row:
    """Compile a checkpoint and return its program's results on the test images."""
    MESSAGES.print(f"{title}: compiling and running")
    calibration = runtime.load_data("fashion-mnist", "calibration", **held.data["options"])
    made = compiler.Options(weight_bits=bits, **options)
    done = compiler.compile_stages(held.graph, "loihi2-sim", made, calibration.inputs)
    found = runtime.compare(done.program, done.network, test.inputs, test.labels, data=test.spec()).json()
    accuracy = found["accuracy"]
    return {
        "timing": title,
        "program": done.program,
        **{key: accuracy[key] for key in ("float", "deployed", "drop", "interval")},
        "cores": len(done.program.cores),
        "spikes": found["counts"]["per_sample"]["spikes"],
        "synops": found["counts"]["per_sample"]["synops"],
    }


def approach(network: Any, program: Any, inputs: np.ndarray, steps: int) -> list[Row]:
    """Return, at some steps, the distances of the first layer's rates from the network's equilibrium."""
    still = torch.from_numpy(inputs[:, :1].copy()).float()
    current = network.currents(still)
    try:
        wanted = network.equilibrium(current[:, 0]).flatten(1).numpy()
    except SnnCompileError as error:
        MESSAGES.print(str(error))
        return []
    shown = np.broadcast_to(inputs[:, :1], (len(inputs), steps, *inputs.shape[2:]))
    first = network.layer_names[0]
    spikes = runtime.simulate(program, shown, record=(first,)).spikes(first).reshape(len(inputs), steps, -1)
    rows, total, mine, size = [], 0.0, np.zeros_like(wanted), np.linalg.norm(wanted)
    for t, (sums, _, _) in enumerate(network.stepped(current, steps), start=1):
        total = network.config.decay * total + 1
        mine = network.config.decay * mine + spikes[:, t - 1]
        if t in STEPS or t % 50 == 0 or t == steps:
            theirs = sums[0].flatten(1).numpy()
            distances = (np.linalg.norm(x / total - wanted) / size for x in (theirs, mine))
            rows.append({"steps": t, **dict(zip(("float", "program"), map(float, distances), strict=True))})
    return rows


def show(rows: list[Row]) -> None:
    """Print accuracies by seed, by steps, and of the programs."""
    out = Console(width=120, highlight=False)
    first = _table("seed", "test accuracy", "CPU min", "norms, product / bound")
    for row in rows:
        norms = f"{row['norm_product']:.2f} / {row['norm_bound']:g}"
        first.add_row(str(row["seed"]), f"{row['accuracy']:.2%}", f"{row['cpu_seconds'] / 60:.1f}", norms)
    values = [row["accuracy"] for row in rows]
    first.add_row("mean", f"{np.mean(values):.2%} ± {np.std(values):.2%}", "", "")
    out.print(first)
    second = _table("steps", *(f"seed {row['seed']}" for row in rows), "spikes/neuron/step")
    for number, one in enumerate(rows[0]["steps"]):
        cells = [f"{row['steps'][number]['accuracy']:.2%}" for row in rows]
        second.add_row(str(one["steps"]), *cells, f"{one['spike_rate']:.4f}")
    out.print(second)
    third = _table("seed", "timing", "float", "deployed", "drop, points", "95 % interval", "cores", "synops")
    for row in rows:
        for one in row["programs"]:
            low, high = one["interval"]
            third.add_row(
                str(row["seed"]),
                one["timing"],
                f"{one['float']:.2%}",
                f"{one['deployed']:.2%}",
                f"{one['drop']:+.2f}",
                f"{low:+.2f} to {high:+.2f}",
                str(one["cores"]),
                f"{one['synops']:,.0f}",
            )
    out.print(third)
    for row in rows:
        for one in row["programs"]:
            if one.get("approach"):
                last = _table("steps", "float to equilibrium", f"program ({one['timing']})")
                for at in one["approach"]:
                    last.add_row(str(at["steps"]), f"{at['float']:.4f}", f"{at['program']:.4f}")
                out.print(last)


def _table(*heads: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    return table


if __name__ == "__main__":
    sys.exit(main())
