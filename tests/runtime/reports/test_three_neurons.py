"""Every cost table on a program of three neurons whose counts are written out, against numbers by hand."""

from __future__ import annotations

import numpy as np
import pytest

from snn_compile.runtime.execution.run import simulate
from snn_compile.runtime.reports.energy import Energy, energy
from snn_compile.runtime.reports.neurobench import NeuroBench, neurobench
from snn_compile.targets.devices.counts import Counts
from snn_compile.targets.program.program import Program

MEMORY = 13.2 + 1.09e-5 * 65536
"""Picojoules of an access to 8 kB by the line of Lemaire et al.'s program."""


@pytest.fixture
def counts(three: Program) -> Counts:
    """in0 in two steps and in1 in one; so a0 and a1 spike in two of three steps, and b with them.

    Synops: 2 x 2 and 1 x 1 into a, 4 x 1 into b. Three neurons, three steps: nine updates; a0, a1 and b
    have input in two steps. a sends 4 messages over 2 hops east-west and 1 north-south each.
    """
    found = simulate(three, np.array([[[1, 0], [1, 1], [0, 0]]])).counts
    assert found is not None
    assert found.synops == {"in-a": 5, "a-b": 4} and found.spikes == {"a": 4, "b": 2}
    assert (found.total_updates, found.total_active_updates) == (9, 6)
    return found


@pytest.fixture
def proxies(three: Program, counts: Counts) -> dict[str, Energy]:
    return {proxy.name: proxy for proxy in energy(three, counts)}


def test_synops(proxies: dict[str, Energy]) -> None:
    assert proxies["synops"].interval_pj == pytest.approx((9 * 23.6, 9 * 35.5))


def test_davies_2018(proxies: dict[str, Energy]) -> None:
    by_hand = 9 * 23.6 + 6 * 81 + 3 * 52 + 0 * 1.7 + 8 * 3 + 4 * 4
    assert by_hand == pytest.approx(894.4)
    assert proxies["davies2018"].interval_pj == pytest.approx((by_hand, by_hand))


def test_45_nm(proxies: dict[str, Energy]) -> None:
    # Per update one product (v decays) and two sums (u, comparison).
    by_hand = 9 * 0.1 + 9 * 3.1 + 18 * 0.1
    assert proxies["cmos45"].interval_pj == pytest.approx((by_hand, by_hand))


def test_sana_fe(proxies: dict[str, Energy]) -> None:
    by_hand = 9 * 35.5 + 9 * 51.2 + 6 * 21.6 + 6 * 69.3 + 4 * 111 + 8 * 3 + 4 * 4.2
    assert by_hand == pytest.approx(1810.5)
    # Three neurons more may have been updated, if their membranes were not 0.
    assert proxies["sanafe"].interval_pj == pytest.approx((by_hand, by_hand + 3 * 21.6))


def test_lemaire_2022(proxies: dict[str, Energy]) -> None:
    low, high = proxies["lemaire2022"].parts_pj, proxies["lemaire2022"].high_parts_pj
    assert low == pytest.approx(
        {
            "synaptic operations": 9 * 0.1,
            "neurons": 9 * 0.1 + 9 * 3.2 + 6 * 0.1,
            "memory: weights": 9 * 10,
            "memory: biases": 0,
            # Reads and writes: a's 5 synops and 2 neurons, b's 4 and 1.
            "memory: potentials": 2 * (5 + 2 + 4 + 1) * 10,
            # Read: 3 messages into a, 4 into b. Written: 6 spikes.
            "memory: events": 13 * 10,
            "addressing": 9 * 0.1,
        }
    )
    assert high == pytest.approx(
        low
        | {
            "memory: weights": 9 * 13.2 + 1.09e-5 * (5 * 4 * 8 + 4 * 2 * 8),
            # Every neuron in every step; u and v of 24 bits.
            "memory: potentials": 2 * ((5 + 6) * (13.2 + 1.09e-5 * 96) + (4 + 3) * (13.2 + 1.09e-5 * 48)),
            "memory: events": 13 * MEMORY,
        }
    )


def test_neurobench(three: Program, counts: Counts) -> None:
    # Nine of 3 x 6 operations; 6 spikes of 9 neurons and steps; one of six weights is zero; eight bits each.
    found = neurobench(three, counts)
    assert found == NeuroBench(0.0, 9.0, 18.0, pytest.approx(1 / 3), pytest.approx(1 / 6), 6.0)
