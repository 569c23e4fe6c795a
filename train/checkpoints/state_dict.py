"""Weights of a network whose class is the user's own: a state dict, and a factory that builds the network."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from snn_compile.targets.errors import ExportError
from snn_compile.train.checkpoints.checkpoint import Checkpoint, checkpoint_of
from snn_compile.train.checkpoints.forward_trial import FORWARDS, sample_for, sample_of_data
from snn_compile.train.checkpoints.saved_weights import match_weights
from snn_compile.train.checkpoints.torch_file import read_plain
from snn_compile.train.export.to_nir import half_precision

log = logging.getLogger(__name__)


def load_foreign(
    path: str | Path,
    factory: str | Callable[[], Any],
    sample_input: Any = None,
    dt: float | None = None,
    *,
    input_shape: tuple[int, ...] | None = None,
    forward: str | None = None,
    data_shape: Callable[[], tuple[int, ...] | None] | None = None,
) -> Checkpoint:
    """Return a checkpoint, graph included, of a state dict and the network that `factory` builds.

    `factory` is "package.module:factory" or "path/to/file.py:factory" (a function or class without arguments;
    the working directory is searched too) or the callable itself. It returns the module, or the module and a
    sample input for `to_nir`; a `sample_input` given here wins. Without either, `input_shape`, the shape of
    one step of one sample, makes the sample, else what `data_shape` returns, (steps, *shape), *shape or None;
    `forward` ("steps", "step" or "image") states what forward takes, otherwise it is found by trial
    (`forward_trial.py`). The file is read without running code from it. Prefixes of wrappers are stripped,
    pruning masks applied and half precision converted (`saved_weights.py`), which one logged line reports.
    Raises ExportError, naming the file or the factory, for anything that does not fit.
    """
    path = Path(path)
    name = factory if isinstance(factory, str) else f"{factory.__module__}:{factory.__qualname__}"
    if forward not in (None, *FORWARDS):
        raise ExportError(f"forward is {forward!r}; use one of {', '.join(FORWARDS)}", forward=forward)
    module, sample = _built(_resolved(factory) if isinstance(factory, str) else factory, name)
    sample = sample if sample_input is None else sample_input
    if forward is not None and sample is not None and input_shape is None:
        raise ExportError(
            f"{name}: the sample input already says what forward takes; leave out --forward", factory=name
        )
    stored = None if sample is not None or input_shape is not None or data_shape is None else data_shape()
    if sample is None and input_shape is None and stored is None:
        raise ExportError(
            f"{name}: what does its forward take? Name data (--check or --calibrate DATA) or --input-shape "
            "A,B,C, or let the factory return (module, sample_input), such as (net, torch.zeros(steps, "
            "batch, *shape)), or without steps if forward makes one",
            factory=name,
        )
    _fill(module, path, name)
    if stored is not None:
        sample = sample_of_data(module, name, stored, forward)
    elif input_shape is not None and sample_input is None:
        sample = sample_for(module, name, input_shape, None, forward)
    return checkpoint_of(module, _float(sample), config={"model": name}, dt=dt)


def _resolved(name: str) -> Callable[[], Any]:
    """Import what "package.module:factory" or "path/to/file.py:factory" names."""
    package, _, attribute = name.rpartition(":")
    if not package or not attribute:
        raise ExportError(
            f"{name!r} does not name a factory; write package.module:factory or file.py:factory", factory=name
        )
    if package.endswith(".py") and not Path(package).is_file():
        raise ExportError(f"{name}: there is no file {package}", factory=name)
    with _importable(name):
        try:
            if package.endswith(".py"):
                found: Any = _module_of(Path(package))
            else:
                found = importlib.import_module(package)
        except (Exception, SystemExit) as error:  # whatever the user's module raises
            raise ExportError(
                f"{name}: {package} cannot be imported ({_line(error)})", factory=name
            ) from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise ExportError(f"{name}: {package} has no {attribute}", factory=name)
        found = getattr(found, part)
    if not callable(found):
        raise ExportError(f"{name} is a {type(found).__name__}; name a function or class", factory=name)
    return found  # type: ignore[no-any-return]


def _module_of(file: Path) -> Any:
    """Run a Python file as a module of a name of its own."""
    name = f"{file.stem}_at_{abs(hash(str(file.resolve()))):x}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)  # dataclasses look themselves up
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


@contextmanager
def _importable(name: str) -> Iterator[None]:
    """Let imports search the working directory, and the folder of a factory's file before it."""
    file = name.rpartition(":")[0]
    folders = [str(Path(file).resolve().parent)] if file.endswith(".py") else []
    folders.append(str(Path.cwd()))
    sys.path[:0] = folders
    try:
        yield
    finally:
        for folder in folders:
            sys.path.remove(folder)


def _built(factory: Callable[[], Any], name: str) -> tuple[nn.Module, Any]:
    with _importable(name):
        try:
            made = factory()
        except Exception as error:  # whatever the user's factory raises
            raise ExportError(f"{name} failed ({_line(error)}); it is called without arguments") from error
    module, sample = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not isinstance(module, nn.Module):
        raise ExportError(
            f"{name} returns a {type(module).__name__}; it must return a torch module", factory=name
        )
    return module, sample


def _fill(module: nn.Module, path: Path, name: str) -> None:
    """Load the weights of a file into `module`, and log in one line what was changed to make them fit."""
    if not path.is_file():
        raise ExportError(f"{path}: no such file", path=str(path))
    notes: list[str] = []
    if halves := half_precision(module):
        module.float()
        notes.append(f"converted the network from {halves} to float32")
    state, changes = match_weights(read_plain(path), module, path, name)
    own = module.state_dict()
    if odd := [problem for key in sorted(own) if (problem := _odd(key, state, own))]:
        raise ExportError(
            f"{path}: does not fit the network of {name}: {odd[0]}", path=str(path), problems=odd
        )
    with torch.no_grad():
        module.load_state_dict(state)
    if notes := notes + changes:
        log.warning("%s: %s", path, "; ".join(notes))


def _float(sample: Any) -> Any:
    """Return a sample input, half precision in it converted as the network is."""
    if isinstance(sample, (tuple, list)):
        return type(sample)(_float(item) for item in sample)
    half = isinstance(sample, Tensor) and sample.dtype in (torch.float16, torch.bfloat16)
    return sample.float() if half else sample


def _odd(key: str, state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str | None:
    """Return the fault of a tensor whose counterpart in the network is finite."""
    broken = ~torch.isfinite(state[key])
    if not broken.any() or not torch.isfinite(own[key]).all():
        return None
    first = broken.nonzero()[0].tolist()
    return f"{key}{first} is {state[key][tuple(first)].item()}, and must be finite"


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:160]}" if text else type(error).__name__
