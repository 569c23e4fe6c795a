"""Detection on random graphs: a file is never attributed to an exporter that did not write it.

The graphs are drawn from seeds in tests/support/exporter_graphs.py; they keep the relations of an exporter's
files and vary everything else.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import nir
import numpy as np
import pytest
from support.exporter_graphs import EXPORTERS, by_hand, drawn, other_input, padded, renamed

from snn_compile.compiler import lower
from snn_compile.compiler.cli.console import parse_conventions
from snn_compile.compiler.contract.detect import detect, fitting
from snn_compile.compiler.contract.resolve import resolution
from snn_compile.targets.errors import AmbiguousConvention, CompileError, SnnCompileError

SEEDS = 60


def verdict(graph: nir.NIRGraph) -> set[str]:
    """The exporter that a graph is attributed to, or those between which it is open."""
    found = detect(graph)
    if found is None:
        return set()
    return set(found.candidates or {found.exporter: None})


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_a_graph_is_never_attributed_to_another_exporter(exporter: str) -> None:
    counts: Counter[str] = Counter()
    for seed in range(SEEDS):
        graph, rng = drawn(exporter, seed), np.random.default_rng(seed)
        found = verdict(graph)
        assert not found or exporter in found, (seed, found)
        counts["named" if found == {exporter} else "open" if found else "unknown"] += 1
        for change in (
            renamed(graph, rng),
            renamed(graph, rng, ports=False),
            other_input(graph, rng),
            padded(graph, rng),
        ):
            assert not (other := verdict(change)) or exporter in other, (seed, other)
    assert counts["named"] >= SEEDS // 3, counts  # the rest asks for the exporter, in one line


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_the_order_of_nodes_and_edges_says_nothing(exporter: str) -> None:
    for seed in range(0, SEEDS, 4):
        graph, rng = drawn(exporter, seed), np.random.default_rng(seed)
        names = [str(n) for n in rng.permutation(list(graph.nodes))]
        edges = [graph.edges[i] for i in rng.permutation(len(graph.edges))]
        mixed = nir.NIRGraph({n: graph.nodes[n] for n in names}, edges, type_check=False)
        assert verdict(mixed) == verdict(graph), seed


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_the_users_word_holds_without_a_warning_on_the_exporters_own_graphs(exporter: str) -> None:
    for seed in range(SEEDS):
        graph = drawn(exporter, seed)
        stated, plain = resolution(graph, {"maker": exporter}), detect(graph)
        assert not stated.warnings, (seed, stated.warnings)
        if plain is not None and not plain.candidates:
            alone = resolution(graph)
            assert alone.contract == stated.contract and alone.assumptions == stated.assumptions, seed


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_the_users_word_holds_for_renamed_graphs_node_by_node(exporter: str) -> None:
    for seed in range(0, SEEDS, 3):
        graph = drawn(exporter, seed)
        other = renamed(graph, np.random.default_rng(seed))
        pairs = dict(zip([id(x) for x in other.nodes.values()], other.nodes, strict=True))
        mine, its = (resolution(g, {"maker": exporter}).contract for g in (graph, other))
        for name, node in graph.nodes.items():
            a, b = mine.of(name), its.of(pairs[id(node)])
            assert a.rule_items() == b.rule_items() and (a.dt, a.gain, a.v_init) == (b.dt, b.gain, b.v_init)


def test_graphs_by_hand_are_nobodys() -> None:
    for seed in range(400):
        graph = by_hand(seed)
        assert detect(graph) is None, seed
        with pytest.raises(AmbiguousConvention, match="the graph does not state"):
            resolution(graph)


def test_a_convolution_before_bare_integrators_is_nobodys_alone() -> None:
    rng, one = np.random.default_rng(0), np.ones((3, 4, 4))
    conv = nir.Conv2d((4, 4), rng.normal(size=(3, 2, 3, 3)), 1, 1, 1, 1, np.zeros(3))
    cell, shape = nir.IF(one, one, 0 * one), np.array([2, 4, 4])
    nodes = {"input": nir.Input({"input": shape}), "0": conv, "1": cell}
    nodes["output"] = nir.Output({"output": np.array([3, 4, 4])})
    graph = nir.NIRGraph(nodes, [("input", "0"), ("0", "1"), ("1", "output")], type_check=False)
    assert detect(graph) is None and set(fitting(graph)) == {"norse", "sinabs", "spikingjelly"}
    with pytest.raises(AmbiguousConvention, match=r"maker=norse\|sinabs"):
        resolution(graph)
    first, second = (lower(graph, {"maker": name}).populations[0] for name in ("norse", "sinabs"))
    assert (first.comparison, first.reset) == (">", "value")
    assert (second.comparison, second.reset) == (">=", "subtract")


def test_a_reset_potential_that_norse_drops_can_be_stated_by_node() -> None:
    """An IAFCell starts at v_reset, a LIFBoxCell at v_leak, and both reset to it."""
    seed = next(s for s in range(99) if {"IF", "LIF"} <= {type(x).__name__ for x in _norse(s)})
    graph = drawn("norse", seed)
    kinds = {n: type(x).__name__ for n, x in graph.nodes.items() if hasattr(x, "v_threshold")}
    nodes = {name: {"v_reset": 0.25} for name in kinds}
    network = lower(graph, {"maker": "norse", "nodes": nodes})
    assert "v_reset" not in network.assumed
    for name, kind in kinds.items():
        parameters = network.population(name).parameters
        start = parameters["offset"] + parameters["v_init"]  # the membrane is kept relative to its reset
        assert (parameters["offset"] == 0.25).all()
        leak = np.ravel(getattr(graph.nodes[name], "v_leak", 0.25))
        np.testing.assert_allclose(start, leak[0] if kind != "IF" else 0.25, atol=1e-12)


def _norse(seed: int) -> list:
    return list(drawn("norse", seed).nodes.values())


def test_one_node_of_another_exporter_makes_the_graph_nobodys() -> None:
    tried = 0
    for seed in range(0, SEEDS, 2):
        for first, second in zip(EXPORTERS, EXPORTERS[1:] + EXPORTERS[:1], strict=True):
            graph, other = drawn(first, seed), drawn(second, seed + 1)
            cells = [n for n, x in graph.nodes.items() if hasattr(x, "r")]
            foreign = [x for x in other.nodes.values() if hasattr(x, "r")][0]
            nodes = {**graph.nodes, cells[-1]: foreign}
            found = verdict(nir.NIRGraph(nodes, list(graph.edges), type_check=False))
            tried += len(cells) > 1
            own = {first, second} if len(cells) == 1 else {first}
            assert not found - own - {"norse", "sinabs"} or found & {first, second}, (seed, first, found)
    assert tried > 20


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_strict_is_answered_by_the_items_that_it_names(exporter: str) -> None:
    for seed in range(0, SEEDS, 5):
        graph = drawn(exporter, seed)
        assumed = resolution(graph, {"maker": exporter})
        if not assumed.assumptions:
            continue
        with pytest.raises(AmbiguousConvention) as error:
            resolution(graph, {"maker": exporter}, strict=True)
        assert "\n" not in str(error.value)
        answers: dict = {"maker": exporter, "nodes": {}}
        for one in assumed.assumptions:
            if isinstance(one.value, dict):
                for node, value in one.value.items():
                    answers["nodes"].setdefault(node, {})[one.item] = value
            elif one.item in answers:  # the item has another default for other nodes
                raise AssertionError(one.item)
            else:
                answers[one.item] = "none" if one.value is None else one.value
        told = resolution(graph, answers, strict=True)
        assert not told.assumptions and not told.warnings
        for name in assumed.contract.nodes.keys() | told.contract.nodes.keys():
            a, b = assumed.contract.of(name), told.contract.of(name)
            same = a.gain == b.gain or isinstance(graph.nodes[name], nir.IF)  # norm divides an IF by 1
            assert a.rule_items() == b.rule_items() and a.dt == b.dt and same, (seed, name)


TWO_LAYERS = drawn("snntorch", 3)
CELL = next(n for n, x in TWO_LAYERS.nodes.items() if hasattr(x, "v_threshold"))
OTHER = next(n for n, x in TWO_LAYERS.nodes.items() if hasattr(x, "weight"))


@pytest.mark.parametrize(
    "stated, words",
    [
        ({"maker": "brian"}, "unknown exporter 'brian'"),
        ({"maker": 3.0}, "unknown exporter 3.0"),
        ({"maker": None, "colour": 1}, "unknown convention 'colour'"),
        ({"tau_syn": 5.0}, "only tau_syn=none can be stated"),
        ({"w_rec": "full"}, "only w_rec=none can be stated"),
        ({"nodes": {"nowhere": {"reset": "value"}}}, "no node 'nowhere'; its neurons are"),
        ({"nodes": {OTHER: {"reset": "value"}}}, "is no neuron; its neurons are"),
        ({"nodes": {CELL: {"colour": 1}}}, "single nodes have the items comparison"),
        ({"nodes": {CELL: {"dt": 1e-3}}}, "single nodes have the items comparison"),
        ({"nodes": {CELL: {"reset": "soft"}}}, "reset is 'soft'; use one of value, subtract, none"),
        ({"nodes": {CELL: {"v_min": "low"}}}, "v_min is 'low'; use a number or none"),
        ({"nodes": {CELL: "value"}}, "it maps node names to items"),
        ({"nodes": "value"}, "it maps node names to items"),
        ({"v_reset": "zero"}, "v_reset is 'zero'; use a number or none"),
        ({"v_reset": float("nan")}, "v_reset is nan"),
        ({"v_init": "rest"}, "v_init is 'rest'; use a number or v_leak, v_reset"),
        ({"v_min": float("inf")}, "v_min is inf"),
        ({"v_min": True}, "v_min is True"),
        ({"spikes_per_step": 2.0}, "spikes_per_step is 2.0; use one of"),
        ({"dt": "fast"}, "dt is 'fast'; it must be a number"),
        ({"dt": -1e-4}, "it must be a positive number"),
        ({"gain": 0.5}, "gain is 0.5; use one of"),
        ({"comparison": "="}, "comparison is '='; use one of"),
        ({"reset_timing": "pending", "reset": "value"}, "pending"),
        ({"nodes": {CELL: {"reset": "value", "reset_timing": "pending"}}}, "pending"),
    ],
)
def test_what_cannot_be_stated_is_one_line(stated: dict, words: str) -> None:
    with pytest.raises(CompileError) as error:
        lower(TWO_LAYERS, stated)
    assert words in str(error.value) and "\n" not in str(error.value)


BROKEN: dict[str, Any] = {
    "a time constant of 0": lambda cell: setattr(cell, "tau", np.zeros(4)),
    "a resistance that is no number": lambda cell: setattr(cell, "r", np.full(4, np.nan)),
    "a leak of another size": lambda cell: setattr(cell, "v_leak", np.zeros((2, 3))),
    "thresholds of another size": lambda cell: setattr(cell, "v_threshold", np.ones(3)),
    "text for a time constant": lambda cell: setattr(cell, "tau", "long"),
    "a time constant of infinity": lambda cell: setattr(cell, "tau", np.full(4, np.inf)),
}


@pytest.mark.parametrize("damage", BROKEN)
@pytest.mark.parametrize("maker", [None, *EXPORTERS])
def test_half_broken_neurons_are_one_line_whoever_is_stated(damage: str, maker: str | None) -> None:
    one = np.ones(4)
    cell = nir.LIF(10 * one, one, 0 * one, one, 0 * one)
    nodes = {"input": nir.Input({"input": np.array([4])}), "cell": cell}
    nodes["output"] = nir.Output({"output": np.array([4])})
    graph = nir.NIRGraph(nodes, [("input", "cell"), ("cell", "output")], type_check=False)
    BROKEN[damage](cell)
    flags = {"dt": 1.0, "rule": "euler", "reset": "value", "reset_timing": "same_step", "comparison": ">"}
    with pytest.raises(SnnCompileError) as error:
        lower(graph, flags if maker is None else {"maker": maker})
    assert "\n" not in str(error.value) and "cell" in str(error.value)


@pytest.mark.parametrize(
    "flags, words",
    [
        (["maker"], "write it as key=value"),
        (["3.reset"], "write it as key=value"),
        (["nodes=3"], "items of one node are NODE.reset=value"),
        (["readouts=count"], "no line states readouts"),
        (["reset=value", "reset=none"], "reset is value already; state it once"),
        (["3.reset=value", "3.reset=none"], "3.reset is value already; state it once"),
        (["delays=a:b:-1"], "SOURCE:TARGET:STEPS"),
    ],
)
def test_flags_that_cannot_be_read_are_one_line(flags: list[str], words: str) -> None:
    with pytest.raises(CompileError) as error:
        parse_conventions(flags)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_flags_of_one_node_may_have_names_with_dots_and_signs() -> None:
    flags = ["reset=none", "1.lif.reset=value", "a=b.v_min=-1", "a=b.v_min=-1.0", "delays=x.y:z:2"]
    assert parse_conventions(flags) == {
        "reset": "none",
        "nodes": {"1.lif": {"reset": "value"}, "a=b": {"v_min": -1.0}},
        "delays": {("x.y", "z"): 2},
    }
