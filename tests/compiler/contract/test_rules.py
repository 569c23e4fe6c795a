"""Every rule of a step and every gain, against the equations written by hand (by_hand.py)."""

from __future__ import annotations

from math import exp

import nir
import numpy as np
import pytest
from support import by_hand

from snn_compile.compiler import lower
from snn_compile.compiler.contract.contract import Contract
from snn_compile.compiler.reference import run_reference
from snn_compile.targets.errors import CompileError
from snn_compile.targets.program.rule import CHOICES as RULE_CHOICES


def rules(count):
    """Random rules of a step, every word of every item among them."""
    rng, found = np.random.default_rng(5), []
    while len(found) < count:
        items = {key: str(rng.choice(words)) for key, words in RULE_CHOICES.items()}
        if items["reset_timing"] == "pending" and (items["reset"], items["spikes_per_step"]) != (
            "subtract",
            "one",
        ):
            continue
        found.append(items | {"v_min": [None, -0.125][rng.integers(2)]})
    assert all({items[key] for items in found} == set(words) for key, words in RULE_CHOICES.items())
    return found


@pytest.mark.parametrize("items", rules(40), ids=lambda items: "-".join(map(str, items.values())))
@pytest.mark.parametrize("kind", (nir.LIF, nir.CubaLIF, nir.IF))
def test_every_rule_of_a_step(rng, build, kind, items):
    """On multiples of 1/16 with thresholds of 1/4, so that membranes often lie exactly on a threshold."""
    contract = Contract(dt=0.5, **items)
    eighths = {"v_threshold": 0.25, "r": 1.0, "v_reset": 0.0}
    if kind is nir.LIF:
        cell = build.lif(4, tau=1.0, v_leak=0.25, **eighths)
    elif kind is nir.CubaLIF:
        cell = build.cuba(4, tau_syn=1.0, tau_mem=1.0, v_leak=0.25, w_in=2.0, **eighths)
    else:
        cell = nir.IF(np.full(4, 1.0), np.full(4, 0.25), np.zeros(4))
    graph = build.chain(4, cell, contract=contract)
    by_hand.agrees(graph, contract, {"input": rng.integers(-8, 13, (2, 25, 4)) / 8})


def test_several_spikes_a_step_with_a_reset_elsewhere_are_refused(build):
    graph = build.chain(3, build.lif(3, v_reset=0.25), spikes_per_step="floor")
    with pytest.raises(CompileError, match="'n0'.*0.25"):
        lower(graph)
    assert lower(graph, {"reset": "subtract"}).populations[0].spikes_per_step == "floor"


@pytest.mark.parametrize("items", rules(12), ids=lambda items: "-".join(map(str, items.values())))
def test_rules_of_spikes_say_nothing_of_integrators(build, rng, items):
    """A read-out without spikes beside neurons of any rule; only what concerns currents holds for it."""
    contract = Contract(dt=0.5, **items)
    layers = [build.linear(rng, 3, 3), build.lif(3), build.affine(rng, 2, 3), build.li(2)]
    graph = build.chain(3, *layers, contract=contract)
    by_hand.agrees(graph, contract, {"input": rng.normal(size=(2, 20, 3)) * 2})
    cuba = nir.CubaLI(*[np.full(3, x) for x in (2.0, 3.0, 1.5, 0.1)])
    by_hand.agrees(
        build.chain(3, cuba, contract=contract), contract, {"input": rng.normal(size=(2, 20, 3))}, 0
    )


def test_several_spikes_are_sent_as_a_number(build, rng):
    contract = Contract(dt=0.7, reset="subtract", spikes_per_step="floor", spike_amplitude=0.5)
    layers = [
        build.affine(rng, 5, 3, 3.0),
        by_hand.per_neuron(rng, nir.LIF, 5),
        build.linear(rng, 4, 5),
        build.cuba(4),
    ]
    graph = build.chain(3, *layers, contract=contract)
    by_hand.agrees(graph, contract, {"input": rng.normal(size=(2, 25, 3)) * 2}, 30)
    record = run_reference(lower(graph), rng.normal(size=(2, 25, 3)) * 4, record=["n1"])
    assert record.spikes("n1").max() > 1


@pytest.mark.parametrize("rule", ["euler", "exponential"])
def test_gains_that_exporters_mean(build, rule):
    """ "unit" adds the input as it is, "norm" multiplies it by the share lost, "decayed" decays it once."""
    lost = 0.125 if rule == "euler" else 1 - exp(-0.125)
    for kind, gain, wanted in [
        (build.lif(1, tau=4.0, r=7.0), "unit", 1.0),
        (build.lif(1, tau=4.0, r=7.0), "norm", lost),
        (build.lif(1, tau=4.0, r=7.0), "decayed", 1 - lost),
        (build.cuba(1, tau_syn=4.0, tau_mem=4.0, r=7.0, w_in=9.0), "unit", 7 * lost),
        (build.cuba(1, tau_syn=4.0, tau_mem=4.0, r=7.0, w_in=9.0), "norm", lost * lost),
        (build.cuba(1, tau_syn=4.0, tau_mem=4.0, r=7.0, w_in=9.0), "decayed", 1 - lost),
        (nir.IF(np.full(1, 7.0), np.ones(1)), "unit", 1.0),
    ]:
        graph = build.chain(1, kind, contract=Contract(dt=0.5, rule=rule, gain=gain))
        record = run_reference(lower(graph), np.full((1, 1, 1), 0.01), probes=["n0.v"])
        np.testing.assert_allclose(record.states("n0.v"), 0.01 * wanted, rtol=1e-12)
    with pytest.raises(CompileError, match="'n0'.*decayed.*as_written"):
        lower(build.chain(1, nir.IF(np.ones(1), np.ones(1)), gain="decayed"))
