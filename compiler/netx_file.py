"""What a lava-dl `.net` file (HDF5) holds: layers of integers, every size checked before it is read.

The format: a group `layer` with sub-groups 0, 1, ... in order, each with `type`, `shape` in (channels,
height, width) and what its type needs; a sub-group `neuron` holds integer registers. Nothing of a file is
executed, links out of it are not followed, and entries without a meaning here are refused: what is not
understood is not guessed.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any, NoReturn

import h5py
import numpy as np
import numpy.typing as npt

from snn_compile.targets.errors import CompileError, UnsupportedNode
from snn_compile.targets.integer import DECAY_ONE

Int = npt.NDArray[np.int32]

LAYERS_MAX = 1000
NEURONS_MAX = 1 << 22
"""Neurons of a layer: four times a Loihi 2 chip."""

VALUES_MAX = 1 << 25
"""Values of a dataset, and connections of a layer: more 8-bit weights than a chip has memory."""

WEIGHT_MIN, WEIGHT_MAX = -256, 255
TEXT_MAX, HEAP_MAX = 1 << 10, 1 << 20
"""Bytes of a string, and of the heap that it lies in."""

DELAY_MAX = 1023
"""Steps; lava-dl stops at 62, longer delays go through relays."""

NEVER = 1 << 17
"""Thresholds from here on are above the largest membrane."""

SYNAPTIC = ("dense", "conv", "pool")
COMMON = {"type", "shape"}
ENTRIES = {
    "input": {"neuron", "weight", "bias"},
    "flatten": set(),
    "average": set(),
    "concat": {"layers"},
    "dense": {"neuron", "weight", "bias", "delay", "inFeatures", "outFeatures"},
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
    """Registers of a CUBA neuron; one value, one a channel or one a neuron.

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
    """One layer; `sizes` holds the declared numbers (stride, padding, inFeatures ...) that it has."""

    where: str
    index: int
    kind: str
    shape: tuple[int, ...]
    neuron: NetxNeuron | None = None
    weight: Int | None = None
    bias: Int | None = None
    delay: Int | None = None
    layers: tuple[int, ...] = ()
    sizes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name of the layer's population."""
        return f"{self.kind}{self.index}"

    def fail(self, text: str, kind: type[CompileError] = CompileError) -> NoReturn:
        """Raise an error that names the file and the layer."""
        raise kind(f"{self.where}: {text}", node=f"layer/{self.index}", type=self.kind)

    def spread(self, values: Int, what: str) -> Int:
        """Return values of one, each channel or each neuron as (1,) or (size,)."""
        size = prod(self.shape)
        flat = values.reshape(-1)
        if flat.size in (1, size):
            return flat
        if flat.size != self.shape[0]:
            self.fail(f"{what} has {flat.size} values for {size} neurons of {self.shape[0]} channels")
        return np.repeat(flat, size // self.shape[0])


def read_layers(path: str | os.PathLike[str]) -> list[NetxLayer]:
    """Return the layers of a file; raises CompileError that names file, layer and entry."""
    file = Path(path)
    if not file.is_file():
        raise CompileError(f"no file at {file}", path=str(file))
    try:
        with h5py.File(file, "r") as handle:
            return _layers(_Node(handle, str(file), str(file)))
    except CompileError:
        raise
    except Exception as error:  # h5py raises whatever it stumbles over in a damaged file
        reason = " ".join(str(error).split())[:200] or "no reason given"
        raise CompileError(
            f"{file} cannot be read as a lava-dl network ({type(error).__name__}: {reason})", path=str(file)
        ) from error


class _Node:
    """An HDF5 group whose entries are read with their type and size checked first."""

    def __init__(self, group: Any, where: str, path: str) -> None:
        self.group, self.where, self.path = group, where, path

    def fail(self, text: str, kind: type[CompileError] = CompileError) -> NoReturn:
        raise kind(f"{self.where}: {text}", path=self.path, node=self.where.rpartition(": ")[2])

    def _item(self, key: str, kind: type, named: str) -> Any:
        link = self.group.get(key, getlink=True)
        if link is None:
            self.fail(f"{key!r} is missing")
        if not isinstance(link, h5py.HardLink):
            self.fail(f"{key!r} is a link to somewhere else, which is not followed")
        item = self.group[key]
        if not isinstance(item, kind):
            self.fail(f"{key!r} is a {type(item).__name__.lower()}, not {named}")
        return item

    def __contains__(self, key: str) -> bool:
        return key in self.group.keys()

    def child(self, key: str) -> _Node:
        """Return a sub-group."""
        item = self._item(key, h5py.Group, "a group")
        between = "/" if self.where.rpartition(": ")[0] else ": "
        return _Node(item, f"{self.where}{between}{key}", self.path)

    def only(self, known: set[str], what: str) -> None:
        """Refuse entries that have no meaning here."""
        if unknown := sorted(set(self.group.keys()) - known):
            self.fail(f"{what} with {', '.join(map(repr, unknown))} is not supported", UnsupportedNode)

    def _dataset(self, key: str, limit: int) -> Any:
        data = self._item(key, h5py.Dataset, "an array")
        if data.shape is None:
            self.fail(f"{key!r} is empty")
        if data.is_virtual or data.external:
            self.fail(f"{key!r} lies in another file, which is not opened")
        # A chunk is read whole, so that its declared size counts too.
        size = max(prod(data.shape), prod(data.chunks or ()))
        if size > limit:
            self.fail(
                f"{key!r} declares {data.shape} values (chunks {data.chunks}); at most {limit} are read"
            )
        return data

    def text(self, key: str) -> str:
        """Return a short string."""
        data = self._dataset(key, 1)
        kind = data.dtype.kind
        if kind not in "OS" or (kind == "O" and not h5py.check_string_dtype(data.dtype)):
            self.fail(f"{key!r} is {data.dtype}, not a string")
        if kind == "O":
            found = _heap_string(data, self.path)
            if found is None:
                self.fail(f"{key!r} is a string whose place in the file is not understood")
            return found
        if data.dtype.itemsize > TEXT_MAX or not data.size:
            self.fail(f"{key!r} is not a short string")
        value = np.asarray(data[()]).reshape(-1)[0]
        return bytes(value).decode("ascii", "replace")

    def numbers(self, key: str, limit: int, low: int, high: int) -> Int:
        """Return whole numbers within low..high."""
        data = self._dataset(key, limit)
        if data.dtype.kind not in "biuf":
            self.fail(f"{key!r} is {data.dtype}, not numbers")
        values = np.asarray(data[()])
        values = values.astype(np.int32) if values.dtype.kind == "b" else values
        if values.dtype.kind == "f":
            if not np.isfinite(values).all():
                index = tuple(int(i) for i in np.argwhere(~np.isfinite(values))[0])
                self.fail(f"{key!r} holds {values[index]} at {index}; every value must be finite")
            if (broken := values != np.rint(values)).any():
                index = tuple(int(i) for i in np.argwhere(broken)[0])
                self.fail(f"{key!r} holds {values[index]:g} at {index}; a .net holds whole numbers")
        if values.size and (values.min() < low or values.max() > high):
            self.fail(f"{key!r} spans {values.min():g}..{values.max():g}; {low}..{high} is possible")
        return values.astype(np.int32)

    def few(self, key: str, count: int, low: int, high: int) -> tuple[int, ...]:
        """Return up to `count` whole numbers, at least one."""
        values = self.numbers(key, count, low, high).reshape(-1)
        if not values.size:
            self.fail(f"{key!r} is empty")
        return tuple(int(n) for n in values)

    def number(self, key: str, low: int, high: int) -> int:
        """Return one whole number."""
        return self.few(key, 1, low, high)[0]


def _heap_string(data: Any, path: str) -> str | None:
    """Return the one string of a dataset of variable length, None if it is not where HDF5 puts it.

    HDF5 itself may search a damaged heap for ever.
    """
    at, base = data.id.get_offset(), data.file.userblock_size
    if at is None or data.id.get_storage_size() != 16:
        return None
    with open(path, "rb") as file:
        file.seek(at)
        length, heap, wanted = struct.unpack("<IQI", file.read(16))
        if length > TEXT_MAX or heap + base >= os.path.getsize(path):
            return None
        file.seek(heap + base)
        signature, size = struct.unpack("<4s4xQ", file.read(16))
        body = file.read(min(size - 16, HEAP_MAX)) if signature == b"GCOL" and size > 16 else b""
    place = 0
    while place + 16 <= len(body):
        index, size = struct.unpack_from("<H6xQ", body, place)
        if index == wanted and length <= size <= len(body) - place - 16:
            return body[place + 16 : place + 16 + length].rstrip(b"\0").decode("utf-8", "replace")
        if index == 0:
            break
        place += 16 + (size + 7) // 8 * 8
    return None


def _layers(root: _Node) -> list[NetxLayer]:
    top = root.child("layer")
    names = set(top.group.keys())
    if not names or len(names) > LAYERS_MAX:
        top.fail(f"{len(names)} layers; 1 to {LAYERS_MAX} are possible")
    wanted = [str(i) for i in range(len(names))]
    if missing := [name for name in wanted if name not in names]:
        top.fail(f"no layer {missing[0]!r} among {len(names)} (there is {min(names - set(wanted))!r})")
    return [_layer(top.child(name), index) for index, name in enumerate(wanted)]


def _layer(node: _Node, index: int) -> NetxLayer:
    kind = node.text("type")
    if kind not in ENTRIES:
        node.fail(f"layer type {kind!r} is not supported; {', '.join(ENTRIES)} are", UnsupportedNode)
    node.only(COMMON | ENTRIES[kind], f"a layer {kind!r}")
    shape = node.few("shape", 3, 1, NEURONS_MAX)
    if prod(shape) > NEURONS_MAX:
        node.fail(f"shape {shape} declares {prod(shape)} neurons; at most {NEURONS_MAX} are possible")
    sizes = {
        key: node.few(key, 2, 0 if key == "padding" else 1, NEURONS_MAX)
        for key in sorted(ENTRIES[kind] - {"neuron", "weight", "bias", "delay", "layers"})
        if key in node
    }
    neuron = _neuron(node.child("neuron")) if "neuron" in node else None
    if kind in ("conv", "pool") and neuron is None:
        node.fail("'neuron' is missing")
    weight = None
    if kind in SYNAPTIC or "weight" in node:
        if kind in SYNAPTIC and "weight" in node and isinstance(node.group["weight"], h5py.Group):
            node.fail("complex weights are not supported", UnsupportedNode)
        weight = node.numbers("weight", VALUES_MAX, WEIGHT_MIN, WEIGHT_MAX)
    size = prod(shape)
    return NetxLayer(
        node.where,
        index,
        kind,
        shape,
        neuron,
        weight,
        node.numbers("bias", size, -(1 << 23), 1 << 23) if "bias" in node else None,
        node.numbers("delay", size, 0, DELAY_MAX) if "delay" in node else None,
        node.few("layers", LAYERS_MAX, 0, LAYERS_MAX) if kind == "concat" else (),
        sizes,
    )


def _neuron(node: _Node) -> NetxNeuron:
    kind = node.text("type")
    if kind == "SDNN":
        return _sigma_delta(node)
    if kind not in ("CUBA", "LOIHI"):
        node.fail(f"neuron type {kind!r} is not supported; CUBA, LOIHI and SDNN are", UnsupportedNode)
    node.only(NEURON_ENTRIES, f"a neuron {kind!r}")
    for key, plain in (("refDelay", 1), ("gradedSpike", 0), ("wgtExp", 0), ("weight_exp", 0)):
        meaning = {"refDelay": "no refractory time", "gradedSpike": "spikes of one bit"}
        if key in node and (value := node.number(key, -(1 << 15), 1 << 15)) != plain:
            node.fail(
                f"{key} {value} is not supported; {plain} ({meaning.get(key, 'weights as they stand')}) is",
                UnsupportedNode,
            )
    return NetxNeuron(
        node.numbers("iDecay", NEURONS_MAX, 0, DECAY_ONE),
        node.numbers("vDecay", NEURONS_MAX, 0, DECAY_ONE),
        node.numbers("vThMant", NEURONS_MAX, 0, 1 << 24),
    )


def _sigma_delta(node: _Node) -> NetxNeuron:
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
