"""A program beside its network: tensors, projections and scales of both, in the program's units."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from snn_compile.targets.chips.formats import Formats
from snn_compile.targets.program.population import Population as IntegerPopulation
from snn_compile.targets.program.program import InputPort, Program
from snn_compile.targets.program.program import Projection as IntegerProjection

if TYPE_CHECKING:
    from snn_compile.compiler.network import Network

Float: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Tensor:
    """One tensor of both sides, flat, in the program's units: `ideal` is the network's, `kept` the program's.

    `lsb` is the last bit of the program's format, `network` holds the network's own numbers, and `to_network`
    converts the program's units into the network's.
    """

    network: Float
    ideal: Float
    kept: Float
    lsb: Float
    to_network: Float

    def error_lsb(self) -> Float:
        """Return kept - ideal in last bits."""
        error: Float = (self.kept - self.ideal) / self.lsb
        return error


@dataclass(frozen=True, eq=False)
class Edge:
    """A projection of both sides, with logical delays.

    `network_weight`: the network's own weights (target, source). `tables`: all tables of the program
    except the last, as matrices, and `exponents` those of all tables. `top`: for every weight the largest
    magnitude that its tables hold together. `made`: the program's projection, or None.
    """

    name: str
    source: str
    target: str
    network_weight: Any
    weight: Tensor
    shape: tuple[int, int]
    sparse: Any
    network_delay: int
    program_delay: int
    tables: tuple[Any, ...] = ()
    exponents: tuple[int, ...] = ()
    bits: tuple[int, ...] = ()
    top: Float | None = None
    made: IntegerProjection | None = None
    port: int = 0

    @property
    def floors(self) -> tuple[bool, ...]:
        """For every table whether its sum is shifted right, which floors it."""
        return tuple(exponent < 0 for exponent in self.exponents)

    @property
    def places(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Rows (targets) and columns (sources) of the flat weights."""
        if self.sparse is None:
            rows, columns = np.indices(self.shape)
            return rows.reshape(-1), columns.reshape(-1)
        rows = np.repeat(np.arange(self.shape[0]), np.diff(self.sparse.indptr))
        return rows, self.sparse.indices.astype(np.int64)

    def matrix(self, values: npt.NDArray[Any]) -> Any:
        """Return flat values as a matrix (target, source)."""
        if self.sparse is None:
            return values.reshape(self.shape)
        return csr_array((values, self.sparse.indices, self.sparse.indptr), shape=self.shape)


@dataclass(frozen=True, eq=False)
class Pair:
    """A program beside its network, as `pairing.pair` lays them out.

    `scale`: membrane units per unit of the network's membrane, by population. `unit`: message units per unit
    of the network's message, one number or one per neuron. `made` holds the program's populations; None
    stands for an always-on neuron that the program does not have.
    """

    program: Program
    network: Network
    made: Mapping[str, IntegerPopulation | None]
    scale: Mapping[str, float]
    unit: Mapping[str, Float]
    edges: Mapping[str, Edge]
    parameters: Mapping[tuple[str, str], Tensor]

    @property
    def formats(self) -> Formats:
        """The number formats of the program."""
        return self.program.formats

    @property
    def input_ports(self) -> dict[str, InputPort]:
        """The program's input ports by name."""
        return {port.name: port for port in self.program.inputs}

    def given(self, name: str, data: Float) -> Float:
        """Return an input's data as it is given to the program, of the data that the network receives."""
        port = next(p for p in self.network.inputs if p.name == name)
        return data / (port.host_gain or 1.0)

    def incoming(self, name: str) -> list[Edge]:
        """Return the projections to a population."""
        return [e for e in self.edges.values() if e.target == name]

    @property
    def reported(self) -> list[str]:
        """Populations that a user knows: those of the network, not always-on neurons, relays or copies."""
        targets = {e.target for e in self.edges.values()}
        known = [p for p in self.network.populations if not (p.kind.sends_state or p.kind.relays)]
        own = [p.name for p in known if ".relay" not in p.name]
        return [n for n in own if n in targets or not n.endswith(".bias")]
