"""The quantized ANN beside a program: numbers by hand, and the rate at which both are even."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from snn_compile.runtime.execution.run import simulate
from snn_compile.runtime.reports.quantized_ann import QuantizedAnn, quantized_ann
from snn_compile.targets.program.population import Population
from snn_compile.targets.program.program import InputPort, OutputPort, Program, Projection
from snn_compile.targets.program.weights import WeightTable

INPUTS = np.array([[[1, 0], [1, 1], [0, 0]]])


def _found(program: Program, inputs: np.ndarray) -> QuantizedAnn:
    counts = simulate(program, inputs).counts
    assert counts is not None
    return quantized_ann(program, counts)


def test_three_neurons_by_hand(three: Program) -> None:
    found = _found(three, INPUTS)
    # 2 x 2 and 2 x 1 weights of 8 bits; three steps tell four values apart: two bits.
    assert (found.macs, found.weight_bits, found.activation_bits) == (6, 8, 2)
    assert found.per_sample_pj == pytest.approx(6 * (0.2 + 0.1))
    # 9 synops, a product and two sums per neuron and step; six spikes of nine.
    assert found.spiking_pj == pytest.approx(9 * 0.1 + 9 * 3.1 + 18 * 0.1)
    assert found.rate == pytest.approx(6 / 9) and found.break_even_rate == 0


def test_read_out_in_every_step_multiplies_in_every_step(three: Program) -> None:
    port = replace(three.outputs[0], readout="per_step")
    assert _found(replace(three, outputs=(port,)), INPUTS).macs == 18


def test_a_cycle_multiplies_in_every_step(three: Program) -> None:
    back = Projection("b-a", "b", "a", (WeightTable(np.array([[2], [2]])),), delay_steps=1)
    found = _found(replace(three, projections=(*three.projections, back)), INPUTS)
    # a-b and b-a lie on the cycle, in-a does not.
    assert found.macs == 4 + 3 * (2 + 2)


def test_wide_messages_take_wide_products(lif: Callable[..., Population]) -> None:
    def energy(bits: int, signed: bool) -> float:
        table = WeightTable(np.array([[4, 2]]), message_bits=bits)
        port = InputPort("in", (2,), "graded", 1.0, bits, signed)
        edges = (Projection("in-a", "in", "a", (table,)),)
        program = Program("loihi2", 2, (lif("a", 1, 1),), edges, (port,), (OutputPort("out", "a"),))
        return _found(program, np.array([[[1, 2]]])).per_sample_pj

    assert energy(8, False) == energy(7, True) == pytest.approx(2 * 0.3)
    assert energy(8, True) == energy(9, False) == pytest.approx(2 * 3.2)


def test_at_the_break_even_rate_both_take_the_same(lif: Callable[..., Population]) -> None:
    """Neurons without decays cost sums alone, so that spikes decide; the rate is scaled by the inputs."""
    size = 64
    plain = {"du": 4095, "dv": 0, "reset": "value"}
    into = WeightTable(np.eye(size, dtype=np.int64) * 20)
    onward = WeightTable(np.full((size, size), 2))
    program = Program(
        "loihi2",
        2,
        (lif("a", size, 1, **plain), lif("b", size, 2, **plain)),
        (Projection("in-a", "in", "a", (into,)), Projection("a-b", "a", "b", (onward,))),
        (InputPort("in", (size,)),),
        (OutputPort("out", "b"),),
    )
    inputs = np.zeros((1, 4, size))
    inputs[0, :, :8] = 1
    found = _found(program, inputs)
    assert found.break_even_rate is not None and found.rate is not None
    assert 0 < found.rate < found.break_even_rate
    # Spikes of populations are all of the synops into b; everything else stays.
    counts = simulate(program, inputs).counts
    assert counts is not None
    rising = counts.synops["a-b"] * 0.1
    scale = found.break_even_rate / found.rate
    assert found.spiking_pj - rising + rising * scale == pytest.approx(found.per_sample_pj)
