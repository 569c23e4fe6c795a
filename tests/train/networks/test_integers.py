"""What is trained is what is deployed: the training graph's spikes are those of the compiled program."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from snn_compile import compiler, runtime
from snn_compile.compiler.contract.contract import Contract
from snn_compile.runtime.data.registry import load_data
from snn_compile.targets.errors import CompileError, PrecisionLost, SnnCompileError
from snn_compile.train import (
    LayerConfig,
    NetworkConfig,
    SpikingNetwork,
    fit,
    load_checkpoint,
    read_config,
    to_nir,
)
from snn_compile.train.networks.integer_formats import IntegerConfig
from snn_compile.train.networks.integers import deployed

SPIKING, SHAPE, SAMPLES, STEPS = ("lif", "cuba_lif"), (2, 8, 7), 5, 15


def random_network(seed):
    """Return a network in integers that draws every choice there is, and inputs for it."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)

    def layer(size, **more):
        return LayerConfig(
            size,
            SPIKING[rng.integers(2)],
            bias=bool(rng.integers(2)),
            alpha=rng.uniform(0.2, 0.9),
            beta=rng.uniform(0.2, 0.95),
            learn_decay=bool(rng.integers(2)),
            per_neuron=bool(rng.integers(2)),
            threshold=rng.uniform(0.4, 1.6),
            reset=("value", "subtract")[rng.integers(2)],
            **more,
        )

    convolutions = [layer(4, kernel=3, stride=int(1 + seed % 2), padding=1), layer(5, kernel=2, pool=2)]
    dense = [layer(9, recurrent=bool(rng.integers(2))), layer(7, recurrent=bool(rng.integers(2)))]
    last = LayerConfig(
        4, "li", bias=bool(rng.integers(2)), beta=0.8, learn_decay=True, per_neuron=seed % 3 == 0
    )
    layers = [*(convolutions if seed % 4 == 1 else []), *dense, last]
    bits = int(rng.integers(2, 9))
    integers = IntegerConfig(bits, ("one", "sign")[seed % 2])
    values = rng.normal(0.4, 0.8, (SAMPLES, STEPS, *SHAPE))
    if seed % 3 == 0:
        values = (values > 0.5).astype(float)
    else:
        integers = IntegerConfig(bits, integers.tables, 37.25, 8, bool(seed % 3 == 1))
    network = SpikingNetwork(NetworkConfig(SHAPE, tuple(layers), integers))
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.ndim == 1 or name.endswith("logit"):
                parameter += 0.3 * torch.randn_like(parameter)
            else:
                parameter.mul_(3).add_(0.08)
    return network, values


def assert_equal(program, run, inputs):
    """Hold every population's spikes, the read-out's membranes and the predictions against a run."""
    record = runtime.simulate(program, inputs, record=tuple(run.spikes), probes=("readout.v",))
    for name, spikes in run.spikes.items():
        np.testing.assert_array_equal(record.spikes(name).reshape(spikes.shape), spikes.numpy(), err_msg=name)
    scale = next(p.scale for p in program.populations if p.name == "readout")
    np.testing.assert_array_equal(record.states("readout.v"), np.rint(run.outputs.numpy() * scale))
    np.testing.assert_array_equal(record.predictions, run.outputs.mean(dim=1).argmax(dim=1).numpy())


@pytest.mark.parametrize("seed", range(24))
def test_a_random_network_spikes_as_its_program(seed):
    network, inputs = random_network(seed)
    with torch.no_grad():
        run = network.run(torch.from_numpy(inputs))
    program = compiler.compile_graph(to_nir(network, torch.from_numpy(inputs[:1])))
    assert_equal(program, run, inputs)
    assert 0.01 < np.mean([float(z.mean()) for z in run.spikes.values()]) < 0.95
    bits = network.config.integers.weight_bits
    assert {table.bits for edge in program.projections for table in edge.tables} == {bits}


SMALL = ["copies=0", "epochs=3", "hidden=24", "learning_rate=0.02"]


@pytest.mark.parametrize(
    "preset, options",
    [
        ("digits", ["weight_bits=4", "steps=8"]),
        ("digits", ["weight_bits=8", "steps=8", "input_bits=5"]),
        ("digits", ["weight_bits=8", "steps=8", "tables=sign", "coding=rate"]),
        ("digits-recurrent", ["weight_bits=4", "tables=sign"]),
        ("digits-recurrent", ["weight_bits=8", "neuron=cuba_lif", "reset=subtract"]),
    ],
)
def test_after_training_the_program_spikes_as_the_training_graph_on_every_test_sample(
    tmp_path, preset, options
):
    path = tmp_path / "model.pt"
    training = fit(read_config(preset, [*SMALL, *options]), path)
    checkpoint = load_checkpoint(path)
    network = SpikingNetwork(NetworkConfig.from_dict(checkpoint.config["network"]))
    network.load_state_dict(dict(checkpoint.state_dict))
    test = load_data("digits", "test", **checkpoint.data["options"])
    with torch.no_grad():
        run = network.run(torch.tensor(test.inputs))
    program = compiler.compile_graph(checkpoint.graph)
    assert_equal(program, run, test.inputs)
    record = runtime.simulate(program, test.inputs)
    accuracy = float((record.predictions == test.labels).mean())
    assert len(test.labels) == 360 and accuracy == training.metrics["test_accuracy"] > 0.3
    assert not any(record.overflows.values())


def test_fine_tuning_starts_from_a_float_checkpoint(tmp_path):
    settings = ["copies=0", "steps=6", "hidden=24"]
    fit(
        read_config("digits", [*settings, "epochs=3", "weight_bits=0", "learning_rate=0.02"]),
        tmp_path / "a.pt",
    )
    start = [*settings, f"init={tmp_path / 'a.pt'}", "weight_bits=3", "epochs=1", "learning_rate=1e-9"]
    state = load_checkpoint(tmp_path / "a.pt").state_dict
    for name, value in fit(read_config("digits", start)).network.state_dict().items():
        torch.testing.assert_close(value, state[name], rtol=0, atol=1e-6)
    with pytest.raises(SnnCompileError, match=r"init=.*a\.pt: its parameters are not those.*size mismatch"):
        fit(read_config("digits", [*start, "hidden=12"]))


@pytest.mark.parametrize("bits, tables", [(8, "one"), (8, "sign"), (4, "one"), (3, "sign")])
def test_weights_are_as_near_as_so_many_bits_allow(bits, tables):
    torch.manual_seed(1)
    network = SpikingNetwork(NetworkConfig((50,), (LayerConfig(40), LayerConfig(3, "li", beta=0.5))))
    twin = deployed(network, network.stages(), IntegerConfig(bits, tables))
    levels = 2**bits - 1 if tables == "sign" else 2 ** (bits - 1) - 1
    for mine, kept in zip(network.parameters(), twin.parameters(), strict=True):
        if mine.ndim > 1:
            # The uniform error at the step that the largest weight asks for; at worst nearly twice that.
            step = float(mine.detach().abs().max()) / levels
            assert 0 < float((kept - mine).detach().square().mean().sqrt()) < 2 * step / np.sqrt(12)
            assert len(torch.unique(kept)) <= 2 * levels + 2


def test_gradients_are_those_of_the_float_network_at_many_bits():
    torch.manual_seed(3)
    layers = (LayerConfig(12, beta=0.6), LayerConfig(8, "cuba_lif", recurrent=True), LayerConfig(4, "li"))
    inputs = torch.rand(6, 8, 10)
    found = {}
    for integers in (None, IntegerConfig(8, "sign", 255.0, 8)):
        torch.manual_seed(3)
        network = SpikingNetwork(NetworkConfig((10,), layers, integers))
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.mul_(2.5)
        run = network.run(inputs)
        run.outputs.square().sum().backward()
        found[integers is None] = run, torch.cat([p.grad.flatten() for p in network.parameters()])
    spikes = [torch.cat([z.flatten() for z in found[key][0].spikes.values()]) for key in (True, False)]
    assert 0.05 < spikes[0].mean() < 0.6 and (spikes[0] != spikes[1]).float().mean() < 0.05
    assert torch.nn.functional.cosine_similarity(found[True][1], found[False][1], dim=0) > 0.97
    ratio = float(found[False][1].norm() / found[True][1].norm())
    assert 0.9 < ratio < 1.1


def test_fewer_bits_than_trained_are_chosen_anew_and_told():
    network, inputs = random_network(2)
    bits = network.config.integers.weight_bits
    graph = to_nir(network, torch.from_numpy(inputs[:1]))
    for asked in (bits, 8, bits - 1):
        done = compiler.compile_stages(graph, options=compiler.Options(asked), calibration=inputs)
        told = [
            line for line in done.quantized.warnings if f"trained as integers with weights of {bits}" in line
        ]
        assert len(told) == (asked < bits)
        held = {table.bits for edge in done.program.projections for table in edge.tables}
        assert held == {min(asked, bits)}
        assert done.program.provenance["weight_bits"] == str(min(asked, bits))


def test_what_trained_integers_do_not_heed_is_told():
    network, inputs = random_network(2)
    graph = to_nir(network, torch.from_numpy(inputs[:1]))
    bits = network.config.integers.weight_bits
    plain = compiler.compile_stages(graph, options=compiler.Options(bits), calibration=inputs)
    asked = compiler.Options(bits, tables="one", rounding="nearest")
    done = compiler.compile_stages(graph, options=asked, calibration=inputs)
    said = "tables one, rounding nearest has no effect"
    assert [said in line for line in done.quantized.warnings].count(True) == 1
    assert not any("has no effect" in line for line in plain.quantized.warnings)
    for one, other in zip(plain.program.projections, done.program.projections, strict=True):
        assert all(
            np.array_equal(a.dense(), b.dense()) for a, b in zip(one.tables, other.tables, strict=True)
        )


@pytest.mark.parametrize("seed", [0, 9])
def test_diverge_finds_no_message_that_differs_and_advises_nothing(seed):
    network, inputs = random_network(seed)
    graph = to_nir(network, torch.from_numpy(inputs[:1]))
    found = runtime.diverge(compiler.compile_graph(graph), compiler.lower(graph), inputs)
    assert found.first is None and not found.faults and found.advice() == []
    assert found.verdict().startswith("rounding only, and it changes no message")


def test_integers_that_the_chip_does_not_hold_are_refused():
    network, inputs = random_network(2)
    lowered = compiler.lower(to_nir(network, torch.from_numpy(inputs[:1])))
    first = lowered.populations[0]
    wrong = replace(
        lowered, populations=(replace(first, fixed_scale=1.01 * first.fixed_scale), *lowered.populations[1:])
    )
    with pytest.raises(PrecisionLost, match="holds the chip's integers already"):
        compiler.compile_graph(wrong)


def test_what_was_edited_is_no_longer_the_chip_s():
    network, inputs = random_network(2)
    graph = to_nir(network, torch.from_numpy(inputs[:1]))
    for node in graph.nodes.values():
        if hasattr(node, "weight"):
            node.weight = node.weight * 1.01
    stated = {"dt": 1.0, "rule": "euler", "reset": "value", "reset_timing": "same_step", "comparison": ">"}
    lowered = compiler.lower(graph, stated)
    assert not any(p.fixed_scale for p in lowered.populations) and not lowered.inputs[0].fixed_scale


@pytest.mark.parametrize(
    "items", [{"weight_bits": 4}, {"scale": -1.0}, {"scale": "2"}, {"scale": 1.0, "bits": 3}, 5]
)
def test_a_wrong_entry_of_the_contract_is_refused(items):
    with pytest.raises(CompileError, match="integers of node 'hidden'"):
        Contract(1.0, integers={"hidden": items})


def test_impossible_formats_are_refused():
    for wrong in ({"weight_bits": 9}, {"weight_bits": 1}, {"tables": "two"}):
        with pytest.raises(SnnCompileError, match="use 2 to 8 bits"):
            IntegerConfig(**wrong)
