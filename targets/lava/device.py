"""The device `lava`: a program under lava-nc's own runtime, the independent witness.

The runtime lives in a child process with a time limit, because an exception inside a Lava process
leaves Lava waiting for ever. Program and messages go there as files; a session of its own lets
everything that Lava started be ended with it.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from snn_compile.targets.devices.record import DeviceRun
from snn_compile.targets.errors import DeviceError
from snn_compile.targets.lava.compat import load_lava
from snn_compile.targets.program.program import Program

# A limit is for runs that hang, so these are some 30 times what a busy machine was seen to take.
START_S = 60.0
PROCESS_STEP_S = 0.01
SYNAPSE_STEP_S = 1e-7
SPARSE_DELAY_STEP_S = 0.02
"""Lava lays a delayed sparse table out anew at every step, a matrix for every delay."""
GRACE_S = 5.0


class Lava:
    """Runs the processes of `to_lava` under Lava's multiprocess runtime, one for all samples.

    `time_limit_s`: when to give up; by default far above what the work should take.
    """

    name = "lava"

    def __init__(self, time_limit_s: float | None = None) -> None:
        if time_limit_s is not None and not time_limit_s > 0:
            raise DeviceError(f"a time limit of {time_limit_s} s; it must be above 0", device=self.name)
        self.time_limit_s = time_limit_s
        load_lava()

    def run(
        self,
        program: Program,
        messages: Mapping[str, npt.NDArray[np.int32]],
        device_steps: int,
        probes: Sequence[str],
    ) -> DeviceRun:
        """Run the samples one by one; see `Device.run`. Lava counts no overflows."""
        from snn_compile.targets.lava.network import implementations

        batch = next(iter(messages.values())).shape[0]
        limit = self.time_limit_s or time_limit(program, batch * device_steps)
        with tempfile.TemporaryDirectory(prefix="snn-lava-") as name:
            folder = Path(name)
            program.save(folder / "program.snn")
            with (folder / "messages.npz").open("wb") as stream:
                np.savez(stream, **messages)  # type: ignore[arg-type]
            (folder / "job.json").write_text(json.dumps({"probes": list(probes)}))
            self._run_child(folder, limit)
            with np.load(folder / "result.npz") as archive:
                arrays = {key: archive[key].reshape(batch, device_steps, -1) for key in archive.files}
        return DeviceRun.from_dense(
            program,
            {p.name: arrays[f"spikes/{p.name}"] for p in program.senders},
            {probe: arrays[f"state/{probe}"] for probe in probes},
            witness=implementations(program),
        )

    def _run_child(self, folder: Path, limit: float) -> None:
        paths = [path or os.getcwd() for path in sys.path]
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(paths),
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
        }
        log = folder / "log.txt"
        # Every descendant holds the pipe's other end: it closes when all of them are gone.
        ending, held = os.pipe()
        with log.open("wb") as stream:
            child = subprocess.Popen(
                [sys.executable, "-m", "snn_compile.targets.lava.child", str(folder)],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                env=environment,
                start_new_session=True,
                pass_fds=(held,),
            )
        os.close(held)
        try:
            code = child.wait(limit)
        except subprocess.TimeoutExpired:
            raise DeviceError(
                f"Lava did not finish within {limit:g} s; allow more with time_limit_s, or run fewer samples",
                device=self.name,
                time_limit_s=limit,
            ) from None
        finally:
            _end_session(child, ending)
            os.close(ending)
        if code != 0 or not (folder / "result.npz").exists():
            report = folder / "error.txt"
            trace = (report if report.exists() else log).read_text(errors="replace")
            lines = trace.split("\n") if report.exists() else trace.strip().split("\n")[::-1]
            raise DeviceError(
                f"Lava failed: {lines[0] or f'exit code {code}'}", device=self.name, trace=trace
            )


def time_limit(program: Program, steps: int) -> float:
    """Return seconds after which a run of `steps` device steps in total is given up as hanging."""
    tables = [(edge, table) for edge in program.projections for table in edge.tables]
    processes = 2 + len(tables) + len(program.populations) + len(program.inputs)
    synapses: int = sum(table.weights.size * (edge.delay_steps + 1) for edge, table in tables)
    delays: int = sum(edge.delay_steps for edge, table in tables if table.sparse)
    step = PROCESS_STEP_S * processes + SYNAPSE_STEP_S * synapses + SPARSE_DELAY_STEP_S * delays
    return START_S + steps * step


def _end_session(child: subprocess.Popen[bytes], ending: int) -> None:
    """End whatever the child has left running; `ending` becomes readable when nothing is.

    Python's tracker of shared memory ignores the first, polite signal: it removes the segments of
    those that the signal ended, then leaves by itself.
    """
    over = GRACE_S if child.poll() == 0 else 0.0
    for number in (signal.SIGTERM, signal.SIGKILL):
        if select.select([ending], [], [], over)[0]:
            break
        os.killpg(child.pid, number)
        over = GRACE_S
    child.wait()
