"""Forward propagation through time on the Add task, its memory and its cost.

    python benchmarks/fptt.py add --steps 40 100 200 --updates 600 --seeds 0 1 2 -o add.json
    python benchmarks/fptt.py table add.json [more.json ...] [--figure add.png]
    python benchmarks/fptt.py bytes
    python benchmarks/fptt.py time
    python benchmarks/fptt.py fused

`add` trains the same layer of 128 units on batches of 128 new sequences: liquid spiking neurons by FPTT in 10
parts, by backpropagation through time, and ALIF by FPTT. An update is one batch of sequences, all its parts,
as in the authors' logs; the error is that of the last part, its mean over 50 updates is what is compared with
a limit. The learning rate falls linearly to 0 over the updates asked for. Then the mean squared error on a
fixed test set of 2000 sequences. `bytes` counts what is saved for the backward pass, `time` gives CPU time
per sequence as ratios measured side by side, `fused` that of a liquid layer stepped by its definition against
its block as one operation.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from snn_compile.runtime.data.registry import load_data
from snn_compile.targets.errors import SnnCompileError
from snn_compile.train.algorithms.fptt import build_network, evaluate, schedule_of, trainer_of
from snn_compile.train.algorithms.fptt_losses import block_weight
from snn_compile.train.analysis.memory import saved_bytes
from snn_compile.train.configs.fptt import FpttConfig
from snn_compile.train.configs.presets import read_config
from snn_compile.train.networks.lsn_layers import LiquidLayer, first_state
from snn_compile.train.neurons.lsn import Liquid, liquid_step

METHODS: dict[str, dict[str, Any]] = {
    "LSN, FPTT": {},
    "LSN, FPTT, constant rate": {"schedule": "constant"},
    "LSN, BPTT": {"parts": 1, "alpha": 0.0},
    "ALIF, FPTT": {"neuron": "alif"},
    "ALIF, BPTT": {"neuron": "alif", "parts": 1, "alpha": 0.0},
    "LSTM, FPTT": {"neuron": "lstm"},
    "LSTM, BPTT": {"neuron": "lstm", "parts": 1, "alpha": 0.0},
    "LSN without adaptation, FPTT": {"adaptive": False},
    "LSN, FPTT, linear block weight": {"block_weight": "linear"},
    "LSN, FPTT as printed": {"form": "paper"},
    "LSN, truncated BPTT": {"alpha": 0.0},
}
MAIN = ["LSN, FPTT", "LSN, BPTT", "ALIF, FPTT"]
EPOCH, WINDOW, LIMITS = 100, 50, (0.1, 0.02)


def preset(steps: int, seed: int, **values: Any) -> FpttConfig:
    """Return the preset's configuration with some values."""
    config = read_config("add-task-fptt", [f"steps={steps}", f"seed={seed}"])
    assert isinstance(config, FpttConfig)
    return replace(config, **values)


def learn(method: str, steps: int, seed: int, updates: int) -> dict[str, Any]:
    """Train and return the error of every update, and that on the test set."""
    config = preset(steps, seed, **METHODS[method])
    torch.manual_seed(seed)
    test = load_data("add", "test", steps=steps)
    network = build_network(config, test)
    training = trainer_of(config, network, test)
    parts = -(-steps // training.block)
    schedule = schedule_of(config, training.optimizer, updates)
    last, errors, stopped = block_weight(config.block_weight, parts - 1, parts), [], ""
    started = time.process_time()
    try:
        for update in range(updates):
            if update % EPOCH == 0:
                inputs, targets = drawn(config, update // EPOCH)
                training.restart()
            first = update % EPOCH * config.batch_size
            some = slice(first, first + config.batch_size)
            errors.append(training.update(inputs[some], targets[some]).loss / last)
            schedule.step()
    except SnnCompileError as error:
        stopped = str(error)
    metrics = evaluate(network, test, config)
    return {
        "method": method,
        "steps": steps,
        "seed": seed,
        "cpu_seconds": round(time.process_time() - started, 1),
        "test_mse": metrics.value,
        "spike_rate": metrics.spike_rate,
        "stopped": stopped,
        "errors": [round(float(error), 6) for error in errors],
    }


def drawn(config: FpttConfig, epoch: int) -> tuple[Tensor, Tensor]:
    """Return the sequences of an epoch."""
    seed = (config.seed << 20) + epoch + 1
    data = load_data("add", "train", steps=config.steps, sequences=EPOCH * config.batch_size, seed=seed)
    return torch.tensor(data.inputs, dtype=torch.float32), torch.tensor(data.targets, dtype=torch.float32)


def means(errors: list[float]) -> np.ndarray[Any, Any]:
    """Return the means over the last updates, from the first full window on."""
    return np.convolve(errors, np.ones(WINDOW) / WINDOW, "valid")


def reached(errors: list[float], limit: float) -> int | None:
    """Return the updates after which the mean was below a limit, None if it never was."""
    below = np.flatnonzero(means(errors) < limit) if len(errors) >= WINDOW else []
    return int(below[0]) + WINDOW if len(below) else None


def table(runs: list[dict[str, Any]]) -> str:
    """Return the runs as rows of a table."""
    head = "steps method seed updates below_0.1 below_0.02 mean_of_the_last_50 test_mse spikes"
    names = [name.replace("_", " ") for name in head.split()]
    rows = [f"| {' | '.join(names)} |", "|" + "---|" * len(names)]
    for run in sorted(runs, key=lambda r: (r["steps"], list(METHODS).index(r["method"]), r["seed"])):
        errors = run["errors"]
        when = [str(reached(errors, limit) or "never") for limit in LIMITS]
        last = f"{np.mean(errors[-WINDOW:]):.4f}" + (" (stopped)" if run["stopped"] else "")
        cells = [run["steps"], run["method"], run["seed"], len(errors), *when, last]
        cells += [f"{run['test_mse']:.4f}", f"{run['spike_rate']:.3f}"]
        rows.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(rows)


def draw(runs: list[dict[str, Any]], path: Path) -> None:
    """Draw the running means over updates, a panel for each length."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    lengths = sorted({run["steps"] for run in runs})
    figure, panels = pyplot.subplots(
        1, len(lengths), figsize=(4 * len(lengths), 3.2), sharey=True, squeeze=False
    )
    for panel, steps in zip(panels[0], lengths, strict=True):
        for number, method in enumerate(METHODS):
            some = [run for run in runs if run["steps"] == steps and run["method"] == method]
            for index, run in enumerate(some):
                curve = means(run["errors"])
                updates = np.arange(len(curve)) + WINDOW
                label = None if index else method
                panel.semilogy(updates, curve, color=f"C{number}", label=label, linewidth=1)
        panel.axhline(1 / 6, color="grey", linestyle=":", linewidth=1)
        panel.set(title=f"T = {steps}", xlabel="updates")
    panels[0][0].set_ylabel(f"squared error, mean over {WINDOW} updates")
    panels[0][0].legend(fontsize="small")
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def count_bytes(lengths: tuple[int, ...] = (64, 128, 256, 512, 1024)) -> dict[str, Any]:
    """Return the bytes kept for one backward pass, by length and block, of 128 units and 128 sequences."""
    network = build_network(preset(2, 0), load_data("add", "test", steps=2))
    found: dict[str, Any] = {"steps": list(lengths), "BPTT": []}
    for steps in lengths:
        inputs = torch.rand(128, steps, 2)
        found["BPTT"].append(saved_bytes(network, inputs))
        for block in (1, 10):
            found.setdefault(f"FPTT, {block} a block", []).append(saved_bytes(network, inputs, block))
    whole, line = np.array(found["BPTT"]), np.polyfit(lengths, found["BPTT"], 1)
    left = whole - np.polyval(line, lengths)
    found["r_squared"] = 1 - float((left**2).sum() / ((whole - whole.mean()) ** 2).sum())
    found["ratio"] = found["BPTT"][-1] / found["FPTT, 1 a block"][-1]
    return found


def measure_time(lengths: tuple[int, ...], blocks: tuple[int, ...], rounds: int) -> list[dict[str, Any]]:
    """Return CPU times of one update by length and block (0: the whole sequence), the least of rounds."""
    ways: dict[tuple[int, int], Any] = {}
    for steps in lengths:
        inputs, targets = drawn(preset(steps, 0), 0)
        for block in blocks:
            values = {"block": block} if block else {"parts": 1, "alpha": 0.0}
            data = load_data("add", "test", steps=steps)
            config = preset(steps, 0, **values)
            training = trainer_of(config, build_network(config, data), data)
            ways[steps, block] = training, inputs[:128], targets[:128]
    least = dict.fromkeys(ways, float("inf"))
    for _ in range(rounds + 1):  # the first warms up
        for key, (training, inputs, targets) in ways.items():
            started = time.process_time()
            training.update(inputs, targets)
            least[key] = min(least[key], time.process_time() - started)
    base = least[lengths[0], 0]
    return [
        {"steps": steps, "block": block, "seconds": seconds, "of_bptt_at_the_first": seconds / base}
        for (steps, block), seconds in least.items()
    ]


def measure_fused(steps: int, batch: int, units: int, rounds: int = 5) -> dict[str, Any]:
    """Return CPU times of forward and backward pass of a liquid layer, stepped and fused, least of rounds."""
    torch.manual_seed(0)
    layer, x = LiquidLayer(2, units, Liquid()), torch.rand(steps, batch, 2)

    def stepped() -> Tensor:
        state = first_state(torch.zeros(batch, units), "zero")
        for d in layer.input(x):
            state = liquid_step(d, state, layer.gates(), layer.kind)[1]
        return state[0]

    ways = {"stepped": stepped, "fused": lambda: layer.block(x, None)[1][-1]}
    least = dict.fromkeys(ways, float("inf"))
    for _ in range(rounds + 1):  # the first compiles
        for name, run in ways.items():
            started = time.process_time()
            run().sum().backward()
            least[name] = min(least[name], time.process_time() - started)
    sizes = {"steps": steps, "batch": batch, "units": units}
    return {**sizes, **least, "ratio": least["stepped"] / least["fused"]}


def main(argv: list[str] | None = None) -> int:
    """Run what is asked for and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parts = parser.add_subparsers(dest="what", required=True)
    add = parts.add_parser("add")
    add.add_argument("--steps", type=int, nargs="+", default=[40, 100, 200])
    add.add_argument("--updates", type=int, default=600)
    add.add_argument("--seeds", type=int, nargs="+", default=[0])
    add.add_argument("--methods", nargs="+", default=MAIN, choices=list(METHODS))
    add.add_argument("-o", "--output", type=Path, required=True)
    shown = parts.add_parser("table")
    shown.add_argument("runs", type=Path, nargs="+")
    shown.add_argument("--figure", type=Path)
    parts.add_parser("bytes")
    parts.add_parser("fused")
    timed = parts.add_parser("time")
    timed.add_argument("--steps", type=int, nargs="+", default=[50, 100, 200, 400])
    timed.add_argument("--blocks", type=int, nargs="+", default=[0, 1, 5, 20])
    timed.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    if arguments.what == "add":
        runs = []
        for seed in arguments.seeds:
            for steps in arguments.steps:
                for method in arguments.methods:
                    runs.append(learn(method, steps, seed, arguments.updates))
                    print(table(runs[-1:]).splitlines()[-1], file=sys.stderr, flush=True)
                    arguments.output.write_text(json.dumps(runs))
        print(table(runs))
    elif arguments.what == "table":
        runs = [run for path in arguments.runs for run in json.loads(path.read_text())]
        print(table(runs))
        if arguments.figure:
            draw(runs, arguments.figure)
    elif arguments.what == "bytes":
        print(json.dumps(count_bytes(), indent=1))
    elif arguments.what == "fused":
        sizes = (196, 256, 128), (100, 128, 128), (1300, 16, 36)
        print(json.dumps([measure_fused(*size) for size in sizes], indent=1))
    else:
        lengths, blocks = tuple(arguments.steps), tuple(arguments.blocks)
        print(json.dumps(measure_time(lengths, blocks, arguments.rounds), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
