"""State dicts as people save them: random modules, saved in random ways, come back bit for bit."""

import logging
import random
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from snn_compile.targets.errors import ExportError
from snn_compile.train import load_foreign, to_nir
from snn_compile.train.checkpoints.saved_weights import match_weights

snn = pytest.importorskip("snntorch", reason="snntorch is in the extra train")
PREFIXES = ("module.", "_orig_mod.", "model.", "network.", "net.", "ema_model.", "student.backbone.")
PLACES = ("state_dict", "model_state_dict", "model", "network", "net", "weights", "ema", "shadow")


def drawn(rng, shape_of=None):
    """Return a random network; the same draws of another seed give other weights."""
    torch.manual_seed(rng.randrange(1 << 30) if shape_of is None else 1)
    size, layers = rng.randint(2, 5), nn.ModuleDict()
    for i in range(rng.randint(1, 4)):
        wide = rng.randint(2, 5)
        name = rng.choice(["fc", "layer", "model", "block"]) + str(i)
        made = [nn.Linear(size, wide, bias=rng.random() < 0.7)]
        made += [nn.BatchNorm1d(wide)] * (rng.random() < 0.3)
        made += [
            snn.Leaky(beta=rng.random(), learn_beta=rng.random() < 0.5, learn_threshold=rng.random() < 0.3)
        ]
        layers[name], size = nn.Sequential(*made), wide
    for tensor in layers.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape))
    return layers


def saved(rng, module):
    """Return a body of a file and what of it is expected under the module's keys."""
    state = {key: value.clone() for key, value in module.state_dict().items()}
    expected = dict(state)
    if rng.random() < 0.3:
        kind = rng.choice([torch.float16, torch.bfloat16, torch.float64])
        state = {k: v.to(kind) if v.is_floating_point() else v for k, v in state.items()}
        expected = {k: v.float() if v.is_floating_point() else v for k, v in state.items()}
    if rng.random() < 0.3:
        for key in [key for key in state if key.endswith("0.weight") and rng.random() < 0.7]:
            weight = state.pop(key)
            mask = (torch.rand(weight.shape) < 0.5).to(weight.dtype)
            state |= {f"{key}_orig": weight, f"{key}_mask": mask}
            expected[key] = (weight * mask).float()
    neurons = [key for key, part in module.named_modules() if isinstance(part, snn.Leaky)]
    if rng.random() < 0.3:
        state |= {f"{key}.mem": torch.zeros(rng.choice([0, 3])) for key in neurons if rng.random() < 0.8}
    if rng.random() < 0.3:
        state = {k: v for k, v in state.items() if "graded" not in k and "mechanism" not in k}
        expected |= {k: v for k, v in module.state_dict().items() if "graded" in k}
    for prefix in rng.sample(PREFIXES, rng.choice([0, 0, 1, 2])):
        state = {prefix + key: value for key, value in state.items()}
        if rng.random() < 0.3:
            state |= {rng.choice(["n_averaged", "criterion.weight", "initted"]): torch.tensor(3)}
    body = dict(state)
    if rng.random() < 0.5:
        body = {rng.choice(PLACES): state, "epoch": 3, "hyper_parameters": {"lr": 0.1}}
        moments = {i: {"step": torch.tensor(1.0), "exp_avg": torch.rand(3)} for i in range(2)}
        body |= (
            {"optimizer_states": {"state": moments, "param_groups": [{"lr": 0.1}]}}
            if rng.random() < 0.5
            else {}
        )
    return body, expected


@pytest.mark.parametrize("start", range(0, 300, 50))
def test_random_modules_saved_in_random_ways(start):
    for seed in range(start, start + 50):
        module = drawn(random.Random(seed))
        body, expected = saved(random.Random(seed + 10_000), module)
        network = drawn(random.Random(seed))
        for tensor in network.state_dict().values():
            if tensor.is_floating_point() and tensor.numel() > 1:
                tensor.zero_()
        state, notes = match_weights(body, network, Path("w.pt"), "m:make")
        assert state.keys() == expected.keys(), seed
        for key, value in expected.items():
            assert torch.equal(state[key], value), (seed, key, notes)
        plain = body.keys() == expected.keys() and all(body[k].dtype == v.dtype for k, v in expected.items())
        assert bool(notes) == (not plain), (seed, notes)


@pytest.mark.parametrize("start", range(0, 100, 50))
def test_random_faults_name_their_key(start):
    for seed in range(start, start + 50):
        rng = random.Random(seed)
        module = drawn(random.Random(seed))
        state = {key: value.clone() for key, value in module.state_dict().items()}
        key = rng.choice([k for k in state if k.endswith(("0.weight", "beta"))])
        fault = rng.choice(["missing", "unexpected", "shape"])
        if fault == "missing":
            del state[key]
        elif fault == "unexpected":
            key = f"{key.rpartition('.')[0]}.other"
            state[key] = torch.zeros(2)
        else:
            state[key] = torch.zeros(7, 9)
        prefix = rng.choice(["", "module.", "model."])
        with pytest.raises(ExportError) as caught:
            match_weights({prefix + k: v for k, v in state.items()}, module, Path("w.pt"), "m:make")
        assert key in str(caught.value) and "\n" not in str(caught.value), (seed, caught.value)
        assert "let the factory build" in str(caught.value)


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 2), snn.Leaky(beta=0.5))


def refusal(body):
    with pytest.raises(ExportError) as caught:
        match_weights(body, net(), Path("w.pt"), "m:make")
    return str(caught.value)


def test_two_sets_of_weights_that_differ_are_refused():
    one, two = net().state_dict(), nn.Sequential(nn.Linear(3, 2), snn.Leaky(beta=0.4)).state_dict()
    for body in (
        {"model": one, "model_ema": two},
        {**{f"ema_model.{k}": v for k, v in one.items()}, **{f"online_model.{k}": v for k, v in two.items()}},
        {**one, **{f"module.{k}": v for k, v in two.items()}},
        {"model": one, "shadow": {k: v + 1 for k, v in net().named_parameters()}},
    ):
        assert "2 different sets of weights in it fit the network of m:make" in refusal(body)
    state, _ = match_weights({"model": one, "best": one}, net(), Path("w.pt"), "m:make")
    assert torch.equal(state["0.weight"], one["0.weight"])


def test_parameters_alone_keep_the_factory_s_constants():
    shadow = {key: value.detach() + 1 for key, value in net().named_parameters()}
    state, notes = match_weights({"decay": 0.99, "shadow": shadow}, net(), Path("w.pt"), "m:make")
    assert torch.equal(state["0.weight"], shadow["0.weight"]) and float(state["1.beta"]) == 0.5
    assert notes == ["took 'shadow'", "kept the factory's 1.beta, 1.graded_spikes_factor and 2 more"]


def test_a_reset_that_the_network_does_not_have_is_refused():
    other = nn.Sequential(nn.Linear(3, 2), snn.Leaky(beta=0.5, reset_mechanism="zero")).state_dict()
    assert "1.reset_mechanism_val is 1 and the network's 0" in refusal(other)


def test_a_network_with_a_prefix_of_its_own():
    wrapped = nn.ModuleDict({"model": net()})
    state, notes = match_weights(net().state_dict(), wrapped, Path("w.pt"), "m:make")
    assert state.keys() == wrapped.state_dict().keys() and notes == ["put 'model.' before the keys"]


def test_the_wrappers_of_torch():
    module = net()
    for body in (
        torch.optim.swa_utils.AveragedModel(module).state_dict(),
        nn.DataParallel(module).state_dict(),
        {k.replace("0.", "0._orig_mod."): v for k, v in module.state_dict().items()},
    ):
        state, notes = match_weights(body, net(), Path("w.pt"), "m:make")
        assert torch.equal(state["0.weight"], module[0].weight) and notes


def test_masks_of_torch_s_own_pruning():
    module = net()
    prune.l1_unstructured(module[0], "weight", amount=0.5)
    state, notes = match_weights(module.state_dict(), net(), Path("w.pt"), "m:make")
    assert torch.equal(state["0.weight"], module[0].weight) and (state["0.weight"] == 0).sum() == 3
    assert notes == ["applied the pruning masks of 0.weight"]


def test_one_line_reports_what_was_changed(tmp_path, caplog):
    def make():
        return nn.Sequential(nn.Linear(3, 2), snn.Leaky(beta=0.5, init_hidden=True)), torch.zeros(1, 3)

    def make_half():
        return make()[0].half(), torch.zeros(1, 3).half()

    module = net()
    body = {"epoch": 1, "state_dict": {f"model.{k}": v.half() for k, v in module.state_dict().items()}}
    torch.save(body, tmp_path / "w.pt")
    with caplog.at_level(logging.WARNING):
        checkpoints = [load_foreign(tmp_path / "w.pt", factory) for factory in (make, make_half)]
    one, two = (record.getMessage().partition("w.pt: ")[2] for record in caplog.records)
    assert one == "took 'state_dict'; stripped 'model.'; converted 5 tensors from float16 to float32"
    assert two == f"converted the network from float16 to float32; {one}"
    for checkpoint in checkpoints:
        weights = [node.weight for node in checkpoint.graph.nodes.values() if hasattr(node, "weight")]
        assert torch.equal(torch.tensor(weights[0]), module[0].weight.half().float())


def test_a_module_in_half_precision_names_the_conversion():
    module = nn.Sequential(nn.Linear(3, 2), snn.Leaky(beta=0.5, init_hidden=True)).bfloat16()
    with pytest.raises(ExportError, match=r"parameters are bfloat16.*\.float\(\)"):
        to_nir(module, torch.zeros(1, 3, dtype=torch.bfloat16))
