"""Whether more calibration data ever makes a program follow its network less closely.

    python benchmarks/calibration_data.py [--networks N] [--seed S] [--json]

Draws random networks of LIF and current-based LIF neurons, feed-forward and recurrent, whose weights have
random scales and outliers, and compiles each on 8, 32 and 96 samples (each set holds the one before), on 32
other samples and on 32 of a third of the rate. Every program is compared with the float network on the same
300 fresh samples: the share with its class, the share with all of its output counts, the share of spikes
changed.

Roundings are a draw of their own: programs of two sets of equal size differ too. More data is worse than that
if a measure's mean over the networks falls by more than `SIGMAS` standard errors of the paired difference, or
if more than `DROPS_ALLOWED` of the pairs drop: same class by more than 2 points, or same counts by more than
15, and by more than `SIGMAS` standard deviations on the fresh samples. Exit code 1 if so.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from typing import Any

import nir
import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from snn_compile import compiler, runtime

NUMBERS = ("8", "32", "96")
PAIRS = (("8", "32"), ("32", "96"), ("8", "96"))
LEAST_DROP = {"classes": 0.02, "counts": 0.15}
SIGMAS = 3.0
DROPS_ALLOWED = 0.04


@dataclass(frozen=True, eq=False)
class Drawn:
    """A random network, its sizes and the rate of its inputs."""

    graph: nir.NIRGraph
    conventions: dict[str, Any]
    channels: int
    steps: int
    rate: float
    words: str

    def inputs(self, rng: np.random.Generator, samples: int, rate: float | None = None) -> np.ndarray:
        """Return Bernoulli spikes (samples, steps, channels)."""
        drawn = rng.random((samples, self.steps, self.channels))
        return (drawn < (self.rate if rate is None else rate)).astype(np.float64)


def draw(seed: int) -> Drawn:
    """Return the random network of a seed: one or two hidden layers, perhaps recurrent, and classes."""
    rng = np.random.default_rng([seed, 13])
    sizes = [int(rng.integers(4, 13)), *(int(n) for n in rng.integers(8, 33, rng.integers(1, 3)))]
    sizes.append(int(rng.integers(3, 8)))
    rate = float(rng.uniform(0.03, 0.3))
    kinds = rng.choice(["lif", "cuba"], len(sizes) - 1)
    recurrent = rng.random(len(sizes) - 1) < (0.5, 0.5, 0.1)[-(len(sizes) - 1) :]
    reset = str(rng.choice(["value", "subtract"]))
    gain = float(np.exp(rng.uniform(np.log(0.5), np.log(4.0))))
    nodes: dict[str, Any] = {"input": nir.Input({"input": np.array([sizes[0]])})}
    edges, delays, last = [], {}, "input"
    for i, kind in enumerate(kinds):
        sources, targets, cell = sizes[i], sizes[i + 1], f"cell{i}"
        scale = gain * rng.uniform(0.6, 1.6) / np.sqrt(sources * max(rate, 0.1))
        nodes[f"fc{i}"] = nir.Affine(_weights(rng, targets, sources, scale), rng.normal(0.02, 0.05, targets))
        nodes[cell] = _neurons(rng, str(kind), targets)
        edges += [(last, f"fc{i}"), (f"fc{i}", cell)]
        if recurrent[i]:
            nodes[f"back{i}"] = nir.Linear(_weights(rng, targets, targets, scale * rng.uniform(0.2, 1.0)))
            edges += [(cell, f"back{i}"), (f"back{i}", cell)]
            delays[cell, f"back{i}"] = 1
        last = cell
    nodes["output"] = nir.Output({"output": np.array([sizes[-1]])})
    edges.append((last, "output"))
    stated = {"dt": 1.0, "rule": "euler", "reset": reset, "reset_timing": "same_step", "comparison": ">"}
    stated |= {"delays": delays} if delays else {}
    words = "-".join(map(str, sizes)) + f" {'/'.join(kinds)}{' recurrent' if recurrent.any() else ''} {reset}"
    steps = int(rng.integers(30, 121))
    return Drawn(nir.NIRGraph(nodes, edges), stated, sizes[0], steps, rate, f"{words}, gain {gain:.1f}")


def _weights(rng: np.random.Generator, targets: int, sources: int, scale: float) -> np.ndarray:
    found = rng.normal(0.0, scale, (targets, sources))
    if rng.random() < 0.6:
        share = int(rng.integers(1, max(2, found.size // 20) + 1))
        where = rng.choice(found.size, share, replace=False)
        found.flat[where] += rng.choice([-1, -1, 1]) * rng.uniform(3, 15, share) * scale
    return found


def _neurons(rng: np.random.Generator, kind: str, size: int) -> nir.NIRNode:
    tau = rng.uniform(2.0, 25.0) * np.ones(size)
    common = {"v_leak": np.zeros(size), "v_threshold": np.ones(size), "v_reset": np.zeros(size)}
    if kind == "lif":
        return nir.LIF(tau=tau, r=tau * rng.uniform(0.2, 0.6), **common)
    tau_syn = rng.uniform(1.5, 8.0) * np.ones(size)
    gain = rng.uniform(0.2, 0.6) * np.ones(size)
    return nir.CubaLIF(tau_syn=tau_syn, tau_mem=tau, r=tau * gain, w_in=np.ones(size), **common)


@dataclass(frozen=True, eq=False)
class Followed:
    """How a program follows its network on fresh samples: per sample its class and its counts, and spikes."""

    classes: np.ndarray
    counts: np.ndarray
    changed: float
    bits: int


def follow(drawn: Drawn, network: Any, calibration: np.ndarray, fresh: np.ndarray, ideal: Any) -> Followed:
    """Compile on calibration data and compare on fresh data with the float network's record."""
    program = compiler.compile_graph(network, calibration=calibration)
    names = [p.name for p in network.populations if p.spiking]
    kept = [p.name for p in program.populations]
    names = [name for name in names if name in kept]
    record = runtime.simulate(program, fresh, record=names)
    wanted, found = (r.outputs.sum(axis=1).reshape(len(fresh), -1) for r in (ideal, record))
    changed = total = 0.0
    for name in names:
        theirs = ideal.spikes(name).astype(np.int64)
        changed += np.abs(record.spikes(name).astype(np.int64) - theirs).sum()
        total += theirs.sum()
    return Followed(
        record.predictions == ideal.predictions,
        (wanted == found).all(axis=1),
        float(changed / max(total, 1.0)),
        sum(core.use["synapse_bits"] for core in program.cores),
    )


def measure(seed: int, samples: int = 300) -> dict[str, Any] | None:
    """Return how the programs of one network follow it, None if it hardly spikes or always does."""
    drawn = draw(seed)
    network = compiler.lower(drawn.graph, drawn.conventions)
    fresh = drawn.inputs(np.random.default_rng([seed, 1]), samples)
    names = [p.name for p in network.populations if p.spiking]
    ideal = runtime.reference(network, fresh, record=names)
    rate = float(ideal.outputs.mean())
    if not 0.002 < rate < 0.9:
        return None
    most = drawn.inputs(np.random.default_rng([seed, 2]), int(NUMBERS[-1]))
    sets = {n: most[: int(n)] for n in NUMBERS}
    sets["other 32"] = drawn.inputs(np.random.default_rng([seed, 4]), 32)
    sets["far"] = drawn.inputs(np.random.default_rng([seed, 3]), 32, drawn.rate / 3)
    found = {key: follow(drawn, network, data, fresh, ideal) for key, data in sets.items()}
    return {"seed": seed, "network": drawn.words, "rate": rate, "found": found}


def drops(row: dict[str, Any]) -> list[str]:
    """Return where more data made the program of a network clearly worse."""
    found = []
    for less, more in PAIRS:
        a, b = row["found"][less], row["found"][more]
        for name, least in LEAST_DROP.items():
            before, after = getattr(a, name), getattr(b, name)
            lost, won = int((before & ~after).sum()), int((after & ~before).sum())
            if lost - won > max(least * len(before), SIGMAS * np.sqrt(lost + won)):
                found.append(f"{less} to {more} samples: {name} {before.mean():.1%} to {after.mean():.1%}")
    return found


def means(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Return the mean over networks of each measure, and of the synapse memory, by calibration set."""
    return {
        key: {
            "classes": float(np.mean([row["found"][key].classes.mean() for row in rows])),
            "counts": float(np.mean([row["found"][key].counts.mean() for row in rows])),
            "changed": float(np.mean([row["found"][key].changed for row in rows])),
            "synapse_bits": float(np.mean([row["found"][key].bits for row in rows])),
        }
        for key in rows[0]["found"]
    }


def failures(rows: list[dict[str, Any]]) -> list[str]:
    """Return what fails the acceptance."""
    found = []
    for less, more in PAIRS:
        for name, sign in (("classes", 1), ("counts", 1), ("changed", -1)):
            pairs = [[np.mean(getattr(row["found"][key], name)) for key in (less, more)] for row in rows]
            gain = sign * np.diff(pairs, axis=1)[:, 0]
            if gain.mean() < -SIGMAS * gain.std(ddof=1) / np.sqrt(len(gain)):
                found.append(f"{less} to {more} samples: mean of {name} is worse by {-gain.mean():.2%}")
    lost = sum(len(drops(row)) for row in rows)
    if lost > DROPS_ALLOWED * len(rows) * len(PAIRS):
        found.append(f"{lost} drops in {len(rows) * len(PAIRS)} pairs")
    return found


def main() -> int:
    """Draw, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", type=int, default=300, help="networks drawn (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the first; the others count up")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    seeds = range(arguments.seed, arguments.seed + arguments.networks)
    rows = [row for seed in seeds if (row := measure(seed)) is not None]
    wrong, table, worse = failures(rows), means(rows), {row["seed"]: drops(row) for row in rows}
    worse = {seed: found for seed, found in worse.items() if found}
    if arguments.json:
        schema = {"name": "snn-compile-calibration-data", "version": 1}
        body = {"schema": schema, "networks": len(rows), "means": table, "drops": worse, "failures": wrong}
        print(json.dumps(body))
        return 1 if wrong else 0
    out = Console(width=110, highlight=False)
    shown = Table(box=box.SIMPLE_HEAD, title=f"means of {len(rows)} networks", title_justify="left")
    for head in ("calibrated on", "same class", "same counts", "spikes changed", "synapse bits"):
        shown.add_column(head)
    for key, row in table.items():
        shares = (f"{row[name]:.1%}" for name in ("classes", "counts", "changed"))
        shown.add_row(key, *shares, f"{row['synapse_bits']:,.0f}")
    out.print(shown)
    for seed, found in worse.items():
        out.print(f"network {seed}: {'; '.join(found)}")
    out.print("accepted" if not wrong else "not accepted: " + "; ".join(wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
