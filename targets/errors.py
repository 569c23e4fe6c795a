"""The one tree of errors that snn-compile raises on purpose.

    SnnCompileError
      ChipError               a chip file is wrong
      ExportError             a torch module has no NIR counterpart, or a checkpoint cannot be used
      CompileError            the network cannot be compiled as asked
        UnsupportedNode       a node without a rule
        AmbiguousConvention   the file leaves open what its numbers mean
        TimingInfeasible      a cycle shorter in delay than in synapse stages
        DoesNotFit            a resource of the chip is exceeded
        PrecisionLost         an integer format cannot hold a tensor
      TrainingDiverged        the loss of a training is not finite any more
      RunError                a program cannot be run as asked
        WrongProgram          not a program, a damaged one, or one for another chip
        WrongInput            data of the wrong shape, type or value
        DeviceError           the device failed

Every error reads as one line (what, where, by how much, what to try) and carries its facts in `facts`
and as attributes. Commands print the line and exit with 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class SnnCompileError(Exception):
    """Base of all errors of this package; `facts` holds what the message was made of."""

    def __init__(self, message: str, **facts: object) -> None:
        super().__init__(message)
        self.facts = facts

    def __getattr__(self, name: str) -> object:
        facts = self.__dict__.get("facts", {})
        if name in facts:
            return facts[name]
        raise AttributeError(f"{type(self).__name__} has no fact {name!r}; it has {sorted(facts)}")

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), str(self), self.facts)


def _rebuild(kind: type[SnnCompileError], message: str, facts: dict[str, object]) -> object:
    return kind(message, **facts)


class ChipError(SnnCompileError):
    """A chip file is wrong: `file`, `key`."""


class ExportError(SnnCompileError):
    """A torch module has no NIR counterpart, or a checkpoint cannot be used."""


class CompileError(SnnCompileError):
    """The network cannot be compiled as asked."""


class UnsupportedNode(CompileError):
    """No rule for a node: `node`, `type`."""


class AmbiguousConvention(CompileError):
    """The file leaves open what its numbers mean: `missing` maps each open item to its readings."""


class TimingInfeasible(CompileError):
    """A cycle has less delay than synapse stages: `cycle`, `missing_steps`."""


class DoesNotFit(CompileError):
    """The chip's limits are exceeded: `violations`, one line each."""


class PrecisionLost(CompileError):
    """An integer format cannot hold a tensor: `tensor`, `error`, `allowed`."""


class TrainingDiverged(SnnCompileError):
    """The loss of a training, or its gradient, is not finite any more."""


class RunError(SnnCompileError):
    """A program cannot be run as asked."""


class WrongProgram(RunError):
    """Not a program, a damaged one, or one that this device or version cannot execute."""


class WrongInput(RunError):
    """Input data of the wrong shape, type or value."""


class DeviceError(RunError):
    """The device failed or did not answer in time: `device`."""


def one_line(error: BaseException) -> str:
    """Return what a library's exception says, or its class, on one line of at most 200 characters."""
    return " ".join(str(error).split())[:200] or type(error).__name__


EXTRAS = {
    "torch": "train",
    "snntorch": "train",
    "gymnasium": "train",
    "threadpoolctl": "train",
    "onnxruntime": "onnx",
    "pyarrow": "tables",
    "lz4": "events",
    "zstandard": "events",
    "lava": "lava",
    "asteval": "lava",
}
"""The extra of this distribution that installs a package, by the name that is imported."""


@contextmanager
def naming_extras() -> Iterator[None]:
    """Turn the lack of a package that an extra installs into an error of one line that names the extra."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRAS:
            raise
        extra = f"snn-compile[{EXTRAS[package]}]"
        raise SnnCompileError(
            f"this needs {package}, which the extra {EXTRAS[package]} installs: pip install '{extra}'"
        ) from error
