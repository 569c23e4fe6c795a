"""How fast `loihi2-sim` is, as ratios measured side by side.

    python benchmarks/simulator.py                 workload W1: 784-512-512-10, one sample at a time
    python benchmarks/simulator.py --steps 300 --rounds 7

Each round runs, in turn, one sample through `loihi2-sim` (the whole call: encoding, run, counts), through
Lava's CPU runtime (the run alone, set up beforehand, processes kept alive) and through the oracle; the
ratio is that of the minimum times. Before timing, spikes of the two devices are compared. Absolute times
depend on the machine and are printed to check the ratios, not to quote.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from snn_compile import targets

SIZES = (784, 512, 512, 10)
INPUT_RATE = 0.10


def workload(steps: int, seed: int = 1) -> tuple[targets.Program, np.ndarray]:
    """Return W1, whose hidden layers fire at about one step in ten, and one sample (1, steps, 784)."""
    rng = np.random.default_rng(seed)
    populations, projections = [], []
    for layer, (fan_in, size) in enumerate(zip(SIZES[:-1], SIZES[1:], strict=True)):
        name, source = f"layer{layer + 1}", f"layer{layer}" if layer else "input"
        weights = rng.integers(-127, 128, (size, fan_in)) * 2
        threshold = int(64 * 2.6 * np.sqrt(fan_in * INPUT_RATE))
        parameters = {"du": 4095, "dv": 400, "vth": threshold, "bias_mant": 0, "bias_exp": 0, "v_init": 0}
        populations.append(targets.Population(name, (size,), "lif", parameters, start_step=layer + 1))
        projections.append(
            targets.Projection(f"{source}-{name}", source, name, (targets.WeightTable(weights),))
        )
    program = targets.Program(
        "loihi2",
        targets.load_chip("loihi2").version,
        tuple(populations),
        tuple(projections),
        (targets.InputPort("input", (SIZES[0],)),),
        (targets.OutputPort("output", populations[-1].name),),
    )
    return program, (rng.random((1, steps, SIZES[0])) < INPUT_RATE).astype(np.uint8)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    program, sample = workload(arguments.steps)
    names = tuple(p.name for p in program.populations)
    ours = targets.execute(program, sample, "loihi2-sim", record=names)
    theirs = targets.execute(program, sample, "lava", record=names)
    equal = all(np.array_equal(ours.spikes(name), theirs.spikes(name)) for name in names)
    with LavaRun(program, sample) as lava:
        runs: dict[str, Callable[[], Any]] = {
            "loihi2-sim": lambda: targets.execute(program, sample, "loihi2-sim"),
            "lava": lava.run,
            "oracle": lambda: targets.execute(program, sample, "oracle"),
        }
        times = interleaved(runs, arguments.rounds)
    result = {
        "schema": {"name": "snn-compile-simulator-benchmark", "version": 1},
        "workload": "W1",
        "sizes": SIZES,
        "steps": arguments.steps,
        "rounds": arguments.rounds,
        "spikes_equal": equal,
        "rates": ours.counts.rates(),
        "synops": ours.counts.total_synops,
        "least_s": {k: min(v) for k, v in times.items()},
        "ratio_lava": min(times["lava"]) / min(times["loihi2-sim"]),
        "ratio_oracle": min(times["oracle"]) / min(times["loihi2-sim"]),
        "gsynops_per_s": ours.counts.total_synops / min(times["loihi2-sim"]) / 1e9,
    }
    if arguments.json:
        print(json.dumps(result))
        return 0
    print(
        f"W1 {'-'.join(map(str, SIZES))}, batch 1, {arguments.steps} steps, {arguments.rounds} rounds; "
        f"{result['synops']:,} synops; spikes {'equal' if equal else 'DIFFER'}"
    )
    for name, seconds in times.items():
        print(
            f"  {name:12} least {min(seconds) * 1e3:9.3f} ms   "
            f"{min(seconds) / min(times['loihi2-sim']):8.1f} x loihi2-sim"
        )
    print(f"  loihi2-sim: {result['gsynops_per_s']:.1f} Gsynop/s, everything counted")
    return 0 if equal else 1


def interleaved(runs: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Run each in turn, `rounds` times after one that is not counted; return seconds by name."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for index in range(rounds + 1):
        for name, run in runs.items():
            began = time.perf_counter()
            run()
            if index:
                times[name].append(time.perf_counter() - began)
    return times


class LavaRun:
    """A program kept alive in Lava's runtime; `run` plays the sample once more."""

    def __init__(self, program: targets.Program, sample: np.ndarray) -> None:
        from snn_compile.targets.lava.compat import load_lava

        lava = load_lava()
        from snn_compile.targets.lava.network import to_lava

        network = to_lava(program, {"input": sample[0].astype(np.int32)})
        self._condition = lava.RunSteps(num_steps=sample.shape[1])
        self._config = lava.Loihi2SimCfg(select_tag="fixed_pt")
        self._process = next(iter(network.populations.values()))

    def __enter__(self) -> LavaRun:
        self.run()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stop()

    def run(self) -> None:
        """Advance by the sample's steps."""
        self._process.run(condition=self._condition, run_cfg=self._config)


if __name__ == "__main__":
    sys.exit(main())
