"""What is not exported, and that the error names the module, the reason and a way out."""

import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from snn_compile.targets.errors import ExportError
from snn_compile.train import LIF, Firing, to_nir

snn = pytest.importorskip("snntorch", reason="snntorch is in the extra train")


def leaky(**options):
    return snn.Leaky(0.8, init_hidden=True, **options)


def inhibited():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return leaky(inhibition=True)


def changed_reset():
    layer = leaky()
    layer.reset_mechanism = "zero"
    return layer


def not_finite():
    layer = nn.Linear(5, 4)
    with torch.no_grad():
        layer.weight[2, 1] = torch.nan
    return layer


class Inherited(snn.Leaky):
    def _base_state_function(self, input_):
        return self.beta * self.mem + 0.5 * input_


class Straight(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return (x > 0).float()


class Net(nn.Module):
    """One step of two layers, the way between them is the case's."""

    def __init__(self, between=None, first=None, second=None):
        super().__init__()
        self.conv, self.fc1, self.fc2, self.fc3 = (
            nn.Conv2d(1, 2, 3),
            nn.Linear(5, 4),
            nn.Linear(4, 4),
            nn.Linear(4, 4),
        )
        self.lif1, self.lif2 = first or snn.Leaky(0.8), second or leaky()
        self.between, self.mem, self.before, self.count = between, None, None, 0

    def forward(self, x):
        self.count += 1
        return self.between(self, x)


def spikes(net, x):
    return net.lif1(net.fc1(x))[0]


def thrown_away(net, x):
    net.lif1.reset_mem()
    return net.lif2(net.fc2(spikes(net, x)))


def changed_state(net, x):
    if net.mem is None:
        spk, net.mem = net.lif1(net.fc1(x))
    else:
        spk, net.mem = net.lif1(net.fc1(x), 0.9 * net.mem)
    return spk


def swapped_state(net, x):
    spk, mem = net.lif1(net.fc1(x)) if net.mem is None else net.lif1(net.fc1(x), net.mem)
    net.lif2.init_hidden = False
    _, net.mem = net.lif2(net.fc2(spk))
    return spk


def late_bias(net, x):
    current = net.fc1(x)
    if net.before is not None:
        current = current + net.fc2(net.before)
    net.before = net.lif2(current)
    return net.before


def other_layer_later(net, x):
    return net.lif2((net.fc2 if net.count > 8 else net.fc3)(net.fc1(x)))


def looped(returns):
    def body(net, x):
        record = [net.lif2(net.fc1(x[t])) for t in range(len(x))]
        return returns(record)

    return body


def backwards(net, x):
    return torch.stack([net.lif2(net.fc1(x[len(x) - 1 - t])) for t in range(len(x))])


def ahead(net, x):
    return torch.stack([net.lif2(net.fc1(x[t + 1])) for t in range(len(x) - 1)])


def noisy(x):
    return (x > torch.randn_like(x)).float()


REFUSED = {
    "alpha": (snn.Alpha(0.9, 0.8, init_hidden=True), "Alpha.*use Synaptic"),
    "lstm": (snn.SLSTM(5, 4, init_hidden=True), "SLSTM.*products of signals"),
    "inhibition": (inhibited(), "inhibition is on"),
    "state_quant": (leaky(state_quant=lambda x: x.round()), "state_quant is on"),
    "stochastic surrogate": (leaky(spike_grad=noisy), "not a step at the threshold"),
    "soft spikes": (leaky(spike_grad=torch.sigmoid), "not a step at the threshold"),
    "negative threshold": (leaky(threshold=-0.5), "threshold is -0.5"),
    "no weight": (leaky(graded_spikes_factor=0.0), "graded_spikes_factor is 0"),
    "beta nan": (snn.Leaky(float("nan"), init_hidden=True), "beta is nan"),
    "beta of another size": (snn.Leaky(torch.rand(3), init_hidden=True), r"beta has shape \(3,\)"),
    "lapicque too fast": (snn.Lapicque(R=1, C=0.5, time_step=1, init_hidden=True), "smaller time_step"),
    "changed reset": (changed_reset(), "built with reset mechanism 'subtract' and now says 'zero'"),
    "subclass": (Inherited(0.8, init_hidden=True), "differ from what snnTorch 1.0.0 computes"),
    "returns its state": (
        nn.Sequential(snn.Leaky(0.8), nn.Linear(5, 4)),
        "gets a tuple of 2.*init_hidden=True",
    ),
    "relu": (nn.Sequential(nn.ReLU(), leaky()), r"0: ReLU calls torch's relu.*ONNX"),
    "own neurons": (Net(lambda n, x: n.lif2(n.fc1(x)), second=LIF(4, firing=Firing())), "all steps at once"),
    "no neuron": (nn.Sequential(nn.Linear(5, 4)), "no spiking neuron.*ONNX"),
    "linear of wrong size": (nn.Sequential(nn.Linear(4, 4), leaky()), "takes 4 values"),
    "weights not finite": (nn.Sequential(not_finite(), leaky()), r"linear_0|0: weight\[2, 1\] is nan"),
    "autograd function": (Net(lambda n, x: n.lif2(Straight.apply(n.fc1(x)))), "Straight.*spike_grad"),
    "gate": (Net(lambda n, x: n.lif2(n.fc2(spikes(n, x)) * n.fc1(x))), "multiplies two signals"),
    "sigmoid": (Net(lambda n, x: n.lif2(torch.sigmoid(n.fc1(x)))), "forward of Net: torch's sigmoid"),
    "branch on data": (Net(lambda n, x: n.lif2(n.fc1(x)) if x.sum() > 0 else x), "takes the sum|__bool__|gt"),
    "value of data": (Net(lambda n, x: n.lif2(n.fc1(x) * x.max().item())), "takes the max|item"),
    "softmax": (Net(lambda n, x: F.softmax(n.lif2(n.fc1(x)), dim=1)), "softmax has no NIR counterpart"),
    "state thrown away": (Net(thrown_away), "lif1: its state begins anew after 1 of"),
    "state changed": (Net(changed_state), "lif1: the mem passed in is not"),
    "state of another": (Net(swapped_state), "lif1: the states passed in belong to another layer"),
    "passed and hidden": (Net(lambda n, x: n.lif2(n.fc1(x), torch.zeros(1))), "although init_hidden=True"),
    "called twice": (
        Net(lambda n, x: n.lif2(n.fc2(n.lif2(n.fc1(x))))),
        "lif2: the input at.*neuron that keeps its state serves one layer",
    ),
    "membrane to a layer": (
        Net(lambda n, x: n.lif2(n.fc2(n.lif1(n.fc1(x))[1]))),
        "lif1: its mem feeds another layer",
    ),
    "late bias": (Net(late_bias), "lif2: the input at step 0.*a bias fed by"),
    "changing weights": (Net(other_layer_later), "lif2: the input at step 0.*other weights"),
    "returns nothing": (Net(lambda n, x: [n.lif2(n.fc1(x)), None][1]), "returns nothing"),
}
LOOPED = {
    "part of the steps": (looped(lambda r: torch.stack(r[3:])), "holds 5 of 8 steps"),
    "argmax": (looped(lambda r: torch.stack(r).sum(0).argmax(1)), "argmax"),
    "minimum": (looped(lambda r: torch.stack(r).amin(0)), "amin"),
    "from the end": (backwards, "every step must compute the same"),
    "looks ahead": (ahead, "input: what it gives at step 7 is used at step 6"),
}
IMAGES = {
    "linear of a map": (nn.Sequential(nn.Linear(8, 3), leaky()), "put nn.Flatten before it"),
    "batch statistics": (
        nn.Sequential(nn.BatchNorm2d(1, track_running_stats=False), leaky()),
        "statistics of the batch",
    ),
    "spatial mean": (Net(lambda n, x: n.lif2(n.conv(x).mean(dim=(2, 3)))), "use a pooling layer"),
    "joins samples": (Net(lambda n, x: n.lif2(n.conv(x).view(-1, 2))), "joins samples or steps"),
}


@pytest.mark.parametrize(
    "module, sample, says",
    [pytest.param(m, torch.zeros(2, 5), s, id=n) for n, (m, s) in REFUSED.items()]
    + [pytest.param(Net(m), torch.zeros(8, 2, 5), s, id=n) for n, (m, s) in LOOPED.items()]
    + [pytest.param(m, torch.zeros(2, 1, 8, 8), s, id=n) for n, (m, s) in IMAGES.items()],
)
def test_refused_by_name(module, sample, says):
    with pytest.raises(ExportError, match=says) as caught:
        to_nir(module, sample)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "sample, says",
    [(torch.zeros(5), "with a batch"), (None, "with a batch"), (torch.zeros(1, 2, 5), "single time step")],
)
def test_samples_that_say_too_little(sample, says):
    with pytest.raises(ExportError, match=says):
        to_nir(Net(looped(torch.stack)), sample)


def test_dt_must_be_a_length_of_time():
    with pytest.raises(ExportError, match="dt is 0"):
        to_nir(nn.Sequential(nn.Linear(5, 4), leaky()), torch.zeros(1, 5), dt=0.0)
