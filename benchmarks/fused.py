"""How much whole recurrent sequences gain from one hand-written operation, as ratios measured side by side.

    python benchmarks/fused.py                 196 steps, batch 256, 128 neurons: networks, then layers alone
    python benchmarks/fused.py brf --steps 784 --rounds 9 --json

A network is measured as it is trained: pixels weighted into the layer, the layer, and a leaky read-out of ten
classes; once with every step by its definition under autograd, including the products with the three weight
matrices, and once as one operation. A layer alone takes a sequence of currents as large as itself and returns
an equally large one of spikes, with gradients for both.

Each round computes the gradients both ways in turn; the ratio is that of the minimum CPU times. BLAS uses one
thread. Times are in float32. Spikes and gradients are compared in float64: in float32 a tie between a
membrane and its threshold, rounded differently, changes everything after it. Both ways need at least one
dense matrix product per step, the gradient's with the recurrent weights, which the fused one takes from
SciPy's BLAS: the ratio depends on the instructions that BLAS uses, which are reported. Absolute times depend
on the machine; the JSON holds them to check the ratios, not to quote.
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
from threadpoolctl import threadpool_info
from torch import Tensor, nn

from snn_compile.train.kernels.fused import run_adaptive, run_integrators, run_resonators
from snn_compile.train.kernels.sequence import Step
from snn_compile.train.networks.recurrent import RecurrentConfig, RecurrentNetwork
from snn_compile.train.neurons.alif import Adaptation, adaptive_step
from snn_compile.train.neurons.lif import CubaLIFParameters, Firing, cuba_lif_step
from snn_compile.train.neurons.rf_brf import Resonance, damping, resonator_step

Run = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Family:
    """A layer two ways, and the ranges of its two parameters; `scale` is that of the input."""

    eager: Run
    fused: Run
    ranges: tuple[tuple[float, float], tuple[float, float]]
    scale: float


def by_steps(step: Callable[..., Any], states: int) -> Run:
    """Return the run of a step function (input, states, last spikes, one, two) -> (spikes, states)."""

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


NEURONS = {"brf": (1200.0, 20.0), "rf": (30.0, 10.0), "alif": (2.0, 1.0)}
"""What multiplies a new network's input and recurrent weights, so that it fires as a trained one does."""


def stepped(network: RecurrentNetwork, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return read-out and spikes by the definitions, step by step; x is (steps, batch, inputs)."""
    config, linear = network.config, nn.functional.linear
    z = x.new_zeros(x.shape[1], config.hidden)
    states: Any = (z, z, z)
    y = x.new_zeros(x.shape[1], config.classes)
    decay = torch.exp(-1 / network.readout.tau.abs())
    if config.neuron == "alif":
        one, two = (torch.exp(-1 / tau.abs()) for tau in (network.tau_membrane, network.tau_adaptation))
    else:
        one, two = damping(network.omega, network.offset, config.resonance())
    outputs, spikes = [], []
    for now in x:
        arrives = linear(now, network.weight_in) + linear(z, network.weight_rec)
        if config.neuron == "alif":
            z, states = adaptive_step(arrives, states, one, two, Adaptation(surrogate=config.surrogate))
        else:
            z, states = resonator_step(arrives, states, one, two, config.resonance())
        y = decay * y + (1 - decay) * linear(z, network.readout.weight)
        outputs.append(y)
        spikes.append(z)
    return torch.stack(outputs), torch.stack(spikes)


def measure_network(neuron: str, steps: int, batch: int, size: int, rounds: int) -> dict[str, float]:
    """Return what `compare` finds for a network."""
    torch.manual_seed(0)
    network = RecurrentNetwork(RecurrentConfig(inputs=1, hidden=size, classes=10, neuron=neuron))
    with torch.no_grad():
        network.weight_in.mul_(NEURONS[neuron][0])
        network.weight_rec.mul_(NEURONS[neuron][1])
    x, pull = torch.rand(steps, batch, 1), torch.randn(steps, batch, 10)

    def found(run: Callable[[Tensor], Any], dtype: torch.dtype) -> Callable[[], tuple[Tensor, Any]]:
        def once() -> tuple[Tensor, Any]:
            network.to(dtype)
            y, z = run(x.to(dtype))
            return z, torch.autograd.grad(y, list(network.parameters()), pull.to(dtype))

        return once

    def fused(x: Tensor) -> tuple[Tensor, Tensor]:
        made = network.run(x.transpose(0, 1), spikes=x.dtype == torch.float64)
        return made.outputs.transpose(0, 1), made.spikes.get("hidden", x).transpose(0, 1)

    ways = {"eager": lambda x: stepped(network, x), "fused": fused}
    return compare({w: {d: found(r, d) for d in TYPES} for w, r in ways.items()}, rounds)


def measure(family: Family, steps: int, batch: int, size: int, rounds: int) -> dict[str, float]:
    """Return what `compare` finds for a layer alone."""
    generator = torch.Generator().manual_seed(0)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(size, generator=generator)

    x = family.scale * 0.3 * torch.randn(steps, batch, size, generator=generator)
    weight = family.scale * 0.2 * torch.randn(size, size, generator=generator) / size**0.5
    values = [x, weight, *(uniform(*bounds) for bounds in family.ranges)]
    pull = torch.randn(steps, batch, size, generator=generator)

    def found(run: Run, dtype: torch.dtype) -> Callable[[], tuple[Tensor, Any]]:
        given = [v.to(dtype).requires_grad_() for v in values]

        def once() -> tuple[Tensor, Any]:
            z = run(*given)
            return z, torch.autograd.grad(z, given, pull.to(dtype))

        return once

    ways = {"eager": family.eager, "fused": family.fused}
    return compare({w: {d: found(r, d) for d in TYPES} for w, r in ways.items()}, rounds)


TYPES = torch.float32, torch.float64


def compare(
    ways: dict[str, dict[torch.dtype, Callable[[], tuple[Tensor, Any]]]], rounds: int
) -> dict[str, float]:
    """Return the least seconds of both ways, their ratio, the spike rate and the gradients' difference."""
    (one, a), (two, b) = (way[torch.float64]() for way in ways.values())
    apart = max(float((p - q).abs().max() / p.abs().max()) for p, q in zip(a, b, strict=True))
    least = dict.fromkeys(ways, float("inf"))
    for turn in range(rounds + 1):
        for name, way in ways.items():
            start = time.process_time()
            way[torch.float32]()
            if turn:
                least[name] = min(least[name], time.process_time() - start)
    return {
        "ratio": least["eager"] / least["fused"],
        "eager_seconds": least["eager"],
        "fused_seconds": least["fused"],
        "spike_rate": float(one.detach().mean()),
        "spikes_that_differ": int((one != two).sum()),
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
    found = {}
    for name in options.families:
        if name in NEURONS:
            found[f"{name} network"] = measure_network(name, *shape, options.rounds)
        found[f"{name} layer"] = measure(FAMILIES[name], *shape, options.rounds)
    blas = sorted({pool["architecture"] for pool in threadpool_info() if pool["internal_api"] == "openblas"})
    if options.json:
        schema = {"name": "fused-benchmark", "version": 3}
        print(json.dumps({"schema": schema, "shape": shape, "blas": blas, "found": found}))
        return 0
    print(f"BLAS: {', '.join(blas) or 'not OpenBLAS'}")
    for name, numbers in found.items():
        print(
            f"{name:12} fused {numbers['ratio']:.1f}x eager at a spike rate of {numbers['spike_rate']:.3f}; "
            f"{numbers['spikes_that_differ']} spikes differ, "
            f"gradients by {numbers['gradient_difference']:.1e}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
