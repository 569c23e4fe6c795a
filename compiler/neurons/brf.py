"""Balanced resonators (`brf`): float step, and rounding to the registers of a chip.

With synaptic input x, one step is

    c    = cosine - damping q
    u, v = c u - sine v + x, sine u + c v
    z    = u > threshold + rise q
    q    = (1 - recovery) q + z

where the first three lines use q of the step before. The matrix of u and v at q = 0 rotates by phi and
shrinks by the factor 1 - a, with (1 - a) e^(i phi) = cosine + i sine. On the chip this number becomes a point
of a grid, of 1 / 4096 with 12-bit decays: the nearest one in the complex plane, where errors of ln (1 - a)
and of phi, which add up over the steps, weigh the same, among those of a radius of at most 1. So a resonator
within the divergence boundary stays within it. Source: Higuchi et al. 2024, 2025.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import floor, log2

import numpy as np
import numpy.typing as npt

from snn_compile.compiler.neurons.arithmetic import Float
from snn_compile.compiler.neurons.base import Group, Integers, NeuronModel, Neurons, Peak, Poles
from snn_compile.targets.chips.chip import Chip
from snn_compile.targets.chips.formats import Formats
from snn_compile.targets.chips.rounding import TensorError, tensor_error
from snn_compile.targets.errors import PrecisionLost
from snn_compile.targets.program.models.brf import DAMPING_BITS, DAMPING_EXPONENT_MAX
from snn_compile.targets.program.population import Population as IntegerPopulation

Int = npt.NDArray[np.int64]
Complex = npt.NDArray[np.complex128]

FILTERS = 4
"""Resonators that stand for all of a population as filters of its input."""

TOLERANCE = 1 + 1e-9
"""Radius up to which a resonator lies within the divergence boundary, rounding errors included."""

CHANGE_REPORTED = 0.1
"""A damping that rounding changes by a larger share is reported."""


class ResonatorGroup(Group):
    """The state of balanced resonators over a batch: `v` the real part, `imag` the imaginary one, and `r`.

    `r` is q in units of the membrane: what a spike adds to it is `rise`, or 1 where a spike does not raise
    the threshold (`refractory` is 0 there). `limit` is the threshold that `v` is compared with.
    """

    @staticmethod
    def tensors(population: Neurons) -> Mapping[str, Float]:
        """Return the tensors of a step; `damping` is what one unit of r takes off the cosine."""
        p = population.parameters
        rise = _unit(p["rise"])
        return {
            "cosine": p["cosine"],
            "sine": p["sine"],
            "threshold": p["threshold"],
            "damping": p["damping"] / rise,
            "rise": rise,
            "refractory": (p["rise"] > 0).astype(np.float64),
            "recovery": p["recovery"],
        }

    def begin(self) -> None:
        """States start at 0; thresholds are in units of a state."""
        a, values = self.arithmetic, self.values
        self.cosine, self.sine = a.coefficient(values["cosine"]), a.coefficient(values["sine"])
        self.most = np.maximum(2 * self.cosine, 0)
        self.threshold, self.keep_r = values["threshold"] * a.unit, a.kept(values["recovery"])
        self.imag = self.r = self.limit = self.v

    def step(self, x: Float) -> Float:
        """Advance by one logical step with synaptic input x; return the spikes."""
        a, values = self.arithmetic, self.values
        cosine = self.cosine - a.damped(a.floored(values["damping"] * self.r), self.most)
        real = cosine * self.v - self.sine * self.imag
        imag = self.sine * self.v + cosine * self.imag
        self.v = self.reached = a.saturated(a.product(real) + self.receive(x))
        self.imag = a.saturated(a.product(imag))
        self.limit = self.threshold + values["refractory"] * self.r
        fires: Float = (self.v > self.limit).astype(np.float64)
        self.r = a.saturated(a.decayed(self.r, self.keep_r) + values["rise"] * fires)
        self.watch(self.u, (self.v, self.imag, self.r))
        return fires


def _unit(rise: Float) -> Float:
    """Return what a spike adds to r, which holds q, in units of the membrane."""
    return np.where(rise > 0, rise, 1.0)


def polar_registers(cosine: Float, sine: Float, one: int) -> tuple[Int, Int]:
    """Return cos_decay and sin_decay in units of 1 / `one`, of a radius of at most 1.

    The candidates are the nearest point and its neighbours; at least one lies inside, because the exact one
    does. A radius above 1, beyond the divergence boundary, is rounded to the nearest point of the grid.
    """
    exact = (np.asarray(cosine, np.float64) + 1j * np.asarray(sine, np.float64)) * one
    exact = np.atleast_1d(exact)
    near = np.rint(exact.real) + 1j * np.rint(exact.imag)
    steps = np.array([a + 1j * b for a in (0, -1, 1) for b in (0, -1, 1)])
    tried = near[:, None] + steps
    inside = (tried.real**2 + tried.imag**2 <= one**2) | (np.abs(exact) > one * TOLERANCE)[:, None]
    best = np.where(inside, np.abs(tried - exact[:, None]), np.inf).argmin(axis=1)
    kept = tried[np.arange(len(exact)), best]
    cos, sin = (np.clip(part, -one, one).astype(np.int64) for part in (kept.real, kept.imag))
    return cos, sin


def coefficients(p: Neurons, formats: Formats) -> tuple[Float, Float]:
    """Return the cosine and sine of every neuron; raises PrecisionLost where a register cannot hold one."""
    cosine, sine = (np.broadcast_to(p.parameters[key], (p.size,)) for key in ("cosine", "sine"))
    for key, values in (("cosine", cosine), ("sine", sine)):
        worst = int(np.abs(values).argmax())
        if abs(values[worst]) > 1 + 0.5 / formats.decay_one:
            raise PrecisionLost(
                f"population {p.name!r}: a step of neuron {worst} multiplies by a {key} of "
                f"{values[worst]:.6g}; the chip's is from -1 to 1: use a smaller step, or train for it",
                population=p.name,
                index=worst,
            )
    return cosine, sine


def resonator_integers(p: Neurons, scale: float, latency: int, chip: Chip) -> Integers:
    """Round a population to registers, at a scale and with start step `latency`.

    Raises PrecisionLost for a cosine or sine beyond 1.
    """
    values, formats = p.parameters, chip.formats
    unit, one = scale * formats.threshold_unit, formats.decay_one
    cosine, sine = coefficients(p, formats)
    cos, sin = polar_registers(cosine, sine, one)
    exact_threshold = values["threshold"] * scale
    parameters = {
        "cos_decay": cos,
        "sin_decay": sin,
        "vth": np.rint(exact_threshold).astype(np.int64),
        "r_step": np.rint(_unit(values["rise"]) * unit).astype(np.int64),
        "refractory": (values["rise"] > 0).astype(np.int64),
        "delta_r": np.rint(values["recovery"] * one).astype(np.int64),
    }
    # In units of 2**-DAMPING_BITS, per unit of r.
    share = values["damping"] * (1 << DAMPING_BITS) / parameters["r_step"]
    most = float(share.max())
    fits = floor(log2((formats.decay_max + 0.5) / most)) if most else 0
    exponent = min(max(fits, 0), DAMPING_EXPONENT_MAX)
    mantissa = np.rint(share * 2.0**exponent)
    parameters |= {"damping": mantissa.astype(np.int64), "damping_exp": np.array([exponent])}
    rotation: Complex = cosine + 1j * sine
    kept: Complex = np.asarray((cos + 1j * sin) / one, np.complex128)
    bits = f"{formats.decay_bits} bits"
    errors = [
        *polar_errors(p.name, rotation, kept, formats),
        rounded(f"{p.name}.threshold", f"{formats.threshold_bits} bits", exact_threshold, parameters["vth"]),
        rounded(f"{p.name}.recovery", bits, values["recovery"] * one, parameters["delta_r"]),
        rounded(f"{p.name}.damping", f"{bits}, exponent -{exponent}", share * 2.0**exponent, mantissa),
    ]
    made = IntegerPopulation(p.name, p.shape, "brf", parameters, start_step=latency, scale=unit)
    return made, errors, boundary_warnings(p, rotation, kept, formats)


def polar_errors(name: str, exact: Complex, kept: Complex, formats: Formats) -> list[TensorError]:
    """Return the errors of damping and angle, where a step multiplies by `kept` instead of `exact`."""
    one, text = formats.decay_one, f"polar, {formats.decay_bits} bits"
    return [
        tensor_error(f"{name}.{key}", text, part(exact) * one, part(kept) * one, 1.0, 0)
        for key, part in (("decay", _loss), ("angle", np.angle))
    ]


def rounded(name: str, text: str, exact: Float, kept: Int | Float) -> TensorError:
    """Return the error of a register that is `exact` rounded to a whole number."""
    return tensor_error(name, text, exact, np.asarray(kept, np.float64), 1.0)


def _loss(factor: Complex) -> Float:
    """Return the share of the state that a step takes off: a of 1 - a."""
    return 1 - np.abs(factor)


def boundary_warnings(p: Neurons, exact: Complex, kept: Complex, formats: Formats) -> list[str]:
    """Return warnings of resonators beyond the divergence boundary, and of dampings that rounding changes."""
    one = formats.decay_one
    exact, kept = (np.broadcast_to(values, (p.size,)) for values in (exact, kept))
    was, became = _loss(exact), _loss(kept)
    found = []
    remedy = "train with the boundary, or with a smaller step" if p.model == "brf" else "use a smaller step"
    if (grows := np.abs(exact) > TOLERANCE).any():
        found.append(
            f"population {p.name!r}: {int(np.count_nonzero(grows))} resonator(s) lie beyond the divergence "
            f"boundary (a step without input multiplies the state by up to {np.abs(exact).max():.6g}), so "
            f"states that calibration did not show saturate; {remedy}"
        )
    change = np.where(grows, 0.0, np.abs(became - was) / np.maximum(was, 0.5 / one))
    if not (reported := change > CHANGE_REPORTED).any():
        return found
    return [
        *found,
        f"population {p.name!r}: {formats.decay_bits} bits change the damping of "
        f"{int(np.count_nonzero(reported))} resonator(s) by more than {CHANGE_REPORTED:.0%}, by up to "
        f"{change.max():.0%} (a step takes {was[change.argmax()] * one:.3g}/{one} off the state, and on the "
        f"chip {became[change.argmax()] * one:.3g}/{one})",
    ]


def resonator_bound(p: Neurons, drive: Float, formats: Formats) -> Peak:
    """Return the largest states under an input of at most `drive` (size,) at every step."""
    top, one = float("inf"), formats.decay_one
    cosine, sine = np.broadcast_arrays(p.parameters["cosine"], p.parameters["sine"])
    if (np.hypot(cosine, sine) <= 1).all():
        cos, sin = polar_registers(cosine, sine, one)
        lost = np.minimum(1 - np.hypot(cosine, sine), 1 - np.hypot(cos, sin) / one)
        with np.errstate(divide="ignore", invalid="ignore"):
            top = float(np.where(drive > 0, drive / np.maximum(lost, 0.0), 0.0).max())
    return Peak(float(drive.max()), top, top)


def resonator_poles(p: Neurons) -> list[Poles]:
    """Return the poles of a few resonators, from the slowest to the fastest."""
    factor = np.atleast_1d(p.parameters["cosine"] + 1j * p.parameters["sine"])
    order = np.argsort(np.angle(factor))
    places = np.unique(np.linspace(0, len(factor) - 1, FILTERS).round().astype(int))
    return [(complex(factor[order[i]]),) for i in places]


MODELS = (
    NeuronModel(
        "brf",
        ("cosine", "sine", "threshold", "damping", "rise", "recovery", "input_bias", "offset"),
        ResonatorGroup,
        resonator_integers,
        resonator_bound,
        resonator_poles,
        decays=("recovery",),
    ),
)
