"""Resonators and adaptive neurons as the chip's integers: what rounding keeps, what they follow."""

from __future__ import annotations

from typing import Any

import nir
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support import comparing

from snn_compile.compiler import Options, compile_graph, compile_stages, lower
from snn_compile.compiler.contract.contract import Contract, Readout, attach
from snn_compile.compiler.frontends.nir_extensions import ALIF, BRF, RF_IZ
from snn_compile.compiler.lowering.simplify import simplify
from snn_compile.compiler.network import Population
from snn_compile.compiler.neurons.brf import polar_registers, resonator_integers
from snn_compile.compiler.neurons.models import MODELS
from snn_compile.compiler.reference import run_reference
from snn_compile.runtime import compare, diverge
from snn_compile.targets.chips.chip import load_chip
from snn_compile.targets.devices.device import execute
from snn_compile.targets.errors import PrecisionLost, WrongInput

PROGRAMMED = ("brf", "rf_iz", "alif")
CHIP = load_chip("loihi2")
STEPS = 60


def layer(kind: str, rng: np.random.Generator, size: int = 12, delta: float = 0.02) -> Any:
    """Return a node of neurons, each with parameters of its own."""

    def each(low: float, high: float) -> Any:
        return rng.uniform(low, high, size)

    if kind == "brf":
        flags = dict.fromkeys(("smooth_reset", "refractory"), np.ones(size))
        own = {"omega": each(2, 20), "b_offset": each(0.2, 2), "gamma": each(0.85, 0.95)}
        return BRF(**own, theta=each(0.8, 1.2), delta=np.full(size, delta), **flags)
    if kind == "rf_iz":
        one = np.full(size, 0.9)
        omega = each(2, 20)
        b = (np.sqrt(1 - (delta * omega) ** 2) - 1) / delta - each(0.2, 2)
        return RF_IZ(omega=omega, b=b, theta=one, delta=np.full(size, delta))
    ones = np.ones(size)
    reset = ones * (1 + rng.integers(2))
    own = {"tau": each(5, 30) * delta, "tau_adaptation": each(20, 200) * delta}
    return ALIF(**own, r=ones, theta=each(0.01, 0.1), adaptation=1.8 * ones, reset=reset)


def graph(kind: str, seed: int = 0, bias: bool = False, size: int = 12, delta: float = 0.02) -> Any:
    """Return input -> Linear -> neurons with recurrence -> LI, or a biased Affine."""
    rng = np.random.default_rng(seed)
    scale = (0.7 if kind == "alif" else 2 / delta) / np.sqrt(4)
    weight = rng.normal(0.3, 1, (size, 4)) * scale
    first = nir.Affine(weight, rng.normal(0, scale, size)) if bias else nir.Linear(weight)
    nodes = {
        "input": nir.Input({"input": np.array([4])}),
        "fc1": first,
        "hidden": layer(kind, rng, size, delta),
        "back": nir.Linear(rng.normal(0, 0.5, (size, size)) * scale / np.sqrt(size)),
        "fc2": nir.Linear(rng.normal(0, 1, (3, size))),
        "readout": nir.LI(tau=np.full(3, 15 * delta), r=np.ones(3), v_leak=np.zeros(3)),
        "output": nir.Output({"output": np.array([3])}),
    }
    row = ["input", "fc1", "hidden", "fc2", "readout", "output"]
    edges = [*zip(row[:-1], row[1:], strict=True), ("hidden", "back"), ("back", "hidden")]
    made = nir.NIRGraph(nodes, edges)
    readout = {"output": Readout("membrane", "mean", "classify")}
    attach(made, Contract(dt=delta, delays={("hidden", "back"): 1}, readouts=readout))
    return made


def data(seed: int = 0, samples: int = 24) -> Any:
    return (np.random.default_rng(seed + 1).random((samples, STEPS, 4)) < 0.3).astype(float)


@settings(max_examples=200)
@example(249679, 0.999, 0.1875, 0, 0.001)
@given(
    st.integers(0, 2**32),
    st.floats(1e-4, 0.999),
    st.floats(0, 0.2),
    st.integers(0, 4095),
    st.sampled_from([0.001, 0.01, 0.1]),
)
def test_no_quantized_resonator_crosses_the_divergence_boundary(
    seed: int, fastest: float, damped: float, delta_r: int, damping: float
) -> None:
    """At any q that spikes at every step can reach, a step's matrix has a spectral radius of 1 at most."""
    rng = np.random.default_rng(seed)
    size = 64
    sine = rng.uniform(0, fastest, size)
    on = np.sqrt(1 - sine**2)
    # With more than 2 `on` a resonator is damped past the other side of the circle.
    cosine = on - np.minimum(rng.uniform(0, damped, size) * rng.integers(0, 2, size), 2 * on)
    p = Population(
        "n",
        (size,),
        "brf",
        {
            "cosine": cosine,
            "sine": sine,
            "threshold": np.ones(1),
            "damping": np.full(1, damping),
            "rise": np.ones(1),
            "recovery": np.full(1, max(delta_r, 1) / 4096),
            "input_bias": np.zeros(1),
            "offset": np.zeros(1),
        },
    )
    made, _, _ = resonator_integers(p, 500.0, 0, CHIP)
    of = {key: array.astype(np.int64) for key, array in made.parameters.items()}
    assert (of["cos_decay"] ** 2 + of["sin_decay"] ** 2 <= 4096**2).all()
    r = np.array([0, 1, 77, int(of["r_step"][0]), 2**20, 2**23 - 1])[:, None]
    d = np.minimum(r * of["damping"] >> of["damping_exp"], np.maximum(32 * of["cos_decay"], 0))
    for row in (16 * of["cos_decay"] - d) / 2**16:
        sin = of["sin_decay"] / 4096
        steps = np.stack([np.stack([row, -sin], -1), np.stack([sin, row], -1)], -2)
        assert (np.abs(np.linalg.eigvals(steps)) <= 1 + 1e-12).all()


@settings(max_examples=100)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(-np.pi, np.pi)), min_size=1, max_size=30))
def test_the_nearest_point_inside_is_taken(polar: list[tuple[float, float]]) -> None:
    """Of all grid points within 3 of the exact one, none inside the circle is nearer."""
    radius, angle = np.array(polar).T
    exact = radius * np.exp(1j * angle) * 4096
    cos, sin = polar_registers(exact.real / 4096, exact.imag / 4096, 4096)
    around = np.arange(-3, 4)
    tried = np.rint(exact)[:, None, None] + around[:, None] + 1j * around
    off = np.where(tried.real**2 + tried.imag**2 <= 4096**2, np.abs(tried - exact[:, None, None]), np.inf)
    np.testing.assert_allclose(np.abs(cos + 1j * sin - exact), off.min(axis=(1, 2)), atol=1e-6)


def test_resonators_beyond_the_boundary_are_told_and_rounded_to_the_nearest() -> None:
    net = graph("brf")
    net.nodes["hidden"].b_offset[3], net.nodes["hidden"].omega[3] = -0.5, 15.0
    attach(net, Contract(dt=0.02, delays={("hidden", "back"): 1}))
    made = compile_stages(net, calibration=data()).quantized
    assert made is not None
    assert any("'hidden': 1 resonator(s) lie beyond the divergence boundary" in w for w in made.warnings)
    with pytest.raises(PrecisionLost, match="'hidden' does not leak in 12 bits"):
        compile_graph(net)


@pytest.mark.parametrize("kind", PROGRAMMED)
@pytest.mark.parametrize("seed", range(3))
def test_the_integers_follow_the_float_network(kind: str, seed: int) -> None:
    """Most spikes are at the same step, hardly any is missing, and no state leaves 24 bits."""
    net, inputs = graph(kind, seed, bias=seed == 2), data(seed)
    network = lower(net)
    program = compile_graph(net, calibration=inputs)
    ideal = run_reference(network, inputs, record=["hidden"])
    mine = execute(program, inputs, "oracle", record=["hidden"], strict=True)
    spikes, wanted = mine.spikes("hidden"), ideal.spikes("hidden")
    assert wanted.sum() > 200
    assert abs(int(spikes.sum()) - int(wanted.sum())) < 0.02 * wanted.sum()
    # Float and integers agree until the first spike that rounding moves; recurrence amplifies what follows.
    same = (spikes == wanted).all(axis=2)
    until = np.where(same.all(axis=1), STEPS, same.argmin(axis=1))
    assert np.median(until) > 10
    assert (spikes == wanted).mean() > 0.9
    assert (mine.predictions == ideal.predictions).mean() > 0.8


@pytest.mark.parametrize("kind", PROGRAMMED)
def test_finer_weights_bring_the_integers_nearer(kind: str) -> None:
    """From 3 bits to two tables of 8, fewer and fewer spikes differ from the float network's."""
    net, inputs = graph(kind, 5), data(5)
    wanted = run_reference(lower(net), inputs, record=["hidden"]).spikes("hidden")
    differs = []
    for words in ({"weight_bits": 3, "tables": "one"}, {"tables": "one"}, {"tables": "residual"}):
        program = compile_graph(net, options=Options(rounding="nearest", **words), calibration=inputs)
        mine = execute(program, inputs, record=["hidden"]).spikes("hidden")
        differs.append(float((mine != wanted).mean()))
    assert differs[0] > 2 * differs[1] > 2 * differs[2]


@pytest.mark.parametrize("kind", PROGRAMMED)
def test_without_data_the_worst_case_keeps_24_bits(kind: str) -> None:
    net = graph(kind, 7)
    program = compile_graph(net)
    inputs = np.ones((2, STEPS, 4))
    record = execute(program, inputs, "oracle", record=["hidden"], strict=True)
    assert record.spikes("hidden").any()


@pytest.mark.parametrize("kind", PROGRAMMED)
@pytest.mark.parametrize("device", ["loihi2-sim", "lava-stepped"])
def test_a_compiled_network_is_the_same_on_every_device(kind: str, device: str) -> None:
    if device == "lava-stepped":
        pytest.importorskip("lava.magma")
    inputs = data(3, 4)
    program = compile_graph(graph(kind, 3, bias=True), calibration=inputs)
    wanted = comparing.run_all(program, {"input": inputs}, "oracle")
    got = comparing.run_all(program, {"input": inputs}, device)
    assert not comparing.first_difference(wanted, got, overflows="lava" not in device)


def test_a_bound_holds_for_every_input() -> None:
    """Inputs as bad as can be, by the sign of the impulse response, stay below it."""
    rng = np.random.default_rng(4)
    for kind in PROGRAMMED:
        net = graph(kind, 4)
        p = lower(net).population("hidden")
        group = MODELS[kind].group(p, 1)
        bound = MODELS[kind].bound(p, np.full(p.size, 0.3), CHIP.formats)
        for t in range(400):
            turn = np.sign(np.cos(np.angle(_poles(p)) * t)) if kind != "alif" else np.sign(rng.normal())
            group.step(0.3 * turn * np.ones((1, p.size)))
        assert group.peak().v <= bound.v


def _poles(p: Population) -> Any:
    return p.parameters["cosine"] + 1j * p.parameters["sine"]


def turning(bias: bool = False, **changed: Any) -> Any:
    """Return two integrators that turn each other, and a Threshold of one; `changed` are items of nodes."""
    rng = np.random.default_rng(8)
    size, delta = 10, 0.02
    omega, tau, rest = rng.uniform(2, 16, size), rng.uniform(0.5, 3, size), np.zeros(size)
    weight = rng.normal(0.3, 1, (size, 4)) / delta
    settings = {"tau_v": tau, "turn": omega, "leak": rest, **changed}
    nodes = {
        "input": nir.Input({"input": np.array([4])}),
        "fc1": nir.Affine(weight, rng.normal(0, 1, size) / delta) if bias else nir.Linear(weight),
        "u": nir.LI(tau=tau, r=tau, v_leak=rest),
        "v": nir.LI(tau=settings["tau_v"], r=settings["tau_v"], v_leak=settings["leak"]),
        "from_u": nir.Scale(omega),
        "from_v": nir.Scale(-settings["turn"]),
        "hidden": nir.Threshold(np.ones(size)),
        "back": nir.Linear(rng.normal(0, 0.5, (size, size)) / delta),
        "output": nir.Output({"output": np.array([size])}),
    }
    edges = [("input", "fc1"), ("fc1", "u"), ("u", "from_u"), ("from_u", "v"), ("v", "from_v")]
    edges += [("from_v", "u"), ("u", "hidden"), ("hidden", "back"), ("back", "u"), ("hidden", "output")]
    made = nir.NIRGraph(nodes, edges)
    delays = {("u", "from_u"): 1, ("v", "from_v"): 1, ("hidden", "back"): 1}
    attach(made, Contract(dt=delta, delays=delays | settings.get("delays", {})))
    return made


@pytest.mark.parametrize("bias", [False, True])
def test_integrators_that_turn_each_other_are_resonators(bias: bool) -> None:
    network, inputs = lower(turning(bias)), data(8)
    simple = simplify(network)
    assert {p.model for p in simple.populations} == ({"brf", "lif"} if bias else {"brf"})
    record = [run_reference(each, inputs, record=["hidden"]).spikes("hidden") for each in (network, simple)]
    np.testing.assert_array_equal(*record)
    assert record[0].sum() > 100
    program = compile_graph(network, calibration=inputs)
    assert program.period == 1
    mine = execute(program, inputs, "oracle", record=["hidden"], strict=True).spikes("hidden")
    assert (mine == record[0]).mean() > 0.95
    got = comparing.run_all(program, {"input": inputs}, "loihi2-sim")
    assert not comparing.first_difference(comparing.run_all(program, {"input": inputs}, "oracle"), got)


OTHERS = {
    "another leak": {"tau_v": np.full(10, 0.9)},
    "another turn back": {"turn": np.full(10, 3.0)},
    "a constant": {"leak": np.full(10, 0.1)},
    "a longer delay": {"delays": {("v", "from_v"): 2}},
}


@pytest.mark.parametrize("what", OTHERS)
def test_other_pairs_of_integrators_stay_what_they_are(what: str) -> None:
    network = lower(turning(**OTHERS[what]))
    assert "brf" not in {p.model for p in simplify(network).populations}


def test_integrators_left_alone_run_c_slow() -> None:
    """The threshold as a population of its own is a second synapse stage of the layer's recurrence."""
    network, inputs = lower(turning(leak=np.full(10, 0.1))), data(8, 6)
    program = compile_graph(network, options=Options(c_slow=None), calibration=inputs)
    assert program.period == 2
    wanted = run_reference(network, inputs, record=["hidden"]).spikes("hidden")
    assert (execute(program, inputs, record=["hidden"]).spikes("hidden") == wanted).mean() > 0.9


@pytest.mark.parametrize("kind", ["brf", "alif"])
def test_a_report_compares_and_divergence_finds_rounding(kind: str) -> None:
    net, inputs = graph(kind, 6), data(6, 8)
    program, network = compile_graph(net, calibration=inputs), lower(net)
    ideal = run_reference(network, inputs).predictions
    report = compare(program, network, inputs, ideal)
    assert report.accuracy is not None and report.accuracy.reference == 1.0
    found = diverge(program, network, inputs, ideal)
    assert not found.faults and found.stages[-1].differing == 0


def test_thresholds_that_differ_are_told() -> None:
    net = graph("rf_iz")
    net.nodes["hidden"].theta[3] = 1.1
    attach(net, Contract(dt=0.02, delays={("hidden", "back"): 1}))
    with pytest.raises(PrecisionLost, match="thresholds from .*0.9.* to .*1.1.*; the chip's RF_IZ has one"):
        compile_graph(net, calibration=data())


def test_divergence_of_reset_resonators_is_refused_by_name() -> None:
    net, inputs = graph("rf_iz", 6), data(6, 4)
    program, network = compile_graph(net, calibration=inputs), lower(net)
    with pytest.raises(WrongInput, match="is of model rf_iz"):
        diverge(program, network, inputs, run_reference(network, inputs).predictions)


def test_thresholds_that_round_to_one_are_one() -> None:
    net = graph("rf_iz")
    net.nodes["hidden"].theta[3] += 1e-9
    attach(net, Contract(dt=0.02, delays={("hidden", "back"): 1}))
    assert compile_graph(net, calibration=data()).population("hidden").parameters["vth"].size == 1


BEYOND = {"too fast": {"omega": 55.0}, "growing": {"b": 3.0}, "overshooting": {"b": -150.0}}


@pytest.mark.parametrize("what", BEYOND)
def test_a_step_that_no_register_holds_is_told(what: str) -> None:
    net = graph("rf_iz")
    for key, value in BEYOND[what].items():
        getattr(net.nodes["hidden"], key)[3] = value
    net.nodes["fc1"].weight[:] = net.nodes["back"].weight[:] = 1e-3
    attach(net, Contract(dt=0.02, delays={("hidden", "back"): 1}))
    with pytest.raises(PrecisionLost, match="a step of neuron 3 multiplies by a (co)?sine of"):
        compile_graph(net, calibration=data(samples=2))
