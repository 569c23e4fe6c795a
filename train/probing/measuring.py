"""What a module answers to designed inputs: critical inputs, impulse responses, effects of a spike.

The critical input of a history is the smallest that makes a neuron spike. It is all that spikes tell of a
membrane: with `w` the membrane in units of the input, kept share k and threshold T, it is
T - bias - k w - (what the current still carries). It is found by halving, in every neuron and probe at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from snn_compile.targets.errors import ExportError
from snn_compile.train.probing.calling import Float, Runner, numpy_dtype

STRONG = 1.5
"""The strong input as a multiple of the critical one; below 2, so that one threshold is passed."""

DEEP = 64.0
"""The strong negative input, which shows a lower bound of the membrane."""

GROWTHS = 16
"""How often a bracket grows sixteenfold before a neuron counts as one that cannot spike."""


class Meter:
    """Critical inputs of one runner; inputs start at `start`, (neurons,)."""

    def __init__(self, runner: Runner, latency: int, start: Float | float = 1.0) -> None:
        self.runner, self.latency = runner, latency
        self.start = np.zeros(runner.size) + start
        self.type = numpy_dtype(runner.dtype)

    def rounded(self, x: Float) -> Float:
        """Return numbers as the module's type holds them."""
        held: Float = np.asarray(x, self.type).astype(np.float64)
        return held

    def fires(self, history: Float, x: Float) -> Float:
        """Return the output at the step where `x` (probes, neurons) after a history first acts."""
        tail = np.zeros((self.latency, *x.shape))
        output: Float = self.runner.run(np.concatenate([history, x[None], tail]))[-1]
        return output

    def bracket(self, *history: Float) -> tuple[Float, Float]:
        """Return the largest input without a spike and the smallest with, (probes, neurons).

        A history is one array (probes, neurons) per step. Neurons that no input brings to spike have inf.
        """
        probes = history[0].shape[0] if history else 1
        past = np.zeros((0, probes, self.runner.size))
        if history:
            past = np.stack([np.broadcast_to(h, past.shape[1:]) for h in history])
        high = np.zeros(past.shape[1:]) + self.start
        ever = self.fires(past, high) != 0
        for _ in range(GROWTHS):
            if ever.all():
                break
            high = np.where(ever, high, self.rounded(high * 16))
            ever |= self.fires(past, high) != 0
        low = np.zeros_like(high)
        for _ in range(GROWTHS):
            fires = self.fires(past, low) != 0
            if not fires.any():
                break
            low = np.where(fires, np.where(low == 0, -self.start, self.rounded(low * 16)), low)
        while True:
            middle = self.rounded(low + (high - low) / 2)
            done = (middle <= low) | (middle >= high)
            if done.all():
                break
            fires = self.fires(past, middle) != 0
            high, low = np.where(fires & ~done, middle, high), np.where(fires | done, low, middle)
        return np.where(ever, low, np.inf), np.where(ever, high, np.inf)

    def critical(self, *history: Float) -> Float:
        """Return the critical inputs after a history, (probes, neurons)."""
        return self.bracket(*history)[1]


@dataclass(frozen=True, eq=False)
class Reading:
    """What is measured of a spiking neuron, each (neurons,) in units of its input.

    `rest`: critical inputs after 0, 1, 2 and 3 steps without input; `response`: of the membrane 1, 2 and 3
    steps after an impulse, by that at the step where the impulse first acts. `after_strong` is the critical
    input one step after the input `strong` made it spike, `after_two` two steps after, with `quiet` between;
    `after_deep` that after the negative input `deep`. `several`: a strong input sends more than one spike.
    """

    latency: int
    fine: bool
    rest: Float
    response: Float
    strong: Float
    after_strong: Float
    quiet: Float
    after_two: Float
    deep: Float
    after_deep: Float
    amplitude: Float
    several: bool

    @property
    def noise(self) -> float:
        """Relative error of a measured number."""
        return noise_of(self.fine)

    @property
    def start(self) -> Float:
        """Return the critical input of a neuron at rest."""
        first: Float = self.rest[0]
        return first


def noise_of(fine: bool) -> float:
    """Return the relative error of what is measured in float64 (`fine`) or float32."""
    return 1e-11 if fine else 2e-6


def read_spiking(runner: Runner, name: str) -> Reading:
    """Measure a spiking neuron; raises ExportError where it cannot spike, or does without input."""
    latency, first = _latency(runner, name)
    if not (first > 0).all():
        neuron = int(np.argmin(first))
        raise ExportError(
            f"{name}: neuron {neuron} spikes without input (its critical input is {first[neuron]:g}); a "
            "neuron must be silent at rest to be identified",
            node=name,
            stateless=False,
        )
    meter = Meter(runner, latency, meter_start(first))
    zero, pulse = np.zeros_like(first), _pulse(meter, first)
    strong, deep = meter.rounded(STRONG * first), meter.rounded(-DEEP * first)
    one = meter.critical(np.stack([zero, pulse, pulse * (1 + 1e-10), strong, deep]))
    quiet = meter.rounded(np.where(np.isfinite(one[3]), one[3] - 0.5 * first, 0.0))
    two = meter.critical(np.stack([zero, pulse, strong]), np.stack([zero, zero, quiet]))
    three = meter.critical(np.stack([zero, pulse]), *[np.stack([zero, zero])] * 2)
    response = np.stack([one[0] - one[1], two[0] - two[1], three[0] - three[1]]) / pulse
    nothing = np.zeros((0, 2, runner.size))
    single, many = meter.fires(nothing, np.stack([1.4 * first, 5.5 * first]))
    return Reading(
        latency=latency,
        fine=meter.type == np.float64 and bool((one[2] != one[1]).any() or not response.any()),
        rest=np.stack([first, one[0], two[0], three[0]]),
        response=response,
        strong=strong,
        after_strong=one[3],
        quiet=quiet,
        after_two=two[2],
        deep=deep,
        after_deep=one[4],
        amplitude=single,
        several=bool((np.abs(many - single) > 1e-6 * np.abs(single)).any()),
    )


def meter_start(first: Float) -> Float:
    """Return a power of two near the critical inputs."""
    return np.asarray(2.0 ** np.ceil(np.log2(first)))


def _latency(runner: Runner, name: str) -> tuple[int, Float]:
    """Return the steps after which an input acts, and the critical inputs at rest."""
    for latency in (0, 1):
        found = Meter(runner, latency).critical()[0]
        if np.isfinite(found).all():
            return latency, found
    never = np.flatnonzero(~np.isfinite(found))
    raise ExportError(
        f"{name}: neuron {never[0]} never spikes, whatever it gets in one step ({len(never)} of "
        f"{found.size} neurons); what never spikes cannot be identified by its spikes",
        node=name,
        stateless=False,
    )


def _pulse(meter: Meter, first: Float) -> Float:
    """Return an impulse, (neurons,), that makes no neuron spike while its response is read."""
    for size in (0.5, 0.125, 1 / 64, -1 / 16):
        pulse = meter.rounded(first * size)
        steps = np.zeros((4, 1, first.size))
        steps[0] = pulse
        if not meter.runner.run(steps).any():
            break
    return pulse


def poles(response: Float, fine: bool) -> list[tuple[Float, Float]]:
    """Return the shares (membrane, current) that explain an impulse response, most likely first.

    The response of two leaks in series is 1, s, s^2 - p, ... with s the sum of the shares and p their
    product; spikes below threshold do not say which is the membrane's.
    """
    h1, h2 = response[0], response[1]
    tolerance = 100 * noise_of(fine)
    product = np.where(np.abs(h1**2 - h2) < tolerance, 0.0, h1**2 - h2)
    root = h1**2 - 4 * product
    root = np.sqrt(np.maximum(np.where(np.abs(root) < tolerance, 0.0, root), 0.0))
    if not product.any():
        return [(h1, np.zeros_like(h1))]
    large = np.where(product == 0, h1, (h1 + root) / 2)
    small = np.where(product == 0, 0.0, (h1 - root) / 2)
    return [(large, small), (small, large)]
