"""How many bytes a network keeps for its backward pass: counted, not measured.

Counted are the tensors that autograd saves (by saved-tensor hooks), and whatever the operations keep beside
them (arrays in their contexts, found by walking the graph). Memory that two of them share counts once, that
of the parameters and of the input not at all: it is there without a backward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from snn_compile.train.networks.blocks import cuts, detached, run_block


def saved_bytes(network: nn.Module, inputs: Tensor, block: int | None = None) -> int:
    """Return the most bytes kept for the backward pass of one block of steps; None: of the whole sequence.

    `inputs` (batch, steps, *shape) are run as FPTT with blocks of that many steps does, gradients stopping
    between them; one block for all steps is backpropagation through time.
    """
    most, states = 0, None
    for part in cuts(inputs.shape[1], block or inputs.shape[1]):
        held, x = detached(states), inputs[:, part]

        def run(x: Tensor = x, held: Any = held) -> Any:
            nonlocal states
            made = run_block(network, x, held)
            states = made.states
            return made.outputs

        most = max(most, kept_bytes(run, [*network.parameters(), *network.buffers(), inputs]))
    return most


def kept_bytes(function: Callable[[], Any], known: Iterable[Tensor] = ()) -> int:
    """Return the bytes that what `function` returns, a tensor or tuple, keeps for its backward pass.

    Memory of the tensors `known` is left out.
    """
    sizes: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        _add(tensor, sizes)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        made = function()
    seen: set[int] = set()
    tensors = [made] if isinstance(made, Tensor) else list(made)
    waiting = [tensor.grad_fn for tensor in tensors if tensor.grad_fn is not None]
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        for value in getattr(node, "__dict__", {}).values():
            _search(value, sizes, seen)
        waiting += [after for after, _ in node.next_functions if after is not None]
    left_out: dict[int, int] = {}
    for tensor in known:
        _add(tensor, left_out)
    return sum(size for where, size in sizes.items() if where not in left_out)


def _add(tensor: Tensor, sizes: dict[int, int]) -> None:
    storage = tensor.untyped_storage()
    sizes[storage.data_ptr()] = storage.nbytes()


def _search(value: Any, sizes: dict[int, int], seen: set[int]) -> None:
    """Add the tensors and arrays that a value of a context holds, however deep."""
    if id(value) in seen or isinstance(value, (str, bytes, type)) or callable(value):
        return
    seen.add(id(value))
    if isinstance(value, Tensor):
        _add(value, sizes)
    elif isinstance(value, np.ndarray):
        while isinstance(value.base, np.ndarray):
            value = value.base
        sizes[int(value.__array_interface__["data"][0])] = value.nbytes
    elif isinstance(value, dict):
        for item in value.values():
            _search(item, sizes, seen)
    elif isinstance(value, (list, tuple, set)):
        for item in value:
            _search(item, sizes, seen)
    elif is_dataclass(value):
        for field in fields(value):
            _search(getattr(value, field.name), sizes, seen)
    elif hasattr(value, "__dict__"):
        _search(vars(value), sizes, seen)
