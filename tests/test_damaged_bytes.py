"""Damaged bytes: whatever is cut off or flipped in a file, reading it gives what it holds, or one error of
ours. A child process with limits of time and memory does the reading, so that a hang, a crash of a library
or an allocation without bound fails a test and not the suite."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nir
import numpy as np
import pytest
from support import event_folders
from support.netx_files import write as write_net

MODEL = """
from snn_compile.compiler import lower
from snn_compile.compiler.cli.model import load_model

def read(path, stated):
    lower(load_model(path).graph, stated)
"""
DATA = """
from snn_compile.runtime import load_data

def read(path, stated):
    load_data(stated["name"], "test", steps=4, shrink=2)
"""
CHILD = """
import json, logging, resource, sys, warnings
from pathlib import Path
import numpy as np
from snn_compile.targets.errors import SnnCompileError

source, work, count, seed, extra = Path(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[3:6])
warnings.simplefilter("ignore")
logging.disable(logging.CRITICAL)
whole = np.frombuffer(source.read_bytes(), np.uint8)
stated = json.loads(sys.argv[6])
work.write_bytes(whole.tobytes())
read(work, stated)  # what is to be imported is there before memory is limited
taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (taken + extra, taken + extra))
rng = np.random.default_rng(seed)
found = {"read": 0, "refused": 0, "bad": []}
for turn in range(count):
    damaged = whole.copy()
    if turn % 4 == 0:
        damaged = damaged[: rng.integers(0, len(whole))]
    elif turn % 4 == 1:
        damaged[rng.integers(0, len(whole))] ^= 1 << rng.integers(0, 8)
    elif turn % 4 == 2:
        places = rng.integers(0, len(whole), rng.integers(2, 40))
        damaged[places] = rng.integers(0, 256, len(places))
    else:  # a number of the format made huge, small or negative
        start = rng.integers(0, len(whole) - 8)
        damaged[start : start + rng.integers(1, 9)] = rng.choice([0, 1, 127, 128, 255])
    work.write_bytes(damaged.tobytes())
    try:
        read(work, stated)
        found["read"] += 1
    except SnnCompileError as error:
        found["refused"] += 1
        if "\\n" in str(error) or len(str(error)) > 1500:
            found["bad"].append([turn, str(error)])
    except BaseException as error:
        found["bad"].append([turn, repr(error)])
print(json.dumps(found))
"""


def write_nir(path: Path) -> dict[str, object]:
    rng = np.random.default_rng(1)
    nodes = {
        "input": nir.Input({"input": np.array([1, 5, 5])}),
        "conv": nir.Conv2d((5, 5), rng.normal(size=(2, 1, 3, 3)), 1, 0, 1, 1, rng.normal(size=2)),
        "flat": nir.Flatten({"input": np.array([2, 3, 3])}, 0, -1),
        "lif": nir.LIF(*(np.full(18, value) for value in (4.0, 1.5, 0.0, 0.7))),
        "fc": nir.Affine(rng.normal(size=(3, 18)), rng.normal(size=3)),
        "li": nir.LI(*(np.full(3, value) for value in (4.0, 1.5, 0.0))),
        "output": nir.Output({"output": np.array([3])}),
    }
    names = list(nodes)
    nir.write(path, nir.NIRGraph(nodes, list(zip(names, names[1:], strict=False))), compression=None)
    return {"dt": 1, "rule": "euler", "reset": "value", "reset_timing": "same_step", "comparison": ">"}


def net_layers() -> list[dict[str, object]]:
    weight = np.random.default_rng(2).integers(-40, 60, (4, 6)).astype(np.float32)
    neuron = {"type": "CUBA", "iDecay": 4096, "vDecay": 1024, "vThMant": 25, "refDelay": 1}
    layers: list[dict[str, object]] = [{"type": "input", "shape": [6, 1, 1]}]
    return [*layers, {"type": "dense", "shape": [4, 1, 1], "weight": weight, "neuron": neuron}]


def write_pt(path: Path) -> dict[str, object]:
    import torch

    from snn_compile.train import LayerConfig, NetworkConfig, SpikingNetwork, save_checkpoint

    torch.manual_seed(3)
    layers = (LayerConfig(5, "cuba_lif"), LayerConfig(3, "li", beta=0.8))
    save_checkpoint(path, SpikingNetwork(NetworkConfig((4,), layers)), torch.zeros(1, 1, 4), dt=1e-3)
    return {}


@pytest.mark.parametrize("suffix, write, least", [(".nir", write_nir, 80), (".pt", write_pt, 100)])
def test_damaged_bytes_give_a_network_or_one_error(
    tmp_path: Path, suffix: str, write: Callable[[Path], dict[str, object]], least: int
) -> None:
    whole = tmp_path / f"whole{suffix}"
    stated = write(whole)
    read_damaged(MODEL, whole, tmp_path / f"damaged{suffix}", stated, least)


def test_damaged_bytes_of_a_net_give_a_network_or_one_error(tmp_path: Path) -> None:
    whole = write_net(tmp_path / "whole.net", net_layers())
    read_damaged(MODEL, whole, tmp_path / "damaged.net", {}, 60)


EVENTS = {
    "shd": ("write_shd", "shd_test.h5", 40),
    "n-mnist": ("write_n_mnist", "Test/3/00000.bin", 40),
    "dvs-gesture": ("write_gesture_recordings", "test0_fluorescent.aedat", 100),
    "dvs-gesture arrays": ("write_gestures", "ibmGestureTest/user01_led/4.npy", 60),
    "cifar10-dvs": ("write_cifar10_dvs", "airplane/cifar10_airplane_0.aedat", 20),
    "cifar10-dvs aedat4": ("write_aedat4", "airplane/cifar10_airplane_0.aedat4", 60),
}


@pytest.mark.parametrize("kind", EVENTS)
def test_damaged_bytes_give_events_or_one_error(tmp_path: Path, kind: str) -> None:
    write, file, least = EVENTS[kind]
    folder = tmp_path / "set"
    folder.mkdir()
    getattr(event_folders, write)(folder)
    whole = tmp_path / "whole"
    whole.write_bytes((folder / file).read_bytes())
    read_damaged(DATA, whole, folder / file, {"name": f"{kind.split()[0]}:{folder}"}, least)


def read_damaged(reader: str, whole: Path, damaged: Path, stated: dict[str, object], least: int) -> None:
    numbers = ["240", "7", str(1 << 30)]  # turns, seed, bytes of memory that may be taken besides
    arguments = [str(whole), str(damaged), *numbers, json.dumps(stated)]
    command = [sys.executable, "-X", "faulthandler", "-c", reader + CHILD, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["bad"] == []
    assert found["read"] + found["refused"] == 240 and found["refused"] >= least and found["read"] > 10
