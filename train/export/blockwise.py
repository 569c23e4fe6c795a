"""Layers of liquid spiking neurons with a leaky read-out as NIR.

A dense layer becomes an Affine of its input, an LSN node (`compiler/frontends/nir_extensions.py`) and, if it
is recurrent, a Linear with a delay of one step; a layer of convolutions a Conv2d and an LSNConv2d; the
read-out an LI with tau = dt / (1 - a), r = 1, of W_out z.
"""

from __future__ import annotations

from typing import Any

import nir
import numpy as np
import torch
from torch import Tensor

from snn_compile.compiler.contract.contract import Contract, Readout, attach
from snn_compile.compiler.frontends.nir_extensions import LSN, LSNConv2d
from snn_compile.train.export.nodes import convolution_node, linear_node, numbers
from snn_compile.train.export.registry import exporter
from snn_compile.train.networks.blockwise import OnlineNetwork
from snn_compile.train.networks.lsn_layers import LiquidConvolution, LiquidLayer
from snn_compile.train.networks.recurrent import LeakyReadout


def without_liquid_nodes(module: OnlineNetwork) -> str:
    """Return why a network has no graph, or ""."""
    config = module.config
    if config.neuron != "lsn":
        return f"neurons of the kind {config.neuron} between a block's states have no NIR or extension node"
    if config.readout != "leaky":
        return (
            f"the readout {config.readout} has no node: it reads membranes or has a liquid rate of its own; "
            "readout=leaky has one"
        )
    if config.start != "zero":
        return "an LSN node starts from states of 0, and this network from random ones"
    return ""


@exporter(OnlineNetwork, unexportable=without_liquid_nodes)
def liquid_to_nir(module: OnlineNetwork, sample_input: Tensor, dt: float | None) -> Any:
    """Return the graph of a network of dense liquid layers; a step is `dt` seconds, or has no unit (None).

    The module must be one that `without_liquid_nodes` finds nothing against.
    """
    config, step = module.config, dt or 1.0
    readout = module.readout
    assert isinstance(readout, LeakyReadout)
    with torch.no_grad():
        shares = torch.exp(-1 / readout.tau.double().abs())
    nodes: dict[str, Any] = {"input": nir.Input({"input": np.array(config.input_shape)})}
    row, delays, back = ["input"], {}, []
    layers, shape = len(module.convolutions) + len(module.dense), config.input_shape
    for number, convolution in enumerate(module.convolutions, start=1):
        assert isinstance(convolution, LiquidConvolution)
        hidden, weight = f"hidden{number}", f"conv{number}"
        drive = convolution.input
        settings = {key: getattr(drive, key) for key in ("stride", "padding", "dilation", "groups")}
        nodes[weight] = convolution_node(drive.weight, drive.bias, shape, settings, weight)
        shape = tuple(int(n) for n in nodes[weight].output_type["output"])
        nodes[hidden] = LSNConv2d(**_parameters(convolution, hidden, shape))
        row += [weight, hidden]
    if len(shape) > 1:
        nodes["flatten"] = nir.Flatten({"input": np.array(shape)}, start_dim=0, end_dim=-1)
        row.append("flatten")
    for number, layer in enumerate(module.dense, start=len(module.convolutions) + 1):
        assert isinstance(layer, LiquidLayer)
        hidden, weight = f"hidden{number}" if layers > 1 else "hidden", f"fc{number}"
        nodes[weight] = linear_node(layer.input.weight, layer.input.bias, weight)
        nodes[hidden] = LSN(**_parameters(layer, hidden, (layer.membrane.out_features,)))
        row += [weight, hidden]
        if layer.recurrent is not None:
            nodes[f"{hidden}_recurrent"] = linear_node(layer.recurrent.weight, None, f"{hidden}_recurrent")
            delays[hidden, f"{hidden}_recurrent"] = 1
            back.append((f"{hidden}_recurrent", hidden))
    last = f"fc{layers + 1}"
    nodes[last] = linear_node(readout.weight, None, last)
    tau = step / (1 - numbers(shares, "readout", "decay"))
    nodes["readout"] = nir.LI(tau=tau, r=np.ones(config.outputs), v_leak=np.zeros(config.outputs))
    nodes["output"] = nir.Output({"output": np.array((config.outputs,))})
    row += [last, "readout", "output"]
    graph = nir.NIRGraph(nodes=nodes, edges=[*zip(row[:-1], row[1:], strict=True), *delays, *back])
    contract = Contract(
        dt=step,
        time_unit="s" if dt else "step",
        rule="euler",
        comparison=">",
        update_order="synapse_first",
        current_decay="before",
        delays=delays,
        readouts={"output": Readout("membrane", config.reads, config.task)},
    )
    attach(graph, contract)
    return graph


def _parameters(layer: LiquidLayer | LiquidConvolution, name: str, shape: tuple[int, ...]) -> dict[str, Any]:
    """Return the parameters of a layer's node; without adaptation its gate is one of zeros."""
    kind, gates = layer.kind, {"membrane": layer.membrane, "adaptation": layer.adaptation}
    found: dict[str, Any] = {
        "theta": np.full(shape, kind.base if kind.adaptive else kind.fixed),
        "rise": np.full(shape, kind.scale if kind.adaptive else 0.0),
    }
    for key, gate in gates.items():
        weight, bias = (layer.membrane if gate is None else gate).parameters()
        if gate is None:
            weight, bias = torch.zeros_like(weight), torch.zeros_like(bias)
        found |= {f"w_{key}": numbers(weight, name, f"{key}.weight")}
        found |= {f"b_{key}": numbers(bias, name, f"{key}.bias")}
    return found
