"""Encoding of a network's inputs as spikes or graded messages, and recovery of trained integers."""

from __future__ import annotations

from collections.abc import Mapping
from math import floor, log2

import numpy as np

from snn_compile.compiler.lowering.retime import RetimedNetwork
from snn_compile.compiler.network import Float, Port, Weight, weight_values, with_values
from snn_compile.targets.chips.chip import Chip
from snn_compile.targets.chips.rounding import FLOAT_NOISE, TensorError, tensor_error
from snn_compile.targets.errors import WrongInput
from snn_compile.targets.program.program import InputPort

HOST_BITS = 15
"""Bits of a whole number that a host writes, without its sign: Lava's biases are 16-bit integers."""

HOST_MESSAGE_BITS = 23
"""Bits of the message that carries it: eight more, as many as an exponent can cut off."""

LARGEST = 1e100
"""Inputs beyond this, or all below its inverse, overflow where scales are computed."""


def check_range(calibration: Mapping[str, Float]) -> None:
    """Raise WrongInput if the inputs of a port are too large or too small for any scale."""
    for name, data in calibration.items():
        top = float(np.abs(data).max(initial=0.0))
        if top and not 1 / LARGEST <= top <= LARGEST:
            raise WrongInput(
                f"input {name!r}: calibration data have a largest value of {top:g}; scale them as the data "
                "that the network was trained on",
                largest=top,
            )


def input_port(
    name: str,
    shape: tuple[int, ...],
    retimed: RetimedNetwork,
    bits: int,
    calibration: Mapping[str, Float] | None,
    chip: Chip,
) -> InputPort:
    """Choose the encoding of an input: spikes if the data holds only 0 and 1, else graded messages.

    Weights that are integers already stay exact only if the scale is a power of two.
    """
    start = retimed.latency[name]
    port = next(p for p in retimed.network.inputs if p.name == name)
    if fixed := trained_input(port, start):
        return fixed
    if port.host_gain and chip.graded_messages:
        return host_input(port, chip, start)
    data = calibration[name] if calibration else np.zeros((1, 1, 1))
    if np.isin(data, (0.0, port.host_gain or 1.0)).all():
        return InputPort(name, shape, start_step=start)
    best = message_scale(data, bits)
    targets = [retimed.network.population(e.target) for e in retimed.network.projections if e.source == name]
    if any(p.fixed_scale is not None for p in targets):
        power = 2.0 ** np.floor(log2(((1 << bits) - 1) / float(np.abs(data).max())))
        best = min(power, 2.0 ** -chip.formats.weight_exponent[0])
    return InputPort(name, shape, "graded", best, bits, bool((data < 0).any()), start)


def trained_input(port: Port, start_step: int) -> InputPort | None:
    """Return the encoding of an input that was fixed in training, else None."""
    if port.fixed_scale is None:
        return None
    if not port.message_bits:
        return InputPort(port.name, port.shape, start_step=start_step)
    return InputPort(
        port.name, port.shape, "graded", port.fixed_scale, port.message_bits, port.signed, start_step
    )


def host_input(port: Port, chip: Chip, start_step: int) -> InputPort:
    """Return the encoding of an input that a host writes as whole numbers of up to `HOST_BITS` bits.

    A message has further bits, which the weight's exponent cuts off on the chip: what is not whole is
    floored, as by a host's cast to integers where the sum with the layer's bias is not below 0.
    """
    bits = min(HOST_MESSAGE_BITS, chip.message_bits_max)
    below = max(0, min(bits - HOST_BITS, -chip.formats.weight_exponent[0]))
    return InputPort(port.name, port.shape, "graded", port.host_gain * 2.0**below, bits, True, start_step)


def units_per_message(port: Port, made: InputPort) -> float:
    """Return the message units per unit of what the network receives."""
    return made.scale / (port.host_gain or 1.0)


def host_warning(port: Port, data: Float) -> list[str]:
    """Return a warning if data (as the network receives it) holds numbers that a host cannot write."""
    if not port.host_gain or not (parts := data != np.rint(data)).any():
        return []
    return [
        f"input {port.name!r}: {np.mean(parts):.1%} of the data are not whole numbers after the input "
        f"layer's weight of {port.host_gain:g}; the chip takes whole numbers, to which the program cuts them "
        "and the float network does not"
    ]


def message_scale(data: Float, bits: int) -> float:
    """Return the message units per unit of graded input.

    Of the two scales that fill the range, one that maps the largest value to the highest message and a power
    of two, the one with the smaller error is taken: images of k/16 are exact with the second, of k/255 with
    the first.
    """
    top, largest = (1 << bits) - 1, float(np.abs(data).max())
    values = np.unique(np.abs(data))
    scales = [top / largest, 2.0 ** floor(log2(top / largest))]
    error = [float(np.mean((np.rint(values * s) / s - values) ** 2)) for s in scales]
    return scales[1] if error[1] <= error[0] else scales[0]


def whole(weight: Weight) -> Weight:
    """Return weights rounded if all are integers up to float noise, else unchanged."""
    exact = weight_values(weight)
    rounded = np.rint(exact)
    near = np.max(np.abs(rounded - exact), initial=0.0) < FLOAT_NOISE
    return with_values(weight, rounded) if near else weight


def input_error(port: InputPort, unit: float, data: Float) -> TensorError:
    """Return the rounding error of data as graded messages, of which `unit` are a unit of the data."""
    low, high = port.limits
    exact = data.reshape(-1) * unit
    kept = np.clip(np.rint(exact), low, high)
    return tensor_error(port.name, f"{port.bits} bits graded, scale {port.scale:g}", exact, kept, 1.0)
