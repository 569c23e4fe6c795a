"""Chips from before memory was counted in words: files and programs that hold them stay readable."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil, log2
from typing import Any


def memory_of_bits(
    memory_bits: int, neuron_state_bits: int, axon_bits: int, delay_bits: int, neurons: int
) -> dict[str, Any]:
    """Return the memory of a core that was stated in bits: words of one bit, no kernels that are shared."""
    return {
        "words": memory_bits,
        "synapse_words": memory_bits,
        "word_bits": 1,
        "neuron_words": neuron_state_bits,
        "in_axon_words": axon_bits,
        "out_axon_words": axon_bits,
        "index_bits": ceil(log2(max(neurons, 2))),
        "row_bits": 0,
        "kernel_words": 0,
        "dense_rows": True,
        "shared_kernels": False,
        "delay_bits": delay_bits,
    }


def upgraded_keys(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return the dotted keys of a chip's file in today's form; a file of today's form as it is."""
    old = ("cores.memory_bits", "memory.neuron_state_bits", "memory.axon_bits")
    present: list[Any] = [found.get(key) for key in (*old, "memory.delay_bits", "cores.neurons")]
    bits, state_bits, axon_bits, delay_bits, neurons = present
    if not all(type(value) is int and value >= 0 for value in present):
        return dict(found)
    kept = {key: value for key, value in found.items() if key not in old}
    memory = memory_of_bits(bits, state_bits, axon_bits, delay_bits, neurons)
    return {**kept, "cores.groups": neurons} | {f"memory.{key}": value for key, value in memory.items()}


def upgraded_profile(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a chip that a program holds in today's form."""
    old = ("core_memory_bits", "neuron_state_bits", "axon_bits", "delay_bits")
    if not all(key in values for key in (*old, "core_neurons")):
        return dict(values)
    kept = {key: value for key, value in values.items() if key not in old}
    bits, state_bits, axon_bits, delay_bits = (values[key] for key in old)
    memory = memory_of_bits(bits, state_bits, axon_bits, delay_bits, values["core_neurons"])
    return {**kept, "core_groups": values["core_neurons"], "memory": memory}
