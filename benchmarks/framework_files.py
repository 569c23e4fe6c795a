"""Small `.nir` files written by released frameworks, with the frameworks' own spikes.

Run by hand, once per framework, in an environment that has it (the folder is tests/data/frameworks):

    python benchmarks/framework_files.py norse|sinabs|spikingjelly|rockpool|snntorch FOLDER
    python benchmarks/framework_files.py --table FOLDER > docs/interop.md

The first form draws random networks in float64, lets the framework's released exporter write each
(`<name>.nir`), runs the framework on random input and keeps the input and every layer's output
(`<name>.npz`: `inputs` and one array per NIR node, (batch, steps, *shape)), and adds a line for each network,
and for each that the exporter refuses or loses, to `manifest.json`. What the frameworks are asked to build
is in `framework_nets_*.py`. The second form needs no framework: it reads the folder and prints the page.

The frameworks' pins clash, so each needs an environment of its own: torch, then the framework without its
dependencies, then `nir==1.0.4 nirtorch==2.0.2` for Norse, sinabs and rockpool, or `nir==1.0.8 nirtorch==2.6`
for spikingjelly and snnTorch, then what an import still misses. `samna`, which installs things when it is
imported, is blocked here.
"""

from __future__ import annotations

import importlib
import importlib.metadata as metadata
import json
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

FRAMEWORKS = ("norse", "sinabs", "spikingjelly", "rockpool", "snntorch")
MOST = 0.6
"""Greatest share of active entries in a spiking layer; the least is the case's: silence proves nothing."""


@contextmanager
def listening(layers: Mapping[str, Any]) -> Iterator[dict[str, list[Any]]]:
    """Collect what torch modules return, call by call."""
    outputs: dict[str, list[Any]] = {name: [] for name in layers}

    def hook(name: str) -> Callable[..., None]:
        def listen(module: Any, inputs: Any, output: Any) -> None:
            value = output[0] if isinstance(output, tuple) else output
            outputs[name].append(value.detach().clone().numpy())

        return listen

    handles = [module.register_forward_hook(hook(name)) for name, module in layers.items()]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def arranged(calls: list[Any], order: str, batch: int) -> Any:
    """Return a layer's output as (batch, steps, *shape)."""
    if order == "steps":
        return np.stack(calls, 1)
    (whole,) = calls
    if order == "time_batch":
        return np.swapaxes(whole, 0, 1)
    return whole.reshape(batch, -1, *whole.shape[1:]) if order == "squeezed" else whole


def run(case: Any) -> dict[str, Any]:
    """Return the output of every layer of a case."""
    import torch

    with listening(case.layers) as outputs, torch.no_grad():
        case.run(torch.as_tensor(case.inputs, dtype=getattr(torch, case.dtype)))
    return {name: arranged(calls, case.order, len(case.inputs)) for name, calls in outputs.items()}


def fitting(build: Callable[[float], Any]) -> tuple[Any, dict[str, Any]]:
    """Return the first case, over growing weights, whose layers are all active but not too active."""
    for scale in np.geomspace(0.05, 8, 80):
        case = build(float(scale))
        sent = run(case)
        rates = [np.mean(sent[n] != 0) for n in sent if n not in case.readouts]
        if min(rates) >= case.least and max(rates) <= MOST:
            return build(float(scale)), sent
    raise SystemExit(f"no weights make {case.name} active enough")


def compact(array: Any) -> Any:
    """Store whole numbers in a byte each."""
    whole = np.rint(array)
    return whole.astype(np.int8) if (whole == array).all() and np.abs(whole).max() < 128 else array


def write(folder: Path, framework: str) -> None:
    """Make the files of one framework and replace its lines in the manifest."""
    sys.modules["samna"] = None  # type: ignore[assignment]
    import nir
    import torch

    if framework != "rockpool":  # it sends float32 spikes through weights of the default type
        torch.set_default_dtype(torch.float64)
    sys.path.insert(0, str(Path(__file__).parent))
    nets = importlib.import_module(f"framework_nets_{framework}")
    names = [framework, "nir", "nirtorch", "torch", "numpy"]
    versions = {name: metadata.version(name) for name in names}
    cases, failures = nets.cases()
    lines = []
    for build in cases:
        case, sent = fitting(build)
        graph = case.export()
        nir.write(str(folder / f"{case.name}.nir"), graph)
        np.savez_compressed(
            folder / f"{case.name}.npz",
            inputs=compact(case.inputs),
            **{name: compact(array) for name, array in sent.items()},
        )
        rates = {n: round(float(np.mean(a != 0)), 3) for n, a in sent.items() if n not in case.readouts}
        lines.append(
            {
                "framework": framework,
                "name": case.name,
                "net": case.net,
                "not_in_file": case.known,
                "readouts": sorted(case.readouts),
                "rates": rates,
                "dtype": case.dtype,
            }
        )
        print(case.name, rates)
    notes = []
    for what, attempt in failures:
        try:
            happened = attempt()
        except Exception as error:  # whatever an exporter stumbles over is the finding
            happened = f"raises {type(error).__name__}: {' '.join(str(error).split())[:160]}"
        notes.append({"framework": framework, "net": what, "happened": happened})
        print(f"{what}: {happened}")
    file = folder / "manifest.json"
    old = json.loads(file.read_text()) if file.exists() else {"versions": {}, "files": [], "failures": []}
    for key, mine in (("files", lines), ("failures", notes)):
        kept = [line for line in old[key] if line["framework"] != framework]
        old[key] = sorted(kept + mine, key=lambda line: (line["framework"], line.get("name", line["net"])))
    old["versions"][framework] = versions
    file.write_text(json.dumps(old, indent=1, sort_keys=True) + "\n")


TOP = """# Files of other frameworks

`python benchmarks/framework_files.py --table tests/data/frameworks` generates this page. Each network is
random; the framework's released exporter wrote the file, and the framework itself ran the network in
float64. "Assumed" lists what the file does not hold and takes the exporter's default, each in a line of the
command's messages with the option that changes it; `--strict` makes these an error. "Stated" lists the
options (`--convention`) that this network needs, because it has other values than the defaults or because
the files of two exporters look alike. "Equal" counts the entries (sample, step, neuron) of all layers where
the float reference, lowered from the file so, gives the framework's spikes. The files are in
`tests/data/frameworks`, the scripts that build the networks in `benchmarks/framework_nets_*.py`.
"""

END = """
Each node is checked against the relations of numbers that every exporter keeps (r = tau/dt with dt = 1e-4,
time constants in steps, r = (tau/dt) exp(-dt/tau), ...). One node that an exporter cannot have written
excludes it; an exporter is named where its relations hold for all nodes and are no chance. IF networks of
Norse and sinabs look alike (r = 1, one threshold per neuron) but mean different things, so `maker` must be
stated. LIF networks of spyx are recognized too; lava-dl's own export is not a NIR file. Files of older
snnTorch versions are recognized like those of 1.0.0. A file written by hand, or with a value that its
exporter would not write, matches no exporter; then `dt`, `rule`, `reset`, `reset_timing` and `comparison`
must be stated, or `maker`, which applies an exporter's convention whatever the numbers say, with a warning
where they contradict it.
"""


def flags(stated: Mapping[str, Any]) -> str:
    """Return what is stated as it is written on the command line."""
    return " ".join(
        f"`{key}={value:g}`" if isinstance(value, float) else f"`{key}={value}`"
        for key, value in stated.items()
    )


def compared(folder: Path, line: Mapping[str, Any]) -> tuple[str, str, str, str]:
    """Return what is detected in a file, what is assumed, the flags it needs, and the equal entries."""
    import nir

    from snn_compile.compiler import lower
    from snn_compile.compiler.contract.detect import detect
    from snn_compile.compiler.contract.unheld import shown
    from snn_compile.runtime import reference
    from snn_compile.targets.errors import SnnCompileError

    graph = nir.read(folder / f"{line['name']}.nir", type_check=False)
    first = detect(graph)
    stated: dict[str, Any] = {}
    if first is None or first.candidates:
        stated["maker"] = line["framework"]
    detected = "nothing" if first is None else first.exporter
    plain = detect(graph, stated)
    assert plain is not None
    assumed = {item.item: item.assumed for item in plain.unheld}
    stated = {k: v for k, v in line["not_in_file"].items() if assumed.get(k) != v} | stated
    left = ", ".join(
        f"{k} by node" if isinstance(v, dict) else f"{k} {shown(v)}"
        for k, v in assumed.items()
        if k not in stated
    )
    arrays = dict(np.load(folder / f"{line['name']}.npz"))
    inputs = arrays.pop("inputs")
    try:
        network = lower(folder / f"{line['name']}.nir", stated)
    except SnnCompileError as error:
        return detected, left, flags(stated), f"refused: {error}"
    cells = {p.name: p.spiking for p in network.populations}
    names = {key: next(n for n in (key, f"_{key}", f"{key}.lif") if n in cells) for key in arrays}
    inputs = inputs.reshape(*inputs.shape[:2], *network.inputs[0].shape)
    record = reference(network, inputs, record=[n for n in names.values() if cells[n]])
    equal = total = 0
    for key, node in names.items():
        if cells[node]:
            equal += int((record.spikes(node).reshape(arrays[key].shape) == arrays[key]).sum())
            total += arrays[key].size
    result = f"{equal} of {total}"
    if line["readouts"]:
        far = np.abs(
            record.outputs.reshape(arrays[line["readouts"][0]].shape) - arrays[line["readouts"][0]]
        ).max()
        result += f", read-out within {'1e-6' if far < 1e-6 else format(far, '.1e')}"
    return detected, left, flags(stated), result


def table(folder: Path) -> str:
    """Return the page on what works: every file, then every network that has none."""
    manifest = json.loads((folder / "manifest.json").read_text())
    rows = [TOP]
    for framework, versions in sorted(manifest["versions"].items()):
        given = ", ".join(f"{name} {versions[name]}" for name in ("nir", "nirtorch", "torch"))
        rows += [f"## {framework} {versions[framework]}", "", f"With {given}.", ""]
        rows += ["| file | network | detected | assumed | stated | equal |", "|---|---|---|---|---|---|"]
        for line in (x for x in manifest["files"] if x["framework"] == framework):
            cells = " | ".join(cell or "-" for cell in compared(folder, line))
            rows.append(f"| {line['name']} | {line['net']} | {cells} |")
        rows += ["", "Other networks given to its exporter:", ""]
        lost = (x for x in manifest["failures"] if x["framework"] == framework)
        rows += [f"- {x['net']}: {x['happened']}" for x in lost]
        rows.append("")
    return "\n".join(rows).rstrip() + "\n" + END.rstrip()


def main(arguments: list[str]) -> int:
    """See the file's docstring."""
    if len(arguments) != 2 or arguments[0] not in (*FRAMEWORKS, "--table"):
        print(__doc__)
        return 2
    if arguments[0] == "--table":
        print(table(Path(arguments[1])))
        return 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write(Path(arguments[1]), arguments[0])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
