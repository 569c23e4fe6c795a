"""Random programs on random chips; `benchmarks/mapping/properties.py` draws hundreds."""

from __future__ import annotations

import pytest
from support.mapping.properties import check_mapping


@pytest.mark.parametrize("seed", range(25))
def test_a_random_program_on_a_random_chip(seed):
    check_mapping(seed)
