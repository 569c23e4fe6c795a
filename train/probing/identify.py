"""A stateful torch module, identified as a neuron of the compiler's by driving it.

How it is called is found first (`styles.py`), then its response below threshold and what one spike leaves
(`measuring.py`); every rule that agrees with these is a candidate (`candidates.py`), and the one that
predicts the module's spikes on fresh random inputs is what the module is (`evidence.py`). All of it runs on
copies, as float64 where the module can be cast; the spikes of the test are those of the module's own type.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from snn_compile.targets.errors import ExportError
from snn_compile.targets.program.rule import Rule
from snn_compile.train.probing.calling import Float, Runner, Style, untouched_randomness
from snn_compile.train.probing.candidates import candidates
from snn_compile.train.probing.choosing import batch_for, closest
from snn_compile.train.probing.evidence import NEAR_SHARE, Difference, Evidence, Verdict, ask
from snn_compile.train.probing.integrators import integrators
from snn_compile.train.probing.measuring import noise_of, read_spiking
from snn_compile.train.probing.scaling import membrane_states, scaled, snapped
from snn_compile.train.probing.stepping import NeuronModel
from snn_compile.train.probing.styles import find_style, is_discrete, trial
from snn_compile.train.probing.ties import fires_at_threshold

STEPS = 50
"""Steps of one trial."""


@dataclass(frozen=True, eq=False)
class Identified:
    """What a module is: `model` is "lif", "if", "cuba", "li", "cuba_li" or "alif".

    `parameters` are per neuron, of the layer's shape, as `compiler/network.py` has them: decays are the
    share lost per step, `gain` multiplies the input, `amplitude` the spikes. `rule` follows
    `targets.program.rule`. `states` names the tensors that were seen to hold the membrane; where there is
    none, the membrane is in units of the input.
    """

    name: str
    model: str
    rule: Rule
    parameters: Mapping[str, Float]
    style: Style
    states: Sequence[str]
    evidence: Evidence
    neuron: NeuronModel

    def describe(self) -> str:
        """Return one line: what it is, how it was called, and how that was tested."""
        e = self.evidence
        kept = f"; the membrane is {', '.join(self.states)}" if self.states else ""
        compared = "values" if self.neuron.model == "li" else f"{e.spikes} spikes"
        return (
            f"{self.name}: {self.neuron.describe()}, called {self.style.describe()}{kept}; {compared} equal "
            f"over {e.steps} steps per neuron, {e.near_share:.2%} too close to threshold to tell"
        )


def identify(
    module: nn.Module, size: int | tuple[int, ...], name: str = "", call: str | None = None, seed: int = 0
) -> Identified:
    """Return the neuron that a stateful module is, for a layer of `size` (neurons or shape, no batch).

    `name` is what messages call it; `call` ("step", "state" or "sequence") admits one way of calling.
    Raises ExportError for a module that is no neuron of the compiler's, with the input that shows it and the
    closest neuron. The module and all random states are left as they were.
    """
    shape = (size,) if isinstance(size, int) else tuple(int(n) for n in size)
    name = name or type(module).__name__
    with untouched_randomness(), torch.no_grad():
        return _identify(module, shape, name, call, seed)


def _identify(
    module: nn.Module, shape: tuple[int, ...], name: str, call: str | None, seed: int
) -> Identified:
    style = find_style(module, shape, name, call)
    own = Runner(module, shape, style)
    precise = _in_float64(module, shape, own)
    if is_discrete(own.run(trial(own.size, module))):
        reading = read_spiking(precise, name)
        fine, critical = reading.fine, reading.start
        found = candidates(reading)
    else:
        fine = precise.dtype == torch.float64
        found, critical = integrators(precise, name, fine), np.ones(own.size)
    best, verdict = closest(found, own, critical, seed)
    if verdict.difference is not None:
        raise _refused(name, best, verdict)
    states: dict[str, tuple[Float, Float]] = {}
    if best.model != "li":
        states = membrane_states(best, precise, critical, noise_of(fine))
        for factor, offset in list(states.values())[:1]:
            best = scaled(best, factor, offset)
    neat = snapped(best, module, shape, fine)
    if best.model != "li" and fires_at_threshold(neat, module, own, critical, tuple(states)):
        best, neat = (_inclusive(neuron) for neuron in (best, neat))
    best, evidence = _proven(best, neat, own, critical, name, seed)
    numbers = {k: v.reshape(shape) for k, v in best.parameters.items()}
    return Identified(name, _word(best), best.rule, numbers, style, tuple(states), evidence, best)


def _in_float64(module: nn.Module, shape: tuple[int, ...], own: Runner) -> Runner:
    """Return a runner of the module in float64, or its own where it cannot be cast."""
    if own.dtype == torch.float64:
        return own
    x = np.random.default_rng(3).uniform(-0.5, 2.0, (6, 8, own.size)).astype(np.float32).astype(np.float64)
    try:
        cast = Runner(module, shape, own.style, torch.float64)
        answer = cast.run(x)
    except Exception:  # a module with its types written out is measured as it is
        return own
    before = own.run(x)
    alike = np.isclose(answer, before, rtol=1e-3, atol=1e-3).mean()
    return cast if answer.shape == before.shape and alike > 0.98 else own


def _proven(
    neuron: NeuronModel, neat: NeuronModel, runner: Runner, critical: Float, name: str, seed: int
) -> tuple[NeuronModel, Evidence]:
    """Return the neuron and its evidence of the long test, with neat numbers where these pass too."""
    for tried in (neat, neuron):
        verdict = ask(tried, runner, critical, STEPS, batch_for(runner.size, STEPS, 204), seed + 2)
        if verdict.difference is None:
            break
    if verdict.difference is not None:
        raise _refused(name, tried, verdict)
    if verdict.evidence.near_share > NEAR_SHARE:
        raise ExportError(
            f"{name}: {verdict.evidence.near_share:.2%} of its steps are within 1e-5 of the threshold, and "
            f"at most {NEAR_SHARE:.1%} may be; the closest is {tried.describe()}",
            node=name,
            stateless=False,
        )
    return tried, verdict.evidence


def _refused(name: str, closest: NeuronModel, verdict: Verdict) -> ExportError:
    difference: Difference | None = verdict.difference
    assert difference is not None
    return ExportError(
        f"{name}: is no neuron of the compiler's: {difference.describe(closest)}; the closest is "
        f"{closest.describe()}, which agrees on {verdict.agreement:.2%} of {verdict.evidence.steps} steps",
        node=name,
        difference=difference,
        closest=closest,
        stateless=False,
    )


def _inclusive(neuron: NeuronModel) -> NeuronModel:
    """Return the neuron that spikes at its threshold; an adaptive one compares with the float below."""
    if neuron.model == "alif":
        return neuron.with_parameters(threshold=np.nextafter(neuron["threshold"], -np.inf))
    return replace(neuron, rule=replace(neuron.rule, comparison=">="))


def _word(neuron: NeuronModel) -> str:
    """Return the model's name: "if" without a leak, "cuba" with a current."""
    current = bool((neuron["current_decay"] < 1).any()) or neuron.latency > 0
    if neuron.model == "li":
        return "cuba_li" if current else "li"
    if neuron.model == "alif":
        return "alif"
    return "cuba" if current else ("lif" if neuron["voltage_decay"].any() else "if")
