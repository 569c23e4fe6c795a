"""Floats to the chip's integers: every reported error recomputed, no state out of range, scales that
follow the data, and refusals where an integer cannot hold what the network needs."""

from __future__ import annotations

import nir
import numpy as np
import pytest

from snn_compile.compiler import Options, compile_graph, compile_stages
from snn_compile.compiler.contract.contract import Contract
from snn_compile.compiler.lowering.simplify import simplify
from snn_compile.targets.devices.device import execute
from snn_compile.targets.errors import CompileError, DoesNotFit, PrecisionLost

STATE_TOP = 2**23 - 1
DELAYED = {("cell", "back"): 1}


@pytest.fixture
def mixed(build, rng):
    """Real-valued input, a recurrent current-based layer with per-neuron parameters, and a read-out."""
    spread = np.linspace(0.8, 1.3, 6)
    nodes = {
        "input": build.port(nir.Input, 3),
        "fc": build.linear(rng, 6, 3, 1.5),
        "cell": build.cuba(6, tau_mem=4 * spread, v_threshold=0.6 * spread, v_leak=0.07 * spread),
        "back": build.linear(rng, 6, 6, 0.5),
        "out_fc": build.affine(rng, 2, 6),
        "leak": build.li(2),
        "output": build.port(nir.Output, 2),
    }
    edges = [("input", "fc"), ("fc", "cell"), ("cell", "back"), ("back", "cell")]
    edges += [("cell", "out_fc"), ("out_fc", "leak"), ("leak", "output")]
    return build.graph(nodes, edges, Contract(dt=0.7, reset="subtract", v_init=0.1, delays=DELAYED))


def table_step(table) -> float:
    """Distance between neighbouring weights: 8 - bits low bits are gone, and one more for a sign."""
    return 2.0 ** (8 - table.bits + (table.sign_mode == "mixed") + table.exponent)


def recomputed(done) -> dict[str, tuple[float, float, float, int]]:
    """Return max, rms and relative error and the number of values of every tensor, from program and
    network alone."""
    program, network, found = done.program, simplify(done.network), {}

    def put(name, exact, kept, lsb):
        exact, kept = np.broadcast_arrays(np.asarray(exact, float), np.asarray(kept, float))
        error = np.abs(exact - kept)
        size = np.sqrt(np.mean((exact / lsb) ** 2))
        rms = np.sqrt(np.mean((error / lsb) ** 2))
        found[name] = (np.max(error / lsb), rms, rms / size if size else 0.0, exact.size)

    for p in network.populations:
        made, given = program.population(p.name), p.parameters
        register, unit = made.parameters, made.scale
        put(f"{p.name}.current_decay", given["current_decay"] * 4096, register["du"] + 1, 1)
        put(f"{p.name}.voltage_decay", given["voltage_decay"] * 4096, register["dv"], 1)
        step = 2.0 ** register["bias_exp"][0]
        put(f"{p.name}.bias", given["bias"] * unit, register["bias_mant"] * step, step)
        if p.spiking:
            put(f"{p.name}.threshold", given["threshold"] * unit / 64, register["vth"], 1)
    inputs = {port.name: port for port in program.inputs}
    for e in network.projections:
        gain = inputs[e.source].scale if e.source in inputs else 1.0
        exact = e.weight * program.population(e.target).scale / 64 / gain
        tables = program.tables(e.name)
        kept = sum(table.weights * 2.0**table.exponent for table in tables)
        steps = [table_step(table) for table in tables]
        put(e.name, exact, kept, np.where(exact < 0, steps[-1], steps[0]))
    return found


@pytest.mark.parametrize("tables", ["one", "sign"])
@pytest.mark.parametrize("bits", range(1, 9))
def test_every_error_is_what_the_program_says(mixed, rng, bits, tables):
    data = rng.uniform(-1.2, 0.9, (4, 20, 3))
    done = compile_stages(mixed, options=Options(bits, tables, rounding="nearest"), calibration=data)
    reported = {error.tensor: error for error in done.quantized.errors}
    wanted = recomputed(done)
    assert reported.keys() == wanted.keys() | {"input"}
    for name, (largest, rms, relative, values) in wanted.items():
        error = reported[name]
        assert error.values == values
        np.testing.assert_allclose(error.max_lsb, largest, atol=1e-6)
        np.testing.assert_allclose(error.rms_lsb, rms, atol=1e-6)
        np.testing.assert_allclose(error.relative, relative, atol=1e-6)
        assert error.clipped or error.max_lsb <= 0.5 + 1e-9
        assert (error.max_lsb > 0.5 + 1e-9) == (error.clipped > 0)
    port = done.program.inputs[0]
    step_error = np.abs(np.rint(data * port.scale) - data * port.scale)
    np.testing.assert_allclose(reported["input"].max_lsb, step_error.max(), atol=1e-9)
    weights = {edge.name for edge in done.program.projections}
    assert not any(error.clipped for name, error in reported.items() if name not in weights)


@pytest.mark.parametrize("bits", range(1, 9))
def test_weights_use_the_whole_range_of_their_bits(build, rng, bits, spikes):
    graph = build.chain(3, build.linear(rng, 8, 3), build.lif(8))
    for table in (
        compile_graph(graph, options=Options(bits, "sign"), calibration=spikes).projections[0].tables
    ):
        assert table.bits == bits and (table.weights % 2 ** (8 - bits) == 0).all()
        assert np.abs(table.weights).max() > 127


@pytest.mark.parametrize(
    "low, high, tables, modes",
    [
        (0.1, 1, "one", ["excitatory"]),
        (-1, -0.1, "one", ["inhibitory"]),
        (-1, 1, "one", ["mixed"]),
        (-1, 1, "sign", ["excitatory", "inhibitory"]),
        (0.1, 1, "sign", ["excitatory"]),
        (-1, -0.1, "sign", ["inhibitory"]),
    ],
)
def test_sign_modes(build, rng, spikes, low, high, tables, modes):
    graph = build.chain(3, nir.Linear(rng.uniform(low, high, (8, 3))), build.lif(8, v_leak=1.0))
    program = compile_graph(graph, options=Options(tables=tables), calibration=spikes)
    found = program.projections[0].tables
    assert [table.sign_mode for table in found] == modes
    if len(found) == 2:
        assert not np.any((found[0].weights != 0) & (found[1].weights != 0))


@pytest.mark.parametrize(
    "values, kind, scale, signed",
    [
        ([0, 1], "spikes", 1.0, False),
        ([0], "spikes", 1.0, False),
        ([1], "spikes", 1.0, False),
        (np.arange(17) / 16, "graded", 128.0, False),
        (np.arange(256) / 255, "graded", 255.0, False),
        (np.arange(-8, 9) / 8, "graded", 128.0, True),
        ([-1, 0, 1], "graded", 128.0, True),
        ([0, 200], "graded", 1.0, False),
        ([0, 1e-6], "graded", 255e6, False),
        ([0, 3e7], "graded", 2.0**-17, False),
    ],
)
def test_inputs_are_encoded_by_what_the_data_holds(build, values, kind, scale, signed):
    values = np.asarray(values, float)
    data = np.resize(values, (2, max(len(values), 4), 3))
    done = compile_stages(build.chain(3, build.lif(3, v_threshold=1e9)), calibration=data)
    port = done.program.inputs[0]
    assert (port.kind, port.signed) == (kind, signed)
    if values.max() <= 1:
        assert port.scale == scale
    messages, clipped = port.encode(data)
    assert clipped == 0 and np.abs(messages).max() < 256
    np.testing.assert_allclose(messages / port.scale, data, atol=0.5 / port.scale)


def test_more_input_bits_are_finer(build, rng):
    data = rng.random((2, 10, 3))
    for bits in (1, 4, 12, 16):
        done = compile_stages(
            build.chain(3, build.lif(3)), options=Options(input_bits=bits), calibration=data
        )
        messages, clipped = done.program.inputs[0].encode(data)
        assert clipped == 0 and messages.max() < 2**bits
        assert np.abs(messages / done.program.inputs[0].scale - data).max() <= 0.5 / (2 ** (bits - 1) - 0.5)


def test_all_zero_weights_warn_and_compile(build, spikes):
    graph = build.chain(3, nir.Linear(np.zeros((2, 3))), build.lif(2))
    for data in (spikes, None):
        done = compile_stages(graph, calibration=data)
        assert any("input/n0/n1" in text and "zero" in text for text in done.quantized.warnings)
        assert not execute(done.program, spikes, "oracle").outputs.any()


def test_weights_that_vanish_in_rounding_are_told(build, spikes):
    nodes = {
        "input": build.port(nir.Input, 3),
        "tiny": nir.Linear(np.full((2, 3), 1e-9)),
        "n": build.lif(2),
        "output": build.port(nir.Output, 2),
    }
    graph = build.graph(nodes, [("input", "tiny"), ("tiny", "n"), ("n", "output")])
    done = compile_stages(graph, calibration=spikes)
    assert any("input/tiny/n" in text and "after rounding" in text for text in done.quantized.warnings)


def test_thresholds_that_round_to_0(build, rng, spikes):
    layers = [build.linear(rng, 2, 3), build.lif(2, v_threshold=np.array([1.0, 1e-9]))]
    done = compile_stages(build.chain(3, *layers), calibration=spikes)
    assert done.program.population("n1").parameters["vth"].tolist()[1] == 0
    assert any("'n1'" in text and "round to 0" in text for text in done.quantized.warnings)
    done = compile_stages(build.chain(3, build.lif(3, v_threshold=0.0)), calibration=spikes)
    assert not done.quantized.warnings and execute(done.program, spikes, "oracle").outputs.any()


@pytest.mark.parametrize("weight", [1e5, 1e12, 1e300, 1e308])
def test_states_beyond_the_reach_of_a_threshold(build, spikes, weight):
    with pytest.raises(PrecisionLost) as error:
        compile_graph(build.chain(3, nir.Linear(np.full((2, 3), weight)), build.lif(2)), calibration=spikes)
    assert "'n1'" in str(error.value) and "threshold" in str(error.value) and "\n" not in str(error.value)
    assert error.value.tensor == "n1" and "give a smaller gain of its input" in str(error.value)


def test_states_too_large_at_worst_only_ask_for_data(build, spikes):
    graph = build.chain(3, nir.Linear(np.full((2, 3), 1e5)), build.lif(2, tau=4000.0))
    with pytest.raises(PrecisionLost, match=r"at worst so much larger .* \(--calibrate DATA\)"):
        compile_graph(graph)
    assert compile_graph(graph, calibration=spikes).populations


def test_a_huge_dynamic_range_keeps_what_matters(build, spikes):
    weights = nir.Linear(np.array([[3e2, 1.0, 1e-6], [1e-12, 2.0, 1.0]]))
    done = compile_stages(build.chain(3, weights, build.lif(2)), calibration=spikes)
    (error,) = (e for e in done.quantized.errors if e.tensor == "input/n0/n1")
    assert error.max_lsb <= 0.5 + 1e-9 and error.relative < 0.01
    execute(done.program, spikes, "oracle", strict=True)


def test_unbounded_states_need_data(build, spikes):
    for layer in (build.li(3, tau=1e5), build.cuba(3, tau_mem=1e9)):
        with pytest.raises(PrecisionLost) as error:
            compile_graph(build.chain(3, layer))
        assert "'n0'" in str(error.value) and "--calibrate" in str(error.value)
        compile_graph(build.chain(3, layer), calibration=spikes)


def test_a_leak_that_rounds_away_is_told_and_its_states_still_fit(build):
    # A float leak of 1e-4 a step bounds the membrane; 12 bits hold no such leak, so the integers run off.
    graph, data = build.chain(1, build.li(1, tau=8300.0)), np.ones((1, 35000, 1))
    done = compile_stages(graph, calibration=data)
    assert any("'n0'" in text and "leak" in text and "round to 0" in text for text in done.quantized.warnings)
    assert not any(execute(done.program, data, "loihi2-sim").overflows.values())


def test_a_value_beyond_its_register_counts_as_clipped(build, spikes):
    # The slowest decay of a current is 1/4096 a step.
    done = compile_stages(build.chain(3, build.cuba(3, tau_syn=1e6)), calibration=spikes)
    (error,) = (e for e in done.quantized.errors if e.tensor == "n0.current_decay")
    assert (error.clipped, error.values) == (1, 1) and 0.9 < error.max_lsb < 1
    assert sum(e.clipped for e in done.quantized.errors) == 1


def test_integers_that_run_off_at_any_scale(build, monkeypatch):
    monkeypatch.setattr("snn_compile.compiler.calibration.calibrate.RETRIES", 1)
    with pytest.raises(PrecisionLost) as error:
        compile_graph(build.chain(1, build.li(1, tau=8300.0)), calibration=np.ones((1, 35000, 1)))
    assert "'n0'" in str(error.value) and "24-bit" in str(error.value) and "\n" not in str(error.value)


def test_what_sends_numbers_needs_data(build, rng, spikes):
    for graph in (
        build.chain(3, build.li(3), build.lif(3)),
        build.chain(3, build.lif(3), build.lif(3), spikes_per_step="floor", reset="subtract"),
    ):
        with pytest.raises(PrecisionLost) as error:
            compile_graph(graph)
        assert "'n0'" in str(error.value) and "--calibrate" in str(error.value)
        execute(compile_graph(graph, calibration=spikes), spikes, "oracle", strict=True)
    # What only an output reads has a bound all the same.
    compile_graph(build.chain(3, build.lif(3), spikes_per_step="floor", reset="subtract"))


def test_an_integrator_that_was_silent_may_be_heard_late(build):
    """Nothing is known of its membrane, and delayed messages of 24 bits would have no one meaning."""
    nodes = {
        "quiet": build.port(nir.Input, 3),
        "loud": build.port(nir.Input, 1),
        "sum": nir.I(np.ones(3)),
        "now": nir.Linear(np.array([[0.5, 0.4, 0.3]])),
        "late": nir.Linear(np.array([[0.55, -0.005, -0.005]])),
        "cell": build.lif(1),
        "out": build.port(nir.Output, 1),
    }
    edges = [("quiet", "sum"), ("sum", "now"), ("now", "cell"), ("sum", "late"), ("late", "cell")]
    graph = build.graph(nodes, [*edges, ("loud", "cell"), ("cell", "out")], delays={("sum", "late"): 4})
    data = {"quiet": np.zeros((1, 20, 3)), "loud": np.ones((1, 20, 1))}
    program = compile_graph(graph, options=Options(tables="sign"), calibration=data)
    assert sum(edge.delay_steps > 0 for edge in program.projections) == 1
    record = execute(program, {"quiet": np.ones((1, 20, 3)), "loud": 0 * data["loud"]}, record=["cell"])
    assert record.spikes("cell").any()


@pytest.mark.parametrize("seed", range(12))
def test_the_worst_case_without_data_is_one(build, seed):
    """No input can push a state out of 24 bits: each neuron gets the spikes that are worst for it."""
    rng = np.random.default_rng(seed)
    tau = 10 ** rng.uniform(0.1, 2.5, 2)
    cell = build.cuba(
        5, tau_syn=tau[0], tau_mem=tau[1], v_leak=rng.normal(), v_threshold=10 ** rng.uniform(-1, 2)
    )
    nodes = {
        "input": build.port(nir.Input, 4),
        "fc": build.affine(rng, 5, 4),
        "cell": cell,
        "back": build.linear(rng, 5, 5),
        "leak": build.li(5, tau=tau[0] + 1),
        "output": build.port(nir.Output, 5),
    }
    edges = [("input", "fc"), ("fc", "cell"), ("cell", "back"), ("back", "cell"), ("cell", "leak")]
    reset = ["value", "subtract", "none"][seed % 3]
    graph = build.graph(nodes, [*edges, ("leak", "output")], delays=DELAYED, reset=reset)
    done = compile_stages(graph)
    assert any("calibrat" in text for text in done.quantized.warnings)
    signs = nodes["fc"].weight > 0
    data = np.concatenate([signs, ~signs, np.ones((1, 4)), np.zeros((1, 4))])[:, None].repeat(700, axis=1)
    execute(done.program, data, "oracle", strict=True)


@pytest.mark.parametrize("seed", range(10))
def test_calibration_data_stays_in_range_and_the_range_is_used(build, seed):
    rng = np.random.default_rng(seed)
    scale = 10 ** rng.uniform(-6, 3)
    layers = [build.affine(rng, 8, 3, scale), build.cuba(8, v_threshold=scale * rng.uniform(0.5, 2, 8))]
    graph = build.chain(
        3, *layers, build.affine(rng, 2, 8), build.li(2), reset=["value", "subtract"][seed % 2]
    )
    data = rng.uniform(-1, 1, (6, 30, 3))
    program = compile_graph(graph, calibration=data)
    probes = [f"{p.name}.{s}" for p in program.populations for s in "uv"]
    record = execute(program, data, "oracle", probes=probes, strict=True)
    for p in [p for p in program.populations if not p.name.endswith(".bias")]:
        top = max(np.abs(record.states(f"{p.name}.{s}")).max() for s in "uv")
        assert top <= STATE_TOP
        full = [top * 8 > STATE_TOP / 8]
        if p.spiking:
            full.append(p.parameters["vth"].max() > 2**17 / 8)
        assert any(full), "neither a state nor the threshold comes near the end of its range"


@pytest.mark.parametrize("factor", [2.0**-7, 2.0**5, 3.7, 0.011])
def test_units_do_not_matter(build, rng, spikes, factor):
    """A population in other units (weights, thresholds, leak) gives the same integers."""
    weight, bias = rng.normal(size=(6, 3)), rng.normal(size=6) * 0.1

    def made(unit):
        layer = nir.Affine(weight * unit, bias * unit)
        cell = build.lif(6, v_threshold=0.7 * unit, v_leak=0.1 * unit, v_reset=-0.1 * unit)
        return compile_graph(build.chain(3, layer, cell), calibration=spikes)

    one, other = made(1.0), made(factor)
    np.testing.assert_allclose(other.populations[0].scale * factor, one.populations[0].scale, rtol=1e-9)
    for key in one.populations[0].parameters:
        a, b = (p.populations[0].parameters[key].astype(int) for p in (one, other))
        assert np.abs(a - b).max() <= (0 if key in ("du", "dv", "bias_exp") else 1)
    for a, b in zip(one.projections[0].tables, other.projections[0].tables, strict=True):
        assert (a.exponent, a.sign_mode) == (b.exponent, b.sign_mode)
        assert np.abs(a.weights.astype(int) - b.weights).max() <= (0 if factor in (2.0**-7, 2.0**5) else 1)


@pytest.mark.parametrize("threshold, words", [(-0.5, "-0.5"), (-np.ones(3), "-1")])
def test_thresholds_below_0(build, threshold, words):
    with pytest.raises(CompileError) as error:
        compile_graph(build.chain(3, build.lif(3, v_threshold=threshold)))
    assert "'n0'" in str(error.value) and words in str(error.value) and "\n" not in str(error.value)


def test_a_chip_without_payload_takes_spikes_only(build, rng, spikes):
    graph = build.chain(3, build.linear(rng, 2, 3), build.lif(2))
    assert compile_graph(graph, "loihi1-sim", calibration=spikes).chip == "loihi1"
    with pytest.raises(DoesNotFit) as error:
        compile_graph(graph, "loihi1-sim", calibration=spikes * 0.5)
    assert "'input'" in str(error.value) and "payload" in str(error.value)
