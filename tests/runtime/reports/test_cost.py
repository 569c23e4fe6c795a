from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from snn_compile.runtime.execution.run import simulate
from snn_compile.runtime.reports.energy import Traffic, count_traffic, energy
from snn_compile.targets.costs.published import synop_costs
from snn_compile.targets.costs.tables import arithmetic_costs, load_cost_table
from snn_compile.targets.program.program import (
    InputPort,
    OutputPort,
    Population,
    Program,
    Projection,
    WeightTable,
)


def test_counts_of_the_relay_by_hand(relay: Program, relay_inputs: np.ndarray) -> None:
    counts = simulate(relay, relay_inputs).counts
    assert counts is not None
    assert counts.spikes == {"a": 5, "b": 7}
    assert counts.synops == {"in-a": 5, "a-b": 3 * 2 + 2 * 1}
    assert (counts.total_updates, counts.total_active_updates) == (30, 5 + 7)
    # a0 fires 3 times to cores 1 and 2, a1 twice to core 1: 2 tiles east and 1 north of theirs.
    assert count_traffic(relay, counts) == Traffic(8, 3, 10, 5)


def test_messages_between_chips_take_no_hops_of_the_mesh(relay: Program, relay_inputs: np.ndarray) -> None:
    moved = {1: relay.target.cores + 1}
    cores = tuple(replace(core, index=moved.get(core.index, core.index)) for core in relay.cores)
    routes = tuple(
        replace(route, destinations=tuple(moved.get(to, to) for to in route.destinations))
        for route in relay.routes
    )
    apart = replace(relay, cores=cores, routes=routes, chips=2)
    counts = simulate(apart, relay_inputs).counts
    assert counts is not None
    assert count_traffic(apart, counts) == Traffic(8, 3, 0, 0, 5)
    assert all("links between chips" in energy(apart, counts)[i].excluded for i in (1, 3))


def test_energies_of_the_relay_by_hand(relay: Program, relay_inputs: np.ndarray) -> None:
    counts = simulate(relay, relay_inputs).counts
    assert counts is not None
    synops, davies, cmos, *_ = energy(relay, counts)
    assert synops.total_pj == pytest.approx(13 * 23.6)
    assert synops.per_sample_pj == pytest.approx(13 * 23.6 / 2)
    assert davies.parts_pj == pytest.approx(
        {
            "synaptic operations": 13 * 23.6,
            "active neuron updates": 12 * 81.0,
            "inactive neuron updates": 18 * 52.0,
            "spikes within a tile": 3 * 1.7,
            "hops east-west": 10 * 3.0,
            "hops north-south": 5 * 4.0,
        }
    )
    assert davies.total_pj == pytest.approx(2269.9)
    # u keeps nothing and the bias is 0: one multiplication (v), two additions (u, comparison).
    assert cmos.parts_pj == pytest.approx(
        {
            "synapse additions": 13 * 0.1,
            "graded synapse multiplications": 0.0,
            "neuron multiplications": 30 * 3.1,
            "neuron additions": 60 * 0.1,
        }
    )


def test_labels_say_proxy_and_whose_coefficients(relay: Program, relay_inputs: np.ndarray) -> None:
    counts = simulate(relay, relay_inputs).counts
    assert counts is not None
    proxies = energy(relay, counts)
    assert [p.name for p in proxies] == ["synops", "davies2018", "cmos45", "sanafe", "lemaire2022"]
    assert ["Loihi 1" in p.label for p in proxies] == [True, True, False, True, False]
    assert all("proxy, not a measurement" in p.label for p in proxies)
    assert all("messages from the host" in p.excluded for p in proxies[:2])
    assert proxies[0].source == synop_costs().source
    assert proxies[1].source == load_cost_table("loihi1").source
    assert proxies[2].source == arithmetic_costs().source


def test_unplaced_program_has_no_hops_and_says_so(relay: Program, relay_inputs: np.ndarray) -> None:
    unplaced = replace(relay, cores=(), routes=())
    counts = simulate(unplaced, relay_inputs).counts
    assert counts is not None and count_traffic(unplaced, counts) is None
    davies = energy(unplaced, counts)[1]
    assert "hops east-west" not in davies.parts_pj and "not placed" in davies.excluded


@pytest.mark.parametrize(
    ("signed", "bits", "per_multiply"), [(False, 8, 0.2), (True, 7, 0.2), (True, 8, 3.1), (False, 16, 3.1)]
)
def test_graded_synops_multiply(
    lif: Callable[..., Population], signed: bool, bits: int, per_multiply: float
) -> None:
    table = WeightTable(np.full((2, 3), 2), message_bits=bits)
    program = Program(
        "loihi2",
        2,
        (lif("a", 2, 1, reset="subtract", du=1000, dv=0, vth=0, bias_mant=[1, 0]),),
        (Projection("in-a", "in", "a", (table,)),),
        (InputPort("in", (3,), "graded", 1.0, bits, signed),),
        (OutputPort("out", "a"),),
    )
    counts = simulate(program, np.array([[[1, 2, 0], [3, 0, 0]]])).counts
    assert counts is not None and counts.graded_synops == 6
    parts = energy(program, counts)[2].parts_pj
    assert parts["graded synapse multiplications"] == pytest.approx(6 * per_multiply)
    # Two neurons, two steps: u decays (multiply, add), v does not; one neuron of two has a bias.
    assert parts["neuron multiplications"] == pytest.approx(4 * 3.1)
    spikes = counts.spikes["a"]
    assert spikes > 0
    assert parts["neuron additions"] == pytest.approx((4 * (1 + 1 + 0.5 + 1) + spikes) * 0.1)
