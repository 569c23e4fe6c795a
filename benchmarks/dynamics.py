"""Orders of Euler-Maruyama with many paths, and the figure of docs/experiments.md.

    python benchmarks/dynamics.py [--paths 100000] [--levels 7] [--seeds 0] [--figure FILE.png]

prints the slopes of strong and weak errors and of the mismatch with their 95 % intervals, and Lyapunov
exponents in both ways. Exits with 1 where the strong order is not 0.5 +- 0.06 or the weak not 1.0 +- 0.1.
"""

from __future__ import annotations

import argparse
import sys

from snn_compile.train.analysis.dynamics import draw_dynamics, dynamics_text, run_dynamics


def main() -> int:
    """Run the benchmark and return its exit code."""
    parser = argparse.ArgumentParser(description="Orders of Euler-Maruyama with many paths.")
    parser.add_argument("--paths", type=int, default=100_000)
    parser.add_argument("--levels", type=int, default=7)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--figure", metavar="FILE")
    arguments = parser.parse_args()
    missed = False
    for seed in arguments.seeds:
        result, found = run_dynamics(
            arguments.paths,
            arguments.levels,
            seed,
            lambda text: print(text, file=sys.stderr),
            finest=2.0**-11,
        )
        print(f"seed {seed}\n{dynamics_text(result)}\n")
        strong, weak = result["strong"]["slope"], result["weak"]["slope"]
        missed |= abs(strong - 0.5) > 0.06 or abs(weak - 1.0) > 0.1
        if arguments.figure and seed == arguments.seeds[0]:
            draw_dynamics(found, arguments.figure)
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
