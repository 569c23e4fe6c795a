"""One recurrent layer and a leaky read-out: resonators, adaptive neurons, or an LSTM to compare with.

    i_t = W_in x_t + W_rec z_(t-1)       no bias; Xavier-uniform over [W_in, W_rec] as one matrix
    z_t                                  the layer's step (`neurons/rf_brf.py`, `neurons/alif.py`)
    y_t = a y_(t-1) + (1 - a) W_out z_t  a = exp(-1 / |tau|), a tau for every class

The LSTM has one layer of the same size and a linear head at every step. Initial values are those of Higuchi
et al. (2024).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from snn_compile.targets.errors import SnnCompileError
from snn_compile.train.configs.recurrent import RANGES, RECURRENT, Recurrence, range_fault
from snn_compile.train.kernels.fused import States, Weights, run_layer
from snn_compile.train.kernels.leaky import integrated
from snn_compile.train.networks.feedforward import Run, check_read
from snn_compile.train.neurons.alif import Adaptation
from snn_compile.train.neurons.rf_brf import Resonance, clamped, damping, izhikevich_step


@dataclass(frozen=True)
class RecurrentConfig(Recurrence):
    """Sizes and parameters of a recurrent layer with its read-out.

    `readout`: the deployed network's output, the mean over time, the last step, or every step;
    `task`: a class (classify), or the membranes themselves (regress). The mean leaves out the first `skip`
    steps.
    """

    inputs: int
    hidden: int
    classes: int
    readout: str = "mean"
    task: str = "classify"
    skip: int = 0

    def __post_init__(self) -> None:
        """Raise SnnCompileError for values out of range."""
        if self.neuron not in RECURRENT:
            raise SnnCompileError(f"neuron is {self.neuron!r}; use one of {', '.join(RECURRENT)}")
        check_read(self.readout, self.task, self.skip)
        for key in ("inputs", "hidden", "classes"):
            if getattr(self, key) < 1:
                raise SnnCompileError(f"{key} is {getattr(self, key)}; it must be at least 1")
        for key in RANGES:
            if fault := range_fault(key, getattr(self, key)):
                raise SnnCompileError(f"{key} is {getattr(self, key)}; it must be {fault}")
        self.resonance()
        Adaptation(self.adaptive_reset, surrogate=self.surrogate)
        fastest, largest = (max(map(abs, bounds)) for bounds in (self.omega, self.offset))
        slack = 2 * math.sqrt(max(0.0, 1 - (self.delta * fastest) ** 2))
        most = self.delta * (largest + 1 / (1 - Resonance.gamma))
        if self.neuron == "brf" and self.boundary and self.smooth_reset and most > slack:
            raise SnnCompileError(
                f"delta {self.delta:g}, omega to {fastest:g}, offset to {largest:g}: with q at its largest "
                f"the smooth reset damps by delta (b' + q) = {most:.3g}, past 2 sqrt(1 - (delta omega)^2) = "
                f"{slack:.3g}, where it makes the state grow; use a smaller delta or omega"
            )

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> RecurrentConfig:
        """Return the configuration that `dataclasses.asdict` made plain."""
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in plain.items()}
        return cls(**values)

    def resonance(self) -> Resonance:
        """Return the kind of resonator."""
        flags = (self.refractory, self.smooth_reset, self.boundary)
        flags = flags if self.neuron == "brf" else (False, False, False)
        return Resonance(*flags, delta=self.delta, surrogate=self.surrogate)


class LeakyReadout(nn.Module):
    """A read-out of leaky integrators; its input is (steps, batch, classes)."""

    def __init__(self, size: int, classes: int, tau: tuple[float, ...]) -> None:
        super().__init__()
        self.weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(classes, size)))
        self.tau = nn.Parameter(_normal(classes, tau))

    def forward(self, x: Tensor) -> Tensor:
        """Return the membranes of all steps for a weighted input."""
        return integrated(x, torch.exp(-1 / self.tau.abs()))


class RecurrentNetwork(nn.Module):
    """The network of a RecurrentConfig: (batch, steps, *shape) in, (batch, steps, classes) out."""

    def __init__(self, config: RecurrentConfig) -> None:
        super().__init__()
        self.config = config
        size, inputs = config.hidden, config.inputs
        if config.neuron == "lstm":
            self.lstm = nn.LSTM(inputs, size)
            self.head = nn.Linear(size, config.classes)
            return
        both = nn.init.xavier_uniform_(torch.empty(size, inputs + size))
        self.weight_in = nn.Parameter(both[:, :inputs].clone())
        self.weight_rec = nn.Parameter(both[:, inputs:].clone())
        if config.neuron == "alif":
            self.tau_membrane = nn.Parameter(_normal(size, config.tau_membrane))
            self.tau_adaptation = nn.Parameter(_normal(size, config.tau_adaptation))
        else:
            self.omega = nn.Parameter(_uniform(size, config.omega))
            self.offset = nn.Parameter(_uniform(size, config.offset))
        self.readout = LeakyReadout(size, config.classes, config.tau_readout)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the read-out of all steps."""
        return self.run(inputs, spikes=False).outputs

    def run(self, inputs: Tensor, formats: object = None, spikes: bool = True) -> Run:
        """Return the read-out with the layer's spikes, if asked for; an LSTM has none."""
        x = self.sequence(inputs)
        if self.config.neuron == "lstm":
            return Run(self.head(self.lstm(x)[0]).transpose(0, 1), {})
        o, z, _ = self.layer(x, spikes=spikes)
        outputs = self.readout(o).transpose(0, 1)
        return Run(outputs, {} if z is None else {"hidden": z.transpose(0, 1)})

    def sequence(self, inputs: Tensor) -> Tensor:
        """Return inputs (batch, steps, *shape) as (steps, batch, inputs).

        Raises SnnCompileError if they are of another size or type than the network.
        """
        if inputs.ndim < 3 or math.prod(inputs.shape[2:]) != self.config.inputs:
            raise SnnCompileError(
                f"the network takes (batch, steps, {self.config.inputs}), not {tuple(inputs.shape)}"
            )
        own = next(self.parameters()).dtype
        if inputs.dtype != own:
            raise SnnCompileError(f"the network computes in {own}, its input is {inputs.dtype}; convert it")
        return inputs.flatten(2).transpose(0, 1)

    def layer(
        self, x: Tensor, states: States | None = None, spikes: bool = True
    ) -> tuple[Tensor, Tensor | None, States | None]:
        """Return the read-out's input, (steps, batch, classes), the layer's spikes and last states."""
        config = self.config
        weights = Weights(self.weight_in, self.weight_rec, self.readout.weight)
        if config.neuron == "alif":
            alpha = torch.exp(-1 / self.tau_membrane.abs())
            rho = torch.exp(-1 / self.tau_adaptation.abs())
            kind = Adaptation(config.adaptive_reset, surrogate=config.surrogate)
            return run_layer(x, weights, (alpha, rho), kind, states, spikes)
        resonance = config.resonance()
        omega, b = damping(self.omega, self.offset, resonance)
        if config.neuron != "rf_iz":
            return run_layer(x, weights, (omega, b), resonance, states, spikes)
        none = x.new_zeros(x.shape[1], config.hidden)
        u, v, z = states or (none, none, none)
        out = []
        for now in nn.functional.linear(x, self.weight_in):
            incoming = now + nn.functional.linear(z, self.weight_rec)
            z, (u, v) = izhikevich_step(incoming, (u, v), omega, b, resonance)
            out.append(z)
        every = torch.stack(out)
        return nn.functional.linear(every, self.readout.weight), every, (u, v, z)

    def clamped(self) -> int:
        """Return how many resonators are too fast for the step and computed at the edge instead."""
        if self.config.neuron != "brf" or not self.config.boundary:
            return 0
        return clamped(self.omega, self.config.delta)

    def formats(self) -> dict[str, Any] | None:
        """Return None: the layer computes in floats."""
        return None


def _uniform(size: int, bounds: tuple[float, ...]) -> Tensor:
    return torch.empty(size).uniform_(*sorted(bounds))


def _normal(size: int, moments: tuple[float, ...]) -> Tensor:
    return torch.empty(size).normal_(*moments)
