"""Handwritten neurons are identified by probing, and what is no neuron of the compiler's is refused."""

import random

import numpy as np
import pytest
import torch
from support import handwritten_neurons as neurons

from snn_compile.targets.errors import ExportError
from snn_compile.train.probing.identify import identify

WANTED = {
    "soft_lif": ("lif", "subtract", "same_step", ">"),
    "hard_lif": ("lif", "value", "same_step", ">="),
    "soft_if": ("if", "subtract", "same_step", ">"),
    "hard_if": ("if", "value", "same_step", ">"),
    "synaptic": ("cuba", "subtract", "next_after", ">"),
    "current_sequence": ("cuba", "value", "same_step", ">"),
    "mixed_leaks": ("cuba", "value", "same_step", ">"),
    "adaptive": ("alif", "subtract", "same_step", ">"),
    "learned_sequence": ("lif", "subtract", "same_step", ">="),
    "reset_first": ("lif", "subtract", "same_step", ">"),
    "reset_after": ("lif", "value", "next_after", ">"),
    "leak_potential": ("lif", "value", "same_step", ">"),
    "multi_spike": ("lif", "subtract", "same_step", ">="),
    "channels": ("lif", "value", "same_step", ">"),
    "pending": ("lif", "subtract", "pending", ">"),
    "single": ("lif", "value", "same_step", ">="),
    "readout": ("li", "none", "same_step", ">"),
}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", WANTED)
def test_identified(name):
    module = neurons.NEURONS[name]()
    found = identify(module, getattr(module, "shape", neurons.N))
    rule = found.rule
    assert (found.model, rule.reset, rule.reset_timing, rule.comparison) == WANTED[name]
    assert found.evidence.steps >= 10_000
    assert found.evidence.near_share <= 1e-3
    assert name in ("readout",) or found.evidence.spikes > 1000
    assert "equal over 10200 steps" in found.describe()


def test_every_neuron_is_listed():
    assert set(WANTED) == set(neurons.NEURONS)


def numbers(name):
    module = neurons.NEURONS[name]()
    return module, identify(module, getattr(module, "shape", neurons.N))


def test_numbers_are_the_written_ones():
    _, found = numbers("soft_lif")
    assert (1 - found.parameters["voltage_decay"] == 0.9).all()
    assert (found.parameters["threshold"] == 1).all() and (found.parameters["gain"] == 1).all()
    assert found.states == ("mem",)


def test_leak_and_reset_potentials():
    _, found = numbers("leak_potential")
    assert found.parameters["v_reset"].tolist() == pytest.approx([0.1] * 5)
    assert found.parameters["v_init"].tolist() == pytest.approx([0.25] * 5)
    assert found.parameters["bias"].tolist() == pytest.approx([0.03125] * 5)


def test_several_spikes_and_a_lower_bound():
    _, found = numbers("multi_spike")
    assert found.rule.spikes_per_step == "floor" and (found.parameters["v_min"] == -1).all()
    assert found.style.call == "sequence" and found.style.time_axis == 1


def test_a_threshold_that_rises():
    _, found = numbers("adaptive")
    assert found.parameters["adaptation_step"].tolist() == pytest.approx([0.5] * 5)
    assert found.parameters["adaptation_decay"].tolist() == pytest.approx([0.1] * 5)


def test_numbers_are_found_for_each_neuron():
    module, found = numbers("learned_sequence")
    decay = torch.sigmoid(module.w.detach().double()).numpy()
    np.testing.assert_allclose(1 - found.parameters["voltage_decay"], decay, rtol=1e-9)
    threshold = module.threshold.detach().double().numpy() * found.parameters["gain"] / (1 - decay)
    np.testing.assert_allclose(found.parameters["threshold"], threshold, rtol=1e-9)
    _, found = numbers("channels")
    kept = 1 - found.parameters["voltage_decay"]
    np.testing.assert_allclose(kept[:, 0, 1], [0.5, 0.8, 0.95], rtol=1e-7)
    assert (found.parameters["amplitude"] == 2).all()


def test_current_and_order_are_told_apart():
    _, found = numbers("current_sequence")
    assert found.rule.update_order == "membrane_first"
    assert (1 - found.parameters["current_decay"] == 0.5).all()
    assert (1 - found.parameters["voltage_decay"] == 0.75).all()
    _, found = numbers("synaptic")
    assert found.style.first == "zeros" and found.rule.update_order == "synapse_first"
    np.testing.assert_allclose(1 - found.parameters["current_decay"], 0.8, rtol=1e-7)


def test_which_leak_is_the_membranes_is_found_for_each_neuron():
    module, found = numbers("mixed_leaks")
    for share, wanted in (("voltage_decay", module.beta), ("current_decay", module.alpha)):
        np.testing.assert_allclose(1 - found.parameters[share], wanted.detach().numpy(), atol=1e-6)


@pytest.mark.parametrize("kind", (neurons.Refractory, neurons.SaturatingLeak, neurons.QuadraticThreshold))
def test_what_is_not_quite_a_neuron_is_refused_with_the_input_that_shows_it(kind):
    module = kind()
    with pytest.raises(ExportError, match=r"at step \d+ of a trial, with input .* the closest is") as caught:
        identify(module, 3, "net.lif")
    error, difference = caught.value, caught.value.difference
    assert str(error).startswith("net.lif: ") and "\n" not in str(error)
    assert difference.did != difference.predicted
    assert error.closest.model in ("lif", "alif")


@pytest.mark.parametrize(
    ("kind", "words"),
    (
        (neurons.Stochastic, "it is stochastic"),
        (neurons.BatchCoupled, "depends on the others of the batch"),
        (neurons.Ordered, "depends on the sample's place in the batch"),
        (neurons.Lateral, "depend on the input of the others"),
        (neurons.Stateless, "keeps no state"),
        (neurons.Anticipating, "depends on later input"),
        (neurons.Mute, "keeps no state"),
        (neurons.Restless, "spikes without input"),
        (torch.nn.Flatten, "returns no tensor of the shape"),
    ),
)
def test_refused_by_name(kind, words):
    with pytest.raises(ExportError, match=words) as caught:
        identify(kind(), (3, 2) if kind is torch.nn.Flatten else 3, "x")
    assert "\n" not in str(caught.value)


def tensors_and_values(module):
    kept = {k: v for k, v in vars(module).items() if not k.startswith("_")} | module.state_dict()
    return {k: v.tolist() if isinstance(v, torch.Tensor) else v for k, v in kept.items()}


def test_the_module_is_untouched_even_in_the_middle_of_a_training():
    module = neurons.SoftLIF().train()
    weight = torch.nn.Parameter(torch.ones(1))
    module(torch.rand(2, 3) * weight)  # the membrane is part of a graph of gradients now
    before, mem = tensors_and_values(module), module.mem
    assert identify(module, 3).model == "lif"
    assert module.mem is mem and mem.grad_fn is not None and module.training
    assert tensors_and_values(module) == before
    for kind in (neurons.HardLIF, neurons.Channels, neurons.SoftIF):
        module = kind()
        before = tensors_and_values(module)
        identify(module, getattr(module, "shape", 3))
        assert tensors_and_values(module) == before


def test_random_states_are_untouched():
    torch.manual_seed(3)
    np.random.seed(3)
    random.seed(3)
    kept = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    with pytest.raises(ExportError):
        identify(neurons.Stochastic(), 3)
    identify(neurons.SoftLIF(), 3)
    assert torch.equal(kept[0], torch.get_rng_state())
    assert (kept[1] == np.random.get_state()[1]).all() and kept[2] == random.getstate()
    assert torch.is_grad_enabled()


def test_a_module_in_float64_and_one_neuron():
    found = identify(neurons.LeakPotential().double(), 1)
    assert found.model == "lif" and found.parameters["threshold"].shape == (1,)


def test_one_way_of_calling_can_be_asked_for():
    with pytest.raises(ExportError, match="all steps at once"):
        identify(neurons.SoftLIF(), 3, call="sequence")
