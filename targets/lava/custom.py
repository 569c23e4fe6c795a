"""The Lava process of any neuron model that Lava has no process for: the model's oracle class inside one.

Ports and states are those of the model's description; ports, channels and the runtime are Lava's, the step
is the oracle's. So a custom model runs on the Lava devices without a line here, and a comparison of the two
tells about the wiring, not about the step: such a process is no independent implementation. Importing this
module also imports lava.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from snn_compile.targets.chips.formats import Formats
from snn_compile.targets.lava.clock import is_logical_step, pass_silently
from snn_compile.targets.lava.compat import load_lava
from snn_compile.targets.oracle.neurons import make_neurons
from snn_compile.targets.program.models import MODELS
from snn_compile.targets.program.population import Population

_lava = load_lava()


def custom_process(population: Population, period: int, formats: Formats) -> Any:
    """Return the process of a population: the input ports and states of its model, `s_out` and `clock`."""
    return _process_class(population.model)(population=population, period=period, formats=formats)


@cache
def _process_class(model: str) -> Any:
    """Return the class of a model's process; its process model is registered with Lava."""
    states, ports = MODELS[model].states, MODELS[model].ports

    class Custom(_lava.AbstractProcess):  # type: ignore[misc, name-defined]
        def __init__(self, *, population: Population, period: int, formats: Formats) -> None:
            super().__init__(population=population, period=period, formats=formats, name=population.name)
            shape = (population.size,)
            for port in ports:
                setattr(self, port, _lava.InPort(shape=shape))
            self.s_out = _lava.OutPort(shape=shape)
            initial = make_neurons(population, 1, formats)
            for state in states:
                setattr(self, state, _lava.Var(shape=shape, init=getattr(initial, state)[0]))
            self.clock = _lava.Var(shape=(1,), init=0)

    class PyCustomModel(_lava.PyLoihiProcessModel):  # type: ignore[misc, name-defined]
        s_out = _lava.LavaPyType(_lava.PyOutPort.VEC_DENSE, np.int32)
        clock = _lava.LavaPyType(np.ndarray, np.int32)

        def __init__(self, proc_params: Any) -> None:
            super().__init__(proc_params)
            self.population: Population = proc_params["population"]
            self.period: int = proc_params["period"]
            self.neurons = make_neurons(self.population, 1, proc_params["formats"])

        def run_spk(self) -> None:
            if not is_logical_step(self):
                pass_silently(self)
                return
            # The Vars hold the states between steps: Lava sets them back between samples.
            for state in states:
                setattr(self.neurons, state, getattr(self, state).astype(np.int64)[None])
            received = [getattr(self, port).recv().astype(np.int32) for port in ports]
            sent = self.neurons.step([values.astype(np.int64)[None] for values in received])
            for state in states:
                getattr(self, state)[:] = getattr(self.neurons, state)[0]
            self.s_out.send(sent[0].astype(np.int32))

    for port in ports:
        setattr(PyCustomModel, port, _lava.LavaPyType(_lava.PyInPort.VEC_DENSE, np.int32))
    for state in states:
        setattr(PyCustomModel, state, _lava.LavaPyType(np.ndarray, np.int32))
    for decorate in (
        _lava.implements(proc=Custom, protocol=_lava.LoihiProtocol),
        _lava.requires(_lava.CPU),
        _lava.tag("fixed_pt"),
    ):
        decorate(PyCustomModel)
    _lava.model_classes[Custom] = [PyCustomModel]
    return Custom
