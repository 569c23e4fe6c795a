"""What a trace reads out of a forward: time, delays, read-outs, branches; and that it leaves no mark."""

from collections import deque

import numpy as np
import pytest
import torch
from torch import nn

from snn_compile import compiler, runtime
from snn_compile.compiler.contract.resolve import resolve
from snn_compile.train import to_nir

snn = pytest.importorskip("snntorch", reason="snntorch is in the extra train")
nir = pytest.importorskip("nir")

T, B = 8, 2


def step(x):
    return (x > 0).to(x.dtype)


class Loop(nn.Module):
    """One layer, a loop over time; what is returned is the test's choice."""

    def __init__(self, returns, axis=0):
        super().__init__()
        self.fc, self.lif, self.returns, self.axis = (
            nn.Linear(5, 4),
            snn.Leaky(0.8, spike_grad=step),
            returns,
            axis,
        )

    def forward(self, x):
        mem, spikes, membranes = self.lif.init_leaky(), [], []
        for x_t in x.unbind(self.axis):
            spk, mem = self.lif(self.fc(x_t), mem)
            spikes.append(spk)
            membranes.append(mem)
        return self.returns(spikes, membranes)


def last_of(spikes, membranes):
    return membranes[-1]


def in_a_tensor(spikes, membranes):
    record = torch.zeros(T, *spikes[0].shape)
    for t, spk in enumerate(spikes):
        record[t] = spk
    return record


def summed(spikes, membranes):
    total = torch.zeros_like(spikes[0])
    for spk in spikes:
        total += spk
    return total


RETURNS = {
    "list": (lambda s, m: s, ("spikes", "count")),
    "stack": (lambda s, m: torch.stack(s), ("spikes", "count")),
    "stack along axis 1": (lambda s, m: torch.stack(s, dim=1), ("spikes", "count")),
    "cat": (lambda s, m: torch.cat([x.unsqueeze(0) for x in s]), ("spikes", "count")),
    "moved": (lambda s, m: torch.stack(s).permute(1, 0, 2), ("spikes", "count")),
    "in a tensor": (in_a_tensor, ("spikes", "count")),
    "sum": (lambda s, m: torch.stack(s).sum(dim=0), ("spikes", "count")),
    "running sum": (summed, ("spikes", "count")),
    "python sum": (lambda s, m: sum(s), ("spikes", "count")),
    "mean": (lambda s, m: torch.stack(s, 1).mean(1), ("spikes", "mean")),
    "divided sum": (lambda s, m: sum(s) / len(s), ("spikes", "mean")),
    "membrane maximum": (lambda s, m: torch.stack(m).max(0).values, ("membrane", "max")),
    "membrane amax": (lambda s, m: torch.stack(m).amax(dim=0), ("membrane", "max")),
    "membranes": (lambda s, m: torch.stack(m), ("membrane", "mean")),
    "last membrane": (last_of, ("membrane", "last")),
    "last of a stack": (lambda s, m: torch.stack(m)[-1], ("membrane", "last")),
    "dictionary": (lambda s, m: {"spikes": torch.stack(s)}, ("spikes", "count")),
}


@pytest.mark.parametrize("name", RETURNS)
def test_what_is_returned_says_how_it_is_read(name):
    returns, expected = RETURNS[name]
    graph = to_nir(Loop(returns), torch.zeros(T, B, 5))
    readout = resolve(graph)[0].readouts["output"]
    assert (readout.signal, readout.readout) == expected
    assert sorted(graph.nodes) == ["fc", "input", "lif", "output"]
    assert tuple(graph.nodes["input"].input_type["input"]) == (5,)


def test_several_outputs_the_first_is_primary():
    graph = to_nir(Loop(lambda s, m: (torch.stack(s), torch.stack(m))), torch.zeros(T, B, 5))
    readouts = resolve(graph)[0].readouts
    assert (readouts["output"].signal, readouts["output_2"].signal) == ("spikes", "membrane")
    assert compiler.lower(graph).outputs[0].name == "output"


def test_time_may_be_any_axis():
    first = to_nir(Loop(lambda s, m: torch.stack(s)), torch.zeros(T, B, 5))
    module = Loop(lambda s, m: torch.stack(s), axis=1)
    assert first.edges == to_nir(module, torch.zeros(B, T, 5)).edges


class Step(nn.Module):
    """A forward of one step around `body`."""

    def __init__(self, body, **layers):
        super().__init__()
        self.body = body
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x):
        return self.body(self, x)


def leaky(beta=0.8, **options):
    return snn.Leaky(beta, spike_grad=step, init_hidden=True, **options)


def compare(module, sample, seed=0, steps=20):
    """Assert that the reference of the exported graph gives the module's own outputs; return the graph."""
    torch.manual_seed(seed)
    graph = to_nir(module, sample)
    inputs = torch.rand(steps, 3, *sample.shape[1:], dtype=sample.dtype) * 3
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, snn.SpikingNeuron):
                layer.reset_mem()
        own = torch.stack([module(x) for x in inputs], 1).numpy()
    record = runtime.reference(compiler.lower(graph), np.moveaxis(inputs.numpy(), 1, 0))
    assert own.any()
    np.testing.assert_allclose(np.asarray(record.outputs, float), own, rtol=1e-9, atol=1e-12)
    return graph


def test_a_line_of_past_steps_is_a_delay():
    def body(self, x):
        self.line.append(self.lif1(self.fc1(x)))
        past = self.line[0] if len(self.line) > 3 else torch.zeros(len(x), 6, dtype=x.dtype)
        return self.lif2(self.fc2(past))

    torch.manual_seed(0)
    module = Step(
        body, fc1=nn.Linear(5, 6), lif1=leaky(), fc2=nn.Linear(6, 4), lif2=leaky(threshold=0.1)
    ).double()
    module.line = deque(maxlen=4)
    with torch.no_grad():
        module.fc2.bias.add_(0.05)
    sample = torch.zeros(B, 5, dtype=torch.float64)
    graph = to_nir(module, sample)
    assert resolve(graph)[0].delays == {("lif1", "fc2"): 3}
    module.line.clear()
    inputs = 3 * torch.rand(20, 3, 5, dtype=torch.float64)
    module.lif1.reset_mem(), module.lif2.reset_mem()
    with torch.no_grad():
        own = torch.stack([module(x) for x in inputs], 1).numpy()
    record = runtime.reference(compiler.lower(graph), np.moveaxis(inputs.numpy(), 1, 0))
    assert own[:, :3].any() and own[:, 3:].any()
    np.testing.assert_array_equal(record.outputs, own)


def test_a_term_twice_is_a_scale_and_a_shared_layer_one_node():
    def body(self, x):
        a = self.fc1(x)
        return self.lif2(self.fc2(self.lif1(a + a)) + 0.3 * a)

    torch.manual_seed(1)
    module = Step(body, fc1=nn.Linear(5, 6), lif1=leaky(), fc2=nn.Linear(6, 6), lif2=leaky(0.7)).double()
    graph = compare(module, torch.zeros(B, 5, dtype=torch.float64))
    kinds = [type(node).__name__ for node in graph.nodes.values()]
    assert kinds.count("Affine") == 2 and kinds.count("Scale") == 2
    assert 2.0 in graph.nodes["fc1_times"].scale


def test_now_and_before_of_the_same_layer():
    def body(self, x):
        now = self.lif1(self.fc1(x))
        before, self.before = self.before, now
        return self.lif2(self.fc2(now if before is None else now - before))

    torch.manual_seed(2)
    module = Step(body, fc1=nn.Linear(5, 6), lif1=leaky(), fc2=nn.Linear(6, 4), lif2=leaky(0.9))
    module.before = None
    graph = compare(module.double(), torch.zeros(B, 5, dtype=torch.float64))
    assert list(resolve(graph)[0].delays.values()) == [1]


def test_a_constant_joins_the_bias():
    def body(self, x):
        return self.lif(self.fc(x) + torch.full((4,), 0.25, dtype=x.dtype) - 0.05)

    module = Step(body, fc=nn.Linear(5, 4), lif=leaky()).double()
    graph = compare(module, torch.zeros(B, 5, dtype=torch.float64))
    np.testing.assert_allclose(graph.nodes["fc"].bias, module.fc.bias.detach() + 0.2)


def test_what_no_output_needs_is_left_out():
    def body(self, x):
        self.lif2(self.fc2(x))
        return self.lif1(self.fc1(x))

    module = Step(body, fc1=nn.Linear(5, 4), lif1=leaky(), fc2=nn.Linear(5, 4), lif2=leaky())
    assert sorted(to_nir(module, torch.zeros(B, 5)).nodes) == ["fc1", "input", "lif1", "output"]


def test_nested_modules_keep_their_paths():
    block = nn.Sequential(nn.Linear(5, 4), leaky())
    module = Step(
        lambda self, x: self.head(self.block(x)), block=block, head=nn.Sequential(nn.Linear(4, 3), leaky())
    )
    graph = to_nir(module, torch.zeros(B, 5))
    assert set(graph.nodes) == {
        "input",
        "block.linear_0",
        "block.leaky_1",
        "head.linear_0",
        "head.leaky_1",
        "output",
    }
    compiler.lower(graph)


def test_the_module_is_left_as_it_was():
    torch.manual_seed(0)
    first, second = snn.Leaky(0.8, init_hidden=True), snn.Leaky(0.9, init_hidden=True)
    module = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), first, nn.Dropout(), nn.Linear(4, 3), second)
    module[3].eval()
    module(torch.rand(6, 5)).sum().backward()
    attributes = {path: dict(layer.__dict__) for path, layer in module.named_modules()}
    buffers = {name: value.clone() for name, value in module.named_buffers()}
    apply = torch.autograd.Function.apply
    to_nir(module, torch.zeros(1, 5))
    with pytest.raises(Exception, match="takes 5"):
        to_nir(module, torch.zeros(1, 7))
    for path, layer in module.named_modules():
        assert layer.__dict__.keys() == attributes[path].keys()
        for key, value in attributes[path].items():
            assert key.startswith("_") or layer.__dict__[key] is value
        assert layer.training == attributes[path]["training"]
    for name, value in module.named_buffers():
        torch.testing.assert_close(value, buffers[name], rtol=0, atol=0)
    assert torch.autograd.Function.apply == apply
    assert module[2].mem.grad_fn is not None


def test_only_shapes_of_the_sample_are_used():
    module = Loop(lambda s, m: torch.stack(s))
    first = to_nir(module, torch.zeros(T, B, 5))
    second = to_nir(module, torch.full((5, 1, 5), torch.nan))
    assert first.edges == second.edges
    assert resolve(first)[0] == resolve(second)[0]
