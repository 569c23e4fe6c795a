"""lava-nc is loaded patched, tested, and only when a Lava device is opened."""

from __future__ import annotations

import logging
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from types import SimpleNamespace

import numpy as np
import pytest

from snn_compile.targets.devices.device import open_device
from snn_compile.targets.errors import DeviceError
from snn_compile.targets.integer import wrap32, wrap_state
from snn_compile.targets.lava import compat as lava_compat


@pytest.fixture
def lava() -> SimpleNamespace:
    pytest.importorskip("lava", reason="lava-nc is not installed")
    return lava_compat.load_lava()


@pytest.mark.parametrize("device", ["lava", "lava-stepped"])
def test_a_missing_installation_prints_the_command_to_type(device, monkeypatch):
    def missing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(lava_compat, "version", missing)
    for module in ("device", "stepped"):
        monkeypatch.setattr(f"snn_compile.targets.lava.{module}.load_lava", lava_compat.load_lava.__wrapped__)
    with pytest.raises(DeviceError, match="pip install --ignore-requires-python --no-deps lava-nc==0.10.0"):
        open_device(device)


def test_another_version_is_refused(monkeypatch):
    monkeypatch.setattr(lava_compat, "version", lambda name: "0.9.0")
    with pytest.raises(DeviceError, match=r"0\.9\.0 is installed, tested is 0\.10\.0"):
        lava_compat.load_lava.__wrapped__()


def test_a_missing_dependency_is_named(monkeypatch):
    def missing():
        raise ModuleNotFoundError("No module named 'asteval'", name="asteval")

    monkeypatch.setattr(lava_compat, "version", lambda name: lava_compat.VERSION)
    monkeypatch.setattr(lava_compat, "_parts", missing)
    with pytest.raises(DeviceError, match="pip install asteval"):
        lava_compat.load_lava.__wrapped__()


def test_importing_targets_or_its_lava_devices_imports_no_lava():
    code = (
        "import sys, snn_compile.targets, snn_compile.targets.lava.device, "
        "snn_compile.targets.lava.stepped; sys.exit('lava' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_loading_warns_of_nothing_and_leaves_multiprocessing_alone(lava):
    code = (
        "import multiprocessing as mp\n"
        "from snn_compile.targets.lava.compat import load_lava\n"
        "import dataclasses; before = dataclasses.dataclass\n"
        "load_lava()\n"
        "assert mp.get_start_method(allow_none=True) is None\n"
        "assert dataclasses.dataclass is before\n"
    )
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], check=False, capture_output=True, text=True
    )
    assert (run.returncode, run.stderr) == (0, "")


def test_the_self_test_notices_a_wrong_number(lava, monkeypatch):
    lava_compat._self_test(lava)
    wrong = (*lava_compat._GOLDEN_U[:-1], 0)
    monkeypatch.setattr(lava_compat, "_GOLDEN_U", wrong)
    with pytest.raises(DeviceError, match="computes other numbers"):
        lava_compat._self_test(lava)


def test_the_golden_vector_is_what_our_integers_give():
    a = np.array(lava_compat._GOLDEN_IN, np.int64)
    assert wrap_state(wrap32(a << 6)).tolist() == list(lava_compat._GOLDEN_U)


def test_reshaped_ports_work(lava):
    port = lava.ports.ReshapePort((6,), old_shape=(2, 3))
    data = np.arange(6).reshape(2, 3)
    flat = port.get_transform_func_fwd()(data)
    assert flat.tolist() == [0, 1, 2, 3, 4, 5]
    assert np.array_equal(port.get_transform_func_bwd()(flat), data)


def test_tidied_processes_leave_no_handler_and_no_entry(lava):
    handlers = list(logging.getLogger().handlers)
    count = len(lava.ProcessServer().processes), len(lava.VarServer().vars)
    with lava_compat.tidy_processes(lava, forget=True):
        lava.LIF(shape=(3,))
        assert len(logging.getLogger().handlers) == len(handlers) + 1
    assert logging.getLogger().handlers == handlers
    assert (len(lava.ProcessServer().processes), len(lava.VarServer().vars)) == count
