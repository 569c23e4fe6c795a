"""Result of an analysis: plain values, and the function that draws its figure."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Answer = tuple[dict[str, Any], Callable[["Figure"], None]]
"""The result as plain values, and the function that draws it."""
