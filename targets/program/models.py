"""The neuron models of a program: one table of what each holds, hears and sends.

A model's step is defined by its class in a `oracle/*.py` (the oracle's), compiled in
`loihi2_sim/neuron_kernels.py` and built for Lava in `lava/lif.py` or `lava/stock.py`. To add one: an entry
here, a class, a kernel with its entry in `loihi2_sim/layout.py`, and a Lava process.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from snn_compile.targets.integer import M

DAMPING_BITS, DAMPING_EXPONENT_MAX = 16, 31
"""Of `brf`: bits of the share that the smooth reset takes off the cosine, and its largest right shift."""


@dataclass(frozen=True)
class Register:
    """An integer parameter; None: it must be given. `shared`: one value for all neurons, as in Lava."""

    default: int | None = None
    shared: bool = False


@dataclass(frozen=True)
class Model:
    """What a neuron model holds and sends.

    `states`: what can be probed. `membrane`: the state that an output port of signal "membrane" reads,
    "" if the model has none. `ports`: its input ports by name, in the order of `Projection.port`.
    `largest`: the largest magnitude of a message, before a right shift by state_exp if the model has it.
    `graded`: messages carry a number or a sign. `ruled`: the step follows the population's rule
    (`rule.py`); other models have one meaning. `programmable`: only chips with programmable neurons hold
    it.
    """

    registers: Mapping[str, Register]
    states: tuple[str, ...]
    membrane: str = "v"
    ports: tuple[str, ...] = ("a_in",)
    largest: int = 1
    graded: bool = False
    ruled: bool = False
    programmable: bool = True


_BIAS = {"bias_mant": Register(0), "bias_exp": Register(0)}
_LEAKS = {"du": Register(), "dv": Register()}
_SHARED, _EXPONENT = Register(shared=True), Register(0, shared=True)

_RESONATOR = Model(
    {
        "cos_decay": Register(),
        "sin_decay": Register(),
        "vth": _SHARED,
        "decay_bits": Register(12, shared=True),
        "state_exp": Register(6, shared=True),
    },
    ("real", "imag"),
    membrane="real",
    ports=("a_real_in", "a_imag_in"),
)
_DELTA = {"vth": _SHARED, "spike_exp": _EXPONENT, "state_exp": _EXPONENT, "cum_error": _EXPONENT}
_RELAY = Model({"vth": _EXPONENT}, ("v",), membrane="", largest=(1 << 31) - 1, graded=True)

MODELS: dict[str, Model] = {
    "lif": Model(
        {**_LEAKS, "vth": Register(), **_BIAS, "v_init": Register(0), "v_min": Register(-(M - 1))},
        ("u", "v"),
        ruled=True,
        programmable=False,
    ),
    "li": Model(
        {**_LEAKS, **_BIAS, "v_init": Register(0), "message_shift": Register(0)},
        ("u", "v"),
        graded=True,
        ruled=True,
        programmable=False,
    ),
    "ternary": Model(
        {**_LEAKS, "vth_hi": _SHARED, "vth_lo": _SHARED, **_BIAS, "v_init": Register(0)},
        ("u", "v"),
        graded=True,
        programmable=False,
    ),
    "rf": _RESONATOR,
    "rf_iz": _RESONATOR,
    "atrlif": Model(
        {
            "delta_i": Register(),
            "delta_v": Register(),
            "delta_theta": Register(),
            "delta_r": Register(),
            "theta_0": Register(),
            "theta_step": _SHARED,
            **_BIAS,
            "v_init": Register(0),
        },
        ("i", "v", "theta", "r"),
    ),
    "brf": Model(
        {
            "cos_decay": Register(),
            "sin_decay": Register(),
            "vth": Register(),
            "r_step": Register(0),
            "delta_r": Register(0),
            "refractory": Register(1),
            "damping": Register(0),
            "damping_exp": Register(0),
        },
        ("real", "imag", "r"),
        membrane="real",
    ),
    "alif": Model(
        {
            "delta_v": Register(),
            "delta_theta": Register(),
            "theta_0": Register(),
            "theta_step": Register(0),
            "reset_exp": Register(0),
        },
        ("v", "theta"),
    ),
    "sigma_delta": Model(
        {**_DELTA, "bias": Register(0), "relu": Register(1, shared=True)},
        ("sigma", "act", "residue", "error"),
        membrane="act",
        largest=1 << 31,
        graded=True,
    ),
    "delta": Model(_DELTA, ("act", "residue", "error"), membrane="act", largest=1 << 31, graded=True),
    "sigma": Model({}, ("sigma",), membrane="sigma", largest=1 << 31, graded=True),
    "graded": _RELAY,
    "graded_relu": _RELAY,
}
"""Neuron models and their integer registers, by the names of Lava's wherever it has them.

`lif`, `li`, `ternary`. du: current decay, (du + 1)/4096 of u is lost a step. dv: voltage decay, dv/4096;
4096 forgets v at every step. vth: threshold in units of 64. bias_mant, bias_exp: bias = mant * 2**exp in
membrane units. v_init: membrane at start_step. v_min: v is clipped from below to it, after the reset.
`li` is a leaky integrator that never spikes; to those it projects to it sends its membrane,
v >> message_shift (flooring), at every step from start_step on. A message of 0 is none. `ternary` steps
like Lava's TernaryLIF: it sends 1 above vth_hi, -1 below vth_lo, and is then set to 0.

`rf`, `rf_iz` (Lava's RF and RF_IZ; inputs real and imaginary). cos_decay, sin_decay: how a step turns and
shrinks the state, in 2**-decay_bits. Inputs and vth are shifted left by state_exp.

`atrlif` (Lava's ATRLIF, adaptive threshold and refractoriness). delta_*: shares lost a step, in 1/4096;
of the current (delta_i + 1)/4096 are. theta_0, theta_step: base and rise of the threshold, in membrane
units: 64 times Lava's.

`brf`, balanced resonators, and `alif`, adaptive leaky neurons: ours, with registers of every neuron's own.
cos_decay, sin_decay: as of `rf`, in 1/4096. vth: threshold in units of 64. r_step: what a spike adds to r, in
membrane units; delta_r: the share of r lost a step, in 1/4096; refractory: r lifts the threshold. damping,
damping_exp: r damping 2**-damping_exp is what the smooth reset takes off the cosine, in 2**-16. delta_v,
delta_theta: shares lost a step, in 1/4096. theta_0, theta_step: base and rise of the threshold, in membrane
units; reset_exp: a spike takes 2**reset_exp thresholds off v.

`sigma_delta`, `delta`, `sigma` (Lava's SigmaDelta, Delta, Sigma). vth and bias are shifted left by
spike_exp + state_exp, messages right by state_exp. relu: the activation is cut at 0; cum_error: the
threshold is on the summed error.

`graded`, `graded_relu` (Lava's GradedVec, GradedReluVec): send their input where it is larger than vth.
"""
