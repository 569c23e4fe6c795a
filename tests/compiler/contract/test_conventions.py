"""The contract: written, read again, bound to the parameters, and never guessed."""

from __future__ import annotations

import json

import nir
import numpy as np
import pytest

from snn_compile.compiler import lower
from snn_compile.compiler.contract.contract import (
    METADATA_KEY,
    SCHEMA_VERSION,
    Contract,
    Readout,
    attach,
    graph_digest,
)
from snn_compile.compiler.contract.resolve import resolve
from snn_compile.targets.errors import AmbiguousConvention, CompileError, SnnCompileError

CONTRACT = Contract(
    dt=0.5,
    time_unit="step",
    rule="exponential",
    spike_amplitude=2.0,
    comparison=">=",
    reset="subtract",
    reset_timing="next_before",
    update_order="membrane_first",
    current_decay="after",
    spikes_per_step="floor",
    v_min=-1.5,
    v_init="v_leak",
    delays={("n1", "n2"): 3, ("n2", "n3"): 1},
    readouts={"output": Readout("membrane", "last", "regress")},
    nodes={"n1": {"reset": "none", "v_init": 0.25}},
    v_reset=0.25,
)

STATED = {"dt": 1.0, "rule": "euler", "reset": "value", "reset_timing": "same_step", "comparison": ">"}


@pytest.fixture
def two_layers(build, rng):
    return build.chain(
        3, build.affine(rng, 4, 3), build.lif(4), build.linear(rng, 2, 4), build.li(2), contract=CONTRACT
    )


def through_file(graph, tmp_path):
    nir.write(tmp_path / "graph.nir", graph)
    return nir.read(tmp_path / "graph.nir", type_check=False)


def one_line(error: pytest.ExceptionInfo) -> str:
    text = str(error.value)
    assert isinstance(error.value, SnnCompileError) and text and "\n" not in text
    return text


def test_a_contract_survives_a_file(two_layers, tmp_path):
    contract, decided = resolve(through_file(two_layers, tmp_path))
    assert contract == CONTRACT
    assert set(decided.values()) == {"metadata"}


def test_a_plain_reader_reads_the_file(two_layers, tmp_path):
    nir.write(tmp_path / "graph.nir", two_layers)
    again = nir.read(tmp_path / "graph.nir")
    assert set(again.nodes) == set(two_layers.nodes)
    np.testing.assert_array_equal(again.nodes["n0"].weight, two_layers.nodes["n0"].weight)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_digest_is_of_the_parameters_alone(build, rng, tmp_path, dtype):
    graph = build.chain(3, nir.Linear(rng.normal(size=(2, 3)).astype(dtype)), build.lif(2))
    digest = graph_digest(graph)
    assert graph_digest(through_file(graph, tmp_path)) == digest
    graph.metadata["note"] = "anything"
    graph.nodes["n0"].metadata["note"] = "anything"
    assert graph_digest(graph) == digest
    graph.edges.reverse()
    assert graph_digest(graph) == digest
    graph.nodes["n1"].tau = graph.nodes["n1"].tau + 1e-9
    assert graph_digest(graph) != digest


@pytest.mark.parametrize("edit", ["weight", "edge", "name"])
def test_an_edited_graph_makes_the_contract_stale(two_layers, edit):
    if edit == "weight":
        two_layers.nodes["n0"].weight[0, 0] += 1
    elif edit == "edge":
        two_layers.edges.append(("input", "n0"))
    else:
        two_layers.nodes["other"] = two_layers.nodes.pop("n3")
    with pytest.raises(AmbiguousConvention) as error:
        resolve(two_layers)
    text = one_line(error)
    for item in STATED:
        assert f"--convention {item}=" in text
    assert set(error.value.missing) == set(STATED)
    with pytest.raises(AmbiguousConvention) as error:
        resolve(two_layers, {"dt": 1.0, "reset": "value"})
    assert set(error.value.missing) == STATED.keys() - {"dt", "reset"}


def test_answers_settle_a_stale_contract_and_keep_what_no_number_touches(two_layers):
    two_layers.nodes["n0"].weight[0, 0] += 1
    contract, decided = resolve(two_layers, STATED)
    assert (contract.dt, contract.rule, contract.reset) == (1.0, "euler", "value")
    assert contract.delays == CONTRACT.delays and contract.readouts == CONTRACT.readouts
    assert contract.of("n1").reset == "value"
    assert decided["dt"] == "stated" and decided["delays"] == "metadata"


def test_what_is_stated_wins(two_layers):
    contract, decided = resolve(two_layers, {"dt": 0.25, "reset": "value"})
    assert (contract.dt, contract.reset, contract.comparison) == (0.25, "value", ">=")
    # What the file says otherwise stands beside what is stated, so that a report can warn.
    assert decided["dt"].startswith("stated, against the file's ")
    assert decided["reset"].startswith("stated, against the file's ")
    assert decided["comparison"] == "metadata"
    assert contract.of("n1").reset == "value" and contract.of("n1").v_init == 0.25


def test_a_node_may_differ(build, rng):
    graph = build.chain(
        3,
        build.linear(rng, 2, 3),
        build.lif(2),
        build.linear(rng, 2, 2),
        build.lif(2),
        contract=Contract(dt=1.0, reset="value", nodes={"n3": {"reset": "subtract", "rule": "exponential"}}),
    )
    first, second = lower(graph).populations
    assert (first.reset, second.reset) == ("value", "subtract")
    assert first.parameters["voltage_decay"] == 0.25
    assert second.parameters["voltage_decay"] == -np.expm1(-0.25)


def test_everything_open_is_listed_at_once(build, rng):
    graph = build.chain(3, build.linear(rng, 2, 3), build.lif(2), no_contract=True)
    with pytest.raises(AmbiguousConvention) as error:
        resolve(graph)
    text = one_line(error)
    assert set(error.value.missing) == set(STATED)
    for item in STATED:
        assert f"--convention {item}=" in text
    assert error.value.missing["reset"] == ("value", "subtract", "none")
    contract, decided = resolve(graph, STATED)
    assert contract == Contract(**STATED)
    assert decided["dt"] == "stated" and decided["v_init"] == "default"


def test_a_graph_without_spikes_leaves_less_open(build, rng):
    with pytest.raises(AmbiguousConvention) as error:
        resolve(build.chain(3, build.linear(rng, 2, 3), build.li(2), no_contract=True))
    assert set(error.value.missing) == {"dt", "rule"}


@pytest.mark.parametrize(
    "stated, words",
    [
        ({"colour": 1}, "colour"),
        ({"dt": 0.0}, "dt"),
        ({"dt": float("nan")}, "dt"),
        ({"dt": "soon"}, "soon"),
        ({"dt": None}, "dt"),
        ({"spike_amplitude": float("inf")}, "spike_amplitude"),
        ({"spike_amplitude": "loud"}, "loud"),
        ({"rule": "midpoint"}, "euler, exponential"),
        ({"rule": 2.0}, "euler, exponential"),
        ({"reset": "maybe"}, "value, subtract, none"),
        ({"comparison": "=>"}, ">, >="),
        ({"reset_timing": "later"}, "next_before"),
        ({"spikes_per_step": "two"}, "floor"),
        ({"v_init": "v_zero"}, "v_leak"),
        ({"delays": {("n0", "n1"): -1}}, "-1"),
        ({"delays": {("n0", "n1"): 0.5}}, "0.5"),
        ({"delays": {("n0", "n1"): float("nan")}}, "nan"),
        ({"delays": {("n0", "n1"): "two"}}, "two"),
        ({"delays": {("n0", "nowhere"): 1}}, "nowhere"),
        ({"delays": {("input", "n1"): 1}}, "input -> n1"),
        ({"delays": [1]}, "contract"),
        ({"delays": 3.0}, "contract"),
        ({"readouts": 3.0}, "readouts"),
        ({"readouts": {"output": {"colour": 1}}}, "colour"),
        ({"readouts": {"output": {"readout": "first"}}}, "count, mean, last, max, per_step"),
        ({"readouts": {"output": {"skip": -1}}}, "skip is -1"),
        ({"readouts": {"output": {"skip": 2.5}}}, "skip is 2.5"),
        ({"readouts": {"output": {"readout": "last", "skip": 2}}}, "0 for the readout last"),
        ({"readouts": {"nowhere": Readout()}}, "nowhere"),
        ({"nodes": 3.0}, "nodes"),
        ({"nodes": {"n1": {"dt": 1.0}}}, "dt"),
        ({"nodes": {"n1": {"reset": "maybe"}}}, "n1"),
        ({"nodes": {"nowhere": {"reset": "none"}}}, "nowhere"),
    ],
)
def test_bad_answers_are_refused_in_one_line(build, rng, stated, words):
    graph = build.chain(3, build.linear(rng, 2, 3), build.lif(2))
    with pytest.raises(CompileError) as error:
        lower(graph, stated)
    assert words in one_line(error)


@pytest.mark.parametrize(
    "metadata, words",
    [
        ("{", "not a contract"),
        ("[]", "not a contract"),
        ("3", "not a contract"),
        ("{}", "not a contract"),
        (json.dumps({"schema": "other", "version": 1, "parameters": ""}), "other"),
        ({"version": SCHEMA_VERSION + 1}, "newer"),
        ({"version": "1"}, "version"),
        ({"colour": "red"}, "colour"),
        ({"reset": "maybe"}, "value, subtract, none"),
        ({"delays": [["n0"]]}, "contract"),
        ({"nodes": 3}, "nodes"),
        ({"dt": None}, "dt"),
    ],
)
def test_metadata_that_is_no_contract(build, rng, metadata, words):
    graph = build.chain(3, build.linear(rng, 2, 3), build.lif(2))
    if isinstance(metadata, dict):
        metadata = json.dumps({**json.loads(graph.metadata[METADATA_KEY]), **metadata})
    graph.metadata[METADATA_KEY] = metadata
    with pytest.raises(CompileError) as error:
        resolve(graph)
    assert words in one_line(error)


def test_metadata_may_come_back_as_bytes(two_layers):
    two_layers.metadata[METADATA_KEY] = two_layers.metadata[METADATA_KEY].encode()
    assert resolve(two_layers)[0] == CONTRACT


def test_attaching_again_replaces(two_layers):
    two_layers.nodes["n0"].weight[0, 0] += 1
    attach(two_layers, Contract(dt=2.0))
    assert resolve(two_layers)[0] == Contract(dt=2.0)
