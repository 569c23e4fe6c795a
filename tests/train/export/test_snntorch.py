"""Networks of snnTorch, exported: their spikes in the float reference and on the devices are their own.

Three witnesses: snnTorch's forward, a simulator of NIR's equations written from the contract
(`snntorch_networks.simulate`), and the float reference. The networks run in float64, where no membrane comes
so close to its threshold that rounding decides; float32 has tests of its own.
"""

import numpy as np
import pytest
import torch

from snn_compile import compiler, runtime
from snn_compile.compiler.contract.resolve import resolve
from snn_compile.targets.errors import TimingInfeasible
from snn_compile.train import load_checkpoint, load_foreign, save_checkpoint, to_nir

snn = pytest.importorskip("snntorch", reason="snntorch is in the extra train")
nir = pytest.importorskip("nir")
networks = pytest.importorskip("support.snntorch_networks")


NAMES = list(networks.NETWORKS)


@pytest.fixture(scope="module")
def exported():
    """Return, once a network: module, inputs (batch, steps, *shape), graph, outputs, spikes by node."""
    made = {}

    def export(name):
        if name not in made:
            module, inputs, one_step = networks.build(name)
            static = "static" in name
            outputs, spikes = networks.run(module, inputs, one_step, static)
            graph = to_nir(module, networks.sample_of(module, inputs, one_step, static))
            nodes = {networks.node_name(module, path): layer for path, layer in spikes.items()}
            made[name] = module, np.moveaxis(inputs.numpy(), 1, 0), graph, outputs, nodes
        return made[name]

    return export


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Small tensors gain nothing from threads and wait for them when the machine is busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def silent(graph):
    """Return the nodes that have a membrane and no spikes."""
    return {name for name, node in graph.nodes.items() if isinstance(node, (nir.LI, nir.CubaLI))}


def test_there_are_enough():
    assert len(NAMES) >= 25


@pytest.mark.parametrize("name", NAMES)
def test_equations_of_the_graph_give_the_spikes(name, exported):
    _, inputs, graph, _, spikes = exported(name)
    traces = networks.simulate(graph, inputs, resolve(graph)[0])
    for node, layer in spikes.items():
        assert 0.02 < layer.astype(bool).mean() < 0.6
        if node not in silent(graph):
            np.testing.assert_array_equal(traces[node] != 0, layer != 0, err_msg=node)


@pytest.mark.parametrize("name", NAMES)
def test_reference_gives_the_spikes_and_outputs(name, exported):
    _, inputs, graph, outputs, spikes = exported(name)
    fired = sorted(spikes.keys() - silent(graph))
    record = runtime.reference(compiler.lower(graph), inputs, record=fired)
    for node in fired:
        np.testing.assert_array_equal(record.spikes(node) != 0, spikes[node] != 0, err_msg=node)
    given = np.asarray(record.outputs, float)
    if outputs.ndim == given.ndim:
        np.testing.assert_allclose(given, np.moveaxis(outputs, 0, 1), rtol=1e-9, atol=1e-9)
    else:
        np.testing.assert_allclose(given.sum(axis=1), outputs, rtol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_program_is_bit_identical_on_the_devices(name, exported):
    _, inputs, graph, _, spikes = exported(name)
    options = compiler.Options()
    if "feedback" in name:
        with pytest.raises(TimingInfeasible, match="1 missing"):
            compiler.compile_graph(graph, calibration=inputs)
        options = compiler.Options(c_slow=None)
    program = compiler.compile_graph(graph, calibration=inputs, options=options)
    fired = [p.name for p in program.populations if p.name in spikes and p.name not in silent(graph)]
    for device in ("oracle", "lava-stepped"):
        assert runtime.check(program, inputs, device=device).difference is None
    record = runtime.simulate(program, inputs, record=fired)
    assert any(record.spikes(node).any() for node in fired)


@pytest.mark.parametrize("name", NAMES)
def test_a_plain_nir_reader_reads_the_file(name, exported, tmp_path):
    _, _, graph, _, _ = exported(name)
    nir.write(tmp_path / "graph.nir", graph)
    again = nir.read(tmp_path / "graph.nir")
    assert set(again.nodes) == set(graph.nodes) and sorted(again.edges) == sorted(graph.edges)
    assert resolve(again)[0] == resolve(graph)[0]


@pytest.mark.parametrize("name", NAMES)
def test_membranes_are_those_of_the_reference(name, exported):
    module, inputs, graph, _, spikes = exported(name)
    if "one neuron module" in name:
        pytest.skip("one module keeps the states of two layers")
    network = compiler.lower(graph)
    nodes = {networks.node_name(module, path): layer for path, layer in networks.neurons_of(module)}
    record = runtime.reference(network, inputs, probes=[f"{node}.v" for node in nodes])
    for node, layer in nodes.items():
        last = record.states(f"{node}.v")[:, -1]
        mine = layer.mem.detach().numpy()
        np.testing.assert_allclose(last.reshape(mine.shape), mine, rtol=1e-9, atol=1e-9, err_msg=node)


@pytest.mark.parametrize(
    "name, rule",
    [
        ("leaky subtract", ("subtract", "next_after")),
        ("leaky zero", ("value", "next_before")),
        ("leaky subtract, no reset delay", ("subtract", "pending")),
        ("leaky zero, no reset delay", ("value", "same_step")),
        ("lapicque zero", ("value", "next_after")),
        ("synaptic zero", ("value", "next_after")),
        ("synaptic, no reset delay", ("subtract", "pending")),
        ("rleaky zero", ("value", "next_after")),
        ("rsynaptic by hand, no reset delay", ("subtract", "next_after")),
    ],
)
def test_the_contract_names_the_rule_and_no_other_fits(name, rule, exported):
    module, inputs, graph, _, spikes = exported(name)
    contract, decided = resolve(graph)
    first = next(iter(spikes))
    of = contract.of(first)
    assert (of.reset, of.reset_timing, of.comparison) == (*rule, ">")
    assert decided["reset"] == decided["reset_timing"] == "metadata"
    assert contract.dt == 1.0 and contract.time_unit == "step"
    others = {"value": ("same_step", "next_after"), "subtract": ("same_step", "next_after", "pending")}[
        rule[0]
    ]
    for timing in set(others) - {rule[1], "same_step" if rule[1] == "next_before" else ""}:
        wrong = compiler.lower(graph, conventions={"reset": rule[0], "reset_timing": timing})
        record = runtime.reference(wrong, inputs, record=[first])
        assert (record.spikes(first) != (spikes[first] != 0)).any(), timing


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", ["leaky subtract", "synaptic zero", "rleaky subtract", "conv, max pool"])
def test_networks_in_float32_until_rounding_decides(name, seed):
    module, inputs, one_step = networks.build(name, seed)
    module, inputs = networks.as_released(module), inputs.float()
    _, spikes = networks.run(module, inputs, one_step)
    graph = to_nir(module, networks.sample_of(module, inputs, one_step))
    nodes = {networks.node_name(module, path): layer for path, layer in spikes.items()}
    record = runtime.reference(
        compiler.lower(graph),
        np.moveaxis(inputs.numpy(), 1, 0),
        record=list(nodes),
        probes=[f"{n}.v" for n in nodes],
    )
    # Before the first tie of a sample nothing may differ; there are few ties, if any.
    ties = np.zeros(spikes[next(iter(spikes))].shape[:2], bool)
    for node in nodes:
        threshold = np.ravel(graph.nodes[node].v_threshold)[0]
        v = record.states(f"{node}.v")
        ties |= (np.abs(v - threshold) < 1e-5 * threshold).reshape(*ties.shape, -1).any(axis=2)
    sure = np.cumsum(ties, axis=1) == 0
    assert sure.mean() > 0.8
    for node, layer in nodes.items():
        np.testing.assert_array_equal((record.spikes(node) != 0)[sure], (layer != 0)[sure], err_msg=node)


def test_a_network_fresh_from_training():
    torch.manual_seed(3)
    module = networks.trainable()
    inputs, labels = torch.rand(15, 20, 12), torch.randint(0, 5, (20,))
    optimiser = torch.optim.Adam(module.parameters(), 5e-3)
    for _ in range(12):
        loss = torch.nn.functional.cross_entropy(module(inputs)[0].sum(0), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    training = {name: layer.training for name, layer in module.named_modules()}
    graph = to_nir(module, inputs)
    assert training == {name: layer.training for name, layer in module.named_modules()}
    module = networks.in_float64(module)
    outputs, spikes = networks.run(module, inputs.double(), False)
    record = runtime.reference(
        compiler.lower(graph), np.moveaxis(inputs.double().numpy(), 1, 0), record=list(spikes)
    )
    for node, layer in spikes.items():
        assert layer.any()
        np.testing.assert_array_equal(record.spikes(node) != 0, layer != 0)
    assert (record.predictions == outputs.sum(0).argmax(-1)).mean() > 0.9


def test_dt_gives_seconds_and_the_same_network(exported):
    module, inputs, graph, _, spikes = exported("synaptic zero")
    seconds = to_nir(module, torch.zeros(1, 12, dtype=torch.float64), dt=2e-3)
    contract = resolve(seconds)[0]
    assert (contract.dt, contract.time_unit) == (2e-3, "s")
    np.testing.assert_allclose(seconds.nodes["synaptic_1"].tau_syn, 2e-3 / (1 - 0.7), rtol=1e-6)
    record = runtime.reference(compiler.lower(seconds), inputs, record=list(spikes))
    for node, layer in spikes.items():
        np.testing.assert_array_equal(record.spikes(node) != 0, layer != 0)


def test_a_checkpoint_needs_no_code_of_the_network(exported, tmp_path):
    module, inputs, graph, _, _ = exported("two-layer feedback")
    save_checkpoint(tmp_path / "model.pt", module, torch.from_numpy(np.moveaxis(inputs, 0, 1)))
    checkpoint = load_checkpoint(tmp_path / "model.pt")
    assert resolve(checkpoint.graph)[0] == resolve(graph)[0]
    assert checkpoint.versions["snntorch"] == snn.__version__


def test_a_state_dict_and_a_factory_give_the_checkpoint(exported, tmp_path):
    module, inputs, graph, _, _ = exported("time loop")
    torch.save({"epoch": 3, "state_dict": module.state_dict()}, tmp_path / "weights.pt")
    sample = torch.from_numpy(np.moveaxis(inputs, 0, 1))

    def factory():
        return networks.NETWORKS["time loop"]()[0].double(), sample

    checkpoint = load_foreign(tmp_path / "weights.pt", factory)
    assert checkpoint.config["model"].endswith("factory")
    for name in ("fc1", "fc2"):
        np.testing.assert_array_equal(checkpoint.graph.nodes[name].weight, graph.nodes[name].weight)
