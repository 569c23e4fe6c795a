"""Random networks of five frameworks, as their exporters write them, read back: how many are right.

    python benchmarks/interop.py environments FOLDER            a virtual environment per framework
    python benchmarks/interop.py draw FOLDER [--first N] [--count N] [--maker NAME ...]
    python benchmarks/interop.py read FOLDER [--page FILE]      the table, and each network that is not right

`draw` lets each framework write networks (`exports/draw.py`) with its own spikes; `read` lowers every file
by the public functions and runs the float reference. A network is right if its spikes are the framework's,
except where a membrane is within 1e-5 of its threshold.
"""

from __future__ import annotations

import argparse
import json
import logging
import re
import subprocess
import sys
import venv
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
NEW, OLD = ("nir==1.0.8", "nirtorch==2.6"), ("nir==1.0.4", "nirtorch==2.0.2")
PINS: dict[str, tuple[str, ...]] = {
    "norse": ("norse==1.1.0", *OLD, "torchvision==0.28.0", "pillow"),
    "rockpool": ("rockpool==3.1.0", *OLD),
    "sinabs": ("sinabs==3.1.3", *OLD, "pbr", "setuptools"),
    "snntorch": ("snntorch==1.0.0", *NEW),
    "spikingjelly": (
        "spikingjelly==2.0.0",
        *NEW,
        "torchvision==0.28.0",
        "torchaudio==2.11.1",
        "pillow",
        "loguru",
    ),
}
"""What each framework's environment holds beside torch, without dependencies: their pins clash."""

SHARED = ("torch==2.13.0", "numpy", "scipy", "h5py", "matplotlib", "tqdm")
MAKERS = tuple(PINS)
NEAR = 1e-5
NEARLY: list[Path] = []
"""Networks of which a spike differs where a membrane is that near its threshold."""

DROPPED = ("bias", "w_rec", "tau_syn")
"""What exporters drop, and no option restores."""

CLASSES = {
    "plain": "right without a word",
    "maker": "right with `maker=` alone",
    "flags": "right with the options that the messages name",
    "refused": "refused by name",
    "dropped": "a part that the exporter drops, named as assumed",
    "wrong": "wrong without an assumed item that explains it",
    "foreign": "attributed to another framework",
}


def environments(folder: Path) -> None:
    """Make the environments of the frameworks that are not there."""
    for maker, pins in PINS.items():
        place = folder / "env" / maker
        if (place / "made").exists():
            continue
        venv.create(place, with_pip=True)
        pip = [str(place / "bin/python"), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        subprocess.run([*pip, *SHARED], check=True)
        subprocess.run([*pip, "--no-deps", *pins], check=True)
        (place / "made").touch()
        print(maker, flush=True)


def draw(folder: Path, frameworks: list[str], first: int, count: int) -> None:
    """Let each framework write its networks."""
    for maker in frameworks:
        python = folder / "env" / maker / "bin/python"
        command = [
            str(python),
            str(HERE / "exports/draw.py"),
            maker,
            str(folder / maker),
            str(first),
            str(count),
        ]
        subprocess.run(command, check=True)
        print(maker, len(list((folder / maker).glob("*.nir"))), flush=True)


class Net:
    """One exported network: its file, its framework's spikes, and what the file does not hold."""

    def __init__(self, file: Path) -> None:
        self.file = file
        facts = json.loads(file.with_suffix(".json").read_text())
        self.maker, self.layers, self.truth = facts["maker"], facts["layers"], facts["truth"]
        self.readouts, self.options = facts["readouts"], facts["options"]
        with np.load(file.with_suffix(".npz")) as arrays:
            self.inputs = arrays["inputs"]
            self.sent = {key.removeprefix("layer/"): arrays[key] for key in arrays.files if key != "inputs"}

    @property
    def usual(self) -> bool:
        """Whether what the file does not hold is the exporter's default throughout."""
        return not self.others({}) and not any(item in self.truth for item in DROPPED)

    def others(self, assumed: Mapping[str, Any]) -> dict[str, Any]:
        """Return the true values of items that differ from the assumed or the exporter's default ones."""
        defaults: dict[str, Any] = {"reset": "subtract", "dt": None, **DEFAULTS[self.maker], **assumed}
        found: dict[str, Any] = {}
        for item, value in self.truth.items():
            usual = defaults.get(item)
            if isinstance(value, Mapping):
                for name, own in value.items():
                    if _of(usual, name) != own:
                        found.setdefault("nodes", {}).setdefault(name, {})[item] = own
            elif not _same(usual, value):
                found[item] = value
        return found


DEFAULTS: dict[str, dict[str, Any]] = {
    "norse": {"reset": "value", "v_reset": 0.0, "dt": 1e-6},
    "rockpool": {"spikes_per_step": "floor"},
    "sinabs": {"spikes_per_step": "floor", "v_min": None, "gain": "norm"},
    "snntorch": {"reset": "subtract"},
    "spikingjelly": {"dt": 1e-4},
}


def _of(usual: Any, node: str) -> Any:
    return usual.get(node) if isinstance(usual, Mapping) else usual


def _same(usual: Any, value: Any) -> bool:
    values = list(usual.values()) if isinstance(usual, Mapping) else [usual]
    if isinstance(value, float):
        return all(isinstance(one, float) and abs(one - value) <= 1e-6 * abs(value) for one in values)
    return all(one == value for one in values)


def right(network: Any, net: Net) -> bool:
    """Whether the float reference gives the framework's spikes."""
    from snn_compile.runtime import reference

    populations = [p for p in network.populations if p.size > 0]
    names = _matched(populations, net)
    spiking = {key: name for key, name in names.items() if network.population(name).spiking}
    inputs = net.inputs.reshape(*net.inputs.shape[:2], *network.inputs[0].shape)
    states = [f"{name}.v" for name in spiking.values()]
    record = reference(network, inputs, record=list(spiking.values()), probes=states)
    for key, name in spiking.items():
        sent = net.sent[key].reshape(record.spikes(name).shape)
        wrong = record.spikes(name) != sent
        if not wrong.any():
            continue
        # A spike that a rounded sum decides changes everything after it, so only the first entry counts.
        first = np.argwhere(wrong)
        first = first[first[:, 1] == first[:, 1].min()][0]
        if not _near(network, record, name, tuple(first)):
            return False
        NEARLY.append(net.file)
        return True
    return True


def _near(network: Any, record: Any, name: str, at: tuple[int, ...]) -> bool:
    population = network.population(name)
    threshold = np.broadcast_to(population.parameters["threshold"], (population.size,))
    place = int(np.ravel_multi_index(at[2:], population.shape)) if len(at) > 2 else 0
    v = record.states(f"{name}.v")[at]
    return bool(abs(v - threshold[place]) <= NEAR * abs(threshold[place]))


def _matched(populations: list[Any], net: Net) -> dict[str, str]:
    """Return the population of every layer, by name where it fits and by position else."""
    names = [p.name for p in populations]
    found = {}
    for key in net.sent:
        ways = (key, f"_{key}", f"{key}.lif", f"{key}.norse", key.replace(".", "_"))
        found[key] = next((way for way in ways if way in names), "")
    if all(found.values()) and len(set(found.values())) == len(found):
        return found
    sizes = [int(np.prod(sent.shape[2:])) for sent in net.sent.values()]
    left = iter(populations)
    return {
        key: next(p.name for p in left if p.size == size) for key, size in zip(net.sent, sizes, strict=True)
    }


def classified(net: Net) -> tuple[str, str]:
    """Return the class of a network, and a word on it."""
    from snn_compile.compiler import lower
    from snn_compile.targets.errors import AmbiguousConvention, SnnCompileError

    word = ""
    for stated in ({}, {"maker": net.maker}):
        try:
            network = lower(net.file, stated)
        except AmbiguousConvention as error:
            word = str(error)
            continue
        except SnnCompileError as error:
            return "refused", str(error)
        attributed = set(re.findall(r"detected \((\w+)\)", " ".join(network.decided.values())))
        if not stated and attributed and attributed != {net.maker}:
            return "foreign", ", ".join(sorted(attributed))
        if right(network, net):
            return ("maker" if stated else "plain"), word
        return _restated(net, network, stated)
    return "refused", word


def _restated(net: Net, network: Any, stated: Mapping[str, Any]) -> tuple[str, str]:
    """Return the class of a network that is not right yet: what the messages assume is answered truly."""
    from snn_compile.compiler import lower
    from snn_compile.targets.errors import SnnCompileError

    if any(item in net.truth and item in network.assumed for item in DROPPED):
        return "dropped", ", ".join(item for item in DROPPED if item in net.truth)
    others = net.others(network.assumed)
    single = {item for items in others.get("nodes", {}).values() for item in items}
    unnamed = [item for item in {*others, *single} - {"nodes"} if item not in network.assumed]
    if unnamed or not others:
        return "wrong", f"{unnamed or 'nothing'} differs from the assumed {network.assumed}"
    try:
        again = lower(net.file, {**stated, **others})
    except SnnCompileError as error:
        return "refused", f"{others}: {error}"
    return ("flags", str(others)) if right(again, net) else ("wrong", f"after {others}")


def alone(net: Net) -> bool:
    """Whether `maker=` alone gives the framework's spikes."""
    from snn_compile.compiler import lower

    return right(lower(net.file, {"maker": net.maker}), net)


def nets(folder: Path) -> Iterator[Net]:
    """Yield the networks of a folder, by framework and seed."""
    for maker in MAKERS:
        for file in sorted((folder / maker).glob("*.nir"), key=lambda file: int(file.stem)):
            yield Net(file)


def read(folder: Path, page: Path | None) -> int:
    """Print each network that is not right, and the table; return the number of wrong ones."""
    rows: list[tuple[Net, str]] = []
    for net in nets(folder):
        found, word = classified(net)
        rows.append((net, found))
        if found not in ("plain", "maker", "flags"):
            print(f"{net.maker} {net.file.stem}: {CLASSES[found]}: {word[:300]}", flush=True)
    text = table(rows) + "\n" + refused(folder)
    print(text)
    if page:
        top, bottom = (HERE / "interop_page.md").read_text().split("TABLE\n")
        page.write_text(top + text + bottom)
    return sum(found in ("wrong", "foreign") for _, found in rows)


def table(rows: list[tuple[Net, str]]) -> str:
    """Return the counts by framework and by kind of layer as markdown."""
    lines = ["| networks | drawn | " + " | ".join(CLASSES.values()) + " |", "|---" * (len(CLASSES) + 2) + "|"]
    groups: dict[str, list[str]] = {maker: [] for maker in MAKERS}
    kinds: dict[str, list[str]] = {}
    for net, found in rows:
        groups[net.maker].append(found)
        for kind in sorted({layer.removesuffix(" no bias") for layer in net.layers}):
            kinds.setdefault(f"{net.maker} with {kind}", []).append(found)
    for name, several in {**groups, **dict(sorted(kinds.items()))}.items():
        if several:
            count = Counter(several)
            lines.append(
                f"| {name} | {len(several)} | " + " | ".join(str(count[key]) for key in CLASSES) + " |"
            )
    usual = {maker: [alone(net) for net, _ in rows if net.maker == maker and net.usual] for maker in MAKERS}
    shares = ", ".join(f"{maker} {sum(found)} of {len(found)}" for maker, found in usual.items() if found)
    lines += ["", "Right with `maker=` alone, of the networks whose unheld items all have the exporter's"]
    lines += [f"defaults: {shares}. A spike on the threshold differed in {len(set(NEARLY))} networks."]
    return "\n".join(lines) + "\n"


def refused(folder: Path) -> str:
    """Return what the exporters refused to write, by framework, as markdown."""
    lines = ["Networks that the exporters refused while these were drawn:", ""]
    for maker in MAKERS:
        file = folder / maker / "refused.json"
        reasons: Counter[str] = Counter()
        for text, several in (json.loads(file.read_text()) if file.exists() else {}).items():
            reasons[text.split(": type mismatch")[0]] += len(several)
        told = "; ".join(f"{count} times `{text}`" for text, count in reasons.most_common(4))
        lines.append(f"- {maker}: {told or 'none'}")
    return "\n".join(lines) + "\n"


def main() -> int:
    """See the file's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=("environments", "draw", "read"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--maker", action="append", choices=MAKERS)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--page", type=Path)
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    if given.command == "environments":
        environments(given.folder)
    elif given.command == "draw":
        draw(given.folder, given.maker or list(MAKERS), given.first, given.count)
    else:
        return int(read(given.folder, given.page) > 0)
    return 0


if __name__ == "__main__":
    sys.exit(main())
