"""Rate-coded conversion: a ReLU network becomes integrate-and-fire neurons.

A layer's activation a is carried by the rate of a neuron that fires at most once per step: over n steps it
sends about n a / lambda spikes, each of which stands for lambda, the layer's (or channel's) range. Membranes
are in units of activations, thresholds are the ranges, and the equations those of `network.py` with no leak
and a reset by subtraction,

    v += sum over sources of w lambda_source s + b,   s = v > lambda,   v -= lambda s

Dividing by lambda instead, for thresholds of 1, would let the channel with the least range set the step that
all weights of a table are rounded to. v starts at lambda / 2, so that a constant input is rounded to the
nearest number of spikes instead of down (Bu et al., ICLR 2022). The input is shown at every step as a graded
message, biases are currents of every step, and the output is a membrane that only integrates and is read at
the last step: it holds the sum of n scores.

The range decides what is lost: activations above it are clipped, below it n steps tell n + 1 values apart.
`balance` "percentile" takes a percentile of the activations on calibration data (Rueckauer et al., Front.
Neurosci. 2017); "error" the range with the least mean square error of clipping and rounding to n + 1 values.
What remains, chiefly spikes that came too early to be taken back, has a mean over the samples: `correct`
measures it layer by layer on calibration data and takes it off the biases (Deng & Gu, ICLR 2021; Li et al.,
ICML 2021).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array, diags_array

from snn_compile.compiler.contract.contract import Contract, Readout
from snn_compile.compiler.network import Float, Network, Population, Port, Projection
from snn_compile.compiler.onnx.relu_network import Affine, RectifierNetwork, Rectifiers
from snn_compile.compiler.reference import run_float
from snn_compile.targets.errors import CompileError

STEPS = 64
BALANCES = ("error", "percentile")
PER = ("layer", "channel")
CANDIDATES = np.geomspace(0.05, 1.0, 60)
"""Ranges that are tried, as fractions of the largest activation."""

SAMPLED = 1 << 18
"""Activations of a layer or channel on which ranges are compared."""

OUTPUT = "scores"
CALIBRATION_SAMPLES = 512
"""Most samples on which ranges are chosen."""

TRACE_BYTES = 256 << 20
"""Of the traces of all neurons, which bounds the samples that biases and scales are chosen on."""


@dataclass(frozen=True)
class ConversionOptions:
    """Settings of the conversion; see the file's docstring.

    `steps`: steps for which an input is shown. `percentile` (0 to 100) is that of balance "percentile".
    `per`: one range per "layer" or "channel". `correct`: rounds of bias correction, 0 for none.
    """

    steps: int = STEPS
    balance: str = "error"
    percentile: float = 99.9
    per: str = "channel"
    correct: int = 1

    def __post_init__(self) -> None:
        for item, words in (("balance", BALANCES), ("per", PER)):
            if getattr(self, item) not in words:
                raise CompileError(f"{item} {getattr(self, item)!r}; use one of {', '.join(words)}")
        if self.steps < 1 or not 0 < self.percentile <= 100 or self.correct < 0:
            raise CompileError(
                f"{self.steps} steps, percentile {self.percentile:g}, {self.correct} rounds of correction: "
                "at least 1 step, a percentile above 0 and up to 100, and 0 rounds or more are possible"
            )


def conversion_options(steps: int | str | None, balance: str | None) -> ConversionOptions:
    """Return the options that the command line states: steps (or "auto"), and "error" or a percentile."""
    count = STEPS if steps is None or isinstance(steps, str) else steps
    if balance in (None, "error"):
        return ConversionOptions(count)
    try:
        return ConversionOptions(count, "percentile", float(str(balance)))
    except ValueError:
        raise CompileError(f"--balance {balance}: use error, or a percentile such as 99.9") from None


@dataclass(frozen=True, eq=False)
class Conversion:
    """The spiking network, the range of every layer's rates (by neuron), and its settings.

    `clipped`: fraction of each layer's activations above its range on the calibration data. `calibration`:
    the samples (batch, *shape) that traces of all neurons and steps are taken of, fewer than were given
    where those would not fit into memory.
    """

    network: Network
    source: RectifierNetwork
    options: ConversionOptions
    ranges: Mapping[str, Float]
    clipped: Mapping[str, float]
    calibration: Float

    def shown_calibration(self) -> Float:
        """Return `calibration` as the spiking network sees it, (batch, steps, *shape)."""
        return shown(self.calibration, self.options.steps)


def shown(inputs: npt.ArrayLike, steps: int) -> Float:
    """Return inputs (batch, *shape) as (batch, steps, *shape), a view that repeats them."""
    data = np.asarray(inputs, np.float64)[:, None]
    view: Float = np.broadcast_to(data, (data.shape[0], steps, *data.shape[2:]))
    return view


def convert(
    network: RectifierNetwork, calibration: npt.ArrayLike, options: ConversionOptions | None = None
) -> Conversion:
    """Return the spiking network for calibration inputs (batch, *shape); see the file's docstring.

    Raises WrongInput for data that do not fit the model.
    """
    options = options or ConversionOptions()
    data = np.asarray(calibration, np.float64)[:CALIBRATION_SAMPLES]
    sent = network.activations(data)
    ranges = {layer.name: _range(layer, sent[layer.name], options) for layer in network.layers}
    clipped = {layer.name: float(np.mean(sent[layer.name] > ranges[layer.name])) for layer in network.layers}
    spiking = _network(network, ranges, {})
    per_sample = 8 * options.steps * sum(p.size for p in spiking.populations)
    traced = data[: max(1, TRACE_BYTES // per_sample)]
    if options.correct:
        spiking = _corrected(
            network, ranges, spiking, {k: v[: len(traced)] for k, v in sent.items()}, options
        )
    return Conversion(spiking, network, options, ranges, clipped, traced)


def _range(layer: Rectifiers, values: Float, options: ConversionOptions) -> Float:
    """Return the range of every neuron of a layer, (size,), from its activations (batch, size)."""
    size = values.shape[1]
    groups = layer.shape[0] if options.per == "channel" and len(layer.shape) > 1 else 1
    found = np.empty((groups, size // groups))
    whole = float(values.max()) or 1.0
    for group, part in enumerate(values.reshape(len(values), groups, -1).transpose(1, 0, 2)):
        flat = part.reshape(-1)
        if options.balance == "percentile":
            best = float(np.percentile(flat, options.percentile))
        else:
            best = _least_error(flat, options.steps, layer.ceiling)
        # A channel that is silent on the calibration data has the layer's range.
        found[group] = min(best or float(flat.max()) or whole, layer.ceiling)
    return found.reshape(-1)


def _least_error(values: Float, steps: int, ceiling: float) -> float:
    """Return the range with the least mean square error of values clipped and rounded to steps + 1 values."""
    largest = float(values.max())
    if largest <= 0:
        return 0.0
    sample = values[:: max(1, values.size // SAMPLED)]
    candidates = largest * CANDIDATES
    if isfinite(ceiling):
        candidates = np.append(candidates[candidates < ceiling], ceiling)

    def error(top: float) -> float:
        kept = np.minimum(np.rint(sample * (steps / top)), steps) * (top / steps)
        return float(np.mean((kept - sample) ** 2))

    return float(min(candidates, key=error))


def _network(source: RectifierNetwork, ranges: Mapping[str, Float], offsets: Mapping[str, Float]) -> Network:
    """Return the spiking network; `offsets` are added to the biases, in units of the activations."""
    populations, projections = [], []
    for layer in source.layers:
        bias = layer.value.bias + offsets.get(layer.name, 0.0)
        populations.append(_population(layer.name, layer.shape, bias, ranges[layer.name]))
        projections += _projections(layer.name, layer.value, ranges)
    output, name = source.output, OUTPUT
    while name in ranges or name == source.input_name:
        name += ".membrane"
    shape = output.shape[1:] or (1,)
    populations.append(_population(name, shape, output.bias))
    projections += _projections(name, output, ranges)
    readout = Readout("membrane", "last", "classify")
    contract = Contract(1.0, "step", reset="subtract", readouts={"output": readout})
    how = "rate-coded conversion of an ONNX model"
    return Network(
        tuple(populations),
        tuple(projections),
        (Port(source.input_name, source.input_shape),),
        (Port("output", shape, name, readout),),
        contract,
        {item: how for item in ("dt", "reset", "reset_timing", "comparison", "readouts")},
        source.digest,
    )


def _population(name: str, shape: Sequence[int], bias: Float, threshold: Float | None = None) -> Population:
    """Return neurons that fire at a threshold, or without one integrators."""
    one, zero = np.ones(1), np.zeros(1)
    parameters = {
        "current_decay": one,
        "voltage_decay": zero,
        "bias": bias,
        "input_bias": zero,
        "v_init": zero,
        "offset": zero,
    }
    if threshold is None:
        return Population(name, tuple(shape), "li", parameters)
    parameters |= {"threshold": threshold, "v_init": threshold / 2}
    return Population(name, tuple(shape), "lif", parameters, reset="subtract")


def _projections(name: str, value: Affine, ranges: Mapping[str, Float]) -> list[Projection]:
    """Return the projections into a population; a spike of a layer stands for its range."""
    return [
        Projection(
            f"{sender}/{name}",
            sender,
            name,
            csr_array(weight @ diags_array(ranges[sender])) if sender in ranges else weight,
        )
        for sender, weight in value.terms.items()
    ]


def _corrected(
    source: RectifierNetwork,
    ranges: Mapping[str, Float],
    spiking: Network,
    sent: Mapping[str, Float],
    options: ConversionOptions,
) -> Network:
    """Return the network with the mean error of every layer's rates subtracted from its biases."""
    inputs = {source.input_name: shown(sent[source.input_name], options.steps)}
    offsets: dict[str, Float] = {}
    for _ in range(options.correct):
        for layer in source.layers:
            run = run_float(spiking, inputs, [layer.name])
            rate = run.messages[layer.name].mean(axis=1) * ranges[layer.name]
            ideal = np.minimum(sent[layer.name], ranges[layer.name])
            channels = layer.shape[0] if len(layer.shape) > 1 else layer.value.size
            error = (ideal - rate).mean(axis=0).reshape(channels, -1).mean(axis=1, keepdims=True)
            spread = np.repeat(error, layer.value.size // channels, axis=1).reshape(-1)
            offsets[layer.name] = offsets.get(layer.name, 0.0) + spread
            spiking = _network(source, ranges, offsets)
    return spiking
