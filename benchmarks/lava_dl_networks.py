"""Random networks of lava-dl's trainer, exported by itself, against the float reference and a program.

    python benchmarks/lava_dl_networks.py TREE [--seeds FIRST COUNT] [--fixtures DIR] [--json FILE]

TREE is the `src` folder of a lava-dl checkout, whose `lava/lib/dl/slayer` runs on torch alone. Every seed
draws a network (kinds, sizes and order of its layers, decays, thresholds, weight normalization, mean-only
batch normalization, axonal delays, delay_shift, the input layer), which slayer runs in its quantized dynamics
and writes with `export_hdf5`. The spikes of every layer of the program on loihi2-sim are compared, shifted by
what delay_shift adds; entries in which the float reference differs, whose states are not truncated, are
counted beside. `--fixtures` stores the files with slayer's spikes.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from snn_compile import runtime
from snn_compile.compiler import lower
from snn_compile.compiler.frontends.netx import read_netx
from snn_compile.compiler.pipeline import compile_stages
from snn_compile.targets.devices.device import execute
from snn_compile.targets.errors import SnnCompileError

STEPS, BATCH = 40, 2
RIGHT, STATED, RESET = "right", "right with delay_shift=1", "right with each layer's reset"
REFUSED, OVERFLOW, WRONG = "refused by name", "overflow reported", "wrong"
"""Verdicts. A layer's reset: its bias acts from the first step of the layer's input on, as in netx; what the
file does not hold, delay_shift, is then assumed aloud, and differs between the layers.
"""

RATES = (0.03, 0.5)
"""Spikes per neuron and step between which weights are scaled."""


@dataclass
class Drawn:
    """A network as blocks, its data (batch, *shape, steps), and what it is made of."""

    blocks: list[Any]
    data: torch.Tensor
    kinds: Counter[str] = field(default_factory=Counter)
    shape: tuple[int, ...] = ()


class Draw:
    """One random network; `slayer` is lava-dl's module."""

    def __init__(self, slayer: Any, seed: int) -> None:
        self.slayer, self.rng = slayer, np.random.default_rng(seed)
        torch.manual_seed(seed)

    def chance(self, share: float) -> bool:
        """Return True in a share of the calls."""
        return bool(self.rng.random() < share)

    def neuron(self, kinds: Counter[str], channels: bool = False) -> dict[str, Any]:
        """Return parameters of CUBA neurons; `channels`: decays may differ between them."""
        rng = self.rng
        current = 1.0 if self.chance(0.3) else float(rng.uniform(0.05, 1))
        found: dict[str, Any] = {
            "threshold": float(rng.uniform(0.3, 1.5)),
            "current_decay": current,
            "voltage_decay": float(rng.choice([0.0, 1.0, rng.uniform(0, 0.5)], p=[0.1, 0.1, 0.8])),
            "requires_grad": self.chance(0.5),
        }
        if channels and self.chance(0.25):
            found |= {"shared_param": False, "current_decay": (0.2, 0.9), "voltage_decay": (0.01, 0.4)}
            kinds["decays by channel"] += 1
        if self.chance(0.02):
            found["graded_spike"] = True
            kinds["graded spikes"] += 1
        if self.chance(0.02):
            found |= {"shared_param": True, "current_decay": 0.0, "voltage_decay": 0.1}
            kinds["a current that never leaks"] += 1
        return found

    def synapse(self, kinds: Counter[str]) -> dict[str, Any]:
        """Return options of weights and of what follows the neurons."""
        found: dict[str, Any] = {"weight_scale": float(self.rng.uniform(1, 3))}
        for key, share in (("weight_norm", 0.4), ("delay", 0.35)):
            if self.chance(share):
                found[key] = True
                kinds[{"weight_norm": "weight normalization", "delay": "axonal delays"}[key]] += 1
        if self.chance(0.2):
            found["delay_shift"] = False
            kinds["no delay_shift"] += 1
        return found

    def network(self) -> Drawn:
        """Return a network that spikes in every layer."""
        kinds: Counter[str] = Counter()
        image = self.chance(0.5)
        shape = tuple(int(n) for n in self.rng.integers([1, 5, 5], [4, 11, 11])) if image else ()
        shape = shape or (int(self.rng.integers(4, 20)),)
        made = Drawn([], torch.zeros(0), kinds, shape)
        x = self.first(made)
        made.data = x
        if made.blocks:
            x = made.blocks[-1](x)
        if image:
            for _ in range(int(self.rng.integers(1, 4))):
                x = self.spatial(made, x)
            made.blocks.append(self.slayer.block.cuba.Flatten())
            x = made.blocks[-1](x)
            kinds["flatten"] += 1
        for _ in range(int(self.rng.integers(1, 4))):
            x = self.flat(made, x)
        return made

    def first(self, made: Drawn) -> torch.Tensor:
        """Add an input layer or none; return the data."""
        choice, block = self.rng.random(), self.slayer.block.cuba.Input
        if choice < 0.35:
            spikes = self.rng.random((BATCH, *made.shape, STEPS)) < 0.35
            if choice < 0.15:
                made.blocks.append(block(delay_shift=self.chance(0.7)))
                made.kinds["input without a neuron"] += 1
            return torch.tensor(spikes, dtype=torch.float32)
        gain = 4 * int(self.rng.integers(2, 30))  # an even weight of slayer's grid of 2/64, by quarters of x
        settings = self.neuron(Counter()) | {"current_decay": 1.0}
        if self.chance(0.1):
            settings["current_decay"] = 0.5
            made.kinds["an input that leaks"] += 1
        bias = 2 * int(self.rng.integers(-10, 20)) / 64 if self.chance(0.7) else None
        made.blocks.append(block(settings, weight=gain / 64, bias=bias))
        made.kinds["input with neurons"] += 1
        still = self.rng.integers(0, 13, (BATCH, *made.shape, 1)) / 4
        moving = self.rng.integers(0, 13, (BATCH, *made.shape, STEPS)) / 4
        data = moving if self.chance(0.4) else np.repeat(still, STEPS, -1)
        return torch.tensor(data, dtype=torch.float32)

    def spatial(self, made: Drawn, x: torch.Tensor) -> torch.Tensor:
        """Add a convolution or a pool, if the map is large enough."""
        channels, height, width = x.shape[1:-1]
        cuba = self.slayer.block.cuba
        if min(height, width) >= 4 and self.chance(0.35):
            made.kinds["pool"] += 1
            settings = {"threshold": 0.9, "current_decay": 1.0, "voltage_decay": 1.0}
            return self.settled(made, cuba.Pool(settings, 2, **self.late(made.kinds)), x)
        groups = channels if self.chance(0.2) else 1
        kernel = tuple(int(n) for n in self.rng.integers(1, min(4, height, width) + 1, 2))
        options = {
            "stride": int(self.rng.integers(1, 3)),
            "padding": tuple(int(n) for n in self.rng.integers(0, 2, 2)),
            "groups": groups,
        }
        if max(kernel) * 2 - 1 <= min(height, width) and self.chance(0.2):
            options["dilation"] = 2
        made.kinds["conv"] += 1
        if groups > 1:
            made.kinds["groups"] += 1
        outputs = groups * int(self.rng.integers(1, 4))
        block = cuba.Conv(
            self.neuron(made.kinds), channels, outputs, kernel, **options, **self.synapse(made.kinds)
        )
        return self.settled(made, block, x)

    def late(self, kinds: Counter[str]) -> dict[str, Any]:
        """Return axonal delays, or none."""
        if not self.chance(0.3):
            return {}
        kinds["axonal delays"] += 1
        return {"delay": True}

    def flat(self, made: Drawn, x: torch.Tensor) -> torch.Tensor:
        """Add a dense layer, recurrent or not."""
        size, cuba = int(self.rng.integers(3, 16)), self.slayer.block.cuba
        settings = self.neuron(made.kinds, channels=True)
        if self.chance(0.35) and not settings.get("graded_spike"):
            made.kinds["recurrent"] += 1
            return self.settled(
                made, cuba.Recurrent(settings, x.shape[1], size, **self.synapse(made.kinds)), x
            )
        made.kinds["dense"] += 1
        if self.chance(0.3):
            settings["norm"] = self.slayer.neuron.norm.MeanOnlyBatchNorm
            made.kinds["batch normalization"] += 1
        block = cuba.Dense(settings, x.shape[1], size, **self.synapse(made.kinds))
        return self.settled(made, block, x)

    def settled(self, made: Drawn, block: Any, x: torch.Tensor) -> torch.Tensor:
        """Add a block, its weights scaled so that it spikes; return its output."""
        block.eval()
        names = [n for n in ("synapse", "input_synapse") if hasattr(block, n)]
        synapse = getattr(block, names[0])
        channels = getattr(synapse, "out_channels", 1) if type(synapse).__name__ != "Pool" else x.shape[1]
        if block.delay is not None:
            block.delay.delay.data = torch.tensor(self.rng.uniform(0, 9, channels), dtype=torch.float32)
            block.delay.init = True
        if getattr(block.neuron, "norm", None) is not None:
            mean = self.rng.uniform(-0.3, 0.2, channels)
            block.neuron.norm.running_mean = torch.tensor(mean, dtype=torch.float32)
        with torch.no_grad():
            for _ in range(14):
                rate = float((rested(block)(x) > 0).float().mean())
                if RATES[0] <= rate <= RATES[1] or type(synapse).__name__ == "Pool":
                    break
                weight = synapse.weight_g if synapse.weight_norm_enabled else synapse.weight
                weight.data *= 1.6 if rate < RATES[0] else 0.6
                if not rate:  # perhaps all weights inhibit
                    (synapse.weight_v if synapse.weight_norm_enabled else weight).data.abs_()
            made.blocks.append(block)
            return rested(block)(x).detach()


def rested(block: Any) -> Any:
    """Return a block with its states at zero; slayer keeps those of recurrent blocks."""
    neuron = getattr(block, "neuron", None)
    for state in ("current_state", "voltage_state"):
        if hasattr(neuron, state):
            setattr(neuron, state, torch.zeros(1))
    if hasattr(block, "spike_state"):
        block.spike_state = torch.zeros(1)
    return block


@dataclass
class Outcome:
    """What became of a network; `spikes` are the truth's, of all layers."""

    seed: int
    kinds: Counter[str]
    verdict: str
    detail: str = ""
    spikes: int = 0
    entries: int = 0
    reference: int = 0
    """Entries in which the float reference differs, which does not truncate states."""


def slayer_spikes(made: Drawn, aligned: bool) -> list[tuple[np.ndarray, int, np.ndarray]]:
    """Return each neuron layer's spikes (batch, steps, size), the steps by which delay_shift has delayed
    them, and its axonal delays.

    `aligned`: each layer starts at rest with the first step of its own input, as netx resets it, so that its
    bias does not act during the delays before; the spikes are then not delayed.
    """
    x, shift, found = made.data, 0, []
    with torch.no_grad():
        for block in made.blocks:
            x = rested(block)(x)
            if getattr(block, "delay_shift", False):
                x, shift = (x[..., 1:], 0) if aligned else (x, shift + 1)
            if getattr(block, "neuron", None) is not None:
                size = int(np.prod(x.shape[1:-1]))
                late = np.zeros(1) if block.delay is None else np.floor(block.delay.delay.detach().numpy())
                delays = np.repeat(late, size // late.size).astype(int)
                spikes = x.reshape(x.shape[0], size, -1).numpy().transpose(0, 2, 1)
                found.append((spikes, shift, delays))
    return found


def write(made: Drawn, path: Path) -> None:
    """Write a network as slayer exports it."""
    with h5py.File(path, "w") as file:
        layers = file.create_group("layer")
        for index, block in enumerate(made.blocks):
            block.export_hdf5(layers.create_group(str(index)))


def delayed(spikes: np.ndarray, delays: np.ndarray, shift: int) -> np.ndarray:
    """Return spikes (batch, steps, size) later by a number of steps per neuron."""
    out = np.zeros_like(spikes)
    for neuron, delay in enumerate(delays + shift):
        if delay < spikes.shape[1]:
            out[:, delay:, neuron] = spikes[:, : spikes.shape[1] - delay, neuron]
    return out


def differing(record: Any, names: list[str], truth: list[tuple[np.ndarray, int, np.ndarray]]) -> list[int]:
    """Return how many entries of each layer differ from the truth."""
    assert len(names) == len(truth)
    found = []
    for name, (spikes, shift, delays) in zip(names, truth, strict=True):
        own = np.asarray(record.spikes(name), float).reshape(len(spikes), -1, spikes.shape[2])
        found.append(int((delayed(own, delays, shift)[:, : spikes.shape[1]] != spikes).sum()))
    return found


def judge(made: Drawn, path: Path, seed: int) -> tuple[Outcome, dict[str, np.ndarray]]:
    """Compare a network's file with slayer; return the outcome, and the data and spikes."""
    truth, aligned = slayer_spikes(made, False), slayer_spikes(made, True)
    write(made, path)
    data = np.moveaxis(made.data.numpy(), -1, 1).astype(np.float64)
    stored = {"inputs": data.astype(np.float32), "shape": np.array(made.shape)}
    stored |= {f"spikes{i}": spikes.astype(np.uint8) for i, (spikes, _, _) in enumerate(aligned)}
    stored |= {f"delays{i}": delays for i, (_, _, delays) in enumerate(aligned)}
    outcome = Outcome(seed, made.kinds, RIGHT, "", int(sum(spikes.sum() for spikes, _, _ in truth)))
    outcome.entries = sum(spikes.size for spikes, _, _ in truth)
    try:
        network = lower(read_netx(path, made.shape))
        names = [p.name for p in network.populations if not p.name.endswith(".delayed")]
        done = compile_stages(network, calibration=data)
        assert done.program is not None
        record = execute(done.program, data, record=names)
    except SnnCompileError as error:
        outcome.verdict, outcome.detail = REFUSED, str(error).split(": ", 1)[-1]
        return outcome, stored
    outcome.reference = sum(differing(runtime.reference(network, data, record=names), names, aligned))
    if sum(wrong := differing(record, names, truth)):
        overflows = {name: count for name, count in record.overflows.items() if count}
        outcome.verdict = OVERFLOW if overflows else WRONG
        outcome.detail = f"differing entries by layer: {wrong}; {overflows}"
        if not sum(differing(record, names, aligned)) and network.assumed == {"delay_shift": 0}:
            outcome.verdict = RESET
            if not sum(differing(_stated(path, made, data, names), names, _undelayed(truth))):
                outcome.verdict = STATED
    return outcome, stored


def _stated(path: Path, made: Drawn, data: np.ndarray, names: list[str]) -> Any:
    """Return a run of the program that delay_shift=1 means."""
    return execute(
        compile_stages(read_netx(path, made.shape, 1), calibration=data).program, data, record=names
    )


def _undelayed(truth: list[tuple[np.ndarray, int, np.ndarray]]) -> list[tuple[np.ndarray, int, np.ndarray]]:
    """Return the truth as a program gives it that has the steps between layers: its own step is left."""
    return [(spikes, 1, delays) for spikes, _, delays in truth]


def table(outcomes: list[Outcome]) -> str:
    """Return the outcomes by what the networks are made of, as Markdown."""
    verdicts = (RIGHT, STATED, RESET, REFUSED, OVERFLOW, WRONG)
    rows = [f"| networks with | all | {' | '.join(verdicts)} |", "|---|" + "---|" * (len(verdicts) + 1)]
    for kind in ["any", *sorted({kind for o in outcomes for kind in o.kinds})]:
        some = [o for o in outcomes if kind == "any" or o.kinds[kind]]
        counts = Counter(o.verdict for o in some)
        cells = " | ".join(str(counts[v]) for v in verdicts)
        rows.append(f"| {kind} | {len(some)} | {cells} |")
    return "\n".join(rows)


def main() -> None:
    """Draw, compare and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tree", type=Path)
    parser.add_argument("--seeds", type=int, nargs=2, default=(0, 50), metavar=("FIRST", "COUNT"))
    parser.add_argument("--fixtures", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    sys.path.insert(0, str(options.tree.resolve()))
    warnings.simplefilter("ignore")
    import lava.lib.dl.slayer as slayer

    outcomes = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(options.seeds[0], sum(options.seeds)):
            path = (options.fixtures or Path(folder)) / f"{seed}.net"
            outcome, stored = judge(Draw(slayer, seed).network(), path, seed)
            if options.fixtures:
                np.savez_compressed(path.with_suffix(".npz"), **stored)
            outcomes.append(outcome)
            rate = outcome.spikes / max(outcome.entries, 1)
            made = ", ".join(f"{count} {kind}" for kind, count in outcome.kinds.items())
            print(
                f"{seed:4} {outcome.verdict}: {made}; {rate:.3f} spikes per step; {outcome.detail}",
                file=sys.stderr,
            )
    print(table(outcomes))
    if options.json:
        options.json.write_text(json.dumps([vars(o) for o in outcomes], indent=1) + "\n")


if __name__ == "__main__":
    main()
