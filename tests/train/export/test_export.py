"""Export is tested by running numbers: torch on one side, on the other an Euler simulator of NIR's
equations, written here from the contract alone."""

import nir
import numpy as np
import pytest
import torch
from torch import nn

from snn_compile.compiler.contract.contract import Readout
from snn_compile.compiler.contract.resolve import resolve
from snn_compile.targets.errors import ExportError
from snn_compile.train import LI, LIF, CubaLIF, Firing, LayerConfig, NetworkConfig, SpikingNetwork, to_nir


def order_of(graph, delays):
    """Return the nodes so that every edge without a delay goes forwards."""
    order, left = [], dict(graph.nodes)
    while left:
        ready = [n for n in left if all(a in order or delays.get((a, b)) for a, b in graph.edges if b == n)]
        assert ready, "a cycle without a delay"
        order += ready
        left = {n: node for n, node in left.items() if n not in ready}
    return order


def fire(node, v, reset):
    z = (v > node.v_threshold).astype(np.float64)
    return z, np.where(z > 0, node.v_reset, v) if reset == "value" else v - z * node.v_threshold


def stacked(traces):
    return {name: np.stack(np.broadcast_arrays(*trace), 1) for name, trace in traces.items()}


def simulate(graph, inputs):
    """Return by node the outputs (batch, steps, size) and the membranes before the reset."""
    contract, _ = resolve(graph)
    assert (contract.rule, contract.comparison, contract.reset_timing) == ("euler", ">", "same_step")
    assert (contract.update_order, contract.current_decay) == ("synapse_first", "before")
    dt, out, membranes, state = contract.dt, {}, {}, {}
    batch, steps = inputs.shape[:2]
    order = order_of(graph, contract.delays)
    for t in range(steps):
        for name in order:
            node = graph.nodes[name]
            x = inputs[:, t].astype(np.float64) if isinstance(node, nir.Input) else 0.0
            for a, b in graph.edges:
                past = t - contract.delays.get((a, b), 0)
                if b == name and past >= 0:
                    x = x + out[a][past]
            zero = np.zeros((batch, *node.output_type["output"]))
            i, v = state.get(name, (zero, zero))
            x = x + (0 * i if node.input_type["input"].shape == i.shape[1:] else 0)
            y = x
            if isinstance(node, (nir.Affine, nir.Linear)):
                x = np.broadcast_to(x, (batch, node.weight.shape[1]))
                y = x @ node.weight.astype(np.float64).T + getattr(node, "bias", 0.0)
            elif isinstance(node, nir.Flatten):
                y = x.reshape(batch, -1)
            elif isinstance(node, (nir.LIF, nir.LI)):
                v = v + dt / node.tau * ((node.v_leak - v) + node.r * x)
                y = v
            elif isinstance(node, nir.CubaLIF):
                i = i + dt / node.tau_syn * (-i + node.w_in * x)
                v = v + dt / node.tau_mem * ((node.v_leak - v) + node.r * i)
            if isinstance(node, (nir.LIF, nir.CubaLIF)):
                membranes.setdefault(name, []).append(v)
                y, v = fire(node, v, contract.of(name).reset)
            state[name] = (i, v)
            out.setdefault(name, []).append(y)
    return stacked(out), stacked(membranes)


def random_network(seed, shape=(6,), dt=None):
    """Return a network with decays, thresholds, gains and biases that are neither 0 nor 1."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    layers = []
    for neuron, size in zip(rng.permutation(["lif", "cuba_lif"]), (9, 8), strict=True):
        layers.append(
            LayerConfig(
                size,
                str(neuron),
                bias=bool(rng.integers(2)),
                recurrent=bool(seed % 2),
                alpha=rng.uniform(0.2, 0.9),
                beta=rng.uniform(0.2, 0.95),
                learn_decay=bool(rng.integers(2)),
                per_neuron=bool(rng.integers(2)),
                threshold=rng.uniform(0.4, 1.6),
                reset=str(rng.choice(["value", "subtract"])),
            )
        )
    layers.append(LayerConfig(4, "li", beta=rng.uniform(0.3, 0.9)))
    network = SpikingNetwork(NetworkConfig(shape, tuple(layers)))
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim == 1:
                parameter += 0.2 * torch.randn_like(parameter)
            elif parameter.ndim == 2:
                parameter.mul_(2.5).add_(0.15)
    inputs = torch.from_numpy(rng.normal(0.5, 1.5, (4, 25, *shape))).float()
    return network, inputs


@pytest.mark.parametrize("seed", range(12))
def test_the_exported_graph_computes_what_the_network_computes(seed):
    shape = [(6,), (2, 3)][seed % 3 == 2]
    network, inputs = random_network(seed, shape)
    with torch.no_grad():
        run = network.run(inputs)
    out, membranes = simulate(to_nir(network, inputs, dt=[None, 1e-3][seed % 2]), inputs.numpy())
    for name, spikes in run.spikes.items():
        threshold = dict(network.layers.named_children())[name].firing.threshold
        close = np.abs(membranes[name] - threshold) < 1e-5 * threshold
        assert not close.any(), "choose another seed: spikes may differ at a tie"
        np.testing.assert_array_equal(out[name], spikes.numpy())
        assert 0.02 < spikes.mean() < 0.97
    np.testing.assert_allclose(out["output"], run.outputs.numpy(), rtol=1e-4, atol=1e-5)


def test_the_contract_says_everything():
    torch.manual_seed(0)
    layers = (
        LayerConfig(5, reset="subtract", recurrent=True),
        LayerConfig(4, "cuba_lif"),
        LayerConfig(3, "li"),
    )
    network = SpikingNetwork(NetworkConfig((2,), layers))
    graph = to_nir(network, torch.zeros(1, 1, 2), dt=2e-3)
    contract, decided = resolve(graph)
    assert contract.dt == 2e-3 and contract.time_unit == "s"
    assert contract.delays == {("hidden1", "hidden1_recurrent"): 1}
    assert contract.of("hidden1").reset == "subtract" and contract.of("hidden2").reset == "value"
    assert contract.readouts == {"output": Readout("membrane", "mean", "classify")}
    assert decided["dt"] == decided["reset"] == "metadata"
    assert ("hidden1_recurrent", "hidden1") in graph.edges
    unitless, _ = resolve(to_nir(network, torch.zeros(1, 1, 2)))
    assert unitless.dt == 1.0 and unitless.time_unit == "step"


@pytest.mark.parametrize("dt", [None, 1e-3, 3.7e-5])
def test_time_constants_give_the_decays_and_gains_back(dt):
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Linear(2, 3), CubaLIF(3, alpha=0.37, beta=0.93), nn.Linear(3, 3), LIF(3, beta=0.81, gain=0.6)
    )
    graph = to_nir(module, torch.zeros(1, 1, 2), dt)
    cuba, lif = graph.nodes["cubalif_1"], graph.nodes["lif_3"]
    step = dt or 1.0
    for tau, decay in (
        (cuba.tau_syn, module[1].alpha()),
        (cuba.tau_mem, module[1].beta()),
        (lif.tau, module[3].beta()),
    ):
        assert tau.dtype == np.float64
        np.testing.assert_allclose(1 - step / tau, float(decay), rtol=1e-14)
    np.testing.assert_allclose(step * cuba.w_in / cuba.tau_syn, 1, rtol=1e-14)
    np.testing.assert_allclose(step * cuba.r / cuba.tau_mem, 1, rtol=1e-14)
    np.testing.assert_allclose(step * lif.r / lif.tau, 0.6, rtol=1e-14)
    assert graph.nodes["linear_0"].weight.dtype == np.float32
    assert resolve(graph)[0].readouts == {"output": Readout("spikes", "count", "classify")}


@pytest.mark.parametrize("seed", [1, 2])
def test_a_plain_nir_reader_reads_the_file(tmp_path, seed):
    network, inputs = random_network(seed, (2, 3))
    graph = to_nir(network, inputs)
    nir.write(tmp_path / "graph.nir", graph)
    again = nir.read(tmp_path / "graph.nir")
    assert set(again.nodes) == set(graph.nodes) and set(again.edges) == set(graph.edges)
    assert resolve(again)[0] == resolve(graph)[0]
    first, second = simulate(graph, inputs.numpy())[0], simulate(again, inputs.numpy())[0]
    np.testing.assert_array_equal(first["output"], second["output"])


def broken(change):
    module = nn.Sequential(nn.Linear(2, 3), LIF(3, learn_decay=True))
    with torch.no_grad():
        change(module)
    return module


@pytest.mark.parametrize(
    "module, sample, says",
    [
        (nn.Sequential(LIF(2), nn.GELU()), (1, 1, 2), "gelu_1: no NIR counterpart.* GELU"),
        (nn.Sequential(nn.Linear(2, 3), LIF(3)), (1, 1, 4), "takes 2 values"),
        (nn.Sequential(nn.Linear(2, 3), LI(4)), (1, 1, 2), "has 4 neurons"),
        (nn.Sequential(nn.Flatten(), nn.Linear(4, 3), LIF(3)), (1, 1, 2, 2), "joins samples or steps"),
        (nn.Sequential(nn.Linear(2, 3), LIF(3)), (1, 2), "must be"),
        (broken(lambda m: m[0].weight[1, 0].fill_(np.nan)), (1, 1, 2), r"weight\[1, 0\] is nan"),
        (broken(lambda m: m[0].bias[2].fill_(np.inf)), (1, 1, 2), r"bias\[2\] is inf"),
        (broken(lambda m: m[1].beta.logit.fill_(40.0)), (1, 1, 2), "decay is 1.0"),
    ],
)
def test_what_cannot_be_exported_is_named(module, sample, says):
    with pytest.raises(ExportError, match=says):
        to_nir(module, torch.zeros(sample))


def test_dt_must_be_a_length_of_time():
    with pytest.raises(ExportError, match="dt is -0.5"):
        to_nir(nn.Sequential(LIF(2, firing=Firing())), torch.zeros(1, 1, 2), dt=-0.5)
