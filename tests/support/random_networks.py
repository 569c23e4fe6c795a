"""Random float networks, built without a graph: populations in a row, with branches, skips and loops."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from snn_compile.compiler.contract.contract import Contract, Readout
from snn_compile.compiler.network import Network, Population, Port, Projection
from snn_compile.targets.program.rule import CHOICES as RULE_CHOICES


@dataclass(frozen=True, eq=False)
class Case:
    """A network and data (samples, steps, channels) for each of its inputs."""

    network: Network
    data: dict[str, np.ndarray]


def random_rule(rng: np.random.Generator) -> dict[str, str]:
    """Any rule of a step."""
    items = {key: str(rng.choice(words)) for key, words in RULE_CHOICES.items()}
    if items["reset_timing"] == "pending":
        items |= {"reset": "subtract", "spikes_per_step": "one"}
    return items


def neurons(rng: np.random.Generator, name: str, size: int, model: str, **rule: Any) -> Population:
    """A population with parameters a neuron, and a rule."""
    parameters = {
        "current_decay": np.ones(1) if rng.random() < 0.4 else rng.uniform(0.2, 0.7, size),
        "voltage_decay": rng.uniform(0.1, 0.5, size),
        "bias": rng.normal(0, 0.05, size),
        "input_bias": np.zeros(1) if rng.random() < 0.5 else rng.normal(0, 0.1, size),
        "v_init": rng.normal(0, 0.1, size),
        "offset": np.zeros(1),
    }
    if model == "li":
        rule = {key: rule[key] for key in ("update_order", "current_decay") if key in rule}
    else:
        parameters["threshold"] = rng.uniform(0.5, 0.9, size)
    return Population(name, (size,), model, parameters, **rule)


def random_network(seed: int, any_rule: bool = True, samples: int = 3, steps: int = 14) -> Case:
    """Two to four populations of three to seven neurons, the last of them read out."""
    rng = np.random.default_rng(seed)
    inputs = {f"in{i}": int(rng.integers(3, 6)) for i in range(rng.integers(1, 3))}
    sizes = dict(inputs)
    populations, projections = [], []

    def connect(source: str, target: str, delay: int, strength: float = 1.5) -> None:
        weight = rng.normal(size=(sizes[target], sizes[source])) * strength / np.sqrt(sizes[source])
        projections.append(Projection(f"{source}/{target}", source, target, weight, delay))

    count = int(rng.integers(2, 5))
    for i in range(count):
        name, size = f"p{i}", int(rng.integers(3, 8))
        rule = random_rule(rng) if any_rule and rng.random() < 0.6 else {}
        model = "li" if i == count - 1 and rng.random() < 0.4 else "lif"
        populations.append(neurons(rng, name, size, model, **rule))
        sizes[name] = size
        earlier = [*inputs, *(f"p{k}" for k in range(i))]
        for source in dict.fromkeys([earlier[-1], str(rng.choice(earlier))]):
            connect(source, name, int(rng.choice([0, 0, 0, 1, 4])))
        if model == "lif" and rng.random() < 0.4:
            connect(name, name, int(rng.choice([1, 2])), 1.0)
    last = populations[-1]
    signal = "membrane" if last.model == "li" or rng.random() < 0.2 else "spikes"
    how = rng.choice(["count", "mean", "last", "max", "per_step"])
    skip = seed % 5 if how in ("count", "mean", "max") else 0
    readout = Readout(signal, str(how), "regress" if rng.random() < 0.2 else "classify", skip)
    network = Network(
        tuple(populations),
        tuple(projections),
        tuple(Port(name, (size,)) for name, size in inputs.items()),
        (Port("out", last.shape, last.name, readout),),
        Contract(dt=1.0),
    )
    data = {}
    for name, size in inputs.items():
        spikes = rng.random() < 0.5
        shape = (samples, steps, size)
        data[name] = (rng.random(shape) < 0.5).astype(float) if spikes else np.abs(rng.normal(size=shape))
    return Case(network, data)
