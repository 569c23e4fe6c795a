"""The Program: what a device is loaded with.

Integers only, in device time. A spike emitted at device step t through a projection of delay d reaches
its target at t + 1 + d. A population whose `start_step` is r is inert before device step r (no input, no
decay, no bias, no spike) and its device step r + t is logical step t of the network. A program of period c
is c-slow: logical step t is device step r + c t, and between these the population is inert too, its
states held. Weight matrices are (target, source). A Program checks itself against its chip when built.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import isfinite, prod
from typing import Any

import numpy as np
import numpy.typing as npt

from snn_compile.targets.chips.chip import Chip, load_chip
from snn_compile.targets.chips.formats import LOIHI, Formats
from snn_compile.targets.errors import DoesNotFit, WrongInput, WrongProgram
from snn_compile.targets.program.digest import content_digest, encode
from snn_compile.targets.program.limits import chip_violations
from snn_compile.targets.program.population import Population
from snn_compile.targets.program.weights import WeightTable

SIGNALS = ("spikes", "membrane")
READOUTS = ("count", "mean", "last", "max", "per_step")
REDUCED = ("count", "mean", "max")
"""Readouts over several steps, which may leave out the first ones."""
TASKS = ("classify", "regress")


PERIOD_MAX = 1 << 12
"""Device steps of a logical step: a cycle needs no more of them than it has populations."""


def same_values(given: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """Whether one step of data has an input's values: axes of 1 and flattening do not matter."""
    core = [tuple(n for n in shape if n != 1) for shape in (given, wanted)]
    return core[0] == core[1] or (prod(given) == prod(wanted) and min(map(len, core)) <= 1)


def misfit(given: tuple[int, ...], wanted: tuple[int, ...], who: str) -> str:
    """Return why data of shape `given` are not (batch, steps, *wanted) for `who`, "" if they are."""
    if len(wanted) > 1 and given[1:] == wanted and given[2:] != wanted:
        return (
            f"data of shape {given} are one frame of {wanted} per sample, without steps; give (batch, steps, "
            f"{', '.join(map(str, wanted))}), or compile with --convention presented_steps=N to have each "
            "frame shown for N steps"
        )
    if len(given) < 2 or not same_values(given[2:], wanted):
        return f"data of shape {given}; the {who} takes (batch, steps, {', '.join(map(str, wanted))})"
    return ""


@dataclass(frozen=True, eq=False)
class Projection:
    """An edge between populations (or from an input port), split into tables that add up.

    `port`: which of the target model's input ports it reaches (`Model.ports`).
    """

    name: str
    source: str
    target: str
    tables: tuple[WeightTable, ...]
    delay_steps: int = 0
    port: int = 0


@dataclass(frozen=True)
class InputPort:
    """Where data enters; "spikes" are 0 or 1, "graded" messages are round(x * scale).

    Graded messages hold `bits` bits, or `bits` and a sign if `signed`; what lies outside is clipped.
    """

    name: str
    shape: tuple[int, ...]
    kind: str = "spikes"
    scale: float = 1.0
    bits: int = 1
    signed: bool = False
    start_step: int = 0

    def __post_init__(self) -> None:
        if self.kind not in ("spikes", "graded"):
            raise WrongProgram(f"input {self.name!r}: kind {self.kind!r}; use spikes or graded")
        if self.bits < 1 or not (isfinite(self.scale) and self.scale > 0):
            raise WrongProgram(
                f"input {self.name!r}: {self.bits} bits at scale {self.scale}; both must be above 0"
            )
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))

    @property
    def size(self) -> int:
        """Number of input channels."""
        return prod(self.shape)

    @property
    def limits(self) -> tuple[int, int]:
        """Lowest and highest message."""
        top = (1 << self.bits) - 1
        return (-top if self.signed else 0), top

    @property
    def largest_message(self) -> int:
        """The largest magnitude of a message."""
        return self.limits[1]

    def encode(self, inputs: npt.ArrayLike) -> tuple[npt.NDArray[np.int32], int]:
        """Return the messages (batch, steps, size) for inputs (batch, steps, *shape), and how many
        values were clipped. Raises WrongInput on another shape, a non-finite value, or a spike input
        that is neither 0 nor 1.
        """
        data = np.asarray(inputs)
        if data.dtype.kind not in "biuf":
            raise WrongInput(f"input {self.name!r}: values of type {data.dtype}; expected numbers")
        if why := misfit(data.shape, self.shape, "program"):
            raise WrongInput(f"input {self.name!r}: {why}", shape=data.shape, expected=self.shape)
        if 0 in data.shape:
            raise WrongInput(f"input {self.name!r}: data of shape {data.shape} holds nothing to run")
        if not np.isfinite(data).all():
            raise WrongInput(
                f"input {self.name!r}: data holds a value that is not finite, first at "
                f"{tuple(int(i) for i in np.argwhere(~np.isfinite(data))[0])}"
            )
        flat = data.reshape(data.shape[0], data.shape[1], -1)
        if self.kind == "spikes":
            binary = (flat == 0) | (flat == 1)
            if not binary.all():
                bad = float(flat[~binary][0])
                raise WrongInput(
                    f"input {self.name!r} takes spikes, 0 or 1, and got {bad:g}; compile "
                    "with calibration data of the same coding for graded input"
                )
            return flat.astype(np.int32), 0
        low, high = self.limits
        messages = np.rint(flat.astype(np.float64) * self.scale)
        clipped = int(np.count_nonzero((messages < low) | (messages > high)))
        return np.clip(messages, low, high).astype(np.int32), clipped


@dataclass(frozen=True)
class OutputPort:
    """What is read: a population's `signal` (spikes, membrane), reduced by `readout`, for `task`.

    count, mean and max leave out the first `skip` steps.
    """

    name: str
    population: str
    signal: str = "spikes"
    readout: str = "count"
    task: str = "classify"
    skip: int = field(default=0, metadata={"later": True})

    def __post_init__(self) -> None:
        for key, choices in (("signal", SIGNALS), ("readout", READOUTS), ("task", TASKS)):
            if getattr(self, key) not in choices:
                raise WrongProgram(
                    f"output {self.name!r}: {key} {getattr(self, key)!r}; use one of {', '.join(choices)}"
                )
        if type(self.skip) is not int or self.skip < 0 or (self.skip and self.readout not in REDUCED):
            raise WrongProgram(
                f"output {self.name!r}: skip {self.skip!r}; it must be a number of steps, and 0 for the "
                f"readout {self.readout}"
            )


@dataclass(frozen=True)
class Core:
    """One neurocore: its tile, the slices (population, start, stop) it holds, its use by resource."""

    index: int
    tile: tuple[int, int]
    slices: tuple[tuple[str, int, int], ...]
    use: Mapping[str, int]


@dataclass(frozen=True)
class Route:
    """Spikes of one slice go from `core` (-1: the host) to the cores `destinations`."""

    source: str
    start: int
    stop: int
    core: int
    destinations: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Program:
    """An integer network mapped onto a chip.

    `provenance` leads back to what it was made from. `period`: device steps per logical step. `formats`: the
    widths of the chip's integers, with which every device computes. `profile`: the chip itself, where it is
    none of this installation's. `chips`: how many of them it was mapped onto.
    """

    chip: str
    chip_version: int
    populations: tuple[Population, ...]
    projections: tuple[Projection, ...]
    inputs: tuple[InputPort, ...]
    outputs: tuple[OutputPort, ...]
    cores: tuple[Core, ...] = ()
    routes: tuple[Route, ...] = ()
    provenance: Mapping[str, str] = field(default_factory=dict)
    period: int = 1
    formats: Formats = field(default=LOIHI, metadata={"later": True})
    profile: Chip | None = field(default=None, metadata={"later": True})
    chips: int = field(default=1, metadata={"later": True})

    def __post_init__(self) -> None:
        chip = self.target
        if chip.version < self.chip_version:
            raise WrongProgram(
                f"compiled for {self.chip} version {self.chip_version}; this "
                f"installation has version {chip.version}; compile again"
            )
        if chip.version == self.chip_version and chip.formats != self.formats:
            raise WrongProgram(f"its number formats are not those of {chip.title}; compile again")
        if not 1 <= self.period <= PERIOD_MAX:
            raise WrongProgram(
                f"a period of {self.period} device steps per logical step; 1 to {PERIOD_MAX} are possible"
            )
        self._check_names()
        violations = chip_violations(self, chip)
        if violations:
            raise DoesNotFit(
                f"{len(violations)} violation(s) of {chip.heading}: " + "; ".join(violations),
                violations=violations,
            )

    def _check_names(self) -> None:
        names = [p.name for p in self.populations] + [p.name for p in self.inputs]
        if len(set(names)) != len(names):
            raise WrongProgram("two populations or inputs share a name")
        if len({edge.name for edge in self.projections}) != len(self.projections):
            raise WrongProgram("two projections share a name")
        for node in self.nodes:
            if node.size < 1 or node.start_step < 0:
                raise WrongProgram(
                    f"{node.name!r} has shape {node.shape} and start step "
                    f"{node.start_step}; it needs a neuron and a step from 0 on"
                )
        for edge in self.projections:
            if edge.source not in names or edge.target not in names or edge.target in self._inputs:
                raise WrongProgram(
                    f"projection {edge.name!r} joins {edge.source!r} to "
                    f"{edge.target!r}, and one of them is not there"
                )
            target = self._populations[edge.target]
            if not 0 <= edge.port < len(ports := target.kind.ports):
                raise WrongProgram(
                    f"projection {edge.name!r} reaches port {edge.port} of {edge.target!r}; model "
                    f"{target.model} has {', '.join(f'{i} ({name})' for i, name in enumerate(ports))}"
                )
            shape = (self.size(edge.target), self.size(edge.source))
            if not edge.tables:
                raise WrongProgram(f"projection {edge.name!r} has no weight table")
            for table in edge.tables:
                if table.shape != shape:
                    raise WrongProgram(
                        f"projection {edge.name!r}: weights {table.shape}; its ends need {shape}"
                    )
            arrival = self.start_step(edge.source) + 1 + edge.delay_steps
            if edge.delay_steps < 0 or arrival < self.start_step(edge.target):
                raise WrongProgram(
                    f"projection {edge.name!r} reaches {edge.target!r} at device step "
                    f"{arrival}, before its start step "
                    f"{self.start_step(edge.target)}"
                )
            if (between := (arrival - self.start_step(edge.target)) % self.period) != 0:
                raise WrongProgram(
                    f"projection {edge.name!r} reaches {edge.target!r} {between} device step(s) after one of "
                    f"its logical steps, which lie {self.period} apart; no message would reach it then"
                )
            source = self._populations.get(edge.source)
            if source and not source.spiking and not all(t.message_bits for t in edge.tables):
                raise WrongProgram(
                    f"projection {edge.name!r} starts at {edge.source!r}, which never spikes and sends its "
                    "membrane: its tables need message_bits"
                )
        for port in self.outputs:
            if port.population not in self._populations:
                raise WrongProgram(f"output {port.name!r} reads {port.population!r}, which is not there")
            if port.signal == "spikes" and not self._populations[port.population].spiking:
                raise WrongProgram(
                    f"output {port.name!r} reads spikes of {port.population!r}, "
                    "which never spikes; read its membrane"
                )
            if port.signal == "membrane" and not self._populations[port.population].kind.membrane:
                raise WrongProgram(
                    f"output {port.name!r} reads the membrane of {port.population!r}, which keeps none; "
                    "read its spikes"
                )
        if not self.inputs or not self.outputs:
            raise WrongProgram("a program needs at least one input and one output")

    @cached_property
    def target(self) -> Chip:
        """The chip that the program was compiled for."""
        return (self.profile or load_chip(self.chip)).times(self.chips)

    @property
    def nodes(self) -> tuple[Population | InputPort, ...]:
        """Everything that can be a projection's source: populations, then inputs."""
        return (*self.populations, *self.inputs)

    @cached_property
    def _populations(self) -> dict[str, Population]:
        return {p.name: p for p in self.populations}

    @cached_property
    def _inputs(self) -> dict[str, InputPort]:
        return {p.name: p for p in self.inputs}

    def population(self, name: str) -> Population:
        """Return a population by name; raises WrongInput with the names there are."""
        if name not in self._populations:
            raise WrongInput(f"no population {name!r}; there are {', '.join(self._populations)}", name=name)
        return self._populations[name]

    def size(self, name: str) -> int:
        """Return the number of neurons of a population, or of channels of an input."""
        return self._inputs[name].size if name in self._inputs else self._populations[name].size

    def start_step(self, name: str) -> int:
        """Return the device step at which a population or input begins logical step 0."""
        port = self._inputs.get(name)
        return port.start_step if port else self._populations[name].start_step

    @cached_property
    def senders(self) -> tuple[Population, ...]:
        """Populations that send messages: those that spike, and those that a projection reads."""
        sources = {edge.source for edge in self.projections}
        return tuple(p for p in self.populations if p.spiking or p.name in sources)

    def tables(self, projection: Projection | str) -> tuple[WeightTable, ...]:
        """Return the weight tables that a projection was split into."""
        if isinstance(projection, Projection):
            return projection.tables
        return next(p.tables for p in self.projections if p.name == projection)

    @cached_property
    def latency_steps(self) -> int:
        """Device steps beyond the logical ones that a run takes: the largest start step."""
        return max(node.start_step for node in self.nodes)

    @cached_property
    def mapping_note(self) -> str:
        """Return one line if the program was mapped under an older version of its chip, else ""."""
        version = self.target.version
        if version == self.chip_version:
            return ""
        return (
            f"mapped under {self.chip} version {self.chip_version}, and this installation has version "
            f"{version}: results stay the same, cores and costs are those of the old version; compile again "
            "to map it anew"
        )

    def device_steps(self, steps: int) -> int:
        """Return the device steps of a run of `steps` logical steps, pipeline fill and drain included."""
        return self.latency_steps + (steps - 1) * self.period + 1

    def logical_steps(self, device_steps: int) -> int:
        """Return the logical steps of a run of so many device steps: what `device_steps` was made from."""
        return (device_steps - 1 - self.latency_steps) // self.period + 1

    @cached_property
    def _digest(self) -> str:
        return content_digest(*encode(self))

    def digest(self) -> str:
        """Return the SHA-256 of the program's content."""
        return self._digest

    def save(self, path: Any) -> None:
        """Write the program to one file, whole or not at all; raises WrongProgram where it cannot be."""
        from snn_compile.targets.program.file import save_program

        save_program(self, path)

    def describe(self) -> str:
        """Return the program as text for people and golden tests."""
        from snn_compile.targets.program.describe import describe

        return describe(self)
