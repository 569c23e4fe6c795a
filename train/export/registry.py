"""Registry of exporters: families of networks that become NIR graphs without being traced.

A file of this folder registers its family by decorating the function that makes the graph:

    @exporter(RecurrentNetwork, unexportable=without_nodes)
    def recurrent_to_nir(module, sample_input, dt): ...
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

from torch import nn

from snn_compile.targets.discovery import import_modules

ToNir = Callable[[Any, Any, float | None], Any]
F = TypeVar("F", bound=ToNir)


@dataclass(frozen=True)
class Exporter:
    """How a family of networks becomes a NIR graph.

    `to_nir(module, sample_input, dt)` makes the graph; `unexportable(module)` is why it cannot, or "";
    `accepts(module)` is whether a module of a registered class belongs to the family.
    """

    to_nir: ToNir
    unexportable: Callable[[Any], str]
    accepts: Callable[[Any], bool]


_EXPORTERS: dict[type[nn.Module], Exporter] = {}


def exporter(
    *classes: type[nn.Module],
    unexportable: Callable[[Any], str] = lambda module: "",
    accepts: Callable[[Any], bool] = lambda module: True,
) -> Callable[[F], F]:
    """Return a decorator that registers a function as the exporter of `classes` and their subclasses."""

    def register(to_nir: F) -> F:
        for kind in classes:
            _EXPORTERS[kind] = Exporter(to_nir, unexportable, accepts)
        return to_nir

    return register


def exporter_of(module: nn.Module) -> Exporter | None:
    """Return the exporter of a module's nearest registered class, or None if the module has to be traced."""
    _load()
    found = (_EXPORTERS.get(kind) for kind in type(module).__mro__)
    return next((one for one in found if one is not None and one.accepts(module)), None)


@cache
def _load() -> None:
    import_modules("snn_compile.train.export")
