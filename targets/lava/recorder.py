"""A Lava process that records: all messages of all populations, and probed states.

It only reads the ports and Vars of the network, and writes one `.npz` from its own operating
system process when the last step is over; reading the same through Lava's `Var.get` takes a message
for every number. It also joins parts of a network that are not connected, which Lava would not run
together.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np


def make_recorder(
    lava: SimpleNamespace,
    ports: Mapping[str, Any],
    states: Mapping[str, Any],
    numbers: Set[str],
    steps: int,
    file: Path,
) -> Any:
    """Return a process connected to out-ports (messages) and Vars (states) of other processes.

    After `steps` steps it writes `file`: under each name an array (steps, size), uint8 for spikes,
    int32 for states and for messages whose name is among `numbers`.
    """
    spikes = ports.keys() - numbers
    inputs = {f"port_{index}": name for index, name in enumerate(ports)}
    references = {f"state_{index}": name for index, name in enumerate(states)}

    class Recorder(lava.AbstractProcess):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__(name="recorder")
            for attribute, name in inputs.items():
                setattr(self, attribute, lava.InPort(shape=ports[name].shape))
            for attribute, name in references.items():
                setattr(self, attribute, lava.RefPort(shape=states[name].shape))

    class PyRecorderModel(lava.PyLoihiProcessModel):  # type: ignore[misc, name-defined]
        def __init__(self, proc_params: Any) -> None:
            super().__init__(proc_params)
            shapes = {name: port.shape for name, port in (*ports.items(), *states.items())}
            self.traces = {
                name: np.zeros((steps, *shape), np.uint8 if name in spikes else np.int32)
                for name, shape in shapes.items()
            }

        def run_spk(self) -> None:
            for attribute, name in inputs.items():
                self.traces[name][self.time_step - 1] = getattr(self, attribute).recv()
            if not references:
                self._finish()

        def post_guard(self) -> bool:
            return bool(references)

        def run_post_mgmt(self) -> None:
            for attribute, name in references.items():
                self.traces[name][self.time_step - 1] = getattr(self, attribute).read()
            self._finish()

        def _finish(self) -> None:
            if self.time_step == steps:
                with file.open("wb") as stream:
                    np.savez(stream, **self.traces)  # type: ignore[arg-type]

    for attribute in inputs:
        setattr(PyRecorderModel, attribute, lava.LavaPyType(lava.PyInPort.VEC_DENSE, np.int32))
    for attribute in references:
        setattr(PyRecorderModel, attribute, lava.LavaPyType(lava.PyRefPort.VEC_DENSE, np.int32))
    for decorate in (
        lava.implements(proc=Recorder, protocol=lava.LoihiProtocol),
        lava.requires(lava.CPU),
        lava.tag("fixed_pt"),
    ):
        decorate(PyRecorderModel)
    lava.model_classes[Recorder] = [PyRecorderModel]
    recorder = Recorder()
    for attribute, name in inputs.items():
        ports[name].connect(getattr(recorder, attribute))
    for attribute, name in references.items():
        getattr(recorder, attribute).connect_var(states[name])
    return recorder
