"""How much whole recurrent sequences gain from one hand-written operation, as ratios measured side by side.

    python benchmarks/fused.py                 196 steps, batch 256, 128 neurons: BRF, RF, ALIF, LIF
    python benchmarks/fused.py --steps 784 --rounds 9 --json

Each round takes, in turn, the gradients of a layer stepped by its definition under autograd and of the fused
operation; the ratio is of the least CPU times. BLAS has one thread. Before timing, spikes are compared and
the largest relative difference of a gradient is told. Both ways need at least one product of dense matrices a
step, the gradient's with the recurrent weights, so that the ratio falls where that dominates. Absolute times
depend on the machine and stand in the JSON to read the ratios by, not to quote.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from snn_compile.train.adaptive import Adaptation, adaptive_step
from snn_compile.train.fused import run_adaptive, run_integrators, run_resonators
from snn_compile.train.neurons import CubaLIFParameters, Firing, cuba_lif_step
from snn_compile.train.resonators import Resonance, damping, resonator_step
from snn_compile.train.sequence import Step

Run = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Family:
    """A layer two ways, and the ranges of its two parameters; `scale` is that of what arrives."""

    eager: Run
    fused: Run
    ranges: tuple[tuple[float, float], tuple[float, float]]
    scale: float


def by_steps(step: Callable[..., Any], states: int) -> Run:
    """Return the run of a step function (arrives, states, last spikes, one, two) -> (spikes, states)."""

    def run(x: Tensor, weight: Tensor, one: Tensor, two: Tensor) -> Tensor:
        z = x.new_zeros(x.shape[1:])
        held, out = (z,) * states, []
        for now in x:
            z, held = step(now + nn.functional.linear(z, weight), held, z, one, two)
            out.append(z)
        return torch.stack(out)

    return run


def resonators(kind: Resonance) -> Family:
    """Return resonators of a kind."""

    def step(x: Tensor, states: Any, last: Tensor, omega: Tensor, offset: Tensor) -> Any:
        return resonator_step(x, states, *damping(omega, offset, kind), kind)

    def fused(x: Tensor, weight: Tensor, omega: Tensor, offset: Tensor) -> Tensor:
        return run_resonators(x, weight, *damping(omega, offset, kind), kind)[0]

    return Family(by_steps(step, 3), fused, ((15.0, 50.0), (0.1, 1.0)), 1 / kind.delta)


def adaptive() -> Family:
    """Return ALIF."""
    kind = Adaptation()

    def step(x: Tensor, states: Any, last: Tensor, alpha: Tensor, rho: Tensor) -> Any:
        z, (u, a, _) = adaptive_step(x, (*states, last), alpha, rho, kind)
        return z, (u, a)

    def fused(x: Tensor, weight: Tensor, alpha: Tensor, rho: Tensor) -> Tensor:
        return run_adaptive(x, weight, alpha, rho, kind)[0]

    return Family(by_steps(step, 2), fused, ((0.9, 0.97), (0.98, 0.997)), 0.3)


def integrators() -> Family:
    """Return CubaLIF, of which LIF is a case."""
    kind = Step(True, 1.0, 1.0, False, True, "arctan")

    def step(x: Tensor, states: Any, last: Tensor, alpha: Tensor, beta: Tensor) -> Any:
        firing = Firing(kind.threshold, "value", kind.surrogate, kind.detached)
        return cuba_lif_step(x, states, CubaLIFParameters(alpha, beta, firing))

    def fused(x: Tensor, weight: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
        return run_integrators(x, weight, alpha, beta, kind)[0]

    return Family(by_steps(step, 2), fused, ((0.1, 0.5), (0.8, 0.95)), 1.5)


FAMILIES = {
    "brf": resonators(Resonance()),
    "rf": resonators(Resonance(False, False, False)),
    "alif": adaptive(),
    "lif": integrators(),
}


def measure(family: Family, steps: int, batch: int, size: int, rounds: int) -> dict[str, float]:
    """Return the least seconds both ways, their ratio, the spike rate and the gradients' difference."""
    generator = torch.Generator().manual_seed(0)

    def uniform(low: float, high: float) -> Tensor:
        return (low + (high - low) * torch.rand(size, generator=generator)).requires_grad_()

    x = (family.scale * 0.3 * torch.randn(steps, batch, size, generator=generator)).requires_grad_()
    weight = (family.scale * 0.2 * torch.randn(size, size, generator=generator) / size**0.5).requires_grad_()
    values = [x, weight, *(uniform(*bounds) for bounds in family.ranges)]
    pull = torch.randn(steps, batch, size, generator=generator)

    def once(run: Run) -> tuple[float, Tensor, tuple[Tensor, ...]]:
        start = time.process_time()
        z = run(*values)
        gradients = torch.autograd.grad(z, values, pull)
        return time.process_time() - start, z.detach(), gradients

    least = {"eager": float("inf"), "fused": float("inf")}
    (_, one, a), (_, two, b) = once(family.eager), once(family.fused)
    differ = int((one != two).sum())
    apart = max(float((p - q).abs().max() / p.abs().max()) for p, q in zip(a, b, strict=True))
    for _ in range(rounds):
        for name, run in (("eager", family.eager), ("fused", family.fused)):
            least[name] = min(least[name], once(run)[0])
    return {
        "ratio": least["eager"] / least["fused"],
        "eager_seconds": least["eager"],
        "fused_seconds": least["fused"],
        "spike_rate": float(one.mean()),
        "spikes_that_differ": differ,
        "gradient_difference": apart,
    }


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("families", nargs="*", default=list(FAMILIES), help=f"of {', '.join(FAMILIES)}")
    parser.add_argument("--steps", type=int, default=196)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--neurons", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    shape = options.steps, options.batch, options.neurons
    found = {name: measure(FAMILIES[name], *shape, options.rounds) for name in options.families}
    if options.json:
        print(
            json.dumps({"schema": {"name": "fused-benchmark", "version": 1}, "shape": shape, "found": found})
        )
        return 0
    for name, numbers in found.items():
        print(
            f"{name:5} fused {numbers['ratio']:.1f}x eager at a spike rate of {numbers['spike_rate']:.3f}; "
            f"{numbers['spikes_that_differ']} spikes differ, "
            f"gradients by {numbers['gradient_difference']:.1e}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
