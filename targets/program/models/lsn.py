"""Liquid spiking neurons `lsn`, and the populations that send their states: `lsn_membrane`, `lsn_adaptation`.

theta_0, theta_step: base of the threshold, and its rise at an adaptation of 1, in membrane units. bias:
constant input, in membrane units. membrane_bias, adaptation_bias: constants of the two gates, in units of
their input. rates: the table of the rates, in 1/4096, over gate inputs in steps of 2**rate_shift, its middle
at 0.

A neuron sends one message per step, here the spike, while the gates also read the states of all neurons of
the layer. `lsn_membrane` is the same neurons once more, which send the membrane, v >> message_shift
(flooring), at every step from start_step on; `lsn_adaptation` follows their spikes and sends the adaptation,
b >> message_shift. A message of 0 is none.
"""

from __future__ import annotations

from snn_compile.targets.chips.formats import Formats
from snn_compile.targets.integer import M
from snn_compile.targets.program.models.model import (
    Model,
    Operations,
    Parameters,
    Register,
    register_model,
    share_of,
)

ADAPTATION_BITS = 16
"""Fraction bits of an adaptation, on chips with states of at least 18 bits."""


def adaptation_bits(formats: Formats) -> int:
    """Return the fraction bits of an adaptation, which is at most 1 and fits a state."""
    return min(ADAPTATION_BITS, formats.state_bits - 2)


def _operations(p: Parameters, one: int) -> Operations:
    adapts = share_of(p["theta_step"] != 0)
    # The membrane: input, gate, place in the table, both sums, comparison; the same of an adaptation.
    return 1 + 2 * adapts, 6 + 5 * adapts


def _adaptation_operations(p: Parameters, one: int) -> Operations:
    return 1.0, 4.0


_RATES = {"rate_shift": Register(shared=True), "rates": Register(table=True)}
_SENT = {"message_shift": Register(0, shared=True)}
_LIQUID = {
    "theta_0": Register(),
    "theta_step": Register(0),
    "bias": Register(0),
    "membrane_bias": Register(0),
    "adaptation_bias": Register(0),
    **_RATES,
}
_PORTS = ("a_in", "a_membrane", "a_adaptation")

register_model("lsn", Model(_LIQUID, ("v", "b", "fired"), _operations, ports=_PORTS))
register_model(
    "lsn_membrane",
    Model(
        {**_LIQUID, **_SENT},
        ("v", "b", "fired"),
        _operations,
        ports=_PORTS,
        largest=M - 1,
        graded=True,
        spiking=False,
    ),
)
register_model(
    "lsn_adaptation",
    Model(
        {"adaptation_bias": Register(0), **_RATES, **_SENT},
        ("b",),
        _adaptation_operations,
        membrane="b",
        ports=("a_in", "a_adaptation"),
        largest=1 << ADAPTATION_BITS,
        graded=True,
        spiking=False,
    ),
)
