"""Plain resonators through NIR: the float reference of the exported graph spikes as torch does."""

import nir
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from snn_compile import compiler, runtime, train
from snn_compile.targets.errors import ExportError
from snn_compile.train.networks.recurrent import RecurrentConfig, RecurrentNetwork


def network(seed, delta=0.05, **words):
    torch.manual_seed(seed)
    config = {"inputs": 3, "hidden": 12, "classes": 4, "neuron": "rf", "omega": (2.0, 16.0), **words}
    return RecurrentNetwork(RecurrentConfig(delta=delta, **config)).double()


@settings(max_examples=12)
@given(st.integers(0, 10**6), st.sampled_from([0.01, 0.02, 0.05]))
def test_spikes_and_read_out_are_torch_s(seed, delta):
    net = network(seed, delta)
    inputs = torch.rand(3, 40, 3, dtype=torch.float64) * 2 / delta
    with torch.no_grad():
        run = net.run(inputs)
    lowered = compiler.lower(train.to_nir(net, inputs))
    record = runtime.reference(lowered, inputs.numpy(), record=("hidden",))
    assert run.spikes["hidden"].any()
    np.testing.assert_array_equal(record.spikes("hidden"), run.spikes["hidden"].numpy())
    np.testing.assert_allclose(record.outputs, run.outputs.numpy(), rtol=1e-10, atol=1e-12)


def test_the_graph_is_of_nir_s_own_nodes_and_survives_a_file(tmp_path):
    net = network(1)
    inputs = torch.rand(2, 30, 3, dtype=torch.float64) * 40
    graph = train.to_nir(net, inputs, dt=0.05)
    nir.write(tmp_path / "rf.nir", graph)
    again = nir.read(tmp_path / "rf.nir")
    kinds = {type(node) for node in again.nodes.values()}
    assert kinds == {nir.Input, nir.Output, nir.Linear, nir.Scale, nir.LI, nir.Threshold}
    with torch.no_grad():
        wanted = net(inputs).numpy()
    record = runtime.reference(compiler.lower(tmp_path / "rf.nir"), inputs.numpy())
    np.testing.assert_allclose(record.outputs, wanted, rtol=1e-10, atol=1e-12)


def test_inputs_of_a_shape_are_flattened():
    net = network(2, inputs=6)
    inputs = torch.rand(2, 20, 1, 2, 3, dtype=torch.float64) * 40
    record = runtime.reference(compiler.lower(train.to_nir(net, inputs)), inputs.numpy())
    np.testing.assert_allclose(record.outputs, net(inputs).detach().numpy(), rtol=1e-10, atol=1e-12)


def test_what_has_no_counterpart_is_told(tmp_path):
    sample = torch.zeros(1, 5, 3, dtype=torch.float64)
    with pytest.raises(ExportError, match="made for steps of 0.05 s"):
        train.to_nir(network(0), sample, dt=0.01)
    with pytest.raises(ExportError, match="kind lstm"):
        train.to_nir(network(0, neuron="lstm"), sample)
    fast = network(0, offset=(30.0, 40.0))
    with pytest.raises(ExportError, match="between 0 and 1"):
        train.to_nir(fast, sample)
    train.save_checkpoint(tmp_path / "fast.pt", fast, sample)
    held = train.load_checkpoint(tmp_path / "fast.pt")
    assert held.graph is None and "between 0 and 1" in held.unexported
    train.save_checkpoint(tmp_path / "good.pt", network(0), sample)
    assert train.load_checkpoint(tmp_path / "good.pt").graph is not None
