"""The preset fashion-conv end to end on images made here: in floats, then as integers, then deployed."""

import numpy as np
import pytest
import torch
from support import idx_images

from snn_compile import compiler, runtime
from snn_compile.runtime.data.registry import load_data
from snn_compile.targets.errors import SnnCompileError
from snn_compile.train import NetworkConfig, SpikingNetwork, evaluate, fit, load_checkpoint, read_config

QUICK = ["threshold=0.2", "channels=4,6", "hidden=12", "epochs=2", "batch_size=16"]


def test_the_preset_trains_in_floats_then_as_integers_and_deploys_what_it_trained(tmp_path):
    idx_images.write_set(tmp_path, train=80, test=30)
    data = f"data=fashion-mnist:{tmp_path}"
    fit(read_config("fashion-conv", [*QUICK, data]), tmp_path / "float.pt")
    tuned = [*QUICK, data, f"init={tmp_path / 'float.pt'}", "weight_bits=4", "learning_rate=0.001"]
    config = read_config("fashion-conv", tuned)
    training = fit(config, tmp_path / "integers.pt")
    checkpoint = load_checkpoint(tmp_path / "integers.pt")
    assert checkpoint.data["name"] == f"fashion-mnist:{tmp_path}"
    network = SpikingNetwork(NetworkConfig.from_dict(checkpoint.config["network"]))
    network.load_state_dict(dict(checkpoint.state_dict))
    test = load_data(checkpoint.data["name"], "test", **checkpoint.data["options"])
    assert evaluate(network, test, config).accuracy == training.metrics["test_accuracy"]
    with torch.no_grad():
        run = network.run(torch.tensor(test.inputs))
    program = compiler.compile_graph(checkpoint.graph)
    record = runtime.simulate(program, test.inputs, record=tuple(run.spikes))
    assert tuple(run.spikes) == ("hidden1", "hidden2", "hidden3")
    for name, spikes in run.spikes.items():
        assert spikes.any()
        np.testing.assert_array_equal(record.spikes(name).reshape(spikes.shape), spikes.numpy())


def test_an_image_mirrored_twice_is_itself_and_half_of_a_batch_ismirrored(tmp_path):
    from snn_compile.train.algorithms.batches import mirrored

    images = torch.rand(6, 1, 1, 4, 5).expand(-1, 3, -1, -1, -1)
    which = torch.tensor([True, False, True, False, False, True])
    once = mirrored(images, which)
    assert once.stride(1) == 0 and torch.equal(mirrored(once, which), images)
    assert torch.equal(once[which], images[which].flip(-1)) and torch.equal(once[~which], images[~which])
    assert torch.equal(mirrored(images.contiguous(), which), once)


def test_only_images_can_bemirrored():
    with pytest.raises(SnnCompileError, match="use layout=image"):
        fit(read_config("digits", ["flip=true", "epochs=1", "copies=0"]))
