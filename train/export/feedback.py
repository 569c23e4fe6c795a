"""Feedback networks as NIR graphs: normalisation folded into Affine and Conv2d, the feedback a step late.

    F, b with its normalisation   Affine or Conv2d        a layer   LIF, tau = dt / (1 - decay), r = tau / dt,
    W                             Linear or Conv2d                  or IF, r = 1 / dt, for decay 1
    R, c                          Affine                  rates     LI, or I for decay 1

The contract says that neurons lose their threshold with a spike, at or above it. The last membrane of the
read-out after the number of steps that the sample has is R a + c. NIR has no transposed convolution, and no
node that makes an image of a vector: where feedback reaches an image as a vector, populations are vectors,
and the convolutions behind the first are written out as matrices.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import nir
import numpy as np
import torch
from torch import Tensor

from snn_compile.compiler.contract.contract import Contract, Readout, attach
from snn_compile.targets.errors import ExportError
from snn_compile.train.export.nodes import convolution_node, linear_node
from snn_compile.train.export.registry import exporter
from snn_compile.train.networks.feedback import FeedbackNetwork
from snn_compile.train.networks.feedback_maps import Feedback, Forward

MATRIX_MAX = 1 << 24
"""Weights of the largest convolution that is written out."""


@exporter(FeedbackNetwork)
def feedback_to_nir(module: FeedbackNetwork, sample_input: Tensor, dt: float | None = None) -> Any:
    """Return the NIR graph of a feedback network, with its contract.

    `sample_input` (batch, steps, *shape): its steps are those after which the read-out is that of the rates.
    `dt` is the length of a step in seconds; None means one step of no unit. Raises ExportError for weights
    that are not finite, samples of another shape, and convolutions too large to be written out.
    """
    config, step = module.config, dt or 1.0
    if sample_input.ndim < 3 or tuple(sample_input.shape[2:]) != config.input_shape:
        raise ExportError(
            f"the sample input has shape {tuple(sample_input.shape)}; it must be (batch, steps, "
            f"{', '.join(map(str, config.input_shape))})",
            shape=tuple(sample_input.shape),
        )
    graph = _Row(config.input_shape)
    with torch.no_grad():
        node = _feedback_node(module.feedback)
        flat = isinstance(node, nir.Linear)
        for number, (layer, name) in enumerate(zip(module.forwards, module.layer_names, strict=True), 1):
            assert isinstance(layer, Forward)
            title = f"{'conv' if layer.kernel else 'fc'}{number}"
            graph.add(title, _forward_node(layer, title, flat and number > 1))
            shape = (math.prod(layer.target),) if flat else layer.target
            graph.add(name, _neurons(shape, config.decay, config.threshold, step))
        first, last = module.layer_names[0], module.layer_names[-1]
        graph.join(last, "feedback", node, first)
        head = f"fc{len(module.shapes) + 1}"
        graph.add(head, linear_node(module.readout.weight, module.readout.bias, head))
        graph.add("readout", _rates(config.classes, config.decay, sample_input.shape[1], step))
        graph.add("output", nir.Output({"output": np.array([config.classes])}))
    made = nir.NIRGraph(nodes=graph.nodes, edges=graph.edges)
    contract = Contract(
        dt=step,
        time_unit="s" if dt else "step",
        rule="euler",
        comparison=">=",
        reset="subtract",
        reset_timing="same_step",
        update_order="synapse_first",
        current_decay="before",
        delays=graph.delays,
        readouts={"output": Readout("membrane", "last", "classify")},
    )
    attach(made, contract)
    return made


class _Row:
    """Nodes in a row as they grow; images are flattened before a matrix."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.nodes: dict[str, Any] = {"input": nir.Input({"input": np.array(shape)})}
        self.edges: list[tuple[str, str]] = []
        self.delays: dict[tuple[str, str], int] = {}
        self.last, self.shape = "input", shape

    def add(self, name: str, node: Any) -> None:
        takes = node.input_type["input"]
        if len(self.shape) > 1 and takes is not None and np.size(takes) == 1:
            self.add(f"flatten_{name}", nir.Flatten({"input": np.array(self.shape)}, start_dim=0, end_dim=-1))
        self.nodes[name] = node
        self.edges.append((self.last, name))
        self.last = name
        self.shape = tuple(int(n) for n in np.atleast_1d(node.output_type["output"]))

    def join(self, source: str, name: str, node: Any, target: str) -> None:
        """Add a node from the last neuron to another, which passes on what was a step ago."""
        shape = self.shape
        self.add(name, node)
        self.edges.append((name, target))
        self.delays[source, name] = 1
        self.last, self.shape = source, shape


def _forward_node(layer: Forward, name: str, flat: bool) -> Any:
    precise, kind = _double(layer), layer.weight.dtype
    weight, bias = precise.folded()
    if layer.kernel and flat:
        matrix = _written_out(partial(precise.mapped, weight=weight), layer.source, layer.target, name)
        weight, bias = matrix, bias.repeat_interleave(len(matrix) // len(bias))
    weight, bias = weight.to(kind), bias.to(kind)
    if not layer.kernel or flat:
        return linear_node(weight, bias, name)
    return _convolution(weight, bias, layer.source, layer.stride, layer.padding, name)


def _double(module: Any) -> Any:
    """Return a copy in float64, in which normalisation is folded."""
    return copy.deepcopy(module).double()


def _convolution(
    weight: Tensor, bias: Tensor | None, shape: tuple[int, ...], stride: int, padding: int, name: str
) -> Any:
    settings = {"stride": (stride,) * 2, "padding": (padding,) * 2, "dilation": (1, 1), "groups": 1}
    return convolution_node(weight, bias, shape, settings, name)


def _feedback_node(feedback: Feedback) -> Any:
    precise = _double(feedback)
    weight = precise.weight().detach()
    kind = feedback.raw.dtype
    if not feedback.kernel:
        return linear_node(weight.to(kind), None, "feedback")
    if feedback.stride == 1:
        return _convolution(weight.to(kind), None, feedback.source, 1, feedback.padding, "feedback")
    matrix = _written_out(partial(precise.mapped, weight), feedback.source, feedback.target, "feedback")
    return linear_node(matrix.to(kind), None, "feedback")


def _written_out(
    mapped: Callable[[Tensor], Tensor], source: tuple[int, ...], target: tuple[int, ...], name: str
) -> Tensor:
    """Return the matrix of a convolution."""
    size = math.prod(source)
    if (entries := size * math.prod(target)) > MATRIX_MAX:
        raise ExportError(
            f"{name}: NIR has no transposed convolution, and with one the convolution from {source} to "
            f"{target} is a matrix of {entries:,} weights; at most {MATRIX_MAX:,} are written",
            node=name,
        )
    return mapped(torch.eye(size, dtype=torch.float64).reshape(size, *source)).flatten(1).T


def _neurons(shape: tuple[int, ...], decay: float, threshold: float, dt: float) -> Any:
    firing = {"v_reset": np.zeros(shape), "v_threshold": np.full(shape, threshold)}
    if decay == 1:
        return nir.IF(r=np.full(shape, 1 / dt), **firing)
    tau = np.full(shape, dt / (1 - decay))
    return nir.LIF(tau=tau, r=tau / dt, v_leak=np.zeros(shape), **firing)


def _rates(size: int, decay: float, steps: int, dt: float) -> Any:
    if decay == 1:
        return nir.I(r=np.full(size, 1 / (steps * dt)))
    tau, r = np.full(size, dt / (1 - decay)), np.full(size, 1 / (1 - decay**steps))
    return nir.LI(tau=tau, r=r, v_leak=np.zeros(size))
