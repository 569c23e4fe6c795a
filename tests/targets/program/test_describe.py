"""A program as text: what a reader must be able to tell from it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_array
from support import random_programs

from snn_compile.targets.program.population import Population
from snn_compile.targets.program.program import InputPort, OutputPort, Program, Projection
from snn_compile.targets.program.rule import CHOICES
from snn_compile.targets.program.weights import WeightTable

WEIGHTS = np.array([[2, 0, -4], [0, 0, 6]])


def program(weights: Any = WEIGHTS, **rule: Any) -> Program:
    neurons = Population("n", (2,), "lif", {"du": 1, "dv": 2, "vth": 3}, **rule)
    return Program(
        "loihi2",
        2,
        (neurons,),
        (Projection("e", "x", "n", (WeightTable(weights),)),),
        (InputPort("x", (3,)),),
        (OutputPort("y", "n"),),
    )


def test_text() -> None:
    assert program().describe().split("\n") == [
        "program for loihi2 version 2, latency 0 steps",
        "input x 3 spikes (0 or 1), start 0",
        "population n 2 lif, reset value, start 0, scale 1",
        "    du 1",
        "    dv 2",
        "    vth 3",
        "    bias_mant 0",
        "    bias_exp 0",
        "    v_init 0",
        "    v_min -8388607",
        "projection e: x -> n, delay 0",
        "    2x3 8 bits mixed, exponent 0, messages of 0 bits, 3 non-zero, -4..6, sum 4",
        "output y: spikes of n, count, classify",
        "",
    ]


def test_a_sparse_table_reads_like_the_dense_one_but_for_the_word() -> None:
    dense, sparse = program().describe(), program(csr_array(WEIGHTS)).describe()
    assert sparse == dense.replace("2x3 8 bits", "2x3 sparse 8 bits")
    ends = program(csr_array(np.array([[2, 8], [4, 6]]).repeat(2, 1)[:, :3])).describe()
    assert "6 non-zero, 0..8, sum 26" in ends


@pytest.mark.parametrize("key", CHOICES)
def test_what_is_not_the_rule_of_lavas_lif_is_said(key: str) -> None:
    for word in CHOICES[key][1:]:
        options = {"reset": "subtract"} if word == "pending" else {}
        text = program(**{**options, key: word}).describe()
        line = next(line for line in text.split("\n") if line.startswith("population"))
        assert f"{key.replace('_', ' ')} {word}, " in line


def test_programs_that_differ_read_differently() -> None:
    made = [random_programs.case(seed).program for seed in range(40)]
    made += [
        replace(p, populations=tuple(replace(n, start_step=n.start_step) for n in p.populations))
        for p in made
    ]
    texts = [p.describe() for p in made]
    assert texts[:40] == texts[40:] and len(set(texts)) == 40
