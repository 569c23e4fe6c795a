"""The device `lava-stepped`: Lava's own process models, stepped one after another in this process.

The models are those that Lava's run configuration picks for the processes of `to_lava`, with Lava's
own ports; only the channels between them and the order of calls are written here. A synapse process sends
what it computed a step before, so publishing all synapse buffers, then stepping all neurons, then
all synapses is the order that Lava's runtime settles into. It is the bulk witness: no children,
no waiting.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

from snn_compile.targets.devices.record import DeviceRun
from snn_compile.targets.errors import DeviceError
from snn_compile.targets.lava.compat import load_lava, tidy_processes
from snn_compile.targets.program.program import Program


class LavaStepped:
    """Steps Lava's process models of a program without Lava's runtime."""

    name = "lava-stepped"

    def __init__(self) -> None:
        self._lava = load_lava()

    def run(
        self,
        program: Program,
        messages: Mapping[str, npt.NDArray[np.int32]],
        device_steps: int,
        probes: Sequence[str],
    ) -> DeviceRun:
        """Run the samples one by one; see `Device.run`. Overflows are not counted by Lava."""
        running = self.open(program, probes)
        batch = next(iter(messages.values())).shape[0]
        parts = []
        for sample in range(batch):
            running.reset()
            parts.append(running.traces({name: data[sample] for name, data in messages.items()}, sample))
        return running.device_run(parts)

    def open(self, program: Program, probes: Sequence[str] = ()) -> LavaSteppedRun:
        """Return the program ready to be stepped in parts; see `SteppedDevice.open`."""
        return LavaSteppedRun(self._lava, program, probes)


Traces = tuple[dict[str, npt.NDArray[Any]], dict[str, npt.NDArray[np.int32]]]
"""Messages by population and states by probe, (steps, size), of one sample."""


class LavaSteppedRun:
    """A program in Lava's process models: one sample, its states kept between parts of a run."""

    def __init__(self, lava: SimpleNamespace, program: Program, probes: Sequence[str]) -> None:
        from snn_compile.targets.lava.network import to_lava

        with tidy_processes(lava, forget=True):
            network = to_lava(program)
            self._stepper = _Stepper(lava, network)
        self._program, self._probes, self._witness = program, tuple(probes), network.witness
        self.reset()

    def reset(self) -> None:
        """Go back to the initial state and to device step 0."""
        self._stepper.reset()
        self._done = 0

    def advance(
        self, messages: Mapping[str, npt.NDArray[np.int32]], logical_steps: int | None = None
    ) -> DeviceRun:
        """Run the next device steps; see `Opened.advance`. Overflows are not counted by Lava."""
        return self.device_run([self.traces({name: data[0] for name, data in messages.items()})])

    def traces(self, messages: Mapping[str, npt.NDArray[np.int32]], sample: int = 0) -> Traces:
        """Run the next device steps with messages (steps, size); return what was sent and probed."""
        stepper, program = self._stepper, self._program
        steps = len(next(iter(messages.values())))
        stepper.load(messages, self._done)
        rasters: dict[str, npt.NDArray[Any]] = {
            p.name: np.zeros((steps, p.size), np.int32 if p.graded else np.uint8) for p in program.senders
        }
        states = {
            probe: np.zeros((steps, program.size(probe.rpartition(".")[0])), np.int32)
            for probe in self._probes
        }
        for step in range(steps):
            try:
                stepper.step()
            except Exception as error:
                raise DeviceError(
                    f"{type(error).__name__} in Lava's process model at sample "
                    f"{sample}, device step {self._done + step}: {error}",
                    device=LavaStepped.name,
                    sample=sample,
                    step=self._done + step,
                ) from error
            for name, raster in rasters.items():
                raster[step] = stepper.sent[name].data
            for probe, trace in states.items():
                name, _, state = probe.rpartition(".")
                trace[step] = getattr(stepper.neurons[name], state)
        self._done += steps
        return rasters, states

    def device_run(self, parts: Sequence[Traces]) -> DeviceRun:
        """Return the samples' traces as a device's answer."""
        return DeviceRun.from_dense(
            self._program,
            {p.name: np.stack([sent[p.name] for sent, _ in parts]) for p in self._program.senders},
            {probe: np.stack([states[probe] for _, states in parts]) for probe in self._probes},
            witness=self._witness,
        )


class _Channel:
    """Stands in for Lava's channel: holds the last message as int32, which casts as Lava's does."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.data = np.zeros(shape, np.int32)

    def send(self, data: npt.NDArray[Any]) -> None:
        self.data[:] = data

    def recv(self) -> npt.NDArray[np.int32]:
        return self.data.copy()


class _Stepper:
    """Process models of a network, wired with channels."""

    def __init__(self, lava: SimpleNamespace, network: Any) -> None:
        self._models: dict[Any, Any] = {}
        self.sent: dict[str, _Channel] = {}
        config = lava.Loihi2SimCfg(select_tag="fixed_pt")
        processes = (*network.inputs.values(), *network.populations.values(), *network.tables.values())
        for process in processes:
            kind = config.select(process, lava.ProcGroupDiGraphs._find_proc_models(process))
            self._models[process] = _build(kind, process)
        channels = {process: _Channel(_out_port(process).shape) for process in processes}
        for process in processes:
            self._wire(lava, process, channels)
        self.neurons = {name: self._models[p] for name, p in network.populations.items()}
        self.sent = {name: channels[p] for name, p in network.populations.items()}
        self._inputs = {name: self._models[p] for name, p in network.inputs.items()}
        self._synapses = [(self._models[p], channels[p]) for p in network.tables.values()]
        self._first = (*self._inputs.values(), *self.neurons.values())
        self._initial = [(self._models[var.process], var.name, value) for var, value in network.state()]
        for model, _ in self._synapses:
            if hasattr(model, "get_delay_wgts_mat"):
                model.get_delay_wgts_mat = _computed_once(model.get_delay_wgts_mat)

    def _wire(self, lava: SimpleNamespace, process: Any, channels: Mapping[Any, _Channel]) -> None:
        model = self._models[process]
        for port in process.in_ports.members:
            kind = getattr(type(model), port.name)
            sources = [channels[source.process] for source in port.get_src_ports()]
            setattr(
                model,
                port.name,
                kind.cls(sources, model, port.shape, kind.d_type, lava.IdentityTransformer()),
            )
        port = _out_port(process)
        kind = getattr(type(model), port.name)
        setattr(model, port.name, kind.cls([channels[process]], model, port.shape, kind.d_type))

    def reset(self) -> None:
        """Put every state back to its initial value."""
        for model, name, value in self._initial:
            setattr(model, name, value.copy())
        for model in self._models.values():
            model.time_step = 0

    def load(self, messages: Mapping[str, npt.NDArray[np.int32]], done: int) -> None:
        """Give the inputs the messages (steps, size) of the steps from `done` on; they repeat their data."""
        for name, data in messages.items():
            self._inputs[name].data = np.roll(data.T, done % len(data), axis=1)

    def step(self) -> None:
        """Advance all processes by one device step."""
        for synapses, channel in self._synapses:
            buffer = synapses.a_buff
            channel.send(buffer if buffer.ndim == 1 else buffer[:, 0])
        for model in self._first:
            model.time_step += 1
            model.run_spk()
        for synapses, _ in self._synapses:
            synapses.time_step += 1
            synapses.run_spk()


def _out_port(process: Any) -> Any:
    return process.out_ports.members[0]


def _build(kind: Any, process: Any) -> Any:
    """Return a process model with Vars as Lava's builder makes them.

    Arrays are cast to the model's type, scalars stay as they are.
    """
    model = kind(process.proc_params)
    for var in process.vars.members:
        declared = getattr(kind, var.name)
        value = var.init
        if issubclass(declared.cls, np.ndarray):
            value = np.zeros(var.shape, declared.d_type)
            value[:] = var.init
        setattr(model, var.name, value)
    return model


def _computed_once(function: Callable[..., Any]) -> Callable[..., Any]:
    """Keep the last result: Lava spreads its constant weights over delays anew every step."""
    last: list[Any] = [None, None]

    def remembered(weights: Any, delays: Any, max_delay: int) -> Any:
        if last[0] is not weights:
            last[:] = [weights, function(weights, delays, max_delay)]
        return last[1]

    return remembered
