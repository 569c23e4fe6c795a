"""Recognition of spiking neurons (snnTorch 1.0.0) and of the arguments of their calls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from snn_compile.targets.errors import ExportError
from snn_compile.train.networks.layers import LI, LIF, CubaLIF


@dataclass(frozen=True)
class Ports:
    """The states of a neuron in the order of its forward's arguments, and its returned ports."""

    kind: str
    states: tuple[str, ...]
    returns: tuple[str, ...]


PORTS = {
    ports.kind: ports
    for ports in (
        Ports("Leaky", ("mem",), ("spk", "mem")),
        Ports("Lapicque", ("mem",), ("spk", "mem")),
        Ports("Synaptic", ("syn", "mem"), ("spk", "syn", "mem")),
        Ports("RLeaky", ("spk", "mem"), ("spk", "mem")),
        Ports("RSynaptic", ("spk", "syn", "mem"), ("spk", "syn", "mem")),
    )
}

_WHY_NOT = {
    "Alpha": "its membrane is a difference of two traces, which no NIR node has; use Synaptic",
    "SLSTM": "an LSTM cell computes products of signals, which no NIR node does",
    "SConv2dLSTM": "an LSTM cell computes products of signals, which no NIR node does",
    "LeakyParallel": "it is an RNN over the whole sequence; use Leaky",
}


def neuron_ports(module: nn.Module, path: str) -> Ports | None:
    """Return the ports of a spiking neuron, None for any other module; raises for unknown neurons."""
    if isinstance(module, (LI, LIF, CubaLIF)):
        raise ExportError(
            f"{path}: {type(module).__name__} of snn-compile runs over all steps at once; put such layers in "
            "an nn.Sequential without neurons of snnTorch",
            node=path,
        )
    kinds = [c.__name__ for c in type(module).__mro__ if c.__module__.startswith("snntorch._neurons")]
    if not kinds:
        return None
    if kinds[0] == "RecurrentOneToOne":
        return None
    if kinds[0] not in PORTS:
        why = _WHY_NOT.get(kinds[0], "use one of these")
        raise ExportError(
            f"{path}: snnTorch's {kinds[0]} has no NIR counterpart ({why}); supported are {', '.join(PORTS)}",
            node=path,
            type=kinds[0],
        )
    return PORTS[kinds[0]]


def read_call(
    module: nn.Module, path: str, ports: Ports, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the input and the states of one call: those passed, else those the module keeps."""
    given = {**dict(zip(("input_", *ports.states), args, strict=False)), **kwargs}
    x = given.pop("input_", None)
    if not isinstance(x, Tensor):
        raise ExportError(f"{path}: gets a {type(x).__name__} where a tensor is expected", node=path)
    if x.ndim < 2:
        raise ExportError(
            f"{path}: gets a tensor of shape {tuple(x.shape)} without a batch; give the sample input a batch",
            node=path,
        )
    if unknown := given.keys() - set(ports.states):
        raise ExportError(f"{path}: unknown argument {sorted(unknown)}", node=path)
    passed = {name: state for name, state in given.items() if state is not None}
    if passed and getattr(module, "init_hidden", False):
        raise ExportError(
            f"{path}: {sorted(passed)} is passed although init_hidden=True keeps it inside; choose one",
            node=path,
        )
    states = {name: passed.get(name, getattr(module, name)) for name in ports.states}
    return x, {name: s if isinstance(s, Tensor) else torch.as_tensor(s) for name, s in states.items()}
