"""Progress of a training on stderr, one bar per training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from snn_compile.train.algorithms.training import Progress


@contextmanager
def progress_bar(epochs: int, name: str = "") -> Iterator[Callable[[Progress], None]]:
    """Show a bar of so many epochs during a training; yields the training's observer."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn(f"{name}: epoch" if name else "epoch"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.description}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=epochs)

        def show(state: Any) -> None:
            value, best = (shown(state.metric, value) for value in (state.value, state.best))
            text = f"loss {state.train_loss:.3f}  validation {value}  best {best}"
            bar.update(task, completed=state.epoch, description=text)

        yield show


def shown(name: str, value: Any) -> str:
    """Return a metric's value as text: accuracies in percent."""
    if isinstance(value, float):
        return f"{value:.2%}" if name.endswith("accuracy") else f"{value:.6g}"
    return str(value)
