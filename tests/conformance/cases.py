"""The cases of the conformance suite: small NIR graphs, contracts, inputs, and what has to come out.

    python tests/conformance/cases.py [FOLDER]

writes `NAME.nir` and `NAME.json` of every case (docs/conformance.md says what is in them). Graphs hold
binary fractions only: decays of 1/2, weights and thresholds in eighths or so, few steps. An 8-bit weight
table, a 12-bit decay and a 24-bit state hold all of that without an error, so integers that mean the same
as the equations give the same numbers, and a membrane that meets its threshold does so exactly.
"""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import log
from pathlib import Path
from typing import Any

import h5py
import nir
import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from equations import DEFAULTS, SPIKING, Equations  # noqa: E402
from nets import Net, cuba, eighths, few, if_, lif, plain, spread  # noqa: E402

SCHEMA = {"name": "nir-conformance-case", "version": 1}
FOLDER = Path(__file__).parent / "cases"


@dataclass(frozen=True, eq=False)
class Case:
    """One row. `item`: what of the contract the case is about; its other words must give other traces."""

    group: str
    row: str
    about: str
    graph: nir.NIRGraph
    contract: Mapping[str, Any]
    inputs: Mapping[str, Any]
    item: str = ""

    @property
    def name(self) -> str:
        """The file name's stem."""
        words = self.row.lower().replace(">=", "ge").replace(">", "gt")
        return re.sub("[^a-z0-9]+", "-", words).strip("-")

    def document(self) -> dict[str, Any]:
        """Return the JSON document, the expected traces in it."""
        run = Equations(self.graph, self.contract, self.inputs)
        amplitude = self.contract.get("spike_amplitude", 1.0)
        expected: dict[str, Any] = {}
        for name in run.v:
            entry: dict[str, Any] = {"v": run.v[name].tolist()}
            if isinstance(run.nodes[name], SPIKING):
                entry = {"spikes": np.rint(run.sent[name] / amplitude).astype(int).tolist(), **entry}
            expected[name] = entry
        contract = {**DEFAULTS, **self.contract}
        contract["delays"] = [list(edge) for edge in contract["delays"]]
        return {
            "schema": SCHEMA,
            "group": self.group,
            "row": self.row,
            "about": self.about,
            "item": self.item,
            "contract": contract,
            "inputs": {name: np.asarray(data).tolist() for name, data in self.inputs.items()},
            "expected": expected,
        }


def primitives() -> Iterator[tuple[str, str, Net, dict[str, Any]]]:
    """Yield (row, about, net, contract) of NIR's node types."""
    net = Net().input(2, 3, real=True).add("cell", if_((2, 3))).output(2, 3)
    yield "Input", "real numbers of shape (2, 3) straight into IF neurons of that shape", net, {}
    net = Net().input(3).add("cell", lif()).output(3, source="cell", name="spikes")
    net.add("read", nir.Affine(eighths(2, 2, 3), np.array([0.25, -0.5])), "cell")
    yield (
        "Output",
        "one output reads neurons, the other an Affine after them in the same step",
        net.output(2),
        {},
    )
    net = Net().input(3).add("fc", nir.Affine(eighths(3, 4, 3), np.array([0.25, 0, -0.25, 0.5])))
    yield "Affine", "weights and a bias into LIF neurons", net.add("cell", lif(4)).output(4), {}
    net = Net().input(3).add("fc", nir.Linear(eighths(4, 4, 3)))
    yield "Linear", "weights (out, in) into LIF neurons", net.add("cell", lif(4)).output(4), {}
    net = Net().input(3).add("scale", nir.Scale(np.array([0.5, 1.25, -0.75])))
    yield "Scale", "elementwise factors into LIF neurons", net.add("cell", lif()).output(3), {}
    net = Net().input(2, 7)
    net.add("conv", nir.Conv1d(7, eighths(5, 2, 2, 3), 2, 1, 2, 1, np.array([0.125, -0.25])))
    about = "stride 2, padding 1, dilation 2, a bias; a correlation, as in PyTorch"
    yield "Conv1d", about, net.add("cell", lif((2, 3))).output(2, 3), {}
    net = Net().input(2, 5, 5)
    kernel, bias = eighths(6, 3, 2, 3, 3), np.array([0.125, 0, -0.25])
    net.add("conv", nir.Conv2d((5, 5), kernel, (2, 1), (1, 0), (1, 2), 1, bias))
    about = "kernel (3, 3), stride (2, 1), padding (1, 0), dilation (1, 2), a bias"
    yield "Conv2d", about, net.add("cell", lif((3, 3, 1))).output(3, 3, 1), {}
    net = Net().input(2, 3, 3)
    net.add("conv", nir.Conv2d((3, 3), eighths(18, 4, 1, 2, 2), 1, 0, 1, 2, np.zeros(4)))
    about = "two groups; nir 1.0.8's own type check rejects such a file, so read it with the check off"
    yield "Conv2d, groups", about, net.add("cell", lif((4, 2, 2))).output(4, 2, 2), {}
    net = Net().input(1, 4, 4)
    net.add("conv", nir.Conv2d((4, 4), eighths(7, 2, 1, 2, 3), 1, "same", 1, 1, np.zeros(2)))
    about = "an even kernel of 2 rows is padded below, as in PyTorch"
    yield "Conv2d, padding 'same'", about, net.add("cell", lif((2, 4, 4))).output(2, 4, 4), {}
    pool = {"kernel_size": np.array([2, 2]), "stride": np.array([2, 1]), "padding": np.array([1, 0])}
    net = Net().input(2, 4, 3).add("pool", nir.SumPool2d(**pool)).add("cell", lif((2, 3, 2), v_threshold=1.5))
    yield "SumPool2d", "window (2, 2), stride (2, 1), padding (1, 0)", net.output(2, 3, 2), {}
    net = (
        Net().input(2, 4, 3).add("pool", nir.AvgPool2d(**pool)).add("cell", lif((2, 3, 2), v_threshold=0.375))
    )
    yield "AvgPool2d", "the same windows; zeros of the padding count", net.output(2, 3, 2), {}
    net = Net().input(2, 3, 2).add("flat", nir.Flatten({"input": np.array([2, 3, 2])}, 0))
    net.add("fc", nir.Linear(eighths(8, 3, 12, low=-2, high=4)))
    yield "Flatten", "(2, 3, 2) in C order into a Linear", net.add("cell", lif()).output(3), {}
    yield "IF", "dv = dt r x", plain(if_(r=[1.0, 0.5, 2.0])), {}
    values = {
        "tau": [2.0, 2.0, 4.0],
        "r": [2.0, 1.0, 4.0],
        "v_leak": [0.25, -0.25, 0.5],
        "v_reset": [0.0, -0.25, 0.125],
    }
    about = "dv = dt/tau (v_leak - v + r x), one value per neuron for every parameter"
    yield "LIF", about, few(plain(lif(**values))), {}
    values = {"w_in": [2.0, 1.0, 0.5], "r": [2.0, 1.0, 4.0], "v_leak": [0.25, -0.25, 0.0]}
    yield (
        "CubaLIF",
        "di = dt/tau_syn (w_in x - i), then dv = dt/tau_mem (v_leak - v + r i)",
        plain(cuba(**values)),
        {},
    )
    yield (
        "LI",
        "a LIF without spikes; the output is its membrane",
        plain(nir.LI(**spread(3, tau=2.0, r=2.0, v_leak=0.25)), real=True),
        {},
    )
    yield "CubaLI", "a CubaLIF without spikes", plain(cuba(kind=nir.CubaLI, v_leak=[0.25, 0.0, -0.5])), {}
    yield "I", "an integrator without spikes", plain(nir.I(np.array([1.0, 0.5, 0.25])), real=True), {}
    yield (
        "Threshold",
        "1 where the input of a step passes it; no memory",
        plain(nir.Threshold(np.array([0.5, 0.25, 0.75]))),
        {},
    )
    net = Net().input(3).add("late", nir.Delay(np.array([0.0, 1.0, 3.0]))).add("cell", lif())
    yield "Delay", "0, 1 and 3 steps, element by element", net.output(3), {}
    inside = {"i": nir.Input(np.array([3])), "fc": nir.Linear(eighths(9, 4, 3)), "cell": lif(4)}
    inside["o"] = nir.Output(np.array([4]))
    block = nir.NIRGraph(inside, [("i", "fc"), ("fc", "cell"), ("cell", "o")], type_check=False)
    net = Net().input(3).add("block", block).add("fc", nir.Linear(eighths(10, 2, 4))).add("top", lif(2))
    yield "Nested graph", "a layer in a graph of its own, named block.cell", net.output(2), {}


def conventions() -> Iterator[tuple[str, str, str, Net, dict[str, Any]]]:
    """Yield (row, item, about, net, contract) of what NIR leaves open."""
    half = 1 / log(2)  # exp(-1/half) is 1/2
    cell = lif(tau=half, r=1.0, v_threshold=0.5)
    yield (
        "rule: exponential",
        "rule",
        "decay exp(-dt/tau), gain 1 - decay",
        plain(cell),
        {"rule": "exponential"},
    )
    for word in (">", ">="):
        about = "membranes exactly at threshold " + ("do not spike" if word == ">" else "spike")
        weights = np.array([[0.75, 0.25, 0.5], [1.5, 0.75, -0.75], [0.25, 0.5, 0.75]])
        net = plain(if_(v_threshold=0.75), weights=weights)
        yield f"comparison: {word}", "comparison", about, net, {"comparison": word}
    cell = lif(v_reset=[0.25, -0.25, 0.125])
    yield (
        "reset: value",
        "reset",
        "to v_reset, one value per neuron, in the step of the spike",
        plain(cell),
        {"reset": "value"},
    )
    net = plain(lif(), weights=eighths(1, 3, 3, low=1, high=14))
    yield "reset: subtract", "reset", "subtracts v_threshold", net, {"reset": "subtract"}
    yield "reset: none", "reset", "the membrane is left as it is", plain(lif()), {"reset": "none"}
    strong = eighths(11, 3, 3, low=1, high=14)
    for kind in ("value", "subtract"):
        for timing, about in (
            ("next_before", "in the step after the spike, before it integrates"),
            ("next_after", "in the step after the spike, after it integrates"),
        ):
            contract = {"reset": kind, "reset_timing": timing}
            yield (
                f"reset timing: {timing}, {kind}",
                "reset_timing",
                about,
                plain(lif(), weights=strong),
                contract,
            )
    about = "same step; a membrane that began the step past the threshold must pass twice the threshold"
    contract = {"reset": "subtract", "reset_timing": "pending"}
    yield "reset timing: pending", "reset_timing", about, plain(lif(), weights=strong), contract
    for word in (">", ">="):
        about = f"the largest n with v {word} n v_threshold, sent as a number; n thresholds are subtracted"
        net = plain(if_(v_threshold=0.5), weights=strong)
        net = Net().input(3).add("fc", nir.Linear(strong)).add("cell", if_(v_threshold=0.5))
        net.add("next", nir.Linear(eighths(12, 2, 3, low=-2, high=3))).add("top", lif(2)).output(2)
        contract = {"reset": "subtract", "spikes_per_step": "floor", "comparison": word}
        yield f"spikes per step: floor, {word}", "spikes_per_step", about, net, contract
    net = plain(lif(), weights=eighths(13, 3, 3, low=-10, high=8))
    yield "clip: v_min", "v_min", "membranes stay at or above -1/4, after the reset", net, {"v_min": -0.25}
    for start, about in ((0.5, "a number"), ("v_leak", "v_leak"), ("v_reset", "v_reset")):
        cell = lif(v_leak=[0.5, 0.25, -0.5], v_reset=[0.125, -0.5, 0.25])
        yield (
            f"initial membrane: {start}",
            "v_init",
            f"{about}, before the first step",
            plain(cell),
            {"v_init": start},
        )
    order = {"update_order": "membrane_first"}
    yield (
        "update order: membrane first",
        "update_order",
        "the membrane sees the current of the previous step",
        plain(cuba()),
        order,
    )
    decay = {"current_decay": "after"}
    yield (
        "current decay: after",
        "",  # only the current itself would tell it from decaying before
        "the whole input acts, then the current decays",
        plain(cuba()),
        decay,
    )
    about = "decay after the current has acted; the membrane sees the current of the previous step"
    yield "current decay: after, membrane first", "current_decay", about, plain(cuba()), order | decay
    for gain, about in (
        ("unit", "the input is added as it is; r and w_in are not gains"),
        ("norm", "the input times dt/tau"),
        ("decayed", "the input times 1 - dt/tau"),
    ):
        yield f"gain: {gain}", "gain", about, few(plain(lif(tau=4.0, r=8.0))), {"gain": gain}
    net = Net().input(3).add("fc", nir.Linear(eighths(14, 3, 3))).add("cell", lif())
    net.add("next", nir.Linear(eighths(15, 2, 3, low=1, high=12))).add("top", lif(2)).output(2)
    yield (
        "spike amplitude",
        "spike_amplitude",
        "a spike counts 1/2 at its target",
        net,
        {"spike_amplitude": 0.5},
    )
    seconds = 2.0**-10
    net = plain(lif(tau=2 * seconds))
    yield "dt in seconds", "dt", "dt 2^-10 s and tau 2^-9 s", net, {"dt": seconds}
    net = Net().input(3).add("fc", nir.Linear(eighths(16, 3, 3, low=0, high=12))).add("cell", lif())
    net.add("next", nir.Linear(eighths(17, 2, 3, low=0, high=8))).add("top", lif(2)).output(2)
    about = "one layer subtracts, the other resets to v_reset"
    yield "rules by node", "nodes", about, net, {"nodes": {"cell": {"reset": "subtract"}}}


def topologies() -> Iterator[tuple[str, str, Net, dict[str, Any]]]:
    """Yield (row, about, net, contract) of ways to connect."""

    def weights(seed: int, rows: int = 3, columns: int = 3) -> nir.Linear:
        return nir.Linear(eighths(seed, rows, columns, low=-2, high=8))

    def strong(seed: int, rows: int = 3, columns: int = 3) -> nir.Linear:
        return nir.Linear(eighths(seed, rows, columns, low=1, high=12))

    net = Net().input(3).add("fc", weights(20)).add("a", lif(), "fc").add("b", cuba(), "fc")
    yield (
        "Branch",
        "one Linear feeds two populations",
        net.output(3, source="a").output(3, source="b", name="out2"),
        {},
    )
    net = Net().input(3).add("fc", weights(21)).add("a", lif()).add("fc2", weights(22)).add("b", lif())
    net.add("skip", weights(23), "in").nodes["top"] = lif()
    net.edges += [("b", "top"), ("skip", "top")]
    yield (
        "Skip",
        "an input reaches the third layer directly, in the same step",
        net.output(3, source="top"),
        {},
    )
    net = Net().input(2).input(3, real=True, name="in2").add("fc", weights(24, 3, 2), "in")
    net.add("fc2", weights(25), "in2").add("cell", lif(), "fc", "fc2")
    yield "Several inputs", "spikes and real numbers, summed", net.output(3), {}
    net = Net().input(3).add("fc", weights(26)).add("a", lif()).add("fc2", strong(27, 2)).add("b", lif(2))
    net.output(3, source="a").output(2, source="b", name="out2")
    yield "Several outputs", "both layers are read", net, {}
    net = Net().input(3).input(3, name="in2").add("fc", weights(28), "in", "in2").add("cell", lif())
    yield "Weights shared by two edges", "two inputs through one Linear", net.output(3), {}
    net = Net().input(3).add("fc", weights(29)).add("cell", lif()).add("back", weights(30), "cell")
    net.edges += [("back", "cell")]
    yield (
        "Recurrent layer",
        "spikes come back one step later: no delay is declared",
        net.output(3, source="cell"),
        {},
    )
    net = Net().input(3).add("fc", weights(31)).add("cell", lif())
    net.add("back", nir.Affine(eighths(32, 3, 3, high=4), np.array([0.25, 0.5, -0.25])), "cell")
    net.edges += [("back", "cell")]
    about = "two steps later, and a bias in the loop from the first step on"
    yield (
        "Recurrent layer, delay 2, bias",
        about,
        net.output(3, source="cell"),
        {"delays": [["back", "cell", 2]]},
    )
    net = Net().input(3).add("cell", lif())
    net.edges += [("cell", "cell")]
    yield "Self-connection", "an edge from a node to itself, one step", net.output(3), {}
    net = Net().input(3).add("fc", weights(33)).add("a", lif()).add("ab", weights(34)).add("b", lif())
    net.add("ba", weights(35), "b").edges += [("ba", "a")]
    about = "a cycle of two synapse stages and two steps of delay"
    yield "Cycle of two populations", about, net.output(3, source="b"), {"delays": [["ba", "a", 2]]}
    yield (
        "Short cycle",
        "the same with one step of delay, which is less than its stages",
        short(net),
        {"delays": [["ba", "a", 1]]},
    )
    net = Net().input(2).add("fc", weights(36, 3, 2)).add("a", lif()).add("ab", strong(37)).add("b", lif())
    net.add("bc", strong(38, 2)).add("c", cuba(2)).add("ca", weights(39, 3, 2)).edges += [("ca", "a")]
    about = "four steps of delay on two of its edges"
    yield (
        "Cycle of three populations",
        about,
        net.output(2, source="c"),
        {"delays": [["ca", "a", 3], ["a", "ab", 1]]},
    )
    net = (
        Net().input(3).add("fc", weights(40)).add("cell", lif()).add("fc2", weights(41, 2)).add("top", lif(2))
    )
    about = "an edge of 2 steps and one of 1"
    yield "Delays of edges", about, net.output(2), {"delays": [["in", "fc", 2], ["cell", "fc2", 1]]}
    net = Net().input(3).add("a", lif()).add("late", nir.Delay(np.array([1.0, 2.0, 0.0])))
    net.add("fc", weights(42)).add("later", nir.Delay(np.array([2.0, 1.0, 0.0]))).add("top", lif())
    yield "Delays in series", "1 + 2 steps and 2 + 1 arrive together", net.output(3), {}
    net = Net().input(1, steps=80).add("a", lif(1, v_threshold=0.25)).add("late", nir.Delay(np.array([70.0])))
    net.add("top", lif(1, v_threshold=0.5)).output(1)
    net.inputs["in"] *= np.arange(80)[None, :, None] % 9 == 0
    yield "Long delay", "70 steps, more than a chip's delay slots", net, {}
    net = (
        Net()
        .input(3, real=True, steps=7)
        .add("fc", weights(43))
        .add("leak", nir.LI(**spread(3, tau=2.0, r=2.0, v_leak=0.0)))
    )
    net.add("fc2", weights(44, 2)).add("top", lif(2))
    yield "Membranes as messages", "a leaky integrator feeds LIF neurons with its membrane", net.output(2), {}
    net = (
        Net()
        .input(3, real=True)
        .add("fc", weights(45))
        .add("leak", nir.LI(**spread(3, tau=2.0, r=2.0, v_leak=0.0)))
    )
    net.add("over", nir.Threshold(np.array([0.25, 0.5, 0.375]))).output(3)
    yield (
        "Integrator and threshold",
        "a neuron made of two nodes; the threshold sees the membrane of its step",
        net,
        {},
    )
    nodes = {"i": nir.Input(np.array([3])), "late": nir.Delay(np.full(3, 2.0)), "fc": weights(46)}
    nodes["o"] = nir.Output(np.array([3]))
    block = nir.NIRGraph(nodes, [("i", "late"), ("late", "fc"), ("fc", "o")], type_check=False)
    outer = {"i": nir.Input(np.array([3])), "in": block, "cell": lif(), "o": nir.Output(np.array([3]))}
    twice = nir.NIRGraph(outer, [("i", "in"), ("in", "cell"), ("cell", "o")], type_check=False)
    yield (
        "Nested graphs, two deep",
        "with a Delay in the inner one",
        Net().input(3).add("block", twice).output(3),
        {},
    )


def short(net: Net) -> Net:
    """Return the same graph once more."""
    return Net(dict(net.nodes), list(net.edges), dict(net.inputs))


BASE = {"dt": 1.0}


def cases() -> list[Case]:
    """Return all cases in the order of the table."""
    found = [
        Case("Nodes", row, about, net.graph(), BASE | items, net.inputs)
        for row, about, net, items in primitives()
    ]
    found += [
        Case("Conventions", row, about, net.graph(), BASE | items, net.inputs, item)
        for row, item, about, net, items in conventions()
    ]
    found += [
        Case("Topologies", row, about, net.graph(), BASE | items, net.inputs)
        for row, about, net, items in topologies()
    ]
    return found


def write(folder: Path = FOLDER) -> None:
    """Write the two files of every case, and an index in the order of the table."""
    folder.mkdir(parents=True, exist_ok=True)
    made = cases()
    index = {"schema": {**SCHEMA, "name": "nir-conformance-index"}, "cases": [case.name for case in made]}
    (folder / "index.json").write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")
    for case in made:
        write_graph(folder / f"{case.name}.nir", case.graph)
        text = json.dumps(case.document(), separators=(",", ":"))
        (folder / f"{case.name}.json").write_text(text.replace(',"', ',\n"') + "\n", encoding="utf-8")


def write_graph(path: Path, graph: nir.NIRGraph) -> None:
    """Write a graph as `nir.write` does, without its compression: a third of the size for small arrays."""
    whole = io.BytesIO()
    nir.write(whole, graph)
    with h5py.File(whole, "r") as stream, h5py.File(path, "w", libver=("v108", "v108")) as packed:

        def copy(source: Any, target: Any) -> None:
            for key, item in source.items():
                if isinstance(item, h5py.Group):
                    copy(item, target.create_group(key))
                else:
                    target.create_dataset(key, data=item[()], dtype=item.dtype)

        copy(stream, packed)


if __name__ == "__main__":
    write(*map(Path, sys.argv[1:]))
