"""Layers of integers in a lava-dl `.net` file (HDF5); every size is checked before it is read.

The format: a group `layer` with sub-groups 0, 1, ... in order, each with `type`, `shape` in (channels,
height, width) and what its type needs; a sub-group `neuron` holds integer registers. Nothing of a file is
executed, links out of it are not followed, and entries without a meaning here are refused: what is not
understood is not guessed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import NoReturn

import h5py
import numpy as np

from snn_compile.compiler.frontends.checked import VALUES_MAX, Int
from snn_compile.compiler.frontends.hdf5 import Hdf5Group, opened
from snn_compile.targets.errors import CompileError, UnsupportedNode
from snn_compile.targets.integer import DECAY_ONE

LAYERS_MAX = 1000
NEURONS_MAX = 1 << 22
"""Most neurons of a layer: four times a Loihi 2 chip."""

WEIGHT_MIN, WEIGHT_MAX = -256, 255
DELAY_MAX = 1023
"""Steps; lava-dl stops at 62, longer delays go through relays."""

NEVER = 1 << 17
"""Thresholds from here on are above the largest membrane."""

DENSE = ("dense", "dense_rec")
SYNAPTIC = (*DENSE, "conv", "pool")
COMMON = {"type", "shape"}
ENTRIES = {
    "input": {"neuron", "weight", "bias"},
    "flatten": set(),
    "average": set(),
    "concat": {"layers"},
    "dense": {"neuron", "weight", "bias", "delay", "inFeatures", "outFeatures"},
    "dense_rec": {"neuron", "weight", "weight_rec", "bias", "delay", "inFeatures", "outFeatures"},
    "conv": {"neuron", "weight", "bias", "delay", "inChannels", "outChannels", "kernelSize", "stride"}
    | {"padding", "dilation", "groups"},
    "pool": {"neuron", "weight", "delay", "kernelSize", "stride", "padding", "dilation"},
}
SIGMA_DELTA_ENTRIES = {"type", "activation", "vThMant", "sigma_output", "gradedSpike", "messageBits"}
NEURON_ENTRIES = {"type", "iDecay", "vDecay", "vThMant", "refDelay", "gradedSpike", "messageBits"} | {
    *("wgtExp", "weight_exp"),
    *("theta", "tauRho", "scaleRho"),  # the trainer's; the threshold again, and the surrogate gradient
}


@dataclass(frozen=True, eq=False)
class NetxNeuron:
    """Registers of a CUBA neuron; one value, or one per channel or per neuron.

    `sigma_delta`: it is a sigma-delta neuron instead, of which only the threshold counts; `sums`: it sends
    the sum of its input.
    """

    current_decay: Int
    voltage_decay: Int
    threshold: Int
    sigma_delta: bool = False
    sums: bool = False


@dataclass(frozen=True, eq=False)
class NetxLayer:
    """One layer; `sizes` holds the declared numbers (stride, padding, inFeatures ...) that it has.

    `weight_rec` connects the neurons of a recurrent layer to themselves, a step later.
    """

    where: str
    index: int
    kind: str
    shape: tuple[int, ...]
    neuron: NetxNeuron | None = None
    weight: Int | None = None
    weight_rec: Int | None = None
    bias: Int | None = None
    delay: Int | None = None
    layers: tuple[int, ...] = ()
    sizes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name of the layer's population."""
        return f"{self.kind}{self.index}"

    @property
    def dense(self) -> bool:
        """Whether the layer's neurons have no position."""
        return self.kind in DENSE

    @property
    def synaptic_delay(self) -> bool:
        """Whether `delay` holds the steps of each synapse, not of each neuron's axon."""
        delay, weight = self.delay, self.weight
        if delay is None or weight is None or not self.dense or delay.ndim != 2 or delay.shape[1] == 1:
            return False
        return delay.shape == (prod(self.shape), weight.size // prod(self.shape))

    def fail(self, text: str, kind: type[CompileError] = CompileError) -> NoReturn:
        """Raise an error that names the file and the layer."""
        raise kind(f"{self.where}: {text}", node=f"layer/{self.index}", type=self.kind)

    def spread(self, values: Int, what: str) -> Int:
        """Return one value, or values per channel or per neuron, as (1,) or (size,)."""
        size = prod(self.shape)
        flat = values.reshape(-1)
        if flat.size in (1, size):
            return flat
        if flat.size != self.shape[0]:
            self.fail(f"{what} has {flat.size} values for {size} neurons of {self.shape[0]} channels")
        return np.repeat(flat, size // self.shape[0])


def read_layers(path: str | os.PathLike[str]) -> list[NetxLayer]:
    """Return the layers of a file; raises CompileError that names file, layer and entry."""
    with opened(path, "a lava-dl network") as root:
        return _layers(root)


def _layers(root: Hdf5Group) -> list[NetxLayer]:
    top = root.child("layer")
    names = set(top.keys())
    if not names or len(names) > LAYERS_MAX:
        top.fail(f"{len(names)} layers; 1 to {LAYERS_MAX} are possible")
    wanted = [str(i) for i in range(len(names))]
    if missing := [name for name in wanted if name not in names]:
        top.fail(f"no layer {missing[0]!r} among {len(names)} (there is {min(names - set(wanted))!r})")
    return [_layer(top.child(name), index) for index, name in enumerate(wanted)]


def _layer(node: Hdf5Group, index: int) -> NetxLayer:
    kind = node.text("type")
    if kind not in ENTRIES:
        node.fail(f"layer type {kind!r} is not supported; {', '.join(ENTRIES)} are", UnsupportedNode)
    node.only(COMMON | ENTRIES[kind], f"a layer {kind!r}")
    shape = node.few("shape", 3, 1, NEURONS_MAX)
    if prod(shape) > NEURONS_MAX:
        node.fail(f"shape {shape} declares {prod(shape)} neurons; at most {NEURONS_MAX} are possible")
    sizes = {
        key: node.few(key, 2, 0 if key == "padding" else 1, NEURONS_MAX)
        for key in sorted(ENTRIES[kind] - {"neuron", "weight", "weight_rec", "bias", "delay", "layers"})
        if key in node
    }
    neuron = _neuron(node.child("neuron")) if "neuron" in node else None
    if kind in ("dense_rec", "conv", "pool") and neuron is None:
        node.fail("'neuron' is missing")
    weight = None
    if kind in SYNAPTIC or "weight" in node:
        if kind in SYNAPTIC and "weight" in node and isinstance(node.group["weight"], h5py.Group):
            node.fail("complex weights are not supported", UnsupportedNode)
        weight = node.numbers("weight", VALUES_MAX, WEIGHT_MIN, WEIGHT_MAX)
    size = prod(shape)
    delays = VALUES_MAX if kind in DENSE else size  # one per synapse is possible
    return NetxLayer(
        node.where,
        index,
        kind,
        shape,
        neuron,
        weight,
        node.numbers("weight_rec", VALUES_MAX, WEIGHT_MIN, WEIGHT_MAX) if kind == "dense_rec" else None,
        node.numbers("bias", size, -(1 << 23), 1 << 23) if "bias" in node else None,
        node.numbers("delay", delays, 0, DELAY_MAX) if "delay" in node else None,
        node.few("layers", LAYERS_MAX, 0, LAYERS_MAX) if kind == "concat" else (),
        sizes,
    )


def _neuron(node: Hdf5Group) -> NetxNeuron:
    kind = node.text("type")
    if kind == "SDNN":
        return _sigma_delta(node)
    if kind not in ("CUBA", "LOIHI"):
        node.fail(f"neuron type {kind!r} is not supported; CUBA, LOIHI and SDNN are", UnsupportedNode)
    node.only(NEURON_ENTRIES, f"a neuron {kind!r}")
    for key, plain in (("refDelay", 1), ("gradedSpike", 0), ("wgtExp", 0), ("weight_exp", 0)):
        meaning = {
            "refDelay": "no refractory time: the neuron may spike again in the next step",
            "gradedSpike": "spikes of one bit",
        }
        if key in node and (value := node.number(key, -(1 << 15), 1 << 15)) != plain:
            node.fail(
                f"{key} {value} is not supported; {plain} ({meaning.get(key, 'weights as they stand')}) is",
                UnsupportedNode,
            )
    return NetxNeuron(
        node.numbers("iDecay", NEURONS_MAX, 0, DECAY_ONE),
        node.numbers("vDecay", NEURONS_MAX, 0, DECAY_ONE),
        _threshold(node),
    )


def _threshold(node: Hdf5Group) -> Int:
    """Return the thresholds; lava-dl writes -1 for neurons that never spike."""
    threshold = node.numbers("vThMant", NEURONS_MAX, -1, 1 << 24)
    return np.where(threshold < 0, NEVER, threshold).astype(np.int32)


def _sigma_delta(node: Hdf5Group) -> NetxNeuron:
    node.only(SIGMA_DELTA_ENTRIES, "a neuron 'SDNN'")
    activation = node.text("activation") if "activation" in node else "relu"
    if activation != "relu":
        node.fail(f"the activation {activation!r} is not supported; relu is", UnsupportedNode)
    if "gradedSpike" in node and not node.number("gradedSpike", 0, 1):
        node.fail("gradedSpike 0 of sigma-delta neurons, which send numbers", UnsupportedNode)
    none = np.zeros(1, np.int32)
    threshold = node.numbers("vThMant", NEURONS_MAX, 0, 1 << 24)
    if not threshold.size or (threshold != threshold.flat[0]).any():
        node.fail(
            "'vThMant' differs between neurons, which Lava's sigma-delta neurons share", UnsupportedNode
        )
    sums = "sigma_output" in node and bool(node.number("sigma_output", 0, 1))
    return NetxNeuron(none, none, threshold.reshape(-1)[:1], sigma_delta=True, sums=sums)
