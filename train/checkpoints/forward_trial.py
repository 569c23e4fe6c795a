"""Whether a forward takes all steps, one step or a still image, found by running it.

Each interpretation is tried on random inputs in copies of the module. It passes if the output has the shape
that it implies, later input does not change earlier output, samples do not change each other, and earlier
input does change later output: without that last one, a forward of one step would pass for one of all steps.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from snn_compile.targets.errors import ExportError
from snn_compile.train.export.registry import exporter_of

FORWARDS = ("steps", "step", "image")
STEPS = 8
"""Steps of a sample whose length nothing states."""
_GAINS = ((0.5, 1.0), (2.0, 1.0), (1.0, 4.0), (8.0, 2.0), (32.0, 1.0), (1.0, 16.0)) * 3
"""Factors of the random inputs and of the copy's weights, which are no part of what forward takes: a network
may be silent on small ones, and saturate on large ones."""
_ENOUGH = 6
_CALLS = 6


def sample_for(
    module: nn.Module, name: str, shape: tuple[int, ...], steps: int | None = None, forward: str | None = None
) -> Tensor:
    """Return a sample input of batch 1 for `to_nir`, from the `shape` of one step of one sample.

    `forward` states whether forward takes "steps" (steps, batch, *shape), one "step" or an "image", both
    (batch, *shape); None finds it by trial. Raises ExportError, naming the factory, where not exactly one
    interpretation passes.
    """
    length = _length(steps)
    if exporter_of(module):
        return torch.zeros(1, length, *shape)
    if forward is None:
        faults = _tried(module, shape, length)
        passed = _passed(faults)
        if len(passed) != 1:
            raise _undecided(name, shape, faults)
        forward = passed[0]
    return torch.zeros(length, 1, *shape) if forward == "steps" else torch.zeros(1, *shape)


def sample_of_data(
    module: nn.Module, name: str, stored: tuple[int, ...], forward: str | None = None
) -> Tensor:
    """Return a sample input as `sample_for`, from the shape in which data hold a sample.

    That is (steps, *shape), or the shape of a still image where forward makes its steps itself; the second is
    tried where nothing passes with the first.
    """
    steps, shape = stored[0], stored[1:]
    if exporter_of(module) or forward in ("steps", "step"):
        return sample_for(module, name, shape or stored, steps, forward)
    faults = _tried(module, shape, _length(steps)) if shape else {}
    passed = [kind for kind in _passed(faults) if forward in (None, kind)]
    if passed:
        if len(passed) > 1:
            raise _undecided(name, shape, faults)
        return sample_for(module, name, shape, steps, passed[0])
    still = _tried(module, stored, STEPS)
    if _passed(still) == ["image"] or (forward == "image" and "image" in _passed(still)):
        return torch.zeros(1, *stored)
    if forward is None and "step" in _passed(still):
        sizes = list(map(str, stored))
        raise ExportError(
            f"{name}: a sample of the data has shape {stored}, and forward makes a single step of that; give "
            f"data of samples (steps, {', '.join(sizes)}), or have each shown for N steps with --input-shape "
            f"{','.join(sizes)} --convention presented_steps=N",
            factory=name,
        )
    if shape:
        still = {**faults, f"image of shape {stored}": still["image"]}
    raise _undecided(name, shape or stored, still)


def _length(steps: int | None) -> int:
    return steps if steps is not None and steps >= 4 else STEPS


def _passed(faults: Mapping[str, str]) -> list[str]:
    return [kind for kind, fault in faults.items() if not fault]


def _tried(module: nn.Module, shape: tuple[int, ...], steps: int) -> dict[str, str]:
    """Return by interpretation why forward does not pass it, "" where it does."""
    faults = {}
    trials: dict[str, Callable[..., str]] = {"steps": _as_steps, "step": _as_step, "image": _as_image}
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        for kind, trial in trials.items():
            try:
                faults[kind] = trial(module, shape, steps)
            except Exception as error:  # whatever the user's forward raises on what it does not take
                text = " ".join(f"{type(error).__name__}: {error}".split())
                faults[kind] = text if len(text) <= 80 else f"{text[:80]}..."
    return faults


def _undecided(name: str, shape: tuple[int, ...], faults: Mapping[str, str]) -> ExportError:
    if passed := _passed(faults):
        what = f"fits {' and '.join(passed)}"
    else:
        what = f"fits none of {'; '.join(f'{kind} ({fault})' for kind, fault in faults.items())}"
    return ExportError(
        f"{name}: forward tried on samples of shape {shape} {what}; state the shape of one step with "
        "--input-shape A,B,C, what it takes with --forward steps|step|image, or let the factory return "
        "(module, sample_input)",
        factory=name,
    )


def _as_steps(module: nn.Module, shape: tuple[int, ...], steps: int) -> str:
    """Return why forward does not take (steps, batch, *shape), or ""."""
    batch, remembers = _batch(steps), False
    for trial, (gain, scale) in enumerate(_GAINS):
        if trial >= _ENOUGH and remembers:
            break
        x = gain * torch.randn(steps, batch, *shape)
        y = _output(_fresh(module, scale)(x))
        if y.ndim < 3 or y.shape[:2] != (steps, batch):
            return f"output {tuple(y.shape)} instead of ({steps}, {batch}, n)"
        half = steps // 2
        later, other, first = x.clone(), x.clone(), x.clone()
        later[half:] = gain * torch.randn_like(x[half:])
        other[:, 0] = gain * torch.randn_like(x[:, 0])
        first[:half] = gain * torch.randn_like(x[:half])
        if not _same(_output(_fresh(module, scale)(later))[:half], y[:half]):
            return "later input changes earlier output"
        if not _same(_output(_fresh(module, scale)(other))[:, 1:], y[:, 1:]):
            return "samples change each other"
        remembers = remembers or not _same(_output(_fresh(module, scale)(first))[half:], y[half:])
    return "" if remembers else "earlier input does not change later output"


def _as_step(module: nn.Module, shape: tuple[int, ...], steps: int) -> str:
    """Return why forward does not take (batch, *shape) once per step, its state kept inside, or ""."""
    batch, remembers = _batch(steps), False

    def run(x: Tensor, scale: float) -> list[Tensor]:
        stepped = _fresh(module, scale)
        return [_output(stepped(entry)) for entry in x]

    for trial, (gain, scale) in enumerate(_GAINS):
        if trial >= _ENOUGH and remembers:
            break
        x = gain * torch.randn(_CALLS, batch, *shape)
        y = run(x, scale)
        if any(out.ndim < 2 or out.shape[0] != batch for out in y):
            return f"output {tuple(y[0].shape)} instead of ({batch}, n)"
        other, first = x.clone(), x.clone()
        other[:, 0] = gain * torch.randn_like(x[:, 0])
        first[: _CALLS // 2] = gain * torch.randn_like(x[: _CALLS // 2])
        if not all(_same(a[1:], b[1:]) for a, b in zip(run(other, scale), y, strict=True)):
            return "samples change each other"
        pairs = list(zip(run(first, scale), y, strict=True))[_CALLS // 2 :]
        remembers = remembers or not all(_same(a, b) for a, b in pairs)
    return "" if remembers else "no state is kept from call to call"


def _as_image(module: nn.Module, shape: tuple[int, ...], steps: int) -> str:
    """Return why forward does not make all steps of one (batch, *shape), or ""."""
    batch, responds = _batch(steps), False
    for trial, (gain, scale) in enumerate(_GAINS):
        if trial >= _ENOUGH and responds:
            break
        x = gain * torch.randn(batch, *shape)
        y = _output(_fresh(module, scale)(x))
        if y.ndim >= 3 and y.shape[:2] == (1, batch):
            return f"output {tuple(y.shape)} of a single step; the steps must be 2 or more"
        if y.ndim < 3 or y.shape[1] != batch:
            return f"output {tuple(y.shape)} instead of (steps, {batch}, n)"
        other = x.clone()
        other[0] = gain * torch.randn_like(x[0])
        changed = _output(_fresh(module, scale)(other))
        if changed.shape != y.shape or not _same(changed[:, 1:], y[:, 1:]):
            return "samples change each other"
        responds = responds or not _same(_output(_fresh(module, scale)(gain * torch.randn_like(x))), y)
    return "" if responds else "input does not change the output"


def _batch(steps: int) -> int:
    """Return a number of samples that is not that of the steps."""
    return 3 if steps == 5 else 5


def _fresh(module: nn.Module, scale: float) -> nn.Module:
    """Return a copy in evaluation mode, its weights times `scale`."""
    copied = copy.deepcopy(module).eval()
    for parameter in copied.parameters():
        if parameter.ndim > 1:
            parameter.mul_(scale)
    return copied


def _output(returned: Any) -> Tensor:
    """Return the first tensor that forward returns; a list of one tensor per step is stacked."""
    while not isinstance(returned, Tensor):
        if isinstance(returned, list) and len({getattr(item, "shape", None) for item in returned}) == 1:
            if isinstance(returned[0], Tensor):
                return torch.stack(returned)
        if isinstance(returned, dict):
            returned = list(returned.values())
        if not isinstance(returned, (tuple, list)) or not returned:
            raise TypeError(f"forward returns a {type(returned).__name__}")
        returned = returned[0]
    return returned


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a.double(), b.double(), rtol=1e-4, atol=1e-5)
