"""Reader of lava-dl `.net` files, whose integers become the same integers of a Network.

The floats of the Network are the file's integers in units of the threshold register (`fixed_scale` 1), so
nothing is left to round. A layer's neuron steps as lava-dl's trainer and Lava's LIF do:

    u = trunc(u (4096 - iDecay) / 4096) + 64 W s
    v = trunc(v (4096 - vDecay) / 4096) + u + 64 bias        s = v > 64 vThMant, then v = 0

Spikes of a layer go to the next one, `delay` steps later where it has axonal delays. Every sample starts
each layer from zero, as netx does with a reset interval: logical delay 0. Which blocks of the trainer have
`delay_shift`, a step per layer during which biases act already, a file does not hold: that is assumed, or
stated. A file with `concat` layers has connections past layers or backwards, and there every connection takes
a step.
An input layer with a neuron turns x into the constant current weight x + bias, of which the host writes
weight x, a whole number. A dense layer without a neuron integrates, as for netx. `average`, the mean of
groups of spikes, can only be the last layer.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, fields
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csr_array, eye_array, issparse

from snn_compile.compiler.contract.contract import Contract, Readout
from snn_compile.compiler.contract.unheld import Assumption
from snn_compile.compiler.frontends.checked import VALUES_MAX, Int
from snn_compile.compiler.frontends.netx_file import NEVER, NetxLayer, read_layers
from snn_compile.compiler.frontends.netx_neurons import plain, population_of, received_weight
from snn_compile.compiler.frontends.netx_sigma_delta import scaled_weight
from snn_compile.compiler.frontends.netx_weights import by_delay, layer_weight, recurrent_weight
from snn_compile.compiler.network import Network, Population, Port, Projection, Weight
from snn_compile.targets.errors import CompileError, UnsupportedNode
from snn_compile.targets.integer import DECAY_ONE

INPUT, OUTPUT = "input", "output"
DELAY_SHIFT = "delay_shift"
"""What a file leaves open, as `--convention` states it."""

INPUT_WEIGHT = 64
"""Weight of an input layer that has none in the file."""

CONNECTIONS_MAX = 2 * VALUES_MAX
"""Most connections of all layers together."""


InputShape = tuple[int, ...] | Callable[[], tuple[int, ...] | None] | None
"""Shape of a network's input, or a function that finds it, called where a file needs it."""


def read_netx(
    path: str | os.PathLike[str], input_shape: InputShape = None, delay_shift: Any = None
) -> Network:
    """Return the Network in a lava-dl `.net` file; raises CompileError that names file and layer.

    `input_shape`: (channels, height, width) for a file without an input layer. `delay_shift`: 1 where the
    trainer's blocks have it and all layers start at once, 0 where each starts with its own input, as netx
    resets it; None assumes 0, and says so if a bias makes a difference.
    """
    if delay_shift not in (None, 0, 1):
        raise CompileError(f"delay_shift is {delay_shift!r}; it is 0 or 1", item="delay_shift")
    file = Path(path)
    layers = read_layers(file)
    with file.open("rb") as handle:
        digest = hashlib.file_digest(handle, "sha256").hexdigest()
    return _Builder(layers, str(file), digest, input_shape, delay_shift).network()


@dataclass(frozen=True, eq=False)
class _Part:
    """Spikes of one population or input, delayed by a number of steps per neuron."""

    source: str
    size: int
    delays: Int


@dataclass(frozen=True, eq=False)
class _Signal:
    """The output of a layer: parts in sequence, in (channels, height, width) order."""

    shape: tuple[int, ...]
    parts: tuple[_Part, ...]


class _Builder:
    """One walk over the layers, each of which receives the output of the one before."""

    def __init__(
        self,
        layers: list[NetxLayer],
        path: str,
        digest: str,
        input_shape: InputShape = None,
        delay_shift: int | None = None,
    ) -> None:
        self.layers, self.path, self.digest, self.given = layers, path, digest, input_shape
        self.concat, self.delay_shift = any(layer.kind == "concat" for layer in layers), delay_shift
        self.populations: list[Population] = []
        self.projections: list[Projection] = []
        self.connections = 0
        self.host_gain = 0.0
        self._shape: tuple[int, ...] | None = None

    def network(self) -> Network:
        """Return the network; the last layer is the output."""
        for layer in self.layers:
            try:
                self._add(layer)
            except CompileError as error:
                if str(error).startswith(self.path):
                    raise
                raise CompileError(f"{layer.where}: {error}", **error.facts) from error
        port, readout = self._output()
        mute = {p.name for p in self.populations if not p.spiking}
        for edge in self.projections:
            if edge.source in mute:
                raise CompileError(
                    f"{self.path}: {edge.source!r} never spikes, but projects to {edge.target!r}",
                    node=edge.target,
                )
        contract = Contract(dt=1.0, time_unit="step", readouts={OUTPUT: readout})
        stated = {} if self.delay_shift is None else {DELAY_SHIFT: "stated"}
        return Network(
            tuple(self.populations),
            tuple(self.projections),
            (Port(INPUT, self._input_shape(), host_gain=self.host_gain),),
            (port,),
            contract,
            {item.name: "lava-dl" for item in fields(Contract)} | stated,
            self.digest,
            () if stated else self._assumptions(),
        )

    def _assumptions(self) -> tuple[Assumption, ...]:
        """Return what the file does not hold, where that matters: whether biases act before input."""
        early = [
            layer.name
            for layer in self.layers[1:]
            if not self.concat and layer.neuron is not None and layer.bias is not None and layer.bias.any()
        ]
        if not early or all(p.kind.sends_numbers for p in self.populations):
            return ()
        names = ", ".join(early[:3]) + ", ..." * (len(early) > 3)
        text = (
            f"assumed {DELAY_SHIFT}=0: {names} and every other layer start from rest with their own input, "
            "as netx resets them; in training with delay_shift biases act from the first step of the run "
            f"(--convention {DELAY_SHIFT}=1)"
        )
        return (Assumption(DELAY_SHIFT, 0, text),)

    def _steps(self, source: str) -> int:
        """Return the steps that a connection from a source takes."""
        if source != INPUT or self.concat:
            return int(self.concat or self.delay_shift or 0)
        first = self.layers[0]
        return int(bool(self.delay_shift) and first.kind == "input" and first.neuron is None)

    def _add(self, layer: NetxLayer) -> None:
        if layer.kind == "input" and layer.index:
            layer.fail("an input layer can only be the first")
        if layer.kind in ("flatten", "average", "concat") and not layer.index:
            layer.fail(f"a layer {layer.kind!r} needs one before it")
        if layer.kind == "input":
            if layer.neuron is not None:
                self._encoder(layer)
        elif layer.kind not in ("flatten", "concat"):
            signal = self._input(layer)
            weight = layer_weight(layer, signal.shape)
            self.connections += weight.nnz if issparse(weight) else weight.size
            if self.connections > CONNECTIONS_MAX:
                layer.fail(f"{self.connections} connections up to here; at most {CONNECTIONS_MAX} are read")
            if layer.kind == "average":
                self._mean(layer)
            else:
                self.populations.append(population_of(layer, self._last(layer)))
            models = {p.name: p.model for p in self.populations}
            weight = scaled_weight(layer, models, [part.source for part in signal.parts], weight)
            synaptic = layer.delay if layer.synaptic_delay else None
            self._connect(layer.name, signal, received_weight(layer, weight, self._last(layer)), synaptic)
            if layer.kind == "dense_rec":
                self._recur(layer)
        elif prod(layer.shape) != (size := sum(part.size for part in self._signal(layer.index, ()).parts)):
            layer.fail(f"its shape {layer.shape} declares {prod(layer.shape)} values, but receives {size}")

    def _input_shape(self) -> tuple[int, ...]:
        first = self.layers[0]
        if first.kind == "input":
            if isinstance(self.given, tuple) and prod(self.given) != prod(first.shape):
                first.fail(f"the input layer has the shape {first.shape}; {self.given} was stated")
            return first.shape
        if first.dense and not isinstance(self.given, tuple):
            assert first.weight is not None
            return (first.weight.size // prod(first.shape),)
        if self._shape is None:
            self._shape = self.given() if callable(self.given) else self.given
        if self._shape is None:
            first.fail(
                "there is no input layer to give the shape of its input; state it with --input-shape "
                "CHANNELS,HEIGHT,WIDTH, or name data of that shape"
            )
        return self._shape

    def _input(self, layer: NetxLayer) -> _Signal:
        """Return the output of the layer before; that of the first layer is the input."""
        if layer.index == 0:
            shape = self._input_shape()
            return _Signal(shape, (_Part(INPUT, prod(shape), np.zeros(1, np.int32)),))
        return self._signal(layer.index - 1, ())

    def _signal(self, index: int, seen: tuple[int, ...]) -> _Signal:
        layer, none = self.layers[index], np.zeros(1, np.int32)
        if index in seen:
            layer.fail("the concat layers lead back to themselves without a neuron between")
        if layer.kind == "concat":
            if high := [i for i in layer.layers if i >= len(self.layers)]:
                layer.fail(f"'layers' names layer {high[0]}; there are {len(self.layers)}")
            signals = [self._signal(i, (*seen, index)) for i in (index - 1, *layer.layers)]
            spatial = layer.shape[1:] if prod(layer.shape[1:]) > 1 else ()
            if spatial and any(signal.shape[1:] != spatial for signal in signals):
                shapes = ", ".join(str(signal.shape) for signal in signals)
                layer.fail(f"its shape is {layer.shape}, and {shapes} do not join to it along channels")
            return _Signal(layer.shape, tuple(part for signal in signals for part in signal.parts))
        if layer.kind == "flatten":
            return _Signal(layer.shape, self._signal(index - 1, (*seen, index)).parts)
        size = prod(layer.shape)
        if layer.kind == "input" and layer.neuron is None:
            return _Signal(layer.shape, (_Part(INPUT, size, none),))
        delays = none
        if layer.delay is not None and not layer.synaptic_delay:
            if layer.delay.ndim > 1 and layer.delay.size > layer.delay.shape[0]:
                layer.fail(
                    f"'delay' has shape {layer.delay.shape}; it holds one value per channel or neuron, or "
                    "in a dense layer one per synapse, in the shape of the weight"
                )
            delays = layer.spread(layer.delay, "'delay'")
        shape = (size,) if layer.dense else layer.shape
        return _Signal(shape, (_Part(layer.name, size, delays),))

    def _connect(self, target: str, signal: _Signal, weight: Weight, synaptic: Int | None = None) -> None:
        """Add a projection for each source and each of its delays; `synaptic` adds those of each synapse."""
        at = 0
        for part in signal.parts:
            own = slice(at, at + part.size)
            block = weight if len(signal.parts) == 1 else weight[:, own]
            at += part.size
            delays = part.delays if synaptic is None else part.delays + synaptic[:, own]
            for late, share in by_delay(block, delays + self._steps(part.source)):
                self._project(part.source, target, share, late)

    def _project(self, source: str, target: str, weight: Weight, delay: int) -> None:
        taken = sum(e.name.split("@")[0] == f"{source}/{target}" for e in self.projections)
        name = f"{source}/{target}" + (f"@{taken}" if taken else "")
        self.projections.append(Projection(name, source, target, weight, delay))

    def _recur(self, layer: NetxLayer) -> None:
        """Connect a layer's neurons to themselves a step later, with the synapses' delays if there are any.

        netx gives both weights the same delays; axonal ones are of the way to the next layer.
        """
        weight = recurrent_weight(layer)
        if layer.neuron is not None and layer.neuron.sigma_delta:
            layer.fail("sigma-delta neurons that connect to themselves are not supported", UnsupportedNode)
        delays = np.zeros(1, np.int32)
        if layer.synaptic_delay:
            assert layer.delay is not None
            if layer.delay.shape != weight.shape:
                layer.fail(
                    f"'delay' has shape {layer.delay.shape} and 'weight_rec' {weight.shape}; delays per "
                    "synapse hold for both"
                )
            delays = layer.delay
        if self.populations[-1].spiking:
            for late, share in by_delay(received_weight(layer, weight, self._last(layer)), delays + 1):
                self._project(layer.name, layer.name, share, late)

    def _last(self, layer: NetxLayer) -> bool:
        return layer is self.layers[-1]

    def _encoder(self, layer: NetxLayer) -> None:
        """Add the input layer's neurons, with an input of weight x + bias each."""
        assert layer.neuron is not None
        if not layer.neuron.sigma_delta and (layer.neuron.current_decay != DECAY_ONE).any():
            layer.fail(
                "iDecay of an input neuron is not 4096, and lava-dl's trainer and its reader differ on what "
                "then filters the input",
                UnsupportedNode,
            )
        for what, values in (("weight", layer.weight), ("bias", layer.bias)):
            if values is not None and values.size != 1:
                layer.fail(f"{what!r} has shape {values.shape}; an input layer has one value")
        gain = INPUT_WEIGHT if layer.weight is None else float(layer.weight.reshape(-1)[0])
        self.host_gain = abs(gain)
        self.populations.append(population_of(layer, self._last(layer)))
        part, each = _Part(INPUT, prod(layer.shape), np.zeros(1, np.int32)), eye_array(prod(layer.shape))
        weight = received_weight(layer, np.sign(gain) * csr_array(each), self._last(layer))
        self._connect(layer.name, _Signal(layer.shape, (part,)), weight)

    def _mean(self, layer: NetxLayer) -> None:
        """Add a population whose membrane is the mean spikes of a group; its scale makes that an integer."""
        if layer is not self.layers[-1]:
            layer.fail("a layer 'average' sends fractions; it can only be the last", UnsupportedNode)
        group = prod(self._input(layer).shape) // prod(layer.shape)
        values = {"current_decay": 1.0, "voltage_decay": 1.0}
        self.populations.append(plain(layer.name, (prod(layer.shape),), "li", values, float(group)))

    def _output(self) -> tuple[Port, Readout]:
        last = self.layers[-1]
        signal = self._input(last) if last.kind == "average" else self._signal(last.index, ())
        name = last.name if last.kind == "average" else signal.parts[0].source
        if len(signal.parts) != 1 and last.kind != "average" or name == INPUT:
            last.fail("the last layer has no neurons of its own to read")
        population = next(p for p in self.populations if p.name == name)
        late = population.spiking and not population.kind.sends_numbers
        if late and signal.parts[0].delays.any() and last.kind != "average":
            population = self._late(population, signal)
        if population.kind.sends_numbers:
            if signal.parts[0].delays.any():
                last.fail("axonal delays of a last sigma-delta layer are not supported", UnsupportedNode)
            readout = Readout("membrane", "last", "classify" if population.size > 1 else "regress")
            return Port(OUTPUT, population.shape, population.name, readout), readout
        silent = not population.spiking or bool((population.parameters["threshold"] >= NEVER - 1).all())
        task = "classify" if population.size > 1 else "regress"
        how = "mean" if last.kind == "average" else "last"
        readout = Readout("membrane", how, task) if silent else Readout(task=task)
        return Port(OUTPUT, population.shape, population.name, readout), readout

    def _late(self, population: Population, signal: _Signal) -> Population:
        """Add neurons that repeat the last layer's spikes after its axonal delays."""
        values = {"current_decay": 1.0, "voltage_decay": 1.0, "threshold": 0.0}
        relay = plain(f"{population.name}.delayed", population.shape, "lif", values)
        self.populations.append(relay)
        self._connect(relay.name, signal, csr_array(eye_array(relay.size)))
        return relay
