"""Makes lava-nc 0.10.0 import and work on Python >= 3.11 and numpy >= 2, and checks that it does.

lava-nc declares Python < 3.11 and numpy < 2. What really stands in the way: dataclass fields whose
default is an unhashable instance (refused since Python 3.11), and the keyword `newshape` of
np.reshape (gone from numpy 2.4) in reshaped ports. Three further habits of Lava are kept from the
host program: it sets multiprocessing's start method on import, every process adds a handler to the
root logger and stays in a global list, and the search for a process's models executes every file
beside the process's own. None of this touches Lava's arithmetic, which `load_lava` tests against
known numbers once.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import multiprocessing
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from types import SimpleNamespace
from typing import Any

import numpy as np

from snn_compile.targets.errors import DeviceError

INSTALL = "pip install --ignore-requires-python --no-deps lava-nc==0.10.0"
VERSION = "0.10.0"

# One step of stock LIF from zero (du=4095, dv=4096, vth=131071): inputs around the edges of the
# 24-bit current (in units of 2**17) and of 32 bits, and the currents and spikes that Lava 0.10.0
# gives on Python 3.10 and numpy 1.26, for which it was made.
_E = 1 << 17
_GOLDEN_IN = (
    _E - 1,
    _E,
    _E + 1,
    1 - _E,
    -_E,
    -_E - 1,
    2 * _E,
    2 * _E + 5,
    3 * _E,
    4 * _E,
    -2 * _E,
    -3 * _E,
    1 << 24,
    1 << 25,
    (1 << 25) + 3,
)
_GOLDEN_U = (
    8388544,
    8388608,
    -8388544,
    -8388544,
    8388608,
    8388544,
    0,
    320,
    8388608,
    16777216,
    0,
    -8388608,
    1056964608,
    -2130706432,
    -2130706240,
)
_GOLDEN_S = (0, 1, 0, 0, 1, 0, 0, 0, 1, 1, 0, 0, 1, 0, 0)


@functools.cache
def load_lava() -> SimpleNamespace:
    """Import lava-nc, patched, and return the parts of it that the Lava devices use.

    Raises DeviceError with the command to type if lava-nc is missing, is another version, or
    computes something else than it should.
    """
    try:
        found = version("lava-nc")
    except PackageNotFoundError:
        raise DeviceError(f"lava-nc is not installed; type: {INSTALL}", device="lava") from None
    if found != VERSION:
        raise DeviceError(
            f"lava-nc {found} is installed, tested is {VERSION}; type: {INSTALL}", device="lava"
        )
    try:
        with _importable():
            lava = _parts()
    except ModuleNotFoundError as error:
        raise DeviceError(
            f"lava-nc needs the package {error.name}; type: pip install {error.name}", device="lava"
        ) from error
    _patch_reshape(lava.ports)
    _patch_model_search(lava)
    _self_test(lava)
    return lava


@contextmanager
def _importable() -> Iterator[None]:
    """Let lava's modules be imported, and take back what that needs afterwards."""
    with (
        _replaced(dataclasses, "dataclass", _lenient_dataclass),
        _replaced(multiprocessing, "set_start_method", _no_start_method),
        warnings.catch_warnings(),
    ):
        # Lava 0.10.0 is from 2024: it warns of its own future, which its fixed version settles.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", SyntaxWarning)
        yield


@contextmanager
def _replaced(module: Any, name: str, value: Any) -> Iterator[None]:
    original = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, original)


_dataclass: Any = dataclasses.dataclass


def _lenient_dataclass(cls: Any = None, /, **options: Any) -> Any:
    """Make a dataclass; an unhashable default in lava is shared, as it was before Python 3.11."""
    if cls is None:
        return functools.partial(_lenient_dataclass, **options)
    if cls.__module__.split(".")[0] == "lava":
        for name in vars(cls).get("__annotations__", {}):
            default = vars(cls).get(name)
            if (
                default is not None
                and not isinstance(default, dataclasses.Field)
                and type(default).__hash__ is None
            ):
                setattr(cls, name, dataclasses.field(default_factory=functools.partial(_same, default)))
    return _dataclass(cls, **options)


def _same(value: Any) -> Any:
    return value


def _no_start_method(method: str | None, force: bool = False) -> None:
    """Leave the host program's start method alone; the child process of the device sets its own."""


def _parts() -> SimpleNamespace:
    def take(module: str, *names: str) -> dict[str, Any]:
        loaded = import_module(f"lava.{module}")
        return {name: getattr(loaded, name) for name in names}

    return SimpleNamespace(
        model_classes={},  # process class to its models, for classes that no module holds
        ports=import_module("lava.magma.core.process.ports.ports"),
        runtime=import_module("lava.magma.runtime.runtime"),
        **take("magma.core.process.ports.ports", "InPort", "OutPort", "RefPort"),
        **take("magma.core.process.process", "AbstractProcess", "ProcessServer"),
        **take("magma.core.process.variable", "Var", "VarServer"),
        **take("magma.core.model.py.model", "PyLoihiProcessModel"),
        **take("magma.core.model.py.ports", "PyInPort", "PyOutPort", "PyRefPort", "IdentityTransformer"),
        **take("magma.core.model.py.type", "LavaPyType"),
        **take("magma.core.decorator", "implements", "requires", "tag"),
        **take("magma.core.resources", "CPU"),
        **take("magma.core.sync.protocols.loihi_protocol", "LoihiProtocol"),
        **take("magma.core.run_conditions", "RunSteps"),
        **take("magma.core.run_configs", "Loihi2SimCfg"),
        **take("magma.compiler.compiler_graphs", "ProcGroupDiGraphs"),
        **take("proc.lif.process", "AbstractLIF", "LIF", "TernaryLIF"),
        **take("proc.lif.models", "AbstractPyLifModelFixed", "PyLifModelBitAcc", "PyTernLifModelFixed"),
        **take("proc.rf.process", "RF"),
        **take("proc.rf.models", "PyRFModelFixed"),
        **take("proc.rf_iz.process", "RF_IZ"),
        **take("proc.rf_iz.models", "PyRF_IZModelFixed"),
        **take("proc.atrlif.process", "ATRLIF"),
        **take("proc.atrlif.models", "PyATRLIFModelFixed"),
        **take("proc.sdn.process", "ActivationMode", "SigmaDelta", "Delta", "Sigma"),
        **take("proc.sdn.models", "PySigmaDeltaModelFixed", "PyDeltaModelFixed", "PySigmaModelFixed"),
        **take("proc.graded.process", "GradedVec", "GradedReluVec"),
        **take("proc.graded.models", "PyGradedVecModelFixed", "PyGradedReluVecModelFixed"),
        **take("proc.dense.process", "Dense", "DelayDense"),
        **take("proc.sparse.process", "Sparse", "DelaySparse"),
        **take("proc.io.source", "RingBuffer"),
        **take("utils.weightutils", "SignMode"),
    )


def _patch_reshape(ports: Any) -> None:
    def forward(port: Any) -> Any:
        return functools.partial(_reshape, shape=port.shape)

    def backward(port: Any) -> Any:
        return functools.partial(_reshape, shape=port.old_shape)

    ports.ReshapePort.get_transform_func_fwd = forward
    ports.ReshapePort.get_transform_func_bwd = backward


def _reshape(data: Any, shape: tuple[int, ...]) -> Any:
    # Not np.reshape(shape=...): that keyword exists from numpy 2.1 only.
    return np.reshape(data, shape)


def _patch_model_search(lava: SimpleNamespace) -> None:
    """Search once per process class, and for this package's only in the module that defines it.

    Lava's search imports the parent package's every module and executes every file in its folder.
    """
    graphs = lava.ProcGroupDiGraphs
    search = graphs._find_proc_models
    found: dict[type, list[type]] = lava.model_classes

    def find(proc: Any) -> list[type]:
        kind = type(proc)
        if kind not in found:
            if kind.__module__.startswith("snn_compile."):
                module = sys.modules[kind.__module__]
                found[kind] = graphs._find_proc_models_in_module(proc, module)
            else:
                found[kind] = search(proc)
        return list(found[kind])

    graphs._find_proc_models = staticmethod(find)


@contextmanager
def tidy_processes(lava: SimpleNamespace, forget: bool) -> Iterator[None]:
    """Take back what building processes leaves behind.

    That is a logging handler each and, if `forget`, their entries in Lava's global lists, which
    would keep every weight matrix in memory for good.
    """
    root = logging.getLogger()
    handlers = list(root.handlers)
    lists = (lava.ProcessServer().processes, lava.VarServer().vars)
    lengths = [len(entries) for entries in lists]
    try:
        yield
    finally:
        root.handlers[:] = handlers
        for entries, length in zip(lists, lengths, strict=True):
            if forget:
                del entries[length:]


def _self_test(lava: SimpleNamespace) -> None:
    model = lava.PyLifModelBitAcc({})
    sent: list[Any] = []
    model.a_in = SimpleNamespace(recv=lambda: np.array(_GOLDEN_IN, np.int32))
    model.s_out = SimpleNamespace(send=lambda spikes: sent.append(np.array(spikes)))
    size = len(_GOLDEN_IN)
    model.u, model.v = np.zeros(size, np.int32), np.zeros(size, np.int32)
    model.bias_mant, model.bias_exp = np.zeros(size, np.int16), np.zeros(size, np.int16)
    model.du, model.dv, model.vth = 4095, 4096, 131071
    model.run_spk()
    if model.u.tolist() != list(_GOLDEN_U) or sent[0].tolist() != [bool(s) for s in _GOLDEN_S]:
        raise DeviceError(
            f"lava-nc with numpy {np.__version__} computes other numbers than it "
            f"should: currents {model.u.tolist()}",
            device="lava",
        )
