"""Models and data sets as the commands take them: by path or by name."""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from snn_compile.compiler.cli.protocols import Dataset, Division
from snn_compile.targets.errors import CompileError

if TYPE_CHECKING:
    from snn_compile.compiler.frontends.netx import InputShape


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model's graph, its name, and the spec of the data it was trained on, if the file has one."""

    graph: Any
    name: str
    data: dict[str, Any] | None = None

    def presentation(self, stated: Mapping[str, Any] | None = None) -> Presentation | None:
        """Return how samples of one frame are presented; None where samples have steps of their own."""
        from snn_compile.compiler.contract.resolve import presented_steps

        if not hasattr(self.graph, "metadata"):  # a network that its reader has lowered already
            return None
        steps = presented_steps(self.graph, stated)
        if steps is None:
            return None
        shapes = [n.input_type["input"] for n in self.graph.nodes.values() if type(n).__name__ == "Input"]
        return Presentation(tuple(int(n) for n in shapes[0]), steps)


class Presentation(NamedTuple):
    """The shape of one frame and the number of steps that it is presented for."""

    shape: tuple[int, ...]
    steps: int


@dataclass(frozen=True)
class TorchSource:
    """How a custom network is built, `--model`, and what its forward takes.

    `factory` is "package.module:factory" or "file.py:factory"; `input_shape` the shape of one step of one
    sample; `data` names data sets with their splits, the first of which gives the shape otherwise; `forward`
    is "steps", "step", "image" or None, which finds it by trial.
    """

    factory: str
    input_shape: tuple[int, ...] | None = None
    forward: str | None = None
    data: tuple[tuple[str, str], ...] = ()

    def data_shape(self) -> tuple[int, ...] | None:
        """Return the shape of a sample of the first data set, as it is stored; None without one."""
        from snn_compile.runtime.data.registry import sample_shape

        return next((sample_shape(name, split) for name, split in self.data), None)


def torch_source(arguments: argparse.Namespace, **data: str | None) -> TorchSource | None:
    """Return what the options say of a custom network; `data` maps splits to data sets' names."""
    if arguments.factory is None:
        if arguments.forward is not None:
            raise CompileError("--forward is for a custom network: add --model MODULE:FACTORY")
        return None
    named = tuple((name, split) for split, name in data.items() if name is not None)
    return TorchSource(arguments.factory, getattr(arguments, "input_shape", None), arguments.forward, named)


def load_model(
    path: str | Path,
    source: TorchSource | None = None,
    max_pool: str | None = None,
    input_shape: InputShape = None,
    stated: Mapping[str, Any] | None = None,
) -> LoadedModel:
    """Read a checkpoint (.pt), graph (.nir), lava-dl network (.net) or ONNX model (.onnx).

    No code in the file is run. With `source` the file is a state dict of the network that its factory builds.
    `max_pool` is for ONNX: see `onnx.graph.read_onnx`; `input_shape` and `stated` conventions for lava-dl:
    see `netx.read_netx`.
    """
    from snn_compile.compiler.frontends.netx import read_netx
    from snn_compile.compiler.frontends.read import READERS, read_graph
    from snn_compile.compiler.onnx.graph import read_onnx

    file = Path(path)
    onnx = partial(read_onnx, max_pool=max_pool or "refuse")
    netx = partial(read_netx, input_shape=input_shape)
    if source is not None and file.suffix.lower() != ".onnx":
        from snn_compile.train.checkpoints.state_dict import load_foreign

        checkpoint = load_foreign(
            file,
            source.factory,
            input_shape=source.input_shape,
            forward=source.forward,
            data_shape=source.data_shape,
        )
        return LoadedModel(checkpoint.graph, file.name)
    readers: dict[str, Callable[..., Any]] = {**READERS, ".onnx": onnx, ".net": netx}
    readers |= dict.fromkeys((".pt", ".pth"), _read_checkpoint)
    found = read_graph(file, readers, stated)
    return found if isinstance(found, LoadedModel) else LoadedModel(found, file.name)


def _read_checkpoint(file: Path) -> LoadedModel:
    from snn_compile.train.checkpoints.checkpoint import load_checkpoint

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of files that are refused anyway
        checkpoint = load_checkpoint(file)
    data = checkpoint.data
    return LoadedModel(checkpoint.checked_graph(str(file)), file.name, dict(data) if data else None)


def model_data(
    name: str | None, split: str, spec: dict[str, Any] | None, shown: Presentation | None = None
) -> Dataset | None:
    """Return the data set `name`, or the model's own if None.

    Options come from the model's `spec` when that names the same set; `shown` makes steps of single frames.
    """
    from snn_compile.runtime.data.registry import load_data, load_still, same_set

    if name is None and spec is None:
        return None
    own = spec is not None and (name is None or same_set(name, spec["name"]))
    options = dict(spec["options"]) if own and spec is not None else {}
    found = name if name is not None else spec["name"] if spec else ""
    if shown is None:
        return load_data(found, split, **options)
    return load_still(found, split, shown.shape, **{**options, "steps": shown.steps})


def calibration_and_check(
    arguments: argparse.Namespace, spec: dict[str, Any] | None, load: Callable[[str | None, str], Any]
) -> tuple[Any, Any, Division | None]:
    """Return data to calibrate on, data to check on, and how one set was divided into both, if it was.

    `spec`: of the model's own data; `load` returns a split of the set that is named, or of the model's own.
    Without --calibrate the data to check on are divided, unless the model has other data of its own.
    """
    from snn_compile.runtime.data.holdout import divide
    from snn_compile.runtime.data.registry import has_calibration_split, same_set

    named, number = arguments.check, arguments.holdout
    if arguments.calibrate is not None and number:
        raise CompileError(
            "--holdout sets samples of the check data aside to calibrate on; leave out --calibrate"
        )
    if named is None and spec is None and number:
        raise CompileError(f"--holdout {number} sets samples of --check DATA aside; add --check DATA")
    own = spec is not None and (named is None or same_set(named, spec["name"]))
    found = spec if own and spec is not None else {"name": named, "options": {}}
    name = named if named is not None else found["name"]
    stated = arguments.calibrate is not None or number == 0 or name is None
    split = name is not None and has_calibration_split(name, **found["options"])
    if stated or (number is None and spec is not None and (split or not own)):
        return load(arguments.calibrate, "calibration"), load(named, "test"), None
    division = divide(name, split, lambda part: load(named, part), number)
    return division.calibration, division.checked, division


def data_shape(*named: tuple[str | None, str]) -> tuple[int, ...] | None:
    """Return the shape of one step of the first data set that is named (name, split), None without one."""
    for name, split in named:
        if name is not None and (data := model_data(name, split, None)) is not None:
            return tuple(data.inputs.shape[2:])
    return None
