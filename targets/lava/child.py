"""The child process of the device `lava`: runs one job under Lava's multiprocess runtime.

    python -m snn_compile.targets.lava.child FOLDER

FOLDER holds `program.snn`, `messages.npz` (input port to (batch, steps, size)) and `job.json`
(`probes`). On success it gains `result.npz`; otherwise `error.txt`, the reason in one line and then
the traceback. All samples run in one runtime, with every state set back between them.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from snn_compile.targets.program.program import Program

POLL_S = 0.05


def main(folder: Path) -> None:
    """Run the job in `folder`."""
    try:
        _run(folder)
    except BaseException as error:
        _report(folder, error)
        os._exit(1)  # no clean-up that waits for processes which wait for a dead one


def _run(folder: Path) -> None:
    multiprocessing.set_start_method("fork")  # Lava's process models are not made to be pickled
    from snn_compile.targets.lava.compat import load_lava
    from snn_compile.targets.lava.network import to_lava
    from snn_compile.targets.program.file import load_program

    lava = load_lava()
    program = load_program(folder / "program.snn")
    probes = json.loads((folder / "job.json").read_text())["probes"]
    with np.load(folder / "messages.npz") as archive:
        messages = {name: archive[name] for name in archive.files}
    batch, device_steps = next(iter(messages.values())).shape[:2]
    # One long tape for all samples: the time step of a runtime never goes back.
    network = to_lava(
        program, {name: data.reshape(batch * device_steps, -1) for name, data in messages.items()}
    )
    recorder = _recorder(lava, program, network, probes, batch * device_steps, folder / "result.part")
    lava.runtime.target_fn = _reporting(lava.runtime.target_fn, folder)
    recorder.create_runtime(run_cfg=lava.Loihi2SimCfg(select_tag="fixed_pt"))
    runtime = recorder.runtime
    over = _watch(folder, [actor.pid for actor in runtime._messaging_infrastructure.actors])
    # An input without a projection is no part of what runs.
    initial = [entry for entry in network.state() if entry[0].process.runtime is runtime]
    for sample in range(batch):
        if sample:
            for var, value in initial:
                var.set(value)
        recorder.run(condition=lava.RunSteps(num_steps=device_steps))
    over.set()
    (folder / "result.part").rename(folder / "result.npz")
    # Lava's shutdown sometimes closes a process that still ends; the parent ends what is left.
    with contextlib.suppress(ValueError):
        recorder.stop()


def _recorder(
    lava: SimpleNamespace, program: Program, network: Any, probes: list[str], steps: int, file: Path
) -> Any:
    from snn_compile.targets.lava.recorder import make_recorder

    states = {}
    for probe in probes:
        name, _, state = probe.rpartition(".")
        states[f"state/{probe}"] = getattr(network.populations[name], state)
    ports = {f"spikes/{name}": process.s_out for name, process in network.populations.items()}
    numbers = {f"spikes/{p.name}" for p in program.populations if p.graded}
    return make_recorder(lava, ports, states, numbers, steps, file)


def _reporting(function: Callable[..., None], folder: Path) -> Callable[..., None]:
    """Wrap what each of Lava's processes runs, so that one that fails says so itself."""

    def reporting(*args: Any, **options: Any) -> None:
        try:
            function(*args, **options)
        except BaseException as error:
            _report(folder, error)
            raise

    return reporting


def _report(folder: Path, error: BaseException) -> None:
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    _write_error(folder, reason, "".join(traceback.format_exception(error)))


def _write_error(folder: Path, reason: str, trace: str) -> None:
    part = folder / f"error.{os.getpid()}.{threading.get_ident()}"
    part.write_text(f"{reason}\n{trace}")
    with contextlib.suppress(FileExistsError):  # the first error is the cause of the others
        os.link(part, folder / "error.txt")


def _watch(folder: Path, pids: list[int]) -> threading.Event:
    """Watch Lava's processes from a thread until the returned event is set.

    A process that failed leaves the others, and Lava in this process, waiting for ever.
    """
    over, parent = threading.Event(), os.getppid()

    def watch() -> None:
        while not over.wait(POLL_S):
            if os.getppid() != parent:
                os._exit(1)
            for pid in pids:
                # WNOWAIT: look without collecting, which Lava will want to do.
                ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                if ended is not None and not over.is_set():
                    _write_error(folder, f"a Lava process ended early, status {ended.si_status}", "")
            if (folder / "error.txt").exists():
                os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    return over


if __name__ == "__main__":
    main(Path(sys.argv[1]))
