"""Networks of handwritten neurons, exported: the float reference sends the spikes that torch sends."""

import numpy as np
import pytest
import torch
from support import handwritten_neurons as neurons
from torch import nn

from snn_compile import compiler, runtime
from snn_compile.compiler.contract.resolve import resolve
from snn_compile.targets.errors import ExportError
from snn_compile.train import to_nir

STEPS, BATCH, INPUTS = 100, 100, 4


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def differing(graph, x, wanted):
    """Return the share of output entries that the float reference has otherwise; both (steps, batch, ...)."""
    record = runtime.reference(compiler.lower(graph), np.moveaxis(x.numpy(), 1, 0))
    got = np.moveaxis(record.outputs, 0, 1)
    wanted = wanted.detach().numpy()
    assert got.shape == wanted.shape and wanted.any()
    return float((np.abs(got - wanted) > 1e-9 * np.abs(wanted).max()).mean())


class Loop(nn.Module):
    """A linear layer and a neuron that is stepped, its state passed where it is returned."""

    def __init__(self, neuron, passes):
        super().__init__()
        size = int(np.prod(getattr(neuron, "shape", neurons.N)))
        self.fc, self.lif, self.passes = nn.Linear(INPUTS, size), neuron, passes

    def forward(self, x):
        out, states = [], self.first(x[0])
        for current in x:
            y = self.lif(self.fc(current), *states)
            if self.passes:
                y, *states = y
            out.append(y[0] if isinstance(y, tuple) else y)
        return torch.stack(out)

    def first(self, x):
        if isinstance(self.lif, neurons.Synaptic):
            return [torch.zeros(len(x), neurons.N, dtype=x.dtype)] * 2
        return []


PASSED = "hard_if synaptic mixed_leaks adaptive reset_after leak_potential pending readout".split()
KEPT = "soft_lif hard_lif soft_if reset_first".split()


@pytest.mark.parametrize("name", (*PASSED, *KEPT))
def test_a_time_loop(name):
    torch.manual_seed(1)
    network = Loop(neurons.NEURONS[name](), name in PASSED).double()
    x = torch.rand(STEPS, BATCH, INPUTS, dtype=torch.float64) * 3
    graph = to_nir(network, x[:6, :2])
    assert set(graph.nodes) >= {"input", "fc", "lif", "output"}
    assert differing(graph, x, network(x)) == 0


class Learned(nn.Module):
    """Layers over all steps at once, time first."""

    def __init__(self):
        super().__init__()
        self.first, self.lif = nn.Linear(INPUTS, neurons.N), neurons.LearnedSequence()

    def forward(self, x):
        spikes, _ = self.lif(self.first(x))
        return spikes


@pytest.mark.parametrize("name", ("learned", "current_sequence", "multi_spike"))
def test_all_steps_at_once(name):
    torch.manual_seed(2)
    if name == "learned":
        network = Learned().double()
    else:
        network = nn.Sequential(nn.Linear(INPUTS, neurons.N), neurons.NEURONS[name]()).double()
    x = torch.rand(STEPS, BATCH, INPUTS, dtype=torch.float64) * 3
    given = x if name == "learned" else x.transpose(0, 1)
    graph, wanted = to_nir(network, given[:5, :6]), network(given)
    assert differing(graph, x, wanted if name == "learned" else wanted.transpose(0, 1)) == 0


def test_a_sequential_of_one_step():
    torch.manual_seed(3)
    network = nn.Sequential(
        nn.Linear(INPUTS, 6), neurons.SoftLIF(), nn.Linear(6, 3), neurons.SoftLIF(0.8, 0.5)
    )
    x = torch.rand(STEPS, BATCH, INPUTS) * 3
    graph = to_nir(network, x[0, :2])
    wanted = torch.stack([network(step) for step in x])
    assert differing(graph, x, wanted) == 0
    assert set(graph.nodes) == {"input", "linear_0", "softlif_1", "linear_2", "softlif_3", "output"}
    assert network[1].mem is not None  # the states of the run above are still there


def test_feature_maps_weights_of_spikes_and_rules_of_each_layer():
    class Convolutional(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.channels = nn.Conv2d(1, 3, 3), neurons.Channels()
            self.fc, self.out = nn.Linear(12, 2), neurons.SoftIF()

        def forward(self, x, v=None):
            spikes, v = self.channels(self.conv(x), v)
            return self.out(self.fc(spikes.flatten(1))), v

    torch.manual_seed(4)
    network = Convolutional().double()
    with torch.no_grad():
        network.conv.weight.abs_(), network.fc.weight.abs_()
    x = torch.rand(60, 20, 1, 4, 4, dtype=torch.float64)
    graph = to_nir(network, (x[0, :2], torch.zeros(2, 3, 2, 2)))
    out, v = [], torch.zeros(20, 3, 2, 2, dtype=torch.float64)
    for step in x:
        spikes, v = network(step, v)
        out.append(spikes)
    assert differing(graph, x, torch.stack(out)) == 0
    contract, _ = resolve(graph)
    assert {contract.of(n).reset for n in ("channels", "out")} == {"value", "subtract"}


def test_what_is_almost_a_neuron_is_named_with_the_input_that_shows_it():
    network = Loop(neurons.Refractory(), True)
    with pytest.raises(ExportError, match="^lif: is no neuron .* at step .* the closest is"):
        to_nir(network, torch.rand(5, 2, INPUTS))


def test_what_the_trace_refuses_is_still_refused_in_its_words():
    network = nn.Sequential(nn.Linear(INPUTS, 3), neurons.SoftLIF(), nn.Linear(3, 3), nn.ReLU())
    with pytest.raises(ExportError, match="use a spiking neuron"):
        to_nir(network, torch.rand(2, INPUTS))


def test_computing_with_a_passed_state_is_refused():
    class Computing(Loop):
        def forward(self, x):
            v, out = None, []
            for current in x:
                z, v = self.lif(self.fc(current), v)
                v = v * 0.5
                out.append(z)
            return torch.stack(out)

    with pytest.raises(ExportError, match="states may be handed on, not computed with"):
        to_nir(Computing(neurons.HardIF(), True), torch.rand(5, 2, INPUTS))


def test_the_network_is_left_as_it_was():
    network = Loop(neurons.SoftLIF(), False).train()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    to_nir(network, torch.rand(5, 2, INPUTS))
    assert network.lif.mem is None and network.training
    assert "forward" not in vars(network.lif) and "reset" not in vars(network.lif)
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
