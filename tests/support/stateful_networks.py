"""Random small networks of every kind that runs block by block."""

import torch

from snn_compile.train.networks.blockwise import OnlineConfig, OnlineNetwork
from snn_compile.train.networks.feedforward import LayerConfig, NetworkConfig, SpikingNetwork
from snn_compile.train.networks.recurrent import RecurrentConfig, RecurrentNetwork


def network(kind, seed, inputs=3, hidden=12, outputs=2, dtype=torch.float64):
    """Return a network with random weights, strong enough to spike; lsn-conv takes (inputs, 4, 4)."""
    torch.manual_seed(seed)
    if kind.startswith(("lsn", "online")):
        made = _online(kind, inputs, hidden, outputs)
    elif kind in ("lif", "cuba"):
        neuron = "lif" if kind == "lif" else "cuba_lif"
        layers = (
            LayerConfig(hidden, neuron, threshold=0.3, recurrent=True, detach_reset=False),
            LayerConfig(hidden, neuron, threshold=0.3),
            LayerConfig(outputs, "li"),
        )
        made = SpikingNetwork(NetworkConfig((inputs,), layers))
    else:
        config = RecurrentConfig(
            inputs=inputs,
            hidden=hidden,
            classes=outputs,
            neuron=kind,
            delta=0.1,
            omega=(0.5, 5.0),
            offset=(0.1, 1.0),
            tau_membrane=(4.0, 0.5),
        )
        made = RecurrentNetwork(config)
        if kind in ("brf", "rf_iz"):
            made.weight_in.data *= 20
    return made.to(dtype)


def _online(kind, inputs, hidden, outputs):
    name = kind.split("-")[-1]
    if name == "conv":
        return OnlineNetwork(
            OnlineConfig((inputs, 4, 4), outputs, channels=(2,), hidden=(hidden,), readout="liquid")
        )
    made = OnlineNetwork(
        OnlineConfig(
            (inputs,),
            outputs,
            neuron=name if kind.startswith("online") else "lsn",
            hidden=(hidden,),
            adaptive=name != "fixed",
            readout=name if name in ("liquid", "leaky") else "membrane",
        )
    )
    if name == "alif":
        made.dense[0].tau_membrane.data.fill_(4.0)
    return made


def sequence(kind, seed, steps, batch=4, inputs=3, dtype=torch.float64):
    """Return random inputs for such a network."""
    torch.manual_seed(seed)
    shape = (inputs, 4, 4) if kind == "lsn-conv" else (inputs,)
    return torch.randn(batch, steps, *shape, dtype=dtype) + 0.5
